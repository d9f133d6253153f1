"""The figures about where every arm ended: the primary metric, the others, rank, and the declared contrasts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jepalab.compare.drawing import Length, Look, number_axis
from jepalab.compare.panels import (
    LOWEST_SCORE,
    PLANE,
    THIRD,
    Row,
    Spot,
    count_axis,
    draw_plane,
    draw_rows,
    metric_axis,
    score_axis,
)
from jepalab.compare.readings import Arm, Estimate, Readings, listed, number
from jepalab.compare.sheets import Entry, Figure, Sheet
from jepalab.compare.stats import NO_INTERVAL, spearman

ESTIMATE_COLUMNS = ("condition", "arm", "metric", "num_seeds", "mean", "low", "high")
VERDICTS = {"held": Look("held"), "refuted": Look("refuted", "square"), "not shown": Look("open", "circle", True)}


def primary_figure(readings: Readings, condition: str) -> Figure:
    """The primary metric against the nuisance R2; where no nuisance was read, the primary metric alone."""
    if "nuisance_r2" in readings.metrics_in(condition):
        return _state_plane(readings, condition)
    title = f"{readings.name(readings.primary)}, {condition}"
    words = ranking(readings, condition, readings.primary) + readings.silences(condition, readings.primary)
    why = "There is no nuisance to read here. " if "nuisance_r2" in readings.names else ""
    why = why if readings.metrics_in(condition) else "No cell has ended here. "
    caption = f"{why}{words} {_marks(readings)}"
    panel = metric_panel(readings, condition, readings.primary, width=PLANE[0])
    return _figure(readings, condition, [readings.primary], title=title, panels=[panel], caption=caption)


def metric_figure(
    readings: Readings,
    condition: str,
    metrics: Sequence[str],
    *,
    title: str = "Other read-outs",
    more_panels: Sequence[str] = (),
    words: str = "",
    only_measured: bool = False,
) -> Figure | None:
    """Those of the metrics that were measured, in rows, and beside them what else is given; None without any."""
    measured = readings.metrics_in(condition)
    metrics = [metric for metric in metrics if metric in measured]
    panels = [*(metric_panel(readings, condition, m, only_measured=only_measured) for m in metrics), *more_panels]
    if not panels:
        return None
    caption = " ".join(ranking(readings, condition, metric, most=1) for metric in metrics) + words
    caption += "" if only_measured else readings.silences(condition, *metrics)
    rollouts = [metric for metric in measured if metric.startswith("rollout_")]
    return _figure(
        readings,
        condition,
        [*metrics, *rollouts],
        title=f"{title}, {condition}",
        panels=panels,
        caption=f"{caption} Dashed: floors.",
    )


def rank_figure(readings: Readings, condition: str) -> Figure | None:
    """The primary metric against RankMe, uncentred and centred; None where no rank was measured."""
    metrics = [metric for metric in ("rankme", "rankme_centred") if metric in readings.metrics_in(condition)]
    if not metrics:
        return None
    panels, words, use = [], [], readings.name(readings.primary)
    for metric in metrics:
        points = _points(readings, condition, x=metric, y=readings.primary)
        order = _rank_correlation([point for point in points if not point.arm.is_reference])
        words.append(f"{readings.name(metric)} and {use}: {order}.")
        panels.append(
            draw_plane(
                points,
                title=f"{use} against {readings.name(metric)}, {condition}",
                description=words[-1],
                x=count_axis(readings.name(metric), readings.estimates(metric)),
                y=score_axis(use, readings.estimates(readings.primary)),
            )
        )
    words = ["How far the rank orders the trained arms by what can be read from them.", *words, _marks(readings)]
    title, caption = f"Rank beside usefulness, {condition}", " ".join(words)
    return _figure(readings, condition, [*metrics, readings.primary], title=title, panels=panels, caption=caption)


def contrast_figure(contrasts: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Every difference between two arms with its interval around zero; None where no such contrast was declared."""
    pairs = [contrast for contrast in contrasts if contrast["kind"] != "unordered"]
    if not pairs:
        return None
    rows = [Row(_title(each), VERDICTS[each["verdict"]], _difference(each)) for each in pairs]
    found = [row.value for row in rows if isinstance(row.value, Estimate)]
    ends = [0.0, *(end for e in found for end in ((e.low, e.high) if e.has_interval else (e.mean,)))]
    room = 0.05 * (max(ends) - min(ends))
    axis = number_axis("difference: first arm minus second", min(ends) - room, max(ends) + room)
    verdicts = [each["verdict"] for each in pairs if each["is_primary"]]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS]
    caption = (
        f"Differences of seed-matched pairs with 95 % intervals: {listed(counts)}. "
        "Filled circle: held; filled square: refuted; hollow circle: not shown."
    )
    panel = draw_rows(rows, title="Declared contrasts", description=caption, x=axis, width=1104, num_letters=64)
    columns = ["name", "better", "than", "metric", "condition", "difference", "low", "high", "verdict"]
    numbers = [[*(each[c] for c in columns[:6]), *each["interval"], each["verdict"]] for each in pairs]
    return Figure("Differences", [panel], caption, Sheet("contrast differences", columns, numbers))


