"""Two Rooms: walls that nothing crosses, ways against Dijkstra, pictures against their formula, chance by key."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.special import iv
from scipy.stats import kstest, truncnorm, vonmises
from torch import Tensor

from jepalab.envs.chance import Purpose, draw_keys, normals, truncated_normals, uniforms, von_mises
from jepalab.envs.environment import Environment, join
from jepalab.envs.geometry import GAP, NOWHERE, shorten, sweep
from jepalab.envs.light import Light
from jepalab.envs.roadmap import survey
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import CANDIDATES, EB_JEPA_RADIUS, RoomState, TwoRooms
from jepalab.envs.two_rooms_layout import Layout, Layouts
from jepalab.envs.two_rooms_walks import expert_walks, random_walks
from jepalab.envs.walks import Gait, film, replay
from jepalab.recipes.world_planning import Planning

KINDS = {
    "fixed": TwoRooms(),
    "random door": TwoRooms(layouts=Layouts.random_door()),
    "random wall": TwoRooms(layouts=Layouts.random_wall()),
    "two doors, one open": TwoRooms(layouts=Layouts.two_doors(), light=Light(flip=0.1, opens_a_door=True)),
    "small": TwoRooms(layouts=Layouts(size=33, border=3, wall=(14, 18), doors=((10, 22),), door_half=3)),
    "with television": TwoRooms(television=Television(share=0.1, persistence=0.5)),
}
every_kind = pytest.mark.parametrize("env", KINDS.values(), ids=KINDS.keys())


def keys(seed: int, num: int) -> Tensor:
    return draw_keys(num, torch.Generator().manual_seed(seed))


def same(one: Any, other: Any) -> bool:
    """Bit for bit."""
    one, other = one.tensors(), other.tensors()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lengths_inside(start: Tensor, end: Tensor, boxes: Tensor) -> Tensor:
    """[n k] share of each straight line that lies inside each box, by clipping (Liang and Barsky 1984), in double."""
    start, end, boxes = start.double()[:, None], end.double()[:, None], boxes.double()
    lower, upper = torch.zeros(boxes.shape[:2]).double(), torch.ones(boxes.shape[:2]).double()
    for axis in (0, 1):
        for sign, side in ((-1, axis), (1, axis + 2)):
            speed = sign * (end - start)[..., axis]
            room = sign * (boxes[..., side] - start[..., axis])
            when = room / torch.where(speed == 0, 1.0, speed)
            lower = torch.where(speed < 0, lower.maximum(when), lower)
            upper = torch.where(speed > 0, upper.minimum(when), upper)
            upper = torch.where((speed == 0) & (room < 0), -1.0, upper)
    return (upper - lower).clamp_min(0)


# What is in the way


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["fixed", "random wall", "two doors, one open", "small"]),
    length=st.floats(-3, 30),
)
@settings(max_examples=60, deadline=None)
def test_nothing_crosses_a_wall_however_long_the_action(seed: int, kind: str, length: float) -> None:
    env, generator = KINDS[kind], torch.Generator().manual_seed(seed)
    state = env.reset(200, generator)
    low, high = env.layouts.arena
    position = state.position
    for _ in range(8):
        walls = env.obstacles(state)
        motion = torch.randn(200, 2, generator=generator) * 10**length
        motion[::7, 0] = 0.0
        motion[1::7, 1] = 0.0
        moved = sweep(position, motion, walls, (low, high))
        assert not lengths_inside(position, moved.position, walls).any()
        assert ((moved.position >= low) & (moved.position <= high)).all()
        free = ~moved.stopped.any(1)
        assert torch.equal(moved.position[free], (position + motion)[free])
        assert (moved.share[free] == 1).all()
        assert (moved.share[~free] < 1).all()
        position = moved.position


@given(seed=st.integers(0, 2**31), clutter=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_sweep_among_any_boxes(seed: int, clutter: int) -> None:
    """Boxes that overlap, touch and are missing: no box is entered, and who is stopped is right in front of one."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(300, clutter, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(300, clutter, 2, generator=generator) * 6], 2).round(
        decimals=1
    )
    boxes[:, -1] = torch.tensor(NOWHERE)
    position = torch.rand(300, 2, generator=generator) * 20
    grown = boxes + 2 * GAP * torch.tensor([-1, -1, 1, 1])
    outside = (lengths_inside(position, position, grown) == 0).all(1)
    position, boxes, grown = position[outside], boxes[outside], grown[outside]
    motion = torch.randn(len(boxes), 2, generator=generator) * 15
    moved = sweep(position, motion, boxes, (-5.0, 25.0))
    assert not lengths_inside(position, moved.position, boxes).any()
    further = moved.position + motion / motion.norm(dim=1, keepdim=True) * 0.1
    blocked = (lengths_inside(moved.position, further, grown) > 0).any(1)
    blocked |= ((further <= -5 + 2 * GAP) | (further >= 25 - 2 * GAP)).any(1)
    assert (blocked | ~moved.stopped.any(1)).all()


