"""Tunes every arm of an experiment by the same search and writes the settings its recipe reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jepalab.compare.cells import Budget, Cell
from jepalab.compare.grid import run_grid
from jepalab.compare.tune import Tunable, draw_trials, summarise
from jepalab.progress import Display
from jepalab.records import write_json

TUNING_SEED = 10_000
KEPT = ("arm", "condition", "seed", "fingerprint", "status", "metrics", "error")
FAILED = 0.0  # the score of a trial that did not end: it tells nothing of the state


@dataclass(frozen=True)
class Search:
    """The same search for every arm.

    Args:
        out: where the trials are recorded; the same command goes on where the last one stopped.
        arms: to tune, all unless named; those of the same condition share the draws of the shared knobs.
        conditions: under which to tune them; those of the shipped settings unless named.
        num_trials: of each arm under each condition.
        num_workers: trials at a time; 0 takes one for each core, or one where there is a GPU.
        steps: of each trial; 0 takes as many as the shipped settings had.
    """

    out: Path | None = None
    arms: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    num_trials: int = 12
    num_workers: int = 0
    steps: int = 0


def tune(tunable: Tunable, search: Search, *, display: Display | None = None) -> dict[str, Any]:
    """Keeps each arm's best settings by the validation metric and returns all that is known of the search.

    The seed (of data and of weights) is one that no comparison uses. Writes NAME.tuned.json beside the recipe, keeping
    what it holds of other arms and conditions, and as they come the trials themselves into NAME.trials.json, from
    which a search on any machine goes on.
    """
    arms, conditions = search.arms or tuple(tunable.knobs), search.conditions or tuple(tunable.conditions)
    num_trials, steps = search.num_trials, search.steps or tunable.trial_steps
    out = search.out or Path("runs") / f"tune-{tunable.name}"
    if unknown := {*arms, *conditions} - {*tunable.knobs, *tunable.worlds}:
        raise ValueError(
            f"Unknown: {', '.join(unknown)}. Arms: {', '.join(tunable.knobs)}; conditions: {', '.join(tunable.worlds)}."
        )
    trials = {arm: draw_trials(tunable.knobs[arm], num_trials, shared=tunable.shared) for arm in arms}
    cells = [
        _cell(tunable, arm, condition, number, settings)
        for condition in conditions
        for number in range(num_trials)
        for arm in arms
        for settings in [trials[arm][number]]
    ] + [_cell(tunable, "R", condition, 0, {}) for condition in conditions]
    budget = Budget(steps) if steps else None
    jobs = [(cell, TUNING_SEED) for cell in cells]
    place = Path(str(files("jepalab.recipes").joinpath(f"{tunable.name}.trials.json")))
    ended = json.loads(place.read_text()) if place.exists() else []
    scores = {}
    for each in run_grid(
        jobs,
        out=out,
        judging=tunable.judging,
        budget=budget,
        num_workers=search.num_workers,
        display=display,
        ended=ended,
    ):
        scores[each["condition"], each["arm"]] = each["metrics"].get(tunable.metric, FAILED)
        if each.get("status") == "done" and each not in ended:
            ended.append({key: each[key] for key in KEPT if key in each})
            write_json(place, ended)
    target = place.with_name(f"{tunable.name}.tuned.json")
    found = json.loads(target.read_text()) if target.exists() else {"conditions": {}}
    for condition in conditions:
        floor = scores[f"{condition}, trial 0", "R"]
        for arm in arms:
            of_arm = [scores[f"{condition}, trial {number}", arm] for number in range(num_trials)]
            summary = summarise(trials[arm], of_arm, floor=floor)
            found["conditions"].setdefault(condition, {})[arm] = summary
    found["command"] = f"jepalab tune {tunable.name}"
    found["seed"], found["num_trials"] = TUNING_SEED, num_trials
    if steps:
        found["steps"] = steps
    found |= tunable.facts
    write_json(target, found)
    return found


def _cell(tunable: Tunable, arm: str, condition: str, number: int, settings: Mapping[str, Any]) -> Cell:
    make = partial(tunable.make, arm=arm, world=tunable.worlds[condition], settings=dict(settings))
    return Cell(arm, f"{condition}, trial {number}", make)
