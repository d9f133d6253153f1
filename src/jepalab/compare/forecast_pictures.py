"""The second half of clips as arms foretell it, beside the last frame and a velocity kept up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jepalab.compare.image_pictures import HIDDEN
from jepalab.compare.kept import Arrays, condition_figure
from jepalab.compare.movies import Movies, in_colour, movie_card
from jepalab.compare.readings import Arm, Readings, number
from jepalab.compare.sheets import Entry, Figure, Sheet, Table

FLOORS = {"persistence_mse": "last frame repeated", "velocity_mse": "velocity kept up"}


def forecast_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    """One animation an arm below the truth, all in step; None where no arm foretells."""
    told = {arm: kept for arm, kept in arms.items() if "forecast" in kept}
    if not told:
        return None
    first = next(iter(told.values()))
    given, truth = int(first["given"]), in_colour(first["clips"])
    shown: dict[str, Movies] = {"truth": truth, "given": truth.copy()}
    shown["given"][:, given:] = HIDDEN
    shown |= _without_model(truth, given)
    shown |= {arm.name: in_colour(kept["forecast"]) for arm, kept in told.items()}
    words, rows = [], []
    for name, movies in shown.items():
        if name in ("truth", "given"):
            continue
        error = ((movies[:, given:] / 255.0 - truth[:, given:] / 255.0) ** 2).mean((0, 2, 3, 4))
        words.append(f"{name} {error.mean():.4f}")
        rows += [[name, given + t, float(each)] for t, each in enumerate(error)]
    caption = f"Mean squared error of a pixel of these clips' second half: {'; '.join(words)}."
    columns = ["arm", "frame", "mean_squared_error"]
    return condition_figure(
        readings, condition, [movie_card("", shown, condition)], caption, "foretold clips", columns, rows
    )


def forecast_table(readings: Readings, condition: str) -> Table | None:
    """The error of each arm that foretells, with those of what needs no model beside it; None where none does."""
    printed, rows = [], []
    for arm in readings.arms_in(condition):
        found = [readings.estimate(condition, arm, name) for name in ("forecast_mse", *FLOORS, "forecast_skill")]
        if found[0] is None:
            continue
        means: Sequence[Entry] = [None if value is None else value.mean for value in found]
        printed.append([arm.name, *("–" if value is None else number(value.mean, 4) for value in found)])
        rows.append([condition, arm.name, *means])
    if not rows:
        return None
    note = "Skill: 1 less the error over that of the last frame repeated; above 0 is better than a still picture."
    names = ["error of the second half", *FLOORS.values(), "skill"]
    sheet = Sheet(f"forecasts {condition}", ["condition", "arm", "forecast_mse", *FLOORS, "forecast_skill"], rows)
    return Table(f"Mean squared error of foretold pixels, {condition}", ["arm", *names], printed, sheet, note=note)


def _without_model(truth: Movies, given: int) -> dict[str, Movies]:
    still, moving = truth.copy(), truth.copy()
    last, before = (truth[:, given - i].astype(np.float64) for i in (1, 2))
    for ahead in range(1, truth.shape[1] - given + 1):
        still[:, given - 1 + ahead] = truth[:, given - 1]
        moving[:, given - 1 + ahead] = np.clip(last + ahead * (last - before), 0, 255).round().astype(np.uint8)
    return {"last frame": still, "velocity": moving}
