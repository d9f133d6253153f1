"""A light that may matter: chance or the agent switches it, and it may decide which of two doors is open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.envs.chance import Purpose, uniforms
from jepalab.envs.drawing import draw_boxes


@dataclass(frozen=True)
class Light:
    """A small square that is bright when on.

    flip             probability that it changes by itself when it may; at 0.5 it cannot be predicted.
    hold             steps from one time that it may change by itself to the next: with more than 1 it matters for
                     longer than one step, and can be foretold within them.
    contrast         brightness when on minus when off, in (0, 1]: 0.5 + contrast / 2 against 0.5 - contrast / 2.
    opens_a_door     on: the upper of two doors is open, off: the lower one. Otherwise both are. Doors are drawn alike
                     whether open or closed, so that nothing but the light tells.
    changes_when_hit the agent switches it by stepping onto it.
    place            (x, y) of its middle, in pixels; 5 pixels wide.
    """

    flip: float = 0.0
    hold: int = 1
    contrast: float = 1.0
    opens_a_door: bool = False
    changes_when_hit: bool = False
    place: tuple[float, float] = (10.0, 10.0)

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 < self.contrast <= 1 and self.hold >= 1):
            raise ValueError(f"A light needs flip in [0, 1], contrast in (0, 1] and hold >= 1, got {self}.")

    @property
    def steps_to_change(self) -> float:
        """How many steps pass in the mean until it changes by itself; infinite where it never does."""
        return self.hold / self.flip if self.flip else math.inf

    def first(self, key: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether it is on when an episode begins: as often as not."""
        return uniforms(key, Purpose.LIGHT, num=1)[:, 0] < 0.5

    def next(
        self,
        is_on: Bool[Tensor, " n"],
        key: Int[Tensor, " n"],
        clock: Int[Tensor, " n"],
        *,
        before: Float[Tensor, "n 2"],
        after: Float[Tensor, "n 2"],
    ) -> Bool[Tensor, " n"]:
        """Whether it is on at `clock`, when the agent has gone from `before` to `after`."""
        changes = (uniforms(key, Purpose.LIGHT, clock, num=1)[:, 0] < self.flip) & (clock % self.hold == 0)
        if self.changes_when_hit:
            changes = changes ^ (self._touches(after) & ~self._touches(before))
        return is_on ^ changes

    def open_doors(self, is_on: Bool[Tensor, " n"]) -> Bool[Tensor, "n 2"]:
        """Which of the two doors is open."""
        if not self.opens_a_door:
            return torch.ones(len(is_on), 2, dtype=torch.bool, device=is_on.device)
        return torch.stack([is_on, ~is_on], 1)

    def draw(self, is_on: Bool[Tensor, " n"], *, size: int) -> Float[Tensor, "n h w"]:
        """The square, and 0 around it."""
        brightness = 0.5 + (is_on.float() - 0.5) * self.contrast
        return brightness[:, None, None] * draw_boxes(self._box[None, None].to(is_on.device), size=size)

    @property
    def _box(self) -> Float[Tensor, " 4"]:
        x, y = self.place
        return torch.tensor([x - 2.5, y - 2.5, x + 2.5, y + 2.5])

    def _touches(self, position: Tensor) -> Tensor:
        box = self._box.to(position)
        return ((box[:2] <= position) & (position <= box[2:])).all(1)
