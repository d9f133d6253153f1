"""Our measured numbers in the lesson: placeholders in its prose, filled from figures.json.

`make_figures` reads docs/results; what is not measured yet says so and names the command, what is unfinished says so
too. Reading figures.json needs nothing but the standard library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jepalab.web.lesson.content import PLACEHOLDER

FILE = Path(__file__).with_name("figures.json")


@dataclass(frozen=True)
class Figure:
    """A number as it is printed. `pending`: it is not measured yet, and the text names the command."""

    text: str
    pending: bool = False


Figures = Mapping[str, Figure]


def find_placeholders(texts: Iterable[str]) -> list[str]:
    """The placeholders that stand for our own measurements, each once: "results:NAME/METRIC/CONDITION/ARM"."""
    found = [f"{kind}:{path}" for text in texts for kind, path in PLACEHOLDER.findall(text) if kind != "audit"]
    return sorted(dict.fromkeys(found))


def fill(text: str, figures: Figures) -> str:
    """The text with numbers in place of its placeholders. One that is pending speaks for the whole text."""
    keys = [f"{kind}:{path}" for kind, path in PLACEHOLDER.findall(text)]
    if missing := [key for key in keys if key not in figures]:
        raise ValueError(f"figures.json lacks {missing[0]}; make it anew: python -m jepalab.web.lesson_page PAGE.html")
    pending = [figures[key].text for key in keys if figures[key].pending]
    if pending:
        return f"{pending[0][:1].upper()}{pending[0][1:]}."
    return PLACEHOLDER.sub(lambda match: figures[f"{match[1]}:{match[2]}"].text, text)


@cache
def read_figures() -> dict[str, Figure]:
    """The figures that were made last."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return {key: Figure(**each) for key, each in stored["figures"].items()}


def make_figures(placeholders: Iterable[str], results: Path) -> dict[str, Any]:
    """What belongs into figures.json, from the folder of published results.

    Raises:
        ValueError: results are there and hold no such condition, arm or metric.
    """
    published: dict[str, Any] = {}
    figures: dict[str, dict[str, Any]] = {}
    for key in placeholders:
        kind, path = key.split(":", 1)
        name = path.partition("/")[0]
        if name not in published:
            file = results / name / "results.json"
            published[name] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        found = published[name]
        if found is None:
            figure = Figure(f"not measured yet; run `jepalab compare {name}`", pending=True)
        else:
            figure = (_result if kind == "results" else _contrast)(key, path.split("/")[1:], found)
        figures[key] = {"text": figure.text} | ({"pending": True} if figure.pending else {})
    made_from = {name: "nothing yet" if found is None else _origin(found) for name, found in sorted(published.items())}
    return {"made_from": made_from, "figures": figures}


def _origin(found: Mapping[str, Any]) -> str:
    state = "finished" if found["complete"] else "unfinished"
    return f"{state}, commit {found['versions']['commit'][:12]}"


def _result(key: str, path: list[str], found: Mapping[str, Any]) -> Figure:
    """The mean over seeds and half of its 95 % interval."""
    from jepalab.compare.readings import Readings, number

    *metric, condition, arm = path
    readings = Readings(found)
    arms = {each.name: each for each in readings.arms}
    _hold(condition in readings.conditions, key, "condition", condition, readings.conditions)
    _hold(arm in arms, key, "arm", arm, arms)
    _hold("/".join(metric) in readings.metrics_in(condition), key, "metric", "/".join(metric), readings.names)
    estimate = readings.estimate(condition, arms[arm], "/".join(metric))
    if estimate is None:
        return Figure(f"not measured yet; run `jepalab compare {found['name']}`", pending=True)
    half = (estimate.high - estimate.low) / 2
    told = f"{estimate.printed} ± {number(half, estimate.digits)}" if estimate.has_interval else estimate.printed
    remarks = [] if estimate.has_interval else ["1 seed"]
    remarks += [] if found["complete"] else ["unfinished"]
    return Figure(f"{told} ({', '.join(remarks)})" if remarks else told)


def _contrast(key: str, path: list[str], found: Mapping[str, Any]) -> Figure:
    """A declared difference and its 95 % interval."""
    from jepalab.compare.readings import number

    wanted = dict(zip(("better", "than", "metric", "condition"), path, strict=True))
    matching = [c for c in found["contrasts"] if all(c.get(name) == value for name, value in wanted.items())]
    _hold(bool(matching), key, "contrast", "/".join(path), [c["name"] for c in found["contrasts"]])
    contrast = matching[0]
    low, high = contrast["interval"]
    if contrast["difference"] is None or low is None or not math.isfinite(low):
        return Figure("no interval yet" + ("" if found["complete"] else ", unfinished"))
    told = f"{number(contrast['difference'])} (95 % interval {number(low)} to {number(high)}"
    return Figure(f"{told})" if found["complete"] else f"{told}, unfinished)")


def _hold(holds: bool, key: str, what: str, got: str, known: Iterable[str]) -> None:
    if not holds:
        raise ValueError(f"The lesson asks for {{{key}}}, but there is no {what} {got!r}. There are: {list(known)}.")
