"""The three kinds of charts in a report: points in a plane, values in rows, and lines with names at their ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jepalab.compare.drawing import (
    LINE,
    SMALL,
    Axis,
    Chart,
    Length,
    Look,
    Margins,
    names_axis,
    number_axis,
    shorten,
    text_width,
)
from jepalab.compare.labels import place, spread
from jepalab.compare.readings import Arm, Estimate, number

LOWEST_SCORE = -0.5  # a score may fall without bound; what lies below is drawn at the edge, with an arrow
PLANE, ROW, LINES = (528, 400), 22, 290
THIRD, TWO_THIRDS = 352, 728  # of the page's width, less the gaps between panels


@dataclass(frozen=True)
class Spot:
    """One arm in a plane."""

    arm: Arm
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class Row:
    """One named value, or the words why there is none."""

    name: str
    look: Look
    value: Estimate | str


@dataclass(frozen=True)
class Line:
    """One arm's means along x, with (x, low, high) around them: a band, or a whisker at each point."""

    arm: Arm
    points: Sequence[tuple[float, float]]
    around: Sequence[tuple[float, float, float]] = ()


def score_axis(label: str, estimates: Iterable[Estimate], *, most: int = 6, lowest: float = LOWEST_SCORE) -> Axis:
    """An axis of a score that is at most 1 and may be far below 0: covers the seeds, and intervals where sensible."""
    return _covering(label, list(estimates), lowest=lowest, highest=1.04, most=most)


def count_axis(label: str, estimates: Iterable[Estimate], *, most: int = 6) -> Axis:
    """An axis of a count: from 0 to a little above the largest."""
    return _covering(label, list(estimates), lowest=0.0, highest=math.inf, from_zero=True, most=most)


def metric_axis(label: str, estimates: Iterable[Estimate], *, most: int = 6, lowest: float = LOWEST_SCORE) -> Axis:
    """`score_axis` where no value is above 1; otherwise an axis that covers whatever came, as decibels need it."""
    found = list(estimates)
    if all(value <= 1 for estimate in found for value in estimate.by_seed.values()):
        return score_axis(label, found, most=most, lowest=lowest)
    return _covering(label, found, lowest=-math.inf, highest=math.inf, most=most)


def draw_plane(points: Sequence[Spot], *, title: str, description: str, x: Axis, y: Axis) -> str:
    """Means with intervals both ways, single seeds paler, names beside the means."""
    chart = Chart(title, description, x=x, y=y, size=PLANE, margins=Margins())
    ordered = sorted(points, key=lambda point: not point.arm.is_reference)
    for point in ordered:
        for seed in point.x.by_seed.keys() & point.y.by_seed.keys():
            spot = point.x.by_seed[seed], point.y.by_seed[seed]
            chart.dot(spot, point.arm.look, title=f"{point.arm.name}, seed {seed}", radius=2.6, is_faint=True)
    for point in ordered:
        if point.x.has_interval:
            chart.whisker_x(point.y.mean, point.x.low, point.x.high, point.arm.look)
        if point.y.has_interval:
            chart.whisker_y(point.x.mean, point.y.low, point.y.high, point.arm.look)
    for point in ordered:
        words = f"{point.arm.name}: {x.label} {point.x.in_words()}, {y.label} {point.y.in_words()}"
        chart.dot((point.x.mean, point.y.mean), point.arm.look, title=words)
    _name_points(chart, ordered)
    return chart.markup()


def draw_rows(
    rows: Sequence[Row],
    *,
    title: str,
    description: str,
    x: Axis,
    rules: Sequence[float] = (),
    width: Length = THIRD,
    num_letters: int = 16,
) -> str:
    """A row for each name: its seeds, its mean with interval, and the mean as a number at the right."""
    names = [shorten(row.name, num_letters) for row in rows]
    margins = Margins(left=18 + max(map(text_width, names), default=0), right=48, top=28, bottom=26)
    size = (width, margins.top + margins.bottom + ROW * max(1, len(rows)))
    across, down = replace(x, label=""), names_axis("", names)
    chart = Chart(title, description, x=across, y=down, size=size, margins=margins, heading=x.label, names_down=True)
    for rule in rules:
        chart.rule_x(rule, "reference")
    for i, row in enumerate(rows):
        if isinstance(row.value, str):
            chart.text(row.value, (chart.left + 8, chart.at_y(i) + 4), "absent")
            continue
        for seed, value in row.value.by_seed.items():
            chart.dot((value, i), row.look, title=f"{row.name}, seed {seed}", radius=2.6, is_faint=True)
        if row.value.has_interval:
            chart.whisker_x(i, row.value.low, row.value.high, row.look)
        chart.dot((row.value.mean, i), row.look, title=f"{row.name}: {row.value.in_words()}", radius=4.5)
        chart.text(row.value.printed, (size[0] - 4, chart.at_y(i) + 4), "value", anchor="end")
    return chart.markup()


