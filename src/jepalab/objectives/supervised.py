"""Supervised regression and classification of the known factors: the ceiling of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.losses.distances import mean_squared
from jepalab.types import Batch, Encoder, Objective, Space


class Supervised(Objective):
    """Position and class, read linearly from each frame's embedding, against the truth.

    The only objective that reads factors: "position" [b t 2] and "class" [b t]. weights: "position", "class".
    """

    compares: ClassVar[Mapping[str, Space]] = {"position": Space.LABEL, "class": Space.LABEL}
    reads_factors = frozenset({"position", "class"})

    def __init__(self, encoder: Encoder, *, num_classes: int, weights: dict[str, float]) -> None:
        super().__init__()
        self.encoder, self.weights = encoder, weights
        self.position, self.label = nn.Linear(encoder.dim, 2), nn.Linear(encoder.dim, num_classes)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.encoder(batch.x)
        truth = batch.factors["class"].flatten().long()
        return {
            "position": mean_squared(self.position(z), batch.factors["position"]),
            "class": F.cross_entropy(self.label(z).flatten(0, 1).float(), truth),
        }

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        objective = cls(ConvEncoder(8, dim=4), num_classes=3, weights={"position": 1.0, "class": 1.0})
        factors = {"position": torch.rand(4, 3, 2), "class": torch.randint(3, (4, 3))}
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), factors=factors)
