"""Frames decoded from their embeddings, against the frames: the decoder loss that a JEPA can do with or without."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.dist import StepSeeded
from jepalab.losses.distances import mean_squared


class Reconstruction(nn.Module):
    """Some frames of every clip, drawn anew at each call, decoded and compared in units of `scale`.

    decoder      turns embeddings [b k d] into frames [b k c h w] in those units.
    scale        of each channel, such as its standard deviation.
    num_decoded  frames of a clip; decoding all costs more than all else.
    """

    scale: Tensor

    def __init__(self, decoder: nn.Module, *, scale: Sequence[float], num_decoded: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.decoder, self.num_decoded, self.pick = decoder, num_decoded, StepSeeded(seed)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, z: Float[Tensor, "b t d"], x: Float[Tensor, "b t c h w"]) -> Float[Tensor, ""]:
        drawn = torch.randperm(z.shape[1], generator=self.pick.draw())[: self.num_decoded].sort().values
        return mean_squared(self.decoder(z[:, drawn]), x[:, drawn] / self.scale)
