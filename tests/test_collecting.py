"""Episodes from environment to planning: recorded, resumed, converted, cut into windows, learned from, acted in."""

from __future__ import annotations

import builtins
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepalab.cli import main
from jepalab.collecting import play, record
from jepalab.data.episode_windows import SIMULATOR, EpisodeWindows, measure, split_of
from jepalab.data.episode_writer import EpisodeWriter
from jepalab.data.episodes import Episode, Episodes
from jepalab.data.trajectories import Trajectories
from jepalab.envs.actions import FromTheAgent, Rescaled, innermost
from jepalab.envs.environment import Environment
from jepalab.envs.gymnasium_adapters import WorldState
from jepalab.envs.light import Light
from jepalab.envs.policies import PushingPolicy, RandomPolicy, choose_policy
from jepalab.envs.scenes import KINDS, Scene, Setting, anywhere, close
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.plan_films import train_microscope
from jepalab.objectives.jepa_world import JEPAWorld
from jepalab.recipes import worlds
from jepalab.recipes.stored_world import Stored, World
from jepalab.recipes.world_bench import Rooms, WorldBench, WorldNetwork, WorldTraining
from jepalab.recipes.world_grounds import TooFewStatesError, ground_of
from jepalab.recipes.world_judging import Planning, acting, acting_subjects, make_floor, understanding
from jepalab.types import WorldModel

SMALL = ["--num-frames", "4", "--ahead", "2", "--batch-size", "4", "--dim", "8", "--widths", "8", "8", "8"]
QUICK = ["--num-steps", "6", "--horizon", "2", "--num-samples", "10", "--num-iterations", "1"]
NETWORK = WorldNetwork(dim=8, widths=(8, 8, 8), dynamics_width=16)
BRIEF = WorldTraining(steps=2, batch_size=4, num_frames=4, ahead=2)


def collect(folder: Path, env: str, *words: str, episodes: int = 20, steps: int = 16) -> Episodes:
    assert main(["collect", env, "--out", str(folder), "--episodes", f"{episodes}", "--steps", f"{steps}", *words]) == 0
    return Episodes.open(folder)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty episodes of Two Rooms."""
    folder = tmp_path_factory.mktemp("stored") / "rooms"
    collect(folder, "two-rooms", "--policy", "scripted", "--layout", "random-wall")
    return folder


@pytest.fixture(scope="module")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty episodes in two point mazes."""
    folder = tmp_path_factory.mktemp("stored") / "mazes"
    collect(folder, "point-maze", "--policy", "expert", "--num-mazes", "2", "--maze-seed", "3")
    return folder


