"""What expects something without having learned: copying, extrapolating, random networks, and physics itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import mean
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
from jepalab.recipes.surprise_arms import DIM, ExpectationBench, expect_embedding_vicreg
from jepalab.run import Run
from jepalab.types import Batch, Objective, Space

FloorName = Literal["copy last frame", "pixel velocity", "constant velocity", "physics", "untrained"]
NUM_UNTRAINED, FIRST_SEED = 20, 20_000  # seeds that no run has


class Floor(Objective):
    """Holds the name of something that expects without having learned; it has no terms and cannot be trained."""

    compares: ClassVar[Mapping[str, Space]] = {}

    def __init__(self, name: FloorName) -> None:
        super().__init__()
        self.name = name
        self.encoder = ConvEncoder(SIZE, dim=DIM).requires_grad_(False)
        self.weights = {}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        raise ValueError("Nothing is learned here; give the run steps=0.")

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        return cls("copy last frame"), Batch(x=torch.rand(2, 12, 1, SIZE, SIZE))


@dataclass(frozen=True)
class FloorSubject:
    """What `expectation` judges where nothing was learned."""

    name: FloorName
    stream: OccludedShapes
    share: float


def expecting_subjects(
    objective: Objective, stream: OccludedShapes, *, share: float = 1.0
) -> Mapping[str, SurpriseSubject | FloorSubject]:
    """What is judged of a model, or of a floor."""
    if isinstance(objective, Floor):
        return {"model": FloorSubject(objective.name, stream, share)}
    return surprise_subjects(objective, stream, share=share)


def expectation(subject: SurpriseSubject | FloorSubject) -> dict[str, float]:
    """`surprise`, of models and of floors alike; of 20 untrained networks the means, and `best_of_untrained`."""
    if isinstance(subject, SurpriseSubject):
        return surprise(subject)
    if subject.name != "untrained":
        return baselines(subject.stream, num_pairs=_num_pairs(subject.share))[subject.name]
    return _untrained(subject.stream, subject.share)


def make_floor(shared: ExpectationBench, *, name: FloorName) -> Run:
    """A floor, as a run of no steps."""
    return replace(shared.run(Floor(name)), steps=0)


def _untrained(stream: OccludedShapes, share: float) -> dict[str, float]:
    def make(number: int) -> Objective:
        return expect_embedding_vicreg(ExpectationBench(seed=FIRST_SEED + number)).objective

    validation, test = (show(stream, split, num) for split, num in _num_pairs(share).items())
    found = untrained(make, validation=validation, test=test, num_networks=NUM_UNTRAINED)
    means = {name: mean(scores) for name, scores in found.items()}
    return means | {"best_of_untrained": max(found["surprise_accuracy"])}


def _num_pairs(share: float) -> dict[Split, int]:
    return {split: 2 * max(1, round(share * num / 2)) for split, num in NUM_PAIRS.items()}
