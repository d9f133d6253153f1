"""To and from gymnasium, on its own checker and on the real worlds where they are installed."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jepalab.envs import gymnasium_adapters
from jepalab.envs.environment import Environment, join
from jepalab.envs.gymnasium_adapters import Worlds, as_gymnasium, point_maze_worlds, pusht_worlds, reacher_worlds
from jepalab.envs.light import Light
from jepalab.envs.point_maze import PointMaze
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import TwoRooms
from jepalab.envs.two_rooms_layout import Layouts

OURS = {
    "two rooms": TwoRooms(),
    "everything": TwoRooms(
        layouts=Layouts.two_doors(), television=Television(), light=Light(flip=0.1, opens_a_door=True)
    ),
    "point maze": PointMaze.drawn(seed=0, num_mazes=2),
}


@pytest.mark.parametrize("ours", OURS.values(), ids=OURS.keys())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_our_environments_pass_the_checker_of_gymnasium(ours: Any) -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    env = as_gymnasium(ours, radius=4.5, min_distance=10.0, max_steps=20)
    check_env(env.unwrapped, skip_render_check=True)
    seen, info = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert (seen["pixels"] == again["pixels"]).all()
    assert seen["pixels"].shape == (*ours.picture_shape[1:], 2)
    assert env.render().shape == (*ours.picture_shape[1:], 3)
    assert info["distance"] >= 10 - 4.5
    assert ("proprioception" in seen) == isinstance(ours, PointMaze)
    env.action_space.seed(0)
    for step in range(20):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample() * 0)
        assert (reward, terminated, truncated) == (0.0, False, step == 19)


def test_an_episode_of_gymnasium_is_ours_and_ends_at_the_goal(generator: torch.Generator) -> None:
    pytest.importorskip("gymnasium")
    ours = TwoRooms()
    start, goal = ours.random_pairs(1, generator, min_distance=10.0, rooms="same")
    env = as_gymnasium(ours, radius=1.5, min_distance=10.0)
    seen, _ = env.reset(seed=0, options={"start": start, "goal": goal})
    assert (seen["goal"] == (ours.render(goal)[0] * 255).round().byte().permute(1, 2, 0).numpy()).all()
    state = start
    for _ in range(60):
        action = ours.bounds.clip(goal.position - state.position)
        _, reward, terminated, _, info = env.step(action[0].numpy())
        state = ours.step(state, action)
        assert info["position"].tolist() == state.position[0].tolist()
        assert reward == float(terminated) == float(ours.success(state, goal, radius=1.5))
        if terminated:
            break
    assert terminated


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda: as_gymnasium(TwoRooms(), radius=4.5, min_distance=5.0), "gymnasium"),
        (pusht_worlds, "gym_pusht"),
        (point_maze_worlds, "gymnasium_robotics"),
        (reacher_worlds, "dm_control"),
    ],
)
def test_what_is_missing_is_named(call: Callable[[], Any], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "jepalab\[worlds\]"'):
        call()


def test_importing_the_adapters_imports_none_of_them() -> None:
    import subprocess

    code = (
        "import sys, jepalab.envs.gymnasium_adapters as _;"
        "print(sorted({'gymnasium', 'gym_pusht', 'mujoco', 'dm_control', 'pygame'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Worlds of other people

NEEDS = {"pusht": "gym_pusht", "point maze": "gymnasium_robotics", "reacher": "dm_control"}
MAKE: dict[str, Callable[..., Worlds]] = {
    "pusht": pusht_worlds,
    "point maze": point_maze_worlds,
    "reacher": reacher_worlds,
}
RADII = {"pusht": 20.0, "point maze": 0.45, "reacher": 0.05}


@pytest.fixture(params=NEEDS)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A name, and worlds of that name: three simulators."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(NEEDS[request.param])
        with MAKE[request.param](3) as worlds:
            yield request.param, worlds


def random_actions(worlds: Worlds, num_steps: int, generator: torch.Generator) -> torch.Tensor:
    low, high = worlds.bounds.low, worlds.bounds.high
    return low + torch.rand(num_steps, 3, len(low), generator=generator) * (high - low)


real_worlds = pytest.mark.filterwarnings("ignore")


@real_worlds
def test_worlds_are_environments(world: Any, generator: torch.Generator) -> None:
    name, worlds = world
    assert isinstance(worlds, Environment)
    start, goal = worlds.random_pairs(3, generator, min_distance=RADII[name])
    assert not worlds.success(start, goal, radius=RADII[name]).any()
    assert worlds.success(start, start, radius=RADII[name]).all()
    straight = worlds.distance(start, goal)
    assert (straight > RADII[name]).all()
    assert torch.allclose(worlds.distance(start, start), torch.zeros(3))
    state = worlds.step(start, random_actions(worlds, 1, generator)[0])
    assert not torch.equal(state.truth, start.truth)
    factors = worlds.factors(state)
    assert torch.cat(list(factors.values()), 1).shape == state.truth.shape
    assert torch.equal(worlds.proprioception(state), factors["velocity"])
    with pytest.raises(ValueError, match="lower it"):
        worlds.random_pairs(1, generator, min_distance=1e6)


@real_worlds
def test_what_follows_depends_on_the_state_alone(world: Any, generator: torch.Generator) -> None:
    """Worlds that keep their places run as they do without us; moved to other simulators they do the same."""
    name, worlds = world
    # In PushT, of 512 pixels: the pressure between what touches is not part of any state.
    near = {"rtol": 0.0, "atol": 2.0} if name == "pusht" else {"rtol": 0.0, "atol": 1e-6}
    actions = random_actions(worlds, 25, generator)
    states = [worlds.reset(3, generator)]
    for action in actions:
        states.append(worlds.step(states[-1], action))
    turned = torch.tensor([2, 0, 1])
    for i in (0, 7, 24):
        moved = worlds.step(states[i][turned], actions[i][turned])
        assert torch.allclose(moved.truth, states[i + 1].truth[turned], **near)
        alone = worlds.step(states[i][1:2], actions[i][1:2])
        assert torch.allclose(alone.truth, states[i + 1].truth[1:2], **near)
    copies = worlds.step(join([states[3], states[3]]), torch.cat([actions[3], actions[3]]))
    assert torch.allclose(copies.truth, states[4].truth.repeat(2, 1), **near)


@real_worlds
def test_pictures_are_those_of_the_states_and_leave_no_trace(world: Any, generator: torch.Generator) -> None:
    name, worlds = world
    state = worlds.reset(3, generator)
    try:
        picture = worlds.render(state)
    except Exception as error:  # MuJoCo's errors without OpenGL are of no common kind
        if name == "pusht":
            raise
        pytest.skip(f"no OpenGL here: {error}")
    assert picture.shape == (3, *worlds.picture_shape)
    assert ((picture >= 0) & (picture <= 1)).all()
    assert picture.std() > 0.05
    assert (picture[0] - picture[1]).abs().max() > 0.1
    actions = random_actions(worlds, 10, generator)
    after = state
    for action in actions:
        after = worlds.step(after, action)
        worlds.render(after)
    unseen = state
    for action in actions:
        unseen = worlds.step(unseen, action)
    assert torch.allclose(unseen.truth, after.truth, rtol=1e-5, atol=1e-5)
    assert torch.equal(worlds.render(state), picture)
    assert not torch.equal(worlds.render(after), picture)
    # A second renderer, after the first was closed, draws the same: one that is left open does not.
    worlds.close()
    with MAKE[name](1) as others:
        assert torch.equal(others.render(state), picture)


@real_worlds
def test_our_reset_is_theirs(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    """PushT through gymnasium.make with the same seed, and the same actions: the same states."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pytest.importorskip("gym_pusht")
    import gymnasium

    with pusht_worlds(1) as worlds:
        state = worlds._begin([11])
        theirs = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")
        seen, _ = theirs.reset(seed=11)
        assert state.truth[0, :5].tolist() == pytest.approx(seen.tolist(), rel=1e-5)
        # Straight through the block, so that there is contact.
        for target in (seen[2:4], seen[2:4] + 60, seen[2:4] - 60):
            for _ in range(6):
                action = torch.tensor(target).float().clamp(0, 512)
                seen = theirs.step(action.double().numpy())[0]
                state = worlds.step(state, action[None])
                assert state.truth[0, :5].tolist() == pytest.approx(seen.tolist(), rel=1e-4, abs=1e-3)
        theirs.close()


