"""A comparison's results as tables: for the terminal, and as Markdown beside a published report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from jepalab.compare.caveats import label_counts
from jepalab.compare.metrics import MOTION, digits_of
from jepalab.compare.readings import Readings
from jepalab.compare.stats import mean_interval
from jepalab.records import write_atomically

MOST_COLUMNS = 6
KEPT_PICTURES = (".stills.npz", ".clips.npz", ".surprise.npz", "trials.npz")  # what a report cannot draw again
CONTRAST_TITLES = ("contrast", "difference", "95 % interval", "verdict")
COLOURS = {"held": "green", "refuted": "red", "not shown": "yellow", "exploratory": "dim"}


def scores_table(results: Mapping[str, Any], condition: str) -> Table:
    """One row an arm: how many seeds ended, means over them, the primary metric with its 95 % interval."""
    table = Table(title=escape(f"{condition}: {results['conditions'][condition]}"), title_justify="left")
    table.caption = escape(label_counts(results["cells"], _columns(results))) or None
    first, *others = _score_titles(results)
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right")
    for row in _score_rows(results, condition):
        table.add_row(*map(escape, row))
    return table


def contrasts_table(results: Mapping[str, Any]) -> Table:
    """One row a contrast: the difference with its interval, and the verdict."""
    table = Table(title="Declared before these seeds ran, judged after", title_justify="left")
    table.add_column(CONTRAST_TITLES[0])
    table.add_column(CONTRAST_TITLES[1], justify="right")
    table.add_column(CONTRAST_TITLES[2], justify="right")
    table.add_column(CONTRAST_TITLES[3])
    for *facts, verdict in _contrast_rows(results):
        table.add_row(*map(escape, facts), f"[{COLOURS[verdict]}]{verdict}")
    return table


def published_cells(target: Path, name: str, folder: Path) -> list[dict[str, Any]]:
    """The cells that an earlier `publish` kept; their pictures go back to where the report looks for them."""
    kept = target / name
    if not (kept / "results.json").exists():
        return []
    for picture in (kept / "pictures").glob("*/*.npz"):
        place = folder / picture.relative_to(kept)
        if not place.exists():
            write_atomically(place, picture.read_bytes())
    return json.loads((kept / "results.json").read_text())["cells"]


def publish(folder: Path, target: Path) -> None:
    """Puts a comparison's results, its report, its pictures and a page of tables into `target`/its name.

    Each file is whole or not there, so that another machine can go on where this one stopped. A comparison that was
    stopped before a cell had ended leaves what is there alone.
    """
    results = json.loads((folder / "results.json").read_text())
    if not results["cells"]:
        return
    for name in ("results.json", "report.html"):
        write_atomically(target / results["name"] / name, (folder / name).read_bytes())
    for picture in (folder / "pictures").glob("*/*.npz"):
        if picture.name.endswith(KEPT_PICTURES):
            write_atomically(target / results["name"] / picture.relative_to(folder), picture.read_bytes())
    write_atomically(target / results["name"] / "README.md", _as_markdown(results).encode())


def _as_markdown(results: Mapping[str, Any]) -> str:
    versions, labels = results["versions"], label_counts(results["cells"], _columns(results))
    parts = [
        f"# {results['question']}",
        results["answer"] if results["complete"] else f"**Unfinished.** {results['answer']}",
        f"Means over seeds; {next(iter(_columns(results).values()))} with half its 95 % interval. "
        f"{f'{labels} ' if labels else ''}The page `report.html` beside this one has the rest.",
    ]
    for condition, what in results["conditions"].items():
        parts += [f"## {condition}: {what}", _markdown_table(_score_titles(results), _score_rows(results, condition))]
    seeds = ", ".join(map(str, results["seeds"]))
    parts += [
        "## Contrasts",
        _markdown_table(CONTRAST_TITLES, _contrast_rows(results)),
        f"Written by `{results['command']}`; seeds {seeds}; torch {versions['packages']['torch']}; "
        f"{versions['machine']}; commit {versions['commit'][:12]}.",
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(titles: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [list(titles), ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    """The primary metric and the first others that any cell has, with their printed names."""
    names: Mapping[str, str] = results.get("metrics") or MOTION
    measured = {metric for cell in results["cells"] for metric in cell["metrics"]}
    found = {metric: name for metric, name in names.items() if metric in measured}
    return dict(list((found or names).items())[:MOST_COLUMNS])


def _score_titles(results: Mapping[str, Any]) -> list[str]:
    return ["arm", "seeds", *_columns(results).values(), Readings(results).clock.replace("cpu_", "CPU ")]


def _score_rows(results: Mapping[str, Any], condition: str) -> Iterator[list[str]]:
    """Of each arm: its name, how many of its cells ended under the condition, and what these read on average."""
    columns, clock = _columns(results), Readings(results).clock
    for arm, label in results["arms"].items():
        cells = [cell for cell in results["cells"] if (cell["arm"], cell["condition"]) == (arm, condition)]
        done = [cell for cell in cells if cell["status"] == "done"]
        name = f"{arm}  {label}"
        if not done:
            yield [name, "0", "failed" if cells else "not run", *[""] * len(columns)]
            continue
        readings = [[cell["metrics"][key] for cell in done if key in cell["metrics"]] for key in columns]
        seconds = np.mean([cell["compute"][clock] for cell in done])
        digits = [digits_of(key) for key in columns]
        means = [f"{np.mean(v):.{d}f}" if v else "" for v, d in zip(readings[1:], digits[1:], strict=True)]
        yield [
            name,
            str(len(done)),
            _with_interval(readings[0], digits[0]),
            *means,
            f"{seconds:.0f}" if seconds else "",
        ]


def _contrast_rows(results: Mapping[str, Any]) -> Iterator[list[str]]:
    for contrast in results["contrasts"]:
        low, high = contrast["interval"]
        interval = "none" if low is None else f"{low:+.3f} to {high:+.3f}"
        difference = "none" if contrast["difference"] is None else f"{contrast['difference']:+.3f}"
        yield [contrast["name"], difference, interval, contrast["verdict"] if contrast["is_primary"] else "exploratory"]


def _with_interval(values: list[float], digits: int) -> str:
    if not values:
        return ""
    interval = mean_interval(values, generator=np.random.default_rng(0))
    if not np.isfinite(interval.low):
        return f"{interval.estimate:.{digits}f}"
    return f"{interval.estimate:.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"
