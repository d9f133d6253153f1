"""A point mass in a maze, after D4RL's and PLDM's (arXiv 2502.14819): actions accelerate it, its velocity is not seen.

A double integrator of our own instead of MuJoCo, for many environments at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.envs.chance import Purpose, draw_keys, uniforms
from jepalab.envs.drawing import DOT_STD, draw_dots
from jepalab.envs.environment import PointState, require_finite
from jepalab.envs.geometry import shorten, sweep
from jepalab.envs.mazes import ARENA, SIZE, Mazes, draw_mazes
from jepalab.envs.pairs import far_apart
from jepalab.envs.walks import Gait, Trajectories, bearing, straight_on, walk
from jepalab.planners.planner import Bounds

CANDIDATES = 32  # pairs drawn for each one that is wanted


@dataclass(frozen=True)
class MazeState(PointState):
    """The states of n environments of `PointMaze`.

    velocity  [n 2] pixels a step, hidden from the picture.
    maze      [n] which of the mazes it is in.
    """

    velocity: Float[Tensor, "n 2"]
    maze: Int[Tensor, " n"]


@dataclass(frozen=True)
class PointMaze:
    """velocity' = (1 - drag) velocity + action, position' = position + velocity'; walls stop what runs into them.

    Only the component of the velocity that a wall stops is lost: the point slides along. Pictures are [n 2 64 64]: the
    point, a Gaussian whose middle is 1, and the walls.

    mazes             an episode is in any of them.
    max_acceleration  pixels a step^2; longer actions are shortened to it.
    max_speed         pixels a step; D4RL caps the speed too.
    drag              share of the velocity that is lost at each step, in [0, 1).
    """

    mazes: Mazes
    max_acceleration: float = 0.5
    max_speed: float = 3.0
    drag: float = 0.05

    def __post_init__(self) -> None:
        if not (self.max_acceleration > 0 and self.max_speed > 0 and 0 <= self.drag < 1):
            raise ValueError(
                "Wanted max_acceleration and max_speed above 0 and drag in [0, 1), got "
                f"{self.max_acceleration}, {self.max_speed} and {self.drag}."
            )

    @classmethod
    def drawn(cls, *, seed: int, num_mazes: int = 1, cells: int = 4, num_loops: int = 0) -> PointMaze:
        """With mazes drawn from that seed, see `draw_mazes`."""
        generator = torch.Generator().manual_seed(seed)
        return cls(draw_mazes(num_mazes, generator, cells=cells, num_loops=num_loops))

    @property
    def bounds(self) -> Bounds:
        end = torch.full((2,), self.max_acceleration)
        return Bounds(-end, end, self.max_acceleration)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        return 2, SIZE, SIZE

    def reset(self, num: int, generator: torch.Generator) -> MazeState:
        """Points at rest anywhere in any of the mazes."""
        key = draw_keys(num, generator)
        maze = self._any_maze(key)
        return self.place(self._somewhere(maze, uniforms(key, Purpose.START, num=3), margin=0.5), maze, key)

    def place(self, position: Float[Tensor, "n 2"], maze: Int[Tensor, " n"], key: Int[Tensor, " n"]) -> MazeState:
        """Points at rest at those positions at the start of an episode."""
        return MazeState(position, key, torch.zeros_like(key), torch.zeros_like(position), maze)

    def random_pairs(
        self, num: int, generator: torch.Generator, *, min_distance: float = 10.0
    ) -> tuple[MazeState, MazeState]:
        """Starts and goals in the same mazes, at rest, two deviations of the dot away from every wall.

        min_distance  in pixels, as the crow flies: with at least the radius of success, nothing is solved at the start.

        Raises:
            ValueError: there are hardly any pairs so far apart.
        """
        key, goal_key = draw_keys(2 * num, generator).unflatten(0, (num, 2)).unbind(1)
        maze = self._any_maze(key)
        lucky = uniforms(key, Purpose.GOAL, num=6 * CANDIDATES).unflatten(1, (CANDIDATES, 6))
        starts, goals = (self._somewhere(maze, part, margin=2 * DOT_STD) for part in lucky.split(3, dim=2))
        always = torch.ones(starts.shape[:2], dtype=torch.bool, device=key.device)
        start, goal = far_apart(starts, goals, always, min_distance=min_distance)
        return self.place(start, maze, key), self.place(goal, maze, goal_key)

    def step(self, state: MazeState, action: Float[Tensor, "n 2"]) -> MazeState:
        """What follows on accelerations (x, y) in pixels a step^2."""
        require_finite(action, num=len(state), width=2)
        walls = self.mazes.walls[state.maze]
        velocity = (1 - self.drag) * state.velocity + shorten(action, max_norm=self.max_acceleration)
        velocity = shorten(velocity, max_norm=self.max_speed)
        # What is left of the motion after the first contact goes along the wall, until the next.
        first = sweep(state.position, velocity, walls, ARENA)
        velocity = velocity.masked_fill(first.stopped, 0.0)
        second = sweep(first.position, velocity * (1 - first.share)[:, None], walls, ARENA)
        velocity = velocity.masked_fill(second.stopped, 0.0)
        return replace(state, position=second.position, velocity=velocity, clock=state.clock + 1)

    def render(self, state: MazeState) -> Float[Tensor, "n 2 h w"]:
        """The point in channel 0, the walls in channel 1."""
        return torch.stack([draw_dots(state.position, size=SIZE), self.mazes.pictures[state.maze]], 1)

    def proprioception(self, state: MazeState) -> Float[Tensor, "n 2"]:
        """The velocity in pixels a step, which PLDM gives its model too."""
        return state.velocity

    def factors(self, state: MazeState) -> dict[str, Tensor]:
        """ "position" and "velocity" [n 2] in pixels and pixels a step, "maze" [n]."""
        return {"position": state.position, "velocity": state.velocity, "maze": state.maze}

    def distance(self, state: MazeState, goal: MazeState) -> Float[Tensor, " n"]:
        """Length of the shortest way through the maze, in pixels; the velocity is not counted."""
        return self.mazes.ways[state.maze].distance(state.position, goal.position)

    def success(self, state: MazeState, goal: MazeState, *, radius: float = 4.5) -> Bool[Tensor, " n"]:
        """Whether the goal is nearer than `radius` pixels, as the crow flies and at any speed."""
        return (state.position - goal.position).norm(dim=1) < radius

    def random_walks(
        self, num: int, generator: torch.Generator, *, num_steps: int = 16, gait: Gait | None = None
    ) -> Trajectories[MazeState]:
        """Trajectories from rest under accelerations whose direction is a random walk."""
        return walk(self, self.reset(num, generator), straight_on, num_steps=num_steps, gait=gait or self._gait())

    def expert_walks(
        self, start: MazeState, goal: MazeState, *, num_steps: int, gait: Gait | None = None
    ) -> Trajectories[MazeState]:
        """Trajectories along the shortest way to the goal, every acceleration a little off."""
        ways = self.mazes.drivable[start.maze]

        def heading(state: MazeState, direction: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
            ahead = ways.waypoint(state.position, goal.position) - state.position
            wanted = shorten(ahead * 0.3, max_norm=self.max_speed / 2)
            return bearing(wanted - state.velocity)

        return walk(self, start, heading, num_steps=num_steps, gait=gait or self._gait())

    def _gait(self) -> Gait:
        """The gait of Two Rooms, whose longest step is 1.8, in units of the largest acceleration."""
        unit = self.max_acceleration / 1.8
        return Gait(mean=unit, std=0.4 * unit, shortest=0.2 * unit, longest=1.8 * unit)

    def _any_maze(self, key: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        lucky = uniforms(key, Purpose.LAYOUT, num=1)[:, 0]
        return (lucky * len(self.mazes)).long().clamp_max(len(self.mazes) - 1)

    def _somewhere(
        self, maze: Int[Tensor, " n"], lucky: Float[Tensor, "n *k 3"], *, margin: float
    ) -> Float[Tensor, "n *k 2"]:
        """Positions in any cell, uniform, out of uniform numbers, `margin` pixels off where walls may be."""
        num_cells = self.mazes.cells.shape[1]
        chosen = (lucky[..., 0] * num_cells).long().clamp_max(num_cells - 1)
        cell = self.mazes.cells[maze.view(-1, *[1] * (chosen.dim() - 1)), chosen]
        low, high = cell[..., :2] + margin, cell[..., 2:] - margin
        return low + lucky[..., 1:] * (high - low)
