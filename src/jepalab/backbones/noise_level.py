"""How the head of a denoising objective is told the level of the noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

LEVELS = 1000.0  # a level in [0, 1] is embedded like the place of a token among a thousand


class NoiseLevel(nn.Module):
    """An embedding of the level t in [0, 1], through a two-layer MLP (DDPM, arXiv 2006.11239)."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        frequencies = LEVELS * 10000.0 ** (-torch.arange(width // 2) / (width // 2))
        self.register_buffer("frequencies", frequencies)

    def forward(self, level: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
        angles = level.unsqueeze(1) * self.frequencies
        return self.fc2(gelu(self.fc1(torch.cat([angles.sin(), angles.cos()], 1))))
