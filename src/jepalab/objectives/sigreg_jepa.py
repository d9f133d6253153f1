"""Next-embedding prediction kept from collapse by SIGReg alone (LeWorldModel, arXiv 2603.19312)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import SequencePredictor
from jepalab.losses.distances import mean_squared
from jepalab.losses.sigreg import SIGReg
from jepalab.types import Batch, Encoder, Objective, Space


class SIGRegJEPA(Objective):
    """The predicted next embedding against the encoder's own, gradient on both sides, no teacher.

    The statistic is taken over the batch at each time step. weights: "predict" and "sigreg".
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.OWN_EMBEDDING, "sigreg": Space.STATISTIC}

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: SequencePredictor,
        weights: dict[str, float],
        sigreg: SIGReg,
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.sigreg, self.weights = encoder, predictor, sigreg, weights

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.encoder(batch.x)
        z_pred = self.predictor(z[:, :-1], batch.action)
        return {"predict": mean_squared(z_pred, z[:, 1:]), "sigreg": self.sigreg(z.transpose(0, 1))}

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
        sigreg = SIGReg(num_directions=8, num_knots=5)
        objective = cls(encoder, predictor=predictor, weights={"predict": 1.0, "sigreg": 0.1}, sigreg=sigreg)
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
