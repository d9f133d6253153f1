"""Run folders made runs again, without trust in them: weights of their own, words that reach nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
from safetensors import SafetensorError

from jepalab import remaking
from jepalab.run import Run
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
    """A function that makes the run of this name as it was before its first step, if its words may be followed here.

    ValueError for what cannot be made again.
    """
    known, place = read_json(below(root, name, "run.json")), below(root, name)
    return remaking.way_to_make(known, place, name=name, settings=Reader(root, name).settings)
