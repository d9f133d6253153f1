"""The cross-entropy method (de Boer et al. 2005), as stable-worldmodel plans with it (arXiv 2602.08968)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

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


@dataclass(frozen=True)
class CEM:
    """Draws candidates from a normal distribution, and fits the next one to the elites, the cheapest of them.

    Without momentum and bounds this is stable-worldmodel's solver, given the same random numbers: candidate 0 is the
    mean, the standard deviation is the unbiased one, and the answer is the last mean, which no cost has seen.

    num_samples, num_elites, num_iterations  candidates an iteration, how many are kept, and calls of the cost.
    std            of the first iteration, in the action's own units.
    min_std        below which the standard deviation never falls.
    mean_momentum  share of the old mean in the new one; 0 is the plain method.
    std_momentum   the same of the standard deviation.
    """

    num_samples: int = 300
    _: KW_ONLY
    num_elites: int = 30
    num_iterations: int = 10
    std: float = 1.0
    min_std: float = 0.0
    mean_momentum: float = 0.0
    std_momentum: float = 0.0

    def __post_init__(self) -> None:
        check_elites(self.num_elites, self.num_samples, fewest=2)
        check_at_least(1, num_iterations=self.num_iterations)
        check_at_least(0, min_std=self.min_std)
        check_above_zero(std=self.std)
        check_shares(mean_momentum=self.mean_momentum, std_momentum=self.std_momentum)

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
            elites = choose_elites(candidates, evaluate(cost, candidates), self.num_elites).without_gaps()
            mean = self.mean_momentum * mean + (1 - self.mean_momentum) * elites.action.mean(1)
            std = self.std_momentum * std + (1 - self.std_momentum) * elites.action.std(1)
            std = std.clamp_min(self.min_std)
            trace.note(elites.cost.mean(1), candidates)
        return trace.planned(bounds.clip(mean))
