"""Where pictures lie: a folder of files, IDX files as MNIST has them, or an array. Says what is there, then yields it.

Parquet tables and webdataset tars are in `image_archives`; `images.open_images` recognises all of them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from jepalab.data.image_files import SUFFIXES

# How the splits are called in names of folders and files; what a split is called, by its index in SPLITS.
SPLIT_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
UNSPLIT = -1
FASHION_NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION_NAMES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@dataclass(frozen=True)
class Broken:
    """A place where a picture should be, and why none can be read there."""

    why: str


class Item(NamedTuple):
    """One picture before it is decoded.

    name     what the source calls it, unique in the source.
    content  a file, an encoded picture, or the pixels [h w] or [h w c]; a `Broken` where the source is damaged.
    label    its class, by name or number; None if unlabelled.
    split    0, 1, 2 where the source puts it in a split, else UNSPLIT.
    """

    name: str
    content: Path | bytes | np.ndarray | Broken
    label: str | int | None = None
    split: int = UNSPLIT


@dataclass(frozen=True)
class Source:
    """Pictures that can be listed without decoding them.

    title    what it is, in words: "folder photos".
    key      names its content: changes when a file is added, removed or changed.
    num      how many items `items` yields.
    items    yields them, from the start at each call.
    names    the classes' names where the source knows them and its labels are their numbers; else None.
    listing  the items' names where they are known before reading; else None.
    unread   files of kinds that are not read here, counted by suffix.
    """

    title: str
    key: str
    num: int
    items: Callable[[], Iterator[Item]]
    names: list[str] | None = None
    listing: list[str] | None = None
    unread: Mapping[str, int] = field(default_factory=dict)


def count_kinds(files: Iterable[Path], *, known: Container[str]) -> dict[str, int]:
    """How many files there are of each suffix that is not a known one; "without a suffix" for those that have none."""
    return dict(
        Counter(path.suffix.lower() or "without a suffix" for path in files if path.suffix.lower() not in known)
    )


def walk(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted, links followed; without hidden ones and what macOS adds to archives."""
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if name[0] != "." and name != "__MACOSX"]
        if real not in seen:
            found += [Path(place, name) for name in files if name[0] != "."]
        seen.add(real)
    return sorted(found)


def without(table: Path | None, files: list[Path]) -> list[Path]:
    """The files but for one that holds their labels."""
    return files if table is None else [file for file in files if not _is_same(file, table)]


def _is_same(file: Path, other: Path) -> bool:
    return file.name == other.name and file.resolve() == other.resolve()


def fingerprint(kind: str, folder: Path, files: list[Path], *options: str | None) -> str:
    """Names files by relative path, size and time of change: enough to know them again without reading them."""
    known = [(path.relative_to(folder).as_posix(), *_size_and_time(path)) for path in files]
    return hashlib.sha256(json.dumps([kind, known, options]).encode()).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        # A link to nowhere: skipped, with the reason, when it is read.
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def split_of_name(name: str) -> int:
    """The split that a file or folder name begins with, as in train-00000-of-00001.parquet; else UNSPLIT."""
    return SPLIT_NAMES.get(name.lower().replace("_", "-").replace(".", "-").split("-")[0], UNSPLIT)


def folder_of_images(folder: Path, files: list[Path]) -> Source:
    """Image files in class sub-folders, or in none; top folders called train, val, validation or test are splits.

    A file directly in the folder (or directly in train/) has no label.
    """
    items, unread = [], count_kinds(files, known=SUFFIXES)
    for path in (path for path in files if path.suffix.lower() in SUFFIXES):
        place = list(path.relative_to(folder).parts[:-1])
        split = SPLIT_NAMES.get(place[0].lower(), UNSPLIT) if place else UNSPLIT
        label = "/".join(place[split != UNSPLIT :]) or None
        items.append(Item(path.relative_to(folder).as_posix(), path, label, split))
    paths = [item.content for item in items if isinstance(item.content, Path)]
    key = fingerprint("folder", folder, paths)
    names = [item.name for item in items]
    return Source(f"folder {folder.name}", key, len(items), lambda: iter(items), listing=names, unread=unread)


def is_idx(path: Path) -> bool:
    return "-images" in path.name and "idx3-ubyte" in path.name


