"""Opening images: every kind of source, label, damage and split; a cache that is whole or not there."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import itertools
import json
import os
import struct
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from jepalab.data import fashion_mnist, image_cache, images
from jepalab.data.image_files import decode
from jepalab.data.image_labels import assign_splits
from jepalab.data.images import Images, open_images
from jepalab.data.pixel_file import PixelFile

SIZE = 8


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def noise(seed: int, *, size: int = SIZE, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, kind)
    return file.getvalue()


def write_classes(folder: Path, counts: dict[str, int], *, first: int = 0) -> dict[str, np.ndarray]:
    """Random pictures in sub-folders, no two alike, by their path."""
    written = {}
    for seed, (name, i) in enumerate(((name, i) for name, num in counts.items() for i in range(num)), first):
        path = folder / name / f"{first + i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(seed)))
        written[path.relative_to(folder).as_posix()] = noise(seed)
    return written


def counts_of(opened: Images) -> list[int]:
    return opened.splits.long().bincount(minlength=3).tolist()


def by_name(opened: Images, values: torch.Tensor) -> dict[str, int]:
    return dict(zip(opened.item_names(), values.tolist(), strict=True))


# Sources.


def test_folder_of_classes_keeps_every_pixel_and_splits_each_class(folder: Path, cache: Path) -> None:
    written = write_classes(folder, {"cats": 30, "dogs": 20})
    (folder / "notes.txt").write_text("not looked at")
    (folder / "cats" / ".hidden.png").write_bytes(b"nor this")
    opened = open_images(folder, size=SIZE, cache=cache)
    assert opened.names == ["cats", "dogs"]
    assert opened.pixels.shape == (50, SIZE, SIZE, 3)
    assert isinstance(opened.pixels, np.memmap)
    for name, pixels, label in zip(opened.item_names(), opened.pixels, opened.labels, strict=True):
        assert np.array_equal(pixels, written[name])
        assert name.startswith(opened.names[label])
    for label, num in enumerate((30, 20)):
        parts = opened.splits[opened.labels == label].long().bincount().tolist()
        assert parts == [num - 2 * num // 10, num // 10, num // 10]
    assert "50 colour pictures of 8 x 8" in repr(opened)
    assert "2 classes of 20 to 30 pictures (cats, dogs); train 40, validation 5, test 5" in opened.describe()


def test_read_returns_rows_in_the_order_asked_for(folder: Path, cache: Path) -> None:
    write_classes(folder, {"cats": 12})
    opened = open_images(folder, size=SIZE, cache=cache)
    index = torch.tensor([7, 0, 11, 7])
    assert np.array_equal(opened.read(index).numpy(), np.asarray(opened.pixels)[index.numpy()])
    in_memory = open_images(np.array(opened.pixels), size=SIZE, cache=cache)
    assert torch.equal(in_memory.read(index), opened.read(index))


def test_mean_and_std_are_those_of_the_train_split(folder: Path, cache: Path) -> None:
    write_classes(folder, {"cats": 30})
    opened = open_images(folder, size=SIZE, cache=cache)
    train = opened.pixels[opened.indices("train").numpy()].reshape(-1, 3) / 255
    mean, std = opened.mean_std()
    np.testing.assert_allclose(mean, train.mean(0))
    np.testing.assert_allclose(std, train.std(0))


def test_flat_folder_is_unlabelled_and_split_as_a_whole(folder: Path, cache: Path) -> None:
    write_classes(folder, {".": 20})
    opened = open_images(folder, size=SIZE, cache=cache)
    assert (opened.labels == -1).all()
    assert opened.num_classes == 0
    assert counts_of(opened) == [16, 2, 2]


def test_pictures_beside_the_class_folders_are_unlabelled_and_only_train(folder: Path, cache: Path) -> None:
    write_classes(folder, {"cats": 10, "dogs": 10, ".": 30})
    opened = open_images(folder, size=SIZE, cache=cache)
    assert (opened.labels == -1).sum() == 30
    assert (opened.splits[opened.labels == -1] == 0).all()
    assert counts_of(opened) == [46, 2, 2]
    assert "30 without a label" in opened.describe()


@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_split_folders_are_respected(folder: Path, cache: Path, held_out: str) -> None:
    write_classes(folder, {"train/cats": 20, "train/dogs": 10, f"{held_out}/cats": 3, f"{held_out}/dogs": 4})
    opened = open_images(folder, size=SIZE, cache=cache)
    assert opened.names == ["cats", "dogs"]
    assert counts_of(opened) == [27, 3, 7]
    names = opened.item_names()
    assert all(names[i].startswith(f"{held_out}/") for i in opened.indices("test").tolist())
    assert all(names[i].startswith("train/") for i in opened.indices("validation").tolist())


def test_both_held_out_folders_are_respected(folder: Path, cache: Path) -> None:
    write_classes(folder, {"train/cats": 5, "val/cats": 2, "test/cats": 3})
    assert counts_of(open_images(folder, size=SIZE, cache=cache)) == [5, 2, 3]


def test_links_are_followed_once(folder: Path, cache: Path, tmp_path: Path) -> None:
    write_classes(tmp_path / "elsewhere", {"cats": 10})
    (folder / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "elsewhere" / "cats" / "loop").symlink_to(tmp_path / "elsewhere")
    assert len(open_images(folder, size=SIZE, cache=cache)) == 10


def write_table(path: Path, columns: dict[str, list], names: list[str] | None = None) -> None:
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=7)


def test_parquet_keeps_splits_names_and_pixels(folder: Path, cache: Path) -> None:
    pictures = [{"bytes": encoded(noise(i)), "path": None} for i in range(40)]
    (folder / "data").mkdir()
    for part in range(2):
        rows = slice(15 * part, 15 * part + 15)
        columns = {"image": pictures[rows], "label": [i % 2 for i in range(40)][rows]}
        write_table(folder / "data" / f"train-0000{part}-of-00002.parquet", columns, ["cat", "dog"])
    write_table(folder / "data" / "test-00000-of-00001.parquet", {"image": pictures[30:], "label": [0, 1] * 5})
    opened = open_images(folder, size=SIZE, cache=cache)
    assert opened.names == ["cat", "dog"]
    assert counts_of(opened) == [26, 4, 10]
    order = [*range(30, 40), *range(30)]
    assert np.array_equal(opened.pixels, np.stack([noise(i) for i in order]))
    assert opened.labels.tolist() == [i % 2 for i in order]


def test_parquet_file_of_plain_bytes_with_a_named_column_and_holes(folder: Path, cache: Path) -> None:
    pictures: list[bytes | None] = [encoded(noise(i)) for i in range(12)]
    pictures[5] = None
    kinds = ["ant" if i % 2 else "bee" for i in range(12)]
    kinds[3] = None
    path = folder / "insects.parquet"
    write_table(path, {"img": pictures, "kind": kinds})
    opened = open_images(path, size=SIZE, label_column="kind", cache=cache)
    assert opened.names == ["ant", "bee"]
    assert opened.skipped == {"insects.parquet:5": "the table holds no bytes for it"}
    assert opened.labels.tolist() == [1, 0, 1, -1, 1, 1, 0, 1, 0, 1, 0]
    assert open_images(path, size=SIZE, cache=cache).num_classes == 0
    with pytest.raises(ValueError, match=r"column 'species', the table has \['img', 'kind'\]"):
        open_images(path, size=SIZE, label_column="species", cache=cache)


def test_parquet_that_is_none_or_has_no_pictures(folder: Path, cache: Path) -> None:
    (folder / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ValueError, match="no whole parquet file"):
        open_images(folder, size=SIZE, cache=cache)
    write_table(folder / "train.parquet", {"image": [encoded(noise(i)) for i in range(20)]})
    whole = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(whole[:20] + bytes(400) + whole[420:])
    with pytest.raises(ValueError, match=r"train.parquet is damaged"):
        open_images(folder, size=SIZE, cache=cache)
    write_table(folder / "train.parquet", {"text": ["a"], "label": [1]})
    with pytest.raises(ValueError, match="Wanted a column of encoded pictures"):
        open_images(folder, size=SIZE, cache=cache)


def test_missing_pyarrow_says_what_to_install(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(folder / "train.parquet", {"image": [b"x"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"jepalab\[parquet\]"):
        open_images(folder, size=SIZE, cache=cache)


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def tar_samples(numbers: range, *, suffix: str, label: list[bytes]) -> dict[str, bytes]:
    files = {}
    for i in numbers:
        files[f"a/sample{i:03}.{suffix}"] = label[i % 2]
        files[f"a/sample{i:03}.png"] = encoded(noise(i))
    return files


@pytest.mark.parametrize(
    ("suffix", "label"),
    [("cls", [b"0", b"1"]), ("txt", [b"0\n", b" 1"]), ("json", [b'{"label": 0}', b'{"id": 5, "class": "1"}'])],
)
def test_tars_read_labels_by_key(folder: Path, cache: Path, suffix: str, label: list[bytes]) -> None:
    write_tar(folder / "train-000.tar", tar_samples(range(20), suffix=suffix, label=label))
    write_tar(folder / "train-001.tar.gz", tar_samples(range(20, 30), suffix=suffix, label=label), "w:gz")
    write_tar(folder / "test-000.tar", tar_samples(range(30, 36), suffix=suffix, label=label))
    opened = open_images(folder, size=SIZE, cache=cache)
    order = [*range(30, 36), *range(30)]
    assert np.array_equal(opened.pixels, np.stack([noise(i) for i in order]))
    assert opened.names == ["0", "1"]
    assert opened.labels.tolist() == [i % 2 for i in order]
    assert counts_of(opened) == [26, 4, 6]
    assert open_images(folder / "train-000.tar", size=SIZE, cache=cache).labels.shape == (20,)


def test_a_tar_cut_short_yields_what_comes_before(folder: Path, cache: Path) -> None:
    path = folder / "photos.tar"
    write_tar(path, tar_samples(range(20), suffix="cls", label=[b"0", b"1"]))
    with tarfile.open(path) as tar:
        end = tar.getmember("a/sample017.png").offset_data
    path.write_bytes(path.read_bytes()[: end + 20])
    opened = open_images(folder, size=SIZE, cache=cache)
    assert len(opened) == 17
    assert [why.split(":")[0] for why in opened.skipped.values()] == ["the tar is damaged"]


def write_idx(path: Path, values: np.ndarray) -> None:
    content = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_as_mnist_has_them(folder: Path, cache: Path, ending: str) -> None:
    pictures = np.stack([noise(i, channels=1)[..., 0] for i in range(50)])
    labels = np.arange(50, dtype=np.uint8) % 2
    for name, rows in (("train", slice(0, 40)), ("t10k", slice(40, 50))):
        write_idx(folder / f"{name}-images-idx3-ubyte{ending}", pictures[rows])
        write_idx(folder / f"{name}-labels-idx1-ubyte{ending}", labels[rows])
    opened = open_images(folder, size=SIZE, cache=cache)
    order = [*range(40, 50), *range(40)]
    assert np.array_equal(opened.pixels, pictures[order, :, :, None])
    assert opened.labels.tolist() == labels[order].tolist()
    assert counts_of(opened) == [36, 4, 10]
    fashion = folder.rename(folder.with_name("fashion-mnist"))
    write_idx(fashion / f"train-labels-idx1-ubyte{ending}", labels[:40] * 9)
    with pytest.raises(ValueError, match="'Trouser' has held-out pictures but none to train on"):
        open_images(fashion, size=SIZE, cache=cache)


def test_damaged_idx_files_say_so(folder: Path, cache: Path) -> None:
    pictures = np.zeros((20, SIZE, SIZE), dtype=np.uint8)
    path = folder / "train-images-idx3-ubyte"
    write_idx(path, pictures)
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(19, dtype=np.uint8))
    with pytest.raises(ValueError, match="holds 20 pictures but train-labels-idx1-ubyte holds 19 labels"):
        open_images(folder, size=SIZE, cache=cache)
    (folder / "train-labels-idx1-ubyte").unlink()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends too early"):
        open_images(folder, size=SIZE, cache=cache)
    path.write_bytes(b"IDX, or so they said")
    with pytest.raises(ValueError, match="does not begin like an IDX file"):
        open_images(folder, size=SIZE, cache=cache)


@pytest.mark.parametrize("kind", ["bytes", "channels first", "floats", "tensor", "16 bits", "npy"])
def test_arrays_of_every_kind_hold_the_same_pictures(tmp_path: Path, cache: Path, kind: str) -> None:
    pixels = np.stack([noise(i) for i in range(20)])
    np.save(tmp_path / "pixels.npy", pixels)
    source = {
        "bytes": pixels,
        "channels first": pixels.transpose(0, 3, 1, 2),
        "floats": (pixels / 255).astype(np.float32),
        "tensor": torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
        "16 bits": pixels.astype(np.uint16) * 257,
        "npy": tmp_path / "pixels.npy",
    }[kind]
    labels = torch.arange(20) % 2
    opened = open_images(source, size=SIZE, labels=labels, cache=cache)
    assert np.array_equal(opened.pixels, pixels)
    assert torch.equal(opened.labels, labels)
    assert isinstance(opened.pixels, np.memmap) == (kind in {"npy", "16 bits", "floats", "tensor", "channels first"})
    assert counts_of(opened) == [16, 2, 2]
    assert opened.digest == open_images(pixels, size=SIZE, labels=labels, cache=cache).digest
    assert opened.digest != open_images(pixels, size=SIZE, labels=1 - labels, cache=cache).digest


def test_arrays_that_are_no_pictures_say_what_was_wanted(tmp_path: Path, cache: Path) -> None:
    good = np.zeros((6, SIZE, SIZE), dtype=np.uint8)
    for wrong, message in (
        (np.zeros((6, SIZE), dtype=np.uint8), r"\[6, 8\]"),
        (good[:0], "with none"),
        (good.astype(np.int64), "got int64"),
        (good + np.float32(7), r"floats lie in \[7, 7\]"),
    ):
        with pytest.raises(ValueError, match=message):
            open_images(wrong, size=SIZE, cache=cache)
    with pytest.raises(ValueError, match=r"Wanted class numbers \[6\]"):
        open_images(good, size=SIZE, labels=torch.zeros(5, dtype=torch.long), cache=cache)
    (tmp_path / "pixels.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="cannot be read"):
        open_images(tmp_path / "pixels.npy", size=SIZE, cache=cache)


# Labels.


def write_csv(path: Path, rows: list[tuple[str, ...]], separator: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


@pytest.mark.parametrize("naming", ["path", "name", "stem", "below the table", "semicolons", "swapped", "own header"])
def test_labels_come_from_a_table(folder: Path, cache: Path, naming: str) -> None:
    names = sorted(write_classes(folder, {"a": 12}))
    classes = ["dog" if i % 2 else "cat" for i in range(12)]
    called = {"name": [name[2:] for name in names], "stem": [name[2:-4] for name in names]}
    called["below the table"] = [f"photos/{name}" for name in names]
    rows = list(zip(called.get(naming, names), classes, strict=True))
    if naming == "swapped":
        rows = [("label", "split", "filename"), *((label, "?", name) for name, label in rows)]
    if naming == "own header":
        rows = [("file", "species"), *rows]
    table = write_csv(folder.parent / "labels.csv", rows, ";" if naming == "semicolons" else ",")
    opened = open_images(folder, size=SIZE, labels=table, cache=cache)
    assert opened.names == ["cat", "dog"]
    assert by_name(opened, opened.labels) == {name: i % 2 for i, name in enumerate(names)}


def test_files_without_a_row_are_unlabelled_and_numbers_sort_as_numbers(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(folder, {".": 20})
    rows = [(f"{i:03}.png", str([2, 10][i % 2])) for i in range(10)]
    table = write_csv(folder / "labels.csv", [*rows, ("010.png", ""), ("gone.png", "2")])
    opened = open_images(folder, size=SIZE, labels=table, cache=cache)
    assert opened.names == ["2", "10"]
    assert (opened.labels == -1).sum() == 10
    assert (opened.splits[opened.labels == -1] == 0).all()
    assert "1 of 12 rows" in capsys.readouterr().err


def test_tables_that_fit_nothing_say_what_was_wanted(folder: Path, cache: Path) -> None:
    write_classes(folder, {".": 6})
    for rows, message in (
        ([("gone.png", "cat")], r"name files like 'gone.png', and none of them is in folder photos.*'000.png'"),
        ([("file", "width", "height"), ("000.png", "3", "4")], "lacks a label column"),
        ([("label", "width", "height"), ("3", "3", "4")], "lacks a file column"),
        ([("000.png",)], "lacks a label column in 1 rows"),
        ([("000.png", "")], "label column is empty"),
        ([], "it is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            open_images(folder, size=SIZE, labels=write_csv(folder / "labels.csv", rows), cache=cache)
    with pytest.raises(ValueError, match="cannot be read"):
        open_images(folder, size=SIZE, labels=folder / "none.csv", cache=cache)
    with pytest.raises(ValueError, match="Labels of files come from a CSV file"):
        open_images(folder, size=SIZE, labels=torch.zeros(6, dtype=torch.long), cache=cache)
    assert not cache.exists(), "labels are looked at before anything is decoded"


# Damage and encodings.

# A horizontal ramp over all grey levels, twice as wide as high: its central square runs from a quarter to three.
RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (32, 1))
CENTRE = np.linspace(0, 255, 64)[16:48]


def test_every_encoding_becomes_the_same_bytes(folder: Path) -> None:
    grey = Image.fromarray(RAMP)
    grey.save(folder / "grey.png")
    grey.convert("RGB").save(folder / "colour.png")
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(folder / "sixteen_bits.png")
    Image.fromarray(RAMP.astype(">u2") * 257).save(folder / "sixteen_bits.tiff")
    grey.convert("P").save(folder / "palette.png")
    grey.save(folder / "photo.jpeg", quality=100)
    grey.save(folder / "animation.gif", save_all=True, append_images=[Image.fromarray(255 - RAMP)])
    nothing = Image.new("L", grey.size, 0)
    Image.merge("CMYK", [nothing] * 3 + [Image.fromarray(255 - RAMP)]).save(folder / "print.jpg", quality=100)
    # Black of varying opacity over white is grey.
    Image.merge("LA", [nothing, Image.fromarray(255 - RAMP)]).save(folder / "veil.png")
    Image.merge("RGBA", [nothing] * 3 + [Image.fromarray(255 - RAMP)]).save(folder / "coloured_veil.png")
    for path in sorted(folder.iterdir()):
        square = decode(path, size=32).astype(float)
        assert square.shape == (32, 32, 1), path.name
        assert abs(square[..., 0] - CENTRE).max() <= 4, path.name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation: int, folder: Path) -> None:
    upright = noise(0)
    # What a camera stores, and so what the tag undoes: TIFF 6.0, tag 274.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(folder / "turned.png", exif=exif)
    assert np.array_equal(decode(folder / "turned.png", size=SIZE), upright)


def test_large_pictures_shrink_with_antialiasing() -> None:
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    for kind in ("PNG", "JPEG"):
        small = decode(encoded(checks.astype(np.uint8), kind), size=SIZE).astype(int)
        assert abs(small - 128).max() <= 3, kind


def test_one_coloured_picture_makes_all_of_them_coloured(folder: Path, cache: Path) -> None:
    (folder / "a").mkdir()
    for i in range(10):
        (folder / "a" / f"{i}.png").write_bytes(encoded(noise(i, channels=1)))
    assert open_images(folder, size=SIZE, cache=cache).channels == 1
    (folder / "a" / "5.png").write_bytes(encoded(noise(5)))
    mixed = open_images(folder, size=SIZE, cache=cache)
    wanted = [noise(i, channels=3 if i == 5 else 1) for i in range(10)]
    assert np.array_equal(mixed.pixels, np.stack([np.broadcast_to(pixels, (SIZE, SIZE, 3)) for pixels in wanted]))


def break_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """One file of every kind of damage."""
    whole = {kind: encoded(noise(0, size=48), kind) for kind in ("PNG", "JPEG")}
    (folder / "cut.png").write_bytes(whole["PNG"][: len(whole["PNG"]) // 2])
    (folder / "cut.jpg").write_bytes(whole["JPEG"][: len(whole["JPEG"]) // 2])
    (folder / "corrupt.png").write_bytes(whole["PNG"][:60] + b"rubbish" * 9 + whole["PNG"][123:])
    (folder / "empty.png").touch()
    (folder / "letter.jpg").write_text("Dear reader, this is no picture.")
    (folder / "bomb.png").write_bytes(encoded(noise(0, size=80)))
    (folder / "huge_bomb.png").write_bytes(encoded(noise(0, size=120)))
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    Image.fromarray(RAMP.astype(np.float32)).save(folder / "float.tiff")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80 * 80 - 1)
    return {path.name for path in folder.iterdir() if path.is_file() or path.is_symlink()}


def test_broken_files_are_skipped_counted_and_named(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = break_files(folder, monkeypatch)
    written = write_classes(folder, {"a": 20})
    opened = open_images(folder, size=SIZE, cache=cache)
    assert set(opened.skipped) == broken
    assert np.array_equal(opened.pixels, np.stack(list(written.values())))
    assert "floats" in opened.skipped["float.tiff"]
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{len(broken)} could not be read and are left out, the first: bomb.png (" in said.err
    open_images(folder, size=SIZE, cache=cache)
    assert capsys.readouterr().err == said.err, "the cache remembers"


def test_bombs_are_refused_whatever_the_warning_filters_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80 * 80 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="80 x 80 pixels are more than 6399"):
            decode(encoded(noise(0, size=80)), size=SIZE)


def test_mostly_broken_sources_are_errors(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num = len(break_files(folder, monkeypatch))
    with pytest.raises(ValueError, match=f"{num} of {num} could not be read .*bomb.png: .*pixels"):
        open_images(folder, size=SIZE, cache=cache)
    write_classes(folder, {"a": num - 1})
    with pytest.raises(ValueError, match=f"{num} of {2 * num - 1} could not be read"):
        open_images(folder, size=SIZE, cache=cache)
    assert not list(cache.iterdir())


def test_places_without_pictures_say_what_was_expected(folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no picture .*\.jpeg.*found nothing"):
        open_images(folder, size=SIZE, cache=cache)
    (folder / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"found 1 files, the first: notes.txt"):
        open_images(folder, size=SIZE, cache=cache)
    with pytest.raises(ValueError, match=r"Wanted images in class sub-folders.*there is no .*nowhere"):
        open_images(tmp_path / "nowhere", size=SIZE, cache=cache)
    with pytest.raises(ValueError, match=r"got the file .*notes.txt; give the folder"):
        open_images(folder / "notes.txt", size=SIZE, cache=cache)


# Splits.


def test_classes_too_small_to_split_are_named(folder: Path, cache: Path) -> None:
    write_classes(folder, {"cats": 10, "dogs": 2})
    with pytest.raises(ValueError, match=r"class 'dogs' has 2 readable pictures.*at least 3"):
        open_images(folder, size=SIZE, cache=cache)
    write_classes(folder, {"dogs": 3}, first=900)
    assert counts_of(open_images(folder, size=SIZE, cache=cache)) == [11, 2, 2]


def test_classes_called_otherwise_in_the_test_folder_are_an_error(folder: Path, cache: Path) -> None:
    write_classes(folder, {"train/cat": 9, "test/Cat": 9})
    with pytest.raises(ValueError, match="class 'Cat' has held-out pictures but none to train on"):
        open_images(folder, size=SIZE, cache=cache)


def test_one_class_is_allowed_and_said(folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(folder, {"cats": 10})
    open_images(folder, size=SIZE, cache=cache)
    assert "one class only" in capsys.readouterr().err


def test_splits_depend_on_content_and_seed_alone(folder: Path, cache: Path) -> None:
    write_classes(folder, {"cats": 100, "dogs": 50})
    first = by_name(opened := open_images(folder, size=SIZE, cache=cache), opened.splits)
    other = by_name(opened := open_images(folder, size=SIZE, cache=cache, seed=1), opened.splits)
    assert sum(first[name] != other[name] for name in first) > 20
    write_classes(folder, {"cats": 10}, first=900)
    (folder / "dogs").rename(folder / "wolves")
    after = by_name(opened := open_images(folder, size=SIZE, cache=cache), opened.splits)
    moved = [name for name in first if first[name] != after[name.replace("dogs", "wolves")]]
    assert len(moved) <= 4
    assert all(name.startswith("cats") for name in moved), "a class's name is not what decides"


def test_copies_share_a_split() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 90).astype(np.uint64).repeat(4)
    codes, own = (np.arange(360) // 4) % 2, np.full(360, -1)
    splits = assign_splits(codes, own, hashes, names=["a", "b"], seed=0)
    # A tenth of a class is 18 pictures; the border would cut a group of four.
    assert (splits.reshape(90, 4) == splits.reshape(90, 4)[:, :1]).all()
    assert np.bincount(splits).tolist() == [280, 40, 40]
    with pytest.raises(ValueError, match="1 of them different"):
        assign_splits(codes[:30] * 0, own[:30], hashes[:1].repeat(30), names=["a"], seed=0)


# The cache.


def test_a_second_call_decodes_nothing(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(folder, {"cats": 10, "dogs": 10})
    heard: list[tuple[int, int]] = []
    first = open_images(folder, size=SIZE, cache=cache, progress=lambda *done: heard.append(done))
    assert heard[-1] == (20, 20)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as context:
        context.setattr(image_cache, "decode", fail)
        second = open_images(folder, size=SIZE, cache=cache)
        # Neither labels nor the seed of the splits are part of what is decoded.
        table = write_csv(folder.parent / "labels.csv", [(name, "x") for name in first.item_names()])
        assert open_images(folder, size=SIZE, cache=cache, seed=3, labels=table).names == ["x"]
        with pytest.raises(AssertionError, match="decoded again"):
            open_images(folder, size=SIZE // 2, cache=cache)
        os.utime(folder / "cats" / "000.png", (1, 1))
        with pytest.raises(AssertionError, match="decoded again"):
            open_images(folder, size=SIZE, cache=cache)
    assert (second.digest, second.names) == (first.digest, first.names)
    assert torch.equal(second.splits, first.splits)
    assert np.array_equal(second.pixels, first.pixels)
    assert open_images(folder, size=SIZE, cache=cache).digest == first.digest, "the digest is of content, not of files"
    (folder / "cats" / "000.png").write_bytes(encoded(noise(77)))
    assert open_images(folder, size=SIZE, cache=cache).digest != first.digest


def test_the_cache_lies_where_the_environment_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(folder, {"cats": 3})
    monkeypatch.setenv("JEPALAB_CACHE", str(tmp_path / "mine"))
    open_images(folder, size=SIZE)
    (entry,) = (tmp_path / "mine").iterdir()
    meta = json.loads((entry / "meta.json").read_text())
    assert meta["num"] == 3
    assert meta["versions"]["pillow"]


class Killed(BaseException):
    """Stands for what no handler can catch."""


@pytest.mark.parametrize("clean", [True, False], ids=["interrupted", "killed"])
def test_a_killed_decode_leaves_nothing_that_is_taken_for_whole(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    write_classes(folder, {"cats": 100})

    def stop(done: int, total: int) -> None:
        raise Killed

    with monkeypatch.context() as context:
        if not clean:
            context.setattr(image_cache.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            open_images(folder, size=SIZE, cache=cache, progress=stop)
    left = list(cache.iterdir())
    assert len(left) == (0 if clean else 1)
    assert len(open_images(folder, size=SIZE, cache=cache)) == 100
    # What is left of a killed process goes when it is old enough to be nobody's.
    for path in left:
        os.utime(path, (1, 1))
    open_images(folder, size=SIZE * 2, cache=cache)
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ""]


@pytest.mark.parametrize("damage", ["pixels.npy", "rows.npy", "meta.json", "missing", "other rows"])
def test_a_damaged_entry_is_made_anew(folder: Path, cache: Path, damage: str) -> None:
    write_classes(folder, {"cats": 10})
    first = open_images(folder, size=SIZE, cache=cache)
    wanted = np.array(first.pixels)
    (entry,) = cache.iterdir()
    if damage == "missing":
        (entry / "rows.npy").unlink()
    elif damage == "other rows":
        np.save(entry / "rows.npy", np.load(entry / "rows.npy")[:9])
    else:
        (entry / damage).write_bytes((entry / damage).read_bytes()[:-100])
    again = open_images(folder, size=SIZE, cache=cache)
    assert np.array_equal(again.pixels, wanted)
    assert again.digest == first.digest


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(folder, {"cats": 10})
    num_written = itertools.count()

    def append(self: PixelFile, picture: np.ndarray) -> None:
        if next(num_written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PixelFile, "append", append)
    with pytest.raises(OSError, match=r"could not be written below .* \(No space left.*JEPALAB_CACHE") as caught:
        open_images(folder, size=SIZE, cache=cache)
    assert caught.value.errno == errno.ENOSPC
    assert not list(cache.iterdir())


def test_two_processes_may_decode_the_same(folder: Path, cache: Path) -> None:
    write_classes(folder, {"cats": 100})
    inner: list[Images] = []

    def interfere(done: int, total: int) -> None:
        if not inner:
            inner.append(open_images(folder, size=SIZE, cache=cache))

    outer = open_images(folder, size=SIZE, cache=cache, progress=interfere)
    assert outer.digest == inner[0].digest
    assert len(list(cache.iterdir())) == 1
    assert np.array_equal(inner[0].read(torch.arange(3)), outer.read(torch.arange(3)))


# Real data.


@pytest.mark.slow
def test_cifar10_opens_whole(jepalab_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = jepalab_data / "cifar10"
    if not folder.exists():
        pytest.skip("no CIFAR-10 there")
    opened = open_images(folder, size=32, cache=tmp_path_factory.mktemp("cifar10"))
    assert counts_of(opened) == [45_000, 5_000, 10_000]
    assert opened.names[:2] == ["airplane", "automobile"]
    assert opened.num_classes == 10
    assert opened.labels.bincount().tolist() == [6000] * 10
    assert opened.labels[opened.indices("validation")].bincount().tolist() == [500] * 10
    assert opened.pixels.shape == (60_000, 32, 32, 3)
    assert opened.skipped == {}
    np.testing.assert_allclose(opened.mean_std()[0], [0.4914, 0.4822, 0.4465], atol=0.01)
    table = pq.ParquetFile(next(folder.glob("test-*.parquet")))
    row = next(table.iter_batches(1)).to_pylist()[0]
    assert np.array_equal(opened.pixels[0], np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))))
    table.close()


def test_fashion_mnist_is_fetched_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {name: f"content of {name}".encode() for name in fashion_mnist.SHA256}
    pinned = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(fashion_mnist, "SHA256", pinned)
    asked: list[str] = []
    trouble: Iterator[bytes | None] = iter([None, b"half of it"])

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url.rpartition("/")[2])
        sent = next(trouble, contents[asked[-1]])
        if sent is None:
            raise OSError("no route to host")
        return io.BytesIO(sent)

    monkeypatch.setattr(fashion_mnist.urllib.request, "urlopen", answer)
    folder = fashion_mnist.download_fashion_mnist(tmp_path / "fashion", pause=0.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    first = next(iter(contents))
    assert asked == [first] * 3 + list(contents)[1:]
    fashion_mnist.download_fashion_mnist(folder, pause=0.0)
    assert len(asked) == 6, "whole files are left alone"
    (folder / first).write_bytes(b"damaged")
    trouble = iter([None] * 3)
    with pytest.raises(OSError, match=r"in 3 tries \(no route to host\).*apt-get install dataset-fashion-mnist"):
        fashion_mnist.download_fashion_mnist(folder, pause=0.0)
    assert len(asked) == 9
    assert (folder / first).read_bytes() == b"damaged"
    assert sorted(path.name for path in folder.iterdir()) == sorted(contents)


def test_default_cache_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JEPALAB_CACHE", raising=False)
    assert images.default_cache() == Path.home() / ".cache" / "jepalab"