@pytest.fixture
def judged_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `jepalab train` says of a world model costs a moment."""
    brief = Planning(cross_room=2, same_room=1, num_steps=4, horizon=2, num_samples=10, num_iterations=1)
    judging = replace(worlds.JUDGING, subjects=partial(acting_subjects, planning=brief))
    monkeypatch.setattr(worlds, "JUDGING", judging)


def stored(folder: Path, **settings: Any) -> WorldBench:
    return WorldBench(stored=Stored(folder, **settings), network=NETWORK, training=BRIEF)


# Recording.


@pytest.mark.parametrize(
    ("env", "policy"),
    [
        ("two-rooms", "random"),
        ("two-rooms", "expert"),
        ("two-rooms", "scripted"),
        ("point-maze", "random"),
        ("point-maze", "expert"),
        ("point-maze", "scripted"),
    ],
)
def test_what_is_recorded_is_what_happened(env: Any, policy: Any, tmp_path: Path) -> None:
    found = collect(tmp_path / "made", env, "--policy", policy, "--seed", "5", episodes=3, steps=7)
    scene = Scene.of(found[0].metadata)
    assert scene is not None
    world = scene.env()
    for number, episode in enumerate(found):
        assert (len(episode), episode.metadata["number"]) == (8, number)
        assert (episode.metadata["environment"], episode.metadata["policy"]["name"]) == (env, policy)
        state = world.reset(1, torch.Generator()).with_tensors(
            {
                name.removeprefix(SIMULATOR): torch.from_numpy(values[:1])
                for name, values in episode.columns.items()
                if name.startswith(SIMULATOR)
            }
        )
        for t in range(8):
            assert np.array_equal((world.render(state)[0] * 255).round().byte().numpy(), episode.pixels[t])
            true = [value.reshape(1, -1).float() for value in world.factors(state).values()]
            assert np.array_equal(torch.cat(true, 1)[0].numpy(), episode.state[t])
            if env == "point-maze":
                assert np.array_equal(world.proprioception(state)[0].numpy(), episode.proprio[t])
            if t < 7:
                state = world.step(state, torch.from_numpy(episode.action[t : t + 1]))
        assert not np.array_equal(episode.pixels[0], episode.pixels[-1])
    assert ("proprio" in found.columns) == (env == "point-maze")


def test_metadata_names_the_layout(rooms: Path, mazes: Path) -> None:
    walls = set()
    for episode in Episodes.open(rooms):
        layout = episode.metadata["layout"]
        assert [layout["wall"], *layout["doors"]] == episode.state[0, 3:5].tolist()
        walls.add(layout["wall"])
    assert len(walls) > 3
    assert {episode.metadata["layout"]["maze"] for episode in Episodes.open(mazes)} == {0, 1}
    assert Episodes.open(mazes)[0].metadata["settings"] == {"num_mazes": 2, "maze_seed": 3}


class KilledError(Exception):
    """Stands for a kill: nothing gets the chance to tidy up."""


def test_what_is_killed_goes_on_to_the_same_episodes(tmp_path: Path) -> None:
    env, policy, facts = TwoRooms(), choose_policy("scripted", "two-rooms"), {"num_steps": 6}
    lengths = {"num_steps": 6, "seed": 2, "chunk": 4}
    with EpisodeWriter(tmp_path / "at once", metadata=facts) as writer:
        record(env, policy, writer, num=11, **lengths)
    killed = EpisodeWriter(tmp_path / "killed", metadata=facts, shard_episodes=3)
    real = killed.add

    def add(episode: Episode) -> None:
        if episode.metadata["number"] == 7:
            raise KilledError
        real(episode)

    killed.add = add  # pyrefly: ignore[bad-assignment]
    with pytest.raises(KilledError):
        record(env, policy, killed, num=11, **lengths)
    assert len(Episodes.open(tmp_path / "killed")) == 6  # the seventh was in memory
    for num in (9, 11):  # in two sittings, both of which begin within a chunk
        with EpisodeWriter(tmp_path / "killed", metadata=facts) as writer:
            record(env, policy, writer, num=num, **lengths)
            assert len(writer) == num
    pairs = zip(Episodes.open(tmp_path / "at once"), Episodes.open(tmp_path / "killed"), strict=True)
    for wanted, found in pairs:
        assert wanted.metadata == found.metadata
        assert wanted.columns.keys() == found.columns.keys()
        assert all(np.array_equal(values, found[name]) for name, values in wanted.columns.items())


def test_more_episodes_are_added_and_other_ones_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "some"
    first = [*collect(folder, "point-maze", episodes=3, steps=4)]
    capsys.readouterr()
    found = collect(folder, "point-maze", episodes=5, steps=4)
    assert "5 episodes of 4 steps" in (told := capsys.readouterr().out)
    assert "3 were there already" in told
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(first, islice(found, 3), strict=True))
    assert len({episode.state.tobytes() for episode in found}) == 5
    assert main(["collect", "point-maze", "--out", str(folder), "--steps", "5"]) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert len(collect(folder, "point-maze", episodes=2, steps=4)) == 5


class BrokenRooms(Rescaled[Any]):
    """Whose second episode goes nowhere that can be told."""

    def factors(self, state: Any) -> dict[str, torch.Tensor]:
        known = self.inner.factors(state)
        position = known["position"].clone()
        position[1:2] = torch.where(state.clock[1:2, None] > 2, math.nan, position[1:2])
        return known | {"position": position}


def test_what_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    env, policy = BrokenRooms(TwoRooms()), RandomPolicy()
    for num in (3, 5):
        with EpisodeWriter(tmp_path / "some", metadata={}) as writer:
            record(env, policy, writer, num=num, num_steps=5, seed=0, chunk=4)
            assert writer.skipped == {"episode 1": "state: not finite"}
            assert len(writer) == num - 1
    assert [episode.metadata["number"] for episode in Episodes.open(tmp_path / "some")] == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["two-rooms", "--size", "32"], "two-rooms has no size, but layout"),
        (["point-maze", "--layout", "fixed"], "point-maze has no layout, but num_mazes, maze_seed"),
        (["reacher", "--policy", "expert"], "reacher has no expert policy; take one of: random."),
        (["two-rooms", "--policy", "expert", "--persistence", "0.5"], "Only the random policy has a persistence"),
        (["two-rooms", "--persistence", "1"], "persistence in [0, 1)"),
        (["two-rooms", "--steps", "0"], "at least one episode and one step"),
        (["point-maze", "--num-mazes", "0"], "of at least 1"),
    ],
)
def test_mistakes_are_answered(
    words: list[str], answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", *words, "--out", str(tmp_path / "none")]) == 1
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# Policies and actions.


def played(env: Environment[Any], policy: Any, num: int, num_steps: int) -> list[dict[str, np.ndarray]]:
    return [*play(env, policy, num, seed=1, num_steps=num_steps)]


@pytest.mark.parametrize("persistence", [0.0, 0.7])
def test_random_actions_are_even_and_persist(persistence: float) -> None:
    env = TwoRooms()
    action = np.stack([each["action"] for each in played(env, RandomPolicy(persistence), 40, 50)])
    repeats = (np.diff(action, axis=1) == 0).all(2).mean()
    assert repeats == pytest.approx(persistence, abs=0.04)
    length = np.linalg.norm(action, axis=2)
    assert length.max() <= env.max_norm + 1e-5
    # Of a square's points outside its circle, 1 - pi / 4 of them, the action is shortened to the circle's edge.
    fresh = length[:, 1:][(np.diff(action, axis=1) != 0).any(2)]
    assert (fresh > env.max_norm - 1e-4).mean() == pytest.approx(1 - math.pi / 4, abs=0.04)
    assert np.abs(action.mean((0, 1))).max() < 0.2


@pytest.mark.parametrize("name", ["two-rooms", "point-maze"])
def test_experts_arrive_and_scripts_keep_to_their_longest_action(name: Any) -> None:
    env = Scene(name).env()
    expert, scripted = (choose_policy(kind, name) for kind in ("expert", "scripted"))
    start, goal = env.random_pairs(20, torch.Generator().manual_seed(0), min_distance=4.5)
    assert len(start) == len(goal)
    state, act = expert.begin(env, 20, seed=4, num_steps=120)
    first, last = state, state
    for _ in range(120):
        last = env.step(last, act(last))
    moved = env.distance(first, last)
    # At the end they are where the shortest way led, not where chance had them.
    assert float(moved[moved.isfinite()].mean()) > 15
    for policy in (expert, scripted):
        longest = min(policy.longest, env.bounds.max_norm)
        lengths = [np.linalg.norm(each["action"], axis=1).max() for each in played(env, policy, 10, 20)]
        assert max(lengths) <= longest + 1e-5


def test_the_first_episodes_are_the_same_however_many_begin() -> None:
    for name in ("two-rooms", "point-maze"):
        env = Scene(name).env()
        for kind in ("random", "expert", "scripted"):
            policy = choose_policy(kind, name, persistence=0.3 if kind == "random" else 0.0)
            few, many = (played(env, policy, num, 6) for num in (2, 7))
            for one, other in zip(few, many, strict=False):
                assert all(np.array_equal(one[key], other[key]) for key in one), (name, kind)


def test_actions_in_other_units_do_the_same(generator: torch.Generator) -> None:
    inner = Scene("point-maze").env()
    env = Rescaled(inner, 0.25)
    assert isinstance(env, Environment)
    assert innermost(env) is inner
    assert (env.bounds.max_norm, env.bounds.high.tolist()) == (2.0, [2.0, 2.0])
    state = env.reset(4, generator)
    action = torch.randn(4, 2, generator=generator)
    assert torch.equal(env.step(state, action).tensors()["position"], inner.step(state, action / 4).position)
    start, goal = env.random_pairs(4, generator, min_distance=6.0)
    assert not env.success(start, goal, radius=6.0).any()
    assert torch.equal(env.distance(start, goal), inner.distance(start, goal))
    assert env.factors(start).keys() == inner.factors(start).keys()
    assert env.picture_shape == (2, 64, 64)
    with pytest.raises(ValueError, match="finite"):
        env.step(state, action * math.nan)
    with pytest.raises(ValueError, match="above 0"):
        Rescaled(inner, 0.0)


class Board(Rescaled[Any]):
    """Two Rooms that say where an agent of other people's worlds is."""

    def factors(self, state: Any) -> dict[str, torch.Tensor]:
        return {"agent": state.truth[:, :2]}


