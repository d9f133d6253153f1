"""Opening series: every kind of file, label and group; windows that straddle nothing; splits that share nothing."""

from __future__ import annotations

import csv
import errno
import os
import pickle
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jepalab.backbones.pca import PixelPCA
from jepalab.data import series as series_module
from jepalab.data import series_cache
from jepalab.data.sample_stream import SampleStream
from jepalab.data.series import Series, open_series
from jepalab.data.series_files import Columns, as_recording
from jepalab.instruments.labelled import labelled_subjects
from jepalab.instruments.recognition import read_out
from jepalab.objectives.untrained import Untrained

WINDOW = 8


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def noise(seed: int, num: int = 40, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, channels)).astype(np.float32)


def write_csv(path: Path, rows: Iterable[Iterable[object]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def write_recordings(folder: Path, names: Iterable[str], num: int = 40) -> dict[str, np.ndarray]:
    """A CSV file for each name, no two alike, and what is in it."""
    written = {}
    for seed, name in enumerate(names):
        written[name] = noise(seed, num)
        write_csv(folder / name, [("x", "y"), *written[name].tolist()])
    return written


def split_of(opened: Series, members: np.ndarray | torch.Tensor) -> dict[object, set[int]]:
    """The splits that the windows of each member are in."""
    found: dict[object, set[int]] = {}
    for member, split in zip(np.asarray(members).tolist(), opened.splits.tolist(), strict=True):
        found.setdefault(member, set()).add(split)
    return found


def rows_of(opened: Series) -> list[tuple[str, int]]:
    """Recording and first row of each window."""
    return [(name.rpartition(":")[0], int(name.rpartition(":")[2])) for name in opened.item_names()]


# Windows.


@pytest.mark.parametrize("hop", [None, 1, 3, 11])
def test_windows_are_rows_of_one_recording(folder: Path, cache: Path, hop: int | None) -> None:
    written = write_recordings(folder, ["a.csv", "b.csv", "c.csv"], num=45)
    opened = open_series(folder, window=WINDOW, hop=hop, cache=cache)
    places = rows_of(opened)
    assert places == [(name, start) for name in written for start in range(0, 45 - WINDOW + 1, hop or WINDOW)]
    for values, (name, start) in zip(opened.values, places, strict=True):
        assert np.array_equal(values, written[name][start : start + WINDOW])
    assert opened.sample_shape == (WINDOW, 2)
    assert opened.groups.tolist() == [-1] * len(opened)


def test_a_window_has_a_class_where_all_its_rows_agree(cache: Path, folder: Path) -> None:
    labels = np.repeat([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 29)
    labels[100:110], labels[45:48] = -1, 0  # a short break in the middle of 1
    opened = open_series(noise(0, len(labels)), window=WINDOW, hop=3, labels=labels, cache=cache)
    assert opened.unit == "part of a recording"
    for (_, start), label in zip(rows_of(opened), opened.labels.tolist(), strict=True):
        found = set(labels[start : start + WINDOW].tolist())
        assert label == (found.pop() if len(found) == 1 else -1)
    assert (opened.labels < 0).any()
    assert (opened.labels >= 0).any()


def test_windows_that_are_not_finite_are_left_out_and_counted(
    cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recordings(folder, ["a.csv", "b.csv", "c.csv", "d.csv"])
    for name, bad in (("b.csv", "nan"), ("c.csv", ""), ("d.csv", "1e39")):
        rows = list(csv.reader((folder / name).read_text().splitlines()))
        rows[1 + WINDOW][0] = bad
        write_csv(folder / name, rows)
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert len(opened) == 4 * 5 - 3
    assert opened.skipped == {f"{name}.csv:{WINDOW}": "1 of its rows are not finite" for name in "bcd"}
    assert np.isfinite(opened.values).all()
    assert "3 could not be read and are left out, the first: b.csv:8" in capsys.readouterr().err


def test_a_class_that_fills_no_window_is_told_of(cache: Path) -> None:
    labels = np.repeat([0, 1, 2] * 30, [40, 40, 3] * 30)
    opened = open_series(noise(0, len(labels)), window=WINDOW, labels=labels, cache=cache)
    assert opened.names == ["0", "1"]
    assert opened.skipped == {"class 2": "nowhere 8 rows in a row"}


# Sources.


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolons", "no header", "byte order mark", "parquet", "npy"])
def test_every_file_holds_the_same_recording(folder: Path, cache: Path, kind: str) -> None:
    values, head = noise(0, 200), [("x", "y")]
    if kind == "parquet":
        pq.write_table(pa.table({"x": values[:, 0], "y": values[:, 1]}), folder / "a.parquet")
    elif kind == "npy":
        np.save(folder / "a.npy", values.astype(np.float64))
    elif kind == "byte order mark":
        (folder / "a.csv").write_text("\ufeffx,y\n\n" + "\n".join(f"{x},{y}" for x, y in values.tolist()))
    else:
        separator = {"tsv": "\t", "semicolons": ";"}.get(kind, ",")
        name = "a.tsv" if kind == "tsv" else "a.csv"
        write_csv(folder / name, [*([] if kind == "no header" else head), *values.tolist()], separator)
    (folder / "notes.txt").write_text("not looked at")
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert opened.channel_names == (["0", "1"] if kind in {"npy", "no header"} else ["x", "y"])
    direct = open_series(values, window=WINDOW, cache=cache)
    assert np.array_equal(opened.values, direct.values)
    alone = open_series(next(folder.glob("a.*")), window=WINDOW, cache=cache)
    assert np.array_equal(alone.values, direct.values)


@pytest.mark.parametrize("kind", ["array", "tensor", "npy", "doubles", "long recordings"])
def test_arrays_of_every_kind_hold_the_same_windows(tmp_path: Path, cache: Path, kind: str) -> None:
    values, labels = noise(1, 30 * WINDOW, 3).reshape(30, WINDOW, 3), np.arange(30) // 2 % 2
    source: Path | np.ndarray | torch.Tensor = values
    if kind == "tensor":
        source = torch.from_numpy(values)
    elif kind == "npy":
        np.save(tmp_path / "windows.npy", values)
        np.save(tmp_path / "labels.npy", labels)
        source = tmp_path / "windows.npy"
    elif kind == "doubles":
        source = values.astype(np.float64)
    elif kind == "long recordings":
        source, labels = values.reshape(15, 2 * WINDOW, 3), labels[::2]
    given = tmp_path / "labels.npy" if kind == "npy" else labels
    opened = open_series(source, window=WINDOW, labels=given, channels=None, cache=cache)
    assert np.array_equal(opened.values, values)
    assert opened.labels.tolist() == (np.arange(30) // 2 % 2).tolist()
    assert isinstance(opened.values, np.memmap) == (kind == "npy")
    some = open_series(source, window=WINDOW, labels=given, channels=["2", "0"], cache=cache)
    assert np.array_equal(some.values, values[:, :, [2, 0]])
    assert some.channel_names == ["2", "0"]
    assert torch.equal(opened.read(torch.tensor([3, 0])), torch.from_numpy(values[[3, 0]]))


def test_windows_in_an_array_are_not_copied(cache: Path) -> None:
    values = noise(0, 400).reshape(50, WINDOW, 2)
    opened = open_series(values, window=WINDOW, cache=cache)
    assert np.shares_memory(opened.values, values)
    assert not cache.exists()
    values[7, 3] = np.nan
    opened = open_series(values, window=WINDOW, cache=cache)
    assert opened.skipped == {"7": "some of its numbers are not finite"}
    assert opened.item_names() == [str(i) for i in range(50) if i != 7]


def test_windows_that_were_cut_already_are_split_one_by_one_and_that_is_said(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = noise(0, 480, 2)
    overlapping = np.stack([recording[start : start + WINDOW] for start in range(0, 480 - WINDOW + 1, WINDOW // 2)])
    said = "split one by one, so neighbours that overlap lie in two splits: give groups (--groups)"
    opened = open_series(overlapping, window=WINDOW, cache=cache)
    assert int((opened.splits.diff() != 0).sum()) > 4, "neighbours, which share rows"
    assert said in opened.describe()
    assert said in capsys.readouterr().err
    for other in (
        open_series(overlapping, window=WINDOW, groups=np.arange(len(overlapping)) // 8, cache=cache),
        open_series(recording, window=WINDOW, hop=WINDOW // 2, cache=cache),
    ):
        assert said not in other.describe()
    assert not capsys.readouterr().err


def test_labels_of_rows_and_of_windows_agree(cache: Path) -> None:
    values, labels = noise(0, 480).reshape(60, WINDOW, 2), np.arange(60) % 3
    of_rows = np.repeat(labels[:, None], WINDOW, axis=1)
    of_rows[5, -1] = 1  # window 5 is of class 2
    opened = open_series(values, window=WINDOW, labels=of_rows, groups=np.arange(60) // 6, cache=cache)
    assert opened.labels.tolist() == [-1 if i == 5 else i % 3 for i in range(60)]
    assert opened.unit == "group"
    assert len(opened.group_names) == 10


def test_columns_are_found_or_named(folder: Path, cache: Path) -> None:
    values = noise(0, 90 * WINDOW, 3)
    rows = [
        (i, *values[i].tolist(), ["sit", "run", ""][i // WINDOW % 3], i // 100, f"b{i // 100 % 2}")
        for i in range(len(values))
    ]
    path = write_csv(folder / "log.csv", [("Time", "x", "y", "z", "Activity", "Subject", "bout"), *rows])
    opened = open_series(path, window=WINDOW, channels=["z", "x"], cache=cache)
    assert opened.channel_names == ["z", "x"]
    assert opened.names == ["run", "sit"]
    assert opened.group_names == [str(i) for i in range(8)]
    found = [opened.names[label] if label >= 0 else "" for label in opened.labels.tolist()]
    starts = [start for _, start in rows_of(opened)]
    truth = [{row[4] for row in rows[start : start + WINDOW]} for start in starts]
    assert found == [names.pop() if len(names) == 1 else "" for names in truth]
    # Windows begin anew where the subject changes.
    assert all(len({rows[i][5] for i in range(start, start + WINDOW)}) == 1 for start in starts)
    assert {0, 100, 200, 300, 400} <= set(starts)
    with pytest.raises(ValueError, match="column 'bout' holds text such as 'b0'; name the columns of numbers"):
        open_series(path, window=WINDOW, cache=cache)
    named = open_series(path, window=WINDOW, channels=["y"], label_column="bout", group_column="Subject", cache=cache)
    assert named.names == ["b0", "b1"]


def test_clocks_are_no_channels(folder: Path, cache: Path) -> None:
    rows = [(i / 50, i, *row, i) for i, row in enumerate(noise(0, 400).tolist())]
    write_csv(folder / "a.csv", [("timestamp", "", "x", "y", "Index"), *rows])
    assert open_series(folder, window=WINDOW, cache=cache).channel_names == ["x", "y"]
    wanted = ["y", "timestamp"]
    assert open_series(folder, window=WINDOW, channels=wanted, cache=cache).channel_names == wanted


def test_classes_of_numbers_and_of_text_are_read_alike() -> None:
    table = {"x": np.arange(4.0), "label": np.array([10.0, 9.0, -1.0, np.nan])}
    found = as_recording(table, name="a", label=None, split=-1, columns=Columns())
    assert found.labels.names == ["9", "10"]
    assert found.labels.codes.tolist() == [1, 0, -1, -1]
    table["label"] = np.array([" b", "a", "NaN", ""])
    found = as_recording(table, name="a", label=None, split=-1, columns=Columns())
    assert found.labels.names == ["a", "b"]
    assert found.labels.codes.tolist() == [1, 0, -1, -1]
    with pytest.raises(ValueError, match=r"column 'label' holds numbers such as 0.5, which name no classes"):
        as_recording(table | {"label": table["x"] + 0.5}, name="a", label=None, split=-1, columns=Columns())


def test_long_tables_are_parsed_in_parts(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = noise(0, 400), ["3"] * 200 + ["walk"] * 200
    write_csv(folder / "a.csv", [("x", "y", "label"), *zip(*values.T.tolist(), labels, strict=True)])
    monkeypatch.setattr("jepalab.data.series_files.NUM_ROWS", 50)
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert opened.names == ["3", "walk"]
    assert np.array_equal(opened.values[0], values[:WINDOW])


def test_sub_folders_are_classes_and_top_folders_splits(folder: Path, cache: Path) -> None:
    names = [f"{split}/{name}/{i}.csv" for split in ("train", "test") for name in ("a", "b/c") for i in range(5)]
    write_recordings(folder, names)
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert opened.names == ["a", "b/c"]
    for name, label, split in zip(opened.item_names(), opened.labels.tolist(), opened.splits.tolist(), strict=True):
        assert label == ("/b/c/" in name)
        assert (split == 2) == name.startswith("test/")
    assert int((opened.splits == 1).sum()) == 2 * 5  # one recording of five of each class


# Splits.


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_in_two_splits(cache: Path, seed: int) -> None:
    groups, labels = np.repeat(np.arange(12), 10), np.tile(np.arange(5), 24)
    opened = open_series(
        noise(0, 120 * WINDOW).reshape(120, WINDOW, 2), window=WINDOW, labels=labels, groups=groups, seed=seed
    )
    found = split_of(opened, opened.groups)
    assert all(len(splits) == 1 for splits in found.values())
    assert sorted(splits.pop() for splits in found.values()) == [0] * 8 + [1] * 2 + [2] * 2
    assert "12 groups, none of them in two splits" in repr(opened)


def test_splits_depend_on_the_seed_and_nothing_else(folder: Path, cache: Path) -> None:
    write_recordings(folder, [f"{i}.csv" for i in range(10)])
    first, again, other = (open_series(folder, window=WINDOW, seed=seed, cache=cache).splits for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", range(10))
def test_rare_classes_are_in_every_split(cache: Path, seed: int) -> None:
    groups = np.repeat(np.arange(20), 4)
    labels = np.where((groups % 7 == 0) & (np.arange(80) % 4 == 0), 1, 0)  # one window of four of three groups
    values = noise(0, 80 * WINDOW).reshape(80, WINDOW, 2)
    opened = open_series(values, window=WINDOW, labels=labels, groups=groups, seed=seed)
    for split in range(3):
        assert opened.labels[opened.splits == split].unique().tolist() == [0, 1]


def test_no_recording_is_in_two_splits_and_copies_share_one(folder: Path, cache: Path) -> None:
    names = [f"{name}/{i}.csv" for name in ("run", "sit") for i in range(6)]
    write_recordings(folder, names)
    for i in range(6):
        (folder / f"sit/copy{i}.csv").write_bytes((folder / f"sit/{i}.csv").read_bytes())
    opened = open_series(folder, window=WINDOW, hop=2, cache=cache)
    assert opened.unit == "recording"
    found = split_of(opened, np.array([name.replace("copy", "") for name, _ in rows_of(opened)]))
    assert all(len(splits) == 1 for splits in found.values())
    for split in range(3):
        assert opened.labels[opened.splits == split].unique().tolist() == [0, 1]


@pytest.mark.parametrize("num", [15 * WINDOW, 1000 * WINDOW])
def test_one_recording_is_split_by_parts_with_a_gap(cache: Path, num: int) -> None:
    opened = open_series(noise(0, num), window=WINDOW, hop=1, cache=cache)
    assert opened.unit == "part of a recording"
    assert opened.splits.unique().tolist() == [0, 1, 2]
    places = [(start, split) for (_, start), split in zip(rows_of(opened), opened.splits.tolist(), strict=True)]
    assert places == sorted(places)
    borders = [(a, b) for (a, split), (b, other) in pairwise(places) if split != other]
    assert borders
    assert all(b - (a + WINDOW) >= WINDOW for a, b in borders)
    assert len(opened) > 0.6 * (num - WINDOW)


def test_a_recording_of_each_class_is_split_by_parts(folder: Path, cache: Path) -> None:
    write_recordings(folder, ["run/1.csv", "sit/1.csv"], num=300)
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert "no part of a recording in two splits" in opened.describe()
    for split in range(3):
        assert opened.labels[opened.splits == split].unique().tolist() == [0, 1]


def test_own_splits_are_kept_and_completed(folder: Path, cache: Path) -> None:
    write_recordings(folder, [*(f"train/{i}.csv" for i in range(10)), "val/a.csv", "test/a.csv"])
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert split_of(opened, np.array([name.split("/")[0] for name, _ in rows_of(opened)])) == {
        "train": {0},
        "val": {1},
        "test": {2},
    }
    (folder / "test/a.csv").unlink()
    opened = open_series(folder, window=WINDOW, cache=cache)
    found = split_of(opened, np.array([name.split("/")[0] for name, _ in rows_of(opened)]))
    assert found == {"train": {0, 1}, "val": {2}}  # without a test split, validation becomes it


def test_a_group_in_two_folders_is_refused(folder: Path, cache: Path) -> None:
    for split, people in (("train", "abcd"), ("test", "de")):
        for i, name in enumerate(people):
            rows = [(*row, name) for row in noise(i + len(split)).tolist()]
            write_csv(folder / split / f"{name}.csv", [("x", "y", "subject"), *rows])
    with pytest.raises(ValueError, match=r"The group of train/d.csv:0 lies in two splits of folder logs"):
        open_series(folder, window=WINDOW, cache=cache)


# What is refused.


def tables(folder: Path, *tops: tuple[object, ...]) -> None:
    """Three files with a header and 40 rows that go on from the cells given."""
    for i in range(3):
        rows = [(*top, *row) for top, row in zip([tops[1:][0]] * 40, noise(i).tolist(), strict=True)]
        write_csv(folder / f"{i}.csv", [(*tops[0], "x", "y"), *rows])


def test_columns_that_are_not_there_say_what_is(folder: Path, cache: Path) -> None:
    tables(folder, ("who",), ("ann",))
    for arguments, message in (
        ({"label_column": "class"}, r"wanted the labels in column 'class', but its columns are \['who', 'x', 'y'\]"),
        ({"group_column": "man"}, "wanted the groups in column 'man'"),
        ({"channels": ["x", "q"]}, r"it lacks the channels \['q'\]"),
        ({"channels": ["who"]}, "column 'who' holds text such as 'ann'"),
        ({}, "column 'who' holds text such as 'ann'"),
        ({"label_column": "x", "channels": ["y"]}, "column 'x' holds numbers such as .* which name no classes"),
        ({"group_column": "y", "channels": ["x"]}, "column 'y' holds numbers such as .* which name no classes"),
    ):
        with pytest.raises(ValueError, match=message):
            open_series(folder, window=WINDOW, cache=cache, **arguments)


def test_channels_that_never_change_are_refused(folder: Path, cache: Path) -> None:
    tables(folder, ("dead",), (4.5,))
    with pytest.raises(
        ValueError, match=r"In folder logs some channels never change \('dead' is 4.5\); leave them out"
    ):
        open_series(folder, window=WINDOW, cache=cache)
    assert open_series(folder, window=WINDOW, channels=["x"], cache=cache).channels == 1
    values = noise(0, 400).reshape(50, WINDOW, 2)
    values[:, :, 1] = 2
    with pytest.raises(ValueError, match="'1' is 2"):
        open_series(values, window=WINDOW)


def test_places_without_series_say_what_was_expected(folder: Path, cache: Path) -> None:
    with pytest.raises(
        ValueError, match=r"Wanted CSV, parquet or .npy files of series, or a folder of them, but there"
    ):
        open_series(folder / "nowhere", window=WINDOW, cache=cache)
    with pytest.raises(ValueError, match=r"but .*logs holds nothing"):
        open_series(folder, window=WINDOW, cache=cache)
    (folder / "a.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds 1 files, the first: a.wav"):
        open_series(folder, window=WINDOW, cache=cache)
    with pytest.raises(ValueError, match=r"Wanted windows of at least 2 rows"):
        open_series(folder, window=1, cache=cache)


def test_arrays_that_are_no_series_say_what_was_wanted(tmp_path: Path, cache: Path) -> None:
    values = noise(0, 480).reshape(60, WINDOW, 2)
    for bad in (values[None], values.astype(str), values[:0], values + 1j):
        with pytest.raises(ValueError, match=r"wanted numbers \[t\], \[t c\] or \[n t c\]"):
            open_series(bad, window=WINDOW)
    with pytest.raises(ValueError, match=r"Wanted labels as whole numbers \[60\] or \[60, 8\], got int64 \[59\]"):
        open_series(values, window=WINDOW, labels=np.arange(59))
    with pytest.raises(ValueError, match=r"Wanted a group for everything, but 1 are blank or negative"):
        open_series(values, window=WINDOW, groups=np.arange(-1, 59))
    with pytest.raises(ValueError, match="belong to tables"):
        open_series(values, window=WINDOW, label_column="label")
    with pytest.raises(ValueError, match="belong to arrays"):
        open_series(tmp_path, window=WINDOW, labels=np.arange(3))
    with pytest.raises(ValueError, match=r"windows of 9 rows in an array in memory, but of 60 60 are unusable"):
        open_series(values, window=9)
    with pytest.raises(ValueError, match=r"Wanted channels \['5'\], but those of an array in memory are \['0', '1'\]"):
        open_series(values, window=WINDOW, channels=["5"])


class Bomb:
    """What a pickle of it does when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_pickles_in_arrays_are_refused_unread(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(folder / "a.npy", np.array([Bomb()], dtype=object))
    (folder / "b.npy").write_bytes(pickle.dumps(Bomb()))
    for path in (folder / "a.npy", folder / "b.npy", folder):
        with pytest.raises(ValueError, match="cannot be read as an array of numbers"):
            open_series(path, window=WINDOW, cache=cache)
    assert not (tmp_path / "exploded").exists()
    np.load(folder / "a.npy", allow_pickle=True)  # it was armed
    assert (tmp_path / "exploded").exists()


def break_files(folder: Path) -> set[str]:
    (folder / "empty.csv").write_text("")
    (folder / "head.csv").write_text("x,y\n")
    (folder / "ragged.csv").write_text("x,y\n1,2\n3,4\n5\n")
    (folder / "twice.csv").write_text("x,x\n1,2\n3,4\n")
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    (folder / "other.csv").write_text("x,z\n1,2\n3,4\n")
    (folder / "cut.parquet").write_bytes(b"PAR1")
    (folder / "cut.npy").write_bytes(b"\x93NUMPY")
    return {path.name for path in folder.iterdir()}


def test_damaged_files_are_skipped_counted_and_named(folder: Path, cache: Path, tmp_path: Path) -> None:
    broken = break_files(folder)
    write_recordings(folder, [f"{i:02}.csv" for i in range(len(broken) + 2)])
    write_csv(folder / "short.csv", [("x", "y"), *noise(0, 5).tolist()])
    opened = open_series(folder, window=WINDOW, cache=cache)
    assert opened.skipped.keys() == broken | {"short.csv:0"}
    assert opened.skipped["short.csv:0"] == "5 rows, fewer than 8 of a window"
    assert opened.skipped["ragged.csv"].startswith("a row has 1 cells")
    assert opened.skipped["other.csv"] == "its channels are ['x', 'z'], those of 00.csv ['x', 'y']"
    (tmp_path / "worse").mkdir()
    break_files(tmp_path / "worse")
    write_recordings(tmp_path / "worse", ["0.csv", "1.csv", "2.csv"])
    with pytest.raises(ValueError, match=r"Wanted series in folder worse, but of 11 8 are unusable \(bytes.csv: it"):
        open_series(tmp_path / "worse", window=WINDOW, cache=cache)


def test_too_little_to_split_is_named(cache: Path) -> None:
    values, labels = noise(0, 160).reshape(20, WINDOW, 2), np.arange(20) // 18
    with pytest.raises(ValueError, match=r"class '1' is in 2 window\(s\) to train on and hold out, too few"):
        open_series(values, window=WINDOW, labels=labels)
    with pytest.raises(ValueError, match=r"the unlabelled set is in 2 group\(s\)"):
        open_series(values, window=WINDOW, groups=labels)


def test_missing_pyarrow_says_what_to_install(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": np.arange(400.0)}), folder / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'jepalab\[parquet\]'"):
        open_series(folder, window=WINDOW, cache=cache)


# The cache.


def test_a_second_call_reads_no_file(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordings(folder, [f"{i}.csv" for i in range(5)])
    first = open_series(folder, window=WINDOW, cache=cache)
    monkeypatch.setattr(series_module, "read_recordings", lambda *_, **__: pytest.fail("read again"))
    again = open_series(folder, window=WINDOW, cache=cache)
    assert isinstance(again.values, np.memmap)
    assert np.array_equal(first.values, again.values)
    assert (first.digest, first.item_names()) == (again.digest, again.item_names())
    for changed in ({"window": 4}, {"hop": 3}, {"channels": ["y"]}):
        with pytest.raises(pytest.fail.Exception, match="read again"):
            open_series(folder, **{"window": WINDOW, "cache": cache, **changed})
    write_csv(folder / "0.csv", [("x", "y"), *noise(99, 41).tolist()])
    with pytest.raises(pytest.fail.Exception, match="read again"):
        open_series(folder, window=WINDOW, cache=cache)


@pytest.mark.parametrize("file", ["values.npy", "rows.npy", "items.json", "meta.json"])
def test_a_damaged_entry_is_made_anew(folder: Path, cache: Path, file: str) -> None:
    write_recordings(folder, [f"{i}.csv" for i in range(5)])
    first = open_series(folder, window=WINDOW, cache=cache)
    (entry,) = cache.iterdir()
    (entry / file).write_bytes(b"[]" if file == "items.json" else (entry / file).read_bytes()[:20])
    again = open_series(folder, window=WINDOW, cache=cache)
    assert again.digest == first.digest
    assert again.item_names() == first.item_names()
    assert np.array_equal(again.values, np.load(entry / "values.npy"))


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recordings(folder, [f"{i}.csv" for i in range(5)])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(series_cache, "_sha256", full)
    with pytest.raises(OSError, match=r"The windows, 0 MB, could not be written below .*No space left"):
        open_series(folder, window=WINDOW, cache=cache)
    assert not list(cache.iterdir())


# What it is good for.


def test_series_stream_and_are_read_by_probes(cache: Path) -> None:
    labels = np.arange(120) % 2
    values = noise(0, 120 * WINDOW).reshape(120, WINDOW, 2) / 9 + labels[:, None, None].astype(np.float32)
    opened = open_series(values, window=WINDOW, labels=labels, groups=np.arange(120) // 6, rate=50.0)
    stream = SampleStream(opened, batch_size=5, augmentation=None)
    batch = stream.batch(3)
    assert torch.equal(batch.x, torch.from_numpy(values)[stream.indices(3)])
    assert batch.factors["class"].shape == (5, 1)
    pca = PixelPCA(2, dim=2)
    pca.fit(stream.held_out("train", 40).x)
    subject = labelled_subjects(Untrained(pca), stream)["student"]
    assert read_out(subject.train, subject.validation, subject.test)["linear"] == 1
    mean, std = opened.mean_std()
    train = values[opened.splits == 0]
    assert np.allclose(mean, train.mean((0, 1)), atol=1e-5)
    assert np.allclose(std, train.std((0, 1)), atol=1e-5)


def test_series_describe_themselves(cache: Path) -> None:
    labels = np.arange(120) % 3
    opened = open_series(
        noise(0, 120 * WINDOW).reshape(120, WINDOW, 2),
        window=WINDOW,
        labels=labels - 1,
        groups=np.arange(120) // 6,
        rate=50.0,
    )
    assert opened.describe() == (
        "120 windows of 8 samples at 50 Hz, 2 channels (0, 1), from an array in memory; 2 classes of 40 to 40 windows "
        "(0, 1); train 72, validation 24, test 24; 40 without a label; 20 groups, none of them in two splits. Digest "
        f"{opened.digest[:12]}."
    )
