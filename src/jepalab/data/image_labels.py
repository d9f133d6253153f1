"""Who is what, and who trains: labels and groups out of a CSV file, and splits that stay when files are added."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int8, UInt64
from torch import Tensor

FILE_COLUMNS = {"file", "filename", "file_name", "filepath", "path", "image", "image_id", "img", "name", "id"}
FILE_COLUMNS |= {"video", "video_id", "video_name", "video_path", "clip", "clip_name", "clip_path"}
LABEL_COLUMNS = {"label", "labels", "class", "class_name", "category", "target"}
# Whom or what something was taken of: columns that are found without being named.
GROUP_COLUMNS = {"subject", "subject_id", "group", "participant", "person", "user", "patient"}
# In place of a table of labels: there are none, whatever folders and files beside the pictures say.
NO_LABELS = Path("none")
HELD_OUT = 0.1
# A tenth of few labels tells nothing apart, so of a small class more is held out: so many, or nearly a quarter.
FEWEST_HELD_OUT = 50


@dataclass(frozen=True)
class LabelTable:
    """What a CSV file says of files, each by its name, relative to the folder where it lies below that.

    labels  the class of each; "" for none.
    groups  whom or what each shows, such as a person; nothing where no column says it.
    """

    labels: dict[str, str]
    groups: dict[str, str]


class Matched(NamedTuple):
    """What a table says of items.

    labels      a class for each; None where the table has none.
    groups      a group for each, None for items that are not in the table; None as a whole without such a column.
    num_unused  rows of the table that name no item.
    """

    labels: list[str | int | None]
    groups: list[str | None] | None
    num_unused: int


def read_label_table(
    path: Path, *, root: Path, label_column: str | None = None, group_column: str | None = None
) -> LabelTable:
    """The label of each file in a CSV file, and its group where a column has them.

    Two columns, file and label, separated by commas, semicolons or tabs; with a header they may stand anywhere, and a
    third may say whom or what a file shows.

    label_column  where it is not called label, labels, class, class_name, category or target.
    group_column  where it is not called group, subject, subject_id, participant, person, user or patient.

    Raises:
        ValueError: no such file, nothing in it, a column that is not there, or rows without a group beside others.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Wanted labels in a CSV file (file,label), but {path} cannot be read: {error}.") from error
    lines = text.splitlines()
    separator = max(",;\t", key=lines[0].count) if lines else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator) if any(row)]
    if not rows:
        raise ValueError(f"Wanted rows of file,label in {path}, but it is empty.")
    heads = [cell.lower() for cell in rows[0]]
    files = [i for i, head in enumerate(heads) if head in FILE_COLUMNS]
    labels = _columns(rows[0], label_column, LABEL_COLUMNS, "labels", path)
    groups = _columns(rows[0], group_column, GROUP_COLUMNS, "groups", path)
    file, label = (files or [0])[0], (labels or [1])[0]
    if files or labels:
        rows = rows[1:]
        # Of two columns the one that is not the file is the label, however it is called, and the other way round.
        if not labels and len(heads) == 2:
            label = 1 - file
        elif label_column and not files and len(heads) == 2:
            file = 1 - label
        elif not labels or not files:
            raise ValueError(
                f"{path} lacks a {'label' if files else 'file'} column: its header is {heads}; wanted file,label."
            )
    # A header is known by its file or label column; a group alone makes none.
    group = groups[0] if groups and (files or labels) else None
    if short := [row for row in rows if len(row) <= max(file, label, group or 0)]:
        raise ValueError(f"{path} lacks a label column in {len(short)} rows, the first: {short[0]}; wanted file,label.")
    names = [_relative(row[file], path, root) for row in rows]
    found = {} if group is None else {name: row[group] for name, row in zip(names, rows, strict=True)}
    if nobody := [name for name, group_name in found.items() if not group_name]:
        raise ValueError(f"{path} names nobody in the group column of {len(nobody)} rows, the first: {nobody[0]}.")
    return LabelTable({name: row[label] for name, row in zip(names, rows, strict=True)}, found)


def _columns(heads: list[str], wanted: str | None, usual: set[str], what: str, path: Path) -> list[int]:
    """Where the columns of that name stand, or of a usual one. ValueError where the name is not there."""
    if wanted is not None and wanted not in heads:
        raise ValueError(f"Wanted the {what} in column {wanted!r} of {path}, but its first row is {heads}.")
    return [i for i, head in enumerate(heads) if (head.lower() in usual if wanted is None else head == wanted)]


def match_labels(table: LabelTable, items: list[str], *, where: str) -> Matched:
    """What the table says of each item.

    A row names an item by its whole name, by its key inside a tar, by its file name or by that without suffix.

    Raises:
        ValueError: no row names an item, or no row that does has a label.
    """
    rows: list[str | None] = []
    for item in items:
        inside = item.rpartition(":")[2]
        place = PurePosixPath(inside)
        names = (item, inside, place.with_suffix("").as_posix(), place.name, place.stem)
        rows.append(next((name for name in names if name in table.labels), None))
    used = {name for name in rows if name is not None}
    if not used:
        raise ValueError(
            f"The labels name files like {next(iter(table.labels))!r}, and none of them is in {where}, "
            f"where files are called like {items[0]!r}."
        )
    labels: list[str | int | None] = [(table.labels[name] or None) if name is not None else None for name in rows]
    if all(label is None for label in labels):
        raise ValueError(f"The labels give no class to any file in {where}: their label column is empty.")
    groups = [None if name is None else table.groups[name] for name in rows] if table.groups else None
    return Matched(labels, groups, len(table.labels.keys() - used))