def test_targets_lie_from_the_agent(generator: torch.Generator) -> None:
    env = FromTheAgent(Board(TwoRooms()), reach=50.0)
    assert (env.bounds.low.tolist(), env.bounds.high.tolist()) == ([-1.0, -1.0], [1.0, 1.0])
    truth = torch.rand(3, 4, generator=generator) * 500
    action = torch.tensor([[0.5, -1.0], [3.0, 0.0], [0.0, 0.0]])
    told = env.translate(WorldState(torch.zeros(3, 1).double(), truth), action)
    torch.testing.assert_close(told, truth[:, :2] + torch.tensor([[25.0, -50.0], [50.0, 0.0], [0.0, 0.0]]))


def test_scenes_are_read_back_from_metadata() -> None:
    for name in KINDS:
        scene = Scene(name)
        found = Scene.of(json.loads(json.dumps(scene.metadata())))
        assert found is not None
        assert (found.name, found.settings) == (name, scene.settings)
    assert Scene("pusht", Setting(size=48)).settings == {"size": 48}
    assert Scene.of({"environment": "pusht"}) is None
    assert Scene.of({"environment": "ALE/Pong-v5", "settings": {}}) is None
    assert {*anywhere(TwoRooms(), min_distance=4.5)} == {"cross", "same"}


# Windows.


