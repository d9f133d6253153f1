"""How many labels each arm needs for what the best floor does with many, and the ratio n* of the two."""

from __future__ import annotations

import math

import numpy as np

from jepalab.compare.readings import Readings, number
from jepalab.compare.sheets import Sheet, Table
from jepalab.instruments.label_efficiency import curve_of, efficiency_ratio, labels_needed

SHOTS_SHOWN = (1, 10, 100)


def label_table(readings: Readings, condition: str) -> Table | None:
    """A row an arm: accuracy with few labels, labels a class to reach the goal, and n* against the best floor.

    The goal is what the best floor (without one, the lowest arm) does with the second most labels a class. None where
    no arm has a curve.
    """
    curves = {
        arm: {
            cell["seed"]: curve
            for cell in readings.finished(condition, arm)
            if len(curve := curve_of(cell["metrics"])) > 1
        }
        for arm in readings.arms_in(condition)
    }
    curves = {arm: each for arm, each in curves.items() if each}
    if not curves:
        return None
    sizes = sorted(set.intersection(*(set(curve) for each in curves.values() for curve in each.values())))
    if len(sizes) < 2:
        return None
    at = sizes[-2]  # not the last: resampled seeds must be able to reach the goal
    ends = {arm: float(np.mean([curve[at] for curve in each.values()])) for arm, each in curves.items()}
    floors = {arm: end for arm, end in ends.items() if arm.role == "floor"}
    base = max(floors, key=floors.__getitem__) if floors else min(ends, key=ends.__getitem__)
    goal = ends[base]
    shown = [k for k in SHOTS_SHOWN if k in sizes] or [sizes[0], sizes[-1]]
    printed, numbers = [], []
    for arm, each in curves.items():
        mean = {k: float(np.mean([curve[k] for curve in each.values()])) for k in sizes}
        needed = labels_needed(mean, goal)
        ratio, low, high = _ratio(each, curves[base], sizes, goal) if arm is not base else (1.0, math.nan, math.nan)
        interval = f"{number(low)} to {number(high)}" if math.isfinite(low) and math.isfinite(high) else "–"
        count = (
            f"more than {sizes[-1]}"
            if math.isinf(needed)
            else f"at most {sizes[0]}" * (needed <= sizes[0]) or number(needed, 1)
        )
        printed.append(
            [
                arm.name,
                *(number(mean[k], 3) for k in shown),
                count,
                number(ratio) if math.isfinite(ratio) else "–",
                interval,
            ]
        )
        finite = [value if math.isfinite(value) else None for value in (needed, ratio, low, high)]
        numbers.append([condition, arm.name, goal, *finite, *(mean[k] for k in sizes)])
    note = (
        f"The goal, {number(goal, 3)}, is what {base.name} does with {at} labels a class. n* is the labels that "
        f"an arm needs over those of {base.name}, by the curves made monotone; below 1 it saves labels. Intervals are "
        "bootstrapped over seeds."
    )
    columns = [
        "arm",
        *(f"with {k}" for k in shown),
        f"labels a class to reach {number(goal, 3)}",
        "n*",
        "95 % interval",
    ]
    keys = ["condition", "arm", "goal", "labels", "ratio", "low", "high", *(f"shot_{k}" for k in sizes)]
    return Table(
        f"Labels needed, {condition}", columns, printed, Sheet(f"labels needed {condition}", keys, numbers), note=note
    )


def _ratio(
    arm: dict[int, dict[int, float]], base: dict[int, dict[int, float]], sizes: list[int], goal: float
) -> tuple[float, float, float]:
    seeds = sorted(arm.keys() & base.keys())
    if not seeds:
        return math.nan, math.nan, math.nan
    ours, theirs = ([{k: curves[seed][k] for k in sizes} for seed in seeds] for curves in (arm, base))
    ratio = efficiency_ratio(ours, theirs, goal, generator=np.random.default_rng(0))
    return ratio.estimate, ratio.low, ratio.high
