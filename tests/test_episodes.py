"""Episodes on disk: what is written comes back to the last bit, and what is damaged, killed or forged does no harm."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jepalab.data import episode_lerobot_export, episode_shards
from jepalab.data.episode_hdf5 import export_hdf5, import_hdf5
from jepalab.data.episode_lerobot import import_lerobot
from jepalab.data.episode_lerobot_export import export_lerobot
from jepalab.data.episode_statistics import Statistics
from jepalab.data.episode_videos import read_frames
from jepalab.data.episode_writer import EpisodeWriter
from jepalab.data.episodes import Episode, Episodes

LENGTHS = (5, 1, 9, 4, 2, 7, 6)


def episode(seed: int, length: int, **more: Any) -> Episode:
    """Noise, and numbers that say which frame of which episode they are of."""
    draw = np.random.default_rng(seed)
    frames = np.arange(length)
    columns = {
        "pixels": draw.integers(256, size=(length, 3, 16, 24), dtype=np.uint8),
        "action": draw.normal(size=(length - 1, 2)).astype(np.float32),
        "proprio": draw.normal(size=(length, 1)).astype(np.float64),
        "state": (100 * seed + frames[:, None] + np.zeros(3)).astype(np.float32),
        "reward": np.where(frames, 0.5, np.nan).astype(np.float16),
        "is_at.goal": frames % 2 == 0,
        "contacts": draw.integers(-9, 9, size=(length, 2, 3)),
    }
    return Episode(columns | more, {"seed": seed, "environment": "TwoRooms", "notes": {"start": [1, 2.5], "won": None}})


def some(lengths: Iterable[int] = LENGTHS) -> list[Episode]:
    return [episode(seed, length) for seed, length in enumerate(lengths)]


def assert_same(found: Episode, wanted: Episode, but: tuple[str, ...] = ()) -> None:
    assert found.columns.keys() == wanted.columns.keys()
    for name, values in wanted.columns.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].shape == values.shape, name
        if name not in but:
            assert found[name].tobytes() == values.tobytes(), name
    assert found.metadata == wanted.metadata


def write(folder: Path, episodes: Iterable[Episode], **settings: Any) -> Path:
    with EpisodeWriter(folder, **settings) as writer:
        for one in episodes:
            writer.add(one)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "episodes"


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Writing past so many bytes of a file fails, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# One episode.


def test_an_episode_knows_its_columns() -> None:
    one = episode(3, 5)
    assert len(one) == 5
    assert one.pixels.shape == (5, 3, 16, 24)
    assert one.action.shape == (4, 2)
    assert one.proprio.shape == (5, 1)
    assert one.state[:, 0].tolist() == [300, 301, 302, 303, 304]
    with pytest.raises(ValueError, match="no column 'goal'; it has action, contacts"):
        one["goal"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pixels": np.zeros((5, 3, 8, 8), np.uint8)}, "needs a column `action`"),
        ({"action": np.zeros(4)}, r"'action' as \[4 n\]"),
        ({"action": np.zeros((4, 0))}, r"'action' as \[4 n\]"),
        ({"action": np.full((4, 2), np.nan)}, "finite"),
        ({"action": np.zeros((4, 2)), "pixels": np.zeros((4, 3, 8, 8), np.uint8)}, r"'pixels' as \[5 c h w\]"),
        ({"action": np.zeros((4, 2)), "pixels_top": np.zeros((5, 8, 8), np.uint8)}, r"'pixels_top' as \[5 c h w\]"),
        ({"action": np.zeros((4, 2)), "pixels": np.zeros((5, 3, 8, 8), np.int64)}, "uint8 or floats, got int64"),
        ({"action": np.zeros((4, 2)), "state": np.zeros(5)}, r"'state' as \[5 n\]"),
        ({"action": np.zeros((4, 2)), "words": np.array(list("abcde"))}, "numbers that numpy has"),
        ({"action": np.zeros((4, 2)), "big": np.zeros(5, dtype=">f4")}, "numbers that numpy has"),
        ({"action": np.zeros((4, 2)), "../x": np.zeros(5)}, "names of letters"),
        ({"action": np.zeros((4, 2)), "__metadata__": np.zeros(5)}, "names of letters"),
    ],
)
def test_an_episode_refuses_what_is_none(columns: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Episode(columns)


def test_a_window_of_an_episode_in_memory() -> None:
    one = episode(3, 7)
    window = one.window(2, length=4)
    assert window.state[:, 0].tolist() == [302, 303, 304, 305]
    assert np.array_equal(window.action, one.action[2:5])
    with pytest.raises(ValueError, match="frames 4 to 7 of an episode, which has frames 0 to 6"):
        one.window(4, length=4)


# The native format.


def test_what_is_written_comes_back(folder: Path) -> None:
    wanted = some()
    write(folder, wanted, metadata={"environment": "TwoRooms"}, shard_episodes=3)
    episodes = Episodes.open(folder)
    assert sorted(path.name for path in folder.iterdir()) == [*(f"0000{i}.safetensors" for i in range(3)), "meta.json"]
    assert len(episodes) == 7
    assert episodes.lengths.tolist() == list(LENGTHS)
    assert episodes.numbers.tolist() == list(range(7))
    assert episodes.metadata == {"environment": "TwoRooms"}
    assert episodes.columns == wanted[0].layout
    assert not episodes.skipped
    for i, (found, one) in enumerate(zip(episodes, wanted, strict=True)):
        assert_same(found, one)
        assert_same(episodes[i - 7], one)
    with pytest.raises(IndexError):
        episodes[7]
    assert "7 episodes, 34 frames" in episodes.describe()


@pytest.mark.parametrize("dtype", sorted(episode_shards.DTYPES))
def test_types_are_kept(folder: Path, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2, size=(6, 3)).astype(dtype)
    action = values[:5, :2].copy()
    write(folder, [Episode({"action": action, "extra": values, "scalar": values[:, 0]})])
    found = Episodes.open(folder).window(0, start=1, length=4)
    for name, wanted in (("action", action[1:4]), ("extra", values[1:5]), ("scalar", values[1:5, 0])):
        assert found[name].dtype == dtype
        assert np.array_equal(found[name], wanted)


def test_floats_may_be_pixels(folder: Path) -> None:
    pixels = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    write(folder, [Episode({"action": np.zeros((3, 1)), "pixels": pixels})])
    assert np.array_equal(Episodes.open(folder)[0].pixels, pixels)


@pytest.mark.parametrize(("length", "hop"), [(1, 1), (2, 1), (3, 2), (4, 5), (9, 1)])
def test_windows_are_all_there_and_right(folder: Path, length: int, hop: int) -> None:
    wanted = some()
    episodes = Episodes.open(write(folder, wanted, shard_episodes=2))
    windows = episodes.windows(length, hop=hop)
    assert windows.tolist() == [[i, s] for i, n in enumerate(LENGTHS) for s in range(0, n - length + 1, hop)]
    for i, start in windows.tolist():
        assert_same(episodes.window(i, start=start, length=length), wanted[i].window(start, length=length))


def test_windows_that_are_not_there_are_refused(folder: Path) -> None:
    episodes = Episodes.open(write(folder, some()))
    with pytest.raises(ValueError, match="windows of 10 frames, and the longest episode has 9"):
        episodes.windows(10)
    with pytest.raises(ValueError, match="at least one frame"):
        episodes.windows(0)
    for start, length in ((-1, 2), (4, 2), (0, 0), (0, 6)):
        with pytest.raises(ValueError, match="which has frames 0 to 4"):
            episodes.window(0, start=start, length=length)
    with pytest.raises(IndexError):
        episodes.window(7, start=0, length=1)


def test_what_was_read_is_the_readers_own(folder: Path) -> None:
    episodes = Episodes.open(write(folder, some()))
    episodes[0].pixels[:] = 0
    assert episodes[0].pixels.any()


def test_an_environment_may_use_its_arrays_again(folder: Path) -> None:
    with EpisodeWriter(folder) as writer:
        action = np.zeros((3, 1))
        for value in range(4):
            action[:] = value
            writer.add(Episode({"action": action}))
    assert [one.action[0, 0] for one in Episodes.open(folder)] == [0, 1, 2, 3]


def test_shards_are_no_larger_than_asked_for(folder: Path) -> None:
    num_bytes = sum(values.nbytes for values in episode(0, 10).columns.values())
    write(folder, some([10] * 8 + [35, 10]), shard_bytes=3 * num_bytes)
    nums = [len(shard["episodes"]) for shard in json.loads((folder / "meta.json").read_text())["shards"]]
    assert nums == [3, 3, 2, 1, 1]


def test_the_same_episodes_make_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, some(), shard_episodes=3) for name in "ab")
    assert bytes_of(first) == bytes_of(second)


def test_opening_a_thousand_episodes_loads_none(folder: Path) -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(256, size=(24, 3, 32, 32), dtype=np.uint8)
    write(folder, (Episode({"action": np.zeros((23, 2)), "pixels": pixels}, {"seed": i}) for i in range(1000)))
    num_bytes = sum(map(len, bytes_of(folder).values()))
    tracemalloc.start()
    try:
        episodes = Episodes.open(folder)
        assert tracemalloc.get_traced_memory()[1] < num_bytes / 10
        tracemalloc.reset_peak()
        assert np.array_equal(episodes.window(777, start=5, length=8).pixels, pixels[5:13])
        assert episodes[999].metadata == {"seed": 999}
        assert tracemalloc.get_traced_memory()[1] < num_bytes / 10
    finally:
        tracemalloc.stop()


def test_many_shards_are_not_all_kept_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepalab.data.episodes.MAX_OPEN", 2)
    wanted = some()
    episodes = Episodes.open(write(folder, wanted, shard_episodes=1))
    for i in (0, 3, 6, 0, 1, 3, 5, 6, 2):
        assert_same(episodes[i], wanted[i])
    assert len(episodes._opened) == 2


# What goes wrong while writing.

KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_episodes import episode, LENGTHS
from jepalab.data.episode_writer import EpisodeWriter

calls = 0
def fatal(function):
    def wrapped(*args):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), 9)
        return function(*args)
    return wrapped

os.fsync, Path.replace = fatal(os.fsync), fatal(Path.replace)
with EpisodeWriter(Path(sys.argv[2]), metadata={"environment": "TwoRooms"}, shard_episodes=2) as writer:
    for seed in range(len(writer), len(LENGTHS)):
        writer.add(episode(seed, LENGTHS[seed]))
    os.kill(os.getpid(), 9)
"""


