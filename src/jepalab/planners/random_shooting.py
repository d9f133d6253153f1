"""Random shooting: the best of many random plans (predictive sampling, Howell et al. 2022, arXiv 2212.00541)."""

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
    choose_elites,
    draw,
    evaluate,
    prepare,
)


@dataclass(frozen=True)
class RandomShooting:
    """Draws candidates around the start once and takes the best; the start is one of them, so it never does worse.

    num_samples  candidates.
    std          of the noise on each action, in the action's own units.
    """

    num_samples: int = 1000
    _: KW_ONLY
    std: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(1, num_samples=self.num_samples)
        check_above_zero(std=self.std)

    @torch.no_grad()
    def __call__(
        self, cost: Cost, start: Float[Tensor, "e h a"], bounds: Bounds, generator: torch.Generator
    ) -> Planned:
        """The best candidate, after one call of the cost. ValueError as `prepare` and `evaluate` raise it."""
        start, bounds = prepare(start, bounds)
        noise = draw(self.num_samples, start, generator)
        noise[:, 0] = 0  # the start itself
        candidates = around(start, torch.full_like(start, self.std), noise, bounds)
        best = choose_elites(candidates, evaluate(cost, candidates), 1)
        trace = Trace()
        trace.note(best.cost[:, 0], candidates)
        return trace.planned(best.action[:, 0])
