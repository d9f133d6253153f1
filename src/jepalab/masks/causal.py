"""Masks that follow the order of the tokens: AIM's prefix (2401.08541), and the past as context of the future."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from jepalab.masks.plane import plane_of
from jepalab.types import Mask


@dataclass(frozen=True)
class Prefix:
    """How many first tokens of each sample see one another, drawn uniformly from `low` to `high`, both included.

    The rest sees what came before it alone. The encoder so learns to work without a causal mask, as it is used later.
    high  None goes up to all tokens but one, so that something is left to predict.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    low: int = 1
    high: int | None = None

    def __post_init__(self) -> None:
        most = plane_of(self.grid).num_tokens - 1
        if not 1 <= self.low <= self._high <= most:
            raise ValueError(
                f"Wanted prefixes, 1 <= low <= high <= {most} tokens on a grid {self.grid}, got {self.low, self.high}."
            )

    @property
    def _high(self) -> int:
        return plane_of(self.grid).num_tokens - 1 if self.high is None else self.high

    def lengths(self, num_samples: int, generator: torch.Generator) -> Int[Tensor, " b"]:
        """The number of prefix tokens of each sample."""
        return torch.randint(self.low, self._high + 1, (num_samples,), generator=generator)


def prefix_sees(lengths: Int[Tensor, " b"], num_tokens: int) -> Bool[Tensor, "b n n"]:
    """Whether token i (axis 1) sees token j (axis 2): where j <= i, or j is of the prefix."""
    place = torch.arange(num_tokens, device=lengths.device)
    return (place <= place.unsqueeze(1)) | (place < lengths[:, None, None])


@dataclass(frozen=True)
class PastFuture:
    """The first tokens are the context of every sample, and those that follow the target; of a clip, the first frames.

    num_context  tokens of the context; on a grid of rank 3, those of whole times.
    num_asked    how many times after the context are asked for, where there are as many; None asks for all.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    num_context: int
    num_asked: int | None = None

    def __post_init__(self) -> None:
        plane, unit = plane_of(self.grid), _unit(self.grid)
        _check_asked(self.num_asked)
        if self.num_context % unit or not 0 < self.num_context < plane.num_tokens:
            raise ValueError(
                f"Wanted a multiple of {unit} between 0 and {plane.num_tokens} context tokens on a grid {self.grid}, "
                f"got num_context={self.num_context}."
            )

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """The one mask there is, for each sample; nothing is drawn."""
        tokens = torch.arange(plane_of(self.grid).num_tokens).expand(num_samples, -1)
        end = None if self.num_asked is None else self.num_context + self.num_asked * _unit(self.grid)
        return Mask(tokens[:, : self.num_context], tokens[:, None, self.num_context : end])


@dataclass(frozen=True)
class DrawnPast:
    """`PastFuture` with as many first times seen as are drawn for each batch, from `low` to `high`, both included.

    One number for the whole batch, since all its contexts have one length; the draw knows nothing of the batch's size.
    On a grid of rank 1 or 2 tokens take the place of times, as for `PastFuture`.
    high       None goes up to all times but one.
    num_asked  as for `PastFuture`.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    low: int = 1
    high: int | None = None
    num_asked: int | None = None

    def __post_init__(self) -> None:
        most = _most_seen(self.grid)
        _check_asked(self.num_asked)
        if not 1 <= self.low <= self._high <= most:
            raise ValueError(
                f"Wanted pasts, 1 <= low <= high <= {most} times on a grid {self.grid}, got {self.low, self.high}."
            )

    @property
    def _high(self) -> int:
        return _most_seen(self.grid) if self.high is None else self.high

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """One mask, drawn, for all samples."""
        num_times = int(torch.randint(self.low, self._high + 1, (), generator=generator))
        num_context = num_times * _unit(self.grid)
        return PastFuture(self.grid, num_context=num_context, num_asked=self.num_asked)(num_samples, generator)


def _check_asked(num_asked: int | None) -> None:
    if num_asked is not None and num_asked < 1:
        raise ValueError(f"Wanted one time or more to be asked for, or None for all, got num_asked={num_asked}.")


def _unit(grid: tuple[int, ...]) -> int:
    """Tokens that are seen or predicted together: of a clip, those of one time."""
    return plane_of(grid).num_places if len(grid) == 3 else 1


def _most_seen(grid: tuple[int, ...]) -> int:
    """How many of these can be seen so that one is left to predict."""
    return plane_of(grid).num_tokens // _unit(grid) - 1
