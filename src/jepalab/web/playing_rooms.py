"""One room to play in: its walls and doors, starts and goals that are free, and what a model makes of every place."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.compare.stats import spearman
from jepalab.envs.geometry import GAP
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.recipes.world_films import PLACES
from jepalab.web.playing_worlds import World

MOST_SURVEYS = 8
_SURVEYS: OrderedDict[tuple[int, int], Survey] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Room:
    """A layout with all its chances, drawn from a seed.

    start, goal  where the page begins, in different rooms.
    """

    env: TwoRooms
    seed: int
    start: RoomState
    goal: RoomState

    @classmethod
    def drawn(cls, env: TwoRooms, seed: int) -> Room:
        return cls(env, seed, *env.random_pairs(1, torch.Generator().manual_seed(seed), rooms="different"))

    @property
    def is_drawn(self) -> bool:
        """Whether another seed has other walls."""
        layouts = self.env.layouts
        return any(low != high for low, high in (layouts.wall, *layouts.doors))

    def start_at(self, place: tuple[float, float]) -> RoomState:
        """A start there. ValueError where no dot can be."""
        return self._at(self.start, place, "start")

    def goal_at(self, place: tuple[float, float]) -> RoomState:
        """A goal there, in a picture with chances of its own. ValueError where no dot can be."""
        return self._at(self.goal, place, "goal")

    def _at(self, like: RoomState, place: tuple[float, float], what: str) -> RoomState:
        low, high = self.env.layouts.arena
        x, y = place
        if not (low + GAP <= x <= high - GAP and low + GAP <= y <= high - GAP):
            raise ValueError(f"That {what} lies outside the rooms; choose a place from {low:g} to {high:g} pixels.")
        placed = self.env.place(torch.tensor([place], dtype=torch.float32), like.layout, like.key)
        state = replace(placed, is_on=like.is_on)
        if not bool(self.are_free(state)[0]):
            raise ValueError(f"That {what} lies in the wall; choose a free place.")
        return state

    def are_free(self, state: RoomState) -> Bool[Tensor, " n"]:
        """Which dots stand in no wall."""
        boxes, place = self.env.obstacles(state), state.position[:, None]
        within = (boxes[..., :2] - GAP < place) & (place < boxes[..., 2:] + GAP)
        return ~within.all(-1).any(-1)

    def facts(self) -> dict[str, Any]:
        """What the page draws: coordinates are pixels, whose middles are whole numbers."""
        layouts, layout = self.env.layouts, self.start.layout
        half, x = layouts.wall_width / 2, float(layout.wall[0])
        doors = [
            [x - half, y - layouts.door_half - 0.5, x + half, y + layouts.door_half + 0.5]
            for y in layout.doors[0].tolist()
        ]
        return {
            "seed": self.seed,
            "size": layouts.size,
            "arena": list(layouts.arena),
            "walls": walls_of(self.env, self.start),
            "doors": doors,
            "start": self.start.position[0].tolist(),
            "is_drawn": self.is_drawn,
            "has_light": self.env.light is not None,
            "has_television": self.env.television is not None,
        }


def walls_of(env: TwoRooms, state: RoomState) -> list[list[float]]:
    """What is in the way of one dot: (left, top, right, bottom) of each box."""
    return [box for box in env.obstacles(state)[0].tolist() if box[0] < box[2] and box[1] < box[3]]


@dataclass(frozen=True, eq=False)
class Survey:
    """A model's embedding of every place of a grid over a room, so that a map to any goal costs one frame more.

    states  the dot at each place, row by row from the top.
    z       [n 1 d] their embeddings.
    free    [n] which of them stand in no wall.
    """

    world: World
    room: Room
    states: RoomState
    z: Float[Tensor, "n 1 d"]
    free: Bool[Tensor, " n"]

    @torch.no_grad()
    def distances(self, goal: RoomState) -> Float[Tensor, " n"]:
        """From each place to the goal, between embeddings: the root of what plans pay."""
        return (self.z - self.world.encode(goal)).square().mean((1, 2)).sqrt()

    def nearest(self, z: Float[Tensor, "1 1 d"]) -> RoomState:
        """The free place whose embedding is nearest to this one."""
        far = (self.z - z).square().mean((1, 2)).masked_fill(~self.free, torch.inf)
        index = far.argmin()[None]
        return self.states[index]

    def map_to(self, goal: RoomState) -> dict[str, Any]:
        """Rows from the top down; both are shares of their largest over free places, in walls there is None.

        "rank" is Spearman's correlation of the two over free places: 1 where the model orders all places as the true
        way does. "way" has None too where no way leads.
        """
        latent, way = self.distances(goal), self.room.env.distance(self.states, goal.repeat(len(self.states)))
        known = self.free & way.isfinite()
        return {
            "latent": _as_rows(latent, self.free),
            "way": _as_rows(way, known),
            "rank": spearman(latent[known].tolist(), way[known].tolist()),
        }


def survey_of(world: World, room: Room) -> Survey:
    """The survey of this room by this model, made once."""
    key = (id(world), room.seed)
    if key not in _SURVEYS or _SURVEYS[key].world is not world:
        _SURVEYS[key] = _survey(world, room)
        while len(_SURVEYS) > MOST_SURVEYS:
            _SURVEYS.popitem(last=False)
    _SURVEYS.move_to_end(key)
    return _SURVEYS[key]


def _survey(world: World, room: Room) -> Survey:
    low, high = room.env.layouts.arena
    line = torch.linspace(low + 1, high - 1, PLACES)
    y, x = torch.meshgrid(line, line, indexing="ij")
    here = room.start.repeat(PLACES**2)
    states = room.env.place(torch.stack([x.flatten(), y.flatten()], 1), here.layout, here.key)
    return Survey(world, room, states, world.encode(states), room.are_free(states))


def _as_rows(values: Float[Tensor, " n"], known: Bool[Tensor, " n"]) -> list[list[float | None]]:
    largest = max(float(values[known].max()), 1e-12) if bool(known.any()) else 1.0
    shares = [round(v / largest, 3) if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]
    return [shares[i : i + PLACES] for i in range(0, len(shares), PLACES)]
