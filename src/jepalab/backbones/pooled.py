"""Pixels of a coarser picture, read as they are: the floor that costs nothing to make."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.types import Encoder


class PooledPixels(Encoder):
    """The averages of a frame over a grid of cells, all in one embedding.

    Args:
        sample_shape: of a frame, [channels, height, width].
        grid: cells along each side; at most as many as there are pixels.
    """

    def __init__(self, sample_shape: tuple[int, int, int], *, grid: int = 8) -> None:
        super().__init__()
        channels, height, width = sample_shape
        if not 0 < grid <= min(height, width):
            raise ValueError(f"A frame of {height} x {width} pixels has no {grid} x {grid} cells.")
        self.sample_shape, self.grid = (channels, height, width), grid
        self.dim = channels * grid**2

    def arguments(self) -> dict[str, Any]:
        return {"sample_shape": self.sample_shape, "grid": self.grid}

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame; `keep` picks frames."""
        z = F.adaptive_avg_pool2d(x.flatten(0, 1).float(), self.grid).flatten(1).unflatten(0, x.shape[:2])
        return z if keep is None else z.gather(1, keep.unsqueeze(-1).expand(-1, -1, self.dim))
