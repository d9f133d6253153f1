"""From an embedding of each patch to numbers of each patch, and from patches back to pictures.

`PatchHead` is the head of autoregressive training: AIM answers by an MLP for each token alone (arXiv 2401.08541, 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from jepalab.backbones.attention import init_linear
from jepalab.backbones.vit import ViT, unpatchify

MAX_WIDTH = 4096
Network = TypeVar("Network", bound=nn.Module)


class PatchHead(nn.Module):
    """Residual MLP blocks, each token on its own: what a token says depends on that token's embedding alone."""

    def __init__(self, dim: int, out_dim: int, *, width: int = 96, depth: int = 4, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Residual(width, int(width * mlp_ratio)) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.answer = nn.Linear(width, out_dim)
        init_linear(self)

    def forward(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n o"]:
        z = self.embed(z)
        for block in self.blocks:
            z = block(z)
        return self.answer(self.norm(z)).float()


class _Residual(nn.Module):
    """The second half of a transformer block: x + MLP(LayerNorm(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, z: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return z + self.fc2(gelu(self.fc1(self.norm(z))))


def build_of_size(
    num_parameters: int, build: Callable[[int], Network], *, step: int = 2, least: int = 1, tolerance: float = 0.1
) -> Network:
    """`build(width)` at the width, a multiple of `step` by `least` or more, that comes closest to so many parameters.

    Heads of different kinds get equal budgets this way. ValueError if no width comes within `tolerance` of it.
    """
    low, high = least, MAX_WIDTH // step
    while low < high:  # the smallest width that reaches the budget
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _count(build, middle * step) < num_parameters else (low, middle)
    width = min((max(low - 1, least), low), key=lambda w: abs(_count(build, w * step) - num_parameters)) * step
    found = _count(build, width)
    if abs(found - num_parameters) > tolerance * num_parameters:
        raise ValueError(
            f"wanted {num_parameters} parameters within {tolerance:.0%}, but the closest width, {width}, has {found}; "
            "choose another depth or a smaller step"
        )
    return build(width)


def _count(build: Callable[[int], nn.Module], width: int) -> int:
    with torch.device("meta"):  # nothing is allocated and no random number drawn
        return sum(p.numel() for p in build(width).parameters())


def draw_patches(encoder: ViT, patches: Float[Tensor, "b n p"]) -> Float[Tensor, "b t *obs"]:
    """The pictures of these normalised patches, in the units of x: the inverse of `encoder.patches`."""
    channels = patches.float().unflatten(-1, (encoder.channels, -1))
    pixels = (channels * encoder.std[:, None] + encoder.mean[:, None]).flatten(-2)
    return unpatchify(pixels, encoder.patch, encoder.grid)
