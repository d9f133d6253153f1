"""The chief metrics along conditions that differ in one number: a strength, a persistence, a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from statistics import mean
from typing import Any

import numpy as np

from jepalab.compare.curves import SPENT
from jepalab.compare.drawing import Axis, Length, names_axis
from jepalab.compare.panels import THIRD, TWO_THIRDS, Line, draw_lines, metric_axis
from jepalab.compare.profiles import Values, best_arm
from jepalab.compare.readings import Arm, Estimate, Readings, listed
from jepalab.compare.sheets import Entry, Figure, Sheet
from jepalab.compare.tables import amount

NO_INTERVAL_AT_ALL = "One seed, so there is no interval: differences are for orientation."
Point = tuple[Length, Length]
Spots = Mapping[Arm, Mapping[str, Length]]


@dataclass(frozen=True)
class Course:
    """Conditions that differ in one number; the report draws a line an arm through them.

    name      what changes, as a heading: "Persistence of the nuisance".
    axis      its label, with a unit or symbol.
    places    the number of each condition. Conditions that did not run are left out.
    metrics   what is drawn, a panel each; none for the comparison's chief metric.
    minor     conditions whose own figures stand folded away in the report, as the line says most of it.
    is_budget whether the number is a price, so that arms are drawn against compute and time as well.
    words     what else the caption has to say.
    """

    name: str
    axis: str
    places: Mapping[str, float | int]
    metrics: Sequence[str] = ()
    minor: Sequence[str] = ()
    is_budget: bool = False
    words: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For results.json; `Course(**found)` brings it back."""
        return asdict(self) | {"places": dict(self.places)}


def course_figures(readings: Readings, course: Course) -> list[Figure]:
    """A figure for each metric; none where fewer than two conditions ran."""
    figures = [_figure(readings, course, metric) for metric in course.metrics or (readings.primary,)]
    return [figure for figure in figures if figure]


def crossing(first: Sequence[Point], second: Sequence[Point]) -> float | None:
    """The last place where two lines cross, both straight between points in log x; None where they do not.

    Points are (x, y) with x positive and ascending.
    """
    xs, other_xs = ([math.log(x) for x, _ in line] for line in (first, second))
    shared = [x for x in sorted({*xs, *other_xs}) if max(xs[0], other_xs[0]) <= x <= min(xs[-1], other_xs[-1])]
    gaps = np.interp(shared, xs, [y for _, y in first]) - np.interp(shared, other_xs, [y for _, y in second])
    apart = [(x, gap) for x, gap in zip(shared, gaps.tolist(), strict=True) if gap]  # touching is not crossing
    for (x, gap), (further, later) in reversed(list(pairwise(apart))):
        if gap * later < 0:
            return math.exp(x + gap / (gap - later) * (further - x))
    return None


def _figure(readings: Readings, course: Course, metric: str) -> Figure | None:
    ordered = sorted((at, name) for name, at in course.places.items() if readings.arms_in(name))
    conditions = {name: at for at, name in ordered}
    found: Values = {
        arm: {name: value for name in conditions if (value := readings.estimate(name, arm, metric))}
        for arm in readings.arms
    }
    every = [value for values in found.values() for value in values.values()]
    levels = [(arm, value.mean) for arm, values in found.items() if len(values) == 1 for value in values.values()]
    found = {arm: values for arm, values in found.items() if len(values) > 1}
    if not found:
        return None
    name = readings.name(metric)
    title = f"{name} against {course.name[:1].lower()}{course.name[1:]}"
    numbers = [amount(at) if course.is_budget else f"{at:g}" for at in conditions.values()]

    def panel(spots: Spots, x: Axis, *, width: Length = THIRD) -> str:
        lines = [_line(arm, found[arm], at) for arm, at in spots.items()]
        return draw_lines(
            lines,
            title=title,
            description=words,
            x=x,
            y=metric_axis(name, every),
            references=levels,
            width=width,
            as_whiskers=True,
        )

    words = _leaders(found, conditions, numbers)
    evenly = {arm: {name: float(i) for i, name in enumerate(conditions)} for arm in found}
    panels = [panel(evenly, names_axis(course.axis, numbers), width=TWO_THIRDS)]
    caption = [f"Among trained arms, {words}.", course.words]
    if course.is_budget:
        seen = {arm: {name: conditions[name] for name in values} for arm, values in found.items()}
        costs = {"train_flops": SPENT["flops"], readings.clock: SPENT[readings.clock]}
        prices = {course.axis: seen} | {label: _spent(readings, found, price) for price, label in costs.items()}
        caption += [_crossings(found, spots, label) for label, spots in prices.items()]
        panels += [panel(prices[label], _log_axis(label, prices[label])) for label in costs.values() if prices[label]]
    caption.append(NO_INTERVAL_AT_ALL if len(readings.seeds) == 1 else "Means over seeds with 95 % intervals.")
    rows: list[list[Entry]] = [
        [at, arm.name, len(value.by_seed), value.mean, *([value.low, value.high] if value.has_interval else [None] * 2)]
        for name, at in conditions.items()
        for arm, values in found.items()
        if (value := values.get(name))
    ]
    sheet = Sheet(title, [course.axis, "arm", "num_seeds", "mean", "low", "high"], rows)
    return Figure(title, panels, " ".join(filter(None, caption)), sheet)


def _line(arm: Arm, values: Mapping[str, Estimate], spots: Mapping[str, Length]) -> Line:
    points = sorted((float(spots[name]), value.mean) for name, value in values.items())
    around = [(float(spots[name]), value.low, value.high) for name, value in values.items() if value.has_interval]
    return Line(arm, points, sorted(around))


def _leaders(found: Values, conditions: Mapping[str, Length], numbers: Sequence[str]) -> str:
    """Who is highest at each place."""
    best = {number: best_arm(found, name) for name, number in zip(conditions, numbers, strict=True)}
    return "; ".join(
        f"at {at} {pair[0].name} is highest with {pair[1].in_words()}" for at, pair in best.items() if pair
    )


def _crossings(found: Values, spots: Spots, label: str) -> str:
    """Where the lines of each pair of trained arms cross, or that they do not."""
    lines = {
        arm: sorted((at[name], value.mean) for name, value in found[arm].items())
        for arm, at in spots.items()
        if not arm.is_reference
    }
    words = []
    for first, second in combinations(lines, 2):
        at = crossing(lines[first], lines[second])
        end = max(lines[first][-1][0], lines[second][-1][0])
        pair = f"{first.name} and {second.name}"
        words.append(
            f"{pair} do not cross up to {amount(end)}" if at is None else f"{pair} cross at about {amount(at)}"
        )
    return f"By {label}: {listed(words)}." if words else ""


def _spent(readings: Readings, found: Values, price: str) -> Spots:
    """What each arm's runs cost under each condition, on average over the seeds; without arms that cost nothing."""
    spent = {
        arm: {name: mean(cell["compute"][price] for cell in readings.finished(name, arm)) for name in values}
        for arm, values in found.items()
    }
    return {arm: at for arm, at in spent.items() if all(at.values())}


def _log_axis(label: str, spots: Spots) -> Axis:
    values = [at for of_arm in spots.values() for at in of_arm.values()]
    low, high = min(values) / 1.2, max(values) * 1.2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [k * 10.0**power for power in powers for k in (1, 2, 5) if low <= k * 10.0**power <= high]
    return Axis(label, low, high, tuple((tick, amount(tick)) for tick in ticks), has_zero=False, is_log=True)