@real_worlds
def test_ways_in_the_maze_go_around_the_wall() -> None:
    pytest.importorskip("gymnasium_robotics")
    with point_maze_worlds(1) as worlds:
        state = worlds.reset(2, torch.Generator().manual_seed(0))
        truth = torch.tensor([[-1.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0]])
        start, goal = (gymnasium_adapters.WorldState(state.memory[:1], truth[row : row + 1].clone()) for row in (0, 1))
        # The wall's end, rounded by the ball's radius: corners (0.6, 0.6) and (0.6, -0.6).
        expected = 2 * (1.6**2 + 0.4**2) ** 0.5 + 1.2
        assert float(worlds.distance(start, goal)) == pytest.approx(expected, abs=1e-4)
        assert float(worlds.success(start, goal, radius=1.9)) == 0
        assert float(worlds.success(start, goal, radius=2.1)) == 1


@real_worlds
def test_actions_can_be_repeated(generator: torch.Generator) -> None:
    pytest.importorskip("gymnasium_robotics")
    with point_maze_worlds(1) as once, point_maze_worlds(1, action_repeat=4) as often:
        start = once.reset(1, generator)
        action, state = torch.tensor([[0.5, -0.5]]), start
        for _ in range(4):
            state = once.step(state, action)
        assert torch.allclose(often.step(start, action).truth, state.truth)
    with pytest.raises(ValueError, match="action_repeat of at least 1"):
        point_maze_worlds(1, action_repeat=0)
    with pytest.raises(ValueError, match="out of UMaze, Open, Medium, Large"):
        gymnasium_adapters.MujocoMaze(maze="Small", size=64)
