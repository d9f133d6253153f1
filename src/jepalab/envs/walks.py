"""Trajectories to learn from: a policy turns at random from step to step, whatever else it is after.

After EB-JEPA's data (arXiv 2602.03604): the direction is a von Mises walk, the length of a step a truncated normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.envs.chance import Purpose, truncated_normals, uniforms, von_mises
from jepalab.envs.environment import Environment, PointState, S, State

P = TypeVar("P", bound=PointState)
Heading = Callable[[P, Float[Tensor, " n"]], Float[Tensor, " n"]]


@dataclass(frozen=True)
class Gait:
    """How actions are drawn.

    concentration  of the von Mises turns from one step to the next; the larger, the straighter.
    mean, std      of an action's length, in the environment's units,
    shortest, longest  between which it lies.
    """

    concentration: float = 5.0
    mean: float = 1.0
    std: float = 0.4
    shortest: float = 0.2
    longest: float = 1.8

    def __post_init__(self) -> None:
        if not (self.concentration > 0 and self.std > 0 and 0 <= self.shortest <= self.mean <= self.longest):
            raise ValueError(
                f"A gait needs concentration and std above 0 and lengths with shortest <= mean <= longest, got {self}."
            )

    def turns(self, key: Int[Tensor, " n"], clock: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """In radians."""
        return von_mises(uniforms(key, Purpose.WALK, clock, num=2)[:, 0], concentration=self.concentration)

    def lengths(self, key: Int[Tensor, " n"], clock: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        lucky = uniforms(key, Purpose.WALK, clock, num=2)[:, 1]
        return truncated_normals(lucky, mean=self.mean, std=self.std, low=self.shortest, high=self.longest)


@dataclass(frozen=True)
class Trajectories(State, Generic[P]):
    """n trajectories of t = s + 1 states. The rest, pictures too, follows from the start and the actions: see `replay`.

    start     the first states.
    action    [n s 2] as commanded; action[:, i] leads from position[:, i] to position[:, i + 1].
    position  [n t 2] in pixels.
    """

    start: P
    action: Float[Tensor, "n s 2"]
    position: Float[Tensor, "n t 2"]


def walk(environment: Environment[P], start: P, heading: Heading[P], *, num_steps: int, gait: Gait) -> Trajectories[P]:
    """Walks where `heading` says, which is given the state and the last direction, plus a random turn each step.

    Directions are angles in radians, clockwise from "right" as y runs downwards.
    """
    if num_steps < 1:
        raise ValueError(f"Wanted at least 1 step, got num_steps={num_steps}.")
    # The turn of a clock that no state shows: the first direction, uniform.
    direction = uniforms(start.key, Purpose.WALK, start.clock - 1, num=1)[:, 0] * (2 * torch.pi)
    state, actions, positions = start.blind(), [], [start.position]
    for _ in range(num_steps):
        direction = heading(state, direction) + gait.turns(state.key, state.clock)
        action = gait.lengths(state.key, state.clock)[:, None] * torch.stack([direction.cos(), direction.sin()], 1)
        state = environment.step(state, action)
        actions.append(action)
        positions.append(state.position)
    return Trajectories(start, torch.stack(actions, 1), torch.stack(positions, 1))


def straight_on(state: PointState, direction: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The heading of a random walk."""
    return direction


def bearing(vector: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Its direction in radians."""
    return torch.atan2(vector[:, 1], vector[:, 0])


def replay(environment: Environment[S], start: S, action: Float[Tensor, "n s a"]) -> list[S]:
    """The states that follow on these actions, the first included."""
    states = [start]
    for i in range(action.shape[1]):
        states.append(environment.step(states[-1], action[:, i]))
    return states


def film(environment: Environment[S], start: S, action: Float[Tensor, "n s a"]) -> Float[Tensor, "n t c h w"]:
    """Pictures of all the states that follow on these actions, the first included."""
    return torch.stack([environment.render(state) for state in replay(environment, start, action)], 1)
