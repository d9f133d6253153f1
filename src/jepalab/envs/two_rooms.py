"""Two Rooms: a dot that walks, a wall with a door, a picture of both; after PLDM (2502.14819) and EB-JEPA (2602.03604).

An implementation of our own for many environments at once, with what experiments add: a television and a light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.envs.chance import Purpose, draw_keys, uniforms
from jepalab.envs.drawing import DOT_STD, draw_boxes, draw_dots, frame, overlay
from jepalab.envs.environment import PointState, require_finite
from jepalab.envs.geometry import shorten, sweep
from jepalab.envs.light import Light
from jepalab.envs.pairs import far_apart
from jepalab.envs.roadmap import Roadmap, survey
from jepalab.envs.television import Television
from jepalab.envs.two_rooms_layout import Layout, Layouts
from jepalab.planners.planner import Bounds

# Published radii of success, in pixels: EB-JEPA's, and PLDM's mean squared difference of 1 a coordinate.
EB_JEPA_RADIUS, PLDM_RADIUS = 4.5, 2**0.5
Rooms = Literal["same", "different", "any"]
CANDIDATES = 32  # pairs drawn for each one that is wanted
JUMP = 10.0  # pixels: farther than four steps lead
REWARD_UNIT = 10.0  # pixels: rewards then differ by about one


@dataclass(frozen=True)
class RoomState(PointState):
    """The states of n environments of `TwoRooms`.

    layout  where wall and doors are.
    is_on   [n] whether the light is on, if there is one.
    screen  [n g g] the television's cells, if there is one and somebody is to look.
    """

    layout: Layout
    is_on: Bool[Tensor, " n"] | None = None
    screen: Float[Tensor, "n g g"] | None = None

    def blind(self) -> RoomState:
        return replace(self, screen=None)


@dataclass(frozen=True)
class TwoRooms:
    """The dot moves by the action, in pixels, until just before a wall; it does not slide along.

    Pictures are [n 2 size size]: the dot, a Gaussian whose middle is 1, and the walls. Television and light are added
    to the dot's channel, where they cost as many pixels as they cover: see `overlay`.

    max_norm    of an action, in pixels; longer ones are shortened to it.
    dot_std     in pixels.
    brightness  of the dot's middle, in (0, 1].
    """

    layouts: Layouts = field(default_factory=Layouts.fixed)
    television: Television | None = None
    light: Light | None = None
    max_norm: float = 2.45
    dot_std: float = DOT_STD
    brightness: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.brightness <= 1:
            raise ValueError(f"Wanted the dot's brightness in (0, 1], got {self.brightness}.")
        if not (self.max_norm > 0 and self.dot_std > 0):
            raise ValueError(f"Wanted max_norm and dot_std above 0, got {self.max_norm} and {self.dot_std}.")
        if self.light is not None and self.light.opens_a_door and len(self.layouts.doors) != 2:
            raise ValueError(
                f"A light that opens one of two doors needs two, got {len(self.layouts.doors)}; "
                "use Layouts.two_doors()."
            )

    @property
    def bounds(self) -> Bounds:
        end = torch.full((2,), self.max_norm)
        return Bounds(-end, end, self.max_norm)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        return 2, self.layouts.size, self.layouts.size

    def reset(self, num: int, generator: torch.Generator) -> RoomState:
        """Dots anywhere in either room."""
        key = draw_keys(num, generator)
        layout = self.layouts.draw(key)
        lucky = uniforms(key, Purpose.START, num=3)
        return self.place(self.somewhere(layout, lucky, margin=0.5), layout, key)

    def place(self, position: Float[Tensor, "n 2"], layout: Layout, key: Int[Tensor, " n"]) -> RoomState:
        """Dots at those positions at the start of an episode; keys decide what happens by chance."""
        is_on = None if self.light is None else self.light.first(key)
        screen = None if self.television is None else self.television.first(key, size=self.layouts.size)
        return RoomState(position, key, torch.zeros_like(key), layout, is_on, screen)

    def random_pairs(
        self, num: int, generator: torch.Generator, *, min_distance: float = EB_JEPA_RADIUS, rooms: Rooms = "any"
    ) -> tuple[RoomState, RoomState]:
        """Starts and goals, two deviations of the dot away from every wall, in the same layouts.

        min_distance  in pixels, as the crow flies: with at least the radius of success, nothing is solved at the start.
        rooms         whether start and goal lie in the "same" room, in "different" ones, or in "any".

        Raises:
            ValueError: there are hardly any pairs so far apart.
        """
        if rooms not in get_args(Rooms):
            raise ValueError(f"Wanted rooms out of {', '.join(get_args(Rooms))}, got {rooms!r}.")
        key, goal_key = draw_keys(2 * num, generator).unflatten(0, (num, 2)).unbind(1)
        layout = self.layouts.draw(key)
        lucky = uniforms(key, Purpose.GOAL, num=6 * CANDIDATES).unflatten(1, (CANDIDATES, 6))
        starts, goals = (self.somewhere(layout, part, margin=2 * self.dot_std) for part in lucky.split(3, dim=2))
        same = self._room(starts, layout) == self._room(goals, layout)
        fits = torch.ones_like(same) if rooms == "any" else same if rooms == "same" else ~same
        start, goal = far_apart(starts, goals, fits, min_distance=min_distance)
        begin, end = self.place(start, layout, key), self.place(goal, layout, goal_key)
        if self.light is not None and self.light.flip == 0:
            end = replace(end, is_on=begin.is_on)  # the only light that this episode can show, unless the agent acts
        return begin, end

    def step(self, state: RoomState, action: Float[Tensor, "n 2"]) -> RoomState:
        """What follows on actions (dx, dy) in pixels."""
        require_finite(action, num=len(state), width=2)
        walls = self.obstacles(state)
        moved = sweep(state.position, shorten(action, max_norm=self.max_norm), walls, self.layouts.arena).position
        clock, is_on, screen = state.clock + 1, state.is_on, state.screen
        if self.light is not None and is_on is not None:
            is_on = self.light.next(is_on, state.key, clock, before=state.position, after=moved)
        if self.television is not None and screen is not None:
            screen = self.television.next(screen, state.key, clock)
        return RoomState(moved, state.key, clock, state.layout, is_on, screen)

    def render(self, state: RoomState) -> Float[Tensor, "n 2 h w"]:
        """The dot in channel 0, walls and border in channel 1."""
        size, arena = self.layouts.size, self.layouts.arena
        dots = draw_dots(state.position, size=size, std=self.dot_std, peak=self.brightness)
        if self.television is not None:
            if state.screen is None:
                raise ValueError(
                    "There is a television, but the state has no screen; render states that still have it."
                )
            dots = overlay(dots, self.television.draw(state.screen, arena, size=size))
        if self.light is not None and state.is_on is not None:
            dots = overlay(dots, self.light.draw(state.is_on, size=size))
        # Many environments share their walls, above all the frames of a walk.
        distinct, which = self.layouts.walls(state.layout).unique(dim=0, return_inverse=True)
        walls = draw_boxes(distinct, size=size).maximum(frame(arena, size=size).to(dots))
        pictures = dots.new_empty(len(dots), 2, size, size)
        pictures[:, 0], pictures[:, 1] = dots, walls if len(walls) == 1 else walls[which]
        return pictures

    def proprioception(self, state: RoomState) -> Float[Tensor, "n 0"]:
        """Nothing: the picture shows all there is."""
        return state.position[:, :0]

    def factors(self, state: RoomState) -> dict[str, Tensor]:
        """ "position" [n 2] in pixels, "room" [n] (0 left, 1 right), "wall" [n 1], "doors" [n d]; "light" [n] and
        "television" [n 16], the screen in 4 x 4 cells, where there are.
        """
        found = {
            "position": state.position,
            "room": self._room(state.position, state.layout).long(),
            "wall": state.layout.wall[:, None],
            "doors": state.layout.doors,
        }
        if state.is_on is not None:
            found["light"] = state.is_on.long()
        if state.screen is not None:
            found["television"] = torch.nn.functional.adaptive_avg_pool2d(state.screen, 4).flatten(1)
        return found

    def reward(self, state: RoomState) -> Float[Tensor, " n"]:
        """Minus the distance to the middle of the nearest door that is open, in units of REWARD_UNIT pixels."""
        doors = torch.stack([state.layout.wall[:, None].expand_as(state.layout.doors), state.layout.doors], -1)
        away = (doors - state.position[:, None]).norm(dim=2)
        if self.light is not None and self.light.opens_a_door and state.is_on is not None:
            away = away.masked_fill(~self.light.open_doors(state.is_on), torch.inf)
        return -away.amin(1) / REWARD_UNIT

    def distance(self, state: RoomState, goal: RoomState) -> Float[Tensor, " n"]:
        """Length of the shortest way in pixels, through a door if need be; infinite if the only one is closed for good.

        To wait until chance opens a door is as long as `wait`, so that where it does so at every other step, a closed
        door is hardly farther than an open one, and where it seldom does, the way leads through the one that is open.
        """
        way = self.roadmap(state).distance(state.position, goal.position)
        if math.isinf(self.wait):
            return way
        return way.minimum(self.open_roadmap(state).distance(state.position, goal.position) + self.wait)

    def success(self, state: RoomState, goal: RoomState, *, radius: float = EB_JEPA_RADIUS) -> Bool[Tensor, " n"]:
        """Whether the goal is nearer than `radius` pixels, as the crow flies: as the papers have it."""
        return (state.position - goal.position).norm(dim=1) < radius

    def same_room(self, state: RoomState, goal: RoomState) -> Bool[Tensor, " n"]:
        """Whether both are on the same side of the wall's middle."""
        return self._room(state.position, state.layout) == self._room(goal.position, goal.layout)

    def roadmap(self, state: RoomState, *, clearance: float = 0.0) -> Roadmap:
        """The ways there are as long as no door opens or closes, see `survey`."""
        return survey(self.obstacles(state), self.layouts.arena, clearance=clearance)

    def open_roadmap(self, state: RoomState, *, clearance: float = 0.0) -> Roadmap:
        """The ways there would be if all doors were open."""
        return survey(self.layouts.walls(state.layout), self.layouts.arena, clearance=clearance)

    @property
    def wait(self) -> float:
        """How far one could go, in pixels, while a closed door is waited for; infinite if chance opens none."""
        if self.light is None or not self.light.opens_a_door:
            return math.inf
        return self.max_norm * self.light.steps_to_change

    def obstacles(self, state: RoomState) -> Float[Tensor, "n k 4"]:
        """What is in the dot's way: the wall, and the door that the light has closed."""
        walls = self.layouts.walls(state.layout)
        if self.light is None or not self.light.opens_a_door or state.is_on is None:
            return walls
        return torch.cat([walls, self.layouts.closed_doors(state.layout, self.light.open_doors(state.is_on))], 1)

    def elsewhere(self, state: RoomState, generator: torch.Generator) -> RoomState:
        """The same states, but the dot is more than JUMP pixels away, two of its deviations off every wall."""
        lucky = torch.rand(len(state), CANDIDATES, 3, generator=generator)
        places = self.somewhere(state.layout, lucky, margin=2 * self.dot_std)
        far = (places - state.position[:, None]).norm(dim=2) > JUMP
        return replace(state, position=places[torch.arange(len(state)), far.int().argmax(1)])

    def recoloured(self) -> TwoRooms:
        """The same rooms with a dot half as bright; walls, television and light stay as they are."""
        return replace(self, brightness=self.brightness / 2)

    def is_blocked(self, state: RoomState, action: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
        """Whether a wall, a closed door or the border is in the action's way."""
        motion = shorten(action, max_norm=self.max_norm)
        return sweep(state.position, motion, self.obstacles(state), self.layouts.arena).share < 1

    def somewhere(self, layout: Layout, lucky: Float[Tensor, "n *k 3"], *, margin: float) -> Float[Tensor, "n *k 2"]:
        """Positions in either room, uniform over both, out of uniform numbers, `margin` pixels off all walls."""
        low, high = self.layouts.arena[0] + margin, self.layouts.arena[1] - margin
        wall = layout.wall.view(-1, *[1] * (lucky.dim() - 2))
        half = self.layouts.wall_width / 2 + margin
        left, right = wall - half - low, high - (wall + half)
        is_left = lucky[..., 0] * (left + right) < left
        x = torch.where(is_left, low + lucky[..., 1] * left, high - lucky[..., 1] * right)
        return torch.stack([x, low + lucky[..., 2] * (high - low)], -1)

    def _room(self, position: Tensor, layout: Layout) -> Tensor:
        return position[..., 0] > layout.wall.view(-1, *[1] * (position.dim() - 2))
