"""Episodes in one HDF5 file as stable-worldmodel (github.com/galilai-group/stable-worldmodel) has them, in and out.

A dataset for each column holds the rows of all episodes, one after the other; `ep_len` int32 and `ep_offset` int64 say
where each begins. `pixels` are [N h w c] uint8. `action` has a row for each frame too: that of frame i leads to frame
i + 1, and that of an episode's last frame means nothing, NaN where a float can say so. What JSON holds of each episode
is jepalab's own, in the attribute `jepalab` of the file, where stable-worldmodel does not look.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jepalab.data.episode_shards import ACTION, COLUMN_NAME, DTYPES, Column, plain_json, whole_folder
from jepalab.data.episode_writer import EpisodeWriter
from jepalab.data.episodes import VECTORS, Episode, Episodes, is_pictures

LENGTHS, OFFSETS = "ep_len", "ep_offset"
ATTRIBUTE = "jepalab"
# Of a column's chunks: HDF5 reads and writes nothing smaller.
CHUNK_BYTES = 2**16
NUM_CHANNELS = (1, 3, 4)
# What h5py raises on damaged files.
DAMAGED = (OSError, ValueError, LookupError, RuntimeError, ArithmeticError, MemoryError)


def export_hdf5(episodes: Iterable[Episode], *, path: Path) -> None:
    """Writes episodes as one HDF5 file, one at a time; a file of this name is replaced when all are written.

    Raises:
        ValueError: no episodes, episodes with different columns, a column called ep_len or ep_offset, or no h5py.
        OSError: the file cannot be written; nothing is left of it.
    """
    h5py = _h5py()
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The newest layout of a file, as stable-worldmodel writes it, and attributes of any length.
        with _Spool(partial) as spool:
            with h5py.File(spool, "w", libver="latest") as file:
                _write(file, episodes, spool)
            spool.check()
        partial.replace(path)
    except OSError as error:
        why = error.strerror or error
        text = f"Could not write the episodes ({why}), and nothing is left of it; make room, or choose another folder"
        raise OSError(error.errno, text, str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


class _Spool(io.FileIO):
    """A file that keeps the error of a full disk to itself until it is asked.

    HDF5 cannot close a file that it cannot write, and complains for each object that it then holds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        num_bytes = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return num_bytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, buffer: Any) -> int | None:
        found = super().readinto(buffer)
        # What could not be written cannot be read, and is of no interest any more.
        return found if self.error is None else len(buffer)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def _write(file: Any, episodes: Iterable[Episode], spool: _Spool) -> None:
    layout: dict[str, Column] | None = None
    lengths: list[int] = []
    metadata = []
    for episode in episodes:
        if layout is None:
            layout = episode.layout
            if taken := {LENGTHS, OFFSETS} & layout.keys():
                raise ValueError(f"HDF5 files have no room for a column called {taken.pop()}; rename it.")
            for name, values in episode.columns.items():
                _create(file, name, _as_stored(name, values))
        if episode.layout != layout:
            raise ValueError(f"Episode {len(lengths)} has the columns {episode.layout}, and those before it {layout}.")
        start, length = sum(lengths), len(episode)
        for name, values in episode.columns.items():
            file[name].resize(start + length, axis=0)
            file[name][start : start + length] = _as_stored(name, values)
        spool.check()
        lengths.append(length)
        metadata.append(plain_json(f"episode {len(metadata)}'s", episode.metadata))
    if not lengths:
        raise ValueError("Wanted at least one episode to write, got none.")
    file.create_dataset(LENGTHS, data=np.array(lengths, dtype=np.int32), maxshape=(None,))
    file.create_dataset(OFFSETS, data=np.cumsum([0, *lengths[:-1]], dtype=np.int64), maxshape=(None,))
    file.attrs[ATTRIBUTE] = json.dumps({"metadata": metadata}, allow_nan=False)


