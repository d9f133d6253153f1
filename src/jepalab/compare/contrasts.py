"""Contrasts: what a comparison claims, declared before it runs and judged after (Holm, 1979; Schuirmann, 1987).

A cell's result is what one arm scored in one condition with one seed:

    {"arm": str, "condition": str, "seed": int, "metrics": {name: float}, "status": "done" or "failed", ...}

Arms are compared within a seed. A collapsed run is a value and counts; only a failed cell, or a metric that is
absent or not finite, is missing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .equal_flops import note_equal_flops
from .judgement import Judgement, adjust_all, as_exploratory, decide
from .stats import spearman

CellResult = Mapping[str, Any]
FEWEST_ARMS_TO_ORDER = 4


@runtime_checkable
class Contrast(Protocol):
    """A claim with its reason and its source, which the cells of a finished comparison can judge."""

    @property
    def name(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def because(self) -> str: ...
    @property
    def source(self) -> str: ...

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        """The judgement of this contrast as if it were the only one declared."""
        ...


@dataclass(frozen=True)
class Better:
    """Claims that `better` has a larger `metric` than `than`, by more than `threshold`.

    Larger is taken literally: for an error, `better` names the arm that is claimed to have more of it.
    Held if the whole interval lies above the threshold and the adjusted p-value is below .05; refuted if the
    whole interval lies below it and the adjusted p-value of the opposite is below .05.

    than_metric  what of `than` is compared with `metric` of `better`, where it is another, such as a quantile.
    """

    name: str
    _: KW_ONLY
    better: str
    than: str
    metric: str
    condition: str
    because: str
    source: str
    threshold: float = 0.0
    than_metric: str = ""

    def __post_init__(self) -> None:
        _check_arms_differ(self.name, self.better, self.than)

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        by = f" by more than {self.threshold:g}" if self.threshold else ""
        than = f"{self.than}'s {self.than_metric}" if self.than_metric else self.than
        claim = f"{self.better} exceeds {than} on {self.metric} ({self.condition}){by}"
        return _judge_pair(self, cells, kind="better", claim=claim, claimed=(self.threshold, math.inf))


@dataclass(frozen=True)
class Equivalent:
    """Claims that `better` and `than` differ in `metric` by less than `margin`, in units of the metric.

    Held if the adjusted p-value of two one-sided tests is below .05; refuted if the whole interval lies outside
    the margin and the adjusted p-value of the opposite is below .05.

    floor  an arm that at least one of them has to exceed by the margin, in the mean: two failures are no tie.
    """

    name: str
    _: KW_ONLY
    better: str
    than: str
    metric: str
    condition: str
    margin: float
    because: str
    source: str
    floor: str = ""

    def __post_init__(self) -> None:
        _check_arms_differ(self.name, self.better, self.than)
        if not 0 < self.margin < math.inf:
            raise ValueError(f"{self.name}: wanted a margin above 0, got {self.margin}")

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        claim = f"{self.better} equals {self.than} on {self.metric} ({self.condition}) within {self.margin:g}"
        judge = partial(_judge_pair, self, kind="equivalent", claim=claim, claimed=(-self.margin, self.margin))
        if self.floor and self._is_at_the_floor(cells):
            return replace(
                judge([]), note=f"neither is more than {self.margin:g} above {self.floor}: no tie to speak of"
            )
        return judge(cells)

    def _is_at_the_floor(self, cells: Sequence[CellResult]) -> bool:
        found = _readings(cells, self.metric, self.condition)
        mean = {
            arm: np.mean([value for (name, _), value in found.items() if name == arm] or [math.nan])
            for arm in (self.better, self.than, self.floor)
        }
        return not max(mean[self.better], mean[self.than]) > mean[self.floor] + self.margin


@dataclass(frozen=True)
class Unordered:
    """Claims that `metric` does not rank the arms as `usefulness` does.

    The value of a seed is the rank correlation of the two metrics across the arms, averaged over conditions.
    Held if the whole interval lies below `threshold`, refuted if it lies above, with the adjusted p-values below
    .05 as in `Better`. A seed counts where every condition has at least 4 of the arms.
    """

    name: str
    _: KW_ONLY
    metric: str
    usefulness: str
    conditions: tuple[str, ...]
    arms: tuple[str, ...]
    because: str
    source: str
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if not self.conditions or self.metric == self.usefulness:
            raise ValueError(f"{self.name}: wanted two different metrics and one condition or more, got {self}")

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        correlations, note = _rank_correlations(cells, self)
        blank = Judgement(
            name=self.name,
            kind="unordered",
            claim=f"{self.metric} does not order the arms by {self.usefulness} ({', '.join(self.conditions)})",
            better=None,
            than=None,
            metric=self.metric,
            condition=", ".join(self.conditions),
            because=self.because,
            source=self.source,
            note=note,
        )
        return decide(blank, correlations, claimed=(-math.inf, self.threshold))


def judge_all(
    contrasts: Sequence[Contrast], cells: Sequence[CellResult], *, primary: Collection[str] | None = None
) -> list[Judgement]:
    """Judges every contrast, with Holm's correction over the `primary` ones (by name; all unless given).

    A declared contrast that could not be tested still counts in the correction, as a p-value of 1. The note of a
    primary `Better` says whether the difference keeps its sign at equal FLOPs, where curves tell.

    Raises:
        ValueError: two contrasts share a name, or `primary` names one that is not declared.
    """
    names = [contrast.name for contrast in contrasts]
    family = set(names if primary is None else primary)
    if len(set(names)) < len(names) or family - set(names):
        raise ValueError(f"wanted distinct names that include the primary ones, got {names}, primary {sorted(family)}")
    judgements = [contrast.judge(cells) for contrast in contrasts]
    by_name = {each.name: each for each in adjust_all([each for each in judgements if each.name in family])}
    for contrast in contrasts:
        if isinstance(contrast, Better) and contrast.name in family and not contrast.than_metric:
            judged = by_name[contrast.name]
            by_name[contrast.name] = note_equal_flops(judged, cells, threshold=contrast.threshold)
    return [by_name.get(each.name) or as_exploratory(each) for each in judgements]


def answer(judgements: Sequence[Judgement]) -> str:
    """One line of plain English: how many contrasts held, which, and which were refuted."""
    primary = [judgement for judgement in judgements if judgement.is_primary]
    if not primary:
        return "No contrast was declared."
    held, refuted = ([each for each in primary if each.verdict == verdict] for verdict in ("held", "refuted"))
    parts = [f"{len(held)} of {len(primary)} declared contrasts held" + _listed(held)]
    if refuted:
        parts.append(f"{len(refuted)} refuted" + _listed(refuted))
    if len(held) + len(refuted) < len(primary):
        parts.append(f"{len(primary) - len(held) - len(refuted)} not shown")
    return ". ".join(parts) + "."


def _judge_pair(
    contrast: Better | Equivalent, cells: Sequence[CellResult], *, kind: str, claim: str, claimed: tuple[float, float]
) -> Judgement:
    differences, note = _paired_differences(cells, contrast)
    blank = Judgement(
        name=contrast.name,
        kind=kind,
        claim=claim,
        better=contrast.better,
        than=contrast.than,
        metric=contrast.metric,
        condition=contrast.condition,
        because=contrast.because,
        source=contrast.source,
        note=note,
    )
    return decide(blank, differences, claimed=claimed)


def _paired_differences(cells: Sequence[CellResult], contrast: Better | Equivalent) -> tuple[list[float], str]:
    """better - than for each seed that both arms have, and a note on the seeds that only one has."""
    arms = (contrast.better, contrast.than)
    values = _readings(cells, contrast.metric, contrast.condition)
    if isinstance(contrast, Better) and contrast.than_metric:
        others = _readings(cells, contrast.than_metric, contrast.condition)
        values = {key: value for key, value in values.items() if key[0] != contrast.than} | {
            key: value for key, value in others.items() if key[0] == contrast.than
        }
    seeds = sorted({c["seed"] for c in cells if c["arm"] in arms and c["condition"] == contrast.condition})
    paired = [seed for seed in seeds if all((arm, seed) in values for arm in arms)]
    if not paired:
        return [], "no paired seeds"
    differences = [values[contrast.better, seed] - values[contrast.than, seed] for seed in paired]
    return differences, _missing_note(len(seeds) - len(paired), len(seeds), "pairs")


def _rank_correlations(cells: Sequence[CellResult], contrast: Unordered) -> tuple[list[float], str]:
    """Spearman's correlation for each seed, averaged over conditions, and a note on the seeds left out."""
    readings = [
        (_readings(cells, contrast.metric, condition), _readings(cells, contrast.usefulness, condition))
        for condition in contrast.conditions
    ]
    seeds = sorted({c["seed"] for c in cells if c["arm"] in contrast.arms and c["condition"] in contrast.conditions})
    correlations, most = [], 0
    for seed in seeds:
        keys = [(arm, seed) for arm in contrast.arms]
        pairs = [[(metric[key], use[key]) for key in keys if key in metric and key in use] for metric, use in readings]
        fewest = min(map(len, pairs))
        most = max(most, fewest)
        if fewest >= FEWEST_ARMS_TO_ORDER:
            correlations.append(float(np.mean([spearman(*zip(*each, strict=True)) for each in pairs])))
    if not correlations:
        return [], f"needs {FEWEST_ARMS_TO_ORDER} arms measured in one seed, found {most}"
    return correlations, _missing_note(len(seeds) - len(correlations), len(seeds), "seeds")


