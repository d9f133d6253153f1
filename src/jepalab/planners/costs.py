"""Costs to plan with, made of small parts: how far imagined embeddings stay from a goal, and what actions cost.

`Imagine` is a world model with its history filled in. A cost is built for the goals of e environments, and then
judges any number of candidates of each in one call:

    read = read_out(imagine, probe)
    cost = total(distance_to(goal, read, over_time=summed), control_penalty(0.01))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.planners.planner import Cost

Imagine = Callable[[Float[Tensor, "e s h a"]], Float[Tensor, "e s h d"]]
Read = Callable[[Float[Tensor, "e s h d"]], Float[Tensor, "e s h f"]]
OverTime = Callable[[Float[Tensor, "e s h"]], Float[Tensor, "e s"]]
Violation = Callable[[Float[Tensor, "e s h a"]], Float[Tensor, "e s"]]


def at_the_end(distance: Float[Tensor, "e s h"]) -> Float[Tensor, "e s"]:
    """The last step's alone: it does not matter how one gets there (DINO-WM, arXiv 2411.04983)."""
    return distance[..., -1]


def summed(distance: Float[Tensor, "e s h"]) -> Float[Tensor, "e s"]:
    """The sum over the horizon: it pays to be there early (EB-JEPA, arXiv 2602.03604)."""
    return distance.sum(-1)


@dataclass(frozen=True)
class Late:
    """A mean over the horizon in which each step counts `rate` times what the one before counts, in units of distance.

    The end decides, so that a detour costs next to nothing; of plans that end alike, the one that is there earlier is
    cheaper, so that an agent stays where it has arrived.
    """

    rate: float = 8.0

    def __post_init__(self) -> None:
        if not self.rate > 1:
            raise ValueError(f"Wanted a rate above 1, got rate={self.rate}; for less take Discounted.")

    def __call__(self, distance: Float[Tensor, "e s h"]) -> Float[Tensor, "e s"]:
        back = torch.arange(distance.shape[-1] - 1, -1, -1, device=distance.device, dtype=distance.dtype)
        weight = self.rate**-back
        return (distance * weight).sum(-1) / weight.sum()


@dataclass(frozen=True)
class Discounted:
    """The sum over the horizon in which each step counts `rate` times what the one before counts, the first 1.

    Below 1, what lies far ahead, and is imagined worst, counts little; above 1, the end counts most.
    """

    rate: float

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ValueError(f"Wanted a rate above 0, got rate={self.rate}; for the last step alone use at_the_end.")

    def __call__(self, distance: Float[Tensor, "e s h"]) -> Float[Tensor, "e s"]:
        steps = torch.arange(distance.shape[-1], device=distance.device, dtype=distance.dtype)
        return (distance * self.rate**steps).sum(-1)


def distance_to(goal: Float[Tensor, "e d"], imagine: Imagine, *, over_time: OverTime = at_the_end) -> Cost:
    """The squared distance between what is imagined [e s h d] and the goal of each environment, in float32.

    It is the mean over d, not the sum, so that costs, penalties and temperatures mean the same at any width.
    ValueError when it is called, if what is imagined does not fit the candidates and the goal.
    """

    def cost(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
        imagined = imagine(action)
        wanted = (*action.shape[:3], goal.shape[-1])
        if len(goal) != len(action) or imagined.shape != wanted:
            raise ValueError(
                f"Wanted a goal [e d] for each of {len(action)} environments and imagined embeddings [e s h d] of "
                f"{wanted}, got a goal {tuple(goal.shape)} and {tuple(imagined.shape)}; keep h steps of the rollout, "
                "without the history, and the goal and the embeddings of one width."
            )
        return over_time((imagined.float() - goal[:, None, None].float()).square().mean(-1))

    return cost


def read_out(imagine: Imagine, read: Read) -> Imagine:
    """Imagines what a probe or a decoder reads from the embeddings [e s h f]: a position, pixels, a reward.

    Pixels are flattened by `read`, so that f is one axis. The goal given to `distance_to` is [e f] then.
    """

    def imagine_read(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s h f"]:
        return read(imagine(action))

    return imagine_read


def control_penalty(weight: float) -> Cost:
    """`weight` times the sum of the squared actions over horizon and components."""

    def cost(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
        return weight * action.square().sum((2, 3))

    return cost


def constraint(violation: Violation, *, weight: float) -> Cost:
    """`weight` times how far each candidate violates a constraint: what is positive of `violation(action)` [e s].

    A soft constraint: a candidate may violate it where that pays. ValueError unless the weight is above 0.
    """
    if not weight > 0:
        raise ValueError(f"Wanted a weight above 0, got weight={weight}; a violation must cost something.")

    def cost(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
        return weight * torch.relu(violation(action))

    return cost


def total(*costs: Cost) -> Cost:
    """The sum of costs. ValueError for none, and when it is called, if one is not [e s]."""
    if not costs:
        raise ValueError("Wanted one cost or more to add up, got none.")

    def cost(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
        values = [each(action) for each in costs]
        if any(value.shape != action.shape[:2] for value in values):
            raise ValueError(
                f"Wanted costs [e s] of {tuple(action.shape[:2])} to add up, got {[tuple(v.shape) for v in values]}."
            )
        return torch.stack(values).sum(0)

    return cost
