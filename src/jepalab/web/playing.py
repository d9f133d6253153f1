"""Episodes that are played a few steps at a time while somebody watches: where each agent is, and what it imagines."""

from __future__ import annotations

import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.envs.two_rooms import EB_JEPA_RADIUS, RoomState, TwoRooms
from jepalab.instruments.acting import Act, Agent
from jepalab.instruments.effort import Effort
from jepalab.recipes.world_judging import FloorName, Planning
from jepalab.web.playing_rooms import Room, survey_of, walls_of
from jepalab.web.playing_worlds import World
from jepalab.web.tasks import Tell

MOST_EPISODES = 8
_EPISODES: OrderedDict[str, Episode] = OrderedDict()


@runtime_checkable
class Mind(Protocol):
    """What can be shown of how an agent plans."""

    def reads(self, state: RoomState, plan: Float[Tensor, "1 h a"]) -> dict[str, Any]:
        """What it imagines on its plan: "imagined", a place in pixels for each step, and pictures if it has some."""
        ...

    def price(self, state: RoomState, goal: RoomState) -> float:
        """What it would cost to stay here: the unit in which the page tells costs."""
        ...


@dataclass(frozen=True, eq=False)
class Imagining:
    """The mind of a world model, read by its probe. It is drawn by its own decoder if it has one; otherwise the real
    frame of the room is shown whose embedding is nearest.
    """

    world: World
    room: Room
    shows_pictures: bool

    def reads(self, state: RoomState, plan: Float[Tensor, "1 h a"]) -> dict[str, Any]:
        path = self.world.imagine(state, plan)
        read: dict[str, Any] = {"imagined": _rounded(self.world.locate(path))}
        if self.shows_pictures:
            drawn = self.world.draw(path[:, -1:])
            if drawn is None:
                near = survey_of(self.world, self.room).nearest(path[:, -1:])
                drawn = self.room.env.render(near)[:, None]
            read["picture"] = packed(drawn[0, 0])
        return read

    def price(self, state: RoomState, goal: RoomState) -> float:
        return float((self.world.encode(state) - self.world.encode(goal)).square().mean().sqrt())


@dataclass(frozen=True, eq=False)
class Knowing:
    """The mind of the environment itself, whose imagination is what happens."""

    env: TwoRooms

    def reads(self, state: RoomState, plan: Float[Tensor, "1 h a"]) -> dict[str, Any]:
        here, path = state.blind(), []
        for action in plan.unbind(1):
            here = self.env.step(here, action)
            path.append(here.position)
        return {"imagined": _rounded(torch.cat(path))}

    def price(self, state: RoomState, goal: RoomState) -> float:
        return float(self.env.distance(state, goal))


@dataclass(eq=False)
class Player:
    """Somebody who goes from the start towards the goal, and stays where it has arrived.

    root_of_costs  whether its planner pays squares.
    """

    agent: Agent
    env: TwoRooms
    state: RoomState
    goal: RoomState
    seed: int
    mind: Mind | None = None
    root_of_costs: bool = False
    shows_pictures: bool = False
    num_steps: int = 0
    seconds: float = 0.0
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.act: Act = self.agent.begin(self.env, self.goal, generator, self.effort)
        self.unit = 0.0 if self.mind is None else self.mind.price(self.state, self.goal)

    @property
    def has_arrived(self) -> bool:
        return bool(self.env.success(self.state, self.goal, radius=EB_JEPA_RADIUS)[0])

    @torch.no_grad()
    def go_on(self, num: int) -> dict[str, Any]:
        """Takes so many steps, or fewer if it arrives, and says where they led."""
        path, before, searched, began = [], len(self.effort.searches), self.state, time.perf_counter()
        while len(path) < num and not self.has_arrived:
            known = len(self.effort.searches)
            action = self.act(self.state).detach()
            searched = self.state if len(self.effort.searches) > known else searched
            self.state = self.env.step(self.state, action)
            path.append(self.state.position)
        self.num_steps += len(path)
        self.seconds += time.perf_counter() - began
        news = {"path": _rounded(torch.cat(path)) if path else [], **self.standing()}
        if self.mind is not None and len(self.effort.searches) > before:
            found = self.effort.searches[-1]
            cost = float(found.costs[-1, 0])
            cost = cost**0.5 if self.root_of_costs else cost
            news |= self.mind.reads(searched, found.action) | {"cost": cost / self.unit if self.unit else None}
        if self.shows_pictures:
            news["now"] = packed(self.env.render(self.state)[0])
        if self.env.light is not None:
            news["walls"] = walls_of(self.env, self.state)
        return news

    def standing(self) -> dict[str, Any]:
        """Where it is by now: steps taken, pixels left as the crow flies and on the way, whether it has arrived."""
        return {
            "step": self.num_steps,
            "straight": float((self.state.position - self.goal.position).norm()),
            "left": float(self.env.distance(self.state, self.goal)),
            "has_arrived": self.has_arrived,
            "ms": 1000 * self.seconds / max(1, self.num_steps),
        }


