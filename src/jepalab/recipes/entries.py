"""Which arms take part in a comparison on one's own data: those with tuned settings, for as long as a budget buys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jepalab.compare.tune import Arm
from jepalab.data.image_cache import default_cache
from jepalab.data.samples import Samples
from jepalab.recipes.allowance import Allowance, allot, measured_costs
from jepalab.run import Run


def read_tuned(experiment: str, condition: str) -> dict[str, Any]:
    """What the recorded search of an experiment chose, and how it went; no settings where there was none."""
    file = files("jepalab.recipes").joinpath(f"{experiment}.tuned.json")
    return json.loads(file.read_text()) if file.is_file() else {"conditions": {condition: {}}}


def choose(
    asked: Sequence[str], arms: Mapping[str, Arm], known: Mapping[str, Any], *, samples: Samples, search: str
) -> list[str]:
    """Those of the arms that were asked for which are tuned, or need no tuning.

    known   the tuned settings by arm.
    search  the command that tunes, such as "jepalab tune images".

    Raises:
        ValueError: an arm that does not exist, nothing tuned, or samples of fewer than two classes.
    """
    if unknown := [arm for arm in asked if arm not in arms]:
        raise ValueError(f"Unknown arms: {', '.join(unknown)}. There are {', '.join(arms)}.")
    if samples.num_classes < 2:
        raise ValueError(
            f"There are labels of {samples.num_classes} class(es) in {samples.source}, and without two nothing can be "
            "judged. A few labels do: put files into a sub-folder for each class, or name them in --labels FILE.csv."
        )
    chosen = [arm for arm in asked if arms[arm].knob is None or arm in known]
    if not any(arms[arm].knob for arm in chosen):
        raise ValueError(f"No arm has tuned settings, and untuned arms do not compete: run `{search}` first.")
    return chosen


def buy(
    budget: str,
    *,
    make: Mapping[str, Callable[[int], Run]],
    samples: Samples,
    most_seeds: int,
    key: str,
    cache: Path | None,
    batch_size: int,
    noun: str,
) -> Allowance:
    """How many samples each trained arm may see in this wall-clock time, and how many seeds of each.

    make  the run of each trained arm; key  what its cost depends on beside the machine.
    """
    memory = (cache or default_cache()) / "costs.json"
    costs = measured_costs(list(make), lambda arm: make[arm](0), key=key, memory=memory, batch_size=batch_size)
    return allot(
        budget,
        seconds_per_sample=costs,
        num_train=len(samples.indices("train")),
        num_classes=samples.num_classes,
        num_test=len(samples.indices("test")),
        most_seeds=most_seeds,
        noun=noun,
    )


def caveats(
    found: Mapping[str, Any], asked: Sequence[str], chosen: Sequence[str], *, search: str, noun: str
) -> list[str]:
    """What has to be said of the settings, and of the arms that were left out."""
    notes = [
        f"Settings were tuned on {found.get('data', 'nothing yet')}, {found.get('num_trials', 'some')} short trials an "
        f"arm; `{search}` repeats the search on your {noun}."
    ]
    if left := [arm for arm in asked if arm not in chosen]:
        notes.append(f"Left out, for want of tuned settings: {', '.join(left)}.")
    return notes
