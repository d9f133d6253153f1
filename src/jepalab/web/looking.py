"""Runs opened again for a look inside: the objective as it was trained, with the weights that lie in its folder."""

from __future__ import annotations

import inspect
import shlex
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jepalab.catalogue import find_experiments, find_recipes
from jepalab.compare.cells import cell_folder
from jepalab.compare.grid import Plan
from jepalab.comparing import ComparePlace
from jepalab.flags import call_with_flags
from jepalab.records import RunFolder
from jepalab.run import Run
from jepalab.training import Place
from jepalab.web.places import inside
from jepalab.web.shelf import read_json

MOST_OPENED = 6
_OPENED: OrderedDict[tuple[str, str, int], Opened] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Opened:
    """A run with its weights, in evaluation mode and without gradients.

    name  below the root.
    make  makes the same run once more, as it was before its first step.
    """

    name: str
    run: Run
    make: Callable[[], Run]


def open_run(root: Path, name: str) -> Opened:
    """The run that the page calls `name`, opened anew only where its weights have changed since the last call.

    Raises:
        ValueError: there is no such run, it has no weights yet, or it cannot be made again here; says why.
    """
    folder = inside(root, name)
    if not (folder / "run.json").is_file():
        raise ValueError(f"There is no run {name!r} below the folder that this lab shows.")
    last = RunFolder(folder).latest()
    if last is None:
        raise ValueError(f"{name} has no checkpoint yet: wait for its first one, or train it to the end.")
    weights = last.path / "model.safetensors"
    if last.path.is_symlink() or weights.is_symlink() or not weights.is_file():
        raise ValueError(f"The last checkpoint of {name} holds no weights of its own; train it again.")
    key = (str(folder), last.path.name, weights.stat().st_mtime_ns)
    if key not in _OPENED:
        _OPENED[key] = _open(folder, name)
        while len(_OPENED) > MOST_OPENED:
            _OPENED.popitem(last=False)
    _OPENED.move_to_end(key)
    return _OPENED[key]


def _open(folder: Path, name: str) -> Opened:
    make = way_to_make(folder, name)
    run = make()
    try:
        RunFolder(folder).load(run.objective)
    except (RuntimeError, KeyError, TypeError) as problem:
        raise ValueError(
            f"The weights of {name} do not fit the network that its command makes today; train it again."
        ) from problem
    run.objective.eval().requires_grad_(False)
    return Opened(name, run, make)


def way_to_make(folder: Path, name: str) -> Callable[[], Run]:
    """A function that makes the run of this folder as it was before its first step, by what its run.json says.

    A run of `jepalab train` says its recipe and its words, a cell the command of its comparison. Anything else, such as
    a run that a script started, cannot be made again: ValueError.
    """
    known = read_json(folder / "run.json")
    if "words" in known and "recipe" in known:
        recipes = find_recipes()
        if known["recipe"] not in recipes:
            raise ValueError(f"{name} was trained by the recipe {known['recipe']!r}, which this jepalab has not got.")
        program = f"jepalab train {known['recipe']}"
        return partial(_call, recipes[known["recipe"]], Place(), program=program, words=known["words"], name=name)
    if "fingerprint" in known:
        return partial(_make_cell, folder, known, name)
    raise ValueError(
        f"{name} says no command that it could be made again with; wanted a run of `jepalab train`, or a cell of "
        "`jepalab compare`. Its saved encoder can be used by itself: jepalab.load."
    )


def _make_cell(folder: Path, known: Mapping[str, Any], name: str) -> Run:
    words, experiments = _words_of(known, name), find_experiments()
    if len(words) < 3 or words[:2] != ["jepalab", "compare"] or words[2] not in experiments:
        raise ValueError(
            f"{name} is a cell of a comparison that no `jepalab compare` made, so that its objective cannot be made "
            "again; only what needs nothing but its encoder can show it."
        )
    declare, program = experiments[words[2]], f"jepalab compare {words[2]}"
    given = words[3:]
    if "samples" in inspect.signature(declare).parameters and "--samples" not in given:
        given = [*given, "--samples", "1"]  # how long it trains plays no part, and need not be measured
    plan = _call(declare, ComparePlace(), program=program, words=given, name=name)
    assert isinstance(plan, Plan)
    seed, place = _seed_of(known, name), folder.parts[-4:]
    cell = next((each for each in plan.cells if cell_folder(Path(), each, seed).parts == place), None)
    if cell is None:
        raise ValueError(f"{name} is no cell of what `{program}` compares today; run the comparison again.")
    run = cell.make(seed)
    found = {"objective": type(run.objective).__name__, "lr": run.lr, "weight_decay": run.weight_decay}
    others = [f"{key} {known[key]} (now {value})" for key, value in found.items() if known.get(key, value) != value]
    if others:
        raise ValueError(f"{name} was trained under settings that are others today: {', '.join(others)}.")
    return run


def _words_of(known: Mapping[str, Any], name: str) -> list[str]:
    try:
        return shlex.split(str(known.get("command", "")))
    except ValueError as problem:
        raise ValueError(f"The command in the run.json of {name} cannot be read ({problem}).") from problem


def _seed_of(known: Mapping[str, Any], name: str) -> int:
    seed = known.get("seed")
    if not isinstance(seed, int):
        raise ValueError(f"The run.json of {name} says no seed; the comparison may not have begun to train it.")
    return seed


def _call(function: Callable[..., Any], place: Any, *, program: str, words: Any, name: str) -> Any:
    """What the function makes of these words of a command line."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"The words in the run.json of {name} are no list of words.")
    try:
        return call_with_flags(function, place, program=program, words=words).made
    except SystemExit as ended:  # tyro would leave, after words that it does not know or that ask for help
        raise ValueError(
            f"`{program}` does not understand today the words that {name} was trained with; train it again."
        ) from ended
