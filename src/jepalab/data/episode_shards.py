"""Shards of episodes on disk: safetensors files, and the meta.json that says what lies in them.

    meta.json            format and version, what all episodes share, columns, and for each shard its bytes and sha256
                         and, in order, the length, sha256 and metadata of its episodes
    00000.safetensors    one tensor a column: the rows of its episodes, one after the other

An episode of t frames has t rows in each column and t - 1 in `action`. Every file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

FORMAT, VERSION = "jepalab episodes", 1
META = "meta.json"
ACTION = "action"
# numpy's names of what a column may hold, and those of safetensors.
DTYPES = {"bool": "BOOL"}
DTYPES |= {f"{kind}int{n}": f"{letter}{n}" for n in (8, 16, 32, 64) for kind, letter in (("", "I"), ("u", "U"))}
DTYPES |= {f"float{n}": f"F{n}" for n in (16, 32, 64)}
COLUMN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SHARD_NAME = re.compile(r"[0-9]{5,9}\.safetensors")

Verify = Literal["sha256", "size"]


class Column(NamedTuple):
    """What a row of a column is: its type, as numpy calls it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


class Stored(NamedTuple):
    """An episode in a shard: its frames, the sha256 of its rows, its metadata."""

    length: int
    sha256: str
    metadata: dict[str, Any]


class Shard(NamedTuple):
    """A file and what lies in it."""

    file: str
    num_bytes: int
    sha256: str
    episodes: list[Stored]


