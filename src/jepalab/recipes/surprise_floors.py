"""What expects something without having learned: copying, extrapolating, random networks, and physics itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean, quantiles, stdev
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.data.occluder_scenes import SIZE
from jepalab.data.occluders import OccludedShapes
from jepalab.data.sprites import Split
from jepalab.instruments.surprise import (
    NUM_PAIRS,
    SurpriseSubject,
    baselines,
    show,
    surprise,
    surprise_subjects,
    untrained,
)
from jepalab.recipes.surprise_arms import (
    DIM,
    ExpectationBench,
    OccludedWorld,
    expect_embedding_vicreg,
    expect_hidden_embedding,
    expect_hidden_pixels,
    expect_pixels,
)
from jepalab.run import Run
from jepalab.types import Batch, Objective, Space

FloorName = Literal[
    "copy last frame",
    "pixel velocity",
    "constant velocity",
    "physics",
    "untrained frames",
    "untrained frames, pixels",
    "untrained clips",
    "untrained clips, pixels",
]
NUM_UNTRAINED, FIRST_SEED = 20, 20_000  # seeds that no run has
UNTRAINED: dict[str, Callable[[ExpectationBench], Run]] = {
    "untrained frames": expect_embedding_vicreg,
    "untrained frames, pixels": expect_pixels,
    "untrained clips": expect_hidden_embedding,
    "untrained clips, pixels": expect_hidden_pixels,
}
# Twenty of the clip models would take an hour on all pairs; fewer pairs widen their spread, and what is to be beaten.
UNTRAINED_SHARE = {name: 0.25 if name.startswith("untrained clips") else 1.0 for name in UNTRAINED}


class Floor(Objective):
    """Holds what expects without having learned, and the world it is in; it has no terms and cannot be trained."""

    compares: ClassVar[Mapping[str, Space]] = {}

    def __init__(self, name: FloorName, world: OccludedWorld) -> None:
        super().__init__()
        self.name, self.world = name, world
        self.encoder = ConvEncoder(SIZE, dim=DIM).requires_grad_(False)
        self.weights = {}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        raise ValueError("Nothing is learned here; give the run steps=0.")

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        return cls("copy last frame", OccludedWorld()), Batch(x=torch.rand(2, 12, 1, SIZE, SIZE))


@dataclass(frozen=True)
class FloorSubject:
    """What `expectation` judges where nothing was learned."""

    name: FloorName
    world: OccludedWorld
    stream: OccludedShapes
    share: float


def expecting_subjects(
    objective: Objective, stream: OccludedShapes, *, share: float = 1.0
) -> Mapping[str, SurpriseSubject | FloorSubject]:
    """What is judged of a model, or of a floor."""
    if isinstance(objective, Floor):
        return {"model": FloorSubject(objective.name, objective.world, stream, share)}
    return surprise_subjects(objective, stream, share=share)


def expectation(subject: SurpriseSubject | FloorSubject) -> dict[str, float]:
    """`surprise`, of models and of floors alike.

    Of NUM_UNTRAINED untrained networks, normalised by the world's own pixels as trained ones are, the means; and of
    their `surprise_accuracy` the largest, `best_of_untrained`, the 95th percentile, `untrained_95`, and the standard
    deviation, `untrained_sd`.
    """
    if isinstance(subject, SurpriseSubject):
        return surprise(subject)
    if subject.name in UNTRAINED:
        return _untrained(subject)
    return baselines(subject.stream, num_pairs=_num_pairs(subject.share))[subject.name]


def make_floor(shared: ExpectationBench, *, name: FloorName) -> Run:
    """A floor, as a run of no steps."""
    return replace(shared.run(Floor(name, shared.world)), steps=0)


def _untrained(subject: FloorSubject) -> dict[str, float]:
    make = partial(_make_untrained, subject)
    num_pairs = _num_pairs(subject.share * UNTRAINED_SHARE[subject.name])
    validation, test = (show(subject.stream, split, num) for split, num in num_pairs.items())
    found = untrained(make, validation=validation, test=test, num_networks=NUM_UNTRAINED)
    accuracy = found["surprise_accuracy"]
    return {name: mean(scores) for name, scores in found.items()} | {
        "best_of_untrained": max(accuracy),
        "untrained_95": quantiles(accuracy, n=20, method="inclusive")[-1],
        "untrained_sd": stdev(accuracy),
    }


def _make_untrained(subject: FloorSubject, number: int) -> Objective:
    return UNTRAINED[subject.name](ExpectationBench(world=subject.world, seed=FIRST_SEED + number)).objective


def _num_pairs(share: float) -> dict[Split, int]:
    return {split: 2 * max(1, round(share * num / 2)) for split, num in NUM_PAIRS.items()}
