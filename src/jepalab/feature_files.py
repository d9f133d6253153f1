"""Features of many pictures in one file: parquet, a memory-mappable .npy, or CSV; streamed, whole or not at all.

features.parquet   columns file, label, split, embedding (a list of fixed size)
features.npy       float32 [n d] or, with all tokens, [n t d]; features.csv beside it says whose they are
features.csv       file, label, split, then a column for each number
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

ROWS_OF_A_GROUP = 4096
PYARROW_WANTED = 'Parquet files are written by pyarrow: pip install "jepalab[parquet]"; or take a .npy file.'


class Row(NamedTuple):
    """Whose features these are; the label is a name, empty where it is unknown, as is the split of what is in none."""

    file: str
    label: str
    split: str


Append = Callable[[Float[np.ndarray, "m *shape"], Sequence[Row]], None]


def check_feature_file(out: Path, *, is_flat: bool = True) -> None:
    """ValueError or OSError, before anything is computed, where `feature_file` could not write.

    is_flat  whether a row is one vector; tables hold nothing else.
    """
    if out.suffix not in WRITERS:
        raise ValueError(f"Features go into a file that ends in {', '.join(WRITERS)}, got {out.name!r}.")
    if not is_flat and out.suffix != ".npy":
        raise ValueError(f"All tokens of a picture fit into a .npy file only, got {out.name!r}.")
    if out.is_dir():
        raise ValueError(f"Features go into a file, and {out} is a folder.")
    if out.suffix == ".parquet":
        _pyarrow()
    if out.suffix == ".npy" and not _may_replace(out.with_suffix(".csv")):
        raise ValueError(
            f"Whose features are in {out.name} goes into {out.with_suffix('.csv')}, where another file lies; choose "
            "another name."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"May not write into {out.parent}; choose another folder.")


@contextmanager
def feature_file(out: Path, *, num: int, shape: tuple[int, ...]) -> Iterator[Append]:
    """A function that appends rows of float32 features [m *shape] to a file of `num` rows, of a kind by its ending.

    The file appears when all is written, in place of one that was there; after an error nothing is left behind.
    OSError, with the room that is needed, when the disk is full.
    """
    paths = [out.with_suffix(".csv"), out] if out.suffix == ".npy" else [out]
    partial = {path: path.with_name(f".{path.name}.partial-{os.getpid()}") for path in paths}
    try:
        with WRITERS[out.suffix]([*partial.values()], num, shape) as append:
            yield append
        for path, written in partial.items():
            written.replace(path)
    except OSError as error:
        room = f"about {4 * num * prod(shape) / 1e6:,.0f} MB are needed"
        reason = f"Could not write the features ({error.strerror or error}); {room}"
        raise OSError(error.errno, reason, str(out)) from error
    finally:
        for written in partial.values():
            written.unlink(missing_ok=True)


@contextmanager
def _npy(paths: list[Path], num: int, shape: tuple[int, ...]) -> Iterator[Append]:
    """Written, not mapped: on a full disk a write is an error, while a store into a map kills the process."""
    with paths[0].open("w", newline="", encoding="utf-8") as table, paths[1].open("wb") as numbers:
        rows = csv.writer(table)
        rows.writerow(Row._fields)
        header = {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)}
        np.lib.format.write_array_header_1_0(numbers, header)

        def append(features: np.ndarray, whose: Sequence[Row]) -> None:
            rows.writerows(whose)
            numbers.write(np.ascontiguousarray(features, dtype="<f4").data)

        yield append


@contextmanager
def _csv(paths: list[Path], num: int, shape: tuple[int, ...]) -> Iterator[Append]:
    with paths[0].open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow([*Row._fields, *(f"z{i}" for i in range(*shape))])

        def append(features: np.ndarray, whose: Sequence[Row]) -> None:
            # Nine digits give back a float32 exactly.
            for row, z in zip(whose, features.tolist(), strict=True):
                rows.writerow([*row, *(f"{value:.9g}" for value in z)])

        yield append


@contextmanager
def _parquet(paths: list[Path], num: int, shape: tuple[int, ...]) -> Iterator[Append]:
    pa, pq = _pyarrow()
    fields = [(name, pa.string()) for name in Row._fields]
    schema = pa.schema([*fields, ("embedding", pa.list_(pa.float32(), *shape))])
    held: list[Any] = []

    with pq.ParquetWriter(paths[0], schema) as writer:

        def flush() -> None:
            if held:
                writer.write_table(pa.Table.from_batches(held, schema))
            held.clear()

        def append(features: np.ndarray, whose: Sequence[Row]) -> None:
            numbers = pa.array(np.ascontiguousarray(features, dtype=np.float32).ravel())
            columns = [pa.array([cell or None for cell in column], pa.string()) for column in zip(*whose, strict=True)]
            embedding = pa.FixedSizeListArray.from_arrays(numbers, *shape)
            held.append(pa.RecordBatch.from_arrays([*columns, embedding], schema=schema))
            if sum(map(len, held)) >= ROWS_OF_A_GROUP:
                flush()

        yield append
        flush()


def _may_replace(table: Path) -> bool:
    """Whether nothing lies there that somebody else wrote, such as a CSV of labels."""
    if not table.exists():
        return True
    with table.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().strip() == ",".join(Row._fields)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(PYARROW_WANTED) from error
    return pyarrow, pyarrow.parquet


WRITERS = {".parquet": _parquet, ".npy": _npy, ".csv": _csv}
