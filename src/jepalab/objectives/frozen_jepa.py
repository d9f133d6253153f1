"""Next-embedding prediction of a frozen teacher: random, or trained on pixels beforehand (SALT, arXiv 2509.24317)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import SequencePredictor
from jepalab.losses.distances import Distance, layer_normed, smooth_l1
from jepalab.types import Batch, Encoder, Objective, Space


class FrozenJEPA(Objective):
    """The predicted next embedding against that of a teacher that never learns: a latent target, not a co-learned one.

    The prediction lives in the teacher's space, so rollouts there cannot feed on themselves. weights: "predict".
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.FROZEN_EMBEDDING}

    def __init__(
        self,
        encoder: Encoder,
        *,
        teacher: Encoder,
        predictor: SequencePredictor,
        distance: Distance = smooth_l1,
    ) -> None:
        super().__init__()
        if teacher.dim != predictor.dim:
            raise ValueError(f"The predictor answers in width {predictor.dim}, the teacher in {teacher.dim}.")
        self.encoder, self.predictor, self.distance = encoder, predictor, distance
        self.teacher = teacher.requires_grad_(False)
        self.weights = {"predict": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        with torch.no_grad():
            z_target = layer_normed(self.teacher(batch.x[:, 1:]))
        z_pred = self.predictor(self.encoder(batch.x[:, :-1]), batch.action)
        return {"predict": self.distance(z_pred, z_target)}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder, teacher = ConvEncoder(8, dim=4), ConvEncoder(8, dim=4)
        predictor = SequencePredictor(4, num_actions=2, width=8)
        batch = Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
        return cls(encoder, teacher=teacher, predictor=predictor), batch
