"""The head that denoises hidden patches given the visible ones: DiffMAE's decoder (arXiv 2304.03283)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.attention import Transformer, init_linear
from jepalab.backbones.masked import present_only
from jepalab.backbones.noise_level import NoiseLevel
from jepalab.backbones.positions import sincos_positions
from jepalab.types import Mask


class MaskedDenoiser(nn.Module):
    """Answers for each noised hidden patch, each block of them in a pass of its own over the context.

    `MaskedPredictor` with the noised patch in place of the mask token: it is told the level of the noise, and the
    encoder is not, since that sees the clean context alone. Widths and depths mean the same.

    dim        of the tokens it reads; patch_dim of the patches it reads and answers with.
    grid       of the encoder.
    """

    positions: Tensor

    def __init__(
        self,
        dim: int,
        patch_dim: int,
        *,
        grid: tuple[int, ...],
        width: int = 96,
        depth: int = 3,
        num_heads: int = 3,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(dim, width)
        self.embed_noisy = nn.Linear(patch_dim, width)
        self.level = NoiseLevel(width)
        self.register_buffer("positions", sincos_positions(grid, width))
        self.answer = nn.Linear(width, patch_dim)
        init_linear(self)
        self.transformer = Transformer(width, depth=depth, num_heads=num_heads)

    def forward(
        self, z: Float[Tensor, "b k d"], noisy: Float[Tensor, "b g m p"], level: Float[Tensor, " b"], mask: Mask
    ) -> Float[Tensor, "b g m p"]:
        """What it says of the noised patches at the targets, in the order of `mask.target`."""
        num_targets = mask.target.shape[2]
        context = (self.embed(z) + self.positions[mask.context]).unsqueeze(1).expand(-1, mask.target.shape[1], -1, -1)
        told = self.level(level)[:, None, None]
        targets = self.embed_noisy(noisy) + self.positions[mask.target] + told
        together = torch.cat([context, targets.to(context.dtype)], 2).flatten(0, 1)
        tokens = self.transformer(together, sees=present_only(mask), num_last=num_targets)
        return self.answer(tokens).float().unflatten(0, mask.target.shape[:2])
