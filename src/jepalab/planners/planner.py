"""What every planner shares: the cost it is given, where actions may lie, what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Cost = Callable[[Float[Tensor, "e s h a"]], Float[Tensor, "e s"]]


@dataclass(frozen=True)
class Bounds:
    """Where an action may lie: in a box, and in a ball around nothing where there is a largest norm.

    low, high  [a], of each component; infinite where there is none.

    ValueError for a box that is empty, and for a largest norm with a box that does not hold the zero action: the
    shortened action would leave such a box.
    """

    low: Float[Tensor, " a"]
    high: Float[Tensor, " a"]
    max_norm: float = math.inf

    def __post_init__(self) -> None:
        if self.low.shape != self.high.shape or not (self.low <= self.high).all():
            raise ValueError(
                "Wanted low <= high in each component of an action, got "
                f"low={self.low.tolist()} and high={self.high.tolist()}."
            )
        if not self.max_norm > 0:
            raise ValueError(f"Wanted a largest norm above 0, got max_norm={self.max_norm}; leave it out for none.")
        if self.max_norm < math.inf and not ((self.low <= 0) & (self.high >= 0)).all():
            raise ValueError(
                f"With max_norm={self.max_norm}, wanted low <= 0 <= high, got low={self.low.tolist()} and "
                f"high={self.high.tolist()}; measure actions from the middle of the box, or leave max_norm out."
            )

    def clip(self, action: Float[Tensor, "*any a"]) -> Float[Tensor, "*any a"]:
        """The nearest action of the box, then shortened to the largest norm. Differentiable."""
        boxed = action.clamp(self.low, self.high)
        if math.isinf(self.max_norm):
            return boxed
        return boxed * (self.max_norm / boxed.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)


@dataclass(frozen=True)
class Planned:
    """What a planner found for each of e environments.

    action  [e h a] the sequence to execute.
    costs   [i e] after each of i iterations, the mean cost of what the planner kept.
    spread  [i e] after each iteration, how far its candidates lie apart: the mean standard deviation of an action.
    """

    action: Float[Tensor, "e h a"]
    costs: Float[Tensor, "i e"]
    spread: Float[Tensor, "i e"]


@runtime_checkable
class Planner(Protocol):
    """Searches for the actions of least cost. It is given a cost, not a model: its test is the minimum of a parabola.

    start      [e h a] where the search begins: nothing, or the rest of the last plan.
    generator  of the candidates, on the CPU. Environments share its numbers, so that what is planned for one does not
               depend on how many are planned at once.
    """

    def __call__(
        self, cost: Cost, start: Float[Tensor, "e h a"], bounds: Bounds, generator: torch.Generator
    ) -> Planned: ...
