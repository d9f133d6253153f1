"""Your own images, whatever they lie in, as one memory map of bytes with labels and splits.

Folders, Hugging Face parquet, webdataset tars, IDX files and arrays; decoded once into a cache. `image_stream` turns
them into batches.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.data import fashion_mnist
from jepalab.data.image_archives import is_tar, parquet, tars
from jepalab.data.image_cache import Decoded, Progress, coded, decoded, default_cache, in_place
from jepalab.data.image_files import SUFFIXES
from jepalab.data.image_labels import (
    NO_LABELS,
    assign_splits,
    class_numbers,
    match_labels,
    read_label_table,
    without_small_classes,
)
from jepalab.data.image_sources import Source, array, folder_of_images, idx, is_idx, loaded, walk, without
from jepalab.data.samples import Samples, names_of
from jepalab.data.unit_splits import assign_unit_splits, leave_copies_out, units_of


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Images(Samples):
    """Pictures of one size, bytes on the disk, with their classes and splits.

    pixels  [n h w c] bytes, memory-mapped; c = 1 where all are grey, else 3.
    side    the shorter side of the median picture before it was resized, in pixels; None where that is not known.
    small   classes too small to be split, with the number of their pictures, which train without a label.
    """

    pixels: UInt8[np.ndarray, "n h w c"]
    side: float | None = None
    small: Mapping[str, int] = field(default_factory=dict)

    @property
    def stored(self) -> UInt8[np.ndarray, "n h w c"]:
        return self.pixels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        _, h, w, c = self.pixels.shape
        return 1, c, h, w

    @property
    def size(self) -> int:
        return self.pixels.shape[1]

    def as_floats(self, rows: UInt8[Tensor, "m h w c"]) -> Float[Tensor, "m 1 c h w"]:
        channels_first = rows.permute(0, 3, 1, 2).unsqueeze(1)
        return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def describe(self) -> str:
        colour = "grey" if self.channels == 1 else "colour"
        first = f"{len(self):,} {colour} pictures of {self.size} x {self.size} pixels from {self.source}"
        facts = [first, *self.facts("pictures")]
        if self.small:
            some = ", ".join(f"{name} {num}" for name, num in [*self.small.items()][:10])
            facts.append(
                f"{sum(self.small.values()):,} of them in {len(self.small):,} class(es) too small to be split, so that "
                f"they train without their label: {some}{', ...' if len(self.small) > 10 else ''}"
            )
        return "; ".join(facts) + f". Digest {self.digest[:12]}."


def open_images(
    source: Path | np.ndarray | Tensor,
    *,
    size: int,
    labels: Path | np.ndarray | Tensor | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    cache: Path | None = None,
    seed: int = 0,
    needs_splits: bool = True,
    progress: Progress | None = None,
) -> Images:
    """Opens pictures, recognised by what they are, as squares of `size` pixels; decodes them if it never did before.

    source        a folder of images (class sub-folders or none; top folders train, val, test are splits); parquet,
                  webdataset tars or IDX files, or the folder they lie in; an array of pictures, or its .npy file; or
                  fashion-mnist, which is fetched.
    labels        a CSV file (file,label or file,label,group) for files; class numbers [n] or a .npy of them for arrays;
                  -1 unlabelled. No group, such as a person, is in two splits. Path("none"), where no such file is:
                  there are no labels, whatever folders or files beside the pictures say.
    label_column  of that CSV file, or without one of parquet, where it is called otherwise than usual (see
                  `image_labels` and `image_archives`); `group_column` likewise of the CSV file.
    cache         where decoded pictures are kept; by default $JEPALAB_CACHE or .cache/jepalab in your home.
    seed          of the splits that the source does not make itself.
    needs_splits  False keeps the labels of classes too small to be split, and leaves pictures in no split (-1) where
                  none can be made.
    progress      called with the number of items done and the total.

    No picture is in two splits: groups that hold copies of one (equal bytes) are joined, and copies of what is held out
    that are unlabelled, in another class or in another of the source's own splits take no part (`copies`).

    How a picture becomes bytes is in `image_files.decode`; who trains, validates and tests in `image_labels`.

    Raises:
        ValueError: nothing there, several kinds of sources at once, nothing readable, more than half unreadable, labels
            that fit nothing, a column that is not there, or a class in too few groups to split; the message says what
            was expected and what was found.
        OSError: the cache cannot be written, or the disk is full.
    """
    if size < 1:
        raise ValueError(f"Wanted a size of at least 1 pixel, got {size}.")
    cache = cache or default_cache()
    is_unlabelled = isinstance(labels, Path) and labels == NO_LABELS and not labels.exists()
    labels = None if is_unlabelled else labels
    if isinstance(source, Path) and source.suffix != ".npy":
        if source == Path(fashion_mnist.NAME) and not source.exists():
            source = fashion_mnist.find_fashion_mnist(cache)
        columns = {"label_column": label_column, "group_column": group_column}
        if is_unlabelled and any(columns.values()):
            raise ValueError("Labels none says that there are none: name no column of labels or groups beside it.")
        rows, codes, names, listed, groups = _open_files(source, size, labels, columns, cache, progress)
        codes, names = (np.full_like(codes, -1), []) if is_unlabelled else (codes, names)
        return _images(rows, codes, names, listed, seed, groups=groups, needs_splits=needs_splits)
    if label_column or group_column:
        raise ValueError("Columns of labels and groups belong to tables; an array's labels are an array of numbers.")
    pixels, key, title = loaded(source, noun="pictures")
    listed = array(pixels, key, title)
    is_ready = pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[1:3] == (size, size)
    if is_ready and pixels.shape[-1] in {1, 3}:
        rows = in_place(pixels)
    else:
        rows = decoded(listed, size=size, cache=cache, progress=progress)
    values = rows.codes
    if labels is not None:
        known = class_numbers(labels, num=len(pixels), noun="picture")
        values = np.delete(known, [int(item) for item in rows.skipped])
    codes, names = coded([int(value) for value in values], None)
    return _images(rows, codes, names, listed, seed, groups=None, needs_splits=needs_splits)


def _open_files(
    path: Path,
    size: int,
    labels: Path | np.ndarray | Tensor | None,
    columns: dict[str, str | None],
    cache: Path,
    progress: Progress | None,
) -> tuple[Decoded, np.ndarray, list[str], Source, list[str | None] | None]:
    """What was decoded, the class of each, the classes' names, where it comes from, and groups if a table has them."""
    if labels is not None and not isinstance(labels, Path):
        raise ValueError("Labels of files come from a CSV file; arrays of labels belong to arrays of pictures.")
    source, root = _recognised(path, None if labels else columns["label_column"], table=labels)
    if labels is None and columns["group_column"] is not None:
        raise ValueError(
            f"A group column ({columns['group_column']!r}) is one of a CSV file of file,label,group: name it as labels."
        )
    table = None if labels is None else read_label_table(labels, root=root, **columns)
    if table is not None and source.listing is not None:
        match_labels(table, source.listing, where=source.title)
    rows = decoded(source, size=size, cache=cache, progress=progress)
    codes, names, groups = rows.codes, rows.names, None
    if table is not None:
        assert rows.listing is not None, "decoded into the cache"
        found = match_labels(table, json.loads(rows.listing.read_text(encoding="utf-8")), where=str(path))
        codes, names = coded(found.labels, None)
        groups = found.groups
        if found.num_unused:
            told = f"{found.num_unused} of {len(table.labels)} rows of {labels}"
            _say(f"{told} name no readable picture in {source.title}.")
    return rows, codes, names, source, groups


