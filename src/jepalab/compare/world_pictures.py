"""Films of plans and maps of latent distance: what each world model imagined beside what happened, in the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jepalab.compare.kept import kept_arrays
from jepalab.compare.movies import movie_card
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
        Section(
            "What if?",
            "From one start, the same action again and again: right, left, down, up and none. Above what happens, "
            "below what is imagined. What does not follow the actions cannot tell good plans from bad ones.",
            figures=[_futures(condition, found) for condition, arms in kept.items() if (found := _with(arms, "real"))],
        ),
        Section(
            "Which action was it?",
            "For some held-out steps, every action by how far it is imagined to lead from the frame that came: dark is "
            "near. To the right are actions to the right, below those downwards.",
            figures=[
                _energies(condition, found) for condition, arms in kept.items() if (found := _with(arms, "energy"))
            ],
        ),
    ]


def _with(arms: Mapping[Arm, Arrays], name: str) -> dict[Arm, Arrays]:
    """Those that kept such an array."""
    return {arm: arrays for arm, arrays in arms.items() if name in arrays}


def _futures(condition: str, arms: Mapping[Arm, Arrays]) -> Figure:
    panels = [
        movie_card(f"{arm.name}: {arm.label}", {"real": arrays["real"], "imagined": arrays["imagined"]}, condition)
        for arm, arrays in arms.items()
    ]
    rows = [[condition, arm.name, str(plan)] for arm, arrays in arms.items() for plan in arrays["plans"]]
    caption = f"{len(arms)} arms, the same start and the same actions for each."
    return Figure(condition, panels, caption, Sheet(f"futures {condition}", ["condition", "arm", "plan"], rows))


def _energies(condition: str, arms: Mapping[Arm, Arrays]) -> Figure:
    strips = {arm.name: arrays["energy"][:, None] for arm, arrays in arms.items()}
    rows = [
        [condition, arm.name, step, row, column, float(arrays["energy"][step, row, column])]
        for arm, arrays in arms.items()
        for step, row, column in np.ndindex(arrays["energy"].shape)
    ]
    sheet = Sheet(f"energies {condition}", ["condition", "arm", "step", "row", "column", "energy"], rows)
    caption = "As shares of the largest value. A minimum in the middle for every step is a model that ignores actions."
    return Figure(condition, [strips_card("", strips, condition)], caption, sheet)


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
