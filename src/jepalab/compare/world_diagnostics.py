"""Why a world model plans as it does: what its searches found, where its first plans lead, errors of imagination."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jepalab.compare.drawing import Axis, Look
from jepalab.compare.figures import estimate_rows, metric_columns
from jepalab.compare.panels import Line, count_axis, draw_lines
from jepalab.compare.readings import Arm, Estimate, Readings
from jepalab.compare.sheets import Figure, Section, Sheet, Table
from jepalab.compare.tables import amount

DIAGNOSTICS = {
    "search_gain": "cost kept, last round over first",
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
PROBES = {
    "position_r2": "position R²",
    "position_r": "position r",
    "position_mlp_r2": "position R², by a network",
    "input_mean_off": "input's mean off",
    "input_std_off": "input's deviation off",
}
STALE = 0.3  # of a normalised input's mean from 0, or of its deviation's logarithm: samples of clips come nowhere near
PERSISTENCE = Arm("nothing changes", "", "floor", Look("grey", "diamond"))


def diagnostics_section(readings: Readings, conditions: Sequence[str]) -> Section:
    """Tables and the errors of imagination under each condition; empty where nobody planned. Encoders that normalise by
    statistics of other frames are named first.
    """
    searched = [table for each in conditions if (table := diagnostics_table(readings, each))]
    tables = [*searched, *(table for each in conditions if searched and (table := probes_table(readings, each)))]
    drawn = [figure(readings, each) for each in conditions for figure in (error_figure, pixels_figure) if searched]
    text = "None of these is a goal: they say where a failure comes from, the model or the search."
    stale = [sentence for each in conditions if searched and (sentence := tell_stale(readings, each))]
    return Section(
        "Why they plan as they do",
        " ".join([*stale, text]),
        figures=[figure for figure in drawn if figure],
        tables=tables,
    )


def tell_stale(readings: Readings, condition: str) -> str:
    """A warning of the arms whose frames are not those that their encoder was normalised for; empty without any."""
    found = []
    for arm in readings.arms_in(condition):
        mean, std = (readings.estimate(condition, arm, f"input_{part}_off") for part in ("mean", "std"))
        if any(value and value.mean > STALE for value in (mean, std)):
            parts = [f"{word} {value.printed}" for word, value in (("mean", mean), ("deviation", std)) if value]
            found.append(f"{arm.name} ({', '.join(parts)})")
    if not found:
        return ""
    return (
        f"Warning, {condition}: stale normalisation of {', '.join(found)}. These encoders take their frames to have "
        f"another mean or deviation than they have (off by more than {STALE:g} of a deviation, or of its logarithm); "
        "nothing else that is said of them can be trusted."
    )


def probes_table(readings: Readings, condition: str) -> Table | None:
    """What probes read from embeddings, encoded and imagined, and whether inputs are normalised; None without any."""
    measured = readings.metrics_in(condition)
    steps = [k for k in _steps(readings, condition, "_r2") if k > 1]
    columns = {name: words for name, words in PROBES.items() if name in measured}
    columns |= {f"ahead_{k}_r2": f"position R², {k} ahead" for k in steps}
    rows = []
    for arm in readings.arms_in(condition):
        found = [readings.estimate(condition, arm, name) for name in columns]
        if any(found):
            rows.append([arm.name, *map(_printed, columns, found)])
    if not rows:
        return None
    sheet = Sheet(f"probes {condition}", metric_columns(readings), estimate_rows(readings, condition, [*columns]))
    note = (
        "Means over seeds, on held-out clips. Ahead: by the probe of encoded frames, from what is imagined. Inputs "
        "are off by the largest of its channels: its mean from 0, the logarithm of its deviation from 0."
    )
    return Table(f"{condition}, what is read", ["arm", *columns.values()], rows, sheet, note=note)


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
        "Means over seeds. The cost kept is that of a round's best candidates, so the first round's own gain is not in "
        "the ratio. A search that gains nothing (near 1) or leaves no spread is no fault of the model; "
        "first plans that end elsewhere than imagined are."
    )
    return Table(condition, ["arm", *(DIAGNOSTICS[name] for name in measured)], rows, sheet, note=note)


def _printed(name: str, value: Estimate | None) -> str:
    if value is None:
        return "–"
    return amount(value.mean) if name.endswith("per_action") else value.printed


def error_figure(readings: Readings, condition: str) -> Figure | None:
    """A panel an arm: the error k steps ahead as a share of what "nothing changes" errs, beside its controls."""
    return _errors(
        readings,
        condition,
        KINDS,
        part="",
        axis="error over persistence",
        title="Errors ahead",
        caption="Below 1 is better than expecting no change. Where the actions of other clips, or none, do as well, "
        "the model does not use them.",
        references=[(PERSISTENCE, 1.0)],
    )


def pixels_figure(readings: Readings, condition: str) -> Figure | None:
    """A panel an arm: how far the position that is read from what is imagined lies off, beside its controls."""
    return _errors(
        readings,
        condition,
        {**KINDS, "_persistence": PERSISTENCE},
        part="_px",
        axis="position off, px",
        title="Positions ahead",
        caption="The position by the probe of encoded frames, whose own error is in every line: what is imagined helps "
        "as far as it lies below 'nothing changes'.",
        references=[],
    )


def _errors(
    readings: Readings,
    condition: str,
    kinds: Mapping[str, Arm],
    *,
    part: str,
    axis: str,
    title: str,
    caption: str,
    references: Sequence[tuple[Arm, float]],
) -> Figure | None:
    """A panel an arm over the steps ahead, a line a kind: "ahead_K", `part`, kind."""
    steps = _steps(readings, condition, part)
    panels, names = [], [f"ahead_{k}{part}{kind}" for k in steps for kind in kinds]
    every = [value for name in names for value in readings.estimates(name)]
    for arm in readings.arms_in(condition):
        lines = [
            Line(look, points)
            for kind, look in kinds.items()
            if (points := _points(readings, condition, arm, steps, part + kind))
        ]
        if lines:
            panels.append(
                draw_lines(
                    lines,
                    title=f"{title}, {arm.name}, {condition}",
                    description=f"{axis.capitalize()}, {steps[0]} to {steps[-1]} steps ahead, {arm.name}.",
                    x=Axis("steps ahead", steps[0] - 0.15, steps[-1] + 0.15, tuple((float(k), str(k)) for k in steps)),
                    y=count_axis(axis, every),
                    references=references,
                    heading=arm.name,
                )
            )
    if not panels:
        return None
    sheet = Sheet(f"{title.lower()} {condition}", metric_columns(readings), estimate_rows(readings, condition, names))
    return Figure(f"{title}, {condition}", panels, caption, sheet)


def _steps(readings: Readings, condition: str, part: str) -> list[int]:
    """For which K there is an "ahead_K" and `part`."""
    found = (re.fullmatch(rf"ahead_(\d+){part}", name) for name in readings.metrics_in(condition))
    return sorted(int(match[1]) for match in found if match)


def _points(readings: Readings, condition: str, arm: Arm, steps: Sequence[int], kind: str) -> list[tuple[float, float]]:
    found = ((k, readings.estimate(condition, arm, f"ahead_{k}{kind}")) for k in steps)
    return [(float(k), value.mean) for k, value in found if value]
