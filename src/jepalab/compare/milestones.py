"""When each arm got there: what it had seen, computed and waited by the time its curve reached a threshold.

An end point at one short budget favours whoever starts fast, so a report gives the way as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jepalab.compare.curves import costs, end_of_curve, training_lines
from jepalab.compare.readings import Readings, number
from jepalab.compare.sheets import Sheet, Table
from jepalab.compare.tables import amount


def thresholds(readings: Readings, condition: str) -> dict[str, float]:
    """By name: the goals that were declared; without any, the best floor, and half way from it to the best trained arm,
    or nothing where nobody beats a floor.
    """
    if readings.goals:
        return {f"reach {number(goal, 2)}": goal for goal in readings.goals}
    found = [
        (arm, value)
        for arm in readings.arms_in(condition)
        if (value := end_of_curve(readings, condition, arm)) is not None
    ]
    floor = max(((arm, mean) for arm, mean in found if arm.role == "floor"), key=lambda pair: pair[1], default=None)
    best = max((mean for arm, mean in found if not arm.is_reference), default=-math.inf)
    if floor is None or best <= floor[1]:
        return {}
    half = (floor[1] + best) / 2
    return {f"pass {floor[0].name} ({number(floor[1], 3)})": floor[1], f"reach {number(half, 3)}": half}


def milestone_table(readings: Readings, condition: str) -> Table | None:
    """What each arm had spent, in every price, when its mean curve reached each threshold; None without any."""
    goals, prices = thresholds(readings, condition), costs(readings)
    lines = {price: {line.arm: line.points for line in training_lines(readings, condition, price)} for price in prices}
    arms = [arm for arm in readings.arms_in(condition) if arm in lines["flops"]]
    if not goals or not arms:
        return None
    places = [(goal, price) for goal in goals.values() for price in prices]
    printed, rows = [], []
    for arm in arms:
        spent = [reached(lines[price][arm], goal) for goal, price in places]
        end = lines["flops"][arm][-1][1]
        printed.append([arm.name, *("never" if value is None else amount(value) for value in spent), number(end, 3)])
        rows.append([condition, arm.name, *spent, end])
    headings = [f"{label} to {name}" for name in goals for label in prices.values()]
    meant = (
        "the goals that were declared (the last one dotted above)"
        if readings.goals
        else "the best floor, and half way from it to the best trained arm (dotted above)"
    )
    note = (
        f"Thresholds: {meant}. Between readings the curve is taken as straight, and one that starts above a threshold "
        "counts as there at its first reading; readings are few, so all this is rough."
    )
    name = readings.name(readings.primary)
    sheet = Sheet(f"time to threshold {condition}", ["condition", "arm", *headings, "at the end"], rows)
    columns = ["arm", *headings, f"{name} at the end"]
    return Table(f"Time to threshold, {condition}", columns, printed, sheet, note=note)


def reached(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """Where a line through the points first reaches the goal; its first point if that does; None if it never does."""
    for i, (x, y) in enumerate(points):
        if y >= goal:
            if i == 0:
                return x
            before_x, before_y = points[i - 1]
            return before_x + (x - before_x) * (goal - before_y) / (y - before_y)
    return None