def _recognised(path: Path, label_column: str | None, *, table: Path | None) -> tuple[Source, Path]:
    """The source at a path, and the folder that its files' names are relative to; `table` holds labels, no data."""
    root = path if path.is_dir() else path.parent
    files = without(table, walk(path)) if path.is_dir() else [path] if path.is_file() else []
    kinds = "images in class sub-folders or none, parquet files, webdataset tars, IDX files or an array in a .npy file"
    if not path.exists():
        raise ValueError(f"Wanted {kinds}, but there is no {path}.")
    found = {
        "parquet files": [file for file in files if file.suffix.lower() == ".parquet"],
        "tars": [file for file in files if is_tar(file)],
        "IDX files": [file for file in files if is_idx(file)],
        "image files": [file for file in files if file.suffix.lower() in SUFFIXES],
    }
    found = {kind: of for kind, of in found.items() if of}
    if len(found) > 1:
        counts = " and ".join(f"{len(of):,} {kind} such as {of[0].relative_to(root)}" for kind, of in found.items())
        raise ValueError(
            f"{path} holds {counts}, and which of them are the data cannot be told: name the folder that holds the "
            "one kind alone, or move the other away."
        )
    kind = next(iter(found), "")
    if label_column is not None and kind != "parquet files":
        raise ValueError(
            f"A label column ({label_column!r}) belongs to parquet files, and there are none in {path}; or to a CSV "
            "file of labels, and none is named."
        )
    if kind == "parquet files":
        source = parquet(root, found[kind], label_column=label_column)
    elif kind == "tars":
        source = tars(root, found[kind])
    elif kind == "IDX files":
        source = idx(root, files if path.is_dir() else walk(root))
    elif path.is_dir():
        source = folder_of_images(root, files)
    else:
        raise ValueError(f"Wanted {kinds}, got the file {path}; give the folder it lies in.")
    if not source.num:
        some = f"{len(files)} files, the first: {files[0].name}" if files else "nothing"
        raise ValueError(
            f"Wanted {kinds}, but {path} holds no picture (looked for {', '.join(sorted(SUFFIXES))}); found {some}."
        )
    return source, root


