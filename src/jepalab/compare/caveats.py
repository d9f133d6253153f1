"""What has to be said beside scores: settings at an edge of what was tried, and how many labels were learned from.

Searches record their "edges". Read-outs record both themselves: `SETTING_edge` is -1 at the lowest candidate, 1 at the
highest and 0 between, and `METRIC_labels` is a number of labels. Results that recorded neither have nothing said of
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jepalab.compare.contrasts import CellResult
from jepalab.compare.metrics import name_metric

EDGE, LABELS = "_edge", "_labels"
SIDES = {-1.0: "lowest", 1.0: "highest"}


def edges(cells: Sequence[CellResult], names: Mapping[str, str]) -> list[str]:
    """A sentence with every setting that validation chose at an edge of its grid, and for which arms; none where there
    is none.

    Of the encoder that stands for an arm, over all its conditions and seeds; those read beside it are left out.
    """
    tried: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], Counter[str]] = {}
    for cell in cells:
        for metric, value in cell["metrics"].items():
            if not metric.endswith(EDGE) or "/" in metric:
                continue
            tried[metric, cell["arm"]] += 1
            if value in SIDES:
                found.setdefault((metric, SIDES[value]), Counter())[cell["arm"]] += 1
    if not found:
        return []
    words = [
        f"{name_metric(metric.removesuffix(EDGE), names)}, {side}: "
        + ", ".join(f"{arm} {count}/{tried[metric, arm]}" for arm, count in arms.items())
        for (metric, side), arms in sorted(found.items())
    ]
    return [
        "Chosen on validation at an edge of its grid, so that a setting beyond might read out more (in how many of an "
        f"arm's runs): {'; '.join(words)}."
    ]


def machines(cells: Sequence[CellResult]) -> list[str]:
    """A sentence with the machines and precisions that the cells were trained on, if they are several."""
    told = [cell["compute"] for cell in cells if "machine" in cell.get("compute", {})]
    found = Counter(f"{compute['machine']}, in {compute['computed_in']}" for compute in told)
    if len(found) < 2:
        return []
    words = "; ".join(f"{count} on {machine}" for machine, count in found.most_common())
    return [
        f"Trained on machines that differ, which says nothing about arms as long as each has its share: {words} "
        "(runs). Seconds on one are no comparison with seconds on another."
    ]


def search_edges(settings: Mapping[str, Any]) -> list[str]:
    """A sentence with every setting that a search chose at an end of what it searched; none where there is none."""
    words = [
        f"{arm}, {condition}: {', '.join(f'{knob} ({side} end)' for knob, side in entry['edges'].items())}"
        for condition, arms in settings.get("conditions", {}).items()
        for arm, entry in arms.items()
        if entry.get("edges") and "tuned_on" not in entry
    ]
    if not words:
        return []
    return [f"At an end of what was searched, so the best setting may lie outside it: {'; '.join(words)}."]


def label_counts(cells: Sequence[CellResult], names: Mapping[str, str]) -> str:
    """How many labels each read-out learned from, as a sentence; empty where none said so."""
    by_count: dict[str, list[str]] = {}
    for metric in names:
        counts = {
            value
            for cell in cells
            for key, value in cell["metrics"].items()
            if key.rpartition("/")[2] == f"{metric}{LABELS}"
        }
        if counts:
            low, high = (f"{end(counts):,.0f}" for end in (min, max))
            by_count.setdefault(low if low == high else f"{low} to {high}", []).append(name_metric(metric, names))
    if not by_count:
        return ""
    parts = [f"{count} for {', '.join(metrics)}" for count, metrics in by_count.items()]
    caution = " Unequal numbers are no comparison of read-outs." if len(by_count) > 1 else ""
    return f"Labels that each read-out learned from: {'; '.join(parts)}.{caution}"
