"""What `jepalab plan` prints: how often a model, the floor and the ceiling arrive, and what acting took."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from jepalab.compare.stats import mcnemar_exact, wilson_interval
from jepalab.compare.tables import amount
from jepalab.instruments.acting import Played
from jepalab.instruments.planning import Trial

KINDS_OF_GOALS = {
    "all": "",
    "cross": "other room",
    "same": "same room",
    "block": "block moved",
    "agent": "agent alone",
}


def show_acting(
    trial: Trial, scores: Mapping[str, Mapping[str, float]], played: Mapping[str, Played], chief: str
) -> None:
    """Prints rates with their Wilson intervals, by group, radius and criterion, a table a radius; and what acting took.

    scores, played  of everybody who acted, by name.
    chief           whom McNemar's test compares the others with.
    """
    console = Console(width=None if sys.stdout.isatty() else 116)
    groups = [*dict.fromkeys(trial.manifest.groups)]
    for radius, length in trial.radii.items():
        title = f"within {length:.3g} of the goal"
        shown = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
        shown.add_column("")
        for group in groups:
            name = f"{KINDS_OF_GOALS[group]}\n" if KINDS_OF_GOALS[group] else ""
            for title in ("ever", "at the end", "steps"):
                shown.add_column(f"{name}{title}", justify="right")
        shown.add_column("p against\nthe model:\never" + (",\nall goals" if len(groups) > 1 else ""), justify="right")
        for name, each in scores.items():
            cells = []
            for group in groups:
                num = int(trial.manifest.rows(group).sum())
                cells += [_rate(each[f"{group}_{when}_{radius}"], num) for when in ("ever", "end")]
                steps = each.get(f"{group}_steps_{radius}", math.nan)
                cells.append("" if math.isnan(steps) else f"{steps:.0f}")
            cells.append("" if name == chief else _against(played[chief], played[name], length))
            shown.add_row(name, *cells)
        console.print(shown)
        print()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("an action takes", "ms", "FLOPs", "imagined steps", "calls, all\nepisodes at once"):
        shown.add_column(title, justify="left" if title == "an action takes" else "right")
    for name, each in scores.items():
        costs = [amount(each[f"{part}_per_action"]) for part in ("flops", "imagined")]
        shown.add_row(name, f"{each['ms_per_action']:.2f}", *costs, f"{each['calls_per_action']:.1f}")
    console.print(shown)


def _rate(rate: float, num: int) -> str:
    low, high = wilson_interval(round(rate * num), num)
    return f"{rate:.1%} [{low:.0%}, {high:.0%}]"


def _against(one: Played, other: Played, radius: float) -> str:
    """McNemar's exact p of who arrived at some time, over all episodes."""
    a, b = one.within[radius].any(1), other.within[radius].any(1)
    return f"{mcnemar_exact(int((a & ~b).sum()), int((~a & b).sum())):.2g}"
