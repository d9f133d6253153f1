"""Model predictive path integral control, MPPI (Williams et al. 2017), in the form that adapts its noise.

The weights and the momentum are those of TD-MPC (Hansen et al. 2022, arXiv 2203.04955) and EB-JEPA (arXiv 2602.03604).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.planners.planner import Bounds, Cost, Planned
from jepalab.planners.search import (
    Trace,
    around,
    check_above_zero,
    check_at_least,
    check_elites,
    check_shares,
    choose_elites,
    draw,
    evaluate,
    prepare,
)

Unit = Literal["spread", "cost"]


@dataclass(frozen=True)
class MPPI:
    """Moves the mean to the weighted mean of its candidates, exp(-(cost - least cost) / temperature) each.

    With num_elites=None, std_momentum=1, temperature_unit="cost" and one iteration this is the update of Williams et
    al., less their term for the cost of control, which `costs.control_penalty` can add. EB-JEPA and TD-MPC return an
    elite drawn with these weights; here the answer is the mean. Candidate 0 is the mean, as in CEM.

    num_samples, num_iterations  candidates an iteration, and calls of the cost.
    num_elites        only so many, the cheapest, have a weight; None for all candidates.
    temperature       how much dearer than the best a candidate may be and still count: a small one follows the best
                      alone, a large one weighs all alike.
    temperature_unit  what the temperature is measured in. "spread": the elites' mean excess over the best, so that
                      the plan does not change when the cost is multiplied, as befits latent distances. "cost": the
                      cost itself, as published.
    std               of the first iteration, in the action's own units.
    min_std, max_std  between which the standard deviation stays afterwards.
    mean_momentum     share of the old mean in the new one.
    std_momentum      share of the old standard deviation in the new one; 1 keeps it as it is.
    """

    num_samples: int = 100
    _: KW_ONLY
    num_elites: int | None = 10
    num_iterations: int = 5
    temperature: float = 0.5
    temperature_unit: Unit = "spread"
    std: float = 1.0
    min_std: float = 0.0
    max_std: float = math.inf
    mean_momentum: float = 0.0
    std_momentum: float = 0.5

    def __post_init__(self) -> None:
        check_elites(self._num_weighed, self.num_samples, fewest=1)
        check_at_least(1, num_iterations=self.num_iterations)
        check_at_least(0, min_std=self.min_std)
        check_at_least(self.min_std, max_std=self.max_std)
        check_above_zero(temperature=self.temperature, std=self.std)
        check_shares(mean_momentum=self.mean_momentum, std_momentum=self.std_momentum)
        if self.temperature_unit not in get_args(Unit):
            raise ValueError(f"Wanted temperature_unit out of {get_args(Unit)}, got {self.temperature_unit!r}.")

    @torch.no_grad()
    def __call__(
        self, cost: Cost, start: Float[Tensor, "e h a"], bounds: Bounds, generator: torch.Generator
    ) -> Planned:
        """The mean after the last iteration. ValueError as `prepare` and `evaluate` raise it."""
        mean, bounds = prepare(start, bounds)
        std = torch.full_like(mean, self.std)
        trace = Trace()
        for _ in range(self.num_iterations):
            noise = draw(self.num_samples, mean, generator)
            noise[:, 0] = 0  # the mean itself
            candidates = around(mean, std, noise, bounds)
            elites = choose_elites(candidates, evaluate(cost, candidates), self._num_weighed)
            weights = self.weights(elites.cost)
            weighted_mean, weighted_std = _moments(elites.action, weights)
            mean = self.mean_momentum * mean + (1 - self.mean_momentum) * weighted_mean
            std = self.std_momentum * std + (1 - self.std_momentum) * weighted_std
            std = std.clamp(self.min_std, self.max_std)
            trace.note((weights * elites.cost.where(weights > 0, 0)).sum(1), candidates)
        return trace.planned(bounds.clip(mean))

    def weights(self, costs: Float[Tensor, "e k"]) -> Float[Tensor, "e k"]:
        """What each candidate counts; they add up to 1. An infinite cost has the weight 0."""
        excess = costs - costs.amin(1, keepdim=True)
        if self.temperature_unit == "spread":
            finite = excess.isfinite()
            spread = excess.where(finite, 0).sum(1, keepdim=True) / finite.sum(1, keepdim=True)
            excess = excess / spread.clamp_min(torch.finfo(excess.dtype).tiny)
        return torch.softmax(-excess / self.temperature, dim=1)

    @property
    def _num_weighed(self) -> int:
        return self.num_samples if self.num_elites is None else self.num_elites


def _moments(
    action: Float[Tensor, "e k h a"], weights: Float[Tensor, "e k"]
) -> tuple[Float[Tensor, "e h a"], Float[Tensor, "e h a"]]:
    """Weighted mean and standard deviation."""
    weights = weights[..., None, None]
    mean = (weights * action).sum(1)
    return mean, (weights * (action - mean.unsqueeze(1)).square()).sum(1).sqrt()
