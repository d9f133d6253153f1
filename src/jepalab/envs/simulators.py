"""Worlds of other people, one at a time, of which everything can be read and set again; PushT is the first.

Imported only when asked for: `pip install "jepalab[worlds]"`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from jepalab.planners.planner import Bounds

EXTRA = 'pip install "jepalab[worlds]"'


class Simulator(ABC):
    """One world. `memory` is all that decides what follows, `truth` what there is to know about it.

    bounds  of an action.
    parts   where in `truth` to find what, by name.
    felt    the part of `truth` that an agent feels of itself.
    """

    bounds: Bounds
    parts: ClassVar[Mapping[str, slice]]
    felt: ClassVar[slice]

    @abstractmethod
    def reset(self, seed: int) -> None: ...

    @abstractmethod
    def act(self, action: Float[np.ndarray, " a"]) -> None: ...

    @abstractmethod
    def memory(self) -> Float64[np.ndarray, " m"]: ...

    @abstractmethod
    def restore(self, memory: Float64[np.ndarray, " m"]) -> None: ...

    @abstractmethod
    def truth(self) -> Float64[np.ndarray, " f"]: ...

    @abstractmethod
    def picture(self) -> UInt8[np.ndarray, "h w 3"]: ...

    @abstractmethod
    def distance(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        """How far it is to go, in the unit of the usual radius of success."""

    @abstractmethod
    def nearness(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        """What is held against the radius of success."""

    @abstractmethod
    def close(self) -> None: ...


class PushT(Simulator):
    """gym-pusht's: a disc pushes a T (Florence et al. 2021; Chi et al. 2023, arXiv 2303.04137). Actions are targets.

    Distances are those of DINO-WM (arXiv 2411.04983): success within 20 pixels (of 512, disc and block together) and
    within 20 degrees; both are counted in pixels here, a degree as one, and the larger holds.
    """

    parts: ClassVar = {"agent": slice(0, 2), "block": slice(2, 4), "angle": slice(4, 5), "velocity": slice(5, 7)}
    felt = slice(5, 7)

    def __init__(self, *, size: int) -> None:
        gym_pusht = _gym_pusht()
        self._env: Any = gym_pusht.PushTEnv(observation_width=size, observation_height=size)
        self.bounds = Bounds(torch.zeros(2), torch.full((2,), 512.0))
        self._env.reset(seed=0)

    def reset(self, seed: int) -> None:
        self._env.reset(seed=seed)

    def act(self, action: Float[np.ndarray, " a"]) -> None:
        self._env.step(action.astype(np.float64))

    def memory(self) -> Float64[np.ndarray, " m"]:
        agent, block = self._env.agent, self._env.block
        numbers = [*agent.position, *agent.velocity, *block.position, block.angle, *block.velocity]
        return np.array([*numbers, block.angular_velocity])

    def restore(self, memory: Float64[np.ndarray, " m"]) -> None:
        """Puts everything there, in a space in which nothing touches yet: what was in contact settles anew."""
        self._env._setup()
        agent, block = self._env.agent, self._env.block
        values = memory.tolist()
        agent.position, agent.velocity = tuple(values[0:2]), tuple(values[2:4])
        # The angle first: it turns the block around its centre of mass and so moves it.
        block.angle = values[6]
        block.position, block.velocity, block.angular_velocity = tuple(values[4:6]), tuple(values[7:9]), values[9]
        self._env.space.reindex_shapes_for_body(agent)
        self._env.space.reindex_shapes_for_body(block)

    def truth(self) -> Float64[np.ndarray, " f"]:
        agent, block = self._env.agent, self._env.block
        return np.array([*agent.position, *block.position, block.angle % (2 * math.pi), *agent.velocity])

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        # Not render(), which marks the last action.
        return self._env._render()

    def distance(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return self.nearness(truth, goal)

    def nearness(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        apart = (truth[:, :4] - goal[:, :4]).norm(dim=1)
        turned = (truth[:, 4] - goal[:, 4]).abs()
        return apart.maximum(torch.rad2deg(turned.minimum(2 * math.pi - turned)))

    def close(self) -> None:
        self._env.close()


def _gym_pusht() -> Any:
    try:
        from gym_pusht.envs import pusht  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ValueError(f"PushT needs gym-pusht, which is optional: {EXTRA}.") from error
    return pusht
