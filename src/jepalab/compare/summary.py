"""A comparison's results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from jepalab.compare.stats import mean_interval

COLUMNS = {
    "state_r2": "state R2",
    "position_r2": "position R2",
    "velocity_r2": "velocity R2",
    "class_linear": "class",
    "nuisance_r2": "nuisance R2",
    "rankme": "RankMe",
}


def scores_table(results: Mapping[str, Any], condition: str) -> Table:
    """One row an arm: means over seeds, the state R2 with its 95 % interval."""
    table = Table(title=escape(f"{condition}: {results['conditions'][condition]}"), title_justify="left")
    table.add_column("arm", no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    table.add_column("seconds", justify="right")
    for arm, label in results["arms"].items():
        cells = [cell for cell in results["cells"] if (cell["arm"], cell["condition"]) == (arm, condition)]
        done = [cell for cell in cells if cell["status"] == "done"]
        if not done:
            table.add_row(f"{arm}  {label}", *(["failed" if cells else "not run"] + [""] * len(COLUMNS)))
            continue
        readings = [[cell["metrics"][key] for cell in done if key in cell["metrics"]] for key in COLUMNS]
        shown = [_with_interval(readings[0]), *(f"{np.mean(values):.2f}" if values else "" for values in readings[1:])]
        seconds = np.mean([cell["compute"]["seconds"] for cell in done])
        table.add_row(f"{arm}  {label}", *shown, f"{seconds:.0f}" if seconds else "")
    return table


def contrasts_table(results: Mapping[str, Any]) -> Table:
    """One row a declared contrast: the difference with its interval, and the verdict."""
    table = Table(title="Declared before the first run, judged after the last", title_justify="left")
    for title, side in (("contrast", "left"), ("difference", "right"), ("95 % interval", "right"), ("verdict", "left")):
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    colours = {"held": "green", "refuted": "red", "not shown": "yellow"}
    for contrast in results["contrasts"]:
        low, high = contrast["interval"]
        interval = "none" if low is None else f"[{low:+.3f}, {high:+.3f}]"
        difference = "none" if contrast["difference"] is None else f"{contrast['difference']:+.3f}"
        verdict = contrast["verdict"] if contrast["is_primary"] else "exploratory"
        colour = colours.get(verdict, "dim")
        table.add_row(escape(contrast["name"]), difference, escape(interval), f"[{colour}]{verdict}")
    return table


def _with_interval(values: list[float]) -> str:
    interval = mean_interval(values, generator=np.random.default_rng(0))
    if not np.isfinite(interval.low):
        return f"{interval.estimate:.2f}"
    return f"{interval.estimate:.2f} ± {(interval.high - interval.low) / 2:.2f}"
