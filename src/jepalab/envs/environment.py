"""What every environment is: a pure function of states that are tensors, n of them advanced in one call.

A state holds all there is, so the environment is also a simulator: step any number of copies of it as an oracle would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.planners.planner import Bounds

S = TypeVar("S", bound="State")
Rows = slice | Int[Tensor, " m"] | Bool[Tensor, " n"]


@dataclass(frozen=True)
class State:
    """The states of n environments at once, to be derived from.

    Its fields are tensors with n rows, states, or None where it has no such.

    Index it with a slice, a mask or indices to select environments; `len` is n.
    """

    def map(self: S, function: Callable[[Tensor], Tensor]) -> S:
        """The state with `function` applied to every tensor in it."""
        changed: dict[str, Any] = {}
        for name, value in self._parts().items():
            changed[name] = value.map(function) if isinstance(value, State) else function(value)
        return replace(self, **changed)

    def __len__(self) -> int:
        first = next(iter(self._parts().values()))
        return len(first)

    def __getitem__(self: S, rows: Rows) -> S:
        return self.map(lambda tensor: tensor[rows])

    def repeat(self: S, num: int) -> S:
        """Each environment `num` times in a row, for `num` candidates of each."""
        return self.map(lambda tensor: tensor.repeat_interleave(num, 0))

    def blind(self: S) -> S:
        """The state without what only pictures show, such as a television: what follows is the same and costs less."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Everything in it under dotted names, as a file can hold it; `with_tensors` reads it back."""
        flat: dict[str, Tensor] = {}
        for name, value in self._parts().items():
            inner = value.tensors() if isinstance(value, State) else {"": value}
            flat |= {f"{name}.{rest}".rstrip("."): tensor for rest, tensor in inner.items()}
        return flat

    def with_tensors(self: S, tensors: Mapping[str, Tensor]) -> S:
        """A state of this kind with those tensors instead of its own: a manifest of starts and goals, read back.

        Raises:
            ValueError: their names are not those that `tensors` gives.
        """
        if self.tensors().keys() != tensors.keys():
            raise ValueError(
                f"Wanted the tensors {sorted(self.tensors())}, got {sorted(tensors)}: these states were made by an "
                "environment with other settings."
            )
        changed: dict[str, Any] = {}
        for name, value in self._parts().items():
            inner = {key.partition(".")[2]: tensor for key, tensor in tensors.items() if key.split(".")[0] == name}
            changed[name] = value.with_tensors(inner) if isinstance(value, State) else inner[""]
        return replace(self, **changed)

    def _parts(self) -> dict[str, Any]:
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def join(states: Sequence[S]) -> S:
    """The environments of all of them, one after the other."""
    names = states[0].tensors().keys()
    return states[0].with_tensors({name: torch.cat([state.tensors()[name] for state in states]) for name in names})


@dataclass(frozen=True)
class PointState(State):
    """A point in the plane, and what chance has in store for it.

    position  [n 2] x to the right and y downwards in pixels; the centre of the upper left pixel is (0, 0).
    key       [n] decides all that will happen by chance, see `chance`.
    clock     [n] steps since the start.
    """

    position: Float[Tensor, "n 2"]
    key: Int[Tensor, " n"]
    clock: Int[Tensor, " n"]


@runtime_checkable
class Environment(Protocol[S]):
    """n environments at once, each on its own: what happens to one does not depend on how many there are.

    bounds         where an action may lie; `step` shortens what is longer.
    picture_shape  (c, h, w) of what `render` draws.
    """

    @property
    def bounds(self) -> Bounds: ...

    @property
    def picture_shape(self) -> tuple[int, int, int]: ...

    def reset(self, num: int, generator: torch.Generator) -> S:
        """`num` environments at the start of an episode."""
        ...

    def random_pairs(self, num: int, generator: torch.Generator, *, min_distance: float) -> tuple[S, S]:
        """Starts and goals in the same worlds, farther apart than `min_distance` as `success` measures it.

        What is by chance in the picture, such as a television, is drawn anew for the goal.
        """
        ...

    def step(self, state: S, action: Float[Tensor, "n a"]) -> S:
        """What follows. Nothing is drawn here: a state knows its own future chances."""
        ...

    def render(self, state: S) -> Float[Tensor, "n c h w"]:
        """Pictures in [0, 1]."""
        ...

    def proprioception(self, state: S) -> Float[Tensor, "n p"]:
        """What an agent feels of itself and does not see in one picture, such as its velocity; p = 0 for nothing."""
        ...

    def factors(self, state: S) -> dict[str, Tensor]:
        """What is true of each state, [n f] floats or [n] class indices, for those who judge."""
        ...

    def distance(self, state: S, goal: S) -> Float[Tensor, " n"]:
        """How far it is to go, around whatever is in the way."""
        ...

    def success(self, state: S, goal: S, *, radius: float) -> Bool[Tensor, " n"]:
        """Whether the goal is nearer than `radius`, as the crow flies."""
        ...


def require_finite(action: Float[Tensor, "n a"], *, num: int, width: int) -> None:
    """Refuses actions that are not n rows of `width` finite numbers: what is not a number would spread unseen."""
    if action.shape != (num, width) or not bool(action.isfinite().all()):
        raise ValueError(
            f"Wanted {num} actions of {width} finite numbers each, one for each state, got shape {list(action.shape)}"
            f"{'' if bool(action.isfinite().all()) else ' with numbers that are not finite'}."
        )