def _readings(cells: Sequence[CellResult], metric: str, condition: str) -> dict[tuple[str, int], float]:
    """The finite values of a metric in the finished cells of a condition, by (arm, seed)."""
    values: dict[tuple[str, int], float] = {}
    for cell in cells:
        key = cell["arm"], cell["seed"]
        value = cell["metrics"].get(metric) if cell["status"] == "done" else None
        if cell["condition"] != condition or value is None or not math.isfinite(value):
            continue
        if key in values:
            raise ValueError(f"wanted one cell for each arm, condition and seed, got two for {(condition, *key)}")
        values[key] = float(value)
    return values


def _missing_note(num_missing: int, num_all: int, what: str) -> str:
    return f"{num_missing} of {num_all} {what} missing" if num_missing else ""


def _check_arms_differ(name: str, better: str, than: str) -> None:
    if better == than:
        raise ValueError(f"{name}: wanted two different arms, got {better!r} twice")


def _listed(judgements: list[Judgement]) -> str:
    return ": " + "; ".join(map(_with_numbers, judgements)) if judgements else ""


def _with_numbers(judgement: Judgement) -> str:
    low, high = judgement.interval
    numbers = f"{judgement.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, {judgement.num_seeds} seeds"
    return f"{judgement.name} ({numbers})"
