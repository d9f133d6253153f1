"""Tuned settings of an experiment's arms: from a file, from a search on the same data, or as shipped."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jepalab.compare.tune import SHARED, Arm, Knob, edges

SHIPPED = "jepalab's own search"


def search_folder(name: str) -> Path:
    """Where `jepalab tune NAME` records unless another folder is named."""
    return Path("runs") / f"tune-{name}"


def shipped_file(name: str, kind: str = "tuned") -> Path:
    """NAME.tuned.json or NAME.trials.json beside the recipe; there may be none."""
    return Path(str(files("jepalab.recipes").joinpath(f"{name}.{kind}.json")))


def read_settings(name: str, *, file: Path | None = None, digest: str = "") -> dict[str, Any]:
    """What a search chose, how it went, and under "from" where that was read; no conditions where there is nothing.

    file    is read if given. Otherwise the search in `search_folder` is, if its data was the same, and what is shipped
            if not.
    digest  of the data; empty where an experiment draws its own.

    Raises:
        ValueError: the file is not there.
    """
    own, shipped = search_folder(name) / f"{name}.tuned.json", shipped_file(name)
    if file is not None and not file.is_file():
        raise ValueError(f"There are no settings in {file}; `jepalab tune {name}` writes them into {own}.")
    if file is not None:
        return json.loads(file.read_text()) | {"from": str(file)}
    if own.is_file() and (found := json.loads(own.read_text())).get("digest", "") == digest:
        return found | {"from": str(own)}
    return json.loads(shipped.read_text()) | {"from": SHIPPED} if shipped.is_file() else {"conditions": {}}


def say_where(found: Mapping[str, Any]) -> list[str]:
    """A note on where settings came from, where that is not what everybody has."""
    place = found.get("from", SHIPPED)
    return [] if place == SHIPPED else [f"Settings of the arms: {place}."]


def entries(
    found: Mapping[str, Any],
    condition: str,
    arms: Mapping[str, Arm],
    *,
    tuned_on: str | None = None,
    shared: Sequence[Knob] = SHARED,
) -> dict[str, Any]:
    """What a plan says of the settings under a condition, by arm; empty where there are none.

    An entry of settings that another condition's search chose names that condition as "tuned_on". Searches recorded
    without their "edges" get them here, from the ranges of today.
    """
    place = condition if tuned_on is None else tuned_on
    borrowed = {} if place == condition else {"tuned_on": place}
    said: dict[str, Any] = {}
    for arm, summary in found["conditions"].get(place, {}).items():
        if arm not in arms:
            continue
        knob, num_trials = arms[arm].knob, len(summary.get("scores", ()))
        knobs = (*shared, *([knob] if knob else []))
        said[arm] = {"edges": edges(summary["settings"], knobs, num_trials=num_trials)} | summary | borrowed
    return said


def say_trials(summaries: Collection[Mapping[str, Any]]) -> str:
    """How many trials the arms had, as in "12" or "6 to 12"; "some" where that is not known."""
    counts = sorted({len(summary["scores"]) for summary in summaries if "scores" in summary})
    if not counts:
        return "some"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
