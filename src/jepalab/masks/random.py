"""Random masks: MAE's hidden patches (2111.06377), and VideoMAE's hidden tubes (2203.12602)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.masks.plane import choose, plane_of
from jepalab.types import Mask


@dataclass(frozen=True)
class RandomMask:
    """Hides a share of the tokens, all choices equally likely; the target is one block of all that is hidden."""

    grid: tuple[int, ...]
    _: KW_ONLY
    share: float = 0.75

    def __post_init__(self) -> None:
        _num_seen(plane_of(self.grid).num_tokens, self.share)

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """A mask for each sample; context and target ascend."""
        num_tokens = plane_of(self.grid).num_tokens
        noise = torch.rand(num_samples, num_tokens, generator=generator)
        context, target = _split(noise, _num_seen(num_tokens, self.share))
        return Mask(context, target.unsqueeze(1))


@dataclass(frozen=True)
class RandomTubes:
    """Hides a share of the places of a clip's pictures, the same at all times."""

    grid: tuple[int, ...]
    _: KW_ONLY
    share: float = 0.9

    def __post_init__(self) -> None:
        _num_seen(plane_of(self.grid).num_places, self.share)

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """A mask for each sample; context and target ascend."""
        plane = plane_of(self.grid)
        noise = torch.rand(num_samples, plane.num_places, generator=generator)
        context, target = _split(noise, _num_seen(plane.num_places, self.share))
        return Mask(plane.through_time(context), plane.through_time(target).unsqueeze(1))


def _split(noise: Float[Tensor, "b n"], num_seen: int) -> tuple[Int[Tensor, "b k"], Int[Tensor, "b m"]]:
    """The chosen places and all others, both ascending."""
    context = choose(noise, num_seen)
    hidden = torch.ones_like(noise, dtype=torch.bool).scatter_(1, context, False)
    return context, hidden.nonzero()[:, 1].view(len(noise), -1)


def _num_seen(num_places: int, share: float) -> int:
    """How many of so many places stay visible where a share is hidden."""
    if not 0 < share < 1 or not 0 < round(num_places * share) < num_places:
        raise ValueError(f"Wanted a share that hides some of {num_places} places and not all, got share={share}.")
    return num_places - round(num_places * share)
