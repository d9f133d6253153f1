"""The command `jepalab compare`: every arm of an experiment over several seeds, judged as declared, with a report."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jepalab.catalogue import find_experiments
from jepalab.compare import grid
from jepalab.compare.report import write_report
from jepalab.compare.summary import contrasts_table, publish, published_cells, scores_table
from jepalab.flags import call_with_flags
from jepalab.menu import known, summary, table
from jepalab.progress import make_display


@dataclass(frozen=True)
class ComparePlace:
    """Where a comparison is recorded and computed.

    Args:
        out: folder of the comparison; the same command with the same folder goes on where it stopped.
        num_workers: runs at a time; 0 takes one for each core, or one where there is a GPU.
        publish: also copy the results and the report into this folder; what ended there already is not run again.
        json: print results.json on standard output instead of tables.
    """

    out: Path | None = None
    num_workers: int = 0
    publish: Path | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """jepalab compare EXPERIMENT [options]"""
    experiments = find_experiments()
    if not words or words[0] in ("-h", "--help"):
        print("usage: jepalab compare EXPERIMENT [options], and jepalab compare EXPERIMENT --help for its options\n")
        print(table({name: summary(plan) for name, plan in experiments.items()}))
        return 0
    name = known(words[0], experiments, "experiment")
    if not name:
        return 2
    program = f"jepalab compare {name}"
    place, _, plan = call_with_flags(experiments[name], ComparePlace(), program=program, words=words[1:])
    display = make_display()
    folder = place.out or Path("runs") / plan.name
    ended = published_cells(place.publish, plan.name, folder) if place.publish else []
    try:
        comparison = grid.compare(plan, out=folder, num_workers=place.num_workers, display=display, ended=ended)
    finally:
        display.close()
        if (folder / "results.json").exists():
            write_report(folder)
            if place.publish:
                publish(folder, place.publish)
    if place.json:
        print(json.dumps(comparison.results))
    else:
        _print_comparison(comparison)
        print(f"\nreport: {(folder / 'report.html').resolve()}")
    return 0 if all(cell["status"] == "done" for cell in comparison.results["cells"]) else 1


def rewrite(words: list[str]) -> int:
    """jepalab report FOLDER"""
    if len(words) != 1 or words[0].startswith("-"):
        print("usage: jepalab report FOLDER\n\nWrites FOLDER/report.html again from the comparison recorded there.")
        return 0 if words in (["-h"], ["--help"]) else 2
    print(write_report(Path(words[0])))
    return 0


def _print_comparison(comparison: grid.Comparison) -> None:
    console = Console(width=None if sys.stdout.isatty() else 116)
    for note in comparison.results["notes"]:
        console.print(note, highlight=False, markup=False)
    for condition in comparison.results["conditions"]:
        console.print(scores_table(comparison.results, condition))
    console.print(contrasts_table(comparison.results))
    console.print(comparison.results["answer"], highlight=False, markup=False)