# meta.json, then a shard and meta.json again and again: each is written, then renamed.
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6, 9, 99])
def test_a_killed_writer_loses_its_open_shard_only(tmp_path: Path, call: int) -> None:
    folder, wanted = tmp_path / "killed", some()
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder), str(call)]
    assert subprocess.run(arguments, check=False).returncode == -9
    num_whole = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 9: 2, 99: 6}[call]
    if num_whole:
        episodes = Episodes.open(folder)
        assert not episodes.skipped
        for found, one in zip(episodes, wanted[:num_whole], strict=True):
            assert_same(found, one)
    elif folder.exists():
        with pytest.raises(ValueError, match="Wanted a folder of episodes"):
            Episodes.open(folder)
    # The next writer ends where one would have that was never killed, to the last byte.
    settings: dict[str, Any] = {"metadata": {"environment": "TwoRooms"}, "shard_episodes": 2}
    with EpisodeWriter(folder, **settings) as writer:
        assert len(writer) == num_whole
        for one in wanted[len(writer) :]:
            writer.add(one)
    assert bytes_of(folder) == bytes_of(write(tmp_path / "whole", wanted, **settings))


def test_an_error_in_the_block_keeps_the_episodes_before_it(folder: Path) -> None:
    def episodes() -> Iterator[Episode]:
        yield episode(0, 5)
        raise KeyError

    with pytest.raises(KeyError):
        write(folder, episodes())
    assert len(Episodes.open(folder)) == 1


