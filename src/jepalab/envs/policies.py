"""Who acts while episodes are recorded: by chance, along the shortest way, or by a script that makes things happen.

What an episode becomes depends on the seed and on its number, not on how many are recorded at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.envs.actions import innermost
from jepalab.envs.chance import Purpose, draw_keys, normals, uniforms
from jepalab.envs.environment import Environment, State
from jepalab.envs.point_maze import PointMaze
from jepalab.envs.scenes import SceneName
from jepalab.envs.two_rooms import TwoRooms
from jepalab.envs.two_rooms_walks import expert_walks, random_walks
from jepalab.envs.walks import Gait, Trajectories

PolicyName = Literal["random", "expert", "scripted"]
Act = Callable[[Any], Float[Tensor, "n a"]]


class Begun(NamedTuple):
    """Episodes that begin: the first states, and what is done at each state from then on, in their order."""

    start: State
    act: Act


@runtime_checkable
class Policy(Protocol):
    """Somebody who acts without looking at pictures.

    longest  norm of the longest action there may be, in the environment's units; infinite where only bounds say it.
    """

    @property
    def longest(self) -> float: ...

    def begin(self, env: Environment[Any], num: int, *, seed: int, num_steps: int) -> Begun:
        """`num` episodes of so many steps. The first are the same, however many begin."""
        ...


@dataclass(frozen=True)
class RandomPolicy:
    """Acts evenly in the bounds' box, as `instruments.acting.RandomAgent` does.

    persistence  probability that it repeats its last action instead.
    """

    persistence: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.persistence < 1:
            raise ValueError(f"Wanted a persistence in [0, 1), got {self.persistence}.")

    @property
    def longest(self) -> float:
        return math.inf

    def begin(self, env: Environment[Any], num: int, *, seed: int, num_steps: int) -> Begun:
        start = env.reset(num, _generator("start", seed))
        key, low, high = draw_keys(num, _generator("act", seed)), env.bounds.low, env.bounds.high
        last, clock = torch.zeros(num, len(low)), 0

        def act(state: State) -> Float[Tensor, "n a"]:
            nonlocal last, clock
            lucky = uniforms(key, Purpose.WALK, clock, num=len(low) + 1)
            fresh = env.bounds.clip(low + lucky[:, 1:] * (high - low))
            keeps = (lucky[:, :1] < self.persistence) & (clock > 0)
            last, clock = torch.where(keeps, last, fresh), clock + 1
            return last

        return Begun(start, act)


@dataclass(frozen=True)
class WalkingPolicy:
    """The walks that `envs.walks` knows, in Two Rooms or in a point maze.

    kind  "expert": along the shortest way to a goal, every action a little off, and at the goal about it. "scripted":
          the papers' random walks, in Two Rooms with a share that is led through the door (EB-JEPA, arXiv 2602.03604).
    """

    kind: Literal["expert", "scripted"]

    @property
    def longest(self) -> float:
        return Gait().longest  # a point maze's bounds say less

    def begin(self, env: Environment[Any], num: int, *, seed: int, num_steps: int) -> Begun:
        walked = self._walk(innermost(env), num, seed=seed, num_steps=num_steps)
        left = [*walked.action.unbind(1)]
        return Begun(walked.start, lambda state: left.pop(0))

    def _walk(self, env: Environment[Any], num: int, *, seed: int, num_steps: int) -> Trajectories[Any]:
        generator = _generator("start", seed)
        if isinstance(env, TwoRooms):
            if self.kind == "expert":
                start, goal = env.random_pairs(num, generator)
                return expert_walks(env, start, goal, num_steps=num_steps)
            return random_walks(env, num, generator, num_steps=num_steps)
        assert isinstance(env, PointMaze)
        if self.kind == "expert":
            start, goal = env.random_pairs(num, generator)
            return env.expert_walks(start, goal, num_steps=num_steps)
        return env.random_walks(num, generator, num_steps=num_steps)


@dataclass(frozen=True)
class PushingPolicy:
    """Strokes against PushT's block: around it to a side drawn by chance, then straight at it and on, then anew.

    Chance alone hardly ever touches the block in a way that moves it far. Without noise the strokes would aim at the
    block's middle; with it they also turn the block and slip off.

    distance   from the block's middle at which it is rounded, and from which it is pushed, in pixels of 512.
    length     of the longest action, in units of the adapter's reach; actions have half of it or more.
    noise      deviation of each action's direction, in radians.
    aside      deviation of a stroke's aim from the block's middle, in pixels.
    patience   steps after which a stroke is given up.
    """

    distance: float = 130.0
    length: float = 0.5
    noise: float = 0.25
    aside: float = 20.0
    patience: int = 40

    @property
    def longest(self) -> float:
        return self.length

    def begin(self, env: Environment[Any], num: int, *, seed: int, num_steps: int) -> Begun:
        strokes = _Strokes(self, draw_keys(num, _generator("act", seed)))

        def act(state: State) -> Float[Tensor, "n a"]:
            known = env.factors(state)
            return strokes.advance(known["agent"], known["block"], known["angle"][:, 0])

        return Begun(env.reset(num, _generator("start", seed)), act)


class _Strokes:
    """What n pushing policies are about to do."""

    def __init__(self, policy: PushingPolicy, key: Int[Tensor, " n"]) -> None:
        self.policy, self.key, self.clock = policy, key, 0
        self.number, self.since = torch.zeros_like(key), torch.zeros_like(key)
        self.pushes = self.turned = torch.zeros_like(key, dtype=torch.bool)

    def advance(
        self, agent: Float[Tensor, "n 2"], block: Float[Tensor, "n 2"], angle: Float[Tensor, " n"]
    ) -> Float[Tensor, "n 2"]:
        policy = self.policy
        # The middle of the T lies below the middle of its bar, where gym-pusht has the block's position.
        middle = block + 45 * torch.stack([-angle.sin(), angle.cos()], 1)
        side, aim = self._side(middle)
        away, across = torch.stack([side.cos(), side.sin()], 1), torch.stack([-side.sin(), side.cos()], 1)
        seen = agent - middle
        radius = seen.norm(dim=1)
        turn = torch.remainder(side - torch.atan2(seen[:, 1], seen[:, 0]) + math.pi, 2 * math.pi) - math.pi
        self.pushes = self.pushes | ((turn.abs() < 0.3) & ((radius - policy.distance).abs() < 40))

        outwards = seen / radius[:, None].clamp_min(1e-6)
        along = torch.stack([-outwards[:, 1], outwards[:, 0]], 1) * turn.sign()[:, None]
        around = along * (turn.abs()[:, None] * 2).clamp_max(1) + outwards * ((policy.distance - radius) / 40)[:, None]
        at_it = -away - across * (((seen * across).sum(1) - aim) / policy.distance)[:, None]
        wanted = torch.where(self.pushes[:, None], at_it, around)

        lucky = uniforms(self.key, Purpose.WALK, self.clock, num=2)
        heading = torch.atan2(wanted[:, 1], wanted[:, 0]) + policy.noise * normals(lucky[:, 0])
        length = policy.length * (1 + lucky[:, 1]) / 2

        done = (self.pushes & ((seen * away).sum(1) < -60)) | (self.since >= policy.patience)
        self.number, self.since = self.number + done.long(), torch.where(done, 0, self.since + 1)
        self.pushes, self.clock = self.pushes & ~done, self.clock + 1
        return length[:, None] * torch.stack([heading.cos(), heading.sin()], 1)

    def _side(self, middle: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """From where this stroke comes, in radians, and where it aims; from the other side if that is off the board."""
        lucky = uniforms(self.key, Purpose.CROSSING, self.number, num=2)
        side, aim = lucky[:, 0] * 2 * math.pi, self.policy.aside * normals(lucky[:, 1])
        first = middle + self.policy.distance * torch.stack([side.cos(), side.sin()], 1)
        self.turned = torch.where(self.since == 0, ((first < 15) | (first > 497)).any(1), self.turned)
        return side + math.pi * self.turned, aim


def choose_policy(name: PolicyName, scene: SceneName, *, persistence: float = 0.0) -> Policy:
    """The policy of this name for an environment.

    Raises:
        ValueError: the environment has no such policy, or a persistence where there is none.
    """
    if name != "random" and persistence:
        raise ValueError(f"Only the random policy has a persistence, {name} has none; leave it out.")
    scripts: Mapping[SceneName, Policy] = {
        "two-rooms": WalkingPolicy("scripted"),
        "point-maze": WalkingPolicy("scripted"),
        "pusht": PushingPolicy(),
    }
    experts: Mapping[SceneName, Policy] = {name: WalkingPolicy("expert") for name in ("two-rooms", "point-maze")}
    offered: dict[PolicyName, Policy | None] = {
        "random": RandomPolicy(persistence),
        "expert": experts.get(scene),
        "scripted": scripts.get(scene),
    }
    found = offered[name]
    if found is None:
        there = ", ".join(each for each in get_args(PolicyName) if offered[cast(PolicyName, each)] is not None)
        raise ValueError(f"{scene} has no {name} policy; take one of: {there}.")
    return found


def _generator(purpose: str, seed: int) -> torch.Generator:
    key = f"policy {purpose} {seed}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))