def _create(file: Any, name: str, values: Shaped[np.ndarray, "t ..."]) -> None:
    shape = values.shape[1:]
    num = max(1, CHUNK_BYTES // (values.itemsize * int(np.prod(shape))))
    file.create_dataset(name, shape=(0, *shape), maxshape=(None, *shape), dtype=values.dtype, chunks=(num, *shape))


def _as_stored(name: str, values: Shaped[np.ndarray, "_ ..."]) -> Shaped[np.ndarray, "t ..."]:
    if name == ACTION:
        last = np.full((1, *values.shape[1:]), np.nan if values.dtype.kind == "f" else 0).astype(values.dtype)
        return np.concatenate([values, last])
    return values.transpose(0, 2, 3, 1) if is_pictures(name) else values


def import_hdf5(path: Path, *, folder: Path) -> Episodes:
    """Reads an HDF5 file of episodes into a new folder, one at a time, and opens that.

    Pictures may be [N h w c] or [N c h w]; `action`, `proprio` and `state` become vectors. Of a column of words the
    first of each episode goes into its metadata, as stable-worldmodel does it. Episodes that cannot be read, and
    columns that are no numbers, are left out and named in `skipped`.

    Raises:
        ValueError: no such file, a damaged one, or one of another layout; a folder with something in it; no h5py.
        OSError: the folder cannot be written; nothing is left of it.
    """
    h5py = _h5py()
    # Published files may be compressed by filters that h5py lacks.
    with suppress(ImportError):
        import_module("hdf5plugin")
    wanted = f"Wanted an HDF5 file of episodes, with columns, {LENGTHS} and {OFFSETS}"
    with whole_folder(folder) as partial:
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise ValueError(f"{wanted}; {path} is missing, damaged or none ({error}).") from error
        with file, EpisodeWriter(partial) as writer:
            if missing := [name for name in (LENGTHS, OFFSETS, ACTION) if name not in file]:
                raise ValueError(f"{wanted}; {path} has no {' and no '.join(missing)}, but {sorted(file)}.")
            _copy(h5py, file, writer, path.name)
            if not len(writer):
                raise ValueError(f"{wanted}; none of {path} can be read ({_some(writer.skipped)}).")
    return Episodes.open(folder)


def _copy(h5py: Any, file: Any, writer: EpisodeWriter, title: str) -> None:
    try:
        lengths, offsets = np.int64(file[LENGTHS][:]), np.int64(file[OFFSETS][:])
        if lengths.ndim != 1 or offsets.ndim != 1:
            raise ValueError(f"{LENGTHS} is {lengths.shape} and {OFFSETS} {offsets.shape}")
        # Another program may have appended episodes since.
        own = [*json.loads(file.attrs.get(ATTRIBUTE, "{}")).get("metadata", []), *({} for _ in lengths)][: len(lengths)]
        pairs = list(zip(offsets.tolist(), lengths.tolist(), map(dict, own), strict=True))
    except (*DAMAGED, AttributeError, TypeError) as error:
        raise ValueError(f"{title} does not tell where its episodes begin and end ({error}).") from error
    numbers, words = {}, {}
    for name in sorted(file.keys() - {LENGTHS, OFFSETS}):
        # A link, or a dataset whose numbers lie in another file, would read what nobody asked for.
        column: Any = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        is_column = isinstance(column, h5py.Dataset) and column.ndim and not (column.external or column.is_virtual)
        if not is_column or not COLUMN_NAME.fullmatch(name):
            writer.skip(f"column {name} of {title}", why="is no column, or has a name that none may have")
        elif h5py.check_string_dtype(column.dtype) is not None and column.ndim == 1:
            words[name] = column
        elif column.dtype.name in DTYPES:
            numbers[name] = column
        else:
            writer.skip(f"column {name} of {title}", why=f"its rows are {column.dtype} {list(column.shape[1:])}")
    is_ours = ATTRIBUTE in file.attrs
    for number, (offset, length, metadata) in enumerate(pairs):
        try:
            spoken = {name: column.asstr()[offset] for name, column in words.items()}
            rows = {name: _read(name, column, offset, length, is_ours) for name, column in numbers.items()}
            episode = Episode(rows, spoken | metadata)
            writer.check(episode)
        except DAMAGED as error:
            writer.skip(f"episode {number} of {title}", why=f"{type(error).__name__}: {error}")
            continue
        writer.add(episode)


def _read(name: str, column: Any, offset: int, length: int, is_ours: bool) -> Shaped[np.ndarray, "_ ..."]:
    if length < 1 or offset < 0 or offset + length > len(column):
        raise ValueError(f"its rows {offset} to {offset + length - 1} are not in {name}, which has {len(column)}")
    values = column[offset : offset + length - (name == ACTION)]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if name in VECTORS:
        return values.reshape(len(values), int(np.prod(values.shape[1:])))
    if is_pictures(name) and values.ndim == 4:
        has_channels_last = is_ours or values.shape[3] in NUM_CHANNELS
        if not has_channels_last and values.shape[1] not in NUM_CHANNELS:
            raise ValueError(f"none of the axes of {name} {list(values.shape)} can be the channels")
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if has_channels_last else values
    return values


def _some(skipped: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3]) or "it has none"


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError('HDF5 files are read and written by h5py: pip install "jepalab[data]".') from error
    return h5py