def counting(folder: Path, lengths: tuple[int, ...] = (9, 3, 14, 7)) -> Episodes:
    """Episodes whose every number says which frame of which episode it is of."""
    with EpisodeWriter(folder) as writer:
        for number, length in enumerate(lengths):
            place = 100 * number + np.arange(length)
            columns = {
                "pixels": np.broadcast_to((place % 251).astype(np.uint8)[:, None, None, None], (length, 1, 4, 4)),
                "action": np.stack([place[:-1], -place[:-1]], 1).astype(np.float32),
                "proprio": place[:, None].astype(np.float32),
                "state": np.stack([place, place + 0.5, place % 2], 1).astype(np.float32),
            }
            writer.add(Episode(columns))
    return Episodes.open(folder)


@pytest.mark.parametrize("frameskip", [1, 2, 3])
def test_windows_have_every_kth_frame_and_the_actions_between(frameskip: int, tmp_path: Path) -> None:
    episodes, rows = counting(tmp_path / "some"), (0, 1, 3)
    windows = EpisodeWindows(episodes, rows, frameskip=frameskip, feels=True, parts={"place": 2, "odd": 0})
    assert isinstance(windows, Trajectories)
    span = 2 * frameskip + 1
    wanted = [100 * row + t for row in rows for t in range((9, 3, 14, 7)[row] - span + 1)]
    assert windows.num_windows(3) == len(wanted)
    batch = windows.read(torch.arange(len(wanted)), 3)
    assert batch.action is not None
    assert batch.proprio is not None
    assert batch.x.shape == (len(wanted), 3, 1, 4, 4)
    assert batch.action.shape == (len(wanted), 2, 2 * frameskip)
    for i, first in enumerate(wanted):
        frames = [first + j * frameskip for j in range(3)]
        assert batch.proprio[i, :, 0].tolist() == frames
        assert batch.factors["place"][i].tolist() == [[frame, frame + 0.5] for frame in frames]
        assert batch.factors["odd"][i].tolist() == [frame % 2 for frame in frames]
        assert torch.equal(batch.x[i, :, 0, 0, 0], torch.tensor([frame % 251 for frame in frames]) / 255)
        for j, frame in enumerate(frames[:-1]):
            steps = range(frame, frame + frameskip)
            assert batch.action[i, j].tolist() == [number for step in steps for number in (step, -step)]
    assert windows.read(torch.tensor([1, 0]), 3).proprio is not None
    assert EpisodeWindows(episodes, rows).read(torch.tensor([1]), 2).proprio is None


def test_actions_come_in_units_and_places_can_be_put_together(tmp_path: Path) -> None:
    episodes = counting(tmp_path / "some")
    middle, unit = torch.tensor([1.0, -1.0]), torch.tensor([2.0, 4.0])
    parts = {"place": 2, "odd": 1}
    windows = EpisodeWindows(episodes, (2,), frameskip=2, middle=middle, unit=unit, parts=parts, position=["odd"])
    batch = windows.read(torch.tensor([3]), 2)
    assert batch.action is not None
    assert batch.action.tolist() == [[[101.0, -50.5, 101.5, -50.75]]]
    assert torch.equal(batch.factors["position"], batch.factors["odd"])
    whole = EpisodeWindows(episodes, (2,)).read(torch.tensor([3]), 2).factors
    assert torch.equal(whole["position"], whole["state"])


def test_windows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    windows = EpisodeWindows(counting(tmp_path / "some"), (0, 1), frameskip=4)
    assert windows.num_windows(3) == 1
    with pytest.raises(ValueError, match="4 frames, 4 steps apart, need episodes of 13 frames, and the longest of 2"):
        windows.num_windows(4)


def test_moments_are_those_of_the_column(tmp_path: Path) -> None:
    found = measure(counting(tmp_path / "some", (41,)), [0], "action")
    place = np.arange(40)
    assert found.mean.tolist() == pytest.approx([place.mean(), -place.mean()], abs=1)
    assert found.std.tolist() == pytest.approx([place.std()] * 2, abs=1)


def test_splits_share_no_episode_and_stay_as_they_are() -> None:
    splits = [split_of(number) for number in range(1000)]
    for num in (10, 20, 100):
        found = [splits[:num].count(split) for split in ("train", "validation", "test")]
        assert found == [0.8 * num, 0.1 * num, 0.1 * num]
    assert splits.count("train") == pytest.approx(800, abs=40)
    assert splits.count("test") == pytest.approx(100, abs=30)


# Learning from them.


def test_stored_episodes_are_a_world_as_rooms_are(rooms: Path) -> None:
    bench = stored(rooms, frameskip=3)
    assert isinstance(bench.source, World)
    assert isinstance(Rooms(), World)
    assert WorldBench().source == Rooms()
    assert (bench.source.picture_shape(), bench.source.num_actions()) == ((2, 65, 65), 6)
    recorded = bench.stream().recorded
    rows = [set(windows.rows) for windows in recorded.values() if isinstance(windows, EpisodeWindows)]
    assert sorted(map(len, rows)) == [2, 2, 16]
    assert set.union(*rows) == {*range(20)}
    batch = bench.stream().batch(0)
    assert batch.x.shape == (4, 4, 2, 65, 65)
    assert 0 <= batch.x.min() < 0.1 < 0.9 < batch.x.max() <= 1
    assert batch.factors["position"].shape == (4, 4, 2)
    assert batch.factors["room"].dtype == torch.int64


