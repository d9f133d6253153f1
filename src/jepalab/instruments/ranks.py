"""Correlations: Pearson's, and Spearman's of ranks, in which what is equal shares its ranks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pearson(a: Float[Tensor, "n f"], b: Float[Tensor, "n f"]) -> float:
    """The correlation of each column with the other side's, averaged over columns; 0 for one that does not change."""
    a, b = (side.double() - side.double().mean(0) for side in (a, b))
    scale = a.norm(dim=0) * b.norm(dim=0)
    return float(((a * b).sum(0) / scale.clamp_min(1e-12)).mean())


def spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """The correlation of ranks."""
    return pearson(*(_ranks(side)[:, None] for side in (a, b)))


def _ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """From 0 up; equal values have the mean of their ranks."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double() - 1
    return (last - (counts.double() - 1) / 2)[place]
