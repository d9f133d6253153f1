"""What every instrument says of every encoder of a run, and which of them stands for its arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from jepalab.instruments.features import subjects
from jepalab.types import Objective, Stream


@runtime_checkable
class Subjects(Protocol):
    """Makes what the instruments read of each encoder, on a share of the held-out data."""

    def __call__(self, objective: Objective, stream: Any, *, share: float = 1.0) -> Mapping[str, Any]: ...


def measure(
    objective: Objective,
    *,
    stream: Stream,
    instruments: Sequence[Callable[[Any], dict[str, float]]],
    share: float = 1.0,
    subjects: Subjects = subjects,
    of_the_first: Sequence[Callable[[Any], dict[str, float]]] = (),
    prefer: str = "",
) -> dict[str, float]:
    """Every instrument on every encoder; the first encoder's scores bear no prefix, another's read "NAME/...".

    prefer  a score on validation: the encoder with the largest stands for the arm, and its scores bear no prefix;
            where there are several, the scores of each are there under its name as well.

    Scores that are not finite are left out: they are not JSON, and a contrast counts them as missing.
    """
    training, device = objective.training, next(objective.parameters(), torch.zeros(())).device
    read = subjects(objective, stream, share=share)
    found = {name: _scores(subject, instruments) for name, subject in read.items()}
    if not found:
        return {}  # nothing is known of these samples that could be read
    first = next(iter(found))
    if prefer and len(found) > 1:
        first = max(found, key=lambda name: found[name].get(prefer, -math.inf))
        by_name = {f"{name}/{key}": value for name, scores in found.items() for key, value in scores.items()}
    else:
        by_name = {f"{name}/{key}": found[name][key] for name in [*found][1:] for key in found[name]}
    scores = found[first] | _scores(read[first], of_the_first) | by_name
    objective.train(training).to(device)  # an instrument may have computed elsewhere
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def stands_for(scores: Mapping[str, float], names: Collection[str], prefer: str) -> str:
    """The name of the encoder whose scores `measure` gave without a prefix."""
    return max(names, key=lambda name: scores.get(f"{name}/{prefer}", -math.inf))


def _scores(subject: Any, instruments: Sequence[Callable[[Any], dict[str, float]]]) -> dict[str, float]:
    return {key: value for instrument in instruments for key, value in instrument(subject).items()}