def _relative(name: str, table: Path, root: Path) -> str:
    place = (table.parent / name.replace("\\", "/")).resolve()
    if place.is_relative_to(root.resolve()):
        return place.relative_to(root.resolve()).as_posix()
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def coded(labels: list[str | int | None], known: list[str] | None) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Labels as indices into a list of class names, numbers in the order of numbers; None and negatives are -1."""
    plain = [None if label is None or (isinstance(label, int) and label < 0) else label for label in labels]
    if known is not None and all(label is None or isinstance(label, int) for label in plain):
        highest = max((label for label in plain if isinstance(label, int)), default=-1)
        if highest >= len(known):
            raise ValueError(f"Found label {highest}, but only {len(known)} classes have names: {known}.")
        return np.array([-1 if label is None else label for label in plain], dtype=np.int64), known
    spoken = [None if label is None else str(label) for label in plain]
    distinct = {label for label in spoken if label is not None}
    all_numbers = all(label.isdecimal() for label in distinct)
    names = sorted(distinct, key=lambda name: (int(name), name) if all_numbers else (0, name))
    places = {name: i for i, name in enumerate(names)}
    return np.array([-1 if label is None else places[label] for label in spoken], dtype=np.int64), names


def class_numbers(labels: Path | np.ndarray | Tensor, *, num: int, noun: str) -> Int[np.ndarray, " n"]:
    """The class of each row of an array, out of an array too or a .npy file of them."""
    if isinstance(labels, Path):
        if labels.suffix != ".npy":
            raise ValueError(
                f"Labels of an array are class numbers [{num}], an array too or a .npy file; got {labels}."
            )
        labels = np.load(labels)
    values = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.shape != (num,) or values.dtype.kind not in "iu":
        raise ValueError(f"Wanted class numbers [{num}], one a {noun}, got {values.dtype} {list(values.shape)}.")
    return values


def assign_splits(
    codes: Int[np.ndarray, " n"],
    own: Int[np.ndarray, " n"],
    hashes: UInt64[np.ndarray, " n"],
    *,
    names: list[str],
    seed: int,
    noun: str = "picture",
) -> Int8[np.ndarray, " n"]:
    """0 train, 1 validation, 2 test for each picture, or whatever else `noun` says.

    A source's own test split stays the test split, or its own validation split where it has no test; validation is its
    own, or a share of each class of the rest. Without one, a share of each class tests and as many validate. The share
    is a tenth, but of labelled classes at least 50 or, if that is fewer, just under a quarter: more than half train,
    from 3 on at least one. Who it is depends on content and seed: equal files share a split, and adding files moves
    only those near the border. Unlabelled pictures train, unless nothing is labelled: then all are one class here.
    """
    any_labelled = bool((codes >= 0).any())
    strata = codes if any_labelled else np.zeros_like(codes)
    own = np.where(strata >= 0, own, 0)
    splits = np.zeros(len(codes), dtype=np.int8)
    splits[own == 2] = 2
    splits[own == 1] = 1 if (own == 2).any() else 2
    to_draw = _to_draw(own)
    dice = _mixed(hashes, seed)
    for stratum in np.unique(strata[strata >= 0]):
        what = f"class {names[stratum]!r}" if any_labelled else "the unlabelled set"
        free = np.flatnonzero((strata == stratum) & (splits == 0))
        _check(what, noun, len(free), len(np.unique(dice[free])), 1 + len(to_draw))
        few = min(FEWEST_HELD_OUT, (len(free) - 1) // 4) if any_labelled else 1
        num = max(1, round(HELD_OUT * len(free)), few)
        for split in to_draw:
            rest = free[splits[free] == 0]
            # The border is a content, not a place in the row: copies of one picture fall on one side of it.
            border = np.sort(dice[rest])[min(num, len(rest)) - 1]
            splits[rest[dice[rest] <= border]] = split
        if not (splits[free] == 0).any():
            raise ValueError(f"{what} is mostly copies of one {noun}, so that nothing is left to train on.")
    return splits


def without_small_classes(
    codes: Int[np.ndarray, " n"], own: Int[np.ndarray, " n"], hashes: UInt64[np.ndarray, " n"], *, names: list[str]
) -> tuple[Int[np.ndarray, " n"], list[str], dict[str, int]]:
    """Codes and names without the classes too small for `assign_splits`, and how many pictures each of those had.

    Their pictures have no label then.
    """
    wanted = 1 + len(_to_draw(np.where(codes >= 0, own, 0)))
    free = [np.flatnonzero((codes == code) & (own <= 0)) for code in range(len(names))]
    # A class without any picture to train on is a mistake, which `assign_splits` tells.
    small = {code for code, rows in enumerate(free) if 0 < len(np.unique(hashes[rows])) < wanted}
    counts = {names[code]: int((codes == code).sum()) for code in sorted(small)}
    kept = [code for code in range(len(names)) if code not in small]
    places = np.full(len(names) + 1, -1)  # the last is that of -1
    places[kept] = np.arange(len(kept))
    return places[codes], [names[code] for code in kept], counts


def _to_draw(own: Int[np.ndarray, " n"]) -> list[int]:
    """The splits that a source does not make itself."""
    has_test, has_validation = bool((own == 2).any()), bool((own == 1).any())
    return [] if has_test and has_validation else [1] if has_test or has_validation else [1, 2]


def _check(what: str, noun: str, num: int, num_distinct: int, wanted: int) -> None:
    if not num:
        raise ValueError(f"{what} has held-out {noun}s but none to train on; are the folders called alike?")
    if num_distinct < wanted:
        raise ValueError(
            f"{what} has {num} readable {noun}s to split, {num_distinct} of them different; wanted at least {wanted}, "
            "better 30. Add some, or leave the class out."
        )


def _mixed(hashes: UInt64[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """Another order of the hashes for each seed: the finaliser of SplitMix64 (Steele et al. 2014)."""
    mixed = hashes + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
