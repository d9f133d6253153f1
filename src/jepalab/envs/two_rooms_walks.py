"""How the dot of Two Rooms is made to walk: at random, through the door, or to a goal with an unsteady hand."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.envs.chance import Purpose, uniforms
from jepalab.envs.roadmap import Roadmap
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.envs.walks import Gait, Trajectories, bearing, walk

CLEARANCE = 1.5  # pixels by which a steered dot keeps off the door's corners


def random_walks(
    rooms: TwoRooms,
    num: int,
    generator: torch.Generator,
    *,
    num_steps: int = 16,
    crossing_share: float = 0.35,
    gait: Gait | None = None,
) -> Trajectories[RoomState]:
    """Random walks from anywhere; a share of them begins within reach of an open door and is steered through it.

    crossing_share  of the trajectories that are steered. After the door they walk at random again. Nearly all of them
                    cross, and few of the others do.
    gait            of the steps; by default EB-JEPA's.
    """
    if not 0 <= crossing_share <= 1:
        raise ValueError(f"Wanted crossing_share in [0, 1], got {crossing_share}.")
    gait = gait or Gait()
    start = rooms.reset(num, generator)
    lucky = uniforms(start.key, Purpose.CROSSING, num=5)
    crosses = lucky[:, 0] < crossing_share
    # As far as turns and the wall let most of them cross in time.
    reach = max(0.85 * num_steps * gait.mean - rooms.layouts.wall_width - 3, 1.0)
    near, beyond = _around_a_door(rooms, start, lucky[:, 1:], reach=reach)
    start = replace(start, position=torch.where(crosses[:, None], near, start.position))
    rows = crosses.nonzero()[:, 0]
    steer = _Steering(rooms, start[rows], beyond[rows])
    side = start.position[:, 0] > start.layout.wall

    def heading(state: RoomState, direction: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        past = (state.position[:, 0] - state.layout.wall).abs() > rooms.layouts.wall_width / 2
        through = ((state.position[:, 0] > state.layout.wall) != side) & past
        steered = direction.clone()
        steered[rows] = steer(state[rows])
        return torch.where(crosses & ~through, steered, direction)

    return walk(rooms, start, heading, num_steps=num_steps, gait=gait)


def expert_walks(
    rooms: TwoRooms, start: RoomState, goal: RoomState, *, num_steps: int, gait: Gait | None = None
) -> Trajectories[RoomState]:
    """Walks along the shortest way to the goal, every direction a little off; at the goal they dither about."""
    steer = _Steering(rooms, start, goal.position)
    return walk(rooms, start, lambda state, _: steer(state), num_steps=num_steps, gait=gait or Gait())


class _Steering:
    """Where to go from a state to reach the goal. The ways are surveyed once, unless a light opens and closes them.

    Where chance opens a door again, the way leads to a closed one if to wait there is shorter, see `TwoRooms.distance`.
    """

    def __init__(self, rooms: TwoRooms, start: RoomState, goal: Float[Tensor, "n 2"]) -> None:
        self._rooms, self._goal = rooms, goal
        self._ways = self._survey(start)
        self._open = rooms.open_roadmap(start, clearance=CLEARANCE) if math.isfinite(rooms.wait) else None
        self._doors_move = rooms.light is not None and rooms.light.opens_a_door

    def __call__(self, state: RoomState) -> Float[Tensor, " n"]:
        ways = self._survey(state) if self._doors_move else self._ways
        ahead = ways.waypoint(state.position, self._goal)
        if self._open is not None:
            waits = self._length(self._open, state) + self._rooms.wait < self._length(ways, state)
            ahead = torch.where(waits[:, None], self._open.waypoint(state.position, self._goal), ahead)
        return bearing(ahead - state.position)

    def _length(self, ways: Roadmap, state: RoomState) -> Float[Tensor, " n"]:
        return ways.distance(state.position, self._goal)

    def _survey(self, state: RoomState) -> Roadmap:
        return self._rooms.roadmap(state, clearance=CLEARANCE)


def _around_a_door(
    rooms: TwoRooms, start: RoomState, lucky: Float[Tensor, "n 4"], *, reach: float
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Places in front of an open door on one side, at most `reach` from it, and places just behind it."""
    wall, doors = start.layout.wall, start.layout.doors
    door = (lucky[:, 0] * doors.shape[1]).long().clamp_max(doors.shape[1] - 1)
    if rooms.light is not None and rooms.light.opens_a_door and start.is_on is not None:
        door = (~start.is_on).long()
    middle = doors.gather(1, door[:, None])[:, 0]
    side = torch.where(lucky[:, 1] < 0.5, -1.0, 1.0)
    angle, radius = (lucky[:, 2] - 0.5) * (0.8 * math.pi), 1 + lucky[:, 3] * (reach - 1)
    front = rooms.layouts.wall_width / 2 + 1
    low, high = rooms.layouts.arena[0] + 0.5, rooms.layouts.arena[1] - 0.5
    away = front + radius * angle.cos()
    near = torch.stack([wall + side * away, middle + radius * angle.sin()], 1).clamp(low, high)
    return near, torch.stack([wall - side * (front + 2), middle], 1)
