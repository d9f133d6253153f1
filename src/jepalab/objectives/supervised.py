"""Supervised regression and classification of the known factors: the ceiling of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.dist import mean_over_processes
from jepalab.losses.distances import mean_squared
from jepalab.types import Batch, Encoder, Objective, Space

UNLABELLED = -1


class Supervised(Objective):
    """Factors read linearly from each frame's mean embedding, against the truth; the only objective that reads them.

    num_outputs  how many numbers, or classes, each factor has: "class" and "count" are classes, read by
                 cross-entropy, -1 for those that nobody labelled; "position" [b t f] is regressed. One weight for each.
    """

    compares: ClassVar[Mapping[str, Space]] = dict.fromkeys(("position", "class", "count"), Space.LABEL)

    def __init__(self, encoder: Encoder, *, num_outputs: Mapping[str, int], weights: dict[str, float]) -> None:
        super().__init__()
        if num_outputs.keys() - self.compares.keys():
            raise ValueError(f"Supervised reads {', '.join(self.compares)}, got {', '.join(num_outputs)}.")
        self.encoder, self.weights = encoder, weights
        self.heads = nn.ModuleDict({name: nn.Linear(encoder.dim, count) for name, count in num_outputs.items()})
        self.reads_factors = frozenset(num_outputs)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.encoder(batch.x)
        return {name: _compare(head, z, batch.factors[name]) for name, head in self.heads.items()}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        weights = {"position": 1.0, "class": 1.0}
        objective = cls(ConvEncoder(8, dim=4), num_outputs={"position": 2, "class": 3}, weights=weights)
        factors = {"position": torch.rand(4, 3, 2), "class": torch.randint(3, (4, 3))}
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), factors=factors)


def _compare(head: nn.Module, z: Float[Tensor, "b n d"], truth: Tensor) -> Float[Tensor, ""]:
    """Of one factor, known of each frame or once for the whole clip: as many means of tokens answer for it."""
    output = head(z.unflatten(1, (truth.shape[1], -1)).mean(2)).float()
    if truth.is_floating_point():
        return mean_squared(output, truth)
    rows, classes = output.flatten(0, 1), truth.flatten().long()
    total = F.cross_entropy(rows, classes, ignore_index=UNLABELLED, reduction="sum")
    # Divided by the mean count of all processes, so that the mean of their losses is the loss of the whole batch.
    return total / mean_over_processes((classes != UNLABELLED).float().sum()).clamp_min(1e-6)
