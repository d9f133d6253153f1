"""Where the wall of Two Rooms stands and where its doors are, fixed or drawn for each episode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.envs.chance import Purpose, uniforms
from jepalab.envs.environment import State
from jepalab.envs.geometry import NOWHERE, Arena

Range = tuple[int, int]


@dataclass(frozen=True)
class Layout(State):
    """The layouts of n environments.

    wall   [n] x of the wall's middle, in pixels.
    doors  [n d] y of the middle of each door, from the uppermost down.
    """

    wall: Float[Tensor, " n"]
    doors: Float[Tensor, "n d"]


@dataclass(frozen=True)
class Layouts:
    """The layouts there may be: whole pixels, so that what is drawn is what is in the way.

    wall        least and greatest x of the wall's middle, both included.
    doors       least and greatest y of each door's middle, from the uppermost down.
    door_half   a door is 2 door_half + 1 pixels wide. EB-JEPA (arXiv 2602.03604) and PLDM (2502.14819) have 4.
    wall_width  in pixels, odd.
    border      pixels between the picture's edge and where the dot may go; the innermost of them is drawn.
    size        of the picture, in pixels.
    """

    wall: Range = (32, 32)
    doors: tuple[Range, ...] = ((32, 32),)
    door_half: int = 6
    wall_width: int = 3
    border: int = 5
    size: int = 65

    def __post_init__(self) -> None:
        if self.wall_width % 2 == 0 or min(self.wall_width, self.border) < 1 or self.door_half < 1 or not self.doors:
            raise ValueError(
                f"Wanted a wall of an odd width, a border of at least 1 pixel and doors with door_half >= 1: {self}."
            )
        room, last = self.wall_width // 2 + 8, self.size - 1 - self.border
        if not self.border + room <= self.wall[0] <= self.wall[1] <= last - room:
            raise ValueError(
                f"The wall's middle must leave 8 pixels of room on both sides, so it lies in [{self.border + room}, "
                f"{last - room}], got wall={self.wall} with size={self.size}."
            )
        free = self.border
        for low, high in self.doors:
            if not free + self.door_half <= low <= high <= last - self.door_half:
                raise ValueError(
                    f"Doors are given from the uppermost down, apart from each other and from the border; a door whose "
                    f"middle lies in {(low, high)} with door_half={self.door_half} does not fit below y={free} and "
                    f"above y={last}."
                )
            free = high + self.door_half + 2

    @classmethod
    def fixed(cls) -> Layouts:
        """Always the same: the wall in the middle, and in its middle a door 13 pixels wide."""
        return cls()

    @classmethod
    def narrow_door(cls) -> Layouts:
        """As `fixed` with a door 9 pixels wide, as EB-JEPA and PLDM have it."""
        return cls(door_half=4)

    @classmethod
    def random_door(cls) -> Layouts:
        """The wall in the middle, the door anywhere at least 20 pixels from the edges."""
        return cls(doors=((20, 44),))

    @classmethod
    def random_wall(cls) -> Layouts:
        """Both the wall and the door anywhere at least 20 pixels from the edges."""
        return cls(wall=(20, 44), doors=((20, 44),))

    @classmethod
    def random_wall_narrow_door(cls) -> Layouts:
        """As `random_wall` with a door 9 pixels wide, as EB-JEPA has it."""
        return cls(wall=(20, 44), doors=((20, 44),), door_half=4)

    @classmethod
    def two_doors(cls) -> Layouts:
        """The wall in the middle with two doors 9 pixels wide, for a light that opens one of them."""
        return cls(doors=((18, 18), (46, 46)), door_half=4)

    @property
    def door_width(self) -> int:
        """Of each door, in pixels."""
        return 2 * self.door_half + 1

    @property
    def arena(self) -> Arena:
        """Where the dot may be, along both axes."""
        return self.border - 0.5, self.size - self.border - 0.5

    def draw(self, key: Int[Tensor, " n"]) -> Layout:
        """A layout for each key."""
        ranges = torch.tensor([self.wall, *self.doors], device=key.device)
        lucky = uniforms(key, Purpose.LAYOUT, num=len(ranges))
        drawn = (ranges[:, 0] + lucky * (ranges[:, 1] - ranges[:, 0] + 1)).floor().minimum(ranges[:, 1])
        return Layout(drawn[:, 0], drawn[:, 1:])

    def walls(self, layout: Layout) -> Float[Tensor, "n k 4"]:
        """The pieces of the wall, k = d + 1, each a box that ends with a whole pixel."""
        upper, lower = (layout.doors + sign * (self.door_half + 0.5) for sign in (-1, 1))
        edge = torch.full_like(layout.wall[:, None], -0.5)
        return self._boxes(layout, torch.cat([edge, lower], 1), torch.cat([upper, edge + self.size], 1))

    def closed_doors(self, layout: Layout, is_open: Bool[Tensor, "n d"]) -> Float[Tensor, "n d 4"]:
        """A box in each door that is not open."""
        upper, lower = (layout.doors + sign * (self.door_half + 0.5) for sign in (-1, 1))
        doors = self._boxes(layout, upper, lower)
        return torch.where(is_open[..., None], doors.new_tensor(NOWHERE), doors)

    def _boxes(self, layout: Layout, top: Tensor, bottom: Tensor) -> Tensor:
        left, right = ((layout.wall + sign * self.wall_width / 2)[:, None].expand_as(top) for sign in (-1, 1))
        return torch.stack([left, top, right, bottom], -1)
