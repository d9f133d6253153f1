"""Films of plans and maps of latent distance: what each world model imagined beside what happened, in the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jepalab.compare.clip_pictures import movie_card
from jepalab.compare.kept import kept_arrays
from jepalab.compare.pictures import strips_card
from jepalab.compare.readings import Arm, Readings
from jepalab.compare.sheets import Figure, Section, Sheet

SUFFIX = ".world.npz"
Arrays = Mapping[str, np.ndarray]


def world_sections(folder: Path, readings: Readings) -> list[Section]:
    """Films and maps of every condition that kept some."""
    kept = kept_arrays(folder, readings, SUFFIX)
    return [
        Section(
            "Plans, as they were carried out",
            "The same episodes for every arm. On the left what happened: the goal in green, in orange the path that "
            "was imagined at that moment. On the right the frame that is imagined at the path's end, drawn by the "
            "model's own decoder or by one that was fitted afterwards and took no part in training.",
            figures=[_films(condition, arms) for condition, arms in kept.items()],
        ),
        Section(
            "How far is it to the goal?",
            "The distance of each place's embedding to the goal's, from near (dark) to far (light), beside the length "
            "of the way through the door. A planner goes downhill here.",
            figures=[_maps(condition, arms) for condition, arms in kept.items()],
        ),
    ]


def _films(condition: str, arms: Mapping[Arm, Arrays]) -> Figure:
    panels = [movie_card(f"{arm.name}: {arm.label}", {"": arrays["films"]}, condition) for arm, arrays in arms.items()]
    rows = [[condition, arm.name, len(arrays["films"]), arrays["films"].shape[1]] for arm, arrays in arms.items()]
    sheet = Sheet(f"plans {condition}", ["condition", "arm", "episodes", "frames"], rows)
    return Figure(condition, panels, f"{len(arms)} arms, the same episodes for each.", sheet)


def _maps(condition: str, arms: Mapping[Arm, Arrays]) -> Figure:
    way = next(iter(arms.values()))["way"]
    strips = {"the way": way[None, None]} | {arm.name: arrays["latent"][None, None] for arm, arrays in arms.items()}
    rows = [
        [condition, arm.name, row, column, float(arrays["latent"][row, column]), float(way[row, column])]
        for arm, arrays in arms.items()
        for row in range(way.shape[0])
        for column in range(way.shape[1])
    ]
    columns = ["condition", "arm", "row", "column", "latent_distance", "way"]
    caption = "Both as shares of their largest value. Where the map is flat, a planner cannot tell where to go."
    return Figure(condition, [strips_card("", strips, condition)], caption, Sheet(f"maps {condition}", columns, rows))
