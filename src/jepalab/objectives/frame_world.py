"""A world model whose state is the frame itself: it predicts the next frame, and looks at that to predict further
(action-conditional video prediction, Oh et al. 2015, arXiv 1507.08750; visual foresight, 1812.00568)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.frame_units import FrameUnits
from jepalab.backbones.predictor import Predictor, ResidualDynamics
from jepalab.backbones.unrolling import each_alone
from jepalab.losses.distances import Distance, mean_squared
from jepalab.types import Batch, Encoder, Objective, Space


class FrameWorld(Objective):
    """The next frame, decoded from the predicted embedding, against the next frame; plans compare frames.

    The networks are those of `PixelWorld`. What is imagined passes through pixels at every step, so a step costs an
    encoder and a decoder, and distances to a goal are distances of pictures. weights: "predict".

    scale  of each channel: pixels are compared in these units, in training and in planning.
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.INPUT}

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: Predictor,
        decoder: nn.Module,
        scale: Sequence[float],
        distance: Distance = mean_squared,
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.decoder, self.distance = encoder, predictor, decoder, distance
        self.weights = {"predict": 1.0}
        self.units = FrameUnits(scale)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        if batch.action is None:
            raise ValueError("A world model learns what actions do, got clips without any.")
        # A rollout sees one frame at a time, whatever the predictor could remember.
        x_pred = self.decoder(each_alone(self.predictor, self.encoder(batch.x[:, :-1]), batch.action))
        return {"predict": self.distance(x_pred, batch.x[:, 1:] / self.units.scale)}

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """The frames themselves, laid out as rows, in units of `scale`."""
        return self.units.rows(x)

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        x = self.units.squares(z[:, -1]).repeat_interleave(action.shape[1], 0)
        steps = []
        for each in action.flatten(0, 1).unbind(1):
            x = self.decoder(self.predictor(self.encoder((x * self.units.scale)[:, None]), each[:, None]))[:, 0]
            steps.append(x.flatten(1))
        return torch.stack(steps, 1).unflatten(0, action.shape[:2])

    def draw(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"]:
        """The frames again, in pixel units."""
        return self.units.pictures(z)

    def look(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
        """The encoder's embedding of the frames that z is."""
        return self.encoder(self.draw(z))

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        predictor, decoder = ResidualDynamics(4, num_actions=2, width=8), PixelDecoder(4, size=8, width=2)
        objective = cls(ConvEncoder(8, dim=4), predictor=predictor, decoder=decoder, scale=[0.5])
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
