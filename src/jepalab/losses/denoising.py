"""Noise for denoising objectives, and what of it is predicted: the noise, the velocity or the clean picture.

One path serves all three: x_t = (1 - t) x + t noise, from data at t = 0 to noise at t = 1 (rectified flow, arXiv
2209.03003; levels of noise as in arXiv 2403.03206). Any one's answer gives the other two; their losses weigh the levels
differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.dist import StepSeeded, carry, num_processes, rank

MIN_LEVEL, MAX_LEVEL = 0.01, 0.99  # beyond, clean and noise cannot both be told from x_t and one of the two

Levels = Callable[[int, torch.Generator], Tensor]


def uniform_levels(num_samples: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Each level between the bounds as often as any other."""
    return MIN_LEVEL + (MAX_LEVEL - MIN_LEVEL) * torch.rand(num_samples, generator=generator)


def logit_normal_levels(num_samples: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """sigmoid of a standard normal number: middle levels more often (arXiv 2403.03206, 3.1)."""
    return torch.randn(num_samples, generator=generator).sigmoid().clamp(MIN_LEVEL, MAX_LEVEL)


class NoiseDrawer(StepSeeded):
    """Draws fresh levels and noise at each training step; in evaluation, the same ones for the same step.

    Those of the whole batch are drawn on every process, and each takes the rows of its own share.
    """

    def __init__(self, levels: Levels, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.levels = levels

    def forward(self, like: Float[Tensor, "b n p"]) -> tuple[Float[Tensor, " b"], Float[Tensor, "b n p"]]:
        """A level for each sample, and standard normal numbers shaped like the samples, on their device."""
        generator = self.draw()
        num_samples = len(like) * num_processes()
        level = self.levels(num_samples, generator)
        noise = torch.randn(num_samples, *like.shape[1:], generator=generator)
        mine = slice(rank() * len(like), (rank() + 1) * len(like))
        return carry(level[mine], like.device), carry(noise[mine], like.device)


@runtime_checkable
class Prediction(Protocol):
    """What of the path through (clean, noise) a network answers with. `name` is that of the loss term.

    `level` is t, broadcastable against the pictures.
    """

    name: ClassVar[str]

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor: ...

    def to_clean(self, prediction: Tensor, noisy: Tensor, level: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PredictNoise:
    """eps = noise (DDPM, arXiv 2006.11239, eq. 14). Weighs low levels most: there, noise is hardest to tell."""

    name: ClassVar[str] = "noise"

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return noise

    def to_clean(self, prediction: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        return (noisy - level * prediction) / (1 - level)


@dataclass(frozen=True)
class PredictVelocity:
    """v = dx_t/dt = noise - clean, the velocity of rectified flow (2209.03003); not the v of 2202.00512."""

    name: ClassVar[str] = "velocity"

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return noise - clean

    def to_clean(self, prediction: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        return noisy - level * prediction


@dataclass(frozen=True)
class PredictClean:
    """x_0 itself: a denoising auto-encoder over all levels."""

    name: ClassVar[str] = "clean"

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return clean

    def to_clean(self, prediction: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        return prediction
