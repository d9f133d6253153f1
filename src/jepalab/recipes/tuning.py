"""Tunes every arm of an experiment by the same search and writes the settings its recipe reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jepalab.compare.cells import Budget, Cell
from jepalab.compare.grid import run_grid
from jepalab.compare.tune import Tunable, draw_trials, finalists, summarise
from jepalab.progress import Display
from jepalab.recipes.settings import search_folder, shipped_file
from jepalab.records import write_json

TUNING_SEED = 10_000
KEPT = ("arm", "condition", "seed", "fingerprint", "status", "metrics", "error")


@dataclass(frozen=True)
class Search:
    """The same search for every arm.

    Args:
        out: where the trials are recorded; the same command goes on where the last one stopped.
        arms: to tune, all unless named; those of the same condition share the draws of the shared knobs.
        conditions: under which to tune them; those of the shipped settings unless named.
        num_trials: of each arm under each condition.
        num_finalists: best trials of each arm that are trained again on other seeds, and of which the best on average
            over all of them is chosen; 0 believes a single seed.
        num_repeats: further seeds on which each finalist is trained.
        num_workers: trials at a time; 0 takes one for each core, or one where there is a GPU.
        steps: of each trial; 0 takes as many as the shipped settings had.
        ship: also write the settings and trials beside the recipe, for everybody; for maintainers, in a checkout.
    """

    out: Path | None = None
    arms: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    num_trials: int = 12
    num_finalists: int = 3
    num_repeats: int = 2
    num_workers: int = 0
    steps: int = 0
    ship: bool = False


def tune(tunable: Tunable, search: Search, *, display: Display | None = None) -> dict[str, Any]:
    """Keeps each arm's best settings by the validation metric and returns all that is known of the search.

    Seeds (of data and of weights) are such as no comparison uses. Writes NAME.tuned.json into its folder, keeping
    what was found on the same data of other arms and conditions, and as they come the trials into NAME.trials.json.
    How many trials and steps each arm had stands in its own summary; those beside it are of the last search.
    It goes on from the trials there and from those that are shipped. Raises ValueError, when the rest is written, where
    no trial of an arm ended.
    """
    arms, conditions = search.arms or tuple(tunable.knobs), search.conditions or tuple(tunable.conditions)
    num_trials, steps = search.num_trials, search.steps or tunable.trial_steps
    out = search.out or search_folder(tunable.name)
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
    own = {kind: out / f"{tunable.name}.{kind}.json" for kind in ("tuned", "trials")}
    places = [own, *([{kind: shipped_file(tunable.name, kind) for kind in own}] if search.ship else [])]
    ended = _known_trials(shipped_file(tunable.name, "trials"), own["trials"])
    scores: dict[tuple[str, str, int], float | None] = {}
    errors: dict[str, str] = {}

    def score(jobs: Sequence[tuple[Cell, int]]) -> None:
        """Trains and judges what is not known yet."""
        for each in run_grid(
            jobs,
            out=out,
            judging=tunable.judging,
            budget=budget,
            num_workers=search.num_workers,
            display=display,
            ended=ended,
        ):
            scores[each["condition"], each["arm"], each["seed"]] = each["metrics"].get(tunable.metric)
            if tunable.metric not in each["metrics"]:
                errors[each["arm"]] = each.get("error", f"no {tunable.metric} was measured")
            if each.get("status") == "done" and each not in ended:
                ended.append({key: each[key] for key in KEPT if key in each})
                for place in places:
                    write_json(place["trials"], ended)

    def scores_of(arm: str, condition: str, seed: int = TUNING_SEED) -> list[float | None]:
        return [scores.get((_named(condition, number), arm, seed)) for number in range(num_trials)]

    score([(cell, TUNING_SEED) for cell in cells])
    best = {
        (arm, condition): finalists(scores_of(arm, condition), search.num_finalists if search.num_repeats else 0)
        for condition in conditions
        for arm in arms
    }
    seeds = [TUNING_SEED + repeat for repeat in range(1, search.num_repeats + 1)]
    again = [
        (_cell(tunable, arm, condition, number, trials[arm][number]), seed)
        for (arm, condition), numbers in best.items()
        for number in numbers
        for seed in seeds
    ]
    if again:
        score(again)
    found = _known_settings(tunable, own["tuned"])
    dead: list[str] = []
    for condition in conditions:
        floor = scores[_named(condition, 0), "R", TUNING_SEED]
        if floor is None:
            dead.append(f"the random encoder, {condition}: {errors['R']}")
            continue
        for arm in arms:
            of_arm = scores_of(arm, condition)
            if any(score is not None for score in of_arm):
                drawn_from = (*tunable.shared, tunable.knobs[arm])
                more = {
                    number: [scores_of(arm, condition, seed)[number] for seed in seeds]
                    for number in best[arm, condition]
                }
                summary = summarise(trials[arm], of_arm, floor=floor, knobs=drawn_from, repeats=more)
                summary |= tunable.of_each
                if steps:
                    summary["steps"] = steps
                found["conditions"].setdefault(condition, {})[arm] = summary
            else:
                dead.append(f"{arm}, {condition}: {errors[arm]}")
    found["command"] = f"jepalab tune {tunable.name}"
    found["seed"], found["num_trials"] = TUNING_SEED, num_trials
    if steps:
        found["steps"] = steps
    found |= tunable.facts
    for place in places:
        write_json(place["tuned"], found)
    if dead:
        raise ValueError(f"No trial ended, so these got no settings: {'; '.join(dead)}. Others did, in {own['tuned']}.")
    return found


def _known_trials(*places: Path) -> list[dict[str, Any]]:
    """The trials that are recorded, each once."""
    trials = [trial for place in places if place.is_file() for trial in json.loads(place.read_text())]
    return [*{trial["fingerprint"]: trial for trial in trials}.values()]


def _known_settings(tunable: Tunable, own: Path) -> dict[str, Any]:
    """What was found before on this data: as shipped, and over it what lies in the search's folder."""
    found: dict[str, Any] = {"conditions": {}}
    for place in (shipped_file(tunable.name), own):
        known = json.loads(place.read_text()) if place.is_file() else {"conditions": {}}
        if known.get("digest", "") == tunable.facts.get("digest", ""):
            for condition, arms in known["conditions"].items():
                found["conditions"].setdefault(condition, {}).update(arms)
            found |= {key: value for key, value in known.items() if key != "conditions"}
    return found


def _cell(tunable: Tunable, arm: str, condition: str, number: int, settings: Mapping[str, Any]) -> Cell:
    make = partial(tunable.make, arm=arm, world=tunable.worlds[condition], settings=dict(settings))
    return Cell(arm, _named(condition, number), make)


def _named(condition: str, number: int) -> str:
    return f"{condition}, trial {number}"
