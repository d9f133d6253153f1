"""Planning by gradient descent through the model (Henaff et al. 2017, arXiv 1705.07177), with Adam (1412.6980)."""

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
class Gradient:
    """Follows the gradient of the cost from several starts at once, and takes the best actions met on any way.

    The first start is the caller's, the others lie around it. Actions are brought back into the bounds after each
    step of Adam. A gradient that is not finite counts as zero. Gradients of the model's weights are not touched.

    num_starts      candidates of each environment, which go their ways side by side.
    num_iterations  calls of the cost; between two of them lies a step of Adam.
    lr              of Adam: about how far an action moves in a step, in its own units.
    std             of the starts around the caller's, in the action's own units.
    """

    num_starts: int = 8
    _: KW_ONLY
    num_iterations: int = 50
    lr: float = 0.1
    std: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(1, num_starts=self.num_starts, num_iterations=self.num_iterations)
        check_above_zero(lr=self.lr, std=self.std)

    def __call__(
        self, cost: Cost, start: Float[Tensor, "e h a"], bounds: Bounds, generator: torch.Generator
    ) -> Planned:
        """The best actions met, also under `torch.no_grad`.

        ValueError as `prepare` and `evaluate` raise it, and if the cost has no gradient with respect to the actions.
        """
        best_action, bounds = prepare(start, bounds)
        noise = draw(self.num_starts, best_action, generator)
        noise[:, 0] = 0  # the caller's start
        action = around(best_action, torch.full_like(best_action, self.std), noise, bounds).requires_grad_()
        best_cost = torch.full_like(best_action[:, 0, 0], torch.inf)
        adam = torch.optim.Adam([action], lr=self.lr)
        trace = Trace()
        for _ in range(self.num_iterations):
            with torch.enable_grad():
                costs = evaluate(cost, action)
                action.grad = _gradient(costs, action)
            with torch.no_grad():
                found = choose_elites(action, costs, 1)
                better = found.cost[:, 0] < best_cost
                best_action = torch.where(better[:, None, None], found.action[:, 0], best_action)
                best_cost = torch.where(better, found.cost[:, 0], best_cost)
                trace.note(best_cost, action)
                adam.step()
                action.copy_(bounds.clip(action))
        return trace.planned(best_action)


def _gradient(costs: Float[Tensor, "e s"], action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s h a"]:
    """The gradient of each candidate's cost, zero where it is not finite."""
    gradient = None
    if costs.requires_grad:
        (gradient,) = torch.autograd.grad(costs.sum(), action, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "Wanted a cost that can be differentiated with respect to the actions, got one without a gradient; "
            "compute it without detach, no_grad and inference_mode, or use a planner that draws samples, such as CEM."
        )
    return gradient.nan_to_num(0, 0, 0)
