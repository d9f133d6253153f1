"""Pictures decoded once into a memory-mapped file, found again by a hash of what the source lists.

A cache entry is a folder: pixels.npy [n h w c] bytes, rows.npy (labels, splits and content hashes), items.json (names),
meta.json. It is written under another name and renamed when whole, so a killed decode leaves nothing that is mistaken
for one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import Int, UInt8, UInt64

from jepalab.data.image_files import UNREADABLE, decode, strict_about_bombs
from jepalab.data.image_sources import Broken, Item, Source
from jepalab.data.pixel_file import PixelFile

# Part of every key: raise it when decoding changes.
VERSION = 1
CHUNK = 64
MAX_FILE_BYTES = 2**30
ROW = np.dtype([("code", "<i8"), ("own", "i1"), ("hash", "<u8")])
PARTIAL = ".partial-"
STALE_SECONDS = 3600

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Decoded:
    """The readable pictures of a source, before anybody decided on splits.

    codes    [n] classes as the source has them, indices into `names`; -1 unlabelled.
    own      [n] the source's own split, -1 where it has none.
    hashes   [n] of each picture's encoded content: equal for equal files.
    sha256   of all pixels.
    listing  a JSON file with the items' names; None where they are called 0, 1, 2, ...
    """

    pixels: UInt8[np.ndarray, "n h w c"]
    codes: Int[np.ndarray, " n"]
    own: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    names: list[str]
    skipped: dict[str, str]
    sha256: str
    listing: Path | None = None


def default_cache() -> Path:
    """$JEPALAB_CACHE, or .cache/jepalab in the user's home."""
    return Path(os.environ.get("JEPALAB_CACHE") or Path.home() / ".cache" / "jepalab")


