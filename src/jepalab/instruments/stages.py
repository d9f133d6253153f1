"""What an instrument may do to an environment that a planner may not: move and recolour what acts, and nothing else."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.envs.environment import Environment


@runtime_checkable
class Stage(Protocol):
    """An environment whose states can be tampered with."""

    def elsewhere(self, state: Any, generator: torch.Generator) -> Any:
        """The same states, but what acts is farther away than any step leads."""
        ...

    def recoloured(self) -> Environment[Any]:
        """The same environment, in which what acts has another colour."""
        ...

    def is_blocked(self, state: Any, action: Float[Tensor, "n a"]) -> Bool[Tensor, " n"]:
        """Whether something is in the action's way."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """Recorded trajectories whose states are known."""

    def states(self, windows: Int[Tensor, " b"], num_frames: int) -> Any:
        """The states at the frames of those windows, window by window: b * num_frames of them."""
        ...
