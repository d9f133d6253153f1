"""Frames as the state of a world model: laid out as rows, in units in which channels count alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FrameUnits(nn.Module):
    """Between square pictures in pixel units and rows in units of `scale`, one for each channel."""

    scale: Tensor

    def __init__(self, scale: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).reshape(-1, 1, 1))

    def rows(self, x: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t d"]:
        """Pictures in pixel units as states."""
        return (x / self.scale).flatten(2)

    def squares(self, z: Float[Tensor, "*any d"]) -> Float[Tensor, "*any c h w"]:
        """States as pictures in units of `scale`."""
        size = round((z.shape[-1] / len(self.scale)) ** 0.5)
        return z.unflatten(-1, (-1, size, size))

    def pictures(self, z: Float[Tensor, "*any d"]) -> Float[Tensor, "*any c h w"]:
        """States as pictures in pixel units."""
        return self.squares(z) * self.scale
