"""Recordings cut into windows of one length, and what of them belongs together.

A window lies in one recording and on one group; it has a class where all its rows have that class. What is split is
never a window by itself but all that belong together: no two splits share a group, where groups are known, nor else a
recording. Recordings too lonely for that are cut into parts with a gap of one window between them, so that no two
splits share a row. Windows that were cut already are not made here but in `series_arrays`: those without groups are
split one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

from jepalab.data.image_cache import coded, forget_pages
from jepalab.data.series_files import Coded, Recording
from jepalab.data.unit_splits import number_of

# A recording too lonely to be split as a whole becomes up to so many parts, of at least so many windows each.
NUM_PARTS = 50
WINDOWS_OF_A_PART = 4
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """Windows of a source, before anybody decided on splits.

    values   [n w c] float32, all finite.
    codes    [n] classes, indices into `names`; -1 where rows disagree or are unlabelled. `groups` likewise.
    own      [n] the source's own split, -1 where it has none.
    units    [n] equal numbers belong together, and share a split.
    unit     what belongs together, in a word: group, recording, part of a recording, window.
    items    [n] what the source calls each window: recording and first row.
    skipped  what is left out, and why.
    """

    values: Float[np.ndarray, "n w c"]
    channels: list[str]
    codes: Int[np.ndarray, " n"]
    names: list[str]
    groups: Int[np.ndarray, " n"]
    group_names: list[str]
    own: Int[np.ndarray, " n"]
    units: UInt64[np.ndarray, " n"]
    unit: str
    items: list[str]
    skipped: dict[str, str]


class _Stretch(NamedTuple):
    """Rows of a recording that windows may not leave, and the number of what they belong to."""

    place: int
    start: int
    stop: int
    unit: int


class _Cut(NamedTuple):
    """The windows of a stretch: first rows, and classes."""

    stretch: _Stretch
    starts: Int[np.ndarray, " k"]
    codes: Int[np.ndarray, " k"]


def cut(
    recordings: Sequence[Recording], *, window: int, hop: int, title: str, skipped: dict[str, str] | None = None
) -> Windows:
    """Windows of `window` rows that begin every `hop` rows of each recording, those with a NaN or infinity left out.

    They belong together by group where groups are known, else by recording. Where that leaves a class in too few
    recordings to be in every split, each recording becomes parts with a gap of one window between them.

    title, skipped  the source in words, and what of it was left out before.

    Raises:
        ValueError: more is left out than kept, a channel never changes, or some recordings have groups, others none.
    """
    labels, names = merged([recording.labels for recording in recordings])
    groups, group_names = merged([recording.groups for recording in recordings])
    if group_names and (missing := [r.name for r, g in zip(recordings, groups, strict=True) if (g < 0).any()]):
        raise ValueError(f"Some recordings of {title} name whom they were measured on, but {missing[0]} does not.")
    hashes = [number_of(recording.values) for recording in recordings]
    unit, stretches = "recording", [_Stretch(i, 0, len(r.values), hashes[i]) for i, r in enumerate(recordings)]
    if group_names:
        unit, stretches = "group", list(_by_group(groups, [number_of(name.encode()) for name in group_names]))
    left_out = dict(skipped or {})
    cuts = _cut(stretches, recordings, labels, window, hop, left_out)
    if not group_names and _is_too_lonely(cuts, recordings):
        parts = list(_parts(stretches, window))
        if len(parts) > len(stretches):
            left_out = dict(skipped or {})
            unit, cuts = "part of a recording", _cut(parts, recordings, labels, window, hop, left_out)
    num = sum(len(found.starts) for found in cuts)
    check_enough(num, left_out, f"windows of {window} rows", title)
    channels = recordings[0].channels
    values = np.empty((num, window, len(channels)), dtype=np.float32)
    lengths = [len(found.starts) for found in cuts]
    places = np.repeat([found.stretch.place for found in cuts], lengths)
    starts = np.concatenate([found.starts for found in cuts])
    for row, (place, start) in enumerate(zip(places.tolist(), starts.tolist(), strict=True)):
        values[row] = recordings[place].values[start : start + window]
    spoken, (codes, names) = names, known_names(np.concatenate([found.codes for found in cuts]), names)
    left_out |= {f"class {name}": f"nowhere {window} rows in a row" for name in spoken if name not in names}
    check_channels(values, channels, title)
    return Windows(
        values=values,
        channels=channels,
        codes=codes,
        names=names,
        groups=np.array([groups[i][start] for i, start in zip(places, starts, strict=True)]),
        group_names=group_names,
        own=np.array([recordings[i].split for i in places]),
        # Said beforehand: of numbers below and above 2**63 numpy would make floats.
        units=np.repeat(np.array([found.stretch.unit for found in cuts], dtype="<u8"), lengths),
        unit=unit,
        items=[f"{recordings[i].name}:{start}" for i, start in zip(places, starts, strict=True)],
        skipped=left_out,
    )


def merged(parts: Sequence[Coded]) -> tuple[list[Int[np.ndarray, " _"]], list[str]]:
    """The codes of each part as indices into one list of all names, numbers in the order of numbers."""
    spoken = [name for part in parts for name in part.names]
    places, names = coded(list(spoken), None)
    found, first = [], 0
    for part in parts:
        # One entry more, so that -1 stays what it is.
        own = np.append(places[first : first + len(part.names)], -1)
        found.append(own[part.codes])
        first += len(part.names)
    return found, names


def known_names(codes: Int[np.ndarray, " n"], names: list[str]) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """The same without the names that nothing is called."""
    used = np.unique(codes[codes >= 0])
    return np.where(codes < 0, -1, np.searchsorted(used, codes)), [names[i] for i in used]


def check_enough(num: int, skipped: dict[str, str], what: str, title: str) -> None:
    """ValueError if nothing is kept, or more is left out than kept."""
    if num and len(skipped) <= num:
        return
    some = "; ".join(f"{name}: {why}" for name, why in islice(skipped.items(), 3))
    raise ValueError(f"Wanted {what} in {title}, but of {num + len(skipped)} {len(skipped)} are unusable ({some}).")


def check_channels(values: Float[np.ndarray, "n w c"], channels: list[str], title: str) -> None:
    """ValueError if a channel is one number in all windows: nothing can be predicted of it, nor it be standardised."""
    low, high = np.full(len(channels), np.inf), np.full(len(channels), -np.inf)
    for start in range(0, len(values), ROWS_AT_ONCE):
        rows = values[start : start + ROWS_AT_ONCE]
        low, high = np.minimum(low, rows.min(axis=(0, 1))), np.maximum(high, rows.max(axis=(0, 1)))
        forget_pages(values)
    if stuck := [f"{channels[i]!r} is {low[i]:g}" for i in np.flatnonzero(low == high)]:
        raise ValueError(f"In {title} some channels never change ({', '.join(stuck)}); leave them out with `channels`.")


def _by_group(groups: list[Int[np.ndarray, " _"]], hashes: list[int]) -> Iterator[_Stretch]:
    for place, codes in enumerate(groups):
        borders = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for start, stop in pairwise(borders):
            yield _Stretch(place, start, stop, hashes[codes[start]])


def _parts(stretches: list[_Stretch], window: int) -> Iterator[_Stretch]:
    """Each recording in parts, a window's length of rows between them; too short a one as it is."""
    for place, start, stop, unit in stretches:
        length = max(WINDOWS_OF_A_PART * window, -(-(stop - start) // NUM_PARTS))
        firsts = range(start, stop - window + 1, length + window)
        if len(firsts) < 3:
            yield _Stretch(place, start, stop, unit)
            continue
        for first in firsts:
            # Equal recordings make equal parts, which share a split.
            yield _Stretch(place, first, min(first + length, stop), number_of(f"{unit} {first}".encode()))


def _cut(
    stretches: list[_Stretch],
    recordings: Sequence[Recording],
    labels: list[Int[np.ndarray, " _"]],
    window: int,
    hop: int,
    skipped: dict[str, str],
) -> list[_Cut]:
    found = []
    for stretch in stretches:
        name, codes = recordings[stretch.place].name, labels[stretch.place]
        starts = np.arange(stretch.start, stretch.stop - window + 1, hop)
        if not len(starts):
            skipped[f"{name}:{stretch.start}"] = f"{stretch.stop - stretch.start} rows, fewer than {window} of a window"
            continue
        bad = np.append(0, np.cumsum(~np.isfinite(recordings[stretch.place].values).all(axis=1)))
        num_bad = bad[starts + window] - bad[starts]
        skipped.update(
            (f"{name}:{start}", f"{num} of its rows are not finite")
            for start, num in zip(starts[num_bad > 0].tolist(), num_bad[num_bad > 0].tolist(), strict=True)
        )
        starts = starts[num_bad == 0]
        changes = np.append(0, np.cumsum(np.diff(codes) != 0))
        agree = changes[starts + window - 1] == changes[starts]
        found.append(_Cut(stretch, starts, np.where(agree, codes[starts], -1)))
    return found


def _is_too_lonely(cuts: list[_Cut], recordings: Sequence[Recording]) -> bool:
    """Whether some class lies in fewer different recordings than there are splits to be in."""
    own = {recording.split for recording in recordings}
    needed = 3 - len(own & {1, 2})
    free = [found for found in cuts if recordings[found.stretch.place].split in {-1, 0}]
    is_labelled = any((found.codes >= 0).any() for found in cuts)
    holders: dict[int, set[int]] = {}
    for found in free:
        for code in {0} if not is_labelled else set(found.codes[found.codes >= 0].tolist()):
            holders.setdefault(code, set()).add(found.stretch.unit)
    return needed > 1 and any(len(units) < needed for units in holders.values())
