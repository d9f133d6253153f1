"""Your own series (sensors, anything measured over time), whatever they lie in, as windows with classes and splits.

CSV, parquet and numpy files, folders of them, and arrays. `sample_stream` turns them into batches.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.data import series_arrays
from jepalab.data.image_cache import default_cache
from jepalab.data.image_sources import SPLIT_NAMES, UNSPLIT, count_kinds, fingerprint, walk
from jepalab.data.samples import Samples
from jepalab.data.series_arrays import ALONE, Array
from jepalab.data.series_cache import Kept, in_memory, kept
from jepalab.data.series_files import SUFFIXES, Columns, Recording, read_recordings
from jepalab.data.series_windows import Windows, check_enough, cut
from jepalab.data.unit_splits import assign_unit_splits

KINDS = "CSV, parquet or .npy files of series, or a folder of them"


class Cutting(NamedTuple):
    """How recordings become windows; part of the key that windows are kept under."""

    window: int
    hop: int
    columns: Columns


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Series(Samples):
    """Windows of one length, float32 in their own units, in memory or on the disk.

    values         [n t c] all finite, one column a channel.
    items          [n] what the source calls each window: its recording and first row.
    groups         [n] whom or what each window was measured on, indices into `group_names`; -1 unknown.
    channel_names  [c].
    rate           samples a second, Hz; None where that is not known.
    """

    values: Float[np.ndarray, "n t c"]
    items: list[str]
    groups: Int[Tensor, " n"]
    group_names: list[str]
    channel_names: list[str]
    rate: float | None = None
    unit: str = "recording"

    @property
    def stored(self) -> Float[np.ndarray, "n t c"]:
        return self.values

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def as_floats(self, rows: Float[Tensor, "m t c"]) -> Float[Tensor, "m t c"]:
        return rows

    def item_names(self) -> list[str]:
        return self.items

    def describe(self) -> str:
        rate = "" if self.rate is None else f" at {self.rate:g} Hz"
        shown = ", ".join(self.channel_names[:10]) + (", ..." if self.channels > 10 else "")
        plural = "" if self.channels == 1 else "s"
        first = (
            f"{len(self):,} windows of {self.num_times} samples{rate}, {self.channels} channel{plural} ({shown}), from "
            f"{self.source}"
        )
        held = f"{len(self.group_names)} groups, none of them" if self.group_names else f"no {self.unit}"
        told = [first, *self.facts("windows"), f"{held} in two splits"]
        if self.unit == ALONE:
            told.append(
                "windows that were cut already are split one by one, so neighbours that overlap lie in two splits: "
                "give groups (--groups), or one recording to be cut"
            )
        return "; ".join(told) + f". Digest {self.digest[:12]}."


def open_series(
    source: Path | Array,
    *,
    window: int,
    hop: int | None = None,
    labels: Path | Array | None = None,
    groups: Path | Array | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    channels: Sequence[str] | None = None,
    rate: float | None = None,
    seed: int = 0,
    cache: Path | None = None,
    needs_splits: bool = True,
) -> Series:
    """Opens series, recognised by what they are, as windows of `window` rows; cuts files if it never did before.

    source        CSV (.csv, .tsv), parquet or .npy, or a folder of them, each file one recording; top folders train,
                  val, test are splits, and where no column has classes, sub-folders do. Or an array: one recording
                  [t c], or n recordings [n t c], which are windows where t is `window`.
    hop           rows from one window to the next; by default `window`, so that none overlap.
    labels        of an array or one .npy: class numbers [n] or [n t] for [n t c], [t] for [t c]; or a .npy of them; or
                  a CSV of numbers or names, a row for each; -1 or blank unlabelled. `groups` likewise: whom or what was
                  measured.
    label_column  of tables, where it is not called label, labels, class, target or activity.
    group_column  of tables, where it is not called subject, subject_id, group, participant, person, user or patient.
    channels      columns to use, in this order; by default all but labels, groups and clocks (time, timestamp, date,
                  index, ...), which must hold numbers. Columns of arrays are called 0, 1, 2, ...
    rate          rows a second, Hz: is told, changes nothing.
    seed          of the splits that the source does not make itself.
    cache         where windows of files are kept; by default $JEPALAB_CACHE or .cache/jepalab in your home.
    needs_splits  False leaves windows in no split (-1) where a class has too few groups or recordings to make one.

    A window has a class where all its rows agree on it; else it is unlabelled, and good for pretraining only. No two
    splits share a group, where groups are known; else no recording; and where those are too few, parts of recordings
    with a window's length between them. Windows of an array that were cut already, without groups, are split one by
    one, so that what two of them share may lie in two splits; that is said when they are opened. Windows with a NaN or
    an infinity are left out and counted. Files are read one by one, but all of their numbers lie in memory while they
    are cut.

    Raises:
        ValueError: nothing there, nothing readable, more left out than kept, columns that are not there or hold text,
            a channel that never changes, or a class in too few groups or recordings to split.
        OSError: the cache cannot be written, or the disk is full.
    """
    hop = window if hop is None else hop
    if window < 2 or hop < 1:
        raise ValueError(f"Wanted windows of at least 2 rows, at least 1 row apart, got window={window}, hop={hop}.")
    columns = Columns(None if channels is None else tuple(map(str, channels)), label_column, group_column)
    cutting, cache = Cutting(window, hop, columns), cache or default_cache()
    if not isinstance(source, Path) or (source.is_file() and source.suffix.lower() == ".npy"):
        found, title, unread = *_of_array(source, labels, groups, cutting, cache), {}
    elif labels is not None or groups is not None:
        raise ValueError(
            "Labels and groups of their own belong to arrays; those of tables are columns, named by a label column "
            "and a group column, and labels of a folder may be sub-folders."
        )
    else:
        found, title, unread = _of_files(source, cutting, cache)
    series = replace(series_of(found, title=title, rate=rate, seed=seed, needs_splits=needs_splits), unread=unread)
    if series.group_names:
        # Other groups are other splits.
        content = series.digest.encode() + series.splits.numpy().tobytes()
        series = replace(series, digest=hashlib.sha256(content).hexdigest())
    if series.skipped or series.unread or series.num_classes == 1 or series.unit == ALONE:
        print(series.describe(), file=sys.stderr)
    return series


def series_of(found: Kept, *, title: str, rate: float | None, seed: int, needs_splits: bool = True) -> Series:
    """Windows with the splits that this seed draws. Where none can be drawn, ValueError if they are needed, else -1."""
    windows = found.windows
    try:
        splits = assign_unit_splits(
            windows.units,
            codes=windows.codes,
            names=windows.names,
            own=windows.own,
            items=windows.items,
            unit=windows.unit,
            title=title,
            seed=seed,
        )
    except ValueError:
        if needs_splits:
            raise
        splits = np.full(len(windows.codes), -1, dtype=np.int8)
    codes = windows.codes.astype(np.int64)
    return Series(
        values=windows.values,
        labels=torch.from_numpy(codes),
        names=windows.names,
        splits=torch.from_numpy(splits),
        skipped=windows.skipped,
        digest=hashlib.sha256(found.sha256.encode() + codes.astype("<i8").tobytes()).hexdigest(),
        source=title,
        items=windows.items,
        groups=torch.from_numpy(windows.groups.astype(np.int64)),
        group_names=windows.group_names,
        channel_names=windows.channels,
        rate=rate,
        unit=windows.unit,
        units=torch.from_numpy(windows.units.view(np.int64)),
    )


def _of_array(
    source: Path | Array, labels: Path | Array | None, groups: Path | Array | None, cutting: Cutting, cache: Path
) -> tuple[Kept, str]:
    columns = cutting.columns
    for what, of, column in (("label", labels, columns.label), ("group", groups, columns.group)):
        if column is not None and not (isinstance(of, Path) and of.suffix.lower() in series_arrays.TEXT_TABLES):
            raise ValueError(
                f"Columns of {what}s belong to tables; an array's come from a file of {what}s, not {column!r}."
            )
    values, key, title = series_arrays.opened(source)
    classes = series_arrays.named(labels, values, "labels", columns.label)
    members = series_arrays.named(groups, values, "groups", columns.group)
    columns = replace(columns, label=None, group=None)
    if values.ndim == 3 and values.shape[1] == cutting.window:
        ready = series_arrays.as_they_are(values, labels=classes, groups=members, columns=columns, title=title)
        return in_memory(ready), title

    def make() -> Windows:
        recordings = series_arrays.recordings(values, labels=classes, groups=members, columns=columns)
        return cut(recordings, window=cutting.window, hop=cutting.hop, title=title)

    if not isinstance(source, Path):
        return in_memory(make()), title
    key = " ".join([key, *(f"{series_arrays.digest_of(of.codes)} {of.names}" for of in (classes, members))])
    return kept(f"{key} {cutting}", cache=cache, make=make), title


def _of_files(source: Path, cutting: Cutting, cache: Path) -> tuple[Kept, str, dict[str, int]]:
    if not source.exists():
        raise ValueError(f"Wanted {KINDS}, but there is no {source}.")
    root = source if source.is_dir() else source.parent
    files = walk(source) if source.is_dir() else [source]
    series = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not series:
        some = f"{len(files)} files, the first: {files[0].name}" if files else "nothing"
        raise ValueError(f"Wanted {KINDS} ({', '.join(sorted(SUFFIXES))}), but {source} holds {some}.")
    title = f"folder {source.name}" if source.is_dir() else f"file {source.name}"

    def make() -> Windows:
        recordings, skipped = _read(root, series, cutting.columns, title)
        return cut(recordings, window=cutting.window, hop=cutting.hop, title=title, skipped=skipped)

    windows = kept(f"{fingerprint('series', root, series)} {cutting}", cache=cache, make=make)
    return windows, title, count_kinds(files, known=SUFFIXES)


def _read(root: Path, files: list[Path], columns: Columns, title: str) -> tuple[list[Recording], dict[str, str]]:
    """The recordings in these files, and which files are none; the first readable one says what the channels are."""
    recordings: list[Recording] = []
    skipped: dict[str, str] = {}
    for path in files:
        name, place = path.relative_to(root).as_posix(), list(path.relative_to(root).parts[:-1])
        split = SPLIT_NAMES.get(place[0].lower(), UNSPLIT) if place else UNSPLIT
        label = "/".join(place[split != UNSPLIT :]) or None
        try:
            found = read_recordings(path, name=name, label=label, split=split, columns=columns)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        wanted = (recordings or found)[0]
        if found[0].channels != wanted.channels:
            skipped[name] = f"its channels are {found[0].channels}, those of {wanted.name} {wanted.channels}"
            continue
        recordings += found
    check_enough(len(files) - len(skipped), skipped, "series", title)
    return recordings, skipped
