"""Clips that arms have to show: kept as arrays when a cell ends, drawn as animated pictures that need no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.image_pictures import BLOCKS, GAP, HIDDEN, RIGHT, WRONG
from jepalab.compare.kept import Arrays, condition_figure, kept_arrays
from jepalab.compare.readings import Arm, Readings, listed
from jepalab.compare.sheets import Entry, Figure, Section
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.clip_pictures import draw_clips
from jepalab.run import Run

FRAME_MILLISECONDS, LAST_MILLISECONDS = 160, 480  # a clip rests on its last frame, so that its end can be seen
SHOWN_PIXELS = 80  # a frame below this is shown larger, in whole steps
SUFFIX = ".clips.npz"
Movies = UInt8[np.ndarray, "k t h w _"]


def draw_clip_cell(cell: Cell, run: Run, pictures: Path, *, seed: int) -> None:
    """Writes the clips of one arm as arrays into `pictures`, for one seed."""
    if run.seed == seed and isinstance(run.stream, SampleStream):
        file = picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}{SUFFIX}"
        np.savez_compressed(file, **draw_clips(run.objective, run.stream))  # pyrefly: ignore[bad-argument-type]


def clip_sections(folder: Path, readings: Readings) -> list[Section]:
    """What was kept below `folder`/pictures, for each condition."""
    kept = kept_arrays(folder, readings, SUFFIX)
    return [
        Section(
            "What is hidden over time, and what is predicted",
            "Masks as they are drawn in training, on test clips: grey is hidden from the encoder; each block that is "
            "predicted on its own has its colour.",
            figures=[f for c, arms in kept.items() if (f := _mask_figure(readings, c, arms))],
        ),
        Section(
            "Prediction against truth",
            "Frames that a generative arm draws where they were hidden from it.",
            figures=[f for c, arms in kept.items() if (f := _prediction_figure(readings, c, arms))],
        ),
        Section(
            "What the encoders see over time",
            "Patch features along their first three principal components as red, green and blue. Colours of two arms "
            "cannot be compared.",
            figures=[f for c, arms in kept.items() if (f := _feature_figure(readings, c, arms))],
        ),
        Section(
            "Which clips lie near",
            "For each test clip the training clips with the closest pooled features, of the same sample of training "
            "clips for every arm.",
            figures=[f for c, arms in kept.items() if (f := _neighbour_figure(readings, c, arms))],
        ),
    ]


def encode_movies(movies: Movies) -> tuple[str, int, int]:
    """The clips side by side, playing together without end, as the data: address of a WebP; its width and height."""
    num, t, h, w, _ = movies.shape
    row = np.full((t, h, num * (w + GAP) - GAP, 3), 255, dtype=np.uint8)
    for i, movie in enumerate(in_colour(movies)):
        row[:, :, i * (w + GAP) : i * (w + GAP) + w] = movie
    first, *others = [Image.fromarray(frame) for frame in row]
    file = io.BytesIO()
    pauses = [FRAME_MILLISECONDS] * (t - 1) + [LAST_MILLISECONDS]
    first.save(file, format="WEBP", save_all=True, append_images=others, duration=pauses, loop=0, lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", row.shape[2], h


def on_pixels(patches: np.ndarray, grid: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """[k n ...] on a grid of times, rows and columns to [k t h w ...]: each patch covers its pixels."""
    found = patches.reshape(len(patches), *grid, *patches.shape[2:])
    for axis, (size, length) in enumerate(zip(grid, shape, strict=True), 1):
        found = found.take(np.arange(length) * size // length, axis=axis)
    return found


def in_colour(movies: Movies) -> Movies:
    return np.repeat(movies, 3, axis=-1) if movies.shape[-1] == 1 else movies


def movie_card(title: str, rows: Mapping[str, Movies], condition: str) -> str:
    """Rows of clips below each other, one animation each."""
    card = Element("div", {"class": "strips"})
    if title:
        SubElement(card, "h4").text = title
    for name, movies in rows.items():
        line = SubElement(card, "div", {"class": "strip"})
        SubElement(line, "span").text = name
        source, width, height = encode_movies(movies)
        zoom = max(1, SHOWN_PIXELS // movies.shape[2])
        words = " ".join(filter(None, [f"{condition}, {len(movies)} clips, animated:", title, name]))
        SubElement(line, "img", {"src": source, "alt": words, "width": str(zoom * width), "height": str(zoom * height)})
    return ElementTree.tostring(card, encoding="unicode", method="html")


def _mask_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    alike: dict[bytes, list[Arm]] = {}
    for arm, kept in arms.items():
        if "context" in kept and "grid" in kept:
            alike.setdefault(kept["context"].tobytes() + kept["target"].tobytes(), []).append(arm)
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for group in alike.values():
        kept, names = arms[group[0]], ", ".join(arm.name for arm in group)
        movies, grid = in_colour(kept["clips"]), kept["grid"].tolist()
        seen, blocks = movies.copy(), (movies * 0.35).astype(np.uint8)
        seen[~on_pixels(kept["context"], grid, movies.shape[1:4])] = HIDDEN
        for g in range(kept["target"].shape[1]):
            where = on_pixels(kept["target"][:, g], grid, movies.shape[1:4])
            blocks[where] = (0.5 * movies[where] + 0.5 * np.array(BLOCKS[g % len(BLOCKS)])).astype(np.uint8)
        panels.append(movie_card(names, {"clip": movies, "seen": seen, "predicted": blocks}, condition))
        shares = kept["context"].mean(1), kept["target"].any(1).mean(1)
        shown = [f"{share.mean():.0%}".replace("%", " %") for share in shares]
        words.append(f"{names}: {shown[0]} seen, {shown[1]} predicted")
        rows += [[names, k, float(a), float(b)] for k, (a, b) in enumerate(zip(*shares, strict=True))]
    caption = f"Shares of a clip's patches. {'; '.join(words)}. Of several masks of an arm the first is shown."
    return condition_figure(readings, condition, panels, caption, "masks", ["arms", "clip", "seen", "predicted"], rows)


def _prediction_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for arm, kept in arms.items():
        if "predicted" not in kept:
            continue
        truth, drawn, grid = in_colour(kept["clips"]), in_colour(kept["predicted"]), kept["grid"].tolist()
        seen = truth.copy()
        hidden = ~on_pixels(kept["context"], grid, truth.shape[1:4])
        seen[hidden] = HIDDEN
        panels.append(movie_card(f"{arm.name}: {arm.label}", {"truth": truth, "seen": seen, "drawn": drawn}, condition))
        error = ((drawn / 255.0 - truth / 255.0) ** 2).mean((2, 3, 4))
        words.append(f"{arm.name} {error.mean():.4f}")
        rows += [[arm.name, k, t, float(error[k, t])] for k in range(len(error)) for t in range(error.shape[1])]
    caption = f"Mean squared error of a pixel over the whole clip: {'; '.join(words)}."
    columns = ["arm", "clip", "frame", "mean_squared_error"]
    return condition_figure(readings, condition, panels, caption, "predicted clips", columns, rows)


def _feature_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    shown: dict[str, Movies] = {}
    for arm, kept in arms.items():
        if "features" in kept:
            shown |= {} if shown else {"clip": in_colour(kept["clips"])}
            shown[arm.name] = on_pixels(kept["features"], kept["grid"].tolist(), kept["clips"].shape[1:4])
    panels = [movie_card("", shown, condition)] if shown else []
    names = [[name] for name in shown if name != "clip"]
    caption = (
        f"Features of {listed([name for (name,) in names])}. Where colours follow the moving things, patches say what "
        "is there and not only where they are."
    )
    return condition_figure(readings, condition, panels, caption, "clip features", ["arm"], names)


def _neighbour_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for arm, kept in arms.items():
        same, classes = kept["same"], kept["classes"].tolist()
        strips = {}
        for i, (query, near) in enumerate(zip(kept["clips"], kept["neighbours"], strict=True)):
            framed = in_colour(near).copy()
            for movie, is_same in zip(framed, same[i], strict=True):
                if is_same >= 0:
                    movie[:, :2], movie[:, -2:], movie[:, :, :2], movie[:, :, -2:] = (RIGHT if is_same else WRONG,) * 4
            strips[f"{i + 1} {classes[i]}".strip()] = np.concatenate([in_colour(query[None]), framed])
        panels.append(movie_card(arm.name, strips, condition))
        known = same[same >= 0]
        if len(known):
            words.append(f"{arm.name} {int(known.sum())} of {len(known)}")
        rows += [[arm.name, i, j, int(value)] for i, each in enumerate(same) for j, value in enumerate(each)]
    caption = "The query comes first in each row."
    if words:
        caption += f" Framed green: the same class; framed red: another. Of the same class are {', '.join(words)}."
    return condition_figure(
        readings, condition, panels, caption, "near clips", ["arm", "query", "neighbour", "same"], rows
    )
