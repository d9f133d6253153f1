"""Where world models act, and from where to where they are sent: in the world in which their walks were recorded."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.data.episode_windows import SIMULATOR, EpisodeWindows
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.actions import Rescaled, innermost
from jepalab.envs.environment import Environment, State, join
from jepalab.envs.gymnasium_adapters import Worlds, WorldState
from jepalab.envs.scenes import KINDS, Pairs, Scene, SceneName, anywhere, close, is_fast
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Act, Agent, Effort
from jepalab.recipes.world_bench import Walks

TRAINED_NORM = 1.8  # the longest action in the walks: no model knows longer ones


class TooFewStatesError(ValueError):
    """Stored episodes hold fewer starts and goals than a test asks for."""


@dataclass(frozen=True)
class Ground:
    """An environment in which models act, and how they are tested there.

    name       of the environment.
    env        with actions in the units in which models were shown them.
    radii      of success by name, the chief one first.
    groups     what draws starts and goals, by group.
    max_norm   of the longest action that models were shown.
    frameskip  of what they were shown.
    is_fast    whether an oracle may plan in it, and thousands of its states may be drawn.
    replay     does what was done in the recordings that starts and goals come from; None where they come from none.
    """

    name: SceneName
    env: Environment[Any]
    radii: Mapping[str, float]
    groups: Mapping[str, Pairs]
    max_norm: float
    frameskip: int = 1
    is_fast: bool = True
    replay: Agent | None = None


def rooms_ground(env: TwoRooms) -> Ground:
    """Two Rooms as they are simulated: goals in the other room, and in the same."""
    radii = KINDS["two-rooms"].radii
    return Ground("two-rooms", env, radii, anywhere(env, min_distance=max(radii.values())), TRAINED_NORM)


def ground_of(stream: TrajectoryStream, *, num_at_once: int, ahead: int | None = None) -> Ground | None:
    """Where a stream's trajectories were recorded; None where stored episodes name no environment that is known.

    num_at_once  environments that act together.
    ahead        of stored episodes: goals are states of the test split's, so many steps after the start; 0 draws starts
                 and goals anywhere. By default 0 in our own environments, 25 in other people's, where not every goal is
                 within reach (DINO-WM, arXiv 2411.04983). To choose settings, give `stream.judged_on("validation")`.

    Raises:
        ValueError: a world of other people whose package is missing, or pictures that it does not draw so.
    """
    windows = stream.recorded["test"]
    if isinstance(windows, Walks):
        if ahead:
            raise ValueError("Goals some steps ahead are taken from stored episodes; this model saw simulated walks.")
        return rooms_ground(windows.rooms)
    assert isinstance(windows, EpisodeWindows), "a bench has no other source"
    metadata = windows.episodes.window(0, start=0, length=1).metadata
    scene = Scene.of(metadata)
    if scene is None:
        return None
    kind, inner = scene.kind, _kept(scene, num_at_once)
    env, seen = Rescaled(inner, kind.unit), windows.episodes.columns["pixels"].shape
    if env.picture_shape != seen:
        raise ValueError(
            f"Wanted episodes with pictures {list(env.picture_shape)}, as {scene.name} draws them, got {list(seen)}: "
            "what saw these cannot act there."
        )
    radius = max(kind.radii.values())
    steps = kind.ahead if ahead is None else ahead
    drawn = partial(held_out_pairs, windows, env, ahead=steps, radius=radius)
    parts = {"block": True, "agent": False} if kind.mover else {"all": None}
    groups = {name: partial(drawn, pushes=pushes, mover=kind.mover) for name, pushes in parts.items()} if steps else {}
    longest = metadata.get("policy", {}).get("longest")
    return Ground(
        scene.name,
        env,
        kind.radii,
        groups or anywhere(inner, min_distance=radius),
        float("inf") if longest is None else longest / kind.unit,
        windows.frameskip,
        is_fast(env),
        ReplayAgent(windows, kind.unit, steps) if steps else None,
    )


def held_out_pairs(
    windows: EpisodeWindows,
    env: Environment[Any],
    num: int,
    generator: torch.Generator,
    *,
    ahead: int,
    radius: float,
    mover: str = "",
    pushes: bool | None = None,
) -> tuple[State, State]:
    """Starts anywhere in stored episodes, goals `ahead` steps later, where that is farther than `radius`.

    Starts in the same episode lie `ahead` steps or more apart: neighbours would be the same test twice.

    mover   the factor that is the agent's place.
    pushes  True takes pairs in which more than the agent has to move, False those in which it alone has, None both.

    Raises:
        TooFewStatesError: there are not so many.
        ValueError: the states are not those of this environment.
    """
    lengths = windows.episodes.lengths
    places = [(row, t) for row in windows.rows for t in range(int(lengths[row]) - ahead)]
    order, template = torch.randperm(len(places), generator=generator).tolist(), env.reset(1, torch.Generator())
    taken: dict[int, list[int]] = {}
    starts: list[State] = []
    goals: list[State] = []
    while order and len(starts) < num:
        chosen, order = [places[i] for i in order[:num]], order[num:]
        start, goal = (_states(windows, template, [(row, t + late) for row, t in chosen]) for late in (0, ahead))
        fits = ~env.success(start, goal, radius=radius)
        if pushes is not None:
            fits &= env.success(_moved(env, start, goal, mover), goal, radius=radius) != pushes
        for i in fits.nonzero()[:, 0].tolist():
            row, t = chosen[i]
            if all(abs(t - other) >= ahead for other in taken.setdefault(row, [])):
                taken[row].append(t)
                starts.append(start[i : i + 1])
                goals.append(goal[i : i + 1])
    if len(starts) < num:
        raise TooFewStatesError(
            f"Wanted {num} starts and goals {ahead} steps apart in {len(windows.rows)} held-out episodes; only "
            f"{len(starts)} of {len(places)} places lie so far from each other, and farther than {radius:g} from where "
            f"the episode went{'' if pushes is None else ', and move the block' if pushes else ', without the block'}. "
            "Take fewer episodes, another --ahead, or record more."
        )
    return join(starts[:num]), join(goals[:num])


def _moved(env: Environment[Any], start: State, goal: State, mover: str) -> WorldState:
    """The starts with the agent where it is in the goals, for judging alone."""
    inside = innermost(env)
    if not (isinstance(inside, Worlds) and isinstance(start, WorldState) and isinstance(goal, WorldState)):
        raise TypeError(f"Only worlds of other people tell agent and block apart, got {type(inside).__name__}.")
    return inside.as_if(start, goal, part=mover)


@dataclass(frozen=True)
class ReplayAgent:
    """Does again what was done in stored episodes from a start of `held_out_pairs` on, then rests.

    A ceiling where nobody can wait for a planner in the world itself. It is not always 1: what was in contact settles
    anew when a state is restored.

    unit   of the actions of the environment in which it acts, in those that were recorded.
    ahead  steps that it takes.
    """

    windows: EpisodeWindows
    unit: float
    ahead: int

    def begin(self, env: Environment[Any], goal: State, generator: torch.Generator, effort: Effort) -> Act:
        left: list[Tensor] = []
        is_begun = False

        def act(state: State) -> Float[Tensor, "n a"]:
            nonlocal is_begun
            if not is_begun:
                left.extend((self._recorded(state) / self.unit).unbind(1))
                is_begun = True
            return left.pop(0) if left else torch.zeros(len(state), len(env.bounds.low))

        return act

    def _recorded(self, state: State) -> Float[Tensor, "n h a"]:
        """The actions that followed on these states. ValueError for a state that is of no held-out episode."""
        wanted = {name: tensor.numpy() for name, tensor in state.tensors().items()}
        rows = {b"".join(wanted[name][i].tobytes() for name in sorted(wanted)): i for i in range(len(state))}
        found: dict[int, Tensor] = {}
        for row in self.windows.rows:
            episode = self.windows.episodes[row]
            columns = [np.ascontiguousarray(episode[f"{SIMULATOR}{name}"]) for name in sorted(wanted)]
            for t in range(len(episode) - self.ahead):
                at = rows.get(b"".join(column[t].tobytes() for column in columns))
                if at is not None:
                    found[at] = torch.from_numpy(episode.action[t : t + self.ahead]).float()
        if missing := len(state) - len(found):
            raise ValueError(f"{missing} of {len(state)} starts are states of no held-out episode; nothing to replay.")
        return torch.stack([found[i] for i in range(len(state))])


def _states(windows: EpisodeWindows, template: State, places: list[tuple[int, int]]) -> State:
    """The states of the environment at a frame each of stored episodes."""
    found = [windows.episodes.window(row, start=t, length=1).columns for row, t in places]
    names = [name for name in windows.episodes.columns if name.startswith(SIMULATOR)]
    tensors = {
        name.removeprefix(SIMULATOR): torch.stack([torch.from_numpy(each[name])[0] for each in found]) for name in names
    }
    return template.with_tensors(tensors)


@cache
def _kept(scene: Scene, num_simulators: int) -> Environment[Any]:
    """Made once: a renderer that is left open spoils the pictures of the next."""
    env = scene.env(num_simulators)
    atexit.register(close, env)
    return env