def test_a_wall_stops_what_runs_into_it_and_lets_go_of_what_leaves() -> None:
    env = TwoRooms()
    layout = Layout(torch.full((4,), 32.0), torch.full((4, 1), 32.0))
    state = env.place(torch.tensor([[29.0, 15.0], [29.0, 32.0], [29.0, 15.0], [59.0, 58.5]]), layout, keys(0, 4))
    action = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 1.0], [2.0, 1.0]])
    expected = [[30.5 - GAP, 15], [31, 32], [30.5 - GAP, 15 + (1.5 - GAP) / 2], [59.5 - GAP, 58.5 + (0.5 - GAP) / 2]]
    after = env.step(state, action)
    assert torch.allclose(after.position, torch.tensor(expected), atol=1e-5)
    again = env.step(after, action)
    assert torch.equal(again.position[[0, 2, 3]], after.position[[0, 2, 3]])
    back = env.step(again, -action)
    assert torch.allclose(back.position[[0, 2, 3]], (after.position - action)[[0, 2, 3]])
    along = env.step(again, torch.tensor([[0.0, -2.0]]).expand(4, 2))
    assert torch.allclose(along.position[0], torch.tensor([30.5 - GAP, 13.0]))


def test_actions_are_shortened_in_their_own_direction() -> None:
    actions = torch.tensor([[3.0, 4.0], [1.0, -2.0], [0.0, 0.0], [3e37, -4e37], [1e-30, 0.0]])
    short = shorten(actions, max_norm=2.45)
    expected = torch.tensor([[1.47, 1.96], [1.0, -2.0], [0.0, 0.0], [1.47, -1.96], [1e-30, 0.0]])
    assert torch.allclose(short, expected, rtol=1e-6)
    assert torch.equal(short[[1, 2, 4]], actions[[1, 2, 4]])
    env = TwoRooms()
    state = env.place(torch.full((5, 2), 18.0), env.layouts.draw(keys(0, 5)), keys(0, 5))
    assert torch.allclose(env.step(state, actions).position, 18 + short)


