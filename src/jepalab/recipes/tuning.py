"""Tunes every arm of the distractor experiment by the same search and writes the settings the recipe reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jepalab.compare.cells import Cell, Judging
from jepalab.compare.grid import run_grid
from jepalab.compare.tune import draw_trials, summarise
from jepalab.instruments.state import motion
from jepalab.progress import Display
from jepalab.recipes.distractor import ARMS, CONDITIONS, make_run
from jepalab.records import write_json

TUNING_SEED = 10_000
FAILED = 0.0  # R2 of a trial that did not end: it tells nothing of the state
TUNED_CONDITIONS = ("none", "changing", "fixed")


@dataclass(frozen=True)
class Search:
    """The same search for every arm.

    Args:
        out: where the trials are recorded; the same command goes on where the last one stopped.
        arms: to tune; those of the same condition share the draws of the shared knobs.
        conditions: under which to tune them.
        num_trials: of each arm under each condition.
        num_workers: trials at a time; 0 takes one for each core.
    """

    out: Path = Path("runs/tune-distractor")
    arms: tuple[str, ...] = tuple(name for name, arm in ARMS.items() if arm.knob)
    conditions: tuple[str, ...] = TUNED_CONDITIONS
    num_trials: int = 12
    num_workers: int = 0


def tune_distractor(search: Search, *, display: Display | None = None) -> dict[str, Any]:
    """Keeps each arm's best settings by validation state R2 and returns all that is known of the search.

    The seed (of data and of weights) is one that no comparison uses. Writes the recipe's distractor.tuned.json,
    keeping what it holds of other arms and conditions.
    """
    out, arms, conditions, num_trials = search.out, search.arms, search.conditions, search.num_trials
    if unknown := {*arms, *conditions} - {*ARMS, *CONDITIONS}:
        raise ValueError(
            f"Unknown: {', '.join(unknown)}. Arms: {', '.join(ARMS)}; conditions: {', '.join(CONDITIONS)}."
        )
    trials = {arm: draw_trials(ARMS[arm].knob, num_trials) for arm in arms}  # pyrefly: ignore[bad-argument-type]
    cells = [
        _cell(arm, condition, number, settings)
        for condition in conditions
        for number in range(num_trials)
        for arm in arms
        for settings in [trials[arm][number]]
    ] + [_cell("R", condition, 0, {}) for condition in conditions]
    judging = Judging(instruments=(motion,), curve=(), curve_at=())
    jobs = [(cell, TUNING_SEED) for cell in cells]
    scores = {
        (result["condition"], result["arm"]): result["metrics"].get("validation_state_r2", FAILED)
        for result in run_grid(jobs, out=out, judging=judging, num_workers=search.num_workers, display=display)
    }
    target = Path(str(files("jepalab.recipes").joinpath("distractor.tuned.json")))
    found = json.loads(target.read_text()) if target.exists() else {"conditions": {}}
    for condition in conditions:
        floor = scores[f"{condition}, trial 0", "R"]
        for arm in arms:
            of_arm = [scores[f"{condition}, trial {number}", arm] for number in range(num_trials)]
            summary = summarise(trials[arm], of_arm, floor=floor)
            found["conditions"].setdefault(condition, {})[arm] = summary
    found["command"] = "jepalab tune distractor"
    found["seed"], found["num_trials"] = TUNING_SEED, num_trials
    write_json(target, found)
    return found


def _cell(arm: str, condition: str, number: int, settings: dict[str, float | int]) -> Cell:
    make = partial(make_run, arm=arm, world=CONDITIONS[condition], settings=settings)
    return Cell(arm, f"{condition}, trial {number}", make)
