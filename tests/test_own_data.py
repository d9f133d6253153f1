"""One's own pictures, clips and series as commands open them: columns, groups, what is left out, idle flags."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jepalab.backbones.vit import ViT
from jepalab.cli import main
from jepalab.data import fashion_mnist, image_files
from jepalab.data.clips import open_clips
from jepalab.data.images import open_images
from jepalab.data.series import open_series
from jepalab.opening import Opening, open_for
from jepalab.recipes.clip_bench import Footage
from jepalab.recipes.image_bench import Pictures
from jepalab.recipes.series_bench import Recordings

TINY = ["--size", "16", "--width", "24", "--depth", "1", "--num-heads", "2", "--head-width", "24", "--head-depth", "1"]
TINY += ["--steps", "2", "--batch-size", "8", "--device", "cpu", "--json"]
KINDS, PEOPLE = ("dark", "light"), tuple("abcdefgh")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JEPALAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def draw(number: int, kind: int) -> np.ndarray:
    return np.random.default_rng(number).integers(100 * kind, 100 * kind + 90, (16, 16, 3), dtype=np.uint8)


def draw_pictures(folder: Path, num: int = 64) -> list[str]:
    """NUMBER.png, every other one light."""
    folder.mkdir(parents=True)
    names = [f"{i:03}.png" for i in range(num)]
    for i, name in enumerate(names):
        Image.fromarray(draw(i, i % 2)).save(folder / name)
    return names


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_parquet(folder: Path, num: int = 64) -> None:
    """Encoded pictures with two columns of classes, neither of which is called as usual."""
    folder.mkdir()
    names = draw_pictures(folder.parent / "drawn", num)
    pictures = [{"bytes": (folder.parent / "drawn" / name).read_bytes()} for name in names]
    columns = {"image": pictures, "light": [i % 2 for i in range(num)], "half": [int(i < num // 2) for i in range(num)]}
    pq.write_table(pa.table(columns), folder / "all.parquet")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 1
    return capsys.readouterr().err


def test_label_column_reaches_pictures_in_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "table")
    train = ["train", "ijepa", "--data", "table", *TINY]
    assert shown(capsys, *train, "--label-column", "light", "--out", "run")["scores"].keys() >= {"linear"}
    assert shown(capsys, *train, "--out", "plain")["scores"] == {}
    digests = {c: Pictures(Path("table"), label_column=c, size=16).open().digest for c in ("light", "half")}
    assert digests["light"] != digests["half"]
    asked = shown(capsys, "probe", "run", "--data", "table", "--label-column", "half", "--json")
    assert asked["num_classes"] == 2
    assert main(["embed", "run", "--data", "table", "--label-column", "half", "--out", "half.csv"]) == 0
    with Path("half.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["1"] * 32 + ["0"] * 32
    wrong = refused(capsys, "probe", "run", "--data", "table", "--label-column", "species")
    assert "in column 'species'" in wrong


def test_label_column_of_a_csv_is_the_one_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = draw_pictures(tmp_path / "flat")
    rows = [("species", "photo", "camera"), *(((KINDS[i % 2], name, i % 4) for i, name in enumerate(names)))]
    write_csv(tmp_path / "three.csv", rows)
    train = ["train", "ijepa", "--data", "flat", *TINY]
    assert "lacks a file column" in refused(capsys, *train, "--labels", "three.csv", "--label-column", "species")
    write_csv(tmp_path / "named.csv", [("species", "file", "camera"), *rows[1:]])
    for column, num in (("species", 2), ("camera", 4)):
        opened = open_images(tmp_path / "flat", size=16, labels=tmp_path / "named.csv", label_column=column)
        assert opened.num_classes == num
        assert [opened.names[i] for i in opened.labels] == [str(row[rows[0].index(column)]) for row in rows[1:]]
    write_csv(tmp_path / "two.csv", [row[:2] for row in rows])
    two = open_images(tmp_path / "flat", size=16, labels=tmp_path / "two.csv", label_column="species")
    assert [two.names[i] for i in two.labels] == [row[0] for row in rows[1:]]
    assert "belongs to parquet files" in refused(capsys, *train, "--label-column", "species")
    assert "its first row is" in refused(capsys, *train, "--labels", "named.csv", "--label-column", "colour")
    scores = shown(capsys, *train, "--labels", "named.csv", "--label-column", "species", "--out", "run")["scores"]
    assert 0 <= scores["linear"] <= 1


def test_files_that_are_not_read_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = draw_pictures(tmp_path / "flat")
    write_csv(tmp_path / "flat/labels.csv", [("file", "label"), *((name, i % 2) for i, name in enumerate(names))])
    for place in ("a.xyz", "b.XYZ", "readme", "notes.txt"):
        (tmp_path / "flat" / place).write_bytes(b"no picture")
    (tmp_path / "flat/broken.png").write_bytes(b"no picture")
    (tmp_path / "flat/empty.png").write_bytes(b"")
    train = ["train", "ijepa", "--data", "flat", "--labels", "flat/labels.csv", *TINY]
    assert main([*train, "--out", "run"]) == 0
    told = capsys.readouterr().err
    assert "4 files of kinds that are not read: .xyz 2, .txt 1, without a suffix 1" in told
    assert "2 could not be read and are left out, the first: broken.png (" in told
    assert "reasons: is no image 2" in told
    lines = Path("run/skipped.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["broken.png", "empty.png"]
    assert "2 files .xyz: a kind that is not read" in lines
    draw_pictures(tmp_path / "clean")
    assert main(["train", "ijepa", "--data", "clean", "--labels", "flat/labels.csv", *TINY, "--out", "whole"]) == 0
    assert "not read" not in capsys.readouterr().err
    assert not Path("whole/skipped.txt").exists()


def test_other_suffixes_of_jpeg_and_what_pillow_reads_besides_are_pictures(tmp_path: Path) -> None:
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF", ".heic": "HEIF"}
    folder, kinds = tmp_path / "mixed", [kind for kind in formats if kind in image_files.SUFFIXES]
    folder.mkdir()
    for i in range(12):
        kind = kinds[i % len(kinds)]
        if kind == ".heic":
            pytest.importorskip("pillow_heif").register_heif_opener()
        Image.fromarray(draw(i, 1)).save(folder / f"{i:02}{kind}", format=formats[kind])
    opened = open_images(folder, size=16)
    assert len(opened) == 12
    assert not opened.skipped
    assert not opened.unread
    assert np.abs(opened.pixels[0].astype(int) - draw(0, 1)).mean() < 30


def test_folders_of_two_kinds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "data")
    draw_pictures(tmp_path / "data/photos", num=10)
    said = refused(capsys, "train", "ijepa", "--data", "data", *TINY)
    assert "holds 1 parquet files such as all.parquet and 10 image files such as photos/000.png" in said
    assert "name the folder that holds the one kind alone" in said
    assert len(open_images(tmp_path / "data/photos", size=16)) == 10
    assert len(open_images(tmp_path / "data/all.parquet", size=16, label_column="light")) == 64


def groups_of(opened: Any, group_of: dict[str, str]) -> list[set[str]]:
    """The groups in train, validation and test."""
    names = [name.split(":")[0] for name in opened.item_names()]
    return [{group_of[names[i]] for i in opened.indices(split)} for split in ("train", "validation", "test")]


@pytest.mark.parametrize("is_clips", [False, True])
def test_no_group_of_a_table_is_in_two_splits(tmp_path: Path, is_clips: bool) -> None:
    """Every person is in both classes, so that splitting by classes alone would tear nearly all of them apart."""
    if is_clips:
        names = [f"{i:03}" for i in range(64)]
        for i, name in enumerate(names):
            for frame in range(4):
                (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(10 * i + frame, i % 2)).save(tmp_path / "data" / name / f"{frame}.png")
    else:
        names = draw_pictures(tmp_path / "data")
    group_of = {name: PEOPLE[i // 2 % len(PEOPLE)] for i, name in enumerate(names)}

    def opened(rows: Sequence[Sequence[str]], **more: Any) -> Any:
        table = write_csv(tmp_path / "table.csv", rows)
        if is_clips:
            return open_clips(tmp_path / "data", num_frames=2, clips_per_video=2, size=16, labels=table, **more)
        return open_images(tmp_path / "data", size=16, labels=table, **more)

    labelled = [(name, KINDS[i % 2], group_of[name]) for i, name in enumerate(names)]
    # An unlabelled one goes where its group goes, too.
    labelled[:4] = [(name, "", group_of[name]) for name in names[:4]]
    plain = opened([("file", "label"), *(row[:2] for row in labelled)])
    assert plain.num_units(plain.indices("test")) == len(
        {n.split(":")[0] for n in np.array(plain.item_names())[plain.splits == 2]}
    )
    assert set.intersection(*groups_of(plain, group_of))
    split = opened([("file", "label", "subject"), *labelled])
    parts = groups_of(split, group_of)
    assert all(parts)
    assert set.union(*parts) == set(PEOPLE)
    assert sum(map(len, parts)) == len(PEOPLE)
    assert split.num_units(split.indices("test")) == len(parts[2])
    assert split.digest != plain.digest
    named = opened([("file", "label", "whose"), *labelled], group_column="whose")
    assert named.digest == split.digest
    other = opened([("file", "label", "subject"), *((n, kind, g + n[-1]) for n, kind, g in labelled)])
    assert other.digest != split.digest
    with pytest.raises(ValueError, match="names nobody in the group column of 1 rows"):
        opened([("file", "label", "group"), (names[0], "dark", ""), *labelled[1:]])
    with pytest.raises(ValueError, match=r"class 'dark' is in 2 group\(s\).*too few for a split by group"):
        opened([("file", "label", "group"), *((n, kind, str(int(n[:3]) % 4)) for n, kind, _ in labelled)])


@pytest.mark.parametrize("is_clips", [False, True])
def test_no_content_is_in_two_splits_whatever_it_is_called_and_whose_it_is(tmp_path: Path, is_clips: bool) -> None:
    """Copies: unlabelled, of another class, of another person. The first 64 are different, the next 64 copies."""
    suffix = "" if is_clips else ".png"
    names = [f"{i:03}{suffix}" for i in range(128)]
    for i, name in enumerate(names):
        (tmp_path / "data" / (name if is_clips else "")).mkdir(parents=True, exist_ok=True)
        for frame in range(2 if is_clips else 1):
            place = tmp_path / "data" / name / f"{frame}.png" if is_clips else tmp_path / "data" / name
            Image.fromarray(draw(10 * (i % 64) + frame, i % 2)).save(place)

    def opened(rows: Sequence[Sequence[str]]) -> Any:
        table = write_csv(tmp_path / "table.csv", rows)
        if is_clips:
            return open_clips(tmp_path / "data", num_frames=2, size=16, labels=table)
        return open_images(tmp_path / "data", size=16, labels=table)

    def contents(found: Any) -> list[set[int]]:
        called = [int(name[:3]) % 64 for name in found.item_names()]
        return [{called[i] for i in found.indices(split)} for split in ("train", "validation", "test")]

    first = [(name, KINDS[i % 2]) for i, name in enumerate(names[:64])]
    # Unlabelled, they would all train; in the other class, some would be drawn apart.
    other = [(name, KINDS[1 - i % 2] if i < 32 else "") for i, name in enumerate(names[64:])]
    for rows in (first, first + other):
        found = opened([("file", "label"), *rows])
        parts = contents(found)
        assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]
        assert set.union(*parts) == set(range(64)), "what is left out are copies"
        assert len(found.copies) == int((found.splits < 0).sum()) > 0
        for name, whose in found.copies.items():
            assert int(name[:3]) % 64 == int(whose[:3]) % 64
            assert int(found.splits[found.item_names().index(whose)]) > 0
        assert f"{len(found.copies)} are copies of what is held out and take no part" in found.describe()
        assert all(f"{name}: a copy of " in found.left_out() for name in found.copies)

    # Every person has one picture and a copy of the next person's but one, in four rings of 16.
    whose = [f"p{i % 64 if i < 64 else (i + 16) % 64}" for i in range(128)]
    rows = [(name, KINDS[i % 2], person) for i, (name, person) in enumerate(zip(names, whose, strict=True))]
    joined = opened([("file", "label", "person"), *rows])
    parts = contents(joined)
    assert all(parts)
    assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]
    assert not joined.copies
    assert len(joined.units.unique()) == 16, "four persons in each ring"


def test_copies_in_two_of_the_sources_own_splits_test_and_do_not_train(tmp_path: Path) -> None:
    for split, numbers in {"train": range(40), "test": range(36, 56)}.items():
        for i in numbers:
            place = tmp_path / "data" / split / KINDS[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(i, i % 2)).save(place / f"{i}.png")
    found = open_images(tmp_path / "data", size=16)
    assert found.copies == {f"train/{KINDS[i % 2]}/{i}.png": f"test/{KINDS[i % 2]}/{i}.png" for i in range(36, 40)}
    assert len(found.indices("test")) == 20


def test_arrays_of_series_are_labelled_and_grouped_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = np.random.default_rng(0)
    kinds, people = np.arange(80) % 2, np.arange(80) // 2 % 8
    values = dice.normal(size=(80, 16, 3)) + kinds[:, None, None]
    np.save("values.npy", values.astype(np.float32))
    np.save("kinds.npy", kinds)
    np.save("people.npy", people)
    write_csv(tmp_path / "kinds.csv", [("activity",), *((("sits", "walks")[kind],) for kind in kinds)])
    write_csv(tmp_path / "people.csv", [("person", "age"), *((f"p{one}", 30 + one) for one in people)])
    flags = [
        "--window",
        "16",
        "--patch",
        "4",
        "--width",
        "24",
        "--depth",
        "1",
        "--num-heads",
        "2",
        "--head-width",
        "24",
    ]
    flags += ["--head-depth", "1", "--steps", "2", "--batch-size", "8", "--device", "cpu", "--json"]
    train = ["train", "series-jepa", "--data", "values.npy", *flags]
    whose = ["--labels", "kinds.csv", "--groups", "people.csv"]
    assert "linear" in shown(capsys, *train, *whose, "--channels", "2", "0", "--out", "run")["scores"]
    probed = shown(capsys, "probe", "run", "--data", "values.npy", *whose, "--channels", "2", "0", "--json")
    assert probed["num_classes"] == 2
    assert probed["num"]["test"] == 20
    opened = Recordings(Path("values.npy"), Path("kinds.csv"), Path("people.csv"), ("2", "0"), window=16).open()
    assert opened.names == ["sits", "walks"]
    assert opened.channel_names == ["2", "0"]
    assert opened.num_units(opened.indices("test")) == 2
    numbers = open_series(Path("values.npy"), window=16, labels=Path("kinds.npy"), groups=Path("people.npy"))
    assert numbers.labels.equal(opened.labels)
    assert numbers.num_units(numbers.indices("test")) == 2
    alone = open_series(Path("values.npy"), window=16, labels=Path("kinds.npy"))
    assert alone.digest != numbers.digest
    assert "cannot be told: ['person', 'age']" in refused(capsys, *train, "--labels", "people.csv")
    ages = shown(capsys, *train, "--labels", "people.csv", "--label-column", "age", "--out", "ages")["scores"]
    assert ages["linear"] < 0.9
    write_csv(tmp_path / "short.csv", [("label",), ("sits",)])
    assert "a row for each of [80] or [80, 16], got" in refused(capsys, *train, "--labels", "short.csv")
    write_csv(tmp_path / "table.csv", [("x", "label"), *((i % 7, i // 100) for i in range(600))])
    assert "those of tables are columns" in refused(capsys, *train[:3], "table.csv", *flags, "--labels", "kinds.npy")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"data": Path("videos"), "strength": 1.0, "drift": 0.1},
            r"--strength, --drift have no effect here: with --data",
        ),
        ({"data": Path("videos"), "coherence": "pixel"}, r"--coherence has no effect here: with --data"),
        ({"data": Path("videos"), "fps": 5.0, "stride": 3}, r"--stride has no effect here: --fps says"),
        ({"fps": 5.0}, r"--fps has no effect here: without --data"),
        ({"stride": 4, "clips_per_video": 3}, r"--clips-per-video, --stride have no effect here: without --data"),
        ({"labels": Path("labels.csv")}, r"--labels has no effect here: without --data"),
        ({"persistence": 0.5, "share": 0.5}, r"--persistence, --share have no effect here: without --strength"),
        ({"game": "pong", "clips_per_video": 2}, r"--clips-per-video has no effect here: clips of pong"),
        ({"game": "pong", "objects": Path("photos")}, r"--objects has no effect here: with --game pong"),
    ],
)
def test_flags_of_clips_that_would_do_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Footage(**settings).open()


def test_flags_that_another_kind_of_data_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--channels has no effect here: without --data, HAPT"):
        Recordings(channels=("x",)).open()
    small = {"dim": 12, "depth": 1, "num_heads": 2}
    encoders = {
        "series": ViT((4,), patch=(4,), **small),
        "pictures": ViT((4, 4), patch=(4, 4), **small),
        "clips": ViT((2, 4, 4), patch=(2, 4, 4), **small),
    }
    for kind, opening, said in (
        ("series", Opening(clips_per_video=2), r"--clips-per-video has no effect here: this encoder reads series"),
        ("pictures", Opening(stride=3), r"--stride has no effect here: this encoder reads single pictures"),
        ("pictures", Opening(hop=3), r"--hop has no effect here: this encoder reads no series"),
        ("clips", Opening(fps=3.0, stride=4), r"--stride has no effect here: --fps says"),
    ):
        with pytest.raises(ValueError, match=said):
            open_for(encoders[kind], Path("data"), opening)


def test_every_dial_of_the_nuisance_reaches_the_motions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path / "scenes", num=40)
    asked: list[dict[str, Any]] = []

    def note(images: object, **settings: Any) -> Any:
        asked.append({"images": images, **settings})
        raise InterruptedError

    monkeypatch.setattr("jepalab.recipes.clip_bench.motion_clips", note)
    dials = {"strength": 0.5, "persistence": 0.25, "coherence": "texture", "share": 0.5}
    with pytest.raises(InterruptedError):
        Footage(size=16, backgrounds=tmp_path / "scenes", drift=0.2, **dials).open()  # type: ignore[arg-type]
    (found,) = asked
    assert {name: getattr(found["nuisance"], name) for name in dials} == dials
    assert len(found["backgrounds"]) == 40
    assert found["drift"] == 0.2


def test_frames_are_taken_by_rate_without_naming_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def note(data: Path, **settings: Any) -> Any:
        asked.append(settings)
        raise InterruptedError

    monkeypatch.setattr("jepalab.recipes.clip_bench.open_clips", note)
    with pytest.raises(InterruptedError):
        Footage(data=Path("videos"), fps=5.0).open()
    assert (asked[0]["fps"], asked[0]["stride"]) == (5.0, 1)


def test_fashion_mnist_is_named_in_place_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small one of the right form; where it comes from on the network is in test_images."""
    contents = {}
    for part, num in (("train", 120), ("t10k", 40)):
        pixels = np.stack([draw(i, i % 2)[..., 0] for i in range(num)])
        head = struct.pack(">4I", 0x803, num, 16, 16), struct.pack(">2I", 0x801, num)
        contents[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(head[0] + pixels.tobytes())
        contents[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(head[1] + bytes(i % 10 for i in range(num)))
    asked: list[str] = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url.rpartition("/")[2])
        return io.BytesIO(contents[asked[-1]])

    pinned = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(fashion_mnist, "SHA256", pinned)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist.urllib.request, "urlopen", answer)
    train = ["train", "ijepa", "--data", "fashion-mnist", *TINY]
    assert main([*train, "--out", "run"]) == 0
    told = capsys.readouterr().err
    assert f"Fashion-MNIST: {tmp_path / 'cache/fashion-mnist'}" in told
    assert "fetching Fashion-MNIST (30 MB" in told
    assert asked == [*contents]
    assert main(["probe", "run", "--data", "fashion-mnist"]) == 0
    said = capsys.readouterr()
    assert "160 grey pictures of 16 x 16 pixels from IDX files in fashion-mnist" in said.out
    assert "T-shirt/top" in said.out
    assert "fetching" not in said.err
    assert asked == [*contents]
    (tmp_path / "cache/fashion-mnist").rename(tmp_path / "debian")
    assert len(open_images(Path("fashion-mnist"), size=16)) == 160
    assert asked == [*contents]
    Path("fashion-mnist/dark").mkdir(parents=True)  # a folder of that name is the user's own
    with pytest.raises(ValueError, match="fashion-mnist holds no picture"):
        open_images(Path("fashion-mnist"), size=16)


def test_same_name_elsewhere_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook that changes its working directory: what was opened before is not taken for it."""
    opened = []
    for place, num in (("here", 64), ("there", 48)):
        draw_pictures(tmp_path / place / "photos", num)
        monkeypatch.chdir(tmp_path / place)
        opened.append(Pictures(Path("photos"), size=16).open())
    assert [len(images.pixels) for images in opened] == [64, 48]
    assert Pictures(Path("photos"), size=16).open() is opened[1]