def test_actions_that_are_no_numbers_are_refused() -> None:
    env = TwoRooms()
    state = env.reset(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="not finite"):
        env.step(state, torch.tensor([[0.0, math.nan], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"2 actions .* got shape \[3, 2\]"):
        env.step(state, torch.zeros(3, 2))


# Ways


def grid_distance(boxes: Tensor, low: float, high: float, start: Tensor, goals: Tensor, per: int = 2) -> np.ndarray:
    """Dijkstra over a grid of 1 / per pixels with 32 directions, around boxes; start and goals are grid points."""
    ticks = np.arange(round(low * per), round(high * per) + 1) / per
    x, y = (part.ravel() for part in np.meshgrid(ticks, ticks, indexing="xy"))
    number, side = np.arange(len(x)).reshape(len(ticks), -1), len(ticks)
    rows, columns, costs = [], [], []
    steps = [(a, b) for a in range(-3, 4) for b in range(-3, 4) if math.gcd(a, b) == 1]
    for a, b in steps:
        there = number[max(b, 0) : side + min(b, 0), max(a, 0) : side + min(a, 0)].ravel()
        here = number[max(-b, 0) : side + min(-b, 0), max(-a, 0) : side + min(-a, 0)].ravel()
        points = torch.from_numpy(np.stack([x, y], 1))
        shrunk = boxes + 1e-6 * torch.tensor([1, 1, -1, -1])
        inside = lengths_inside(points[here], points[there], shrunk[None].expand(len(here), -1, -1))
        free = ~(inside > 0).any(1).numpy()
        rows.append(here[free])
        columns.append(there[free])
        costs.append(np.full(free.sum(), math.hypot(a, b) / per))
    graph = coo_array((np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), shape=(len(x), len(x)))

    def index(point: Tensor) -> np.ndarray:
        cell = ((point - low) * per).round().long()
        return (cell[..., 1] * side + cell[..., 0]).numpy()

    return dijkstra(graph.tocsr(), indices=index(start))[index(goals)]


@every_kind
def test_distance_is_that_of_dijkstra_on_a_fine_grid(env: TwoRooms, generator: torch.Generator) -> None:
    low, high = env.layouts.arena
    one = env.reset(1, generator)
    inner = torch.arange(round((high - low) * 2) + 1) / 2 + low
    all_goals = torch.cartesian_prod(inner, inner)
    free = (lengths_inside(all_goals, all_goals, env.obstacles(one).expand(len(all_goals), -1, -1)) == 0).all(1)
    goals = all_goals[free][torch.randperm(int(free.sum()), generator=generator)[:400]]
    start = goals[:1]
    many = one.repeat(len(goals))
    exact = env.distance(replace(many, position=start.expand_as(goals)), replace(many, position=goals))
    grid = torch.from_numpy(grid_distance(env.obstacles(one)[0], low, high, start[0], goals)).float()
    straight = (goals - start).norm(dim=1)
    assert torch.equal(exact.isinf(), grid.isinf())
    assert exact.isfinite().all()
    assert (exact >= straight - 1e-4).all()
    assert (exact > straight + 0.5).any(), "some ways lead around a corner"
    # A grid of 32 directions is at most 1.4 % too long where the way is straight.
    assert (exact <= grid + 1e-3).all()
    assert (grid <= exact * 1.014 + 0.3).all()


def test_distance_is_symmetric_and_straight_within_a_room(generator: torch.Generator) -> None:
    env = TwoRooms(layouts=Layouts.random_wall())
    start, goal = env.random_pairs(500, generator, rooms="any")
    there, back = env.distance(start, goal), env.distance(goal, start)
    straight = (start.position - goal.position).norm(dim=1)
    assert torch.allclose(there, back, atol=1e-4)
    together = env.same_room(start, goal)
    assert 100 < int(together.sum()) < 400
    assert torch.allclose(there[together], straight[together], atol=1e-4)
    assert (there[~together] >= straight[~together] - 1e-4).all()


def test_distance_around_both_corners_of_a_door() -> None:
    """From far below the door on one side to far below on the other: up, across the wall's 3 pixels, down."""
    env = TwoRooms()
    layout = Layout(torch.full((1,), 32.0), torch.full((1, 1), 32.0))
    start = env.place(torch.tensor([[26.5, 46.5]]), layout, keys(0, 1))
    goal = env.place(torch.tensor([[39.5, 46.5]]), layout, keys(1, 1))
    # The door's lower corners are (30.5, 38.5) and (33.5, 38.5).
    expected = math.hypot(4, 8) + 3 + math.hypot(6, 8)
    assert float(env.distance(start, goal)) == pytest.approx(expected, abs=1e-4)
    # A way that turns left at one corner and right at the other.
    across = env.place(torch.tensor([[33.5, 5.0]]), layout, keys(1, 1))
    below = env.place(torch.tensor([[30.5, 59.0]]), layout, keys(0, 1))
    expected = (59 - 38.5) + math.hypot(3, 13) + (25.5 - 5)
    assert float(env.distance(below, across)) == pytest.approx(expected, abs=1e-4)


def test_waypoints_can_be_walked(generator: torch.Generator) -> None:
    """Always one pixel towards the next turn, without a random turn: the length walked is the distance, and a bit."""
    env = TwoRooms(layouts=Layouts.random_wall())
    state, goal = env.random_pairs(300, generator, rooms="different")
    ways, shortest = env.roadmap(state, clearance=1.5), env.distance(state, goal)
    took = torch.zeros(300)
    for _ in range(150):
        ahead = ways.waypoint(state.position, goal.position) - state.position
        took += (env.distance(state, goal) > 1).float()
        state = env.step(state, shorten(ahead, max_norm=1.0))
    assert (env.distance(state, goal) < 1e-3).all()
    assert (took <= shortest * 1.05 + 3).all()


def test_a_place_without_corners_has_straight_ways() -> None:
    ways = survey(torch.tensor([[NOWHERE]]), (0.0, 10.0))
    assert ways[:0].distance(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0,)
    assert float(ways.distance(torch.tensor([[1.0, 1.0]]), torch.tensor([[4.0, 5.0]]))) == pytest.approx(5)


# Pictures


@every_kind
def test_picture_is_a_gaussian_and_the_walls(env: TwoRooms, generator: torch.Generator) -> None:
    plain = replace(env, television=None, light=None)
    state = random_walks(plain, 40, generator).start
    size, border = env.layouts.size, env.layouts.border
    picture = plain.render(state)
    assert picture.shape == (40, *env.picture_shape)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for shown, position, wall, doors in zip(
        picture, state.position, state.layout.wall, state.layout.doors, strict=True
    ):
        gaussian = torch.exp(-((x - position[0]) ** 2 + (y - position[1]) ** 2) / (2 * 1.3**2))
        assert torch.allclose(shown[0], gaussian, atol=1e-6)
        # EB-JEPA's picture of the walls, of which ours has as many doors as you like.
        walls = (x - wall).abs() <= env.layouts.wall_width // 2
        for door in doors:
            walls &= (y - door).abs() > env.layouts.door_half
        walls[:, border - 1] = walls[:, -border] = walls[border - 1] = walls[-border] = True
        assert torch.equal(shown[1], walls.float())


@every_kind
def test_the_dot_is_never_on_a_wall(env: TwoRooms, generator: torch.Generator) -> None:
    walked = random_walks(env, 200, generator, gait=Gait(concentration=50.0, mean=1.8))
    for state in replay(env, walked.start, walked.action):
        walls = env.render(state.blind() if env.television is None else state)[:, 1]
        column, row = state.position.round().long().unbind(1)
        assert not walls[torch.arange(200), row, column].any()


# Trajectories


@every_kind
def test_random_walks_are_what_was_asked_for(env: TwoRooms, generator: torch.Generator) -> None:
    gait = Gait(mean=0.8, longest=1.4) if env.layouts.size < 40 else Gait()
    walked = random_walks(env, 3000, generator, gait=gait)
    assert walked.action.shape == (3000, 16, 2)
    assert walked.position.shape == (3000, 17, 2)
    assert torch.equal(walked.start.position, walked.position[:, 0])
    lengths = walked.action.norm(dim=2)
    assert (lengths >= gait.shortest - 1e-5).all()
    assert (lengths <= gait.longest + 1e-5).all()
    drawn = truncnorm((0.2 - gait.mean) / 0.4, (gait.longest - gait.mean) / 0.4, loc=gait.mean, scale=0.4)
    assert kstest(lengths.flatten().numpy(), drawn.cdf).pvalue > 0.001
    right = walked.position[:, :, 0] > walked.start.layout.wall[:, None]
    crossing = (right != right[:, :1]).any(1).float().mean()
    # Those that are steered, and a few of the others: more in small rooms, fewer where doors close on the way.
    assert (0.25 if env.light else 0.34) < crossing < (0.45 if env.layouts.size < 40 else 0.41)
    without = random_walks(env, 3000, generator, crossing_share=0.0, gait=gait).position[:, :, 0]
    right = without > env.layouts.draw(keys(0, 1)).wall if env.layouts.wall[0] == env.layouts.wall[1] else None
    if right is not None:
        assert (right != right[:, :1]).any(1).float().mean() < 0.08


@every_kind
def test_actions_explain_positions_and_replay_gives_the_same_to_the_last_bit(
    env: TwoRooms, generator: torch.Generator
) -> None:
    walked = random_walks(env, 300, generator)
    states = replay(env, walked.start, walked.action)
    assert torch.equal(torch.stack([state.position for state in states], 1), walked.position)
    moved = walked.position.diff(dim=1)
    for i, state in enumerate(states[:-1]):
        reach = torch.cat([state.position - 2.5, state.position + 2.5], 1)[:, None]
        walls = env.obstacles(state)
        near = ((reach[..., :2] < walls[..., 2:]) & (reach[..., 2:] > walls[..., :2])).all(2).any(1)
        low, high = env.layouts.arena
        near |= ((state.position < low + 2.5) | (state.position > high - 2.5)).any(1)
        assert torch.allclose(moved[:, i][~near], walked.action[:, i][~near], atol=1e-5)
        assert (moved[:, i].norm(dim=1) <= walked.action[:, i].norm(dim=1) + 1e-4).all()
    rows = torch.tensor([17, 3, 200])
    some = walked[rows]
    assert torch.allclose(film(env, some.start, some.action), film(env, walked.start, walked.action)[rows], atol=1e-5)


def test_turns_of_a_walk_are_von_mises(generator: torch.Generator) -> None:
    walked = random_walks(TwoRooms(), 2000, generator, crossing_share=0.0)
    direction = torch.atan2(walked.action[..., 1], walked.action[..., 0])
    turns = torch.remainder(direction.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    assert float(turns.cos().mean()) == pytest.approx(iv(1, 5) / iv(0, 5), abs=0.005)
    assert kstest(turns.flatten().numpy(), vonmises(5).cdf).pvalue > 0.001
    assert kstest(direction[:, 0].numpy(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 0.001


@every_kind
def test_an_unsteady_expert_arrives(env: TwoRooms, generator: torch.Generator) -> None:
    if env.light is not None:
        env = replace(env, light=replace(env.light, flip=0.02))
    start, goal = env.random_pairs(200, generator, rooms="different")
    walked = expert_walks(env, start, goal, num_steps=200)
    apart = (walked.position - goal.position[:, None]).norm(dim=2)
    assert (apart < EB_JEPA_RADIUS).any(1).float().mean() >= 0.99


# Starts and goals


@every_kind
@pytest.mark.parametrize("rooms", ["same", "different", "any"])
def test_pairs_are_apart_and_in_the_rooms_that_were_asked_for(
    env: TwoRooms, rooms: Any, generator: torch.Generator
) -> None:
    start, goal = env.random_pairs(400, generator, min_distance=6.0, rooms=rooms)
    assert ((start.position - goal.position).norm(dim=1) > 6).all()
    assert not env.success(start, goal, radius=6.0).any()
    share = env.same_room(start, goal).float().mean()
    assert {"same": share == 1, "different": share == 0, "any": 0.3 < share < 0.7}[rooms]
    assert same(start.layout, goal.layout)
    assert env.success(start, start).all()
    walls = env.layouts.walls(start.layout)
    for state in (start, goal):
        margin = 2 * env.dot_std * torch.tensor([-1, -1, 1, 1]) * 0.999
        assert not lengths_inside(state.position, state.position, walls + margin).any()
        low, high = env.layouts.arena
        assert ((state.position > low + 2.59) & (state.position < high - 2.59)).all()


def test_pairs_that_cannot_be_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=f"among {CANDIDATES} candidates; lower min_distance"):
        TwoRooms().random_pairs(10, generator, min_distance=70.0)


def test_starts_are_uniform_over_both_rooms(generator: torch.Generator) -> None:
    position = TwoRooms().reset(4000, generator).position
    x = torch.where(position[:, 0] > 32, position[:, 0] - 4, position[:, 0])
    assert kstest(x.numpy(), "uniform", args=(5, 50)).pvalue > 0.001
    assert kstest(position[:, 1].numpy(), "uniform", args=(5, 54)).pvalue > 0.001


# Chance


@every_kind
def test_what_happens_to_one_does_not_depend_on_how_many_there_are(env: TwoRooms) -> None:
    def begin(num: int) -> RoomState:
        return env.reset(num, torch.Generator().manual_seed(3))

    many, few = begin(37), begin(5)
    assert same(many[:5], few)
    action = torch.randn(37, 2, generator=torch.Generator().manual_seed(4)) * 2
    for _ in range(12):
        many, few = env.step(many, action), env.step(few, action[:5])
    assert torch.equal(many.position[:5], few.position)
    assert torch.allclose(env.render(many)[:5], env.render(few), atol=1e-5)
    one = env.step(begin(37)[7:8], action[7:8])
    assert torch.equal(one.position, env.step(begin(37), action).position[7:8])
    start, goal = env.random_pairs(20, torch.Generator().manual_seed(1))
    fewer, goals = env.random_pairs(4, torch.Generator().manual_seed(1))
    assert same(start[:4], fewer)
    assert same(goal[:4], goals)
    walked = random_walks(env, 300, torch.Generator().manual_seed(2))
    first = random_walks(env, 20, torch.Generator().manual_seed(2))
    assert torch.allclose(walked.position[:20], first.position, atol=1e-3)


@every_kind
def test_the_generator_decides_everything(env: TwoRooms) -> None:
    def walked(seed: int) -> Any:
        return random_walks(env, 20, torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    first = walked(5)
    torch.manual_seed(1)
    assert same(walked(5), first)
    assert not same(walked(6), first)


def test_numbers_of_different_keys_clocks_and_purposes_are_independent_and_uniform() -> None:
    key = torch.cat([torch.arange(300), keys(0, 300)])
    rows = [
        uniforms(key, purpose, clock, num=64)
        for purpose in (Purpose.TELEVISION, Purpose.LIGHT)
        for clock in (0, 1, torch.arange(600))
    ]
    together = torch.stack(rows)
    assert ((together > 0) & (together < 1)).all()
    assert kstest(together.flatten().numpy(), "uniform").pvalue > 0.001
    assert len(together.flatten().unique()) > 0.97 * together.numel()
    flat = together.flatten(1).double()
    others = torch.corrcoef(flat) - torch.eye(6)
    # The clock of the third is that of the first for key 0 and of the second for key 1: 64 numbers of 38 400 agree.
    assert others.abs().max() < 5 / math.sqrt(flat.shape[1])
    beside = [(together[:, 1:], together[:, :-1]), (together[..., 1:], together[..., :-1])]
    for one, other in beside:
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.01


def test_distributions_are_those_of_scipy() -> None:
    lucky = uniforms(keys(0, 5000), Purpose.WALK, num=3)
    assert kstest(normals(lucky[:, 0]).numpy(), "norm").pvalue > 0.001
    assert kstest(von_mises(lucky[:, 1], concentration=2.0).numpy(), vonmises(2.0).cdf).pvalue > 0.001
    bounded = truncated_normals(lucky[:, 2], mean=1.0, std=0.4, low=0.2, high=1.8)
    assert kstest(bounded.numpy(), truncnorm(-2, 2, loc=1.0, scale=0.4).cdf).pvalue > 0.001
    quantiles = torch.tensor([0.01, 0.25, 0.5, 0.9])
    expected = torch.from_numpy(vonmises(5.0).ppf(quantiles.numpy())).float()
    assert torch.allclose(von_mises(quantiles, concentration=5.0), expected, atol=1e-4)


# Television


def screens(television: Television, num: int, num_frames: int) -> tuple[Tensor, Tensor, TwoRooms]:
    """Cells [t n g g] and what they look like [t n h w] on pictures without a dot in them."""
    env = TwoRooms(television=television)
    states = replay(env, env.reset(num, torch.Generator().manual_seed(0)), torch.zeros(num, num_frames - 1, 2))
    cells = [state.screen for state in states if state.screen is not None]
    shown = [television.draw(cell, env.layouts.arena, size=65) for cell in cells]
    return torch.stack(cells), torch.stack(shown), env


@pytest.mark.parametrize("persistence", [0.0, 0.6, 0.95, 1.0])
def test_cells_of_the_television_are_autoregressive(persistence: float) -> None:
    cells, shown, _ = screens(Television(share=0.05, persistence=persistence), 60, 12)
    flat = cells.flatten(1)
    for lag in (1, 3):
        found = torch.corrcoef(torch.stack([flat[:-lag].flatten(), flat[lag:].flatten()]))[0, 1]
        assert float(found) == pytest.approx(persistence**lag, abs=0.02)
    for frame in (0, 11):
        side = cells.shape[-1]
        values = shown[frame, :, 60 - side : 60, 60 - side : 60].flatten()
        assert kstest(values[::7].numpy(), "uniform").pvalue > 0.001
    # Neither other cells nor other episodes know anything of a cell.
    assert abs(float(torch.corrcoef(torch.stack([cells[0, 1:].flatten(), cells[0, :-1].flatten()]))[0, 1])) < 0.05
    beside = torch.stack([cells[0, :, :, 1:].flatten(), cells[0, :, :, :-1].flatten()])
    assert abs(float(torch.corrcoef(beside)[0, 1])) < 0.05


def test_programs_of_the_television() -> None:
    shown = {
        program: screens(Television.showing(program), 3, 3)[1] for program in ("noise", "video", "episode", "dataset")
    }
    still = {program: torch.equal(frames[0], frames[2]) for program, frames in shown.items()}
    assert still == {"noise": False, "video": False, "episode": True, "dataset": True}
    alike = {program: torch.equal(frames[:, 0], frames[:, 1]) for program, frames in shown.items()}
    assert alike == {"noise": False, "video": False, "episode": False, "dataset": True}
    other = screens(Television(persistence=1.0, wallpaper=1), 3, 3)[1]
    assert not torch.equal(other, shown["dataset"])
    with pytest.raises(ValueError, match="needs persistence=1"):
        Television(persistence=0.5, wallpaper=0)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("cell", [1, 3])
def test_the_television_covers_its_share_in_the_corner_where_the_dot_may_go(share: float, cell: int) -> None:
    _, shown, env = screens(Television(share=share, strength=0.8, cell=cell), 4, 1)
    covered = (shown[0] > 0).all(0)
    assert covered.float().mean() == pytest.approx(share, abs=0.01)
    rows, columns = covered.nonzero().unbind(1)
    assert int(rows.max()) == int(columns.max()) == 59, "the last pixel inside the border"
    assert shown.max() <= 0.8
    side = int(rows.max() - rows.min()) + 1
    first = shown[0, 0, 60 - side :, 60 - side :]
    assert (first[0, 0] == first[:cell, :cell]).all()
    position = env.reset(2000, torch.Generator().manual_seed(0)).position
    assert (position > 60 - side).all(1).float().mean() > share / 2


def test_the_goal_has_a_television_of_its_own(generator: torch.Generator) -> None:
    env = TwoRooms(television=Television.showing("episode"))
    start, goal = env.random_pairs(50, generator)
    assert start.screen is not None
    assert goal.screen is not None
    one, other = start.screen.flatten(), goal.screen.flatten()
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.05


def test_the_television_adds_to_the_picture_and_takes_nothing_away(generator: torch.Generator) -> None:
    plain, env = TwoRooms(), TwoRooms(television=Television(share=0.25))
    state = env.reset(200, generator)
    assert env.television is not None
    assert state.screen is not None
    clean = plain.render(state.blind())
    noisy = env.render(state)
    added = env.television.draw(state.screen, env.layouts.arena, size=65)
    assert torch.allclose(noisy[:, 0], clean[:, 0] + added - clean[:, 0] * added, atol=1e-6)
    assert torch.equal(noisy[:, 1], clean[:, 1])
    assert (noisy <= 1).all()
    assert (noisy >= 0).all()
    with pytest.raises(ValueError, match="no screen"):
        env.render(state.blind())
    blind, seen = env.step(state.blind(), torch.ones(200, 2)), env.step(state, torch.ones(200, 2))
    assert blind.screen is None
    assert same(blind, seen.blind())


# Light


@pytest.mark.parametrize("flip", [0.0, 0.02, 0.1, 0.5])
def test_the_light_changes_as_often_as_it_should(flip: float, generator: torch.Generator) -> None:
    env = TwoRooms(light=Light(flip=flip, contrast=0.4))
    states = replay(env, env.reset(1500, generator), torch.zeros(1500, 30, 2))
    is_on = torch.stack([env.factors(state)["light"] for state in states], 1)
    assert is_on[:, 0].float().mean() == pytest.approx(0.5, abs=0.04)
    changes = is_on.diff(dim=1).abs().float()
    assert changes.mean() == pytest.approx(flip, abs=0.006)
    if 0 < flip < 0.5:
        again = (changes[:, 1:] * changes[:, :-1]).mean()
        assert again == pytest.approx(flip**2, abs=0.003), "changes do not depend on the last one"
    square = env.render(states[0])[:, 0, 8:13, 8:13].mean((1, 2))
    far = (states[0].position - 10).norm(dim=1) > 15
    expected = torch.where(is_on[:, 0] == 1, 0.7, 0.3)
    assert torch.allclose(square[far], expected[far], atol=1e-4)


def test_the_light_is_switched_by_stepping_onto_it() -> None:
    layout = Layouts.fixed().draw(keys(0, 3))
    beside, on_it, away = torch.tensor([[6.0, 10.0], [10.0, 10.0], [20.0, 20.0]])
    # Onto it, along, along, off to the right, and back onto it.
    moves = torch.tensor([[2.4, 0.0], [1.0, 0.0], [2.4, 0.0], [2.4, 0.0], [-2.4, 0.0]])
    for touched, expected in ((True, [1, 0, 0, 0, 1]), (False, [0] * 5)):
        env = TwoRooms(light=Light(changes_when_hit=touched))
        state = env.place(torch.stack([beside, on_it, away]), layout, keys(1, 3))
        states = replay(env, state, moves.expand(3, 5, 2))
        is_on = torch.stack([env.factors(each)["light"] for each in states], 1)
        assert is_on.diff(dim=1).abs().tolist() == [expected, [0] * 5, [0] * 5]


def test_the_light_decides_which_door_is_open() -> None:
    layouts = Layouts.two_doors()
    layout = layouts.draw(keys(0, 64))
    upper = torch.tensor([[29.0, 18.0]]).expand(64, 2)
    for relevant in (True, False):
        env = TwoRooms(layouts=layouts, light=Light(opens_a_door=relevant))
        state = env.place(upper, layout, keys(1, 64))
        assert state.is_on is not None
        after = replay(env, state, torch.tensor([2.4, 0.0]).expand(64, 4, 2))[-1]
        passed = after.position[:, 0] > 34
        assert torch.equal(passed, state.is_on if relevant else torch.ones(64, dtype=torch.bool))
        goal = replace(state, position=torch.tensor([[36.0, 18.0]]).expand(64, 2))
        ways = env.distance(state, goal)
        assert torch.allclose(ways[passed], torch.tensor(7.0))
        assert (ways[~passed] > 50).all()
        # An open door looks like a closed one, but for the light.
        walls = env.render(state)[:, 1]
        assert torch.equal(walls, walls[:1].expand_as(walls))
    with pytest.raises(ValueError, match=r"needs two, got 1; use Layouts\.two_doors"):
        TwoRooms(light=Light(opens_a_door=True))


@pytest.mark.parametrize(("flip", "touched", "copied"), [(0.0, False, True), (0.0, True, True), (0.5, False, False)])
def test_a_goal_shows_the_light_of_the_start_unless_chance_changes_it(flip: float, touched: bool, copied: bool) -> None:
    env = TwoRooms(light=Light(flip=flip, changes_when_hit=touched))
    start, goal = env.random_pairs(200, torch.Generator().manual_seed(0))
    assert start.is_on is not None
    assert goal.is_on is not None
    assert torch.equal(start.is_on, goal.is_on) == copied
    assert 0 < int(start.is_on.sum()) < 200


def test_a_door_that_chance_opens_again_is_as_far_as_the_wait() -> None:
    """By hand: 7 pixels through the upper door, and 2.45 for each step until it opens, unless the lower one is less."""
    layouts = Layouts.two_doors()
    layout = layouts.draw(keys(0, 2))
    start, end = (torch.tensor([[x, 18.0]]).expand(2, 2) for x in (29.0, 36.0))
    closed_for_good = TwoRooms(layouts=layouts, light=Light(opens_a_door=True))
    around = None
    for flip, hold, wait in ((0.0, 1, math.inf), (0.5, 1, 4.9), (0.1, 1, 24.5), (0.5, 8, 39.2), (0.02, 1, 122.5)):
        env = replace(closed_for_good, light=Light(flip=flip, hold=hold, opens_a_door=True))
        state = replace(env.place(start, layout, keys(1, 2)), is_on=torch.tensor([True, False]))
        goal = replace(state, position=end)
        ways = env.distance(state, goal)
        around = ways[1] if around is None else around
        assert 50 < float(around) < 122.5
        torch.testing.assert_close(ways, torch.stack([torch.tensor(7.0), around.clamp_max(7 + wait)]))
        # The unsteady expert goes there as well: on to the closed door, or down to the open one.
        walked = expert_walks(env, state, goal, num_steps=6, gait=Gait(concentration=1e6)).position
        assert bool(walked[1, -1, 1] > 21) == (7 + wait > float(around))
    idle = TwoRooms(layouts=layouts, light=Light(flip=0.5))
    assert math.isinf(idle.wait)


@pytest.mark.parametrize("flip", [0.02, 0.5])
def test_the_ceiling_is_one_where_chance_opens_doors(flip: float) -> None:
    """By the doors of the moment it takes 28.7 steps at 0.5, and with all doors taken as open it fails at 0.02."""
    env = TwoRooms(layouts=Layouts.two_doors(), light=Light(flip=flip, opens_a_door=True))
    planning = Planning(cross_room=16, same_room=0, num_steps=60, num_samples=40, num_iterations=3)
    trial = planning.trial(env)
    within = trial.play(planning.stand_in("oracle", env)).within[EB_JEPA_RADIUS]
    assert bool(within.any(1).all())
    assert float((~within).cummin(1).values.sum(1).float().mean()) < {0.02: 33, 0.5: 28}[flip]


def test_who_stands_in_a_door_that_closes_may_leave_it() -> None:
    layouts = Layouts.two_doors()
    env = TwoRooms(layouts=layouts, light=Light(opens_a_door=True))
    state = env.place(torch.tensor([[32.0, 18.0]]).expand(4, 2), layouts.draw(keys(0, 4)), keys(1, 4))
    state = replace(state, is_on=torch.tensor([False] * 4))
    ways = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.1], [0.0, 1.0]])
    states = replay(env, state, ways[:, None].expand(4, 8, 2))
    assert (states[-1].position[:3, 0] - 32).abs().min() > 2
    assert states[-1].position[3].tolist() == pytest.approx([32.0, 22.5 - GAP], abs=1e-5)
    # Once outside, nobody gets in again.
    back = replay(env, states[-1], -ways[:, None].expand(4, 8, 2))[-1]
    assert ((back.position[:3, 0] - 32).abs() > 1.5).all()
    assert torch.equal(back.position[:3, 0] > 32, torch.tensor([True, False, True]))


# States and layouts


def test_states_are_rows_that_can_be_picked_copied_joined_and_kept() -> None:
    env = KINDS["with television"]
    state = env.reset(6, torch.Generator().manual_seed(0))
    assert len(state) == 6
    assert same(join([state[:2], state[2:]]), state)
    assert same(state[torch.tensor([True, False] * 3)], state[::2])
    assert same(state.repeat(3)[torch.arange(0, 18, 3)], state)
    assert torch.equal(state.repeat(2).position[:2], state.position[[0, 0]])
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    assert set(kept) == {"position", "key", "clock", "layout.wall", "layout.doors", "screen"}
    assert same(state[:0].with_tensors(kept), state)
    with pytest.raises(ValueError, match="other settings"):
        TwoRooms().reset(2, torch.Generator()).with_tensors(kept)


def test_the_environment_keeps_its_promises() -> None:
    env: Environment[RoomState] = TwoRooms()
    assert isinstance(env, Environment)
    assert env.bounds.max_norm == 2.45
    state = env.reset(3, torch.Generator().manual_seed(0))
    assert env.proprioception(state).shape == (3, 0)
    factors = env.factors(state)
    assert {name: tuple(value.shape) for name, value in factors.items()} == {
        "position": (3, 2),
        "room": (3,),
        "wall": (3, 1),
        "doors": (3, 1),
    }
    assert torch.equal(factors["room"] == 1, state.position[:, 0] > 32)


def test_layouts_are_drawn_from_all_that_were_asked_for() -> None:
    layout = Layouts.random_wall().draw(keys(0, 20000))
    for drawn in (layout.wall, layout.doors[:, 0]):
        values, counts = drawn.unique(return_counts=True)
        assert values.tolist() == list(range(20, 45))
        assert counts.min() > 680
    both = torch.stack([layout.wall, layout.doors[:, 0]])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"wall": (5, 5)}, "8 pixels of room"),
        ({"doors": ((8, 8),)}, "does not fit"),
        ({"doors": ((20, 30), (40, 40))}, "does not fit"),
        ({"wall_width": 2}, "odd width"),
        ({"doors": ()}, "Wanted a wall"),
    ],
)
def test_layouts_that_cannot_be_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layouts(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Television(share=0.3),
        lambda: Light(flip=1.5),
        lambda: TwoRooms(max_norm=0.0),
        lambda: Gait(shortest=2.0),
        lambda: random_walks(TwoRooms(), 2, torch.Generator(), crossing_share=2.0),
        lambda: random_walks(TwoRooms(), 2, torch.Generator(), num_steps=0),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        wrong()
