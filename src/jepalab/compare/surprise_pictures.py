"""Surprise under the frames: pairs of clips, and how wrong each arm was about each of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.drawing import Axis, number_axis
from jepalab.compare.kept import kept_arrays
from jepalab.compare.movies import movie_card
from jepalab.compare.panels import TWO_THIRDS, Line, draw_lines
from jepalab.compare.readings import Arm, Readings
from jepalab.compare.sheets import Entry, Figure, Section, Sheet
from jepalab.compare.surprise_strips import as_movie, draw_aligned, frames_of, grey_range
from jepalab.compare.surprise_tables import concept_table, learning_table
from jepalab.data.occluders import OccludedShapes
from jepalab.instruments.foretelling import foretellers
from jepalab.instruments.surprise import NUM_PAIRS, both_errors, choose_setting
from jepalab.run import Run

NUM_SHOWN = 64
SUFFIX, TRIALS = ".surprise.npz", "trials.npz"


def draw_trials(streams: Mapping[str, OccludedShapes], pictures: Path) -> None:
    """Writes the first pair of every concept, under every condition."""
    for condition, stream in streams.items():
        found = {}
        for concept in stream.concepts:
            pairs = stream.pairs(concept, "test", NUM_SHOWN)
            found[f"{concept} possible"] = pairs.possible[0, :, 0].numpy()
            found[f"{concept} impossible"] = pairs.impossible[0, :, 0].numpy()
            found[f"{concept} frame"] = pairs.frame.numpy()
        np.savez_compressed(picture_folder(pictures, condition) / TRIALS, **found)  # pyrefly: ignore[bad-argument-type]


def draw_surprise(cell: Cell, run: Run, pictures: Path, *, seed: int) -> None:
    """Writes how wrong one arm was over time, [k s] for possible and for impossible clips, of one seed.

    From that frame on, `context`, which is chosen on validation as for its scores.
    """
    stream: object = run.stream
    foretells = foretellers(run.objective)
    if run.seed != seed or not isinstance(stream, OccludedShapes) or not foretells:
        return
    device = next(run.objective.parameters(), torch.zeros(())).device
    run.objective.eval().cpu()
    own = next(iter(foretells.values()))
    validation = {concept: stream.pairs(concept, "validation", NUM_PAIRS["validation"]) for concept in stream.concepts}
    setting, _ = choose_setting(own, validation)
    found = {"context": np.array(setting.context)}
    for concept in stream.concepts:
        pairs = stream.pairs(concept, "test", NUM_SHOWN)
        possible, impossible = both_errors(own, pairs, context=setting.context)
        found[f"{concept} possible"], found[f"{concept} impossible"] = possible.numpy(), impossible.numpy()
    run.objective.to(device)
    np.savez_compressed(picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}{SUFFIX}", **found)  # pyrefly: ignore[bad-argument-type]


def surprise_section(folder: Path, readings: Readings) -> Section:
    """A figure for each condition and concept that was kept."""
    figures, kept, kept_conditions = [], kept_arrays(folder, readings, SUFFIX), []
    for condition in readings.conditions:
        place = folder / "pictures" / slug(condition)
        if not (place / TRIALS).exists():
            continue
        kept_conditions.append(condition)
        with np.load(place / TRIALS, allow_pickle=False) as arrays:
            trials = dict(arrays)
        concepts = dict.fromkeys(name.rpartition(" ")[0] for name in trials)
        figures += [_figure(readings, condition, concept, trials, kept.get(condition, {})) for concept in concepts]
    return Section(
        "Surprise under the frames",
        "One pair of each concept, and right below its frames by how much more wrong each arm is about the impossible "
        "clip than about its possible twin, in units of the arm's mean error on possible clips: 0 is no surprise. The "
        "dotted line is where the two clips part. Beside it both clips play; then the same over time as means over "
        "pairs, shifted so that the violations fall together.",
        figures=figures,
        tables=[
            table
            for draw in (concept_table, learning_table)
            for condition in kept_conditions
            if (table := draw(readings, condition))
        ],
    )


def _figure(
    readings: Readings,
    condition: str,
    concept: str,
    trials: Mapping[str, np.ndarray],
    kept: Mapping[Arm, Mapping[str, np.ndarray]],
) -> Figure:
    frames = trials[f"{concept} frame"]
    possible, impossible = trials[f"{concept} possible"], trials[f"{concept} impossible"]
    pair = {"possible": possible, "impossible": impossible}
    low, high = grey_range(pair)
    first = {
        arm: (arrays[f"{concept} impossible"][0] - arrays[f"{concept} possible"][0])
        / max(float(arrays[f"{concept} possible"].mean()), 1e-12)
        for arm, arrays in kept.items()
    }
    panels = [
        draw_aligned(
            pair,
            first,
            {arm: int(arrays["context"]) for arm, arrays in kept.items()},
            frame=int(frames[0]),
            title=f"Surprise under the frames of one pair, {concept}, {condition}",
        ),
        movie_card(concept, {name: as_movie(clip, low=low, high=high) for name, clip in pair.items()}, condition),
    ]
    lines, most, rows, words = [], 0.0, [], []
    for arm, arrays in kept.items():
        errors, twins = arrays[f"{concept} impossible"], arrays[f"{concept} possible"]
        after, mean = _around(twins, errors, frames, context=int(arrays["context"]), num_frames=len(possible))
        if len(after) > 1:
            points = list(zip(after, mean, strict=True))
            lines.append(Line(arm, points))
            most = max(most, *(abs(value) for value in mean))
            words.append(f"{arm.name} {max(mean):+.2f}")
            rows += [[condition, concept, arm.name, at, value] for at, value in points]
    if lines:
        low = min(line.points[0][0] for line in lines)
        high = max(line.points[-1][0] for line in lines)
        ticks = tuple((float(at), str(int(at))) for at in range(int(low), int(high) + 1, 2))
        panels.append(
            draw_lines(
                lines,
                title=f"Surprise over time, {concept}, {condition}",
                description="; ".join(words),
                x=Axis("frames after the violation", low, high, ticks),
                y=number_axis("more wrong than about its twin", -most or -1.0, most or 1.0),
                width=TWO_THIRDS,
            )
        )
    caption = f"Largest excess: {', '.join(words)}." if words else "No arm kept its errors here."
    columns = ["condition", "concept", "arm", "frames_after", "excess"]
    sheet_rows: list[list[Entry]] = [list(row) for row in rows]
    return Figure(
        f"{concept}, {condition}",
        panels,
        caption,
        Sheet(f"surprise {concept} {condition}", columns, sheet_rows),
        subtitle=readings.conditions[condition],
    )


def _around(
    possible: np.ndarray, impossible: np.ndarray, frames: np.ndarray, *, context: int, num_frames: int
) -> tuple[list[float], list[float]]:
    """Frames after the violation, and the mean excess there, in units of the mean error on possible clips."""
    num, steps = possible.shape
    first, stride = frames_of(steps, context=context, num_frames=num_frames)
    at = np.array(first)
    excess = (impossible - possible) / max(float(possible.mean()), 1e-12)
    after = ((at[None] - frames[:, None]) // stride) * stride
    found = {int(shift): float(excess[after == shift].mean()) for shift in np.unique(after)}
    counted = {shift: value for shift, value in found.items() if (after == shift).sum() >= num // 4}
    return [float(shift) for shift in counted], list(counted.values())
