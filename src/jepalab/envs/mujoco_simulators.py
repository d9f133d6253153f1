"""Worlds of other people that run on MuJoCo, drawn from above without shadows, reflections or antialiasing.

In software these three cost ten times as much as all the rest of a small picture. `pip install "jepalab[worlds]"`.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from jepalab.envs.roadmap import survey
from jepalab.envs.simulators import EXTRA, Simulator
from jepalab.planners.planner import Bounds

BALL_RADIUS = 0.1


class MujocoSimulator(Simulator):
    """What worlds on MuJoCo share: the whole state in one vector, and a camera.

    model, data  MuJoCo's.
    height       from which the camera looks straight down, in metres.
    """

    def __init__(self, model: Any, data: Any, *, height: float, size: int) -> None:
        self._mujoco, self._model, self._data, self._size = _mujoco(), model, data, size
        self._whole = int(self._mujoco.mjtState.mjSTATE_INTEGRATION)
        self._camera = self._mujoco.MjvCamera()
        self._camera.azimuth, self._camera.elevation, self._camera.distance = 90, -90, height
        self._camera.lookat[:] = 0
        self._renderer: Any = None
        low, high = torch.tensor(model.actuator_ctrlrange, dtype=torch.float32).unbind(1)
        self.bounds = Bounds(low.clone(), high.clone())

    def memory(self) -> Float64[np.ndarray, " m"]:
        vector = np.empty(self._mujoco.mj_stateSize(self._model, self._whole))
        self._mujoco.mj_getState(self._model, self._data, vector, self._whole)
        return vector

    def restore(self, memory: Float64[np.ndarray, " m"]) -> None:
        # Twice: to work out what follows from the state changes where the solver starts, which is part of it.
        for _ in range(2):
            self._mujoco.mj_setState(self._model, self._data, memory, self._whole)
            self._mujoco.mj_forward(self._model, self._data)
        self._mujoco.mj_setState(self._model, self._data, memory, self._whole)

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        if self._renderer is None:
            self._model.vis.quality.offsamples = self._model.vis.quality.shadowsize = 0
            self._renderer = self._mujoco.Renderer(self._model, self._size, self._size)
        self._renderer.update_scene(self._data, self._camera)
        for costly in (self._mujoco.mjtRndFlag.mjRND_SHADOW, self._mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[costly] = 0
        return self._renderer.render().copy()

    def close(self) -> None:
        # A renderer that is dropped unclosed spoils the pictures of the next one, silently.
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class MujocoMaze(MujocoSimulator):
    """gymnasium-robotics' PointMaze, without the red ball at its own goal: a goal is a picture here.

    maze  "UMaze", "Open", "Medium" or "Large". Distances are ways through the maze in metres, a cell being 1.
    """

    parts: ClassVar = {"position": slice(0, 2), "velocity": slice(2, 4)}
    felt = slice(2, 4)

    def __init__(self, *, maze: str, size: int) -> None:
        _choose_renderer()  # before the import, which decides
        try:
            from gymnasium_robotics.envs.maze import maps, point_maze  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise ValueError(f"PointMaze needs gymnasium-robotics, which is optional: {EXTRA}.") from error
        known: dict[str, Any] = {
            "UMaze": maps.U_MAZE,
            "Open": maps.OPEN,
            "Medium": maps.MEDIUM_MAZE,
            "Large": maps.LARGE_MAZE,
        }
        if maze not in known:
            raise ValueError(f"Wanted a maze out of {', '.join(known)}, got {maze!r}.")
        self._env: Any = point_maze.PointMazeEnv(maze_map=known[maze])
        model, data = self._env.point_env.model, self._env.point_env.data
        model.site_rgba[self._env.target_site_id, 3] = 0
        cells = np.array(known[maze], dtype=object)
        height = max(cells.shape) / 2 / math.tan(math.radians(22.5)) + self._env.maze.maze_height
        super().__init__(model, data, height=height, size=size)
        self._ways = survey(_blocks(cells == 1)[None], (-100.0, 100.0))
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._env.reset(seed=seed)

    def act(self, action: Float[np.ndarray, " a"]) -> None:
        self._env.step(action)

    def truth(self) -> Float64[np.ndarray, " f"]:
        return np.concatenate([self._data.qpos, self._data.qvel])

    def distance(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        ways = self._ways[torch.zeros(len(truth), dtype=torch.long)]
        return ways.distance(truth[:, :2], goal[:, :2])

    def nearness(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return (truth[:, :2] - goal[:, :2]).norm(dim=1)

    def close(self) -> None:
        super().close()
        self._env.close()


class Reacher(MujocoSimulator):
    """dm_control's two-link arm, without its own target. Distances are between fingertips, in metres."""

    parts: ClassVar = {"angles": slice(0, 2), "velocity": slice(2, 4), "finger": slice(4, 6)}
    felt = slice(2, 4)

    def __init__(self, *, size: int) -> None:
        _choose_renderer()
        try:
            from dm_control.suite import reacher  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise ValueError(f"Reacher needs dm-control, which is optional: {EXTRA}.") from error
        self._suite = reacher
        self._env: Any = reacher.easy(time_limit=math.inf, random=0)
        physics = self._env.physics
        super().__init__(physics.model.ptr, physics.data.ptr, height=0.63, size=size)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._env.task.random.seed(seed)
        self._env.reset()
        self._env.physics.named.model.geom_rgba["target"] = 0

    def act(self, action: Float[np.ndarray, " a"]) -> None:
        self._env.step(action)

    def truth(self) -> Float64[np.ndarray, " f"]:
        finger = self._env.physics.named.data.geom_xpos["finger", :2]
        return np.concatenate([self._data.qpos, self._data.qvel, finger])

    def distance(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return self.nearness(truth, goal)

    def nearness(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return (truth[:, 4:6] - goal[:, 4:6]).norm(dim=1)

    def close(self) -> None:
        super().close()
        self._env.close()


def _blocks(is_wall: np.ndarray) -> Float[Tensor, "k 4"]:
    """Cells of wall as boxes around which the ball's centre must go, in metres; y runs upwards."""
    rows, columns = (torch.from_numpy(found).float() for found in np.nonzero(is_wall))
    left, bottom = columns - is_wall.shape[1] / 2, is_wall.shape[0] / 2 - rows - 1
    boxes = torch.stack([left, bottom, left + 1, bottom + 1], 1)
    return boxes + BALL_RADIUS * torch.tensor([-1.0, -1.0, 1.0, 1.0])


def _choose_renderer() -> None:
    """EGL where there is no screen to be had and nobody has said otherwise: read when MuJoCo is first imported."""
    if sys.platform == "linux" and not ({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _mujoco() -> Any:
    _choose_renderer()
    try:
        import mujoco  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ValueError(f"This world needs MuJoCo, which is optional: {EXTRA}.") from error
    return mujoco
