"""What of a teacher's levels is to be predicted: its output, an average of its last levels, or several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.losses.distances import layer_normed

Targets = Callable[[Sequence[Tensor]], Tensor]


def output_level(levels: Sequence[Float[Tensor, "b n d"]]) -> Float[Tensor, "b n d"]:
    """The layer-normed output, as I-JEPA predicts it (arXiv 2301.08243)."""
    return layer_normed(levels[-1])


@dataclass(frozen=True)
class MeanOfLevels:
    """The mean of the last levels, each layer-normed, layer-normed again (data2vec, arXiv 2202.03555)."""

    num_levels: int = 3

    def __call__(self, levels: Sequence[Float[Tensor, "b n d"]]) -> Float[Tensor, "b n d"]:
        if not 1 <= self.num_levels <= len(levels):
            raise ValueError(f"This teacher has {len(levels)} levels, got num_levels={self.num_levels}.")
        return layer_normed(torch.stack([layer_normed(level) for level in levels[-self.num_levels :]]).mean(0))


@dataclass(frozen=True)
class SeveralLevels:
    """Chosen levels side by side, each layer-normed: deep self-supervision (V-JEPA 2.1).

    levels  counted from 0; the predictor's answer is len(levels) times as wide as the encoder.
    """

    levels: tuple[int, ...]

    def __call__(self, levels: Sequence[Float[Tensor, "b n d"]]) -> Float[Tensor, "b n o"]:
        if not self.levels or not all(-len(levels) <= level < len(levels) for level in self.levels):
            raise ValueError(f"This teacher has {len(levels)} levels, got {self.levels}.")
        return torch.cat([layer_normed(levels[level]) for level in self.levels], -1)