@dataclass
class Listing:
    """What meta.json says.

    metadata  what all episodes share.
    columns   empty before the first episode.
    skipped   what was left out when the episodes were written, and why.
    """

    metadata: dict[str, Any]
    columns: dict[str, Column] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def num_episodes(self) -> int:
        return sum(len(shard.episodes) for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Atomically; OSError where that fails."""
        shards = [
            shard._asdict() | {"episodes": [stored._asdict() for stored in shard.episodes]} for shard in self.shards
        ]
        columns = {name: column._asdict() for name, column in self.columns.items()}
        meta = {"format": FORMAT, "version": VERSION, "metadata": self.metadata, "columns": columns}
        text = json.dumps(meta | {"skipped": self.skipped, "shards": shards}, indent=1, allow_nan=False)
        write_whole(folder / META, text.encode())


def read_listing(folder: Path) -> Listing:
    """What meta.json of this folder says, checked.

    Raises:
        ValueError: no folder of episodes, one of another version, a meta.json that is damaged or names files elsewhere.
    """
    wanted = f"Wanted a folder of episodes, as EpisodeWriter writes it, with a {META} in it"
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{wanted}; {folder} has none that can be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise ValueError(f"{wanted}; that of {folder} is damaged ({error}).") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{wanted}; that of {folder} is something else's.")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{folder} holds episodes of version {meta.get('version')}, and this jepalab reads {VERSION}; update it."
        )
    try:
        shards = [
            Shard(
                str(shard["file"]),
                _count(shard["num_bytes"]),
                str(shard["sha256"]),
                [
                    Stored(_count(e["length"], least=1), str(e["sha256"]), dict(e["metadata"]))
                    for e in shard["episodes"]
                ],
            )
            for shard in meta["shards"]
        ]
        columns = {str(k): Column(str(v["dtype"]), tuple(map(_count, v["shape"]))) for k, v in meta["columns"].items()}
        listing = Listing(dict(meta["metadata"]), columns, shards, dict(meta["skipped"]))
        if shards and (ACTION not in columns or not {column.dtype for column in columns.values()} <= DTYPES.keys()):
            raise ValueError("its columns are none of episodes")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / META} is damaged ({type(error).__name__}: {error}).") from error
    files = [shard.file for shard in shards]
    if unsafe := [file for file in files if not SHARD_NAME.fullmatch(file)]:
        raise ValueError(f"{folder / META} names the shard {unsafe[0]!r}; shards are called like 00000.safetensors.")
    if len(set(files)) < len(files):
        raise ValueError(f"{folder / META} is damaged: it names a shard twice.")
    return listing


def _count(value: Any, *, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 2**53:
        raise ValueError(f"{value!r} is no count")
    return value


def num_rows(name: str, length: int) -> int:
    """Rows that a column of this name has in an episode of so many frames."""
    return length - (name == ACTION)


def write_shard(
    folder: Path, *, file: str, episodes: Sequence[tuple[Mapping[str, np.ndarray], dict[str, Any]]]
) -> Shard:
    """Writes columns and metadata of episodes as one shard, atomically; OSError where that fails."""
    names = list(episodes[0][0])
    tensors = {name: np.concatenate([columns[name] for columns, _ in episodes]) for name in names}
    content = safetensors.numpy.save(tensors)
    stored = [Stored(len(columns[ACTION]) + 1, digest(columns), metadata) for columns, metadata in episodes]
    write_whole(folder / file, content)
    return Shard(file, len(content), hashlib.sha256(content).hexdigest(), stored)


def digest(columns: Mapping[str, np.ndarray]) -> str:
    """The sha256 of an episode's rows, columns in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(columns):
        found.update(f"{name} {columns[name].shape} ".encode())
        found.update(np.ascontiguousarray(columns[name]).data)
    return found.hexdigest()


def read_rows(
    shard: Any, columns: Mapping[str, Column], *, frame: int, step: int, length: int
) -> dict[str, np.ndarray]:
    """`length` frames, and the actions between them, of an opened shard from these rows on, as arrays of their own."""
    rows = {}
    for name, column in columns.items():
        start, num = step if name == ACTION else frame, num_rows(name, length)
        # safetensors refuses empty slices.
        empty = np.empty((0, *column.shape), column.dtype)
        rows[name] = shard.get_slice(name)[start : start + num] if num else empty
    return rows


def damage(folder: Path, shard: Shard, columns: Mapping[str, Column], *, verify: Verify) -> dict[int, str]:
    """Which of a shard's episodes cannot be read, and why; "size" compares sizes and types, "sha256" also the content.

    Where the file's own hash is not that in meta.json, each episode is compared with its own, and only those that
    differ are lost.
    """
    path, everything = folder / shard.file, range(len(shard.episodes))
    try:
        num_bytes = path.stat().st_size
        if num_bytes < shard.num_bytes:
            return dict.fromkeys(everything, f"{shard.file} is cut short: {num_bytes} of {shard.num_bytes} bytes")
        with safe_open(path, "numpy") as opened:
            frames = sum(stored.length for stored in shard.episodes)
            for name, column in columns.items():
                found, rows = opened.get_slice(name), frames - (name == ACTION) * len(shard.episodes)
                if (found.get_dtype(), found.get_shape()) != (DTYPES[column.dtype], [rows, *column.shape]):
                    return dict.fromkeys(everything, f"{shard.file}: column {name} is not what {META} says")
            if verify == "size" or _sha256(path) == shard.sha256:
                return {}
            frame, broken = 0, {}
            for i, stored in enumerate(shard.episodes):
                rows = read_rows(opened, columns, frame=frame, step=frame - i, length=stored.length)
                if digest(rows) != stored.sha256:
                    broken[i] = f"{shard.file}: not what was written (its sha256 differs)"
                frame += stored.length
            return broken
    except OSError as error:
        return dict.fromkeys(everything, f"{shard.file} cannot be read: {error.strerror or error}")
    except SafetensorError as error:
        return dict.fromkeys(everything, f"{shard.file} is damaged: {error}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain_json(whose: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as it comes back from JSON; ValueError, which says whose it is, where JSON cannot hold it."""
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"Wanted {whose} metadata as JSON: plain numbers, words and lists; {error}.") from error


def write_whole(path: Path, content: bytes) -> None:
    """The file as a whole or not at all, also when the process is killed or the disk is full."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(folder: Path) -> Generator[Path]:
    """A folder to write into, which gets the wanted name when all is written; after an error nothing is left of it.

    Raises:
        ValueError: something lies there already.
        OSError: it cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"Wanted a new or an empty folder to write into, and {folder} is neither; choose another.")
    partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        text = f"Could not write {folder} ({why}), and nothing is left of it; make room, or choose another folder"
        raise OSError(error.errno, text) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