def idx(folder: Path, files: list[Path]) -> Source:
    """The IDX files of MNIST and its kin, compressed or not: *-images-idx3-ubyte beside *-labels-idx1-ubyte."""
    pictures = [path for path in files if is_idx(path)]
    # Where a download left both the compressed and the plain file, one of them is enough.
    pictures = [path for path in pictures if path.suffix != ".gz" or path.with_suffix("") not in pictures]
    shapes = {path: _idx_shape(path, rank=3) for path in pictures}

    def items() -> Iterator[Item]:
        for path in pictures:
            num, height, width = shapes[path]
            labels = _idx_labels(path, num)
            split = 2 if "t10k" in path.name or "test" in path.name else 0
            with _idx_opened(path) as file:
                file.read(16)
                for i in range(num):
                    pixels = np.frombuffer(_read(file, height * width, path), dtype=np.uint8)
                    label = None if labels is None else int(labels[i])
                    yield Item(f"{path.name}:{i}", pixels.reshape(height, width), label, split)

    is_fashion = any("fashion" in part.lower() for part in (folder.name, folder.parent.name))
    beside = [path for path in files if "idx1-ubyte" in path.name]
    key = fingerprint("idx", folder, pictures + beside, "fashion" if is_fashion else None)
    num = sum(shape[0] for shape in shapes.values())
    return Source(f"IDX files in {folder.name}", key, num, items, FASHION_NAMES if is_fashion else None)


def _idx_labels(pictures: Path, num: int) -> np.ndarray | None:
    name = pictures.name.replace("-images", "-labels").replace("idx3", "idx1").removesuffix(".gz")
    for path in (pictures.with_name(name), pictures.with_name(f"{name}.gz")):
        if path.exists():
            (found,) = _idx_shape(path, rank=1)
            if found != num:
                raise ValueError(f"{pictures.name} holds {num} pictures but {path.name} holds {found} labels.")
            with _idx_opened(path) as file:
                file.read(8)
                return np.frombuffer(_read(file, num, path), dtype=np.uint8)
    return None


def _idx_shape(path: Path, *, rank: int) -> tuple[int, ...]:
    with _idx_opened(path) as file:
        magic, *shape = struct.unpack(f">{1 + rank}I", _read(file, 4 * (1 + rank), path))
    if magic != 0x800 + rank:
        raise ValueError(f"{path} does not begin like an IDX file of bytes with {rank} axes: 0x{magic:08x}.")
    return tuple(shape)


def _idx_opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _read(file: io.BufferedIOBase, num_bytes: int, path: Path) -> bytes:
    try:
        found = file.read(num_bytes)
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again.") from error
    if len(found) != num_bytes:
        raise ValueError(f"{path} ends too early; fetch it again.")
    return found


def loaded(source: Path | np.ndarray | Tensor, *, noun: str) -> tuple[np.ndarray, str, str]:
    """An array, or that of a .npy file as a memory map; its key and title as a source."""
    if isinstance(source, Path):
        try:
            pixels = np.load(source, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ValueError(f"Wanted an array of {noun} in {source}, but it cannot be read: {error}.") from error
        return pixels, fingerprint("npy", source.parent, [source]), f"array {source.name}"
    pixels = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    content = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode() + np.ascontiguousarray(pixels).tobytes())
    return pixels, content.hexdigest(), "an array in memory"


def array(pixels: np.ndarray, key: str, title: str) -> Source:
    """Pictures [n h w], [n h w c] or [n c h w]: bytes, 16 bits, booleans, or floats in [0, 1]."""
    if pixels.ndim == 4 and pixels.shape[-1] not in {1, 3, 4} and pixels.shape[1] in {1, 3, 4}:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim not in {3, 4} or (pixels.ndim == 4 and pixels.shape[-1] not in {1, 3, 4}):
        raise ValueError(f"Wanted pictures [n h w] or [n h w c] with 1, 3 or 4 channels, got {list(pixels.shape)}.")
    if not len(pixels):
        raise ValueError(f"Wanted pictures, got an array with none: {list(pixels.shape)}.")
    if pixels.dtype != np.uint8 and pixels.dtype != np.uint16 and pixels.dtype.kind not in "bf":
        raise ValueError(f"Wanted bytes, 16 bits without sign, booleans or floats in [0, 1], got {pixels.dtype}.")

    def items() -> Iterator[Item]:
        for i in range(len(pixels)):
            yield Item(str(i), as_bytes(pixels[i]))

    return Source(title, key, len(pixels), items)


def as_bytes(picture: np.ndarray) -> np.ndarray | Broken:
    """Pixels [h w] or [h w c] of any kind that `array` takes, as bytes; grey ones without an axis for channels."""
    if picture.dtype.kind == "f":
        if not (picture >= 0).all() or not (picture <= 1).all():
            return Broken(f"its floats lie in [{picture.min():g}, {picture.max():g}], not in [0, 1]")
        picture = (picture * 255).round().astype(np.uint8)
    elif picture.dtype == np.uint16:
        picture = (picture / 257).round().astype(np.uint8)
    elif picture.dtype == np.bool_:
        picture = picture.astype(np.uint8) * 255
    return np.ascontiguousarray(picture[..., 0] if picture.shape[-1] == 1 and picture.ndim == 3 else picture)
