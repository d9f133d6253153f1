"""Clips that arms have to show: kept as arrays when a cell ends, drawn as animated pictures that need no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.forecast_pictures import forecast_figure, forecast_table
from jepalab.compare.image_pictures import BLOCKS, HIDDEN, RIGHT, WRONG
from jepalab.compare.kept import Arrays, condition_figure, kept_arrays
from jepalab.compare.movies import Movies, in_colour, movie_card, on_pixels
from jepalab.compare.readings import Arm, Readings, listed
from jepalab.compare.sheets import Entry, Figure, Section
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.clip_pictures import draw_clips
from jepalab.run import Run

SUFFIX = ".clips.npz"


def draw_clip_cell(cell: Cell, run: Run, pictures: Path, *, seed: int, encoder: str = "") -> None:
    """Writes the clips of one arm as arrays into `pictures`, for one seed, as the encoder of that name sees them."""
    if run.seed == seed and isinstance(run.stream, SampleStream):
        file = picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}{SUFFIX}"
        drawn = draw_clips(run.objective, run.stream, encoder=encoder)
        np.savez_compressed(file, **drawn)  # pyrefly: ignore[bad-argument-type]


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
            "The second half, foretold from the first",
            "By every arm that was trained to predict later frames from earlier ones, and by what needs no model. A "
            "JEPA answers in embeddings: a linear map draws them, fitted afterwards to the embeddings of true clips.",
            figures=[f for c, arms in kept.items() if (f := forecast_figure(readings, c, arms))],
            tables=[table for c in readings.conditions if (table := forecast_table(readings, c))],
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


def _mask_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    alike: dict[bytes, list[Arm]] = {}
    for arm, kept in arms.items():
        if "context" in kept and "grid" in kept:
            names = [name for name in sorted(kept) if name.startswith(("context", "target"))]
            alike.setdefault(b"".join(kept[name].tobytes() for name in names), []).append(arm)
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for group in alike.values():
        kept, names = arms[group[0]], ", ".join(arm.name for arm in group)
        movies, grid = in_colour(kept["clips"]), kept["grid"].tolist()
        strips = {"clip": movies}
        suffixes = sorted(name.removeprefix("context") for name in kept if name.startswith("context"))
        for which, suffix in enumerate(suffixes, 1):
            context, target = kept[f"context{suffix}"], kept[f"target{suffix}"]
            seen, blocks = movies.copy(), (movies * 0.35).astype(np.uint8)
            seen[~on_pixels(context, grid, movies.shape[1:4])] = HIDDEN
            for g in range(target.shape[1]):
                where = on_pixels(target[:, g], grid, movies.shape[1:4])
                blocks[where] = (0.5 * movies[where] + 0.5 * np.array(BLOCKS[g % len(BLOCKS)])).astype(np.uint8)
            number = f" {which}" if len(suffixes) > 1 else ""
            strips |= {f"seen{number}": seen, f"predicted{number}": blocks}
            shares = context.mean(1), target.any(1).mean(1)
            shown = [f"{share.mean():.0%}".replace("%", " %") for share in shares]
            words.append(f"{names}{number and f', mask{number}'}: {shown[0]} seen, {shown[1]} predicted")
            rows += [[names, which, k, float(a), float(b)] for k, (a, b) in enumerate(zip(*shares, strict=True))]
        panels.append(movie_card(names, strips, condition))
    caption = f"Shares of a clip's patches. {'; '.join(words)}."
    columns = ["arms", "mask", "clip", "seen", "predicted"]
    return condition_figure(readings, condition, panels, caption, "masks", columns, rows)


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
