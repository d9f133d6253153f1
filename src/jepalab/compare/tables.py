"""The tables of a report: contrasts with their verdicts, metrics, rank, compute, tuning, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jepalab.compare.curves import ABOUT_CPU, PREFIXES
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
    "cpu_seconds": "CPU seconds",
    "judging_seconds": "seconds judging",
}
PARAMETERS = {"encoder": "parameters of the encoder", "trained": "trained in all"}


def metric_table(readings: Readings, condition: str) -> Table:
    """Every chief metric of every arm, and of its student or teacher beside it where one was measured."""
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
    note = f"Mean over seeds ± half of the 95 % interval. {readings.labels}".rstrip()
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
    costs = {key: name for key, name in COST_COLUMNS.items() if all(key in row for row in compute)}
    columns = ["condition", "arm", "seeds", *costs.values(), *PARAMETERS.values()]
    names = [[row["condition"], row["arm"], row["num_seeds"]] for row in compute]
    found = [[*(row[key] for key in costs), *(row["parameters"][key] for key in PARAMETERS)] for row in compute]
    printed = [[*map(str, name), *map(amount, values)] for name, values in zip(names, found, strict=True)]
    numbers = [[*name, *values] for name, values in zip(names, found, strict=True)]
    keys = ["condition", "arm", "num_seeds", *costs, *(f"parameters_{key}" for key in PARAMETERS)]
    note = "FLOPs count forward and backward passes, teachers and decoders included; seconds are means over seeds."
    note += f" {ABOUT_CPU}" if "cpu_seconds" in costs else ""
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
        "tuned on",
        "trials",
        "validation score",
        "above random encoder",
        "expected best of n",
    ]
    keys = [
        "condition",
        "arm",
        "settings",
        "tuned_on",
        "num_trials",
        "score",
        "share_above_random_encoder",
        "expected_best_of_n",
    ]
    printed, numbers = [], []
    for condition, arm, each in found:
        place, num_trials = each.get("tuned_on", condition), len(each["scores"])
        names = [condition, arm, _as_text(each["settings"], each.get("edges", {})), place]
        if place != condition:  # its scores were measured there, and say nothing of this condition
            printed.append([*names, str(num_trials), "–", "–", "–"])
            numbers.append([*names, num_trials, None, None, ""])
            continue
        best, share = each["expected_best_of_n"], each["share_above_random_encoder"]
        shown = [n for n in (1, 2, 4, 8, 16, 32) if n < len(best)] + [len(best)]
        expected = ", ".join(f"{n}: {number(best[n - 1])}" for n in shown)
        score = number(each["score"], 3)
        printed.append([*names, str(num_trials), score, f"{share:.0%}".replace("%", " %"), expected])
        numbers.append([*names, num_trials, each["score"], share, " ".join(f"{value:.6g}" for value in best)])
    is_borrowed, has_edges = (any(key in each and each[key] for _, _, each in found) for key in ("tuned_on", "edges"))
    note = (
        f"{_searched_alike(found)} Arms share the draws of the shared settings and have one private one each. Scores "
        "are on the validation split of seeds that the comparison does not use."
        + (" Settings tuned on another condition are borrowed: no search ran under this one." if is_borrowed else "")
        + (" Where a setting is at an end, the best one may lie outside what was searched." if has_edges else "")
        + f" {settings.get('tuning', {}).get('note', '')}"
    ).rstrip()
    return Table("What tuning chose", columns, printed, Sheet("tuning", keys, numbers), note=note, num_names=4)


def _searched_alike(found: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """That every search had as many trials and steps as the others, or how many each had."""
    alike: dict[tuple[int, int | None, int], dict[str, list[str]]] = {}
    for condition, arm, each in found:
        if "tuned_on" not in each:
            again = each.get("finalists", {})
            on = 1 + max((len(scores) - 1 for scores in again.values()), default=0)
            arms = alike.setdefault((len(each["scores"]), each.get("steps"), on), {})
            arms.setdefault(condition, []).append(arm)
    several = "; the best on average over {} seeds was chosen among the finalists"
    if len(alike) < 2:
        on = next(iter(alike), (0, None, 1))[2]
        told = several.format(on) if on > 1 else ""
        return f"Every arm was tuned by the same search, with the same number of trials{told}."
    tells_steps, tells_seeds = (len({each[place] for each in alike}) > 1 for place in (1, 2))
    parts = []
    for (num_trials, steps, on), arms in alike.items():
        length = f" of {steps:,} steps" if steps else ", steps not recorded"
        seeds = f", finalists on {on} seeds" if on > 1 else ", on one seed"
        who = "; ".join(f"{', '.join(names)} ({condition})" for condition, names in arms.items())
        parts.append(f"{num_trials} trials{length if tells_steps else ''}{seeds if tells_seeds else ''}: {who}")
    return f"Arms were not searched alike. {'. '.join(parts)}."


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


def _as_text(settings: Mapping[str, Any], edges: Mapping[str, str]) -> str:
    ends = {name: f" ({side} end)" for name, side in edges.items()}
    return ", ".join(
        f"{name} {value if isinstance(value, str) else format(value, 'g')}{ends.get(name, '')}"
        for name, value in settings.items()
    )
