"""Next-frame pixel prediction: the generative world model's objective (deterministic, as in Sobal et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.predictor import Predictor, SequencePredictor
from jepalab.losses.distances import Distance, mean_squared
from jepalab.types import Batch, Encoder, Objective, Space


class NextFrame(Objective):
    """The next frame, decoded from the predicted embedding, against the next frame.

    Encoder and predictor are those of the JEPA objectives; only what the loss compares differs. weights: "predict".
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.INPUT}

    def __init__(
        self, encoder: Encoder, *, predictor: Predictor, decoder: nn.Module, distance: Distance = mean_squared
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.decoder, self.distance = encoder, predictor, decoder, distance
        self.weights = {"predict": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        x_pred = self.decoder(self.predictor(self.encoder(batch.x[:, :-1]), batch.action))
        return {"predict": self.distance(x_pred, batch.x[:, 1:])}

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
        predictor, decoder = SequencePredictor(4, num_actions=2, width=8), PixelDecoder(4, size=8, width=2)
        objective = cls(ConvEncoder(8, dim=4), predictor=predictor, decoder=decoder)
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
