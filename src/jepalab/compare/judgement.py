"""Judgements: what the seeds say about one declared claim (Holm, 1979; Schuirmann, 1987)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from .stats import NO_INTERVAL, bootstrap_interval, holm, mean_interval, mean_p_value

Verdict = Literal["held", "refuted", "not shown"]
ALPHA = 0.05
BOOTSTRAP_SEED = 0  # a judgement depends on the values alone: judging them again gives the same numbers


@dataclass(frozen=True)
class Judgement:
    """What the seeds say about one contrast.

    better, than        the two arms; None for `Unordered`, which names more than two.
    difference          mean over seeds of better - than; for `Unordered` the mean rank correlation.
    interval            95 % (low, high) of the difference; NaN where there is none.
    bootstrap_interval  the same by bootstrap-t, whatever the number of seeds.
    p_value             for the claim. `opposite_p_value` is for its contrary, which a refutation has to show.
    adjusted_p_value    after Holm's correction over the primary contrasts; so is its opposite.
    is_primary          False for an exploratory contrast: it has no p-values and is never held or refuted.
    """

    name: str
    kind: str
    claim: str
    better: str | None
    than: str | None
    metric: str
    condition: str
    because: str
    source: str
    note: str
    difference: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    bootstrap_interval: tuple[float, float] = (math.nan, math.nan)
    p_value: float = math.nan
    opposite_p_value: float = math.nan
    adjusted_p_value: float = math.nan
    adjusted_opposite_p_value: float = math.nan
    num_seeds: int = 0
    verdict: Verdict = "not shown"
    is_primary: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them: intervals as lists, NaN as None."""
        return {
            key: [_json_safe(bound) for bound in value] if isinstance(value, tuple) else _json_safe(value)
            for key, value in asdict(self).items()
        }


def decide(blank: Judgement, values: list[float], *, claimed: tuple[float, float]) -> Judgement:
    """Fills in the numbers and the verdict on the claim that the mean of the values lies within `claimed`."""
    if not values:
        return blank
    if len(values) == 1:
        return replace(
            blank, difference=values[0], num_seeds=1, note="; ".join(filter(None, [blank.note, NO_INTERVAL]))
        )
    low, high = claimed
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    interval = mean_interval(values, generator=generator)
    beside = interval if interval.method == "bootstrap" else bootstrap_interval(values, generator=generator)
    above_low, below_low = (mean_p_value(values, null=low, alternative=side) for side in ("greater", "less"))
    above_high, below_high = (mean_p_value(values, null=high, alternative=side) for side in ("greater", "less"))
    num_ends = sum(map(math.isfinite, claimed))
    # Two one-sided tests at 5 % put the 90 % interval inside the margin; the 95 % one need not be.
    inside = num_ends == 2 or low < interval.low <= interval.high < high
    outside = interval.high < low or interval.low > high
    judgement = replace(
        blank,
        difference=interval.estimate,
        interval=(interval.low, interval.high),
        bootstrap_interval=(beside.low, beside.high),
        p_value=max(above_low, below_high),
        opposite_p_value=min(1.0, num_ends * min(below_low, above_high)),
        num_seeds=interval.num_seeds,
        verdict="refuted" if outside else "held" if inside else "not shown",
    )
    return _adjust(judgement, judgement.p_value, judgement.opposite_p_value)


def adjust_all(judgements: list[Judgement]) -> list[Judgement]:
    """The judgements after Holm's correction; one that could not be tested counts as a p-value of 1."""
    claims, opposites = (
        holm([1.0 if math.isnan(p) else p for p in p_values])
        for p_values in ([each.p_value for each in judgements], [each.opposite_p_value for each in judgements])
    )
    return [_adjust(*each) for each in zip(judgements, claims, opposites, strict=True)]


def as_exploratory(judgement: Judgement) -> Judgement:
    """The judgement of a contrast outside the primary ones: numbers, no p-values, no verdict."""
    return replace(
        judgement,
        p_value=math.nan,
        opposite_p_value=math.nan,
        adjusted_p_value=math.nan,
        adjusted_opposite_p_value=math.nan,
        verdict="not shown",
        note="; ".join(filter(None, [judgement.note, "exploratory, no p-value"])),
        is_primary=False,
    )


def _adjust(judgement: Judgement, p_value: float, opposite_p_value: float) -> Judgement:
    """Takes the verdict back where its adjusted p-value is not below .05: an adjustment never adds evidence."""
    if judgement.num_seeds < 2:
        return judgement
    decisive = {"held": p_value, "refuted": opposite_p_value, "not shown": 1.0}[judgement.verdict]
    return replace(
        judgement,
        adjusted_p_value=p_value,
        adjusted_opposite_p_value=opposite_p_value,
        verdict=judgement.verdict if decisive < ALPHA else "not shown",
    )


def _json_safe(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
