"""No objective at all: the floor rows of a comparison (a random network, principal components of pixels)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.types import Batch, Encoder, Objective, Space


class Untrained(Objective):
    """Holds an encoder that is judged as it is; it has no terms and cannot be trained."""

    compares: ClassVar[Mapping[str, Space]] = {}

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.weights = {}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        raise ValueError("An untrained encoder has no loss; give its run steps=0.")

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        return cls(ConvEncoder(8, dim=4)), Batch(x=torch.rand(4, 3, 1, 8, 8))
