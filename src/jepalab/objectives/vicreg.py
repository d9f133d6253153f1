"""VICReg: two views of one picture get the same embedding, which must vary and not repeat itself (arXiv 2105.04906)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.projector import Projector
from jepalab.backbones.vit import ViT
from jepalab.losses.distances import mean_squared
from jepalab.losses.vicreg import spread
from jepalab.types import Batch, Encoder, Objective, Space


class VICReg(Objective):
    """Mean squared distance of the two projections, variance and covariance of each.

    Views are `batch.x` and the first of `batch.views`. weights: "invariance", "variance", "covariance"; 25, 25 and 1
    as published, for the mean of the two variance terms and the sum of the two covariance
    terms. The projector normalises both views in one batch.
    """

    compares: ClassVar[Mapping[str, Space]] = {
        "invariance": Space.OWN_EMBEDDING,
        "variance": Space.STATISTIC,
        "covariance": Space.STATISTIC,
    }

    def __init__(self, encoder: Encoder, *, projector: Projector, weights: dict[str, float]) -> None:
        super().__init__()
        self.encoder, self.projector, self.weights = encoder, projector, weights

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        if not batch.views:
            raise ValueError("VICReg compares two views of one picture, got 1; use a stream with num_views=2.")
        views = torch.cat([batch.x, batch.views[0]])
        one, other = self.projector(self.encoder(views).mean(1)).unflatten(0, (2, -1))
        first, second = spread(one.unsqueeze(0)), spread(other.unsqueeze(0))
        return {
            "invariance": mean_squared(one, other),
            "variance": (first.variance + second.variance) / 2,
            "covariance": first.covariance + second.covariance,
        }

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder, projector = (
            ViT((2, 2), patch=(4, 4), dim=8, depth=1, num_heads=2),
            Projector(8, widths=(8,), out_dim=4),
        )
        objective = cls(encoder, projector=projector, weights={"invariance": 25.0, "variance": 25.0, "covariance": 1.0})
        return objective, Batch(x=torch.rand(6, 1, 1, 8, 8), views=(torch.rand(6, 1, 1, 8, 8),))
