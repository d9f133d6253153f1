"""Clips of games: labels are what was pressed, splits share no episode, memory is the state that the frames show."""

from __future__ import annotations

import ast
import importlib.util
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from sklearn.metrics import f1_score
from torch import Tensor

from jepalab.data import atari, game_clips
from jepalab.data.atari import Atari, atari_clips
from jepalab.data.clips import Clips
from jepalab.data.game_clips import HOLD, Filming, press, squeeze, tell_apart
from jepalab.data.image_cache import PARTIAL, Progress
from jepalab.data.made_clips import Made, made_clips
from jepalab.data.sample_stream import SampleStream
from jepalab.data.sprites import SPLITS
from jepalab.instruments.labelled import LabelledSubject, labelled_subjects
from jepalab.instruments.probes import RidgeClassifier
from jepalab.instruments.ram import LEAST_ENTROPY, choose_bytes, ram_state, weighted_f1
from jepalab.objectives.untrained import Untrained
from jepalab.recipes import clip_bench
from jepalab.recipes.clip_bench import Footage
from jepalab.types import Encoder

COUNTS = {"train": 130, "validation": 40, "test": 50}
SIDE = 16
with_ale = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py (GPL-2.0) is not installed")


class Dot:
    """A white dot that goes left or right, out at one end and in at the other; the far row flickers.

    JUMP does nothing, as NOOP does; DASH is RIGHT except where the dot comes in, rarely: there it stays.
    """

    actions = ("NOOP", "JUMP", "RIGHT", "LEFT", "DASH")

    def __init__(self, *, lasts: int = 2000) -> None:
        self.lasts, self.place, self.time, self.mark = lasts, 5, 0, 0

    def act(self, action: int) -> None:
        comes_in = self.actions[action] == "DASH" and self.place == 0 and self.time % 5 == 0
        self.place = (self.place + (0, 0, 1, -1, 0 if comes_in else 1)[action]) % SIDE
        self.time += 1
        if self.time < 60:
            self.mark = (5 * self.mark + action + 1) % 65_521

    def is_over(self) -> bool:
        return self.time >= self.lasts

    def screen(self) -> np.ndarray:
        screen = np.zeros((SIDE, SIDE, 1), dtype=np.uint8)
        screen[4:8, self.place] = 255
        screen[-1, : self.time % 2 * SIDE] = 100
        return screen

    def memory(self) -> np.ndarray:
        """Where the dot is, two bytes that tell episodes apart by how they began, and one that never changes."""
        return np.array([self.place, self.mark // 256, self.mark % 256, 7], dtype=np.uint8)

    def save(self) -> tuple[int, int, int]:
        return self.place, self.time, self.mark

    def restore(self, saved: tuple[int, int, int]) -> None:
        self.place, self.time, self.mark = saved


class Still(Dot):
    """Nothing ever happens."""

    def act(self, action: int) -> None:
        self.time += 1

    def screen(self) -> np.ndarray:
        return np.zeros((SIDE, SIDE, 1), dtype=np.uint8)


class Stuck(Dot):
    """Each action has a picture of its own, and that is all there is."""

    def act(self, action: int) -> None:
        self.place, self.time = action, self.time + 2


FILMING = Filming(size=SIDE)


def film(cache: Path, *, filming: Filming = FILMING, progress: Progress | None = None) -> Made:
    return made_clips(
        f"dot {filming}",
        shape=(sum(COUNTS.values()), filming.num_frames, filming.size, filming.size, 1),
        make=lambda: filming.make(Dot(lasts=1000), COUNTS),
        cache=cache,
        progress=progress,
    )


def clips_of(made: Made) -> Clips:
    return Clips(
        pixels=made.pixels,
        labels=torch.from_numpy(made.rows["label"]),
        names=made.facts["names"],
        splits=torch.arange(3, dtype=torch.int8).repeat_interleave(torch.tensor(list(COUNTS.values()))),
        skipped={},
        digest=made.sha256,
        source="a dot",
        states=made.rows["state"],
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dot")


@pytest.fixture(scope="module")
def made(cache: Path) -> Made:
    return film(cache)


# ---------------------------------------------------------------- what is pressed


def test_actions_that_look_the_same_are_one_class() -> None:
    assert tell_apart(Dot(), generator=np.random.default_rng(0)) == [[0, 1], [2, 4], [3]]


def test_a_button_that_matters_always_is_a_class_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game_clips, "ALIKE", 0.0)
    assert tell_apart(Dot(), generator=np.random.default_rng(0)) == [[0, 1], [2], [3], [4]]


def test_actions_are_held_and_classes_are_pressed_equally_often() -> None:
    presses = press([[0, 1], [2, 4], [3]], np.random.default_rng(0))
    pressed = np.array([next(presses) for _ in range(30_000)])
    assert np.bincount(pressed[:, 1]) / len(pressed) == pytest.approx(1 / 3, abs=0.02)
    assert set(map(tuple, pressed)) == {(0, 0), (1, 0), (2, 1), (4, 1), (3, 2)}
    changes = np.flatnonzero(np.diff(pressed[:, 0])) + 1
    assert np.diff(changes).min() == HOLD[0]
    assert np.diff(changes).max() > HOLD[1]  # the same may be drawn again


def test_labels_are_what_moves_the_dot_into_the_middle_frame(made: Made) -> None:
    """A frame shows the dot's last two places, so it moves by 1.5 times this step's action and half the last one's."""
    row = made.pixels[:, :, 5, :, 0] / 255.0
    angle = np.angle((row * np.exp(2j * np.pi * np.arange(SIDE) / SIDE)).sum(-1)) * SIDE / (2 * np.pi)
    moved = (np.diff(angle)[:, FILMING.num_frames // 2 - 1] + SIDE / 2) % SIDE - SIDE / 2
    assert made.facts["names"] == ["NOOP or JUMP", "RIGHT or DASH", "LEFT"]
    assert np.isin(np.round(2 * moved), np.arange(-4, 5)).all()
    wanted = np.where(moved > 0.75, 1, np.where(moved < -0.75, 2, 0))
    assert (wanted == made.rows["label"]).mean() > 0.97  # but for a DASH that stays


def test_states_are_those_of_the_last_frame(made: Made) -> None:
    last, place = made.pixels[:, -1, 5, :, 0], made.rows["state"][:, 0]
    assert (last[np.arange(len(last)), place] == 255).all()


def test_what_flickers_is_seen_in_every_frame(made: Made) -> None:
    assert (made.pixels[:, :, -1] == 100).all()


# ---------------------------------------------------------------- splits, order, cache


def test_splits_share_neither_episodes_nor_clips(made: Made) -> None:
    splits = np.repeat(np.arange(3), list(COUNTS.values()))
    marks = made.rows["state"][:, 1].astype(int) * 256 + made.rows["state"][:, 2]
    episodes = [set(marks[splits == i].tolist()) for i in range(3)]
    assert all(len(some) > 1 for some in episodes)
    assert not episodes[0] & episodes[1] | episodes[0] & episodes[2] | episodes[1] & episodes[2]
    assert len({clip.tobytes() for clip in made.pixels}) == len(made.pixels)


def test_clips_are_made_once_and_found_again(made: Made, tmp_path: Path) -> None:
    calls: list[int] = []
    first = film(tmp_path, progress=lambda done, _: calls.append(done))
    assert calls == [64, 128, 130, 170, 220]
    assert first.sha256 == made.sha256
    again = film(tmp_path, progress=lambda *_: pytest.fail("made again"))
    assert np.array_equal(again.pixels, first.pixels)
    assert all(np.array_equal(again.rows[name], made.rows[name]) for name in ("label", "state"))
    assert again.facts == first.facts
    for other in (replace(FILMING, seed=1), replace(FILMING, stride=3)):
        assert film(tmp_path, filming=other).sha256 != first.sha256


@pytest.mark.parametrize("name", ["pixels.npy", "state.npy", "label.npy", "meta.json"])
def test_a_file_that_was_cut_short_is_no_cache(made: Made, cache: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(cache, tmp_path / "cut")
    (file,) = tmp_path.glob(f"cut/*/{name}")
    file.write_bytes(file.read_bytes()[:-1])
    calls: list[int] = []
    assert film(tmp_path / "cut", progress=lambda done, _: calls.append(done)).sha256 == made.sha256
    assert calls


def test_a_killed_write_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert len(list(tmp_path.glob(f"*{PARTIAL}*"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film(tmp_path, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("console", "said"),
    [
        (Still(), "all look the same"),
        (Dot(lasts=20), "the game ends before, or nothing moves"),
        (Stuck(lasts=400), "the game ends before, or nothing moves"),
    ],
)
def test_games_without_clips_say_so(console: Dot, said: str) -> None:
    making = replace(FILMING, num_frames=2)
    with pytest.raises(ValueError, match=said):
        list(making.make(console, {"train": 10_000}).chunks)


@pytest.mark.parametrize("settings", [{"num_frames": 1}, {"size": 4}, {"stride": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="Wanted at least"):
        replace(FILMING, **settings)
    with pytest.raises(ValueError, match="Wanted at least"):
        atari_clips("pong", **settings)


@pytest.mark.parametrize(("h", "w", "size", "c"), [(210, 160, 32, 1), (250, 160, 64, 1), (23, 17, 16, 3), (9, 9, 9, 1)])
def test_pixels_are_the_mean_of_the_area_they_cover(h: int, w: int, size: int, c: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, h, w, c), dtype=np.uint8)
    # Every pixel as size x size small ones, of which each pixel of the result covers h x w.
    small = frames.repeat(size, 1).reshape(2, size, h, w, c).sum(2).repeat(size, 2).reshape(2, size, size, w, c).sum(3)
    assert np.abs(squeeze(frames, size=size) - small / (h * w)).max() <= 0.5
    with pytest.raises(ValueError, match="at most"):
        squeeze(frames, size=h + 1)


# ---------------------------------------------------------------- reading the state


class Places(Encoder):
    """One token: the mean over the clip of a noisy row of pixels, so that places are known and nothing else."""

    dim = SIDE

    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        return x[:, -1:, 0, 5]


def subject_of(clips: Clips) -> LabelledSubject:
    return labelled_subjects(Untrained(Places()), SampleStream(clips))["student"]


def test_bytes_are_read_where_the_features_hold_them(made: Made) -> None:
    clips, generator = clips_of(made), np.random.default_rng(0)
    place, noise = made.rows["state"][:, 0], generator.integers(0, 4, len(clips), dtype=np.uint8)
    assert clips.states is not None
    scores = ram_state(subject_of(replace(clips, states=np.stack([place, place, place * 0], 1))))
    assert scores["ram_bytes"] == 1
    assert scores["ram_accuracy"] > 0.7  # of sixteen places, read from two pixels
    assert scores["ram_above_majority"] > 0.65
    assert scores["ram_f1"] == pytest.approx(scores["ram_accuracy"], abs=0.1)
    assert scores["ram_majority"] < 0.2
    assert scores["ram_r2"] > 0.7
    chance = ram_state(subject_of(replace(clips, states=noise[:, None])))
    assert chance.keys() == scores.keys() - {"ram_r2"}
    assert abs(chance["ram_above_majority"]) < 0.25
    both = ram_state(subject_of(replace(clips, states=np.stack([place, noise], 1))))
    assert both["ram_accuracy"] == pytest.approx((scores["ram_accuracy"] + chance["ram_accuracy"]) / 2)
    assert both["ram_r2"] == scores["ram_r2"]


def test_scores_are_those_of_a_probe_for_each_byte(made: Made) -> None:
    clips = clips_of(made)
    subject = subject_of(replace(clips, states=made.rows["state"][:, :1]))
    y, y_validation, y_test = (
        torch.from_numpy(made.rows["state"][part.index.numpy(), 0].astype(np.int64))
        for part in (subject.train, subject.validation, subject.test)
    )
    probe = RidgeClassifier().fit(subject.train.z, y, subject.validation.z, y_validation)
    said, scores = probe.predict(subject.test.z), ram_state(subject)
    assert scores["ram_accuracy"] == pytest.approx(probe.score(subject.test.z, y_test))
    assert scores["ram_f1"] == pytest.approx(f1_score(y_test, said, average="weighted", zero_division=0))


def test_f1_is_scikit_learns(generator: torch.Generator) -> None:
    for num_values in (2, 5, 200):
        truth, said = (torch.randint(num_values, (300,), generator=generator) for _ in range(2))
        truth = torch.where(torch.rand(300, generator=generator) < 0.3, 0, truth)
        wanted = f1_score(truth, said, average="weighted", zero_division=0)
        assert weighted_f1(said, truth) == pytest.approx(wanted)


def test_bytes_that_hardly_vary_are_not_read() -> None:
    rare, often = np.arange(100) < 20, np.arange(100) < 40
    assert [-(p * np.log(p) + (1 - p) * np.log(1 - p)) > LEAST_ENTROPY for p in (0.2, 0.4)] == [False, True]
    states = np.stack([rare, often, often, rare * 0, ~often], 1).astype(np.uint8)
    assert choose_bytes(states) == [1, 4]


def test_without_states_there_is_nothing_to_read(made: Made) -> None:
    clips = clips_of(made)
    assert ram_state(subject_of(replace(clips, states=None))) == {}
    assert ram_state(subject_of(replace(clips, states=made.rows["state"][:, 3:]))) == {}


def test_a_byte_that_is_constant_on_test_is_left_out(made: Made) -> None:
    clips = clips_of(made)
    half = (made.rows["state"][:, :1] // (SIDE // 2)) * (clips.splits < 2).numpy()[:, None].astype(np.uint8)
    assert ram_state(subject_of(replace(clips, states=half))) == {}


# ---------------------------------------------------------------- the real thing, and where it is missing


def test_ale_is_imported_where_it_is_used() -> None:
    top = ast.parse(Path(atari.__file__).read_text(encoding="utf-8")).body
    names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in top if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.startswith(("ale_py", "gymnasium"))]


def test_without_ale_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(atari, "version", missing)
    with pytest.raises(ValueError, match=r"GPL-2.0.*jepalab\[atari\]"):
        atari_clips("pong", cache=tmp_path)


def test_footage_is_a_game_where_one_is_named(monkeypatch: pytest.MonkeyPatch, made: Made, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def play(game: str, **settings: Any) -> Clips:
        asked.update(settings, game=game)
        return clips_of(made)

    monkeypatch.setattr(clip_bench, "atari_clips", play)
    footage = Footage(game="pong", size=64, num_frames=4, stride=3, cache=tmp_path)
    assert footage.named().digest == made.sha256
    asked.pop("progress")
    assert asked == {"game": "pong", "size": 64, "num_frames": 4, "stride": 3, "cache": tmp_path}
    assert repr(Footage(game="pong")) == repr(Footage())  # what tells clips apart is their digest
    with pytest.raises(ValueError, match="give no data"):
        Footage(game="pong", data=tmp_path).open()


class Pong(NamedTuple):
    clips: Clips
    cache: Path


@pytest.fixture(scope="module")
def pong(tmp_path_factory: pytest.TempPathFactory) -> Pong:
    cache = tmp_path_factory.mktemp("pong")
    return Pong(atari_clips("pong", num_train=150, num_validation=10, num_test=10, cache=cache), cache)


@with_ale
def test_the_paddle_goes_where_the_label_says(pong: Pong) -> None:
    clips = pong.clips
    assert clips.names == ["NOOP or FIRE", "RIGHT or RIGHTFIRE", "LEFT or LEFTFIRE"]
    assert clips.pixels.shape == (170, 8, 32, 32, 1)
    assert clips.states is not None
    assert clips.states.shape == (170, 128)
    assert "3 classes of" in clips.describe()
    assert clips.labels.bincount().min() > 30
    # The player's paddle is at the right edge, and shows against an even field.
    strip = clips.pixels[:, :, 6:29, 27:30, 0].astype(float)
    paddle = np.abs(strip - np.median(strip)).sum(-1)
    height = (paddle * np.arange(23)).sum(-1) / paddle.sum(-1).clip(min=1)
    falls = np.diff(height)[:, 4:].mean(1)
    noop, right, left = (falls[clips.labels.numpy() == label] for label in range(3))
    assert right.mean() < -0.4 < noop.mean() < 0.4 < left.mean()
    # Its height lies in byte 51 of the memory (Anand et al. 2019): higher numbers are lower on the screen.
    place = clips.states[:, 51].astype(float)
    whole = (place > 50) & (place < 185)
    assert np.corrcoef(height[whole, -1], place[whole])[0, 1] > 0.95


@with_ale
def test_the_emulator_is_the_same_every_time(pong: Pong, tmp_path: Path) -> None:
    found = atari_clips(
        "pong",
        num_train=150,
        num_validation=10,
        num_test=10,
        cache=pong.cache,
        progress=lambda *_: pytest.fail("played again"),
    )
    assert found.digest == pong.clips.digest
    some = atari_clips("pong", num_train=16, num_validation=8, num_test=8, cache=tmp_path)
    assert torch.equal(some.read(torch.arange(16)), pong.clips.read(torch.arange(16)))
    assert [int((some.splits == i).sum()) for i in range(len(SPLITS))] == [16, 8, 8]


@with_ale
def test_a_stream_trains_on_them(pong: Pong) -> None:
    batch = SampleStream(pong.clips, batch_size=8, augmentation=None).batch(0)
    assert batch.x.shape == (8, 8, 1, 32, 32)


@with_ale
def test_screens_are_grey_or_coloured() -> None:
    grey, coloured = (Atari("breakout", channels=channels).screen() for channels in (1, 3))
    assert (grey.shape, coloured.shape) == ((210, 160, 1), (210, 160, 3))
    # Grey is a weighted mean of the three.
    assert np.corrcoef(grey.ravel(), coloured.mean(-1).ravel())[0, 1] > 0.95


@with_ale
@pytest.mark.parametrize("game", ["pongg", "combat"])
def test_unknown_games_and_those_for_two_are_refused(game: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no game"):
        atari_clips(game, cache=tmp_path)
    assert not list(tmp_path.iterdir())


@with_ale
def test_a_game_goes_on_from_where_it_was_put_back_to() -> None:
    console = Atari("seaquest")  # which a reset does not put back
    first, shown = console.save(), []
    for _ in range(2):
        for time in range(400):
            console.act((time // 20) % len(console.actions))
        shown.append((console.screen().tobytes(), console.memory().tobytes()))
        console.restore(first)
    assert shown[0] == shown[1]
