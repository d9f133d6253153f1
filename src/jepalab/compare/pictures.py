"""Film strips: clips and decoded predictions as small grey PNGs inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from jaxtyping import Float
from PIL import Image

from jepalab.compare.cells import slug
from jepalab.compare.readings import Arm
from jepalab.compare.sheets import Entry, Figure, Sheet

GAP, ZOOM = 2, 2
Clips = Float[np.ndarray, "k t h w"]


def data_figure(folder: Path, condition: str, *, subtitle: str) -> Figure | None:
    """The same clips with and without nuisance; None where no pictures were kept."""
    arrays = _read(_folder_of(folder, condition) / "data.npz", "with_nuisance", "without")
    if arrays is None:
        return None
    seen, clean = arrays["with_nuisance"], arrays["without"]
    panel = strips_card("", {"as seen": seen, "without nuisance": clean}, condition)
    distance = np.abs(seen - clean).mean((2, 3))
    caption = (
        f"{len(seen)} clips of {seen.shape[1]} frames. On average the nuisance adds {distance.mean():.2f} to a pixel; "
        f"the picture has a standard deviation of {clean.std():.2f}."
    )
    rows = [[k, t, float(distance[k, t])] for k in range(len(seen)) for t in range(seen.shape[1])]
    sheet = Sheet(f"data {condition}", ["clip", "frame", "mean_absolute_change"], rows)
    return Figure(condition, [panel], caption, sheet, subtitle=subtitle)


def prediction_figure(folder: Path, condition: str, arms: Sequence[Arm]) -> Figure | None:
    """What each arm that kept pictures predicts, beside the truth; None where none did."""
    found = {
        arm: arrays
        for arm in arms
        if (arrays := _read(_folder_of(folder, condition) / f"{slug(arm.name)}.npz", "truth", "predicted", "how"))
    }
    if not found:
        return None
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for arm, arrays in found.items():
        truth, predicted, how = arrays["truth"], arrays["predicted"], str(arrays["how"])
        error = ((predicted - truth) ** 2).mean((2, 3))
        panels.append(strips_card(f"{arm.name}: {how}", {"truth": truth, "predicted": predicted}, condition))
        words.append(f"{arm.name} ({how}) {error.mean():.4f}")
        rows += [[arm.name, how, k, t, float(error[k, t])] for k in range(len(truth)) for t in range(truth.shape[1])]
    caption = (
        f"Mean squared error of a pixel: {'; '.join(words)}. A decoder that was fitted afterwards shows what an "
        "embedding holds; it took no part in training."
    )
    sheet = Sheet(f"predictions {condition}", ["arm", "how", "clip", "frame", "mean_squared_error"], rows)
    return Figure(condition, panels, caption, sheet)


def encode_strip(clip: Float[np.ndarray, "t h w"], *, low: float, high: float) -> str:
    """The frames side by side as the data: address of a grey PNG, black at `low` and white at `high`."""
    t, h, w = clip.shape
    grey = np.clip((clip - low) / (high - low or 1.0), 0, 1) * 255
    strip = np.zeros((h, t * (w + GAP) - GAP, 2), dtype=np.uint8)  # the second channel leaves the gaps transparent
    for i, frame in enumerate(grey):
        strip[:, i * (w + GAP) : i * (w + GAP) + w] = np.stack([np.round(frame), np.full((h, w), 255)], -1)
    file = io.BytesIO()
    Image.fromarray(strip, "LA").save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def strips_card(title: str, strips: Mapping[str, Clips], condition: str) -> str:
    """The strips of each clip below each other, all of one clip on one scale of grey."""
    card = Element("div", {"class": "strips"})
    if title:
        SubElement(card, "h4").text = title
    num_clips = len(next(iter(strips.values())))
    for k in range(num_clips):
        low = min(float(clips[k].min()) for clips in strips.values())
        high = max(float(clips[k].max()) for clips in strips.values())
        for name, clips in strips.items():
            line = SubElement(card, "div", {"class": "strip last" if name == list(strips)[-1] else "strip"})
            SubElement(line, "span").text = name
            t, h, w = clips[k].shape
            facts = {
                "src": encode_strip(clips[k], low=low, high=high),
                "alt": f"{condition}, clip {k + 1} of {num_clips}, {t} frames: {' '.join(filter(None, [title, name]))}",
                "width": str(ZOOM * (t * (w + GAP) - GAP)),
                "height": str(ZOOM * h),
            }
            SubElement(line, "img", facts)
    return ElementTree.tostring(card, encoding="unicode", method="html")


def _read(file: Path, *names: str) -> dict[str, np.ndarray] | None:
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"{file} lacks {', '.join(missing)}; delete it or draw the pictures of this cell again.")
        return {name: arrays[name] for name in names}


def _folder_of(folder: Path, condition: str) -> Path:
    return folder / "pictures" / slug(condition)
