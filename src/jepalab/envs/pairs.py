"""Starts and goals that are far enough apart: the first candidates that fit, for all environments at once."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def far_apart(
    starts: Float[Tensor, "n m 2"], goals: Float[Tensor, "n m 2"], fits: Bool[Tensor, "n m"], *, min_distance: float
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Of m candidates for each environment, the first that fits and whose ends lie farther apart than `min_distance`.

    Raises:
        ValueError: some environment has none.
    """
    fits = fits & ((starts - goals).norm(dim=2) > min_distance)
    lacking = int((~fits.any(1)).sum())
    if lacking:
        raise ValueError(
            f"{lacking} of {len(fits)} environments have no start and goal more than {min_distance} pixels apart among "
            f"{fits.shape[1]} candidates; lower min_distance."
        )
    rows, first = torch.arange(len(fits), device=fits.device), fits.int().argmax(1)
    return starts[rows, first], goals[rows, first]
