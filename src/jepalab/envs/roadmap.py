"""Shortest paths among boxes, exactly: they are straight but at the boxes' corners (Lozano-Perez and Wesley 1979)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.envs.environment import State
from jepalab.envs.geometry import GAP, Arena, sees

_ROUNDING = 1e-5  # pixels by which boxes shrink, so that a line along a face is free


@dataclass(frozen=True)
class Roadmap(State):
    """The corners at which shortest paths of m worlds may turn.

    boxes    [m k 4] what is in the way.
    places   [m v 2] corners.
    between  [m v v] shortest distance from corner to corner, infinite where there is none or it is no corner.
    """

    boxes: Float[Tensor, "m k 4"]
    places: Float[Tensor, "m v 2"]
    between: Float[Tensor, "m v v"]

    def distance(self, start: Float[Tensor, "m 2"], goal: Float[Tensor, "m 2"]) -> Float[Tensor, " m"]:
        """Length in pixels of the shortest path, infinite where there is none. World i has start i and goal i."""
        here, there = start.double(), goal.double()
        straight, around = self._lengths(here, there)
        return straight.minimum(around.amin(1)).to(start.dtype)

    def waypoint(self, start: Float[Tensor, "m 2"], goal: Float[Tensor, "m 2"]) -> Float[Tensor, "m 2"]:
        """Where the shortest path first turns, or the goal: there it is straight ahead."""
        straight, around = self._lengths(start.double(), goal.double())
        shortest, corner = around.min(1)
        turn = self.places.gather(1, corner[:, None, None].expand(-1, 1, 2))[:, 0]
        return torch.where((straight <= shortest)[:, None], goal.double(), turn).to(start.dtype)

    def _lengths(self, start: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """[m] straight on, and [m v] by way of each corner first."""
        to_corners = self._legs(start[:, None], self.places)[:, 0]
        to_goal = self._legs(goal[:, None], self.places)[:, 0]
        straight = self._legs(start[:, None], goal[:, None])[:, 0, 0]
        return straight, to_corners + (self.between + to_goal[:, None]).amin(2)

    def _legs(self, start: Tensor, end: Tensor) -> Tensor:
        return _legs(start, end, self.boxes)


def survey(boxes: Float[Tensor, "m k 4"], arena: Arena, *, clearance: float = 0.0) -> Roadmap:
    """The roadmap of m worlds.

    clearance  pixels by which paths keep off the corners. With 0 they are the shortest there are, and cannot be walked:
               `sweep` stops a point GAP before a box. What is to be walked needs more than GAP.
    """
    worlds, which = boxes.double().unique(dim=0, return_inverse=True)
    places, is_corner = _corners(worlds, arena, clearance)
    grown = (GAP if clearance else 0.0) - _ROUNDING
    blocks = worlds + grown * worlds.new_tensor([-1, -1, 1, 1])
    between = _legs(places, places, blocks)
    between = torch.where(is_corner[:, :, None] & is_corner[:, None], between, math.inf)
    for via in range(places.shape[1]):
        between = between.minimum(between[:, :, via, None] + between[:, None, via])
    return Roadmap(blocks, places, between)[which]


def _corners(boxes: Tensor, arena: Arena, clearance: float) -> tuple[Tensor, Tensor]:
    """[m v 2] places that stand off the corners around which paths may turn, and [m v] where there is one."""
    found, places = [], []
    for x in (-1, 1):
        for y in (-1, 1):
            corner = torch.stack([boxes[..., 1 + x], boxes[..., 2 + y]], -1)
            places.append(corner + clearance * boxes.new_tensor([x, y]))
            found.append(_stands_out(corner, boxes))
    place = torch.cat(places, 1)
    room = clearance + GAP / 2
    low, high = boxes[:, None, :, :2], boxes[:, None, :, 2:]
    buried = ((low < place[:, :, None]) & (place[:, :, None] < high)).all(-1).any(-1)
    is_corner = torch.cat(found, 1) & ~buried & ((place > arena[0] + room) & (place < arena[1] - room)).all(-1)
    # Those that count come first, so that the rest can be cut off.
    most = max([1, *is_corner.sum(1).tolist()])
    first = (~is_corner).int().argsort(dim=1, stable=True)[:, :most]
    return place.gather(1, first[..., None].expand(-1, -1, 2)), is_corner.gather(1, first)


def _stands_out(corner: Tensor, boxes: Tensor) -> Tensor:
    """[m k] whether one of the four quadrants around a corner is filled: else no shortest path turns there."""
    around = corner[:, :, None] + 1e-3 * boxes.new_tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    low, high = boxes[:, None, None, :, :2], boxes[:, None, None, :, 2:]
    filled = ((low < around[..., None, :]) & (around[..., None, :] < high)).all(-1).any(-1)
    return filled.sum(-1) == 1


def _legs(start: Tensor, end: Tensor, boxes: Tensor) -> Tensor:
    """[m p q] straight distances, infinite where a box is in the way."""
    length = (start[:, :, None] - end[:, None]).norm(dim=-1)
    return torch.where(sees(start, end, boxes), length, math.inf)