@dataclass(eq=False)
class Episode:
    """All agents on the same start and goal, block by block, so that nobody waits for another's end.

    num_steps  after which it is over for who has not arrived.
    block      steps of each before the next one's turn: the actions of a plan that are taken.
    """

    players: Sequence[Player]
    num_steps: int
    block: int

    @property
    def is_over(self) -> bool:
        return all(player.has_arrived or player.num_steps >= self.num_steps for player in self.players)

    def go_on(self, num: int, tell: Tell) -> dict[str, Any]:
        """Up to so many steps of each more; tells {agent, path, ...} after each block."""
        ends = [min(self.num_steps, player.num_steps + num) for player in self.players]
        while any(not p.has_arrived and p.num_steps < end for p, end in zip(self.players, ends, strict=True)):
            for index, (player, end) in enumerate(zip(self.players, ends, strict=True)):
                if not player.has_arrived and player.num_steps < end:
                    tell({"agent": index, **player.go_on(min(self.block, end - player.num_steps))})
        return {"is_over": self.is_over, "agents": [player.standing() for player in self.players]}


def players_of(
    worlds: Sequence[World],
    floors: Sequence[FloorName],
    room: Room,
    *,
    start: RoomState,
    goal: RoomState,
    how: Planning,
    shows_pictures: bool,
) -> list[Player]:
    """The agents of these models, then the floor and the ceiling as asked, all at the start."""
    players, env = [], room.env
    for world in worlds:
        agent, mind = planning_of(world, how).agent(world.model, world.ground), Imagining(world, room, shows_pictures)
        players.append(Player(agent, env, start, goal, how.planning_seed, mind, True, shows_pictures))
    for name in floors:
        agent, known = how.stand_in(name, worlds[0].ground), Knowing(env) if name == "oracle" else None
        players.append(Player(agent, env, start, goal, how.planning_seed, known))
    return players


def planning_of(world: World, how: Planning) -> Planning:
    """How this model plans: with a tenth of the candidates where it imagines frame by frame."""
    return how.through_frames() if world.facts()["imagines_frames"] else how


def keep(episode: Episode) -> str:
    """A name under which the episode goes on later."""
    name = secrets.token_urlsafe(6)
    _EPISODES[name] = episode
    while len(_EPISODES) > MOST_EPISODES:
        _EPISODES.popitem(last=False)
    return name


def kept(name: str) -> Episode:
    """The episode of this name. ValueError where it is gone: the worker was ended since, or many others began."""
    if name not in _EPISODES:
        raise ValueError("That episode is gone, for other work was stopped meanwhile; play it again.")
    return _EPISODES[name]


def packed(picture: Float[Tensor, "c h w"]) -> str:
    """A picture in [0, 1] as base64 of its bytes, channel by channel and row by row."""
    return base64.b64encode(picture.clamp(0, 1).mul(255).round().to(torch.uint8).numpy().tobytes()).decode()


def _rounded(places: Float[Tensor, "n 2"]) -> list[list[float]]:
    return [[round(x, 2), round(y, 2)] for x, y in places.tolist()]
