"""Auto-encoding of the present frame: a control, not a fair generative arm, since it predicts nothing (2603.14131)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.losses.distances import mean_squared
from jepalab.types import Batch, Encoder, Objective, Space


class Autoencoder(Objective):
    """Each frame, decoded from its own embedding, against itself. weights: "reconstruct".

    scale  of each channel, or of all: pixels are compared in these units, in which the decoder answers.
    """

    compares: ClassVar[Mapping[str, Space]] = {"reconstruct": Space.INPUT}

    scale: Tensor

    def __init__(self, encoder: Encoder, *, decoder: PixelDecoder, scale: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.weights = {"reconstruct": 1.0}
        self.register_buffer("scale", torch.tensor(scale).reshape(-1, 1, 1), persistent=False)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return {"reconstruct": mean_squared(self.decoder(self.encoder(batch.x)), batch.x / self.scale)}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        objective = cls(ConvEncoder(8, dim=4), decoder=PixelDecoder(4, size=8, width=2))
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8))