def test_nothing_written_is_nothing_left(folder: Path) -> None:
    with EpisodeWriter(folder):
        assert folder.exists()
    assert not folder.exists()
    folder.mkdir()
    with EpisodeWriter(folder):
        pass
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_while_writing_shards(folder: Path, room: int) -> None:
    wanted = some()
    write(folder, wanted[:2], shard_episodes=2)
    before = bytes_of(folder)
    message = r"MB of episodes .*the 2 before them are whole. Make room"
    with pytest.raises(OSError, match=message) as raised, full_disk(room):
        write(folder, wanted[2:], shard_episodes=3)
    assert raised.value.errno == errno.EFBIG
    assert bytes_of(folder) == before
    for found, one in zip(Episodes.open(folder), wanted[:2], strict=True):
        assert_same(found, one)


def test_a_disk_that_is_full_when_meta_json_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, some()[:2])
    before, replace = bytes_of(folder), Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "meta.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    with EpisodeWriter(folder) as writer, monkeypatch.context() as patch:
        writer.add(episode(2, 5))
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
    assert bytes_of(folder) == before


def test_a_writer_goes_on_after_room_was_made(folder: Path) -> None:
    with EpisodeWriter(folder) as writer:
        writer.add(episode(0, 5))
        with pytest.raises(OSError, match="Make room"), full_disk(1000):
            writer.flush()
    assert not folder.exists(), "who does not try again has written nothing"
    with EpisodeWriter(folder) as writer:
        writer.add(episode(0, 5))
        with pytest.raises(OSError, match="Make room"), full_disk(1000):
            writer.flush()
        writer.flush()
        writer.add(episode(1, 5))
    assert len(Episodes.open(folder)) == 2


def test_other_episodes_are_refused(folder: Path) -> None:
    write(folder, some()[:2], metadata={"environment": "TwoRooms"})
    with pytest.raises(ValueError, match=r"other columns \(depth: .*now"), EpisodeWriter(folder) as writer:
        writer.add(episode(2, 5, depth=np.zeros(5)))
    with pytest.raises(ValueError, match=r"these are of \{'environment': 'PushT'\}"):
        EpisodeWriter(folder, metadata={"environment": "PushT"})
    with pytest.raises(ValueError, match="metadata as JSON"), EpisodeWriter(folder) as writer:
        writer.add(Episode(episode(2, 5).columns, {"seed": np.int64(3)}))
    with pytest.raises(ValueError, match="metadata as JSON"), EpisodeWriter(folder) as writer:
        writer.add(Episode(episode(2, 5).columns, {"score": float("nan")}))
    assert len(Episodes.open(folder)) == 2
    (folder.parent / "photos").mkdir()
    (folder.parent / "photos" / "00000.safetensors").write_text("mine")
    with pytest.raises(ValueError, match="Wanted a new or an empty folder, or one of episodes"):
        EpisodeWriter(folder.parent / "photos")


# What goes wrong while reading.


def test_a_truncated_shard_is_named_and_skipped(folder: Path) -> None:
    wanted = some()
    write(folder, wanted, shard_episodes=3)
    shard = folder / "00001.safetensors"
    num_bytes = shard.stat().st_size
    for kept in (num_bytes - 1, num_bytes // 2, 9, 3, 0):
        os.truncate(shard, kept)
        episodes = Episodes.open(folder, verify="size")
        assert list(episodes.skipped) == ["episode 3", "episode 4", "episode 5"]
        assert episodes.skipped["episode 3"] == f"00001.safetensors is cut short: {kept} of {num_bytes} bytes"
        assert episodes.numbers.tolist() == [0, 1, 2, 6]
        for i, number in enumerate(episodes.numbers.tolist()):
            assert_same(episodes[i], wanted[number])
    shard.unlink()
    episodes = Episodes.open(folder)
    assert "00001.safetensors cannot be read: No such file" in episodes.skipped["episode 5"]
    assert "3 left out, the first: episode 3" in episodes.describe()


def test_flipped_bits_are_found(folder: Path) -> None:
    wanted = some()
    write(folder, wanted)
    whole = (folder / "00000.safetensors").read_bytes()
    num_lost, header = [], 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, 600, 7), *np.linspace(900, len(whole) - 1, 50).astype(int)]:
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (folder / "00000.safetensors").write_bytes(damaged)
        if place < header:  # What it says may still be the same, or no shard any more.
            with suppress(ValueError):
                assert_same(Episodes.open(folder)[0], wanted[0])
            continue
        episodes = Episodes.open(folder)
        num_lost.append(len(episodes.skipped))
        for i, number in enumerate(episodes.numbers.tolist()):
            assert_same(episodes[i], wanted[number])
    assert set(num_lost) == {1}, "one flipped bit costs one episode"