def _images(
    rows: Decoded,
    codes: np.ndarray,
    names: list[str],
    source: Source,
    seed: int,
    *,
    groups: list[str | None] | None,
    needs_splits: bool,
) -> Images:
    units, given, small = None, (codes, names), {}
    try:
        if groups is None:
            codes, names, small = without_small_classes(codes, rows.own, rows.hashes, names=names)
            splits = assign_splits(codes, rows.own, rows.hashes, names=names, seed=seed)
        else:
            items = names_of(rows.listing, len(codes))
            units = units_of(groups, rows.hashes, rows.own)
            splits = assign_unit_splits(
                units, codes=codes, names=names, own=rows.own, items=items, unit="group", title=source.title, seed=seed
            )
    except ValueError:
        if needs_splits and names:
            raise
        # Nothing is tested without labels, so that one picture is enough to train on.
        splits = np.full(len(codes), 0 if needs_splits else -1, dtype=np.int8)
    digest = hashlib.sha256(rows.sha256.encode() + codes.astype("<i8").tobytes())
    if units is not None:
        digest.update(splits.tobytes())  # other groups are other splits
    splits, copies = leave_copies_out(splits, rows.hashes)
    called = names_of(rows.listing, len(codes)) if copies else []
    if copies:
        digest.update(splits.tobytes())
    if not needs_splits:
        (codes, names), small = given, {}
    images = Images(
        pixels=rows.pixels,
        side=rows.facts.get("median_side"),
        small=small,
        labels=torch.from_numpy(codes.astype(np.int64)),
        names=names,
        splits=torch.from_numpy(splits),
        skipped=rows.skipped,
        digest=digest.hexdigest(),
        source=source.title,
        listing=rows.listing,
        copies={called[i]: called[j] for i, j in copies.items()},
        unread=source.unread,
        units=None if units is None else torch.from_numpy(units.view(np.int64)),
        unit="picture" if units is None else "group",
    )
    if images.left_out() or small or len(names) == 1:
        _say(images.describe())
    return images


def _say(line: str) -> None:
    print(line, file=sys.stderr)
