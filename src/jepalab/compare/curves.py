"""The figures about the way there: the primary metric against steps, compute and time, and imagination."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jepalab.compare.cells import CURVE_SHARE
from jepalab.compare.drawing import Axis, number_axis
from jepalab.compare.panels import Line, draw_lines, score_axis
from jepalab.compare.readings import Arm, Estimate, Readings, number
from jepalab.compare.sheets import Entry, Figure, Sheet

SPENT = {"flops": "training FLOPs", "seconds": "seconds of training", "cpu_seconds": "CPU seconds of training"}
ABOUT_CPU = "CPU seconds: the processor's time, divided by the threads; other work on the machine does not add to them."
PREFIXES = {1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}
Around = Callable[[Estimate], tuple[float, float] | None]


def costs(readings: Readings) -> dict[str, str]:
    """The prices that a curve is drawn against: steps (where samples have a noun: samples seen), FLOPs and seconds."""
    first = {"samples": f"{readings.noun} seen"} if readings.noun else {"step": "optimizer steps"}
    return first | {price: SPENT[price] for price in ("flops", readings.clock)}


def training_figure(readings: Readings, condition: str, *, threshold: float | None = None) -> Figure | None:
    """Three panels: the primary metric against steps, FLOPs and seconds; None where nothing was recorded.

    threshold  is marked across the lines.
    """
    name, metric, prices = readings.name(readings.primary), readings.primary, costs(readings)
    lines = {cost: training_lines(readings, condition, cost) for cost in prices}
    references, axis = _references(readings, condition), _training_axis(readings)
    if not lines["flops"] and not references:
        return None
    caption = (
        f"{_progress(lines['flops'])} Lines are means over seeds, bands span the seeds. Dashed across: arms that are "
        f"not trained. {_read_on(readings, condition)}{f' {ABOUT_CPU}' if readings.clock == 'cpu_seconds' else ''}"
    )
    panels = [
        _training_panel(
            lines[cost],
            references,
            y=axis,
            label=label,
            title=f"{name} against {label}, {condition}",
            threshold=threshold,
        )
        for cost, label in prices.items()
    ]
    title = f"{name} while training, {condition}"
    columns = ["condition", "arm", "seed", *prices, metric]
    rows: list[list[Entry]] = [
        [
            condition,
            arm.name,
            cell["seed"],
            *(_spent(cell, moment, cost) for cost in prices),
            moment["metrics"].get(metric),
        ]
        for arm in readings.arms_in(condition)
        for cell in readings.finished(condition, arm)
        for moment in cell.get("curve", ())
    ]
    subtitle = readings.conditions[condition]
    return Figure(condition, panels, caption, Sheet(title, columns, rows), subtitle=subtitle)


def rollout_panel(readings: Readings, condition: str) -> tuple[list[str], str]:
    """Position R2 after 1, 2, ... imagined steps and what it shows; nothing where no arm imagines."""
    names = sorted(
        (name for name in readings.metrics_in(condition) if re.fullmatch(r"rollout_\d+_r2", name)),
        key=lambda name: int(name.split("_")[1]),
    )
    steps = {int(name.split("_")[1]): name for name in names}
    found = {
        arm: {step: value for step, name in steps.items() if (value := readings.estimate(condition, arm, name))}
        for arm in readings.arms_in(condition)
    }
    lines = [_line(arm, values, around=_extent) for arm, values in found.items() if values]
    if not lines:
        return [], ""
    last = sorted(lines, key=lambda line: -line.points[-1][1])
    words = (
        f" After {max(steps)} imagined steps {last[0].arm.name} still reads the position at "
        f"{number(last[0].points[-1][1])}; lowest is {last[-1].arm.name} at {number(last[-1].points[-1][1])}."
    )
    panel = draw_lines(
        lines,
        title=f"Position R² after imagined steps, {condition}",
        description=words.strip(),
        x=Axis("imagined steps", min(steps) - 0.15, max(steps) + 0.15, tuple((float(k), str(k)) for k in steps)),
        y=score_axis("position R²", [value for name in names for value in readings.estimates(name)]),
        heading="position R² after imagined steps",
    )
    return [panel], words


def training_lines(readings: Readings, condition: str, cost: str) -> list[Line]:
    """The primary metric of every trained arm against one price, means over the seeds that ended."""
    lines, metric = [], readings.primary
    for arm in readings.arms_in(condition):
        curves = [
            [(_spent(cell, moment, cost), moment) for moment in cell["curve"]]
            for cell in readings.finished(condition, arm)
            if cell.get("curve")
        ]
        moments = [
            [(at, m["metrics"][metric]) for at, m in at_once if metric in m["metrics"] and m["step"] > 0]
            for at_once in zip(*curves, strict=False)
        ]
        places = [(_mean([at for at, _ in seeds]), [float(score) for _, score in seeds]) for seeds in moments if seeds]
        if places:
            points = [(at, _mean(values)) for at, values in places]
            lines.append(Line(arm, points, [(at, min(values), max(values)) for at, values in places]))
    return lines


def _spent(cell: Mapping[str, Any], moment: Mapping[str, Any], cost: str) -> float | int:
    if cost != "samples":
        return moment[cost]
    steps = cell["compute"]["steps"]
    return round(moment["step"] * cell["compute"]["samples"] / steps) if steps else 0


def _training_axis(readings: Readings) -> Axis:
    """One axis for all conditions, so that they can be compared."""
    curves = [cell["curve"] for cell in readings.cells if cell["status"] == "done" and cell.get("curve")]
    scores = [moment["metrics"].get(readings.primary) for curve in curves for moment in curve]
    values = {i: float(score) for i, score in enumerate(scores) if score is not None}
    return score_axis(readings.name(readings.primary), [Estimate(math.nan, math.nan, math.nan, values)])


def _training_panel(
    lines: Sequence[Line],
    references: Sequence[tuple[Arm, float]],
    *,
    y: Axis,
    label: str,
    title: str,
    threshold: float | None,
) -> str:
    largest = max((line.points[-1][0] for line in lines), default=1.0)
    is_time = label in (SPENT["seconds"], SPENT["cpu_seconds"])
    unit = next((unit for unit in PREFIXES if largest >= unit and not is_time), 1.0)
    counted = "training compute ({}FLOP)" if label == SPENT["flops"] else f"{label} ({{}})"
    shown = counted.format(PREFIXES[unit]) if unit > 1 else label
    scaled = [
        Line(line.arm, [(x / unit, y) for x, y in line.points], [(x / unit, low, high) for x, low, high in line.around])
        for line in lines
    ]
    return draw_lines(
        scaled,
        title=title,
        description=_progress(lines),
        x=number_axis(shown, 0.0, largest / unit or 1.0, most=4),
        y=y,
        references=references,
        threshold=threshold,
    )


def _progress(lines: Sequence[Line]) -> str:
    trained = sorted((line for line in lines if not line.arm.is_reference), key=lambda line: -line.points[-1][1])
    if not trained:
        return "No trained arm has a curve here."
    first, last = trained[0], trained[-1]
    followed = [line for line in trained if len(line.points) > 1]
    early = max(followed, key=lambda line: line.points[0][1], default=None)
    text = f"At the end {first.arm.name} is highest with {number(first.points[-1][1])}"
    text += f" and {last.arm.name} lowest with {number(last.points[-1][1])}" if last is not first else ""
    if early:
        text += f"; at the first reading {early.arm.name} led with {number(early.points[0][1])}"
    return f"{text}."


def _references(readings: Readings, condition: str) -> list[tuple[Arm, float]]:
    """Arms that spend no step: they have no curve, only a level."""
    found = []
    for arm in readings.arms_in(condition):
        steps = [cell["compute"]["steps"] for cell in readings.finished(condition, arm) if "compute" in cell]
        value = end_of_curve(readings, condition, arm)
        if value is not None and steps and not any(steps):
            found.append((arm, value))
    return found


def end_of_curve(readings: Readings, condition: str, arm: Arm) -> float | None:
    """The primary metric at the end as curves read it, on the same share of the data; the mean over seeds.

    The score itself where no curve was recorded.
    """
    ends = [cell["curve"][-1]["metrics"] for cell in readings.finished(condition, arm) if cell.get("curve")]
    values = [float(scores[readings.primary]) for scores in ends if readings.primary in scores]
    if values:
        return _mean(values)
    score = readings.estimate(condition, arm, readings.primary)
    return score.mean if score else None


def _read_on(readings: Readings, condition: str) -> str:
    """On how much of the data the points of the curves were read."""
    curves = [cell["curve"] for arm in readings.arms_in(condition) for cell in readings.finished(condition, arm)]
    share, noun = f"{100 * CURVE_SHARE:g} %", readings.noun or "clips"
    if all("share" in curve[-1] for curve in curves if curve):
        return f"Every point was read on {share} of the labelled {noun}; scores elsewhere in this report use all."
    return f"Readings on the way use {share} of the held-out {noun}, those at the end use all."


def _line(arm: Arm, values: Mapping[int, Estimate], *, around: Around) -> Line:
    points = [(float(at), value.mean) for at, value in values.items()]
    return Line(arm, points, [(float(at), *ends) for at, value in values.items() if (ends := around(value))])


def _interval(value: Estimate) -> tuple[float, float] | None:
    return (value.low, value.high) if value.has_interval else None


def _extent(value: Estimate) -> tuple[float, float]:
    return min(value.by_seed.values()), max(value.by_seed.values())


def _mean(values: Sequence[float | int]) -> float:
    return sum(values) / len(values)
