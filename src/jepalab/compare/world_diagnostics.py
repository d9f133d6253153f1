"""Why a world model plans as it does: what its searches found, where its first plans lead, errors of imagination."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jepalab.compare.drawing import Axis, Look
from jepalab.compare.figures import estimate_rows, metric_columns
from jepalab.compare.panels import Line, count_axis, draw_lines
from jepalab.compare.readings import Arm, Estimate, Readings
from jepalab.compare.sheets import Figure, Section, Sheet, Table
from jepalab.compare.tables import amount

DIAGNOSTICS = {
    "search_gain": "cost after a search over before",
    "search_spread": "spread of candidates left",
    "plan_end_px": "first plan ends off, px",
    "plan_way_px": "first plan leads, px",
    "first_plan_crosses": "first plan crosses, imagined",
    "first_plan_really_crosses": "first plan crosses, really",
    "flops_per_action": "FLOPs an action",
    "imagined_per_action": "imagined steps an action",
    "calls_per_action": "calls an action",
}
KINDS = {
    "": Arm("actions taken", "", "", Look("blue", "circle")),
    "_shuffled": Arm("other clips' actions", "", "", Look("vermillion", "square")),
    "_still": Arm("no action", "", "", Look("purple", "triangle")),
}
PERSISTENCE = Arm("nothing changes", "", "floor", Look("grey", "diamond"))


def diagnostics_section(readings: Readings, conditions: Sequence[str]) -> Section:
    """A table and the errors of imagination under each condition; empty where nobody planned."""
    tables = [table for condition in conditions if (table := diagnostics_table(readings, condition))]
    text = "None of these is a goal: they say where a failure comes from, the model or the search."
    return Section(
        "Why they plan as they do",
        text,
        figures=[figure for condition in conditions if (figure := error_figure(readings, condition))] if tables else [],
        tables=tables,
    )


def diagnostics_table(readings: Readings, condition: str) -> Table | None:
    """What every arm that searched found; None where nobody did."""
    measured = [name for name in DIAGNOSTICS if name in readings.metrics_in(condition)]
    if "search_gain" not in measured:
        return None
    rows = []
    for arm in readings.arms_in(condition):
        found = [readings.estimate(condition, arm, name) for name in measured]
        if any(found):
            rows.append([arm.name, *map(_printed, measured, found)])
    sheet = Sheet(f"diagnostics {condition}", metric_columns(readings), estimate_rows(readings, condition, measured))
    note = (
        "Means over seeds. A search that gains nothing (near 1) or leaves no spread is no fault of the model; "
        "first plans that end elsewhere than imagined are."
    )
    return Table(condition, ["arm", *(DIAGNOSTICS[name] for name in measured)], rows, sheet, note=note)


def _printed(name: str, value: Estimate | None) -> str:
    if value is None:
        return "–"
    return amount(value.mean) if name.endswith("per_action") else value.printed


def error_figure(readings: Readings, condition: str) -> Figure | None:
    """A panel an arm: the error k steps ahead as a share of what "nothing changes" errs, beside its controls."""
    steps = sorted(
        int(found[1]) for name in readings.metrics_in(condition) if (found := re.fullmatch(r"ahead_(\d+)", name))
    )
    panels, names = [], [f"ahead_{k}{kind}" for k in steps for kind in KINDS]
    every = [value for name in names for value in readings.estimates(name)]
    for arm in readings.arms_in(condition):
        lines = [
            Line(look, points)
            for kind, look in KINDS.items()
            if (points := _points(readings, condition, arm, steps, kind))
        ]
        if lines:
            panels.append(
                draw_lines(
                    lines,
                    title=f"Error of imagination, {arm.name}, {condition}",
                    description=f"Error {steps[0]} to {steps[-1]} steps ahead, {arm.name}, over that of no change.",
                    x=Axis("steps ahead", steps[0] - 0.15, steps[-1] + 0.15, tuple((float(k), str(k)) for k in steps)),
                    y=count_axis("error over persistence", every),
                    references=[(PERSISTENCE, 1.0)],
                    heading=arm.name,
                )
            )
    if not panels:
        return None
    caption = (
        "Below 1 is better than expecting no change. Where the actions of other clips, or none, do as well, the model "
        "does not use them."
    )
    sheet = Sheet(f"errors ahead {condition}", metric_columns(readings), estimate_rows(readings, condition, names))
    return Figure(f"Errors ahead, {condition}", panels, caption, sheet)


def _points(readings: Readings, condition: str, arm: Arm, steps: Sequence[int], kind: str) -> list[tuple[float, float]]:
    found = ((k, readings.estimate(condition, arm, f"ahead_{k}{kind}")) for k in steps)
    return [(float(k), value.mean) for k, value in found if value]
