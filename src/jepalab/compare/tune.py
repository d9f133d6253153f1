"""Equal tuning for every arm: the same number of trials, the same draws of the shared knobs, one private knob each.

Trials train on seeds that no comparison uses and are ranked on the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Literal

import numpy as np

from jepalab.compare.cells import Judging
from jepalab.run import Run

Scale = Literal["log", "one minus", "power of two", "whole"]
Setting = float | int | str


@dataclass(frozen=True)
class Choice:
    """One tuned setting out of several named ones."""

    name: str
    values: tuple[str, ...]

    def at(self, share: float) -> str:
        """The value at a share in [0, 1] of the list."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


@dataclass(frozen=True)
class Knob:
    """One tuned number between low and high: log-uniform; 1 - log-uniform; a power of two or a whole number (ints)."""

    name: str
    low: float | int
    high: float | int
    scale: Scale = "log"

    def at(self, share: float) -> float | int:
        """The value at a share in [0, 1] of the range."""
        if self.scale == "one minus":
            return 1 - _log_between(1 - self.low, 1 - self.high, share)
        if self.scale == "power of two":
            exponents = np.arange(round(math.log2(self.low)), round(math.log2(self.high)) + 1)
            return int(2 ** exponents[min(int(share * len(exponents)), len(exponents) - 1)])
        if self.scale == "whole":
            return int(min(self.low + int(share * (self.high - self.low + 1)), self.high))
        return _log_between(self.low, self.high, share)

    def share(self, value: float | int) -> float:
        """Where in the range a value lies, 0 at the lower end and 1 at the upper, evenly on the knob's scale."""
        if self.scale == "whole":
            return (value - self.low) / (self.high - self.low)
        ends = (self.low, self.high, value)
        low, high, at = (_log(1 - end if self.scale == "one minus" else end) for end in ends)
        return (at - low) / (high - low)


SHARED = (Knob("lr", 3e-4, 1e-2), Knob("weight_decay", 1e-6, 1e-1))


@dataclass(frozen=True)
class Arm:
    """One way to train, and its one private knob (every trained arm has one; the shared ones are lr and decay)."""

    label: str
    make: Callable[..., Run]
    knob: Knob | Choice | None = None


@dataclass(frozen=True)
class Tunable:
    """What a search has to know of an experiment; a recipe's function `tunable` returns it.

    name         of the experiment; its settings lie in NAME.tuned.json beside the recipe.
    knobs        the private knob of each arm that can be tuned.
    worlds       what `make` calls a world, for each condition.
    make         (seed, *, arm, world, settings) -> Run.
    judging      must measure `metric`, on validation; trials are ranked by it, larger is better.
    conditions   under which arms are tuned unless others are asked for.
    trial_steps  of each trial; 0 takes as many as the comparison does.
    shared       the knobs that every arm has.
    facts        what else to write down beside the settings, and `of_each`, beside those of each arm.
    """

    name: str
    knobs: Mapping[str, Knob | Choice]
    worlds: Mapping[str, Any]
    make: Callable[..., Run]
    judging: Judging
    metric: str
    conditions: Sequence[str]
    trial_steps: int = 0
    shared: Sequence[Knob] = SHARED
    facts: Mapping[str, Any] = field(default_factory=dict)
    of_each: Mapping[str, Any] = field(default_factory=dict)


def draw_trials(
    private: Knob | Choice, num_trials: int, *, seed: int = 0, shared: Sequence[Knob] = SHARED
) -> list[dict[str, Setting]]:
    """Settings of each trial; arms differ in the private knob's meaning and in nothing else.

    Latin hypercube: each knob's range is cut in `num_trials` parts and each part is visited once.
    """
    generator = np.random.default_rng(seed)
    knobs = (*shared, private)
    cells = np.stack([generator.permutation(num_trials) for _ in knobs])
    shares = (cells + generator.random(cells.shape)) / num_trials
    trials = [
        {knob.name: knob.at(float(share)) for knob, share in zip(knobs, column, strict=True)} for column in shares.T
    ]
    return [{name: _rounded(value) for name, value in trial.items()} for trial in trials]


def expected_best(scores: Sequence[float]) -> list[float]:
    """Expected best score of 1, 2, ... trials drawn from these with replacement (Dodge et al. 2019, 1909.03004)."""
    ordered = np.sort(np.asarray(scores, dtype=float))
    ranks = np.arange(1, len(ordered) + 1) / len(ordered)
    return [float(np.sum(ordered * (ranks**n - (ranks - 1 / len(ordered)) ** n))) for n in range(1, len(ordered) + 1)]


def edges(
    settings: Mapping[str, Setting], knobs: Sequence[Knob | Choice], *, num_trials: int
) -> dict[str, Literal["lower", "upper"]]:
    """The knobs whose setting lies in the first or last of the `num_trials` parts of their range, and which it is.

    A better setting may lie outside what was searched. Named settings have no ends, and up to two trials are all ends.
    """
    found: dict[str, Literal["lower", "upper"]] = {}
    for knob in knobs:
        value = settings.get(knob.name)
        if isinstance(knob, Choice) or value is None or isinstance(value, str) or num_trials < 3:
            continue
        part = knob.share(value) * num_trials
        if part < 1 or part > num_trials - 1:
            found[knob.name] = "lower" if part < 1 else "upper"
    return found


def finalists(scores: Sequence[float | None], num: int) -> list[int]:
    """The best `num` trials, the best one first; none where there is nobody to choose from."""
    ended = {number: score for number, score in enumerate(scores) if score is not None}
    ranked = sorted(ended, key=ended.__getitem__, reverse=True)[:num]
    return ranked if len(ranked) > 1 else []


def summarise(
    trials: Sequence[dict[str, Setting]],
    scores: Sequence[float | None],
    *,
    floor: float,
    knobs: Sequence[Knob | Choice] = (),
    repeats: Mapping[int, Sequence[float | None]] | None = None,
) -> dict[str, Any]:
    """The best trial's settings, and what the search was like: every score, best-of-n curve, share above the floor.

    scores   of each trial; None for one that failed, which is no candidate and in no average, but above no floor.
    knobs    the trials were drawn from; those whose best setting lies at an end of what was searched are told.
    repeats  of the finalists, by trial: scores on further seeds. The best of several trials on one seed is partly the
             luckiest, so the best mean over all seeds is chosen among those that never failed.
    Raises ValueError where every trial failed.
    """
    ended = {number: score for number, score in enumerate(scores) if score is not None}
    if not ended:
        raise ValueError(f"All {len(scores)} trials failed, so there are no settings to choose.")
    every = {number: [ended[number], *more] for number, more in (repeats or {}).items()}
    whole = {number: [score for score in each if score is not None] for number, each in every.items()}
    means = {number: mean(found) for number, found in whole.items() if len(found) == len(every[number])} or ended
    best = max(means, key=means.__getitem__)
    return {
        "settings": trials[best],
        "score": means[best],
        "scores": list(scores),
        **({"finalists": {str(number): each for number, each in every.items()}} if every else {}),
        "expected_best_of_n": expected_best([*ended.values()]),
        "share_above_random_encoder": sum(score > floor for score in ended.values()) / len(scores),
        "edges": edges(trials[best], knobs, num_trials=len(trials)),
    }


def _log_between(low: float | int, high: float | int, share: float) -> float:
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def _log(value: float | int) -> float:
    return math.log(value) if value > 0 else -math.inf  # settings by hand may be 0


def _rounded(value: Setting) -> Setting:
    return float(f"{value:.3g}") if isinstance(value, float) else value
