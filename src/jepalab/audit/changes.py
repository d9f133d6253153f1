"""Other values of the same kind in the place of an input's."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def change(tensor: Tensor, generator: torch.Generator, *, whole: bool = False) -> None:
    """Changes one random element of every sample, or all of them, to something else of the same kind."""
    flat = tensor.detach().reshape(len(tensor), -1) if tensor.ndim else tensor.detach().reshape(1, 1)
    if not flat.numel():
        return
    rows = torch.arange(len(flat))
    where = torch.randint(flat.shape[1], (len(flat),), generator=generator)
    new = flat.clone()
    if whole:
        new = other(flat, generator)
    else:
        picked = flat[rows, where]
        new[rows, where] = other(picked, generator, spread=flat)
    tensor.detach().copy_(new.reshape(tensor.shape))


def other(values: Tensor, generator: torch.Generator, spread: Tensor | None = None) -> Tensor:
    """Different values of the same kind: other indices among those in use, numbers at the far end of their range."""
    spread = values if spread is None else spread
    if values.dtype == torch.bool:
        return ~values
    if not values.is_floating_point():
        known = spread[spread >= 0].unique() if (spread >= 0).any() else spread.unique()
        if len(known) < 2:
            return torch.where(values > 0, values - 1, values + 1)
        place = torch.searchsorted(known, values.clamp(min=int(known[0])))
        step = torch.randint(1, len(known), place.shape, generator=generator).to(place)
        return torch.where(values < 0, values, known[(place + step) % len(known)])
    low, high = spread.min(), spread.max()  # stays among the values in use: pixels stay pixels
    far = torch.where(values - low > high - values, low, high)
    return far if low < high else values + 1
