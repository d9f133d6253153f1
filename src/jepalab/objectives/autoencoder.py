"""Auto-encoding of the present frame: a control, not a fair generative arm, since it predicts nothing (2603.14131)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.losses.distances import mean_squared
from jepalab.losses.regularisers import Regulariser, Slowness
from jepalab.types import Batch, Encoder, Objective, Space


class Autoencoder(Objective):
    """Each frame, decoded from its own embedding, against itself.

    scale         of each channel, or of all: pixels are compared in these units, in which the decoder answers.
    regularisers  terms of the embeddings beside the pixels, such as `Slowness`.
    weights       "reconstruct" and the regularisers' terms; all 1 unless said.
    """

    compares: ClassVar[Mapping[str, Space]] = {"reconstruct": Space.INPUT, "slowness": Space.STATISTIC}

    scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        decoder: PixelDecoder,
        scale: Sequence[float] = (1.0,),
        regularisers: Sequence[Regulariser] = (),
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.regularisers = nn.ModuleList([part for part in regularisers if isinstance(part, nn.Module)])
        names = ["reconstruct", *(name for part in regularisers for name in part.names)]
        self.weights = dict.fromkeys(names, 1.0) if weights is None else weights
        if {*self.weights} != {*names}:
            raise ValueError(f"The terms are {', '.join(names)}, got weights for {', '.join(self.weights)}.")
        self.register_buffer("scale", torch.tensor(scale).reshape(-1, 1, 1), persistent=False)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.encoder(batch.x)
        terms = {"reconstruct": mean_squared(self.decoder(z), batch.x / self.scale)}
        for regulariser in self.regularisers:
            terms |= regulariser(z)
        return terms

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        objective = cls(ConvEncoder(8, dim=4), decoder=PixelDecoder(4, size=8, width=2), regularisers=[Slowness()])
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8))
