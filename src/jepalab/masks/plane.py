"""The plane that masks are drawn on: a grid's last two axes. What is drawn on it holds at every time of the grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FINE = 2**24  # as many different values as torch.rand has in float32


class Plane(NamedTuple):
    """A grid as times, rows and columns; a series is one row, a picture has one time."""

    num_times: int
    num_rows: int
    num_columns: int

    @property
    def num_places(self) -> int:
        """Places on the plane: the tokens of one time."""
        return self.num_rows * self.num_columns

    @property
    def num_tokens(self) -> int:
        return self.num_times * self.num_places

    def through_time(self, places: Tensor) -> Int[Tensor, "*lead m"]:
        """The tokens [... t*m] at these places [... m] at every time, time by time."""
        if self.num_times == 1:
            return places
        start = torch.arange(self.num_times) * self.num_places
        return (start.unsqueeze(1) + places.unsqueeze(-2)).flatten(-2)

    def check_context(self, num_context: int | None) -> None:
        """ValueError unless so many tokens are some places at every time, and leave some; None passes."""
        most = (self.num_places - 1) * self.num_times
        if num_context is None or (num_context % self.num_times == 0 and 0 < num_context <= most):
            return
        unit = f"a multiple of {self.num_times} " if self.num_times > 1 else ""
        raise ValueError(
            f"Wanted {unit}from {self.num_times} to {most} context tokens at {self.num_places} places, so that "
            f"something is left to predict; got num_context={num_context}."
        )


def plane_of(grid: tuple[int, ...]) -> Plane:
    """The plane of a grid (columns,), (rows, columns) or (times, rows, columns)."""
    if not 1 <= len(grid) <= 3 or min(grid) < 1:
        raise ValueError(f"Wanted a grid of one to three positive lengths, such as (64,) or (14, 14), got {grid}.")
    plane = Plane(*(1,) * (3 - len(grid)), *grid)
    if plane.num_places < 2:
        raise ValueError(f"A grid {grid} has nothing to see beside what is to be predicted; wanted two places or more.")
    return plane


def choose(noise: Float[Tensor, "b n"], num_chosen: int, allowed: Bool[Tensor, "b n"] | None = None) -> Tensor:
    """`num_chosen` of the allowed places of each row, all choices equally likely, ascending: [b k].

    noise  uniform in [0, 1). The places with the least of it are chosen; equal noise is told apart by the place.
    """
    num_places = noise.shape[1]
    keys = (noise * FINE).long() * num_places + torch.arange(num_places)
    if allowed is not None:
        keys = keys.masked_fill(~allowed, FINE * num_places)
    last = keys.kthvalue(num_chosen, 1, keepdim=True).values
    return (keys <= last).nonzero()[:, 1].view(-1, num_chosen)


def mark(places: Int[Tensor, "b ..."], num_places: int) -> Bool[Tensor, "b n"]:
    """Which of so many places are among those of each row."""
    nothing = torch.zeros(len(places), num_places, dtype=torch.bool)
    return nothing.scatter_(1, places.flatten(1), True)


def first_places(marked: Bool[Tensor, "b n"], num_kept: int) -> Int[Tensor, "b k"]:
    """The first `num_kept` marked places of each row."""
    return (marked & (marked.cumsum(1) <= num_kept)).nonzero()[:, 1].view(-1, num_kept)
