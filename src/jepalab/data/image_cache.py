"""Pictures and clips decoded once into a memory-mapped file, found again by a hash of what the source lists.

An entry is a folder: pixels.npy [n h w c] or [n t h w c] bytes, rows.npy (labels, splits, content hashes), items.json
(names), meta.json. It is written under another name and renamed when whole: a killed decode leaves none behind.
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
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import Int, UInt8, UInt64

from jepalab.data.image_files import UNREADABLE, decode, shorter_side, strict_about_bombs
from jepalab.data.image_labels import coded
from jepalab.data.image_sources import Broken, Item, Source
from jepalab.data.pixel_file import PixelFile
from jepalab.dist import num_cores

# Part of every picture's key: raise it when decoding changes.
VERSION = 1
CHUNK, MAX_THREADS = 64, 4
MAX_FILE_BYTES = 2**30
ROW = np.dtype([("code", "<i8"), ("own", "i1"), ("hash", "<u8")])
PARTIAL, STALE_SECONDS = ".partial-", 3600
# Bytes of a map that are looked at before its pages are given back.
BLOCK_BYTES = 2**24

Progress = Callable[[int, int], None]


class Row(NamedTuple):
    """One observation that an item of a source holds.

    name          unique in the source.
    pixels        [h w c] or [t h w c] bytes, c = 1 where all are grey, else 3.
    content_hash  8 bytes of the item's encoded content: equal for equal files.
    """

    name: str
    pixels: UInt8[np.ndarray, "*shape c"]
    content_hash: bytes


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How the items of a source become rows of bytes.

    settings  all that the bytes depend on beside the source: part of an entry's key.
    read      the rows of one item, or why it has none; called from several threads.
    shape     of a row without its channels: (h, w) or (t, h, w).
    noun      what rows are, in words: "pictures".
    most      rows of one item.
    ahead     items that are read, or wait to be written, at a time: memory is bounded by it.
    versions  of what decodes, to be written down.
    facts     more to be written down once all items are read.
    """

    settings: str
    read: Callable[[Item], list[Row] | Broken]
    shape: tuple[int, ...]
    noun: str
    most: int = 1
    ahead: int
    versions: Mapping[str, str | int]
    facts: Callable[[], dict[str, float | None]] = dict


@dataclass(frozen=True)
class Decoded:
    """The readable observations of a source, before anybody decided on splits.

    codes    [n] classes as the source has them, indices into `names`; -1 unlabelled.
    own      [n] the source's own split, -1 where it has none.
    hashes   [n] of the encoded content of the item each lies in: equal for equal files.
    sha256   of all pixels.
    listing  a JSON file with the observations' names; None where they are called 0, 1, 2, ...
    facts    what else the reader wrote down.
    """

    pixels: UInt8[np.ndarray, "n *shape c"]
    codes: Int[np.ndarray, " n"]
    own: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    names: list[str]
    skipped: dict[str, str]
    sha256: str
    listing: Path | None = None
    facts: dict[str, float | None] = field(default_factory=dict)


def default_cache() -> Path:
    """$JEPALAB_CACHE, or .cache/jepalab in the user's home."""
    return Path(os.environ.get("JEPALAB_CACHE") or Path.home() / ".cache" / "jepalab")


def decoded(source: Source, *, size: int, cache: Path, progress: Progress | None = None) -> Decoded:
    """The pictures of a source at this size: out of the cache, or decoded into it; raises what `cached` does."""
    sides: list[int] = []
    reader = Reader(
        settings=f"{VERSION} {size}",
        read=lambda item: _picture(item, size, sides),
        shape=(size, size),
        noun="pictures",
        ahead=CHUNK,
        versions={"decoding": VERSION, "pillow": PIL.__version__},
        facts=lambda: {"median_side": float(np.median(sides))} if sides else {},
    )
    with strict_about_bombs():
        return cached(source, reader=reader, cache=cache, progress=progress)


def _picture(item: Item, size: int, sides: list[int]) -> list[Row] | Broken:
    content = item.content
    try:
        if isinstance(content, Path):
            if content.stat().st_size > MAX_FILE_BYTES:
                return Broken(f"larger than {MAX_FILE_BYTES // 2**20} MB")
            content = content.read_bytes()
        if isinstance(content, Broken):
            return content
        sides.append(shorter_side(content))
        return [Row(item.name, decode(content, size=size), content_hash(content))]
    except UNREADABLE as error:
        why = "is no image, or a damaged one" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
        return Broken(f"{type(error).__name__}: {why}")