def test_a_shard_of_other_columns_is_skipped(folder: Path) -> None:
    write(folder, some(), shard_episodes=3)
    other = write(folder.parent / "other", [Episode({"action": np.zeros((99, 2))})])
    (folder / "00000.safetensors").write_bytes((other / "00000.safetensors").read_bytes().ljust(20_000, b" "))
    assert len(Episodes.open(folder)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta["shards"][0].update(file="../x"), r"names the shard '../x'; shards are called"),
        (lambda meta: meta["shards"][0].update(file="/etc/passwd"), "names the shard"),
        (lambda meta: meta["shards"][0].update(file="..\\00000.safetensors"), "names the shard"),
        (lambda meta: meta["shards"][0].update(file="00000.safetensors\n"), "names the shard"),
        (lambda meta: meta["shards"][1].update(file="00000.safetensors"), "names a shard twice"),
        (lambda meta: meta["shards"][0].update(num_bytes=-1), "damaged"),
        (lambda meta: meta["shards"][0].pop("sha256"), "damaged"),
        (lambda meta: meta["shards"][0]["episodes"][0].update(length=0), "damaged"),
        (lambda meta: meta["shards"][0]["episodes"][0].update(length=2**70), "damaged"),
        (lambda meta: meta["shards"][0]["episodes"].append(None), "damaged"),
        (lambda meta: meta["columns"].pop("action"), "damaged"),
        (lambda meta: meta["columns"]["state"].update(dtype="object"), "damaged"),
        (lambda meta: meta["columns"]["state"].update(shape=["3"]), "damaged"),
        (lambda meta: meta["columns"]["state"].update(shape=None), "damaged"),
        (lambda meta: meta.update(shards="none"), "damaged"),
        (lambda meta: meta.update(version=2), "of version 2, and this jepalab reads 1; update it"),
        (lambda meta: meta.update(format="photos"), "something else's"),
        (lambda meta: meta.update(shards=[]), "none of .* can be read .none was written."),
    ],
)
def test_forged_and_damaged_listings_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    write(folder, some(), shard_episodes=3)
    (folder.parent / "x").write_bytes((folder / "00000.safetensors").read_bytes())
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=message):
        Episodes.open(folder)


