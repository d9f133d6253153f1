"""Recordings of sensors and other series as they lie in files: CSV, parquet and numpy, row by row, column by column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from jepalab.data.image_labels import GROUP_COLUMNS
from jepalab.data.image_sources import UNSPLIT

TABLES = {".csv", ".tsv", ".parquet"}
SUFFIXES = TABLES | {".npy"}
# Columns that are found without being named; a clock or a row number is no measurement, and would tell where a window
# lies in its recording.
LABEL_COLUMNS = {"label", "labels", "class", "target", "activity"}
CLOCK_COLUMNS = {"", "time", "timestamp", "date", "datetime", "index", "sequence", "unnamed: 0"}
MISSING = {"", "na", "n/a", "nan", "null", "none"}
# Rows of a CSV file that are held as text at a time.
NUM_ROWS = 65536

Column = Shaped[np.ndarray, " _"]


class Coded(NamedTuple):
    """What each row is called: indices into `names`, -1 for rows that are called nothing."""

    codes: Int[np.ndarray, " t"]
    names: list[str]


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what, by name; those of an array are called 0, 1, 2, ..."""

    channels: tuple[str, ...] | None = None
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Recording:
    """Rows that were measured one after another.

    name      unique in the source.
    values    [t c], one column a channel; NaN where nothing was measured.
    channels  names of the columns.
    labels    the class of each row, or of all; `groups` likewise whom it was measured on.
    split     0, 1, 2 where the source puts it in a split, else UNSPLIT.
    """

    name: str
    values: Float[np.ndarray, "t c"]
    channels: list[str]
    labels: Coded
    groups: Coded
    split: int = UNSPLIT


def whole(name: str | None, num: int) -> Coded:
    """One name for all rows, or none."""
    return Coded(np.full(num, -1 if name is None else 0), [] if name is None else [name])


def read_recordings(path: Path, *, name: str, label: str | None, split: int, columns: Columns) -> list[Recording]:
    """The recordings in one file: one of a table or an array [t] or [t c], n of an array [n t c].

    label  of all rows, where no column of the file says more.

    Raises:
        ValueError: the file is damaged, or is no table of numbers with these columns; the message says what it is.
    """
    if path.suffix.lower() != ".npy":
        table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
        return [as_recording(table, name=name, label=label, split=split, columns=columns)]
    values = read_array(path)
    values = values[:, None] if values.ndim == 1 else values
    rows = [(name, values)] if values.ndim == 2 else [(f"{name}:{i}", value) for i, value in enumerate(values)]
    found = []
    for row_name, value in rows:
        table = {str(i): value[:, i] for i in range(value.shape[1])}
        found.append(as_recording(table, name=row_name, label=label, split=split, columns=columns))
    return found


