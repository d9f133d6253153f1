"""The head of denoising objectives: a narrow transformer over all tokens that is told the level of the noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from jepalab.backbones.attention import Transformer, init_linear
from jepalab.backbones.vit import sincos_positions

LEVELS = 1000.0  # a level in [0, 1] is embedded like the place of a token among a thousand


class DenoisingDecoder(nn.Module):
    """Answers for every patch from the embeddings of a noised picture and its level t in [0, 1].

    The level enters here and not in the encoder, which stays a plain encoder of pictures. Widths and depths mean the
    same as in `MaskedPredictor`; at equal ones this has 2 width^2 parameters more, for the level.
    """

    positions: Tensor
    frequencies: Tensor

    def __init__(
        self, dim: int, out_dim: int, *, grid: tuple[int, ...], width: int = 96, depth: int = 3, num_heads: int = 3
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.level1, self.level2 = nn.Linear(width, width), nn.Linear(width, width)
        self.register_buffer("positions", sincos_positions(grid, width))
        frequencies = LEVELS * 10000.0 ** (-torch.arange(width // 2) / (width // 2))
        self.register_buffer("frequencies", frequencies)
        self.answer = nn.Linear(width, out_dim)
        init_linear(self)
        self.transformer = Transformer(width, depth=depth, num_heads=num_heads)

    def forward(self, z: Float[Tensor, "b n d"], level: Float[Tensor, " b"]) -> Float[Tensor, "b n o"]:
        angles = level.unsqueeze(1) * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        told = self.level2(gelu(self.level1(waves))).unsqueeze(1)
        return self.answer(self.transformer(self.embed(z) + self.positions + told)).float()