def decoded(source: Source, *, size: int, cache: Path, progress: Progress | None = None) -> Decoded:
    """The pictures of a source at this size: out of the cache, or decoded into it.

    Raises:
        ValueError: more than half of the items cannot be read.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    key = hashlib.sha256(f"{VERSION} {size} {source.key}".encode()).hexdigest()[:32]
    place = cache / key
    found = _load(place)
    if found is not None:
        return found
    partial = cache / f"{key}{PARTIAL}{uuid.uuid4().hex[:8]}"
    try:
        _remove_stale(cache)
        partial.mkdir(parents=True)
        _write(source, partial, size, progress)
        shutil.rmtree(place, ignore_errors=True)
        # Another process may have finished the same work first; then its folder stands and ours goes.
        if not place.exists():
            partial.rename(place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The decoded pictures, up to {source.num * size * size * 3 / 1e6:,.0f} MB, could not be written below "
            f"{cache} ({error.strerror or error}); make room, or name another folder with `cache` or $JEPALAB_CACHE",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _load(place)
    assert found is not None, f"{place} was just written"
    return found


def in_place(pixels: UInt8[np.ndarray, "n h w c"]) -> Decoded:
    """An array that needs no decoding, with its rows hashed."""
    hashes, sha256 = _row_hashes(pixels)
    none = np.full(len(pixels), -1)
    return Decoded(pixels, none, none.astype(np.int8), hashes, [], {}, sha256)


def forget_pages(pixels: np.ndarray) -> None:
    """Takes what was read of a memory map out of this process's memory; the system's file cache keeps it."""
    if sys.platform != "win32" and isinstance(pixels.base, mmap.mmap):
        pixels.base.madvise(mmap.MADV_DONTNEED)


def _load(place: Path) -> Decoded | None:
    """A whole entry, or None: where a file is missing, cut short or of another version, it is made anew."""
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        pixels = np.load(place / "pixels.npy", mmap_mode="r")
        rows = np.load(place / "rows.npy")
        if not meta["num"] == len(pixels) == len(rows):
            return None
        codes, own, hashes = (np.ascontiguousarray(rows[name]) for name in ROW.names or ())
        listing = place / "items.json"
        return Decoded(pixels, codes, own, hashes, meta["names"], meta["skipped"], meta["sha256"], listing)
    except (OSError, ValueError, LookupError, EOFError):
        return None


def _remove_stale(cache: Path) -> None:
    """Frees what killed decodes left: a living one touches its folder at every chunk."""
    for left in cache.glob(f"*{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


@dataclass
class _Rows:
    """What is kept of the items beside their pixels."""

    items: list[str] = field(default_factory=list)
    labels: list[str | int | None] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def _write(source: Source, partial: Path, size: int, progress: Progress | None) -> None:
    rows = _Rows()
    done = 0
    threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    with PixelFile(partial / "pixels.npy", size) as pixels, strict_about_bombs(), threads as pool:
        for chunk in _chunks(source.items()):
            for item, (picture, known) in zip(chunk, pool.map(lambda item: _read(item, size), chunk), strict=True):
                if isinstance(picture, Broken):
                    rows.skipped[item.name] = picture.why
                    continue
                pixels.append(picture)
                rows.items.append(item.name)
                rows.labels.append(item.label)
                rows.own.append(item.split)
                rows.hashes.append(known)
            done += len(chunk)
            os.utime(partial)
            if progress:
                progress(done, max(done, source.num))
    if len(rows.skipped) > len(rows.items):
        some = "; ".join(f"{name}: {why}" for name, why in islice(rows.skipped.items(), 3))
        raise ValueError(
            f"Wanted pictures in {source.title}, but {len(rows.skipped)} of {done} could not be read ({some})."
        )
    codes, names = coded(rows.labels, source.names)
    table = np.empty(len(codes), dtype=ROW)
    table["code"], table["own"] = codes, rows.own
    table["hash"] = np.frombuffer(b"".join(rows.hashes), dtype="<u8")
    np.save(partial / "rows.npy", table)
    (partial / "items.json").write_text(json.dumps(rows.items), encoding="utf-8")
    mapped = np.load(partial / "pixels.npy", mmap_mode="r")
    meta = {
        "source": source.title,
        "key": source.key,
        "num": len(rows.items),
        "names": names,
        "skipped": rows.skipped,
        "sha256": _sha256(mapped),
        "versions": {"decoding": VERSION, "pillow": PIL.__version__, "numpy": np.__version__},
    }
    (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _chunks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _read(item: Item, size: int) -> tuple[np.ndarray | Broken, bytes]:
    content = item.content
    try:
        if isinstance(content, Path):
            if content.stat().st_size > MAX_FILE_BYTES:
                return Broken(f"larger than {MAX_FILE_BYTES // 2**20} MB"), b""
            content = content.read_bytes()
        if isinstance(content, Broken):
            return content, b""
        return decode(content, size=size), _content_hash(content)
    except UNREADABLE as error:
        why = "is no image, or a damaged one" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
        return Broken(f"{type(error).__name__}: {why}"), b""


def coded(labels: list[str | int | None], known: list[str] | None) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Labels as indices into a list of class names, numbers in the order of numbers; None and negatives are -1."""
    plain = [None if label is None or (isinstance(label, int) and label < 0) else label for label in labels]
    if known is not None and all(label is None or isinstance(label, int) for label in plain):
        highest = max((label for label in plain if isinstance(label, int)), default=-1)
        if highest >= len(known):
            raise ValueError(f"Found label {highest}, but only {len(known)} classes have names: {known}.")
        return np.array([-1 if label is None else label for label in plain], dtype=np.int64), known
    spoken = [None if label is None else str(label) for label in plain]
    distinct = {label for label in spoken if label is not None}
    all_numbers = all(label.isdecimal() for label in distinct)
    names = sorted(distinct, key=lambda name: (int(name), name) if all_numbers else (0, name))
    places = {name: i for i, name in enumerate(names)}
    return np.array([-1 if label is None else places[label] for label in spoken], dtype=np.int64), names


def _content_hash(content: bytes | np.ndarray) -> bytes:
    return hashlib.blake2b(content if isinstance(content, bytes) else content.tobytes(), digest_size=8).digest()


def _row_hashes(pixels: np.ndarray) -> tuple[np.ndarray, str]:
    hashes = []
    for start in range(0, len(pixels), 1024):
        hashes += [_content_hash(row) for row in pixels[start : start + 1024]]
        forget_pages(pixels)
    return np.frombuffer(b"".join(hashes), dtype="<u8"), _sha256(pixels)


def _sha256(pixels: np.ndarray) -> str:
    digest = hashlib.sha256(str(pixels.shape).encode())
    for start in range(0, len(pixels), 1024):
        digest.update(pixels[start : start + 1024].tobytes())
        forget_pages(pixels)
    return digest.hexdigest()