def metric_panel(
    readings: Readings, condition: str, metric: str, *, width: Length = THIRD, only_measured: bool = False
) -> str:
    """One metric in rows, an arm each; an arm without a value says why, or is left out if it was not measured."""
    arms = readings.arms_in(condition)
    if only_measured:
        arms = [a for a in arms if readings.estimate(condition, a, metric) or not readings.finished(condition, a)]
    values = {arm.name: readings.estimate(condition, arm, metric) for arm in arms}
    rows = [Row(arm.name, arm.look, values[arm.name] or _absence(readings, condition, arm)) for arm in arms]
    floors = [value.mean for arm in arms if arm.role == "floor" and (value := values[arm.name])]
    lowest = -1.04 if metric == "selectivity" else LOWEST_SCORE
    return draw_rows(
        rows,
        title=f"{readings.name(metric)}, {condition}",
        description=ranking(readings, condition, metric),
        x=metric_axis(readings.name(metric), readings.estimates(metric), most=5, lowest=lowest),
        rules=floors,
        width=width,
    )


def ranking(readings: Readings, condition: str, metric: str, *, most: int = 3) -> str:
    """Who is highest and lowest among the arms that compete, and where floors and ceiling lie, as sentences."""
    found = [
        (arm, value) for arm in readings.arms_in(condition) if (value := readings.estimate(condition, arm, metric))
    ]
    trained = sorted(((a, v) for a, v in found if not a.is_reference), key=lambda pair: -pair[1].mean)
    if not trained:
        return f"No trained arm has a {readings.name(metric)}."
    best = listed([f"{arm.name} {value.in_words()}" for arm, value in trained[:most]])
    text = f"Highest {readings.name(metric)}: {best}"
    if len(trained) > most:
        text += f"; lowest: {trained[-1][0].name} {trained[-1][1].in_words()}"
    references = [f"{arm.role} {arm.name} {value.in_words()}" for arm, value in found if arm.is_reference]
    if most > 1 and references:
        text += f". For scale: {listed(references)}"
    return f"{text}."


def estimate_rows(readings: Readings, condition: str, metrics: Sequence[str]) -> list[list[Entry]]:
    """For CSV: each metric of each arm, under `metric_columns`."""
    rows: list[list[Entry]] = []
    for arm in readings.arms_in(condition):
        for metric in metrics:
            value = readings.estimate(condition, arm, metric)
            if value is None:
                rows.append([condition, arm.name, metric, 0, None, None, None, *[None] * len(readings.seeds)])
                continue
            bounds = [value.low, value.high] if value.has_interval else [None, None]
            seeds = [value.by_seed.get(seed) for seed in readings.seeds]
            rows.append([condition, arm.name, metric, len(value.by_seed), value.mean, *bounds, *seeds])
    return rows


def metric_columns(readings: Readings) -> list[str]:
    """The header of `estimate_rows`."""
    return [*ESTIMATE_COLUMNS, *(f"seed {seed}" for seed in readings.seeds)]


def _state_plane(readings: Readings, condition: str) -> Figure:
    points, use = _points(readings, condition, x="nuisance_r2", y=readings.primary), readings.primary
    words = [ranking(readings, condition, use)]
    if trained := sorted((p for p in points if not p.arm.is_reference), key=lambda point: point.x.mean):
        least, most = (f"{point.arm.name}, {point.x.in_words()}" for point in (trained[0], trained[-1]))
        words.append(f"Least nuisance is kept by {least}; most by {most}.")
    title = f"State against nuisance, {condition}"
    words += ["Up and to the left is better.", _marks(readings)]
    caption = " ".join(words) + readings.silences(condition, use)
    panel = draw_plane(
        points,
        title=title,
        description=caption,
        x=score_axis("nuisance R² (less is better)", readings.estimates("nuisance_r2")),
        y=score_axis(f"{readings.name(use)} (more is better)", readings.estimates(use)),
    )
    return _figure(readings, condition, [use, "nuisance_r2"], title=title, panels=[panel], caption=caption)


def _figure(
    readings: Readings, condition: str, metrics: Sequence[str], *, title: str, panels: Sequence[str], caption: str
) -> Figure:
    sheet = Sheet(title, metric_columns(readings), estimate_rows(readings, condition, metrics))
    return Figure(condition, panels, caption, sheet, subtitle=readings.conditions[condition])


def _marks(readings: Readings) -> str:
    if len(readings.seeds) == 1:
        return f"{NO_INTERVAL}."
    return "Large marks are means over seeds with 95 % intervals, pale dots single seeds."


def _points(readings: Readings, condition: str, *, x: str, y: str) -> list[Spot]:
    pairs = [
        (arm, readings.estimate(condition, arm, x), readings.estimate(condition, arm, y))
        for arm in readings.arms_in(condition)
    ]
    return [Spot(arm, of_x, of_y) for arm, of_x, of_y in pairs if of_x and of_y]


def _rank_correlation(points: Sequence[Spot]) -> str:
    if len(points) < 3:
        return "too few arms to order"
    value = spearman([point.x.mean for point in points], [point.y.mean for point in points])
    return f"rank correlation {number(value)} over {len(points)} trained arms"


def _absence(readings: Readings, condition: str, arm: Arm) -> str:
    return "not measured" if readings.finished(condition, arm) else "failed"


def _title(contrast: Mapping[str, Any]) -> str:
    return contrast["name"] if contrast["is_primary"] else f"{contrast['name']} (exploratory)"


def _difference(contrast: Mapping[str, Any]) -> Estimate | str:
    if contrast["difference"] is None:
        return contrast["note"] or "not tested"
    low, high = (math.nan if bound is None else bound for bound in contrast["interval"])
    return Estimate(contrast["difference"], low, high, {})
