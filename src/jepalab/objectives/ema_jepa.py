"""Next-embedding prediction of a slowly moving teacher (BYOL's mechanism, as I-JEPA and V-JEPA use it; 2301.08243)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import Predictor, SequencePredictor
from jepalab.losses.distances import Distance, layer_normed, smooth_l1
from jepalab.types import Batch, Encoder, Objective, Space


class EMAJEPA(Objective):
    """The predicted next embedding against the teacher's, without gradient on the teacher's side.

    momentum   of the teacher at the first step; it moves linearly to `final_momentum` at the last. The teacher moves
               after each optimizer step.
    normalise  applied to the teacher's embedding, which makes the target, and to the student's, which the predictor
               reads; layer-normed as published, where the encoder itself ends in a layer norm.
    Both teacher and student can be probed. weights: "predict".
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.EMA_EMBEDDING}

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: Predictor,
        momentum: float = 0.996,
        final_momentum: float = 1.0,
        distance: Distance = smooth_l1,
        normalise: Callable[[Tensor], Tensor] = layer_normed,
    ) -> None:
        super().__init__()
        if not (0 <= momentum <= 1 and 0 <= final_momentum <= 1):
            wanted = "The teacher's momentum lies between 0 (a copy) and 1 (frozen)"
            raise ValueError(f"{wanted}, got {momentum} rising to {final_momentum}.")
        self.encoder, self.predictor = encoder, predictor
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.momentum, self.final_momentum = momentum, final_momentum
        self.distance, self.normalise = distance, normalise
        self.weights = {"predict": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        with torch.no_grad():
            z_target = self.normalise(self.teacher(batch.x[:, 1:]))
        z_pred = self.predictor(self.encode(batch.x[:, :-1]), batch.action)
        return {"predict": self.distance(z_pred, z_target)}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        momentum = self.momentum + (self.final_momentum - self.momentum) * progress
        slow, fast = tuple(self.teacher.parameters()), tuple(self.encoder.parameters())
        torch._foreach_lerp_(slow, fast, 1 - momentum)

    def probed_encoders(self) -> dict[str, Encoder]:
        return {"student": self.encoder, "teacher": self.teacher}

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return self.normalise(self.encoder(x))

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        return self.predictor.rollout(z, past, action)

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder, predictor = ConvEncoder(8, dim=4), SequencePredictor(4, num_actions=2, width=8)
        return cls(encoder, predictor=predictor), Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
