"""Windows cut once into a memory-mapped file, found again by a hash of the files they came from and of how.

A cache entry is a folder: values.npy [n w c] float32, rows.npy (class, group, split and unit of each window),
items.json (names), meta.json. It is written under another name and renamed when whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jepalab.data.image_cache import PARTIAL, forget_pages
from jepalab.data.series_windows import ROWS_AT_ONCE, Windows

# Part of every key: raise it when reading or cutting changes.
VERSION = 1
ROW = np.dtype([("code", "<i8"), ("group", "<i8"), ("own", "<i8"), ("unit", "<u8")])
KEPT = ("channels", "names", "group_names", "unit", "skipped")


class Kept(NamedTuple):
    """Windows and the sha256 of their numbers."""

    windows: Windows
    sha256: str


def kept(key: str, *, cache: Path, make: Callable[[], Windows]) -> Kept:
    """The windows under this key: out of the cache, or made and written into it.

    Raises:
        ValueError: what `make` raises.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    place = cache / hashlib.sha256(f"series {VERSION} {key}".encode()).hexdigest()[:32]
    if found := _load(place):
        return found
    windows = make()
    partial = cache / f"{place.name}{PARTIAL}{uuid.uuid4().hex[:8]}"
    try:
        partial.mkdir(parents=True)
        _write(windows, partial)
        shutil.rmtree(place, ignore_errors=True)
        # Another process may have finished the same work first; then its folder stands and ours goes.
        if not place.exists():
            partial.rename(place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The windows, {windows.values.nbytes / 1e6:,.0f} MB, could not be written below {cache} "
            f"({error.strerror or error}); make room, or name another folder with `cache` or $JEPALAB_CACHE",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _load(place)
    assert found is not None, f"{place} was just written"
    return found


def in_memory(windows: Windows) -> Kept:
    """Windows that need no cache, with their hash."""
    return Kept(windows, _sha256(windows.values))


def _load(place: Path) -> Kept | None:
    """A whole entry, or None: where a file is missing, cut short or of another version, it is made anew."""
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        values = np.load(place / "values.npy", mmap_mode="r")
        rows = np.load(place / "rows.npy")
        items = json.loads((place / "items.json").read_text(encoding="utf-8"))
        if not meta["num"] == len(values) == len(rows) == len(items):
            return None
        codes, groups, own, units = (np.ascontiguousarray(rows[name]) for name in ROW.names or ())
        known = {name: meta[name] for name in KEPT}
        windows = Windows(values=values, codes=codes, groups=groups, own=own, units=units, items=items, **known)
        return Kept(windows, meta["sha256"])
    except (OSError, ValueError, LookupError, EOFError):
        return None


def _write(windows: Windows, partial: Path) -> None:
    np.save(partial / "values.npy", windows.values)
    rows = np.empty(len(windows.codes), dtype=ROW)
    rows["code"], rows["group"], rows["own"], rows["unit"] = windows.codes, windows.groups, windows.own, windows.units
    np.save(partial / "rows.npy", rows)
    (partial / "items.json").write_text(json.dumps(windows.items), encoding="utf-8")
    meta = {name: getattr(windows, name) for name in KEPT}
    meta |= {"num": len(rows), "sha256": _sha256(windows.values), "versions": {"numpy": np.__version__}}
    (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _sha256(values: np.ndarray) -> str:
    digest = hashlib.sha256(str(values.shape).encode())
    for start in range(0, len(values), ROWS_AT_ONCE):
        digest.update(np.ascontiguousarray(values[start : start + ROWS_AT_ONCE]).tobytes())
        forget_pages(values)
    return digest.hexdigest()
