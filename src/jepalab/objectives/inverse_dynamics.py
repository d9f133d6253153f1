"""Inverse dynamics: tell the action from the embeddings around it (Pathak et al. 2017, arXiv 1705.05363)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.inverse import InverseHead
from jepalab.losses.distances import mean_squared
from jepalab.types import Batch, Encoder, Objective, Space


class InverseDynamics(Objective):
    """The action read from two consecutive embeddings against the action taken: keeps what is controlled."""

    compares: ClassVar[Mapping[str, Space]] = {"inverse": Space.ACTION}

    def __init__(self, encoder: Encoder, *, inverse: InverseHead) -> None:
        super().__init__()
        self.encoder, self.inverse = encoder, inverse
        self.weights = {"inverse": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        if batch.action is None:
            raise ValueError("Inverse dynamics needs clips with actions, got a batch without any.")
        return {"inverse": mean_squared(self.inverse(self.encoder(batch.x)), batch.action)}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        objective = cls(ConvEncoder(8, dim=4), inverse=InverseHead(4, num_actions=2, width=8))
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