def test_lengths_that_do_not_add_up_are_skipped(folder: Path) -> None:
    write(folder, some(), shard_episodes=3)
    meta = json.loads((folder / "meta.json").read_text())
    meta["shards"][0]["episodes"][0]["length"] += 1
    meta["columns"] |= {}
    (folder / "meta.json").write_text(json.dumps(meta))
    episodes = Episodes.open(folder)
    assert episodes.numbers.tolist() == [3, 4, 5, 6]
    assert "is not what meta.json says" in episodes.skipped["episode 0"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\0\0"])
def test_wrong_folders_are_told_what_was_expected(folder: Path, content: str | None) -> None:
    with pytest.raises(ValueError, match=r"Wanted a folder of episodes.*meta\.json"):
        Episodes.open(folder)
    folder.mkdir()
    if content is not None:
        (folder / "meta.json").write_text(content)
    with pytest.raises(ValueError, match=r"Wanted a folder of episodes.*meta\.json"):
        Episodes.open(folder)
    with pytest.raises(ValueError, match=r"Wanted a folder of episodes.*meta\.json"):
        Episodes.open(Path(__file__))


def test_what_changes_under_a_reader_is_an_error(folder: Path) -> None:
    episodes = Episodes.open(write(folder, some(), shard_episodes=3))
    (folder / "00001.safetensors").unlink()
    with pytest.raises(ValueError, match="open its folder anew"):
        episodes[4]


# HDF5.


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py")


def test_hdf5_and_back(tmp_path: Path, h5py: Any) -> None:
    wanted = some()
    export_hdf5(wanted, path=tmp_path / "out" / "episodes.h5")
    episodes = import_hdf5(tmp_path / "out" / "episodes.h5", folder=tmp_path / "back")
    assert not episodes.skipped
    for found, one in zip(episodes, wanted, strict=True):
        assert_same(found, one)
    # From a folder, and a second time: the same bytes in every dataset.
    export_hdf5(episodes, path=tmp_path / "again.h5")
    with h5py.File(tmp_path / "out" / "episodes.h5") as first, h5py.File(tmp_path / "again.h5") as second:
        assert first.keys() == second.keys()
        assert all(first[name][:].tobytes() == second[name][:].tobytes() for name in first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.h5", "back", "out"]


def test_hdf5_has_the_layout_of_stable_worldmodel(tmp_path: Path, h5py: Any) -> None:
    wanted = some()
    export_hdf5(wanted, path=tmp_path / "episodes.h5")
    # Its reader opens files in this mode, and takes every other name for a column.
    with h5py.File(tmp_path / "episodes.h5", "r", swmr=True) as file:
        assert file.keys() == wanted[0].columns.keys() | {"ep_len", "ep_offset"}
        assert file["ep_len"].dtype == np.int32
        assert file["ep_offset"].dtype == np.int64
        assert file["ep_len"][:].tolist() == list(LENGTHS)
        assert file["ep_offset"][:].tolist() == [0, *np.cumsum(LENGTHS)[:-1]]
        assert file["pixels"].shape == (sum(LENGTHS), 16, 24, 3)
        assert np.array_equal(file["pixels"][5 + 1 + 2], wanted[2].pixels[2].transpose(1, 2, 0))
        assert len({len(file[name]) for name in wanted[0].columns}) == 1
        assert np.array_equal(file["action"][6:14], wanted[2].action)
        assert np.isnan(file["action"][14]).all()
        assert np.isnan(file["action"][5]).all(), "an episode of one frame has no action"


@pytest.mark.parametrize("are_channels_first", [False, True])
def test_a_file_of_stable_worldmodel(tmp_path: Path, h5py: Any, are_channels_first: bool) -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(256, size=(12, 8, 6, 3), dtype=np.uint8)
    action = draw.normal(size=(12, 2)).astype(np.float32)
    action[[4, 11]] = np.nan
    with h5py.File(tmp_path / "swm.h5", "w", libver="latest") as file:
        stored = pixels.transpose(0, 3, 1, 2) if are_channels_first else pixels
        file.create_dataset("pixels", data=stored, chunks=(1, *stored.shape[1:]))
        file.create_dataset("action", data=action, chunks=(1, 2))
        file.create_dataset("proprio", data=np.arange(12.0))
        file.create_dataset("reward", data=np.arange(12, dtype=">f4"))
        file.create_dataset("instruction", data=["go left"] * 5 + ["go right"] * 7, dtype=h5py.string_dtype())
        file.create_dataset("pair", data=np.zeros(12, dtype=[("a", "f4"), ("b", "i4")]))
        file.create_dataset("ep_len", data=np.array([5, 7], dtype=np.int32))
        file.create_dataset("ep_offset", data=np.array([0, 5], dtype=np.int64))
    episodes = import_hdf5(tmp_path / "swm.h5", folder=tmp_path / "episodes")
    assert list(episodes.skipped) == ["column pair of swm.h5"]
    second = episodes[1]
    assert second.metadata == {"instruction": "go right"}
    assert np.array_equal(second.pixels, pixels[5:].transpose(0, 3, 1, 2))
    assert np.array_equal(second.action, action[5:11])
    assert second.proprio.tolist() == [[value] for value in range(5, 12)]
    assert second["reward"].tolist() == list(range(5, 12))
    assert second["reward"].dtype == np.float32


def test_hdf5_of_which_only_a_part_is_ours(tmp_path: Path, h5py: Any) -> None:
    path = tmp_path / "episodes.h5"
    export_hdf5(some([5]), path=path)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(100))
    with h5py.File(path, "r+") as file:
        for name in file.keys() - {"ep_len", "ep_offset"}:
            file[name].resize(9, axis=0)
        file["action"][5:] = 1
        for name, value in (("ep_len", 4), ("ep_offset", 5)):
            file[name].resize(2, axis=0)
            file[name][1] = value
        file.create_dataset("outside", shape=(9,), dtype=np.uint8, external=[(str(secret), 0, 9)])
        file["linked"] = h5py.ExternalLink(str(path), "state")
        file["lost"] = h5py.SoftLink("/nowhere")
    episodes = import_hdf5(path, folder=tmp_path / "back")
    assert [one.metadata.get("seed") for one in episodes] == [0, None]
    assert (episodes[1].action == 1).all()
    assert list(episodes.skipped) == [f"column {name} of episodes.h5" for name in ("linked", "lost", "outside")]


def test_damaged_hdf5_episodes_are_named_and_skipped(tmp_path: Path, h5py: Any) -> None:
    wanted = some()
    export_hdf5(wanted, path=tmp_path / "episodes.h5")
    with h5py.File(tmp_path / "episodes.h5", "r+") as file:
        file["action"][1, 0] = np.inf  # of episode 0
        file["ep_len"][2] = -3
        file["ep_offset"][3] = 1000
        file["ep_len"][6] = 9
    episodes = import_hdf5(tmp_path / "episodes.h5", folder=tmp_path / "back")
    assert list(episodes.skipped) == [f"episode {i} of episodes.h5" for i in (0, 2, 3, 6)]
    assert "finite" in episodes.skipped["episode 0 of episodes.h5"]
    assert "rows 28 to 36 are not in" in episodes.skipped["episode 6 of episodes.h5"]
    for found, one in zip(episodes, (wanted[i] for i in (1, 4, 5)), strict=True):
        assert_same(found, one)


def test_no_hdf5_file_of_episodes(tmp_path: Path, h5py: Any) -> None:
    export_hdf5(some(), path=tmp_path / "cut.h5")
    os.truncate(tmp_path / "cut.h5", 5000)
    (tmp_path / "words.h5").write_text("words")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["photos"] = np.zeros(3)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["action"], file["ep_len"], file["ep_offset"] = np.zeros((3, 2)), np.array([3]), np.array([[0, 1]])
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["action"], file["ep_len"], file["ep_offset"] = np.zeros((3, 2)), np.zeros(0, int), np.zeros(0, int)
    for name, message in (
        ("cut", "missing, damaged or none"),
        ("words", "missing, damaged or none"),
        ("absent", "missing, damaged or none"),
        ("other", r"has no ep_len and no ep_offset and no action, but \['photos'\]"),
        ("bare", "does not tell where its episodes begin"),
        ("none", "none of .* can be read"),
    ):
        with pytest.raises(ValueError, match=message):
            import_hdf5(tmp_path / f"{name}.h5", folder=tmp_path / "back")
        assert not (tmp_path / "back").exists()
    assert not [*tmp_path.glob(".*")]


def test_hdf5_refusals(tmp_path: Path, h5py: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "episodes.h5"
    with pytest.raises(ValueError, match="at least one episode"):
        export_hdf5([], path=path)
    with pytest.raises(ValueError, match="no room for a column called ep_len"):
        export_hdf5([episode(0, 5, ep_len=np.zeros(5))], path=path)
    with pytest.raises(ValueError, match="Wanted episode 0's metadata as JSON"):
        export_hdf5([Episode({"action": np.zeros((4, 2))}, {"seed": np.int64(3)})], path=path)
    with pytest.raises(ValueError, match="Episode 1 has the columns"):
        export_hdf5([episode(0, 5), episode(0, 5, depth=np.zeros(5))], path=path)
    assert not [*tmp_path.iterdir()]
    export_hdf5(some(), path=path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ValueError, match="Wanted a new or an empty folder"):
        import_hdf5(path, folder=tmp_path / "mine")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for call in (lambda: export_hdf5(some(), path=path), lambda: import_hdf5(path, folder=tmp_path / "back")):
        with pytest.raises(ValueError, match=re.escape('pip install "jepalab[data]"')):
            call()


@pytest.mark.parametrize("room", [0, 1000, 30_000, 60_000])
def test_a_full_disk_while_writing_hdf5(tmp_path: Path, h5py: Any, room: int) -> None:
    path = tmp_path / "episodes.h5"
    path.write_text("what was there")
    with pytest.raises(OSError, match="nothing is left of it; make room"), full_disk(room):
        export_hdf5(some([20] * 9), path=path)
    assert bytes_of(tmp_path) == {"episodes.h5": b"what was there"}


def test_a_full_disk_while_importing(tmp_path: Path, h5py: Any) -> None:
    export_hdf5(some([20] * 9), path=tmp_path / "episodes.h5")
    with pytest.raises(OSError, match=r"Could not write .*nothing is left of it; make room"), full_disk(30_000):
        import_hdf5(tmp_path / "episodes.h5", folder=tmp_path / "back")
    assert sorted(bytes_of(tmp_path)) == ["episodes.h5"]


# LeRobot.


@pytest.fixture
def pq() -> Any:
    return pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("pictures", ["h264-lossless", "png", "h264"])
def test_lerobot_and_back(tmp_path: Path, pq: Any, pictures: Any) -> None:
    if pictures != "png":
        pytest.importorskip("av")
    draw = np.random.default_rng(0)
    wanted = [
        episode(i, n, pixels_top=draw.integers(256, size=(n, 1, 16, 24), dtype=np.uint8)) for i, n in enumerate(LENGTHS)
    ]
    if pictures == "h264":  # Noise is not what it is made for.
        ramp = np.add.outer(np.arange(16) * 8, np.arange(24) * 4).astype(np.uint8)
        smooth = [
            (ramp + 5 * np.arange(n)[:, None, None, None] + np.zeros((3, 1, 1))).astype(np.uint8) for n in LENGTHS
        ]
        cameras = [{"pixels": pixels, "pixels_top": pixels[:, :1]} for pixels in smooth]
        wanted = [Episode({**one.columns, **seen}, one.metadata) for one, seen in zip(wanted, cameras, strict=True)]
    export_lerobot(wanted, folder=tmp_path / "out", pictures=pictures)
    episodes = import_lerobot(tmp_path / "out", folder=tmp_path / "back")
    assert not episodes.skipped
    assert (tmp_path / "out" / "videos").exists() == (pictures != "png")
    lossy = ("pixels", "pixels_top") if pictures == "h264" else ()
    for found, one in zip(episodes, wanted, strict=True):
        assert_same(found, one, but=lossy)
        for name in lossy:
            error = np.abs(found[name].astype(float) - one[name])
            assert error.max() < 24
            assert 0 < error.mean() < 4
    if not lossy:
        export_lerobot(wanted, folder=tmp_path / "again", pictures=pictures)
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")
    assert not [*tmp_path.glob(".*")]


def test_lerobot_has_its_layout(tmp_path: Path, pq: Any) -> None:
    pytest.importorskip("av")
    wanted = some()
    export_lerobot(wanted, folder=tmp_path / "out", fps=20)
    assert sorted(bytes_of(tmp_path / "out")) == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/jepalab.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "videos/observation.image/chunk-000/file-000.mp4",
    ]
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["fps"]) == (7, 34, 1, 20)
    assert info["features"]["observation.image"]["shape"] == [16, 24, 3]
    assert info["features"]["observation.state"] == {"dtype": "float64", "shape": [1], "names": None}
    assert info["features"]["observation.environment_state"]["shape"] == [3]
    assert info["features"]["reward"] == {"dtype": "float16", "shape": [1], "names": None}
    assert info["features"]["timestamp"]["dtype"] == "float32"
    rows = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert set(rows.column_names) == info["features"].keys() - {"observation.image"}
    assert rows["index"].to_pylist() == list(range(34))
    assert rows["episode_index"].to_pylist() == np.repeat(range(7), LENGTHS).tolist()
    assert rows["timestamp"].to_numpy()[6:15] == pytest.approx(np.arange(9) / 20)
    assert rows["action"].to_pylist()[6:15] == [*wanted[2].action.tolist(), wanted[2].action[-1].tolist()]
    assert rows["observation.environment_state"].type.list_size == 3
    episodes = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for row, (start, stop) in zip(episodes, pairwise(np.cumsum([0, *LENGTHS]).tolist()), strict=True):
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, stop)
        assert row["videos/observation.image/from_timestamp"] == pytest.approx(start / 20)
        assert row["videos/observation.image/to_timestamp"] == pytest.approx(stop / 20)
        assert (row["tasks"], row["length"]) == (["TwoRooms"], stop - start)
    tasks = pq.read_table(tmp_path / "out/meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "TwoRooms"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_lerobot_in_many_files(tmp_path: Path, pq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    wanted = some([20] * 9)
    for name, limit in (("DATA_BYTES", 1500), ("VIDEO_BYTES", 12_000), ("CHUNK_FILES", 2)):
        monkeypatch.setattr(episode_lerobot_export, name, limit)
    export_lerobot(wanted, folder=tmp_path / "out")
    names = bytes_of(tmp_path / "out")
    assert "data/chunk-001/file-000.parquet" in names
    assert "videos/observation.image/chunk-001/file-000.mp4" in names
    for found, one in zip(import_lerobot(tmp_path / "out", folder=tmp_path / "back"), wanted, strict=True):
        assert_same(found, one)


def test_statistics_are_those_of_numpy(tmp_path: Path, pq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepalab.data.episode_statistics.BLOCK", 100)
    wanted = some()
    export_lerobot(wanted, folder=tmp_path / "out", pictures="png")
    found = json.loads((tmp_path / "out/meta/stats.json").read_text())
    pixels = np.concatenate([one.pixels for one in wanted]) / 255.0
    state = np.concatenate([one.state for one in wanted])
    for key, values, axes in (("observation.image", pixels, (0, 2, 3)), ("observation.environment_state", state, (0,))):
        assert found[key]["count"] == [34]
        for name in ("min", "max", "mean", "std"):
            wanted_ = getattr(np, name)(values, axis=axes)
            assert np.ravel(found[key][name]) == pytest.approx(wanted_, rel=1e-6), (key, name)
    assert np.shape(found["observation.image"]["mean"]) == (3, 1, 1)
    assert found["reward"] == {"min": [0.5], "max": [0.5], "mean": [0.5], "std": [0.0], "count": [34]}
    nothing = Statistics(is_of_pictures=False)
    nothing.add(np.full((3, 2), np.nan))
    assert nothing.as_json() == {"min": [0, 0], "max": [0, 0], "mean": [0, 0], "std": [0, 0], "count": [3]}


def test_frames_between_frames_that_depend_on_each_other(tmp_path: Path) -> None:
    """As others encode: far between key frames, frames that need later ones, a rate of 30000 / 1001."""
    av, fps = pytest.importorskip("av"), 30000 / 1001
    frames = np.full((40, 32, 48, 3), 60, dtype=np.uint8) + 4 * np.arange(40, dtype=np.uint8)[:, None, None, None]
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(30000, 1001), options={"bf": "3", "g": "15", "crf": "15"}
        )
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    for start, num in ((0, 40), (1, 1), (7, 3), (14, 2), (15, 20), (39, 1)):
        found = read_frames(tmp_path / "video.mp4", start=start / fps, num=num, fps=fps)
        assert np.abs(found.astype(float) - frames[start : start + num]).max() < 2, (start, num)
    with pytest.raises(ValueError, match=r"has 5 of the 6 frames from second 1\.168 on"):
        read_frames(tmp_path / "video.mp4", start=35 / fps, num=6, fps=fps)


@pytest.mark.parametrize("dtype", sorted(episode_shards.DTYPES))
def test_types_are_kept_by_other_formats(tmp_path: Path, h5py: Any, pq: Any, dtype: str) -> None:
    """Of episodes without pictures, with a column of each kind of shape."""
    values = np.random.default_rng(0).integers(0, 2, size=(6, 3, 2)).astype(dtype)
    action, column, scalar = values[:5, :, 0].copy(), values[:, :1, 0], values[:, 0, 0]
    one = Episode({"action": action, "cube": values, "column": column, "scalar": scalar})
    export_hdf5([one, one], path=tmp_path / "a.h5")
    export_lerobot([one, one], folder=tmp_path / "b")
    for episodes in (
        import_hdf5(tmp_path / "a.h5", folder=tmp_path / "c"),
        import_lerobot(tmp_path / "b", folder=tmp_path / "d"),
    ):
        assert not episodes.skipped
        assert_same(episodes[1], one)


def foreign(folder: Path, pq: Any, **changes: Any) -> Path:
    """A dataset as others write it: pictures in the table, two cameras, words, lists of no fixed size."""
    import pyarrow as pa

    draw = np.random.default_rng(0)
    pictures = draw.integers(256, size=(2, 9, 6, 8, 3), dtype=np.uint8)
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    features = {
        "observation.images.top": {"dtype": "image", "shape": [6, 8, 3], "names": ["height", "width", "channels"]},
        "observation.images.wrist": {"dtype": "image", "shape": [3, 6, 8], "names": ["channels", "height", "width"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "words": {"dtype": "string", "shape": [1], "names": None},
        "language_events": {"dtype": "language", "shape": [1], "names": None},
    }
    info = {"codebase_version": "v3.0", "fps": 5, "features": features} | changes
    (folder / "meta/info.json").write_text(json.dumps(info))

    def png(picture: np.ndarray) -> dict[str, Any]:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG")
        return {"bytes": file.getvalue(), "path": None}

    table = {
        "observation.images.top": [png(picture) for picture in pictures[0]],
        "observation.images.wrist": [png(picture) for picture in pictures[1]],
        "observation.state": pa.array([[i, -i] for i in range(9)], pa.list_(pa.float32())),
        "action": pa.array([[i, i + 0.5] for i in range(9)], pa.list_(pa.float32())),
        "next.reward": pa.array(range(9), pa.float32()),
        "words": ["a"] * 4 + ["b"] * 5,
        "episode_index": [0] * 4 + [1] * 5,
        "frame_index": [*range(4), *range(5)],
        "task_index": [1] * 4 + [0] * 5,
    }
    pq.write_table(pa.table(table), folder / "data/chunk-000/file-000.parquet")
    rows = [{"episode_index": i, "length": 4 + i, "data/chunk_index": 0, "data/file_index": 0} for i in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": [0, 1], "__index_level_0__": ["push", "pull"]}
    pq.write_table(pa.table(tasks), folder / "meta/tasks.parquet")
    np.save(folder.parent / "pictures.npy", pictures)
    return folder


def test_a_lerobot_dataset_of_others(tmp_path: Path, pq: Any) -> None:
    source = foreign(tmp_path / "theirs", pq)
    with pytest.raises(ValueError, match=r"name one of observation.images.top, observation.images.wrist"):
        import_lerobot(source, folder=tmp_path / "back")
    assert not (tmp_path / "back").exists()
    episodes = import_lerobot(source, folder=tmp_path / "back", camera="observation.images.top")
    pictures = np.load(tmp_path / "pictures.npy").transpose(0, 1, 4, 2, 3)
    assert list(episodes.skipped) == ["column language_events"]
    first, second = episodes
    assert first.metadata == {"task": "pull", "fps": 5.0, "words": "a"}
    assert second.metadata == {"task": "push", "fps": 5.0, "words": "b"}
    assert set(second.columns) == {"pixels", "pixels_wrist", "proprio", "action", "next.reward"}
    assert np.array_equal(second.pixels, pictures[0, 4:])
    assert np.array_equal(second["pixels_wrist"], pictures[1, 4:])
    assert second.proprio.tolist() == [[i, -i] for i in range(4, 9)]
    assert second.action.tolist() == [[i, i + 0.5] for i in range(4, 8)], "the last action leads nowhere"
    assert second["next.reward"].tolist() == list(range(4, 9))


def test_damaged_lerobot_episodes_are_named_and_skipped(
    tmp_path: Path, pq: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(episode_lerobot_export, "VIDEO_BYTES", 30_000)
    wanted = some([20] * 9)
    export_lerobot(wanted, folder=tmp_path / "out")
    videos = sorted((tmp_path / "out/videos/observation.image/chunk-000").iterdir())
    videos[0].write_bytes(videos[0].read_bytes()[:-500])
    videos[-1].unlink()
    episodes = import_lerobot(tmp_path / "out", folder=tmp_path / "back")
    assert "episode 0 of out" in episodes.skipped
    assert "missing, no video, or a damaged one" in episodes.skipped["episode 8 of out"]
    assert len(episodes) == 9 - len(episodes.skipped) > 2
    for found in episodes:
        assert_same(found, wanted[found.metadata["seed"]])
    # A damaged table takes what lies in it.
    table = tmp_path / "out/data/chunk-000/file-000.parquet"
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"no episode of .* can be read .episode 0 of out: ArrowInvalid"):
        import_lerobot(tmp_path / "out", folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "name", ["../x.parquet", "/etc/{file_index}", "data/../../x", "C:\\x", "data/{file_index.__class__}"]
)
def test_lerobot_paths_stay_in_the_dataset(tmp_path: Path, pq: Any, name: str) -> None:
    source = foreign(tmp_path / "theirs", pq, data_path=name)
    (tmp_path / "x.parquet").write_bytes((source / "data/chunk-000/file-000.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"which is not in the dataset|FileNotFoundError"):
        import_lerobot(source, folder=tmp_path / "back", camera="observation.images.top")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v2.1"}, "of version 3; .* is of v2.1"),
        ({"fps": 0}, "damaged: 0 frames a second"),
        ({"features": None}, "cannot be read"),
        ({"features": {"action": {"dtype": "float32"}}}, "cannot be read"),
        ({"features": {"state": {"dtype": "float32", "shape": [2]}}}, "no column `action`"),
    ],
)
def test_no_lerobot_dataset(tmp_path: Path, pq: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="Wanted the folder of a LeRobot dataset"):
        import_lerobot(tmp_path, folder=tmp_path / "back")
    with pytest.raises(ValueError, match=message):
        import_lerobot(foreign(tmp_path / "theirs", pq, **changes), folder=tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_lerobot_refusals(tmp_path: Path, pq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    out = tmp_path / "out"
    action = np.zeros((4, 2))
    odd = Episode({"action": action, "pixels": np.zeros((5, 3, 15, 24), np.uint8)})
    with pytest.raises(ValueError, match="at least one episode"):
        export_lerobot([], folder=out)
    with pytest.raises(ValueError, match="even height and width, got 15 x 24"):
        export_lerobot([odd], folder=out, pictures="h264")
    with pytest.raises(ValueError, match="pixels is float32"):
        export_lerobot([Episode({"action": action, "pixels": np.zeros((5, 3, 16, 24), np.float32)})], folder=out)
    with pytest.raises(ValueError, match="columns of its own called timestamp"):
        export_lerobot([episode(0, 5, timestamp=np.zeros(5))], folder=out)
    with pytest.raises(ValueError, match="Wanted episode 0's metadata as JSON"):
        export_lerobot([Episode({"action": action}, {"seed": np.int64(3)})], folder=out)
    with pytest.raises(ValueError, match="Episode 1 has the columns"):
        export_lerobot([episode(0, 5), episode(0, 5, depth=np.zeros(5))], folder=out)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"jepalab\[video\]"):
        export_lerobot(some(), folder=out)
    monkeypatch.setitem(sys.modules, "av", av)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=re.escape('pip install "jepalab[parquet]"')):
        export_lerobot(some(), folder=out)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("pictures", ["h264-lossless", "png"])
@pytest.mark.parametrize("room", [0, 3000, 30_000])
def test_a_full_disk_while_writing_lerobot(tmp_path: Path, pq: Any, room: int, pictures: Any) -> None:
    pytest.importorskip("av")
    with pytest.raises(OSError, match="nothing is left of it; make room"), full_disk(room):
        export_lerobot(some([20] * 9), folder=tmp_path / "out", pictures=pictures)
    assert not [*tmp_path.iterdir()]


def test_from_one_format_through_all_others(tmp_path: Path, h5py: Any, pq: Any) -> None:
    pytest.importorskip("av")
    wanted = some()
    export_hdf5(wanted, path=tmp_path / "a.h5")
    export_lerobot(import_hdf5(tmp_path / "a.h5", folder=tmp_path / "a"), folder=tmp_path / "b")
    export_hdf5(import_lerobot(tmp_path / "b", folder=tmp_path / "c"), path=tmp_path / "d.h5")
    for found, one in zip(import_hdf5(tmp_path / "d.h5", folder=tmp_path / "d"), wanted, strict=True):
        assert_same(found, one)