def draw_lines(
    lines: Sequence[Line],
    *,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    references: Sequence[tuple[Arm, float]] = (),
    heading: str = "",
    width: Length = THIRD,
    height: Length = LINES,
    as_whiskers: bool = False,
    threshold: float | None = None,
) -> str:
    """Lines with their names at the right, each led to the end of its line; references run across, dashed.

    threshold  a height that is marked across the lines, dotted.
    """
    ends = [(line.arm, *line.points[-1]) for line in lines] + [(arm, x.high, value) for arm, value in references]
    names = [_name_on(y, arm, value) for arm, _, value in ends]
    margins = Margins(right=24 + max(map(text_width, names), default=0), top=28 if heading else 10)
    chart = Chart(title, description, x=x, y=y, size=(width, height), margins=margins, heading=heading)
    for _, value in references:
        chart.rule_y(value, "reference")
    if threshold is not None:
        chart.rule_y(threshold, "threshold")
    for line in lines:
        if not as_whiskers:
            chart.band(line.around, line.arm.look)
    for line in lines:
        chart.line(line.points, line.arm.look)
        for at, low, high in line.around if as_whiskers else ():
            chart.whisker_y(at, low, high, line.arm.look)
        for point in line.points:
            words = f"{line.arm.name}: {number(point[1])} at {number(point[0])}"
            chart.dot(point, line.arm.look, title=words, radius=3)
    _name_ends(chart, ends, names)
    return chart.markup()


def _name_points(chart: Chart, points: Sequence[Spot]) -> None:
    if not points:
        return
    anchors = np.array([(chart.at_x(p.x.mean), chart.at_y(p.y.mean)) for p in points])
    names = [f"{_name_on(chart.y, p.arm, p.y.mean)} {p.arm.role}".strip() for p in points]
    sizes = np.array([(text_width(name, SMALL + 1), SMALL + 1) for name in names])
    marks = np.concatenate([anchors - 6, anchors + 6], 1)
    bars = [
        box
        for p, (px, py) in zip(points, anchors, strict=True)
        for box in (
            (chart.at_x(p.x.low), py - 2, chart.at_x(p.x.high), py + 2) if p.x.has_interval else None,
            (px - 2, chart.at_y(p.y.high), px + 2, chart.at_y(p.y.low)) if p.y.has_interval else None,
        )
        if box
    ]
    boxes = place(
        anchors,
        sizes,
        bounds=(chart.left, chart.top, chart.right, chart.bottom),
        obstacles=np.array([*marks, *bars]),
        weights=np.array([4.0] * len(marks) + [2.0] * len(bars)),
    )
    for name, point, anchor, box in zip(names, points, anchors, boxes, strict=True):
        nearest = np.clip(anchor, box[:2], box[2:])
        if np.linalg.norm(nearest - anchor) > 13:
            chart.leader([tuple(anchor.tolist()), tuple(nearest.tolist())], point.arm.look)
        chart.text(name, (float(box[0]), float(box[3]) - 2), f"name {point.arm.look.colour}")


def _name_on(axis: Axis, arm: Arm, value: float) -> str:
    """The arm's name, with the value where that lies beyond the axis."""
    return shorten(arm.name) if axis.contains(value) else f"{shorten(arm.name)} {number(value)}"


def _name_ends(chart: Chart, ends: Sequence[tuple[Arm, float, float]], names: Sequence[str]) -> None:
    heights = [chart.at_y(value) for _, _, value in ends]
    placed = spread(heights, gap=LINE, low=chart.top + 4, high=chart.bottom - 4)
    for (arm, end, _), name, height, at in zip(ends, names, heights, placed, strict=True):
        chart.leader([(chart.at_x(end), height), (chart.right, height), (chart.right + 12, at)], arm.look)
        chart.text(name, (chart.right + 15, at + 4), f"name {arm.look.colour}")


def _covering(
    label: str, estimates: Sequence[Estimate], *, lowest: float, highest: float, most: int, from_zero: bool = False
) -> Axis:
    values = [value for estimate in estimates for value in estimate.by_seed.values()]
    if not values:
        return number_axis(label, 0.0, 1.0, most=most)
    low, high = min(values), max(values)
    room = 0.15 * (high - low) or 0.1
    ends = [bound for estimate in estimates if estimate.has_interval for bound in (estimate.low, estimate.high)]
    low = 0.0 if from_zero else min([low - room / 3, *(max(end, low - room) for end in ends)])
    high = max([high + room / 3, *(min(end, high + room) for end in ends)])
    return number_axis(label, max(low, lowest), max(min(high, highest), lowest + 0.1), most=most)
