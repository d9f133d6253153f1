"""Environments under other actions: the same world, told what to do in other units or from where the agent stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.envs.environment import Environment, S, require_finite
from jepalab.envs.gymnasium_adapters import WorldState
from jepalab.planners.planner import Bounds


@dataclass(frozen=True)
class OtherActions(ABC, Generic[S]):
    """An environment whose actions are told otherwise; all else is as it is. To be derived from.

    inner  the environment.
    """

    inner: Environment[S]

    @property
    @abstractmethod
    def bounds(self) -> Bounds: ...

    @abstractmethod
    def translate(self, state: S, action: Float[Tensor, "n a"]) -> Float[Tensor, "n a"]:
        """The same action as the environment inside has it."""

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        return self.inner.picture_shape

    def reset(self, num: int, generator: torch.Generator) -> S:
        return self.inner.reset(num, generator)

    def random_pairs(self, num: int, generator: torch.Generator, *, min_distance: float) -> tuple[S, S]:
        return self.inner.random_pairs(num, generator, min_distance=min_distance)

    def step(self, state: S, action: Float[Tensor, "n a"]) -> S:
        require_finite(action, num=len(state), width=len(self.bounds.low))
        return self.inner.step(state, self.translate(state, action))

    def render(self, state: S) -> Float[Tensor, "n c h w"]:
        return self.inner.render(state)

    def proprioception(self, state: S) -> Float[Tensor, "n p"]:
        return self.inner.proprioception(state)

    def factors(self, state: S) -> dict[str, Tensor]:
        return self.inner.factors(state)

    def distance(self, state: S, goal: S) -> Float[Tensor, " n"]:
        return self.inner.distance(state, goal)

    def success(self, state: S, goal: S, *, radius: float) -> Bool[Tensor, " n"]:
        return self.inner.success(state, goal, radius=radius)


@dataclass(frozen=True)
class Rescaled(OtherActions[S]):
    """Actions in units in which usual ones are about 1: what a model learns from and a planner searches in.

    unit  how much 1 is, in the units of the environment inside.
    """

    unit: float = 1.0

    def __post_init__(self) -> None:
        if not self.unit > 0:
            raise ValueError(f"Wanted a unit above 0, got {self.unit}.")

    @property
    def bounds(self) -> Bounds:
        inner = self.inner.bounds
        return Bounds(inner.low / self.unit, inner.high / self.unit, inner.max_norm / self.unit)

    def translate(self, state: S, action: Float[Tensor, "n a"]) -> Float[Tensor, "n a"]:
        return action * self.unit


@dataclass(frozen=True)
class FromTheAgent(OtherActions[WorldState]):
    """Where the environment inside wants a target, actions say where it lies from the agent, from -1 to 1.

    As stable-worldmodel (github.com/galilai-group/stable-worldmodel) has PushT. Among absolute targets a planner would
    find many that lie farther off than any that a model was shown.

    part   the factor that is the agent's position.
    reach  how far 1 is, in the target's units.
    """

    part: str = "agent"
    reach: float = 100.0

    @property
    def bounds(self) -> Bounds:
        end = torch.ones_like(self.inner.bounds.low)
        return Bounds(-end, end)

    def translate(self, state: WorldState, action: Float[Tensor, "n a"]) -> Float[Tensor, "n a"]:
        return self.inner.factors(state)[self.part] + self.reach * self.bounds.clip(action)


def innermost(env: Environment[Any]) -> Environment[Any]:
    """The environment itself, under its own actions."""
    while isinstance(env, OtherActions):
        env = env.inner
    return env
