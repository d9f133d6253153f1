"""The tables of a report: contrasts with their verdicts, metrics, rank, compute, tuning, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jepalab.compare.curves import PREFIXES
from jepalab.compare.figures import estimate_rows, metric_columns
from jepalab.compare.readings import Arm, Estimate, Readings, number
from jepalab.compare.sheets import Badge, Entry, Sheet, Table, slug
from jepalab.compare.stats import NO_INTERVAL

SYMBOLS = {"held": "✓", "refuted": "✗", "not shown": "○", "exploratory": "·"}

COST_COLUMNS = {
    "steps": "steps",
    "samples": "samples",
    "frames": "frames",
    "flops_per_step": "FLOPs a step",
    "train_flops": "training FLOPs",
    "seconds": "seconds",
    "judging_seconds": "seconds judging",
}
PARAMETERS = {"encoder": "parameters of the encoder", "trained": "trained in all"}


def metric_table(readings: Readings, condition: str) -> Table:
    """Every chief metric of every arm, and of its teacher where one was measured."""
    measured = readings.metrics_in(condition)
    metrics = [metric for metric in readings.names if metric in measured]
    encoders = ["", *dict.fromkeys(f"{name.rpartition('/')[0]}/" for name in measured if "/" in name)]
    rows = [
        row
        for arm in readings.arms_in(condition)
        for encoder in encoders
        if (row := _metric_row(readings, condition, arm, metrics, encoder=encoder))
    ]
    absent = [arm.name for arm in readings.arms if not readings.cells_of(condition, arm)]
    note = "Mean over seeds ± half of the 95 % interval."
    note += f" Not run under this condition: {', '.join(absent)}." if absent else ""
    sheet = Sheet(f"metrics {condition}", metric_columns(readings), estimate_rows(readings, condition, measured))
    return Table(condition, ["arm", "seeds", *(readings.name(m) for m in metrics)], rows, sheet, note=note, num_names=2)


def contrast_table(contrasts: Sequence[Mapping[str, Any]]) -> Table | None:
    """Every declared contrast with what became of it; None where none was declared."""
    if not contrasts:
        return None
    columns = ["claim", "why", "source", "difference", "95 % interval", "p, adjusted", "seeds", "verdict"]
    keys = ["name", "claim", "because", "source", "difference", "p_value", "adjusted_p_value", "num_seeds", "verdict"]
    printed = [
        [
            Badge("claim", "", each["name"], each["claim"]),
            each["because"],
            each["source"],
            number(each["difference"], 3),
            _interval(each),
            _probability(each["adjusted_p_value"]),
            str(each["num_seeds"]),
            _verdict(each),
        ]
        for each in contrasts
    ]
    numbers = [[*(each[key] for key in keys), *each["interval"], each["note"]] for each in contrasts]
    sheet = Sheet("contrasts", [*keys, "low", "high", "note"], numbers)
    note = (
        "Held: the whole interval lies on the claimed side and the p-value, adjusted for all contrasts (Holm), "
        "is below .05. Refuted: the same for the contrary. Not shown: neither, which is no proof of equality. "
        "Exploratory: not declared beforehand; numbers without p-value and verdict."
    )
    return Table("Contrasts", columns, printed, sheet, note=note, num_names=3)


def compute_table(compute: Sequence[Mapping[str, Any]]) -> Table:
    """What each arm spent under each condition."""
    columns = ["condition", "arm", "seeds", *COST_COLUMNS.values(), *PARAMETERS.values()]
    printed = [
        [
            row["condition"],
            row["arm"],
            str(row["num_seeds"]),
            *(amount(row[key]) for key in COST_COLUMNS),
            *(amount(row["parameters"][key]) for key in PARAMETERS),
        ]
        for row in compute
    ]
    numbers = [
        [
            row["condition"],
            row["arm"],
            row["num_seeds"],
            *(row[key] for key in COST_COLUMNS),
            *(row["parameters"][key] for key in PARAMETERS),
        ]
        for row in compute
    ]
    keys = ["condition", "arm", "num_seeds", *COST_COLUMNS, *(f"parameters_{key}" for key in PARAMETERS)]
    note = "FLOPs count forward and backward passes, teachers and decoders included; seconds are means over seeds."
    return Table("What every arm spent", columns, printed, Sheet("compute", keys, numbers), note=note, num_names=2)


def tuning_table(settings: Mapping[str, Any]) -> Table | None:
    """How each arm was tuned; None where the settings do not tell."""
    found = [(c, arm, each) for c, arms in settings.get("conditions", {}).items() for arm, each in arms.items()]
    if not found:
        return None
    columns = [
        "condition",
        "arm",
        "settings",
        "trials",
        "validation score",
        "above random encoder",
        "expected best of n",
    ]
    keys = ["condition", "arm", "settings", "num_trials", "score", "share_above_random_encoder", "expected_best_of_n"]
    printed, numbers = [], []
    for condition, arm, each in found:
        chosen, best = _as_text(each["settings"]), each["expected_best_of_n"]
        share, num_trials = each["share_above_random_encoder"], len(each["scores"])
        shown = [n for n in (1, 2, 4, 8, 16, 32) if n < num_trials] + [num_trials]
        expected = ", ".join(f"{n}: {number(best[n - 1])}" for n in shown)
        score = number(each["score"], 3)
        printed.append([condition, arm, chosen, str(num_trials), score, f"{share:.0%}".replace("%", " %"), expected])
        every = " ".join(f"{value:.6g}" for value in best)
        numbers.append([condition, arm, chosen, num_trials, each["score"], share, every])
    note = (
        "Every arm was tuned by the same search: the same number of trials, the same draws of the shared settings and "
        "one private one. Scores are on the validation split of a seed that the comparison does not use."
    )
    return Table("What tuning chose", columns, printed, Sheet("tuning", keys, numbers), note=note, num_names=3)


def failure_table(readings: Readings) -> Table | None:
    """Every cell that did not end, with its error; None where all did."""
    failed = readings.failures()
    if not failed:
        return None
    columns = ["condition", "arm", "seed", "what happened"]
    rows = [
        [
            cell["condition"],
            cell["arm"],
            str(cell["seed"]),
            f"{cell['status']}: {cell.get('error', 'no error recorded')}",
        ]
        for cell in failed
    ]
    note = f"{len(failed)} of {len(readings.cells)} cells did not end. They count as missing, not as zero."
    sheet = Sheet("failed cells", columns, rows)
    return Table("Every cell that did not end", columns, rows, sheet, note=note, num_names=4)


def every_number(readings: Readings) -> Sheet:
    """Every metric of every cell, one a line; a cell that failed is a line with its error."""
    rows: list[Sequence[Entry]] = []
    for cell in readings.cells:
        place = [cell["condition"], cell["arm"], cell["seed"], cell["status"]]
        rows += [[*place, name, value, ""] for name, value in cell["metrics"].items()]
        if cell["status"] != "done":
            rows.append([*place, "", None, cell.get("error", "")])
    return Sheet("every number", ["condition", "arm", "seed", "status", "metric", "value", "error"], rows)


def _probability(p: float | int | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)


def _interval(contrast: Mapping[str, Any]) -> str:
    low, high = contrast["interval"]
    if low is not None:
        return f"{number(low, 3)} to {number(high, 3)}"
    return NO_INTERVAL if contrast["num_seeds"] == 1 else "none"


def _verdict(contrast: Mapping[str, Any]) -> Badge:
    word = contrast["verdict"] if contrast["is_primary"] else "exploratory"
    return Badge(slug(word), SYMBOLS[word], word, contrast["note"])


def _metric_row(
    readings: Readings, condition: str, arm: Arm, metrics: Sequence[str], *, encoder: str
) -> list[str | Badge] | None:
    values = {metric: readings.estimate(condition, arm, f"{encoder}{metric}") for metric in metrics}
    if encoder and not any(values.values()):
        return None
    printed = [
        _with_margin(value, digits=1 if "rankme" in metric else value.digits if value else 2)
        for metric, value in values.items()
    ]
    count, remark = readings.seeds_of(condition, arm)
    seeds = Badge("seeds", "", count, remark) if remark else count
    return [f"{arm.name} {encoder.rstrip('/')}".strip(), seeds, *printed]


def _with_margin(value: Estimate | None, *, digits: int) -> str:
    if value is None:
        return "–"
    margin = f" ± {number((value.high - value.low) / 2, digits)}" if value.has_interval else ""
    return f"{number(value.mean, digits)}{margin}"


def amount(value: float | int) -> str:
    """A count as a table prints it: with thousands separated, from 10,000 on with a prefix."""
    unit = next((unit for unit in PREFIXES if value >= unit), None)
    if unit is None or value < 1e4:
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
    return f"{value / unit:.3g} {PREFIXES[unit]}"


def _as_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else format(value, 'g')}" for name, value in settings.items()
    )
