"""What the planners share: candidates from common random numbers, one call of the cost for all of them, elites."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.planners.planner import Bounds, Cost, Planned


def prepare(start: Float[Tensor, "e h a"], bounds: Bounds) -> tuple[Float[Tensor, "e h a"], Bounds]:
    """The start inside the bounds, in float32 or better, and the bounds where it is.

    ValueError if the two have different numbers of components, or if the start is empty or not finite.
    """
    if start.numel() == 0 or start.shape[-1:] != bounds.low.shape:
        raise ValueError(
            f"Wanted a start [e h a] with a = {bounds.low.numel()}, as the bounds have it, and with e and h of at "
            f"least 1, got the shape {tuple(start.shape)}."
        )
    if not start.isfinite().all():
        raise ValueError("Wanted a finite start, got NaN or infinite actions; begin with zeros if there is no plan.")
    start = start.detach().to(torch.promote_types(start.dtype, torch.float32))
    bounds = Bounds(bounds.low.to(start), bounds.high.to(start), bounds.max_norm)
    return bounds.clip(start), bounds


def draw(num_samples: int, start: Float[Tensor, "e h a"], generator: torch.Generator) -> Float[Tensor, "1 s h a"]:
    """Standard normal numbers that all environments share, on the CPU."""
    return torch.randn(1, num_samples, *start.shape[1:], generator=generator, dtype=start.dtype)


def around(
    mean: Float[Tensor, "e h a"], std: Float[Tensor, "e h a"], noise: Float[Tensor, "1 s h a"], bounds: Bounds
) -> Float[Tensor, "e s h a"]:
    """The candidates mean + std * noise, inside the bounds."""
    return bounds.clip(noise.to(mean.device) * std.unsqueeze(1) + mean.unsqueeze(1))


def evaluate(cost: Cost, candidates: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
    """What each candidate costs; infinity where the cost is not finite, so that such a candidate is the worst.

    ValueError if the answer is not [e s], or if an environment has no candidate with a finite cost.
    """
    costs = cost(candidates)
    wanted = tuple(candidates.shape[:2])
    if not isinstance(costs, Tensor) or costs.shape != wanted:
        got = f"the shape {tuple(costs.shape)}" if isinstance(costs, Tensor) else f"a {type(costs).__name__}"
        raise ValueError(
            f"Wanted a tensor of {wanted}, one cost for each of {wanted[1]} candidates in {wanted[0]} environments, "
            f"got {got}; reduce over the horizon and the width, and over nothing else."
        )
    costs = costs.to(candidates)
    finite = costs.isfinite()
    if not (each := finite.any(1)).all():
        lost = (~each).nonzero().flatten().tolist()
        raise ValueError(
            f"Wanted a candidate with a finite cost in every environment, got none among {wanted[1]} in the "
            f"environments {lost}; look for NaN in what the model imagines and in the goal."
        )
    return costs.masked_fill(~finite, torch.inf)


class Elites(NamedTuple):
    """The cheapest candidates of each environment, the best first."""

    action: Float[Tensor, "e k h a"]
    cost: Float[Tensor, "e k"]

    def without_gaps(self) -> Elites:
        """The same with the best in the place of those whose cost is not finite: there were too few others."""
        finite = self.cost.isfinite()
        action = self.action.where(finite[..., None, None], self.action[:, :1])
        return Elites(action, self.cost.where(finite, self.cost[:, :1]))


def choose_elites(candidates: Float[Tensor, "e s h a"], costs: Float[Tensor, "e s"], num_elites: int) -> Elites:
    """The candidates of least cost."""
    cost, index = costs.topk(num_elites, dim=1, largest=False)
    return Elites(candidates.take_along_dim(index[..., None, None], dim=1), cost)


@dataclass(frozen=True)
class Trace:
    """The record of a search, an entry an iteration."""

    costs: list[Float[Tensor, " e"]] = field(default_factory=list)
    spread: list[Float[Tensor, " e"]] = field(default_factory=list)

    def note(self, kept: Float[Tensor, " e"], candidates: Float[Tensor, "e s h a"]) -> None:
        """The mean cost of what was kept of these candidates."""
        self.costs.append(kept)
        self.spread.append(candidates.std(1, correction=0).mean((1, 2)))

    def planned(self, action: Float[Tensor, "e h a"]) -> Planned:
        """The answer, with this record."""
        return Planned(action, torch.stack(self.costs), torch.stack(self.spread))


def check_at_least(least: int | float, **settings: int | float) -> None:
    """ValueError for a setting of a planner below `least`, or NaN."""
    for name, value in settings.items():
        if not value >= least:
            raise ValueError(f"Wanted {name} of at least {least}, got {name}={value}.")


def check_above_zero(**settings: int | float) -> None:
    """ValueError for a setting of a planner that is not above zero."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"Wanted {name} above 0, got {name}={value}.")


def check_shares(**settings: int | float) -> None:
    """ValueError for a setting of a planner outside [0, 1]."""
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ValueError(f"Wanted {name} in [0, 1], got {name}={value}.")


def check_elites(num_elites: int, num_samples: int, *, fewest: int) -> None:
    """ValueError unless so many elites can be chosen among so many samples, and are enough."""
    if not fewest <= num_elites <= num_samples:
        raise ValueError(
            f"Wanted from {fewest} to num_samples={num_samples} elites, got num_elites={num_elites}; "
            "a tenth of the samples is usual."
        )
