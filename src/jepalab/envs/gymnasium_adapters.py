"""To and from gymnasium: our environments as theirs, and worlds of other people as ours.

gymnasium and the worlds are imported only when asked for: `pip install "jepalab[worlds]"`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.envs.environment import Environment, S, State, require_finite
from jepalab.envs.mujoco_simulators import MujocoMaze, Reacher
from jepalab.envs.simulators import EXTRA, PushT, Simulator
from jepalab.planners.planner import Bounds

TRIES = 100  # goals drawn for a start before the distance that is asked for counts as too large


def as_gymnasium(environment: Environment[S], *, radius: float, min_distance: float, max_steps: int = 200) -> Any:
    """One of our environments as a `gymnasium.Env`, with a start and a goal drawn at each reset.

    radius        of success, which ends the episode with reward 1; otherwise rewards are 0.
    min_distance  between start and goal, as the crow flies.
    max_steps     after which the episode is truncated.

    Observations are a dict: "pixels" and "goal", uint8 [h w c], and "proprioception" where there is any. `reset` takes
    options {"start": state, "goal": state}, our states of one environment each. The info holds what is true, by name,
    and the "distance". `render` gives the picture as RGB.

    Raises:
        ValueError: gymnasium is missing.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ValueError(f"This needs gymnasium, which is optional: {EXTRA}.") from error
    spaces = gymnasium.spaces

    class Adapter(gymnasium.Env):
        metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as gymnasium has it
        render_mode = "rgb_array"

        def __init__(self) -> None:
            c, h, w = environment.picture_shape
            bounds = environment.bounds
            self.action_space = spaces.Box(bounds.low.numpy(), bounds.high.numpy(), dtype=np.float32)
            probe, _ = environment.random_pairs(1, torch.Generator().manual_seed(0), min_distance=min_distance)
            self._num_felt = environment.proprioception(probe).shape[1]
            seen: dict[str, Any] = {name: spaces.Box(0, 255, (h, w, c), np.uint8) for name in ("pixels", "goal")}
            if self._num_felt:
                seen["proprioception"] = spaces.Box(-np.inf, np.inf, (self._num_felt,), np.float32)
            self.observation_space = spaces.Dict(seen)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
            super().reset(seed=seed)
            generator = torch.Generator().manual_seed(int(self.np_random.integers(2**62)))
            start, goal = environment.random_pairs(1, generator, min_distance=min_distance)
            given = options or {}
            self._state: Any = given.get("start", start)
            self._goal: Any = given.get("goal", goal)
            return self._observe(), self._inform()

        def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
            wanted = torch.as_tensor(np.asarray(action), dtype=torch.float32)[None]
            self._state = environment.step(self._state, wanted)
            solved = bool(environment.success(self._state, self._goal, radius=radius))
            return self._observe(), float(solved), solved, False, self._inform()

        def render(self) -> Any:
            picture = environment.render(self._state)[0]
            # Of two channels, what moves is yellow and what stands is blue.
            colours = picture[[0, 0, 1]] if len(picture) == 2 else picture.expand(3, -1, -1)
            return _bytes(colours)

        def _observe(self) -> dict[str, Any]:
            pictures = {"pixels": self._state, "goal": self._goal}
            seen = {name: _bytes(environment.render(state)[0]) for name, state in pictures.items()}
            if self._num_felt:
                seen["proprioception"] = environment.proprioception(self._state)[0].numpy().copy()
            return seen

        def _inform(self) -> dict[str, Any]:
            known = {name: value[0].numpy().copy() for name, value in environment.factors(self._state).items()}
            return known | {"distance": float(environment.distance(self._state, self._goal))}

    return gymnasium.wrappers.TimeLimit(Adapter(), max_steps)


@dataclass(frozen=True)
class WorldState(State):
    """The states of n worlds.

    memory  [n m] double: all that decides what follows.
    truth   [n f] what there is to know; `Worlds.factors` names its parts.
    """

    memory: Float[Tensor, "n m"]
    truth: Float[Tensor, "n f"]