def read_array(path: Path) -> Shaped[np.ndarray, "*shape"]:
    """The numbers in a .npy file, memory-mapped: [t], [t c] or [n t c]. Pickled objects are refused, not loaded."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"it cannot be read as an array of numbers ({error})") from error
    return checked_array(values)


def checked_array(values: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """The array, if it is one of series. ValueError else."""
    if values.ndim not in {1, 2, 3} or values.dtype.kind not in "biuf" or not values.size:
        raise ValueError(
            f"wanted numbers [t], [t c] or [n t c], windows of one channel as [n t 1]; got {values.dtype} "
            f"{list(values.shape)}"
        )
    return values


def as_recording(table: dict[str, Column], *, name: str, label: str | None, split: int, columns: Columns) -> Recording:
    """Sorts the columns of a table into channels, labels and groups. ValueError where that does not come out."""
    given = set(columns.channels or ())
    label_column = _found(table, columns.label, LABEL_COLUMNS, "labels", given)
    group_column = _found(table, columns.group, GROUP_COLUMNS, "groups", given)
    apart = {label_column, group_column}
    channels = columns.channels or [
        head for head in table if head not in apart and head.strip().lower() not in CLOCK_COLUMNS
    ]
    if missing := [head for head in channels if head not in table]:
        raise ValueError(f"it lacks the channels {missing}; its columns are {list(table)}")
    if not channels:
        raise ValueError(f"wanted at least one channel, but its columns are {list(table)}")
    for head in channels:
        if table[head].dtype.kind not in "biuf":
            raise ValueError(
                f"column {head!r} holds text such as {_first_text(table[head])!r}; name the columns of numbers with "
                "`channels`, or the one of classes with `label_column`"
            )
    num = len(table[channels[0]])
    labels = whole(label, num) if label_column is None else coded_column(table[label_column], label_column)
    groups = whole(None, num) if group_column is None else coded_column(table[group_column], group_column)
    if group_column is not None and (groups.codes < 0).any():
        raise ValueError(f"{(groups.codes < 0).sum()} of its {num} rows name nobody in column {group_column!r}")
    values = np.empty((num, len(channels)), dtype=np.float32)
    with np.errstate(over="ignore"):  # a number too large for 32 bits becomes infinite, and its window is left out
        for i, head in enumerate(channels):
            values[:, i] = table[head]
    return Recording(name=name, values=values, channels=list(channels), labels=labels, groups=groups, split=split)


def coded_column(column: Column, name: str) -> Coded:
    """Names of rows out of a column of text or of whole numbers; blanks, NaN and negative numbers name nothing."""
    if column.dtype.kind in "biuf":
        numbers = column.astype(np.float64)
        known = numbers >= 0
        distinct, place = np.unique(numbers[known], return_inverse=True)
        if not (distinct == np.floor(distinct)).all() or np.isinf(distinct).any():
            wrong = next(number for number in distinct if number != np.floor(number) or np.isinf(number))
            raise ValueError(
                f"column {name!r} holds numbers such as {wrong:g}, which name no classes or groups; name another "
                "column for them, or take this one out"
            )
        spoken = [str(int(number)) for number in distinct]
    else:
        text = np.array([str(cell).strip() for cell in column])
        known = np.array([cell.lower() not in MISSING for cell in text], dtype=bool)
        distinct, place = np.unique(text[known], return_inverse=True)
        spoken = distinct.tolist()
    codes = np.full(len(column), -1)
    codes[known] = place
    return Coded(codes, spoken)


def read_column(path: Path, wanted: str | None, usual: set[str]) -> Column:
    """The column of a CSV file that has this name, or a usual one, or is the only one. ValueError where none is."""
    table = _csv(path)
    name = _found(table, wanted, usual, "column", set()) or (next(iter(table)) if len(table) == 1 else None)
    if name is None:
        raise ValueError(f"which of its columns is meant cannot be told: {list(table)}; name it")
    return table[name]


def _found(table: dict[str, Column], wanted: str | None, usual: set[str], what: str, channels: set[str]) -> str | None:
    if wanted is not None and wanted not in table:
        raise ValueError(f"wanted the {what} in column {wanted!r}, but its columns are {list(table)}")
    usually = (head for head in table if head.strip().lower() in usual and head not in channels)
    return wanted or next(usually, None)


def _first_text(column: Column) -> str:
    return next((str(cell) for cell in column if not _is_number(str(cell))), str(column[0]))


def _csv(path: Path) -> dict[str, Column]:
    """Cells between commas, semicolons or tabs, below a header or not: columns of numbers, or of text."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.readline()
            separator = max(",;\t", key=start.count)
            file.seek(0)
            rows = (row for row in csv.reader(file, delimiter=separator) if any(cell.strip() for cell in row))
            top = list(islice(rows, 2))
            if not top:
                raise ValueError("it is empty")
            has_header = _is_header(*top)
            heads = [cell.strip() for cell in top[0]] if has_header else [str(i) for i in range(len(top[0]))]
            _check_heads(heads)
            parts = [_parsed(chunk, heads) for chunk in _chunks(chain(top[has_header:], rows))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"it cannot be read as CSV ({error})") from error
    if not parts:
        raise ValueError(f"it has a header ({heads}) and no rows")
    return {head: _joined([part[i] for part in parts]) for i, head in enumerate(heads)}


def _check_heads(heads: list[str]) -> None:
    if len(set(heads)) < len(heads):
        raise ValueError(f"two of its columns have one name: {heads}")


def _is_header(first: list[str], second: Sequence[str] = ()) -> bool:
    """No number in it, or text above a number."""
    texts = [not _is_number(cell) for cell in first]
    return all(texts) or any(text and _is_number(below) for text, below in zip(texts, second, strict=False))


def _is_number(cell: str) -> bool:
    if cell.strip().lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    while chunk := list(islice(rows, NUM_ROWS)):
        yield chunk


def _parsed(rows: list[list[str]], heads: list[str]) -> list[Column]:
    """Columns of these rows, of float64 where every cell is a number or missing."""
    if ragged := next((row for row in rows if len(row) != len(heads)), None):
        raise ValueError(
            f"a row has {len(ragged)} cells, {ragged[:4]} ..., and its first {len(heads)}; is it cut short?"
        )
    return [_numbers(cells) for cells in zip(*rows, strict=True)]


def _numbers(cells: tuple[str, ...]) -> Column:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        pass
    try:
        return np.array([np.nan if cell.strip().lower() in MISSING else cell for cell in cells], dtype=np.float64)
    except ValueError:
        return np.array(cells)


def _joined(parts: list[Column]) -> Column:
    """numpy turns numbers beside text into text, so a class called 3 would become 3.0."""
    if len({part.dtype.kind for part in parts}) == 1:
        return np.concatenate(parts)
    plain = [np.array([f"{cell:g}" for cell in part]) if part.dtype.kind == "f" else part for part in parts]
    return np.concatenate(plain)


def _parquet(path: Path) -> dict[str, Column]:
    pq = _pyarrow()
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, ValueError) as error:
        raise ValueError(f"it is no whole parquet file ({error})") from error
    _check_heads(table.column_names)
    return {head: table.column(i).to_numpy() for i, head in enumerate(table.column_names)}


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError("Parquet files are read by pyarrow: pip install 'jepalab[parquet]'.") from error
    return pq
