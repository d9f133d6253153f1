"""Tunes every arm of an experiment by the same search and writes the settings its recipe reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jepalab.compare.cells import Budget, Cell, Judging
from jepalab.compare.grid import run_grid
from jepalab.compare.tune import SHARED, Choice, Knob, draw_trials, summarise
from jepalab.instruments.state import motion
from jepalab.instruments.texture import texture_budget
from jepalab.progress import Display
from jepalab.recipes import distractor, images, texture
from jepalab.recipes.image_bench import Pictures
from jepalab.records import write_json
from jepalab.run import Run

TUNING_SEED = 10_000
FAILED = 0.0  # the score of a trial that did not end: it tells nothing of the state
TUNED_CONDITIONS = ("none", "changing", "fixed")


@dataclass(frozen=True)
class Tunable:
    """What a search has to know of an experiment.

    name     of the experiment; its settings lie in NAME.tuned.json beside the recipe.
    knobs    the private knob of each arm that can be tuned.
    worlds   what `make` calls a world, for each condition.
    make     (seed, *, arm, world, settings) -> Run.
    judging  must measure `metric`, on validation; trials are ranked by it, larger is better.
    shared   the knobs that every arm has.
    """

    name: str
    knobs: Mapping[str, Knob | Choice]
    worlds: Mapping[str, Any]
    make: Callable[..., Run]
    judging: Judging
    metric: str
    shared: Sequence[Knob] = SHARED


DISTRACTOR = Tunable(
    name="distractor",
    knobs={name: arm.knob for name, arm in distractor.ARMS.items() if arm.knob},
    worlds=distractor.CONDITIONS,
    make=distractor.make_run,
    judging=Judging(instruments=(motion,), curve=(), curve_at=()),
    metric="validation_state_r2",
)
TEXTURE = Tunable(
    name="texture",
    knobs={name: arm.knob for name, arm in texture.ARMS.items() if arm.knob},
    worlds=texture.CONDITIONS,
    make=texture.make_run,
    judging=Judging(instruments=(texture_budget,), curve=(), curve_at=(), subjects=texture.subjects),
    metric="validation_semantic",
)
IMAGES = Tunable(
    name="images",
    knobs={name: arm.knob for name, arm in images.ARMS.items() if arm.knob},
    worlds={images.CONDITION: Pictures()},
    make=images.make_run,
    judging=images.judging("trial"),
    metric="linear_validation",
    shared=images.SHARED,
)


@dataclass(frozen=True)
class Search:
    """The same search for every arm.

    Args:
        out: where the trials are recorded; the same command goes on where the last one stopped.
        arms: to tune; those of the same condition share the draws of the shared knobs.
        conditions: under which to tune them.
        num_trials: of each arm under each condition.
        num_workers: trials at a time; 0 takes one for each core.
        steps: of each trial; 0 takes as many as the comparison does.
    """

    out: Path = Path("runs/tune-distractor")
    arms: tuple[str, ...] = tuple(DISTRACTOR.knobs)
    conditions: tuple[str, ...] = TUNED_CONDITIONS
    num_trials: int = 12
    num_workers: int = 0
    steps: int = 0


IMAGE_SEARCH = Search(
    out=Path("runs/tune-images"),
    arms=tuple(IMAGES.knobs),
    conditions=(images.CONDITION,),
    steps=images.TRIAL_STEPS,
)
TEXTURE_SEARCH = Search(
    out=Path("runs/tune-texture"),
    arms=tuple(TEXTURE.knobs),
    conditions=("clean", "noise 0.5", "coherent 0.5"),
    steps=texture.TRIAL_STEPS,
)


def tune_distractor(search: Search, *, display: Display | None = None) -> dict[str, Any]:
    """`tune` for `jepalab compare distractor`, by the state R2."""
    return tune(DISTRACTOR, search, display=display)


def tune_texture(search: Search, *, display: Display | None = None) -> dict[str, Any]:
    """`tune` for `jepalab compare texture`, by class, count and position together."""
    return tune(TEXTURE, search, display=display)


def tune_images(search: Search, *, pictures: Pictures, display: Display | None = None) -> dict[str, Any]:
    """`tune` for `jepalab compare images` on these pictures, by linear accuracy on validation."""
    facts = {"data": pictures.open().source}
    return tune(replace(IMAGES, worlds={images.CONDITION: pictures}), search, facts=facts, display=display)


def tune(
    tunable: Tunable, search: Search, *, facts: Mapping[str, Any] | None = None, display: Display | None = None
) -> dict[str, Any]:
    """Keeps each arm's best settings by the validation metric and returns all that is known of the search.

    The seed (of data and of weights) is one that no comparison uses. Writes NAME.tuned.json beside the recipe, keeping
    what it holds of other arms and conditions.
    """
    out, arms, conditions, num_trials = search.out, search.arms, search.conditions, search.num_trials
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
    budget = Budget(search.steps) if search.steps else None
    jobs = [(cell, TUNING_SEED) for cell in cells]
    results = run_grid(
        jobs, out=out, judging=tunable.judging, budget=budget, num_workers=search.num_workers, display=display
    )
    scores = {(each["condition"], each["arm"]): each["metrics"].get(tunable.metric, FAILED) for each in results}
    target = Path(str(files("jepalab.recipes").joinpath(f"{tunable.name}.tuned.json")))
    found = json.loads(target.read_text()) if target.exists() else {"conditions": {}}
    for condition in conditions:
        floor = scores[f"{condition}, trial 0", "R"]
        for arm in arms:
            of_arm = [scores[f"{condition}, trial {number}", arm] for number in range(num_trials)]
            summary = summarise(trials[arm], of_arm, floor=floor)
            found["conditions"].setdefault(condition, {})[arm] = summary
    found["command"] = f"jepalab tune {tunable.name}"
    found["seed"], found["num_trials"] = TUNING_SEED, num_trials
    if search.steps:
        found["steps"] = search.steps
    found |= facts or {}
    write_json(target, found)
    return found


def _cell(tunable: Tunable, arm: str, condition: str, number: int, settings: Mapping[str, Any]) -> Cell:
    make = partial(tunable.make, arm=arm, world=tunable.worlds[condition], settings=dict(settings))
    return Cell(arm, f"{condition}, trial {number}", make)
