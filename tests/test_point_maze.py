"""The point maze: mazes are trees, physics is a double integrator, walls hold, ways agree with Dijkstra."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from jepalab.envs.environment import Environment
from jepalab.envs.geometry import GAP
from jepalab.envs.mazes import ARENA, SIZE, Mazes, draw_mazes
from jepalab.envs.point_maze import MazeState, PointMaze
from jepalab.envs.walks import film, replay
from jepalab.planners.planner import Bounds

MAZE = PointMaze.drawn(seed=0, num_mazes=6)
LOOPS = PointMaze.drawn(seed=1, num_mazes=3, cells=5, num_loops=4)
EMPTY = PointMaze(Mazes.build(torch.tensor([[[30.5, 1.5, 32.5, 2.5]]]), torch.tensor([[[4.0, 4.0, 60.0, 60.0]]])))
every_maze = pytest.mark.parametrize("env", [MAZE, LOOPS], ids=["trees", "with loops"])


def same(one: Any, other: Any) -> bool:
    """Bit for bit."""
    one, other = one.tensors(), other.tensors()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def on_walls(env: PointMaze, position: torch.Tensor, maze: torch.Tensor) -> torch.Tensor:
    walls = env.mazes.walls[maze]
    return ((position[:, None] > walls[..., :2]) & (position[:, None] < walls[..., 2:])).all(2).any(1)


@pytest.mark.parametrize(("cells", "num_loops"), [(2, 0), (3, 1), (4, 0), (5, 3), (6, 0)])
def test_every_place_is_reached_and_trees_have_no_loops(cells: int, num_loops: int, generator: torch.Generator) -> None:
    mazes = draw_mazes(20, generator, cells=cells, num_loops=num_loops)
    assert mazes.walls.shape == (20, (cells - 1) ** 2 - num_loops, 4)
    for walls in mazes.pictures.numpy() > 0:
        num_rooms = label(~walls)[1]
        assert num_rooms == 1, "whoever floods one room floods all"
        # Walls with corners in common are one; every loop sets an island of wall adrift.
        num_islands = label(walls, structure=np.ones((3, 3)))[1] - 1
        assert num_islands <= num_loops
        if not num_loops:
            assert num_islands == 0
    if cells > 2:
        assert len(mazes.pictures.flatten(1).unique(dim=0)) > 10
    again = draw_mazes(20, generator.manual_seed(generator.initial_seed()), cells=cells, num_loops=num_loops)
    assert same(again, mazes)


def test_mazes_that_cannot_be_are_refused(generator: torch.Generator) -> None:
    for wrong in ({"cells": 7}, {"cells": 3, "num_loops": 4}):
        with pytest.raises(ValueError, match="2 to 6 cells"):
            draw_mazes(1, generator, **wrong)
    with pytest.raises(ValueError, match="num=0"):
        draw_mazes(0, generator)
    with pytest.raises(ValueError, match="drag in"):
        replace(MAZE, drag=1.0)


def test_free_motion_is_a_double_integrator() -> None:
    """From rest, under a constant acceleration a and no drag: velocity k a and position a k (k + 1) / 2."""
    env = replace(EMPTY, drag=0.0, max_speed=100.0)
    state = env.place(torch.tensor([[20.0, 30.0]]), torch.tensor([0]), torch.tensor([0]))
    action = torch.tensor([[0.1, -0.05]])
    for k in range(1, 15):
        state = env.step(state, action)
        assert torch.allclose(state.velocity, k * action, atol=1e-5)
        assert torch.allclose(state.position, torch.tensor([[20.0, 30.0]]) + action * k * (k + 1) / 2, atol=1e-4)
    assert torch.equal(env.proprioception(state), state.velocity)
    # With drag d the speed tends to a / d, and never passes its cap.
    dragged = replace(EMPTY, drag=0.2, max_speed=0.4)
    state = dragged.place(torch.tensor([[10.0, 30.0]]), torch.tensor([0]), torch.tensor([0]))
    for _ in range(40):
        state = dragged.step(state, torch.tensor([[0.05, 0.0]]))
    assert float(state.velocity[0, 0]) == pytest.approx(0.25, abs=1e-3)
    fast = replace(EMPTY, max_speed=0.4)
    state = fast.place(torch.tensor([[10.0, 30.0]]), torch.tensor([0]), torch.tensor([0]))
    for _ in range(20):
        state = fast.step(state, torch.tensor([[30.0, 40.0]]))
        assert state.velocity.norm() <= 0.4 + 1e-6
    assert torch.allclose(state.velocity[0], torch.tensor([0.24, 0.32]))


def test_only_what_a_wall_stops_is_lost() -> None:
    """Diagonally against the right border: the point slides along it, and comes off as soon as it is pulled."""
    state = EMPTY.place(torch.tensor([[60.0, 20.0]]), torch.tensor([0]), torch.tensor([0]))
    state = replace(state, velocity=torch.tensor([[2.0, 2.0]]))
    env = replace(EMPTY, drag=0.0)
    after = env.step(state, torch.zeros(1, 2))
    assert torch.allclose(after.position, torch.tensor([[ARENA[1] - GAP, 22.0]]), atol=1e-4)
    assert after.velocity.tolist() == [[0.0, 2.0]]
    pressed = env.step(after, torch.tensor([[0.5, 0.0]]))
    assert torch.allclose(pressed.position, torch.tensor([[ARENA[1] - GAP, 24.0]]), atol=1e-4)
    assert pressed.velocity.tolist() == [[0.0, 2.0]]
    pulled = env.step(pressed, torch.tensor([[-0.5, 0.0]]))
    assert float(pulled.position[0, 0]) == pytest.approx(ARENA[1] - GAP - 0.5, abs=1e-4)
    corner = replace(state, position=torch.tensor([[60.5, 60.5]]), velocity=torch.tensor([[2.0, 2.5]]))
    stuck = env.step(corner, torch.zeros(1, 2))
    assert torch.allclose(stuck.position, torch.full((1, 2), ARENA[1] - GAP), atol=1e-4)
    assert stuck.velocity.tolist() == [[0.0, 0.0]]


@given(seed=st.integers(0, 2**31), speed=st.floats(-2, 12), with_loops=st.booleans())
@settings(max_examples=40, deadline=None)
def test_nothing_crosses_a_wall_however_fast(seed: int, speed: float, with_loops: bool) -> None:
    env = replace(LOOPS if with_loops else MAZE, max_speed=10**speed, max_acceleration=10**speed, drag=0.0)
    generator = torch.Generator().manual_seed(seed)
    state = env.reset(100, generator)
    for _ in range(6):
        action = torch.randn(100, 2, generator=generator) * 10**speed
        action[::5, 0] = 0
        after = env.step(state, action)
        assert ((after.position >= ARENA[0]) & (after.position <= ARENA[1])).all()
        assert not on_walls(env, after.position, state.maze).any()
        # Two straight pieces lead there, so the way through the maze is no longer than both sides of a rectangle.
        way = env.distance(state, after)
        assert (way <= (after.position - state.position).abs().sum(1) + 0.1).all()
        state = after


@every_maze
def test_distance_is_that_of_dijkstra_on_a_fine_grid(env: PointMaze, generator: torch.Generator) -> None:
    """Over the middles of half pixels; a grid of 16 directions is at most 2.8 % too long where the way is straight."""
    per, maze = 2, 1
    ticks = np.arange((SIZE - 4) * per + 1) / per + 1.5
    points = torch.from_numpy(np.stack(np.meshgrid(ticks, ticks, indexing="xy"), -1)).float().flatten(0, 1)
    side, number = len(ticks), np.arange(len(ticks) ** 2).reshape(len(ticks), -1)
    walls = env.mazes.walls[maze]
    rows, columns, costs = [], [], []
    for a, b in [(a, b) for a in range(-2, 3) for b in range(-2, 3) if math.gcd(a, b) == 1]:
        there = number[max(b, 0) : side + min(b, 0), max(a, 0) : side + min(a, 0)].ravel()
        here = number[max(-b, 0) : side + min(-b, 0), max(-a, 0) : side + min(-a, 0)].ravel()
        between = [points[here] + (points[there] - points[here]) * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
        blocked = sum(
            ((point[:, None] > walls[:, :2]) & (point[:, None] < walls[:, 2:])).all(2).any(1) for point in between
        )
        free = (blocked == 0).numpy()
        rows.append(here[free])
        columns.append(there[free])
        costs.append(np.full(int(free.sum()), math.hypot(a, b) / per))
    graph = coo_array(
        (np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), shape=(side**2, side**2)
    )
    free = ~((points[:, None] > walls[:, :2]) & (points[:, None] < walls[:, 2:])).all(2).any(1)
    chosen = free.nonzero()[:, 0][torch.randperm(int(free.sum()), generator=generator)[:300]]
    grid = torch.from_numpy(dijkstra(graph.tocsr(), indices=int(chosen[0]))[chosen.numpy()]).float()

    def at(position: torch.Tensor) -> MazeState:
        num = len(position)
        return env.place(position, torch.full((num,), maze), torch.zeros(num, dtype=torch.long))

    goals = points[chosen]
    exact, straight = env.distance(at(goals[:1].expand_as(goals)), at(goals)), (goals - goals[0]).norm(dim=1)
    assert (exact >= straight - 1e-4).all()
    assert (exact > straight + 10).any()
    assert (exact <= grid + 1e-3).all()
    assert (grid <= exact * 1.03 + 0.5).all()
    assert torch.allclose(exact, env.distance(at(goals), at(goals[:1].expand_as(goals))), atol=1e-4)


def test_picture_shows_the_point_and_the_walls_and_no_velocity(generator: torch.Generator) -> None:
    state = MAZE.reset(30, generator)
    picture = MAZE.render(state)
    assert picture.shape == (30, *MAZE.picture_shape)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    middles = torch.stack([x, y], -1).flatten(0, 1).float()
    for shown, position, maze in zip(picture, state.position, state.maze, strict=True):
        gaussian = torch.exp(-((x - position[0]) ** 2 + (y - position[1]) ** 2) / (2 * 1.3**2))
        assert torch.allclose(shown[0], gaussian, atol=1e-6)
        is_wall = on_walls(MAZE, middles, maze.expand(len(middles)))
        is_wall |= ((middles < 2) | (middles > SIZE - 3)).any(1)
        assert torch.equal(shown[1].flatten(), is_wall.float())
    moving = replace(state, velocity=torch.ones(30, 2))
    assert torch.equal(MAZE.render(moving), picture)


@every_maze
def test_the_point_is_never_on_a_wall(env: PointMaze, generator: torch.Generator) -> None:
    walked = env.random_walks(200, generator, num_steps=40)
    for state in replay(env, walked.start, walked.action):
        column, row = state.position.round().long().unbind(1)
        assert not env.render(state)[torch.arange(200), 1, row, column].any()


@every_maze
def test_an_unsteady_expert_arrives(env: PointMaze, generator: torch.Generator) -> None:
    start, goal = env.random_pairs(200, generator)
    walked = env.expert_walks(start, goal, num_steps=300)
    apart = (walked.position - goal.position[:, None]).norm(dim=2)
    assert (apart < 4.5).any(1).float().mean() > 0.98
    assert apart[:, -1].median() < 2


@every_maze
def test_pairs_are_apart_and_off_the_walls(env: PointMaze, generator: torch.Generator) -> None:
    start, goal = env.random_pairs(500, generator, min_distance=8.0)
    assert ((start.position - goal.position).norm(dim=1) > 8).all()
    assert not env.success(start, goal, radius=8.0).any()
    assert torch.equal(start.maze, goal.maze)
    assert len(start.maze.unique()) == len(env.mazes)
    assert not start.velocity.any()
    for state in (start, goal):
        margin = 2.59 * torch.tensor([-1, -1, 1, 1])
        walls = env.mazes.walls[state.maze] + margin
        inside = ((state.position[:, None] > walls[..., :2]) & (state.position[:, None] < walls[..., 2:])).all(2)
        assert not inside.any()
    with pytest.raises(ValueError, match="lower min_distance"):
        env.random_pairs(10, generator, min_distance=90.0)


def test_what_happens_to_one_does_not_depend_on_how_many_there_are() -> None:
    many, few = (MAZE.random_walks(num, torch.Generator().manual_seed(2)) for num in (300, 7))
    assert same(many.start[:7], few.start)
    assert torch.allclose(many.position[:7], few.position, atol=1e-4)
    states = replay(MAZE, many.start, many.action)
    assert torch.equal(torch.stack([state.position for state in states], 1), many.position)
    alone = replay(MAZE, many.start[4:5], many.action[4:5])
    assert torch.equal(torch.stack([state.position for state in alone], 1), many.position[4:5])
    assert torch.allclose(film(MAZE, few.start, few.action)[3], film(MAZE, few.start[3:4], few.action[3:4])[0])


def test_random_walks_accelerate_within_bounds(generator: torch.Generator) -> None:
    walked = MAZE.random_walks(2000, generator)
    lengths = walked.action.norm(dim=2)
    assert lengths.max() <= MAZE.bounds.max_norm + 1e-5
    assert lengths.min() >= 0.2 / 1.8 * MAZE.max_acceleration - 1e-5
    assert walked.position.diff(dim=1).norm(dim=2).max() <= MAZE.max_speed + 1e-4


def test_the_environment_keeps_its_promises(generator: torch.Generator) -> None:
    env: Environment[MazeState] = MAZE
    assert isinstance(env, Environment)
    assert isinstance(env.bounds, Bounds)
    state = env.reset(3, generator)
    assert {name: tuple(value.shape) for name, value in env.factors(state).items()} == {
        "position": (3, 2),
        "velocity": (3, 2),
        "maze": (3,),
    }
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    assert same(state[:1].with_tensors(kept), state)
    with pytest.raises(ValueError, match="not finite"):
        env.step(state, torch.full((3, 2), math.inf))
