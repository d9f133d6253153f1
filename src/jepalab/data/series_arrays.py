"""Series in arrays, in memory or in a .npy file, and the numbers of their classes and groups."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped
from torch import Tensor

from jepalab.data.image_labels import GROUP_COLUMNS
from jepalab.data.image_sources import UNSPLIT, fingerprint
from jepalab.data.series_files import (
    LABEL_COLUMNS,
    Coded,
    Columns,
    Recording,
    as_recording,
    checked_array,
    coded_column,
    read_array,
    read_column,
)
from jepalab.data.series_windows import ROWS_AT_ONCE, Windows, check_channels, check_enough, known_names
from jepalab.data.unit_splits import number_of

Array = np.ndarray | Tensor
ALONE = "window"  # what belongs together where nobody says which windows do
TEXT_TABLES = {".csv", ".tsv"}


def opened(source: Path | Array) -> tuple[Shaped[np.ndarray, "*shape"], str, str]:
    """The array, what names its content, and what it is called in words. ValueError if it is none of series."""
    if not isinstance(source, Path):
        values = checked_array(_plain(source))
        return values, digest_of(values), "an array in memory"
    try:
        return read_array(source), fingerprint("npy", source.parent, [source]), f"array {source.name}"
    except ValueError as error:
        raise ValueError(f"Wanted an array of series in {source}, but {error}.") from error


def digest_of(values: np.ndarray) -> str:
    """sha256 of an array's shape, type and numbers."""
    return hashlib.sha256(
        f"{values.shape} {values.dtype}".encode() + np.ascontiguousarray(values).tobytes()
    ).hexdigest()


class Named(NamedTuple):
    """What each recording is called, or each of its rows: indices into `names`, -1 for none; k is 1 or the rows."""

    codes: Int[np.ndarray, "n k"]
    names: list[str]


def named(numbers: Path | Array | None, values: Shaped[np.ndarray, "*shape"], what: str, column: str | None) -> Named:
    """Numbers or names of classes or groups of an array [t], [t c] or [n t c].

    numbers  an array, a .npy file of one, or a CSV file with a row for each; `column` says which of its columns, where
             there are several and none is called as usual.

    Raises:
        ValueError: they do not fit the array, or some row is in no group.
    """
    num = len(values) if values.ndim == 3 else 1
    if numbers is None:
        return Named(np.full((num, 1), -1), [])
    found = _column_of(numbers, what, column) if isinstance(numbers, Path) else _plain(numbers)
    shapes = [values.shape[:1], values.shape[:2]] if values.ndim == 3 else [values.shape[:1]]
    is_table = isinstance(numbers, Path) and numbers.suffix.lower() in TEXT_TABLES
    if found.shape not in shapes or not (is_table or found.dtype.kind in "iu"):
        shown = " or ".join(str(list(shape)) for shape in shapes)
        kinds = "a row for each of" if is_table else "whole numbers"
        raise ValueError(f"Wanted {what} as {kinds} {shown}, got {found.dtype} {list(found.shape)}.")
    codes, names = coded_column(found.ravel(), what)
    if what == "groups" and (codes < 0).any():
        raise ValueError(
            f"Wanted a group for everything, but {(codes < 0).sum()} are blank or negative; leave these out."
        )
    return Named(codes.reshape(num, -1), names)


def _column_of(path: Path, what: str, column: str | None) -> Shaped[np.ndarray, "*shape"]:
    try:
        if path.suffix.lower() not in TEXT_TABLES:
            return np.load(path, allow_pickle=False)
        return read_column(path, column, LABEL_COLUMNS if what == "labels" else GROUP_COLUMNS)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Wanted {what} of an array in {path}, a .npy or CSV file, but {error}.") from error


def recordings(
    values: Shaped[np.ndarray, "*shape"], *, labels: Named, groups: Named, columns: Columns
) -> list[Recording]:
    """One recording of [t] or [t c], called 0; n of [n t c], called 0, 1, 2, ..."""
    values = values[:, None] if values.ndim == 1 else values
    found = []
    for i, rows in enumerate(values if values.ndim == 3 else values[None]):
        table = {str(channel): rows[:, channel] for channel in range(rows.shape[1])}
        bare = as_recording(table, name=str(i), label=None, split=UNSPLIT, columns=columns)
        of_rows, of_whom = (Coded(np.broadcast_to(of.codes[i], len(rows)), of.names) for of in (labels, groups))
        found.append(replace(bare, labels=of_rows, groups=of_whom))
    return found


def as_they_are(
    values: Shaped[np.ndarray, "n w c"], *, labels: Named, groups: Named, columns: Columns, title: str
) -> Windows:
    """Windows that are cut already; float32 numbers of all channels are not even copied.

    Without groups each is a unit of its own (equal ones are one): where they overlap, nobody can tell here.

    Raises:
        ValueError: channels that are not there or never change, or more than half of the windows are not finite.
    """
    names = [str(channel) for channel in range(values.shape[2])]
    chosen = list(columns.channels or names)
    if missing := [name for name in chosen if name not in names]:
        raise ValueError(f"Wanted channels {missing}, but those of {title} are {names}.")
    if chosen != names:
        values = np.asarray(values)[:, :, [names.index(name) for name in chosen]]
    if values.dtype != np.float32:
        with np.errstate(over="ignore"):  # too large for 32 bits is infinite, and left out
            values = np.asarray(values).astype(np.float32)
    blocks = (values[start : start + ROWS_AT_ONCE] for start in range(0, len(values), ROWS_AT_ONCE))
    good = np.concatenate([np.isfinite(block).all(axis=(1, 2)) for block in blocks])
    skipped = {str(i): "some of its numbers are not finite" for i in np.flatnonzero(~good)}
    check_enough(int(good.sum()), skipped, "windows", title)
    values = values if good.all() else np.asarray(values)[good]
    check_channels(values, chosen, title)
    codes, class_names = known_names(agreed(labels.codes[good]), labels.names)
    members, group_names = known_names(agreed(groups.codes[good]), groups.names)
    units = [number_of(group_names[i].encode()) for i in members] if group_names else map(number_of, values)
    return Windows(
        values=values,
        channels=chosen,
        codes=codes,
        names=class_names,
        groups=members,
        group_names=group_names,
        own=np.full(len(values), UNSPLIT),
        units=np.fromiter(units, dtype="<u8", count=len(values)),
        unit="group" if group_names else ALONE,
        items=[str(i) for i in np.flatnonzero(good)],
        skipped=skipped,
    )


def agreed(codes: Int[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """What all the rows of a window are called, -1 where they disagree."""
    return np.where((codes == codes[:, :1]).all(axis=1), codes[:, 0], -1)


def _plain(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
