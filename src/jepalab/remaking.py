"""Runs made again as they were before their first step, by what their run.json says they were made with."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jepalab.catalogue import find_experiments, find_recipes
from jepalab.compare.cells import Judging, cell_folder
from jepalab.compare.grid import Plan
from jepalab.comparing import ComparePlace
from jepalab.flags import call_with_flags
from jepalab.run import Run
from jepalab.training import Place


@runtime_checkable
class Settings(Protocol):
    """With what words would call a function made for a command line, which is not called. ValueError for others."""

    def __call__(self, function: Callable[..., Any], place: Any, *, program: str, words: Any) -> dict[str, Any]: ...


def settings_of(name: str) -> Settings:
    """Reads words as the command line does. `name` is that of the run, for what is said of words that do not fit."""

    def read(function: Callable[..., Any], place: Any, *, program: str, words: Any) -> dict[str, Any]:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"The words in the run.json of {name} are no list of words.")
        if any(word.replace("_", "-").startswith("--tyro") for word in words):  # the parser itself would write files
            raise ValueError(f"The words in the run.json of {name} ask for something other than a run.")

        def only_parsed(**settings: Any) -> None:
            """Stands in for the function."""

        only_parsed.__signature__ = inspect.signature(function, eval_str=True)  # pyrefly: ignore[missing-attribute]
        try:
            return call_with_flags(only_parsed, place, program=program, words=words).settings
        except SystemExit as ended:  # tyro would leave, after words that it does not know or that ask for help
            raise ValueError(
                f"`{program}` does not understand today the words that {name} was trained with; train it again."
            ) from ended

    return read


def way_to_make(known: Mapping[str, Any], place: Path, *, name: str, settings: Settings) -> Callable[[], Run]:
    """A function that makes a run as it was before its first step.

    A run of `jepalab train` says its recipe and its words, a cell the command of its comparison. Anything else, such as
    a run that a script started, cannot be made again: ValueError.

    known     its run.json.
    place     its folder, by whose last parts a cell is found.
    name      what the run is called.
    settings  reads its words.
    """
    if "words" in known and "recipe" in known:
        recipe, recipes = str(known["recipe"]), find_recipes()
        if recipe not in recipes:
            raise ValueError(f"{name} was trained by the recipe {recipe[:80]!r}, which this jepalab has not got.")
        asked = settings(recipes[recipe], Place(), program=f"jepalab train {recipe}", words=known["words"])
        return partial(recipes[recipe], **asked)
    if "fingerprint" in known:
        return partial(_make_cell, known, place, name, settings)
    raise ValueError(
        f"{name} says no command that it could be made again with; wanted a run of `jepalab train`, or a cell of "
        "`jepalab compare`. Its saved encoder can be used by itself: jepalab.load."
    )


def judging_of_cell(known: Mapping[str, Any], *, name: str, settings: Settings) -> Judging | None:
    """How a cell was judged, by its run.json; None for a run that is no cell. ValueError as `way_to_make` says."""
    return None if "words" in known or "fingerprint" not in known else _plan_of(known, name, settings)[0].judging


def _plan_of(known: Mapping[str, Any], name: str, settings: Settings) -> tuple[Plan, str]:
    """The comparison that a cell is of, declared again, and its command."""
    words, experiments = _words_of(known, name), find_experiments()
    if len(words) < 3 or words[:2] != ["jepalab", "compare"] or words[2] not in experiments:
        raise ValueError(
            f"{name} is a cell of a comparison that no `jepalab compare` made, so that its objective cannot be made "
            "again; only what needs nothing but its encoder can show it."
        )
    declare, program = experiments[words[2]], f"jepalab compare {words[2]}"
    asked = settings(declare, ComparePlace(), program=program, words=words[3:])
    if asked.get("samples") == 0:
        asked["samples"] = 1  # how long it trains plays no part, and need not be measured
    plan = declare(**asked)
    assert isinstance(plan, Plan)
    return plan, program


def _make_cell(known: Mapping[str, Any], place: Path, name: str, settings: Settings) -> Run:
    plan, program = _plan_of(known, name, settings)
    seed, parts = _seed_of(known, name), place.absolute().parts[-4:]
    cell = next((each for each in plan.cells if cell_folder(Path(), each, seed).parts == parts), None)
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
