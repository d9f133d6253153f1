"""VICReg's variance and covariance terms (Bardes, Ponce, LeCun 2022, arXiv 2105.04906).

Both read second moments averaged over all processes, so that two processes with half a batch each give the value
and the gradient of one process with the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.dist import mean_over_processes, num_processes

Grouping = Callable[[Tensor], Tensor]


class Spread(NamedTuple):
    """The two anti-collapse terms, each zero where it asks for nothing."""

    variance: Float[Tensor, ""]
    covariance: Float[Tensor, ""]


def across_clips(z: Float[Tensor, "b t d"]) -> Float[Tensor, "g n d"]:
    """Statistics over the batch at each time step: what VICReg asks for on sequences (Sobal et al. 2022)."""
    return z.transpose(0, 1)


def within_clips(z: Float[Tensor, "b t d"]) -> Float[Tensor, "g n d"]:
    """Statistics of the deviations from each clip's own mean: a code that is constant in a clip earns nothing.

    The remedy for slow features of arXiv 2606.07770, in VICReg's terms.
    """
    return (z - z.mean(1, keepdim=True)).flatten(0, 1).unsqueeze(0)


def spread(z: Float[Tensor, "g n d"], *, target_std: float = 1.0) -> Spread:
    """Hinge on each dimension's standard deviation, and the squared off-diagonal covariance over d, mean over g.

    Unbiased estimates over n, as published; eps 1e-4 under the square root.
    """
    num_samples = z.shape[1] * num_processes()
    if num_samples < 2:
        raise ValueError(f"VICReg needs at least 2 samples for a variance, got {num_samples}; use a larger batch.")
    with torch.autocast(z.device.type, enabled=False):  # a product in bfloat16 would round the covariance
        centred = z.float() - mean_over_processes(z.float().mean(1, keepdim=True))
        moment = mean_over_processes(centred.transpose(1, 2) @ centred / z.shape[1])
    covariance = moment * num_samples / (num_samples - 1)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    std = (diagonal + 1e-4).sqrt()
    off_diagonal = covariance.square().sum((1, 2)) - diagonal.square().sum(1)
    return Spread(torch.relu(target_std - std).mean(), (off_diagonal / z.shape[2]).mean())
