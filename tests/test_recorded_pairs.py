"""Starts and goals out of stored episodes: none twice, none of the test in a search, pushing told apart, replayed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from jepalab.cli import main
from jepalab.data.episode_windows import EpisodeWindows, split_of
from jepalab.data.episode_writer import EpisodeWriter
from jepalab.data.episodes import Episodes
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.actions import FromTheAgent
from jepalab.envs.gymnasium_adapters import Worlds
from jepalab.envs.scenes import KINDS
from jepalab.envs.simulators import Simulator
from jepalab.instruments.planning import success
from jepalab.planners.planner import Bounds
from jepalab.recipes import pusht
from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_bench import WorldBench, WorldNetwork, WorldTraining
from jepalab.recipes.world_grounds import Ground, TooFewStatesError, ground_of
from jepalab.recipes.world_judging import ActingSubject, Planning, acting, make_floor
from jepalab.run import Run

AHEAD, STEPS, EPISODES = 10, 40, 80
FEW = Planning(cross_room=3, same_room=3, num_steps=AHEAD, horizon=2, num_executed=1, num_samples=10, num_iterations=1)


class Sled(Simulator):
    """A point that goes where it is told and drags a block along that it comes near; after PushT's parts and radii."""

    parts: ClassVar = {"agent": slice(0, 2), "block": slice(2, 4)}
    felt = slice(0, 0)

    def __init__(self) -> None:
        self.bounds = Bounds(torch.zeros(2), torch.full((2,), 512.0))
        self.place = np.zeros(4)

    def reset(self, seed: int) -> None:
        self.place = np.random.default_rng(seed).uniform(100, 400, 4)

    def act(self, action: Float[np.ndarray, " a"]) -> None:
        moved = action - self.place[:2]
        if np.linalg.norm(self.place[:2] - self.place[2:]) < 60:
            self.place[2:] += moved
        self.place[:2] = action

    def memory(self) -> Float64[np.ndarray, " m"]:
        return self.place.copy()

    def restore(self, memory: Float64[np.ndarray, " m"]) -> None:
        self.place = memory.copy()

    def truth(self) -> Float64[np.ndarray, " f"]:
        return self.place.copy()

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        picture = np.zeros((16, 16, 3), np.uint8)
        for channel, (x, y) in enumerate((self.place[:2], self.place[2:])):
            picture[int(np.clip(y // 32, 0, 15)), int(np.clip(x // 32, 0, 15)), channel] = 255
        return picture

    def distance(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return self.nearness(truth, goal)

    def nearness(self, truth: Float[Tensor, "n f"], goal: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return (truth - goal).norm(dim=1)

    def close(self) -> None: ...


def make_sleds(settings: Any, num_simulators: int) -> FromTheAgent[Any]:
    return FromTheAgent(Worlds(Sled, num_simulators=num_simulators))


@pytest.fixture(scope="module")
def sleds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Eighty episodes of a block that is dragged, stored as PushT's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "pusht", KINDS["pusht"]._replace(make=make_sleds, usual={}, ahead=AHEAD))
        patch.setattr("jepalab.recipes.world_grounds._kept", lambda scene, num: scene.env(num))
        folder = tmp_path_factory.mktemp("stored") / "sleds"
        how = ["--episodes", f"{EPISODES}", "--steps", f"{STEPS}", "--persistence", "0.5"]
        assert main(["collect", "pusht", "--out", str(folder), *how]) == 0
        yield folder


def bench(folder: Path) -> WorldBench:
    return WorldBench(
        stored=Stored(folder, frameskip=2),
        network=WorldNetwork(dim=8, widths=(8, 8), dynamics_width=16),
        training=WorldTraining(steps=2, batch_size=4, num_frames=4, ahead=2),
    )


def ground_in(folder: Path) -> Ground:
    ground = ground_of(bench(folder).stream(), num_at_once=4)
    assert ground is not None
    return ground


def places_of(folder: Path, start: Any) -> list[tuple[int, int]]:
    """Episode and step of states."""
    states = [episode["simulator.memory"] for episode in Episodes.open(folder)]
    every = {state.tobytes(): (row, t) for row, episode in enumerate(states) for t, state in enumerate(episode)}
    return [every[memory.numpy().tobytes()] for memory in start.memory]


def test_no_pair_is_a_neighbour_of_another(sleds: Path) -> None:
    ground = ground_in(sleds)
    for group in ("block", "agent"):
        places = places_of(sleds, ground.groups[group](6, torch.Generator().manual_seed(0))[0])
        for i, (row, t) in enumerate(places):
            assert all(other != row or abs(s - t) >= AHEAD for other, s in places[:i])
        assert {split_of(row) for row, _ in places} == {"test"}
    with pytest.raises(TooFewStatesError, match=r"so far from each other.*and move the block"):
        ground.groups["block"](EPISODES, torch.Generator().manual_seed(0))


def test_pairs_in_which_the_agent_alone_has_to_move_are_told_apart(sleds: Path) -> None:
    ground = ground_in(sleds)
    assert {*ground.groups} == {"block", "agent"}
    moved = {}
    for group, draw in ground.groups.items():
        start, goal = draw(5, torch.Generator().manual_seed(1))
        assert not ground.env.success(start, goal, radius=20.0).any()
        moved[group] = (start.truth[:, 2:] - goal.truth[:, 2:]).norm(dim=1)
    assert float(moved["block"].min()) >= 20 > float(moved["agent"].max())


def test_what_was_recorded_arrives_again(sleds: Path) -> None:
    ground = ground_in(sleds)
    trial = FEW.trial(ground)
    assert ground.replay is not None
    scores = success(trial, trial.play(ground.replay))
    assert scores["block_end_tight"] == scores["agent_end_tight"] == 1
    floor = success(trial, trial.play(FEW.stand_in("random", ground)))
    assert floor["block_end_tight"] < 1
    start, _ = ground.env.random_pairs(3, torch.Generator().manual_seed(5), min_distance=1.0)
    with pytest.raises(ValueError, match="states of no held-out episode"):
        ground.replay.begin(ground.env, start, torch.Generator(), trial.play(ground.replay).effort)(start)


def test_the_replay_is_an_arm(sleds: Path) -> None:
    run = make_floor(bench(sleds), name="replay")
    assert isinstance(run.stream, TrajectoryStream)
    subject = ActingSubject(run.objective, ground_in(sleds), FEW, None, 1.0)
    assert acting(subject)["block_ever_wide"] == 1
    assert "REPLAY" in pusht.ARMS_HERE


def test_settings_are_chosen_on_other_episodes_than_they_are_judged_on(
    sleds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"conditions": {"pusht": {"J1": {"settings": {"lr": 1e-3, "weight_decay": 1e-4}}}}}
    monkeypatch.setattr("jepalab.recipes.world_lab.WorldLab.read_tuned", lambda _: known)
    plan, tunable = pusht.plan(FEW, data=sleds, frameskip=2), pusht.tunable(data=sleds, frameskip=2)
    assert plan.arms["REPLAY"]
    assert next(iter(plan.metrics)) == tunable.metric == "block_ever_wide"
    run: Run = make_floor(bench(sleds), name="random")
    used: dict[str, set[int]] = {}
    for name, judging in (("trial", tunable.judging), ("final", plan.judging)):
        assert isinstance(judging.subjects, partial)
        (subject,) = judging.subjects(run.objective, run.stream).values()
        start, _ = subject.ground.groups["block"](4, torch.Generator().manual_seed(0))
        used[name] = {row for row, _ in places_of(sleds, start)}
    assert {split_of(row) for row in used["trial"]} == {"validation"}
    assert {split_of(row) for row in used["final"]} == {"test"}
    assert isinstance(run.stream, TrajectoryStream)
    windows = run.stream.judged_on("validation").recorded
    assert isinstance(windows["test"], EpisodeWindows)
    assert windows["test"] is windows["validation"]


def test_settings_on_other_episodes_are_other_settings(
    sleds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "moved"
    shutil.copytree(sleds, copied)
    first = Stored(copied, frameskip=2).named()
    assert repr(first) == repr(Stored(sleds, frameskip=2).named())  # wherever they lie
    with EpisodeWriter(copied, metadata=None) as writer:
        writer.add(Episodes.open(sleds)[0])
    assert repr(Stored(copied, frameskip=2).named()) != repr(first)
    with pytest.raises(ValueError, match=r"holds other episodes .* Start anew in another folder"):
        first.episodes()
    capsys.readouterr()
    shard = next(copied.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    Stored(copied).episodes()
    assert "1 left out, the first: episode" in capsys.readouterr().err