@pytest.mark.parametrize(
    "name", ["vicreg_world", "ema_world", "frozen_autoencoder_world", "pixel_world", "frame_world"]
)
def test_recipes_train_on_blocks_of_actions_and_act(name: str, rooms: Path) -> None:
    from jepalab.fit import fit

    run = getattr(worlds, name)(stored(rooms, frameskip=3))
    fit(run, device="cpu")
    planning = Planning(cross_room=2, same_room=0, num_steps=7, horizon=2, num_samples=10, num_iterations=1)
    (subject,) = acting_subjects(run.objective, run.stream, planning=planning, share=0.1).values()
    scores = acting(replace(subject, share=1.0)) | understanding(subject)
    assert {"cross_ever_wide", "position_r2", "geodesic_rank", "ahead_3_shuffled"} <= scores.keys()
    assert "action_error" not in scores  # a grid of blocks would have 15^6 places
    assert scores["imagined_per_action"] == pytest.approx(2 * 10 * 2 / 7)  # searches at steps 0 and 6


@pytest.mark.usefixtures("judged_briefly")
@pytest.mark.parametrize(
    ("env", "more", "groups"),
    [("two-rooms", ["--frameskip", "2"], ("cross", "same")), ("point-maze", ["--proprio"], ("all",))],
)
def test_from_the_environment_to_planning(
    env: str,
    more: list[str],
    groups: tuple[str, ...],
    rooms: Path,
    mazes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = str(rooms if env == "two-rooms" else mazes), str(tmp_path / "run")
    assert main(["train", "vicreg-world", "--data", data, *more, "--steps", "2", *SMALL, "--out", run]) == 0
    assert f"{groups[0]}_ever_wide" in capsys.readouterr().out
    assert main(["plan", run, "--env", env, "--episodes", "4", *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["env"], found["episodes"]) == (env, 6 if env == "two-rooms" else 4)
    assert {*found["scores"]} == {"run", "random actions (floor)", "the environment itself (ceiling)"}
    assert {f"{group}_end_wide" for group in groups} <= found["scores"]["run"].keys()
    # Goals out of held-out episodes.
    assert main(["plan", run, "--ahead", "9", "--episodes", "2", *QUICK, "--json", "--no-floors"]) == 0
    ahead = json.loads(capsys.readouterr().out)
    assert "all_ever_wide" in ahead["scores"]["run"]
    assert ahead["manifest"] != found["manifest"]
    monkeypatch.setattr("jepalab.recipes.world_films.train_microscope", partial(train_microscope, steps=2))
    drawn = [tmp_path / "plans.gif", tmp_path / "futures.png"]
    pictures = ["--film", str(drawn[0]), "--counterfactual", str(drawn[1])]
    assert main(["plan", run, "--ahead", "9", "--episodes", "2", *QUICK, *pictures, "--no-floors"]) == 0
    num_radii = len(KINDS[env].radii)
    assert len(re.findall(r"\d\.\d% \[\d+%, \d+%\]", capsys.readouterr().out)) == 2 * num_radii
    assert all(place.stat().st_size > 1000 for place in drawn)
    for words, answer in (
        (["--env", "pusht"], f"was trained on pictures of {env}; it cannot act in pusht"),
        (["--layout", "fixed"], "for models of simulated rooms"),
        (["--ahead", "9", "--episodes", "500"], "another --ahead, or record more"),
    ):
        assert main(["plan", run, *words]) == 1
        assert answer in capsys.readouterr().err


def test_what_is_felt_reaches_the_model(mazes: Path) -> None:
    bench = stored(mazes, proprio=True)
    run = worlds.vicreg_world(bench)
    assert isinstance(run.objective, JEPAWorld)
    batch = run.stream.batch(0)
    assert batch.proprio is not None
    z = run.objective.encode(batch.x, batch.proprio)
    assert z.shape == (4, 4, 8 + 2)
    felt = torch.cat([run.stream.batch(step).proprio.flatten(0, 1) for step in range(40)])  # pyrefly: ignore
    shown = run.objective.encode(batch.x[:1, :1].expand(1, len(felt), -1, -1, -1), felt[None])[0, :, 8:]
    assert shown.mean(0).tolist() == pytest.approx([0, 0], abs=0.25)
    assert shown.std(0).tolist() == pytest.approx([1, 1], abs=0.2)
    still = run.objective.encode(batch.x, torch.zeros_like(batch.proprio))
    assert torch.equal(z[..., :8], still[..., :8])
    assert not torch.equal(z[..., 8:], still[..., 8:])
    assert run.objective(batch).total.isfinite()
    assert run.objective.rollout(z[:, :1], z.new_zeros(4, 0, 2), z.new_zeros(4, 3, 5, 2)).shape == (4, 3, 5, 10)
    # It plans with what it feels, and the saved state holds the units of it.
    assert {"proprio.mean", "proprio.std"} <= run.objective.state_dict().keys()
    planning = Planning(cross_room=2, same_room=0, num_steps=3, horizon=2, num_samples=10, num_iterations=1)
    assert "all_ever_wide" in acting(acting_subjects(run.objective, run.stream, planning=planning)["model"])


def test_who_does_not_feel_says_so(rooms: Path, mazes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for recipe in ("pixel_world", "frame_world", "diffusion_world", "pixel_latent_world"):
        with pytest.raises(ValueError, match="only sees, it does not feel"):
            getattr(worlds, recipe)(stored(mazes, proprio=True))
    with pytest.raises(ValueError, match="hold nothing that is felt"):
        worlds.vicreg_world(stored(rooms, proprio=True))
    with pytest.raises(ValueError, match="with --data as well"):
        Stored(frameskip=2)
    with pytest.raises(ValueError, match="frameskip of at least 1"):
        Stored(rooms, frameskip=0)
    assert main(["train", "vicreg-world", "--data", str(rooms), "--frameskip", "9"]) == 1
    assert "take fewer frames, a smaller frameskip, or longer episodes" in capsys.readouterr().err
    assert main(["train", "vicreg-world", "--data", str(rooms.parent)]) == 1
    assert "Wanted a folder of episodes" in capsys.readouterr().err


def test_too_few_episodes_or_odd_pictures_are_refused(tmp_path: Path) -> None:
    counting(tmp_path / "few")
    with pytest.raises(ValueError, match=r"None of the 4 episodes in .* is of the test split"):
        stored(tmp_path / "few").stream()
    with EpisodeWriter(tmp_path / "wide") as writer:
        writer.add(Episode({"action": np.zeros((3, 2)), "pixels": np.zeros((4, 1, 8, 9), np.uint8)}))
    with pytest.raises(ValueError, match=r"square pictures; .* has pixels \[1, 8, 9\]"):
        assert stored(tmp_path / "wide").source.picture_shape()


def test_held_out_pairs_are_states_of_held_out_episodes(mazes: Path) -> None:
    stream = stored(mazes).stream()
    ground = ground_of(stream, num_at_once=4, ahead=6)
    assert ground is not None
    assert {*ground.groups} == {"all"}
    start, goal = ground.groups["all"](2, torch.Generator().manual_seed(0))
    assert not ground.env.success(start, goal, radius=4.5).any()
    windows = stream.recorded["test"]
    assert isinstance(windows, EpisodeWindows)
    held = [windows.episodes[row] for row in windows.rows]
    for one, other in zip(start.position, goal.position, strict=True):
        places = [(e, t) for e in held for t in range(len(e) - 6) if np.array_equal(e.state[t, :2], one.numpy())]
        assert any(np.array_equal(e.state[t + 6, :2], other.numpy()) for e, t in places)
    with pytest.raises(TooFewStatesError, match="Wanted 400 starts and goals 6 steps apart in 2 held-out episodes"):
        ground.groups["all"](400, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="this model saw simulated walks"):
        ground_of(WorldBench(world=Rooms(num_walks=4), training=BRIEF).stream(), num_at_once=4, ahead=6)


def test_planners_search_in_the_units_that_models_were_shown(mazes: Path, rooms: Path) -> None:
    ground = ground_of(stored(mazes).stream(), num_at_once=4)
    assert ground is not None
    assert (ground.env.bounds.max_norm, ground.max_norm, ground.radii["wide"]) == (2.0, 1.8 / 0.25, 4.5)
    batch = stored(mazes).stream().batch(0)
    assert batch.action is not None
    assert 0.5 < float(batch.action.square().mean().sqrt()) < 1.5
    ground = ground_of(stored(rooms).stream(), num_at_once=4)
    assert ground is not None
    assert (ground.max_norm, {*ground.groups}) == (1.8, {"cross", "same"})


def test_lights_and_televisions_are_recorded_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--policy", "scripted", "--television", "episode", "--light", "door", "--flip", "0.5", "--hold", "2"]
    collect(tmp_path / "lit", "two-rooms", *words)
    batch = stored(tmp_path / "lit").stream().batch(0)
    assert batch.factors["light"].dtype == torch.int64
    assert batch.factors["television"].shape == (4, 4, 16)
    ground = ground_of(stored(tmp_path / "lit").stream(), num_at_once=2, ahead=6)
    assert ground is not None
    env = innermost(ground.env)
    assert isinstance(env, TwoRooms)
    assert env.light == Light(flip=0.5, hold=2, opens_a_door=True)
    start, _ = ground.groups["all"](1, torch.Generator().manual_seed(0))
    assert start.is_on is not None
    assert start.screen is not None
    capsys.readouterr()
    assert main(["collect", "point-maze", "--out", str(tmp_path / "none"), "--light", "door"]) == 1
    assert "point-maze has no light" in capsys.readouterr().err
    odd = ["--light", "door", "--layout", "random-wall"]
    assert main(["collect", "two-rooms", "--out", str(tmp_path / "none"), *odd]) == 1
    assert "two doors that stay" in capsys.readouterr().err


def foreign(folder: Path) -> Path:
    """Episodes of an environment that nobody here knows, with actions in odd units."""
    draw = np.random.default_rng(0)
    with EpisodeWriter(folder, metadata={"environment": "Elsewhere-v1"}) as writer:
        for _ in range(12):
            pixels = draw.integers(256, size=(9, 3, 16, 16), dtype=np.uint8)
            writer.add(Episode({"pixels": pixels, "action": 300 + 50 * draw.normal(size=(8, 2))}))
    return folder


def test_episodes_of_other_people_are_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = foreign(tmp_path / "data"), str(tmp_path / "run")
    stream = stored(data).stream()
    action = torch.cat([stream.batch(step).action.flatten(0, 1) for step in range(50)])  # pyrefly: ignore
    assert action.mean(0).tolist() == pytest.approx([0, 0], abs=0.2)
    assert action.std(0).tolist() == pytest.approx([1, 1], abs=0.2)
    assert main(["train", "vicreg-world", "--data", str(data), "--steps", "2", *SMALL, "--out", run]) == 0
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == {}
    capsys.readouterr()
    assert main(["plan", run]) == 1
    assert "name no environment of jepalab's" in capsys.readouterr().err


def test_a_world_that_is_not_installed_or_looks_otherwise_ends_no_training(
    mazes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "gym_pusht":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with EpisodeWriter(tmp_path / "pusht", metadata={"environment": "pusht", "settings": {"size": 20}}) as writer:
        for episode in islice(Episodes.open(mazes), 12):
            writer.add(Episode({name: episode[name] for name in ("pixels", "action", "state")}))
    run = ["train", "vicreg-world", "--steps", "1", *SMALL, "--data"]
    assert main([*run, str(tmp_path / "pusht"), "--out", str(tmp_path / "one")]) == 0
    assert "not judged by acting: PushT needs gym-pusht" in capsys.readouterr().err
    with EpisodeWriter(tmp_path / "painted", metadata=Episodes.open(mazes)[0].metadata) as writer:
        for episode in islice(Episodes.open(mazes), 12):
            writer.add(Episode(episode.columns | {"pixels": np.repeat(episode.pixels[:, :1], 3, 1)}))
    assert main([*run, str(tmp_path / "painted"), "--out", str(tmp_path / "two")]) == 0
    assert "Wanted episodes with pictures [2, 64, 64], as point-maze draws them" in capsys.readouterr().err


def test_too_little_held_out_ends_no_training_either(
    mazes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KINDS, "point-maze", KINDS["point-maze"]._replace(ahead=14))
    run = worlds.vicreg_world(stored(mazes))
    subject = acting_subjects(run.objective, run.stream, planning=Planning(cross_room=500, same_room=0))["model"]
    assert acting(subject) == {}
    assert "not judged by acting: Wanted 500 starts and goals 14 steps apart" in capsys.readouterr().err
    assert "position_r2" in understanding(subject)


def test_a_floor_plays_stored_worlds_too(mazes: Path) -> None:
    planning = Planning(cross_room=3, same_room=0, num_steps=4)
    run = make_floor(stored(mazes), name="random")
    subject = acting_subjects(run.objective, run.stream, planning=planning)["model"]
    assert understanding(subject) == {}
    assert acting(subject)["imagined_per_action"] == 0
    assert not isinstance(run.objective, WorldModel)


# Conversions.


def test_there_and_back_again(mazes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    file, folder = str(tmp_path / "some.h5"), str(tmp_path / "robot")
    assert main(["convert", str(mazes), "--to", "hdf5", "--out", file]) == 0
    assert main(["convert", file, "--from", "hdf5", "--out", str(tmp_path / "one")]) == 0
    assert main(["convert", str(mazes), "--to", "lerobot", "--pictures", "png", "--fps", "5", "--out", folder]) == 0
    assert main(["convert", folder, "--from", "lerobot", "--out", str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out.count("20 episodes, 340 frames") == 4
    trips = [Episodes.open(each) for each in (mazes, tmp_path / "one", tmp_path / "two")]
    for made, one, two in zip(*trips, strict=True):
        assert made.metadata == one.metadata == two.metadata
        assert made.columns.keys() == one.columns.keys() == two.columns.keys()
        for name, values in made.columns.items():
            assert np.array_equal(values, one[name]), name
            assert np.array_equal(values[:, [0, 0, 1]] if name == "pixels" else values, two[name]), name
    # What came back is the same to learn from and to act in.
    batches = [stored(each).stream().batch(1) for each in (mazes, tmp_path / "one")]
    assert torch.equal(batches[0].x, batches[1].x)
    grounds = [ground_of(stored(each).stream(), num_at_once=2, ahead=6) for each in (mazes, tmp_path / "one")]
    starts = [ground.groups["all"](2, torch.Generator().manual_seed(1))[0] for ground in grounds if ground is not None]
    assert torch.equal(starts[0].position, starts[1].position)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--out", "x"], "either --to or --from"),
        (["--out", "x", "--to", "hdf5", "--from", "hdf5"], "either --to or --from"),
        (["--out", "x", "--from", "hdf5", "--camera", "top"], "Only LeRobot datasets have cameras"),
        (["--out", "x", "--to", "hdf5"], "Wanted a folder of episodes"),
    ],
)
def test_which_way_it_goes_must_be_said(
    words: list[str], answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "nothing", *words]) == 1
    assert answer in capsys.readouterr().err


# PushT, where it is installed.


@pytest.fixture(scope="module")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Twenty episodes of PushT."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        pytest.importorskip("gym_pusht")
        folder = tmp_path_factory.mktemp("stored") / "pushes"
        collect(folder, "pusht", "--policy", "scripted", "--size", "32", episodes=20, steps=50)
        yield folder


@pytest.mark.filterwarnings("ignore")
def test_scripts_push_the_block(pushes: Path, tmp_path: Path) -> None:
    found = Episodes.open(pushes)
    assert found.columns["pixels"].shape == (3, 32, 32)
    way = [np.linalg.norm(np.diff(episode.state[:, 2:4], axis=0), axis=1).sum() for episode in found]
    assert np.mean(np.array(way) > 20) > 0.8
    assert np.median(way) > 80
    assert max(np.linalg.norm(episode.action, axis=1).max() for episode in found) <= PushingPolicy().longest + 1e-6
    chance = collect(tmp_path / "chance", "pusht", "--size", "32", episodes=10, steps=50)
    pushed = [np.linalg.norm(np.diff(episode.state[:, 2:4], axis=0), axis=1).sum() for episode in chance]
    assert np.median(way) > 3 * np.median(pushed)
    env = Scene("pusht", Setting(size=32)).env(3)
    first = [*play(env, PushingPolicy(), 3, seed=1, num_steps=5)]
    again = [*play(env, PushingPolicy(), 2, seed=1, num_steps=5)]
    assert all(np.array_equal(one["state"], other["state"]) for one, other in zip(first, again, strict=False))
    close(env)


@pytest.mark.usefixtures("judged_briefly")
@pytest.mark.filterwarnings("ignore")
def test_pusht_from_episodes_to_planning(pushes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    words = ["--data", str(pushes), "--frameskip", "5", "--proprio", "--steps", "2", *SMALL, "--out", run]
    assert main(["train", "vicreg-world", *words]) == 0
    assert {"block_ever_wide", "agent_ever_wide"} <= {*capsys.readouterr().out.split()}
    quick = [*QUICK, "--num-steps", "12", "--episodes", "2", "--json"]
    assert main(["plan", run, "--env", "pusht", *quick]) == 0
    found = json.loads(capsys.readouterr().out)
    # Nobody plans in the simulator itself, which would take days.
    assert {*found["scores"]} == {"run", "random actions (floor)", "the recorded actions again (ceiling)"}
    # One block is taken of each plan, as in the comparison.
    assert found["scores"]["run"]["imagined_per_action"] == pytest.approx(10 * 2 * 3 / 12)
    assert main(["plan", run, "--ahead", "0", *quick, "--no-floors"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] != found["manifest"]


@pytest.mark.filterwarnings("ignore")
def test_pusht_goes_on_from_stored_states(pushes: Path) -> None:
    ground = ground_of(stored(pushes).stream(), num_at_once=3)
    assert ground is not None
    start, goal = ground.groups["block"](1, torch.Generator().manual_seed(0))
    held = [Episodes.open(pushes)[row] for row in range(20) if split_of(row) == "test"]
    for one, other in zip(start.truth, goal.truth, strict=True):
        place = [(e, t) for e in held for t in range(len(e) - 25) if np.array_equal(e.state[t], one.numpy())]
        assert any(np.array_equal(e.state[t + 25], other.numpy()) for e, t in place)
        episode, t = place[0]
        action = torch.from_numpy(episode.action[t : t + 1]) / KINDS["pusht"].unit
        row = slice(*[int((start.truth == one).all(1).nonzero()[0])] * 2)
        following = ground.env.step(start[slice(row.start, row.start + 1)], action)
        # In contact, the pressure between what touches is not part of any state.
        assert np.abs(following.truth[0, :4].numpy() - episode.state[t + 1, :4]).max() < 2
