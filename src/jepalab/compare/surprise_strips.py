"""One pair of clips frame by frame, and right below each frame how wrong every arm was about it."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import SubElement

import numpy as np
from jaxtyping import Float, UInt8

from jepalab.compare.drawing import LINE, Axis, Chart, Margins, number_axis, text_width
from jepalab.compare.labels import spread
from jepalab.compare.pictures import GAP, encode_strip
from jepalab.compare.readings import Arm, number

WIDTH, LEFT, CURVES, BETWEEN = 1104, 78, 210, 6
Clip = Float[np.ndarray, "t h w"]


def frames_of(num_errors: int, *, context: int, num_frames: int) -> tuple[list[int], int]:
    """The first frame that each error is about, and how many it is about: a clip model foretells several at once."""
    stride = max(1, (num_frames - context) // num_errors)
    return [context + stride * i for i in range(num_errors)], stride


def draw_aligned(
    pair: Mapping[str, Clip],
    excess: Mapping[Arm, Float[np.ndarray, " s"]],
    contexts: Mapping[Arm, int],
    *,
    frame: int,
    title: str,
) -> str:
    """The clips of a pair as strips, and below them the arms' excess over time, each value under its frames.

    pair     by what is written beside each strip.
    excess   what an arm was more wrong about in the impossible clip, by frame from its context on.
    contexts the first frame that counts for each arm; frame, the first in which the clips differ.
    """
    num_frames, height, width = next(iter(pair.values())).shape
    names = [arm.name for arm in excess]
    right = 24 + max(map(text_width, names), default=0)
    scale = (WIDTH - LEFT - right) / (num_frames * (width + GAP))
    row = height * scale + BETWEEN
    most = max((float(np.abs(values).max()) for values in excess.values()), default=1.0) or 1.0
    chart = Chart(
        title,
        "; ".join(f"{arm.name} at most {values.max():+.2f}" for arm, values in excess.items()),
        x=Axis("frame", -0.5, num_frames - 0.5, tuple((float(i), str(i + 1)) for i in range(num_frames)), False),
        y=number_axis("more wrong than about its twin", -most, most),
        size=(WIDTH, len(pair) * row + CURVES),
        margins=Margins(left=LEFT, right=right, top=len(pair) * row + 8, bottom=40),
    )
    low, high = grey_range(pair)
    for i, (name, clip) in enumerate(pair.items()):
        place = {"x": f"{LEFT + GAP * scale / 2:.1f}", "y": f"{i * row:.1f}", "height": f"{height * scale:.1f}"}
        size = {"width": f"{(num_frames * (width + GAP) - GAP) * scale:.1f}", "image-rendering": "pixelated"}
        SubElement(chart.root, "image", place | size | {"href": encode_strip(clip, low=low, high=high)})
        chart.text(name, (LEFT - 8, i * row + height * scale / 2 + 4), "tick", anchor="end")
    chart.rule_x(frame - 0.5, "threshold")
    ends = []
    for arm, values in excess.items():
        frames, stride = frames_of(len(values), context=contexts[arm], num_frames=num_frames)
        points = [(at + (stride - 1) / 2, float(value)) for at, value in zip(frames, values, strict=True)]
        chart.line(points, arm.look)
        for point in points:
            chart.dot(point, arm.look, title=f"{arm.name}: {number(point[1])} at frame {point[0] + 1:g}", radius=3)
        ends.append((arm, points[-1]))
    heights = [chart.at_y(value) for _, (_, value) in ends]
    placed = spread(heights, gap=LINE, low=chart.top + 4, high=chart.bottom - 4)
    for (arm, (at, _)), was, now in zip(ends, heights, placed, strict=True):
        chart.leader([(chart.at_x(at), was), (chart.right, was), (chart.right + 12, now)], arm.look)
        chart.text(arm.name, (chart.right + 15, now + 4), f"name {arm.look.colour}")
    return chart.markup()


def grey_range(pair: Mapping[str, Clip]) -> tuple[float, float]:
    """What is black and what is white in all clips of a pair."""
    return min(float(clip.min()) for clip in pair.values()), max(float(clip.max()) for clip in pair.values())


def as_movie(clip: Clip, *, low: float, high: float) -> UInt8[np.ndarray, "1 t h w 1"]:
    """The clip as bytes, black at `low` and white at `high`."""
    grey = np.clip((clip - low) / (high - low or 1.0), 0, 1) * 255
    return np.round(grey).astype(np.uint8)[None, ..., None]
