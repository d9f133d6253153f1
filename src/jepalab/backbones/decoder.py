"""From an embedding back to pixels: the head of the generative objectives, and the post-hoc decoder of the others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

PATCH = 4


class PixelDecoder(nn.Module):
    """A linear map to a grid of cells, one convolution between cells, and a 4 x 4 patch of pixels from each cell.

    size   height and width of the frame; where 4 does not divide them, the last cells are cut.
    width  channels of a cell before the convolution; it doubles them.
    The output is in pixel units, unbounded: a bounded one would saturate under additive nuisance.
    """

    def __init__(self, dim: int, *, size: int = 28, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.size, cells = size, -(-size // PATCH)
        self.draw = nn.Sequential(
            nn.Linear(dim, width * cells**2),
            nn.ReLU(),
            nn.Unflatten(1, (width, cells, cells)),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, channels * PATCH**2, 1),
            nn.PixelShuffle(PATCH),
        ).to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]

    def forward(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"]:
        """One frame for each embedding."""
        return self.draw(z.flatten(0, 1))[..., : self.size, : self.size].unflatten(0, z.shape[:2]).float()