class Worlds:
    """Worlds of other people as an `Environment`: a state is put into a simulator before it is advanced or drawn.

    A simulator that holds a state already goes on from it, so an episode whose worlds keep their places runs as it
    would without us. States that are moved, copied or read back are restored: exactly on MuJoCo; in PushT contacts
    settle anew.

    make            makes a simulator.
    num_simulators  state i goes to simulator i modulo this number; as many as are advanced together is best.
    action_repeat   how often an action is repeated within one step.

    Close it, or use it in a `with`: renderers that are left open spoil the pictures of others.
    """

    def __init__(self, make: Callable[[], Simulator], *, num_simulators: int = 1, action_repeat: int = 1) -> None:
        if min(num_simulators, action_repeat) < 1:
            raise ValueError(
                f"Wanted num_simulators and action_repeat of at least 1, got {num_simulators} and {action_repeat}."
            )
        self._simulators = [make() for _ in range(num_simulators)]
        self._make, self._action_repeat = make, action_repeat
        self._painter: Simulator | None = None

    def __enter__(self) -> Worlds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for simulator in self._simulators:
            simulator.close()
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    @property
    def bounds(self) -> Bounds:
        return self._simulators[0].bounds

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        h, w, c = self._paint().picture().shape
        return c, h, w

    def reset(self, num: int, generator: torch.Generator) -> WorldState:
        """As the worlds themselves begin, each with a seed out of the generator."""
        return self._begin([int(seed) for seed in torch.randint(2**31, (num,), generator=generator)])

    def random_pairs(
        self, num: int, generator: torch.Generator, *, min_distance: float
    ) -> tuple[WorldState, WorldState]:
        """Two beginnings each. Not every goal need be within reach of a few steps: see also states of one episode.

        Raises:
            ValueError: there are hardly any so far apart.
        """
        start, goal = self.reset(num, generator), self.reset(num, generator)
        near = self.success(start, goal, radius=min_distance).nonzero()[:, 0]
        for _ in range(TRIES):
            if not len(near):
                return start, goal
            fresh = self.reset(len(near), generator).tensors()
            new = {name: tensor.index_copy(0, near, fresh[name]) for name, tensor in goal.tensors().items()}
            goal = goal.with_tensors(new)
            near = self.success(start, goal, radius=min_distance).nonzero()[:, 0]
        raise ValueError(f"{len(near)} of {num} starts found no goal beyond min_distance={min_distance}; lower it.")

    def step(self, state: WorldState, action: Float[Tensor, "n a"]) -> WorldState:
        require_finite(action, num=len(state), width=len(self.bounds.low))
        wanted = self.bounds.clip(action).double().numpy()
        memory, truth = [], []
        for i, before in enumerate(state.memory.numpy()):
            simulator = self._simulators[i % len(self._simulators)]
            _hold(simulator, before)
            for _ in range(self._action_repeat):
                simulator.act(wanted[i])
            memory.append(simulator.memory())
            truth.append(simulator.truth())
        return _as_state(memory, truth)

    def render(self, state: WorldState) -> Float[Tensor, "n 3 h w"]:
        """By a simulator of its own, so that looking at a world leaves no trace in it."""
        pictures = []
        for memory in state.memory.numpy():
            self._paint().restore(memory)
            pictures.append(torch.from_numpy(self._paint().picture()))
        return torch.stack(pictures).permute(0, 3, 1, 2).float() / 255

    def proprioception(self, state: WorldState) -> Float[Tensor, "n p"]:
        """Velocities of what the action moves, in the world's own units."""
        return state.truth[:, self._simulators[0].felt]

    def factors(self, state: WorldState) -> dict[str, Tensor]:
        return {name: state.truth[:, part] for name, part in self._simulators[0].parts.items()}

    def as_if(self, state: WorldState, other: WorldState, *, part: str) -> WorldState:
        """The states with that part of what is true as in `other`: to be judged, not to be gone on from."""
        truth, where = state.truth.clone(), self._simulators[0].parts[part]
        truth[:, where] = other.truth[:, where]
        return replace(state, truth=truth)

    def distance(self, state: WorldState, goal: WorldState) -> Float[Tensor, " n"]:
        return self._simulators[0].distance(state.truth, goal.truth)

    def success(self, state: WorldState, goal: WorldState, *, radius: float) -> Bool[Tensor, " n"]:
        """In the units that each world names. Usual radii: PushT 20, PointMaze 0.45, Reacher 0.05."""
        return self._simulators[0].nearness(state.truth, goal.truth) < radius

    def _begin(self, seeds: list[int]) -> WorldState:
        memory, truth = [], []
        for i, seed in enumerate(seeds):
            simulator = self._simulators[i % len(self._simulators)]
            simulator.reset(seed)
            memory.append(simulator.memory())
            truth.append(simulator.truth())
        return _as_state(memory, truth)

    def _paint(self) -> Simulator:
        if self._painter is None:
            self._painter = self._make()
        return self._painter


def pusht_worlds(num_simulators: int = 1, *, size: int = 96, action_repeat: int = 1) -> Worlds:
    """PushT of gym-pusht. Raises ValueError if that is missing."""
    return Worlds(partial(PushT, size=size), num_simulators=num_simulators, action_repeat=action_repeat)


def point_maze_worlds(
    num_simulators: int = 1,
    *,
    maze: Literal["UMaze", "Open", "Medium", "Large"] = "UMaze",
    size: int = 64,
    action_repeat: int = 1,
) -> Worlds:
    """PointMaze of gymnasium-robotics, from above. Raises ValueError if that is missing."""
    make = partial(MujocoMaze, maze=maze, size=size)
    return Worlds(make, num_simulators=num_simulators, action_repeat=action_repeat)


def reacher_worlds(num_simulators: int = 1, *, size: int = 64, action_repeat: int = 1) -> Worlds:
    """The two-link arm of dm_control, from above. Raises ValueError if that is missing."""
    return Worlds(partial(Reacher, size=size), num_simulators=num_simulators, action_repeat=action_repeat)


def _hold(simulator: Simulator, memory: np.ndarray) -> None:
    if not np.array_equal(simulator.memory(), memory):
        simulator.restore(memory)


def _as_state(memory: list[np.ndarray], truth: list[np.ndarray]) -> WorldState:
    return WorldState(torch.from_numpy(np.stack(memory)), torch.from_numpy(np.stack(truth)).float())


def _bytes(picture: Float[Tensor, "c h w"]) -> np.ndarray:
    return (picture * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