def cached(source: Source, *, reader: Reader, cache: Path, progress: Progress | None = None) -> Decoded:
    """What a reader makes of a source: out of the cache, or decoded into it.

    Raises:
        ValueError: more than half of the items cannot be read.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    key = hashlib.sha256(f"{reader.settings} {source.key}".encode()).hexdigest()[:32]
    place = cache / key
    if (found := _load(place)) is not None:
        return found
    partial = cache / f"{key}{PARTIAL}{uuid.uuid4().hex[:8]}"
    try:
        _remove_stale(cache)
        partial.mkdir(parents=True)
        _write(source, partial, reader, progress)
        shutil.rmtree(place, ignore_errors=True)
        # Another process may have finished the same work first; then its folder stands and ours goes.
        if not place.exists():
            partial.rename(place)
    except OSError as error:
        num_bytes = source.num * reader.most * int(np.prod(reader.shape)) * 3
        raise OSError(
            error.errno,
            f"The decoded {reader.noun}, up to {num_bytes / 1e6:,.0f} MB, could not be written below "
            f"{cache} ({error.strerror or error}); make room, or name another folder with `cache` or $JEPALAB_CACHE",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _load(place)
    assert found is not None, f"{place} was just written"
    return found


def in_place(pixels: UInt8[np.ndarray, "n *shape c"]) -> Decoded:
    """An array that needs no decoding, with its rows hashed."""
    hashes = [content_hash(row) for block in _blocks(pixels) for row in block]
    none = np.full(len(pixels), -1)
    found = np.frombuffer(b"".join(hashes), dtype="<u8")
    return Decoded(pixels, none, none.astype(np.int8), found, [], {}, _sha256(pixels))


def content_hash(content: bytes | np.ndarray) -> bytes:
    return hashlib.blake2b(content if isinstance(content, bytes) else content.tobytes(), digest_size=8).digest()


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
        words = meta["names"], meta["skipped"], meta["sha256"]
        return Decoded(pixels, codes, own, hashes, *words, place / "items.json", meta.get("facts", {}))
    except (OSError, ValueError, LookupError, EOFError):
        return None


def _remove_stale(cache: Path) -> None:
    """Frees what killed decodes left: a living one touches its folder again and again."""
    for left in cache.glob(f"*{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _write(source: Source, partial: Path, reader: Reader, progress: Progress | None) -> None:
    items: list[str] = []
    labels: list[str | int | None] = []
    own: list[int] = []
    hashes: list[bytes] = []
    skipped: dict[str, str] = {}
    done, num_read = 0, 0
    threads = ThreadPoolExecutor(min(MAX_THREADS, num_cores()))
    file = PixelFile(partial / "pixels.npy", reader.shape)
    with file as pixels, threads as pool, closing(_in_order(source, reader, pool)) as found:
        for done, (item, rows) in enumerate(found, 1):
            if isinstance(rows, Broken):
                skipped[item.name] = rows.why
                rows = []
            num_read += bool(rows)
            for row in rows:
                pixels.append(row.pixels)
                items.append(row.name)
                labels.append(item.label)
                own.append(item.split)
                hashes.append(row.content_hash)
            if done % reader.ahead == 0:
                os.utime(partial)
                if progress:
                    progress(done, max(done, source.num))
        if progress and done % reader.ahead:
            progress(done, max(done, source.num))
    if len(skipped) > num_read:
        some = "; ".join(f"{name}: {why}" for name, why in islice(skipped.items(), 3))
        raise ValueError(
            f"Wanted {reader.noun} in {source.title}, but {len(skipped)} of {done} could not be read ({some})."
        )
    codes, names = coded(labels, source.names)
    table = np.empty(len(codes), dtype=ROW)
    table["code"], table["own"] = codes, own
    table["hash"] = np.frombuffer(b"".join(hashes), dtype="<u8")
    np.save(partial / "rows.npy", table)
    (partial / "items.json").write_text(json.dumps(items), encoding="utf-8")
    meta = {
        "source": source.title,
        "key": source.key,
        "num": len(items),
        "names": names,
        "skipped": skipped,
        "sha256": _sha256(np.load(partial / "pixels.npy", mmap_mode="r")),
        "versions": {**reader.versions, "numpy": np.__version__},
        "facts": reader.facts(),
    }
    (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _in_order(source: Source, reader: Reader, pool: ThreadPoolExecutor) -> Generator[tuple[Item, list[Row] | Broken]]:
    """Each item with what was read of it, in the order of the items."""
    waiting: deque[tuple[Item, Future[list[Row] | Broken]]] = deque()
    items = source.items()
    try:
        while True:
            for item in islice(items, reader.ahead - len(waiting)):
                waiting.append((item, pool.submit(reader.read, item)))
            if not waiting:
                return
            item, found = waiting.popleft()
            yield item, found.result()
    finally:
        # Where the writing failed, nobody waits for what has not begun.
        for _, future in waiting:
            future.cancel()


def _sha256(pixels: np.ndarray) -> str:
    digest = hashlib.sha256(str(pixels.shape).encode())
    for block in _blocks(pixels):
        digest.update(block.tobytes())
    return digest.hexdigest()


def _blocks(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The rows, a few at a time; of a memory map, what was read goes out of this process's memory again."""
    num = max(1, BLOCK_BYTES // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), num):
        yield pixels[start : start + num]
        forget_pages(pixels)
