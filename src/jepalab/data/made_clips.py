"""Clips that are made, not decoded: once, into a memory-mapped file, found again by what they depend on.

A cache entry is a folder: pixels.npy [n t h w c] bytes, one NAME.npy [n ...] for what else is known of each clip, and
meta.json. It is written under another name and renamed when whole, so a killed write leaves nothing that is mistaken
for clips; what it leaves is named as a killed decode's is, and goes with those.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from jepalab.data.image_cache import PARTIAL, Progress, forget_pages


@dataclass(frozen=True)
class Chunk:
    """Some clips, the next in order.

    rows  by name: what else is known of each.
    """

    pixels: UInt8[np.ndarray, "m t h w c"]
    rows: Mapping[str, Shaped[np.ndarray, "m ..."]] = field(default_factory=dict)


class Making(NamedTuple):
    """Clips about to be made, chunk by chunk, and what is known of all of them, for JSON."""

    chunks: Iterable[Chunk]
    facts: Mapping[str, Any]


class Made(NamedTuple):
    """Clips out of the cache, memory-mapped, with the sha256 of their bytes."""

    pixels: UInt8[np.ndarray, "n t h w c"]
    sha256: str
    rows: dict[str, Shaped[np.ndarray, "n ..."]]
    facts: dict[str, Any]


def made_clips(
    key: str, *, shape: tuple[int, ...], make: Callable[[], Making], cache: Path, progress: Progress | None = None
) -> Made:
    """The clips under this key: out of the cache, or made and put there.

    key       all that they depend on, in words.
    shape     of all of them: (n, t, h, w, c).
    make      called where the cache does not have them.
    progress  called with the number of clips made and the total.

    Raises:
        ValueError: what `make` raises.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    place = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    partial = cache / f"{place.name}{PARTIAL}{uuid.uuid4().hex[:8]}"
    found = _load(place, shape)
    if found is not None:
        return found
    try:
        partial.mkdir(parents=True)
        _write(make(), key, shape, partial, progress)
        shutil.rmtree(place, ignore_errors=True)
        # Another process may have finished the same work first; then its folder stands and ours goes.
        if not place.exists():
            partial.rename(place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The clips, {np.prod(shape, dtype=float) / 1e6:,.0f} MB, could not be written below {cache} "
            f"({error.strerror or error}); make room, or name another folder with `cache` or $JEPALAB_CACHE",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _load(place, shape)
    assert found is not None, f"{place} was just written"
    return found


def _write(making: Making, key: str, shape: tuple[int, ...], partial: Path, progress: Progress | None) -> None:
    digest, done = hashlib.sha256(str(shape).encode()), 0
    parts: dict[str, list[np.ndarray]] = {}
    # Written, not mapped: on a full disk a write is an error, while a store into a map kills the process.
    with (partial / "pixels.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in making.chunks:
            content = chunk.pixels.tobytes()
            file.write(content)
            digest.update(content)
            for name, rows in chunk.rows.items():
                parts.setdefault(name, []).append(rows)
            done += len(chunk.pixels)
            # Who clears a cache takes a folder for a killed one's that nobody has touched for an hour.
            os.utime(partial)
            if progress:
                progress(done, shape[0])
        file.flush()
        os.fsync(file.fileno())
    for name, rows in parts.items():
        np.save(partial / f"{name}.npy", np.concatenate(rows))
    meta = {"key": key, "sha256": digest.hexdigest(), "rows": list(parts), "facts": dict(making.facts)}
    (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _load(place: Path, shape: tuple[int, ...]) -> Made | None:
    """A whole entry, or None: where a file is missing or cut short, it is made anew."""
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        pixels = np.load(place / "pixels.npy", mmap_mode="r")
        rows = {name: np.load(place / f"{name}.npy") for name in meta.get("rows", [])}
        found = Made(pixels, meta["sha256"], rows, meta.get("facts", {}))
    except (OSError, ValueError, LookupError, EOFError):
        return None
    forget_pages(pixels)
    return found if pixels.shape == shape and all(len(part) == shape[0] for part in rows.values()) else None
