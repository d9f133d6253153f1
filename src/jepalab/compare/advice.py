"""What to take home from a comparison: the best trained arm, what it cannot be told from, and whether it beats floors.

Advice, not a verdict: the contrasts were declared beforehand, which arm is best was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jepalab.compare.contrasts import CellResult
from jepalab.compare.stats import paired_interval

ROLES = ("(floor)", "(ceiling)")


def advise(
    cells: Sequence[CellResult], *, arms: Mapping[str, str], condition: str, metric: str, name: str
) -> list[str]:
    """Sentences about the arm that competes and has the highest mean of `metric` on validation.

    arms    their labels; those that say "(floor)" or "(ceiling)" do not compete.
    metric  on test: what is quoted. `metric`_validation is what arms are ranked by, so that the score which is quoted
            is not the luckiest of several; where it was not recorded for every arm, the metric itself.
    name    of the metric, as it is printed.
    """
    by_arm = _by_seed(cells, arms, condition, metric)
    rivals = {arm: v for arm, v in by_arm.items() if v and not any(role in arms[arm] for role in ROLES)}
    if not rivals:
        return [f"No trained arm has a {name} yet."]
    chosen_by = {arm: v for arm, v in _by_seed(cells, arms, condition, f"{metric}_validation").items() if v}
    chosen_by = chosen_by if rivals.keys() <= chosen_by.keys() else rivals
    ranked = sorted(rivals, key=lambda arm: -float(np.mean([*chosen_by[arm].values()])))
    best, first = ranked[0], rivals[ranked[0]]
    mean = float(np.mean([*first.values()]))
    by = "" if chosen_by is rivals else " on validation"
    said = [
        f"Highest {name}{by}: {arms[best]} ({best}), {mean:.3f}{' on test' if by else ''} over {len(first)} seed(s)."
    ]
    floors = {arm: v for arm, v in by_arm.items() if v and "(floor)" in arms[arm]}
    if floors:
        floor = max(floors, key=lambda arm: float(np.mean([*floors[arm].values()])))
        height = float(np.mean([*floors[floor].values()]))
        if mean <= height:
            return [
                *said,
                f"That is not above {arms[floor]} ({height:.3f}): at this budget no training has paid. Train longer, "
                "or use what needs no training.",
            ]
        said.append(f"The best floor, {arms[floor]}, has {height:.3f}.")
    equals = [arm for arm in ranked[1:] if not _is_told_apart(first, rivals[arm])]
    if equals:
        named = ", ".join(f"{arms[arm]} ({np.mean([*rivals[arm].values()]):.3f})" for arm in equals)
        said.append(f"It cannot be told apart from {named}: choose among these by cost, or by another read-out below.")
    elif len(ranked) > 1:
        said.append("It is told apart from every other trained arm: every 95 % interval of a difference is above zero.")
    return said


def _by_seed(
    cells: Sequence[CellResult], arms: Mapping[str, str], condition: str, metric: str
) -> dict[str, dict[int, float]]:
    """The metric of each arm, by seed."""
    return {arm: {c["seed"]: c["metrics"][metric] for c in cells if _counts(c, arm, condition, metric)} for arm in arms}


def _counts(cell: CellResult, arm: str, condition: str, metric: str) -> bool:
    return (cell["arm"], cell["condition"]) == (arm, condition) and metric in cell["metrics"]


def _is_told_apart(first: Mapping[int, Any], other: Mapping[int, Any]) -> bool:
    """Whether the interval of the paired difference lies above zero; one seed tells nothing apart."""
    seeds = sorted(first.keys() & other.keys())
    if len(seeds) < 2:
        return False
    generator = np.random.default_rng(0)
    found = paired_interval([first[s] for s in seeds], [other[s] for s in seeds], generator=generator)
    return found.low > 0
