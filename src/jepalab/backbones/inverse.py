"""Tells the action from the two embeddings around it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InverseHead(nn.Module):
    """A two-layer perceptron on two consecutive embeddings."""

    def __init__(self, dim: int, *, num_actions: int, width: int = 128) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(2 * dim, width), nn.ReLU(), nn.Linear(width, num_actions))

    def forward(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b s a"]:
        """The action between each two consecutive embeddings; s = t - 1."""
        return self.read(torch.cat([z[:, :-1], z[:, 1:]], -1))
