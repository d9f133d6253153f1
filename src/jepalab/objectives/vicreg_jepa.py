"""Next-embedding prediction kept from collapse by VICReg's terms (Sobal et al. 2022, 2211.10831), with or without
inverse dynamics beside it (PLDM, arXiv 2502.14819)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.inverse import InverseHead
from jepalab.backbones.predictor import SequencePredictor
from jepalab.losses.distances import mean_squared
from jepalab.losses.vicreg import Grouping, across_clips, spread
from jepalab.types import Batch, Encoder, Objective, Space


class VICRegJEPA(Objective):
    """The predicted next embedding against the encoder's own, gradient on both sides.

    grouping  over which embeddings variance and covariance are taken: `across_clips` as published, or
              `within_clips`, under which a code that is constant in a clip earns nothing.
    inverse   a head that must tell the action from two consecutive embeddings; None leaves the term out.
    weights   "predict", "variance", "covariance" and, with a head, "inverse".
    """

    compares: ClassVar[Mapping[str, Space]] = {
        "predict": Space.OWN_EMBEDDING,
        "variance": Space.STATISTIC,
        "covariance": Space.STATISTIC,
        "inverse": Space.ACTION,
    }

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: SequencePredictor,
        weights: dict[str, float],
        grouping: Grouping = across_clips,
        inverse: InverseHead | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.inverse = encoder, predictor, inverse
        self.grouping, self.weights = grouping, weights

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.encoder(batch.x)
        z_pred = self.predictor(z[:, :-1], batch.action)
        variance, covariance = spread(self.grouping(z))
        terms = {"predict": mean_squared(z_pred, z[:, 1:]), "variance": variance, "covariance": covariance}
        if self.inverse is not None:
            assert batch.action is not None
            terms["inverse"] = mean_squared(self.inverse(z), batch.action)
        return terms

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return self.encoder(x)

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        return self.predictor.rollout(z, past, action)

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder, predictor = ConvEncoder(8, dim=4), SequencePredictor(4, num_actions=2, width=8)
        weights = {"predict": 1.0, "variance": 1.0, "covariance": 1.0, "inverse": 1.0}
        objective = cls(encoder, predictor=predictor, weights=weights, inverse=InverseHead(4, num_actions=2, width=8))
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
