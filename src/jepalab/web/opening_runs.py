"""Run folders made runs again, without trust in them: weights of their own, words that reach nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError

from jepalab.catalogue import find_experiments, find_recipes
from jepalab.compare.cells import cell_folder
from jepalab.compare.grid import Plan
from jepalab.comparing import ComparePlace
from jepalab.run import Run
from jepalab.training import Place
from jepalab.web.places import inside
from jepalab.web.reading_places import Reader
from jepalab.web.shelf import in_a_line, read_json


class Weights(NamedTuple):
    """The newest weights of a run.

    key  is another one once there are newer weights.
    """

    file: Path
    step: int
    key: tuple[str, int]


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """What the system refuses about a run is a ValueError that names the run, not its place on this machine."""
    try:
        yield
    except OSError as problem:
        raise ValueError(f"{name[:80]} cannot be read: {in_a_line(problem)}.") from problem


def below(root: Path, name: str, *rest: str) -> Path:
    """A place in the folder of the run that the page calls `name`, with no link on the way. ValueError otherwise."""
    return inside(root, "/".join([name or ".", *rest]))


def weights_of(root: Path, name: str) -> Weights:
    """The newest weights in the folder of a run.

    Raises:
        ValueError: there is no such run, or it has no weights that are a plain file of its own; says which.
    """
    with in_words(name):
        if not below(root, name, "run.json").is_file():
            raise ValueError(f"There is no run {name[:80]!r} below the folder that this lab shows.")
        kept = below(root, name, "checkpoints")
        found = [re.fullmatch(r"step-([0-9]+)", place.name) for place in kept.glob("step-*")]
        steps = {int(each[1]): each[0] for each in found if each}
        if not steps:
            raise ValueError(f"{name} has no checkpoint yet: wait for its first one, or train it to the end.")
        step = max(steps)
        file = below(root, name, kept.name, steps[step], "model.safetensors")
        if not file.is_file():
            raise ValueError(f"The last checkpoint of {name} holds no weights of its own; train it again.")
        return Weights(file, step, (str(file), file.stat().st_mtime_ns))


def open_below(root: Path, name: str) -> tuple[Run, Callable[[], Run]]:
    """The run that the page calls `name` with its newest weights, frozen, and what makes it as before its first step.

    Raises:
        ValueError: it has no weights, or cannot or may not be made again here; says why.
    """
    weights = weights_of(root, name)
    with in_words(name):
        make = way_to_make(root, name)
        run = make()
        try:
            run.objective.load_state_dict(safetensors.torch.load_file(weights.file))
        except (RuntimeError, KeyError, TypeError, SafetensorError) as problem:
            raise ValueError(
                f"The weights of {name} do not fit the network that its command makes today, or are damaged; "
                "train it again."
            ) from problem
    run.objective.eval().requires_grad_(False)
    return run, make


def way_to_make(root: Path, name: str) -> Callable[[], Run]:
    """A function that makes the run of this name as it was before its first step, by what its run.json says.

    A run of `jepalab train` says its recipe and its words, a cell the command of its comparison. Anything else, such as
    a run that a script started, cannot be made again: ValueError.
    """
    known = read_json(below(root, name, "run.json"))
    if "words" in known and "recipe" in known:
        recipe, recipes = str(known["recipe"]), find_recipes()
        if recipe not in recipes:
            raise ValueError(f"{name} was trained by the recipe {recipe[:80]!r}, which this jepalab has not got.")
        program = f"jepalab train {recipe}"
        settings = Reader(root, name).settings(recipes[recipe], Place(), program=program, words=known["words"])
        return partial(recipes[recipe], **settings)
    if "fingerprint" in known:
        return partial(_make_cell, root, known, name)
    raise ValueError(
        f"{name} says no command that it could be made again with; wanted a run of `jepalab train`, or a cell of "
        "`jepalab compare`. Its saved encoder can be used by itself: jepalab.load."
    )


def _make_cell(root: Path, known: Mapping[str, Any], name: str) -> Run:
    words, experiments = _words_of(known, name), find_experiments()
    if len(words) < 3 or words[:2] != ["jepalab", "compare"] or words[2] not in experiments:
        raise ValueError(
            f"{name} is a cell of a comparison that no `jepalab compare` made, so that its objective cannot be made "
            "again; only what needs nothing but its encoder can show it."
        )
    declare, program = experiments[words[2]], f"jepalab compare {words[2]}"
    settings = Reader(root, name).settings(declare, ComparePlace(), program=program, words=words[3:])
    if settings.get("samples") == 0:
        settings["samples"] = 1  # how long it trains plays no part, and need not be measured
    plan = declare(**settings)
    assert isinstance(plan, Plan)
    seed, place = _seed_of(known, name), below(root, name).absolute().parts[-4:]
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
