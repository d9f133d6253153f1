"""One line an arm across several metrics of one kind: read-outs, corruptions, numbers of labels, levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jepalab.compare.drawing import Axis, names_axis
from jepalab.compare.figures import estimate_rows, metric_columns
from jepalab.compare.panels import TWO_THIRDS, Line, draw_lines, metric_axis
from jepalab.compare.readings import Arm, Estimate, Readings
from jepalab.compare.sheets import Figure, Sheet

Values = Mapping[Arm, Mapping[str, Estimate]]


def values_of(readings: Readings, condition: str, metrics: Sequence[str]) -> dict[Arm, dict[str, Estimate]]:
    """Each arm's estimates of those metrics that it has; arms with none are left out."""
    found = {
        arm: {metric: value for metric in metrics if (value := readings.estimate(condition, arm, metric))}
        for arm in readings.arms_in(condition)
    }
    return {arm: values for arm, values in found.items() if values}


def profile_figure(
    readings: Readings,
    condition: str,
    places: Mapping[str, float],
    *,
    title: str,
    x: Axis,
    y: str,
    caption: str,
    more_panels: Sequence[str] = (),
) -> Figure | None:
    """Every arm's line through the metrics, each at its place on x; None unless some arm has two of them."""
    found = values_of(readings, condition, list(places))
    lines = [_line(arm, values, places) for arm, values in found.items() if len(values) > 1]
    if not lines:
        return None
    panel = draw_lines(
        lines,
        title=f"{title}, {condition}",
        description=caption,
        x=x,
        y=metric_axis(y, [value for values in found.values() for value in values.values()], lowest=0.0),
        width=TWO_THIRDS,
        height=400,
        as_whiskers=True,
    )
    sheet = Sheet(f"{title} {condition}", metric_columns(readings), estimate_rows(readings, condition, list(places)))
    subtitle = readings.conditions[condition]
    return Figure(condition, [panel, *more_panels], caption, sheet, subtitle=subtitle)


def named_axis(readings: Readings, metrics: Sequence[str]) -> tuple[dict[str, float], Axis]:
    """The place of each metric, one beside the other, and the axis with their names, less the word that all share."""
    names = [readings.name(metric).removesuffix(" accuracy") for metric in metrics]
    return {metric: float(i) for i, metric in enumerate(metrics)}, names_axis("", names)


def best_arm(found: Values, metric: str) -> tuple[Arm, Estimate] | None:
    """The trained arm that is highest by this metric."""
    values = [(arm, each[metric]) for arm, each in found.items() if metric in each and not arm.is_reference]
    return max(values, key=lambda pair: pair[1].mean, default=None)


def _line(arm: Arm, values: Mapping[str, Estimate], places: Mapping[str, float]) -> Line:
    points = [(places[metric], value.mean) for metric, value in values.items()]
    spans = {metric: value.by_seed.values() for metric, value in values.items() if len(value.by_seed) > 1}
    around = [(places[metric], min(seeds), max(seeds)) for metric, seeds in spans.items()]
    return Line(arm, points, around)
