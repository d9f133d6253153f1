"""Your own videos, whatever they lie in, as one memory map of short clips with classes and splits.

Video files, folders of frames and arrays; decoded once into a cache. `sample_stream` turns clips into batches.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor

from jepalab.data.clip_cache import decoded_clips
from jepalab.data.clip_sampling import Sampling
from jepalab.data.clip_sources import array, recognised
from jepalab.data.image_cache import Decoded, Progress, coded, default_cache, in_place
from jepalab.data.image_labels import assign_splits, class_numbers, match_labels, read_label_table
from jepalab.data.image_sources import Source, loaded
from jepalab.data.samples import Samples, names_of
from jepalab.data.unit_splits import assign_unit_splits, leave_copies_out, units_of


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Clips(Samples):
    """Clips of one length and size, bytes on the disk.

    pixels  [n t h w c] bytes, memory-mapped; c = 1 where all are grey, else 3.
    fps     frames a second that a clip keeps; None where that is not known.
    states  [n s] the bytes that the world behind a clip was in at its last frame; None where nobody knows them.
    """

    pixels: UInt8[np.ndarray, "n t h w c"]
    fps: float | None = None
    states: UInt8[np.ndarray, "n s"] | None = None

    @property
    def stored(self) -> UInt8[np.ndarray, "n t h w c"]:
        return self.pixels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        _, t, h, w, c = self.pixels.shape
        return t, c, h, w

    @property
    def size(self) -> int:
        return self.pixels.shape[2]

    def as_floats(self, rows: UInt8[Tensor, "m t h w c"]) -> Float[Tensor, "m t c h w"]:
        channels_first = rows.permute(0, 1, 4, 2, 3)
        return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def describe(self) -> str:
        colour = "grey" if self.channels == 1 else "colour"
        rate = "" if self.fps is None else f" at {self.fps:g} frames a second"
        first = (
            f"{len(self):,} {colour} clips of {self.num_times} frames{rate}, {self.size} x {self.size} pixels, from "
            f"{self.source}"
        )
        return "; ".join([first, *self.facts("clips")]) + f". Digest {self.digest[:12]}."


def open_clips(
    source: Path | np.ndarray | Tensor,
    *,
    num_frames: int = 16,
    size: int = 64,
    stride: int = 1,
    fps: float | None = None,
    clips_per_video: int = 1,
    labels: Path | np.ndarray | Tensor | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    cache: Path | None = None,
    seed: int = 0,
    needs_splits: bool = True,
    progress: Progress | None = None,
) -> Clips:
    """Opens videos, recognised by what they are, as clips of small squares; decodes them if it never did before.

    source           a folder of video files, or of a folder of frames for each video (class sub-folders or none; top
                     folders train, val, test are splits); one video file; an array of videos [n t h w c], or its .npy
                     file.
    num_frames       of a clip.
    size             of a frame in pixels: its largest central square.
    stride           frames from one to the next that is kept.
    fps              frames a second that are kept, instead of a stride; for video files.
    clips_per_video  each from the middle of its share of the video; fewer where some would be the same.
    labels           a CSV file (file,label or file,label,group) for files; class numbers [n] or a .npy of them for
                     arrays; -1 unlabelled. No group, such as a person, is in two splits.
    label_column     of that CSV file, where it is called otherwise than usual; `group_column` likewise.
    cache            where decoded clips are kept; by default $JEPALAB_CACHE or .cache/jepalab in your home.
    seed             of the splits that the source does not make itself.
    needs_splits     False leaves clips in no split (-1) where a class has too few videos to make one.
    progress         called with the number of videos done and the total.

    A video that is damaged, or too short for one clip, is left out, and `skipped` says why. All clips of a video, and
    of its copies, are in one split (equal bytes make a copy): where they have groups, the groups of copies are joined;
    and copies of what is held out that are unlabelled, in another class or in another of the source's own splits take
    no part (`copies`). Who is in which split is in `image_labels`. Files that were cut out of one recording are
    strangers here: give them one group, or folders of your own, train and test. One video alone only trains. Which
    frames are shown is in `clip_sampling`, how they become bytes in `clip_files`.

    Raises:
        ValueError: nothing there, nothing readable, more than half unreadable or too short, labels that fit nothing, a
            class with too few videos to split, or PyAV is missing; the message says what was expected and found.
        OSError: the cache cannot be written, or the disk is full.
    """
    if size < 1:
        raise ValueError(f"Wanted a size of at least 1 pixel, got {size}.")
    sampling = Sampling(num_frames=num_frames, stride=stride, fps=fps, clips_per_video=clips_per_video)
    cache = cache or default_cache()
    if isinstance(source, Path) and source.suffix != ".npy":
        columns = {"label_column": label_column, "group_column": group_column}
        rows, codes, names, listed, groups = _open_files(source, sampling, size, labels, columns, cache, progress)
        return _clips(rows, codes, names, listed, seed, groups=groups, needs_splits=needs_splits)
    if label_column or group_column:
        raise ValueError("Columns of labels and groups belong to tables; an array's labels are an array of numbers.")
    videos, key, title = loaded(source, noun="videos")
    listed = array(videos, key, title)
    numbers = None if labels is None else class_numbers(labels, num=len(videos), noun="video")
    is_cut = videos.ndim == 5 and videos.shape[1:4] == (num_frames, size, size) and videos.shape[-1] in {1, 3}
    if is_cut and videos.dtype == np.uint8 and stride == 1 and fps is None:
        rows, origins = in_place(videos), list(range(len(videos)))
    else:
        rows = decoded_clips(listed, sampling=sampling, size=size, cache=cache, progress=progress)
        origins = [int(video) for video in _videos(rows)]
    codes, names = (rows.codes, []) if numbers is None else coded(numbers[origins].tolist(), None)
    return _clips(rows, codes, names, listed, seed, groups=None, needs_splits=needs_splits)


def _open_files(
    path: Path,
    sampling: Sampling,
    size: int,
    labels: Path | np.ndarray | Tensor | None,
    columns: dict[str, str | None],
    cache: Path,
    progress: Progress | None,
) -> tuple[Decoded, Int[np.ndarray, " n"], list[str], Source, list[str | None] | None]:
    """What was decoded, the class of each, the classes' names, where it comes from, and groups if a table has them."""
    if labels is not None and not isinstance(labels, Path):
        raise ValueError("Labels of files come from a CSV file; arrays of labels belong to arrays of videos.")
    if labels is None and any(columns.values()):
        raise ValueError("Columns of labels and groups belong to a CSV file of file,label: name it as labels.")
    source = recognised(path, table=labels)
    root = path if path.is_dir() else path.parent
    table = None if labels is None else read_label_table(labels, root=root, **columns)
    if table is not None:
        match_labels(table, source.listing or [], where=source.title)
    rows = decoded_clips(source, sampling=sampling, size=size, cache=cache, progress=progress)
    codes, names, groups = rows.codes, rows.names, None
    if table is not None:
        found = match_labels(table, _videos(rows), where=str(path))
        codes, names = coded(found.labels, None)
        groups = found.groups
        if found.num_unused:
            told = f"{found.num_unused} of {len(table.labels)} rows of {labels}"
            _say(f"{told} name no readable video in {source.title}.")
    return rows, codes, names, source, groups


def _videos(rows: Decoded) -> list[str]:
    """The video that each clip was cut out of."""
    assert rows.listing is not None, "decoded into the cache"
    return [name.rpartition(":")[0] for name in json.loads(rows.listing.read_text(encoding="utf-8"))]


def _clips(
    rows: Decoded,
    codes: Int[np.ndarray, " n"],
    names: list[str],
    source: Source,
    seed: int,
    *,
    groups: list[str | None] | None,
    needs_splits: bool,
) -> Clips:
    digest = hashlib.sha256(rows.sha256.encode() + codes.astype("<i8").tobytes())
    try:
        if groups is None:
            units, splits = _by_video(rows, codes, names, seed)
        else:
            units, splits = _by_group(rows, codes, names, seed, groups=groups, title=source.title)
    except ValueError:
        if needs_splits:
            raise
        units, splits = np.arange(len(codes)), np.full(len(codes), -1, dtype=np.int8)
    if groups is not None:
        digest.update(splits.tobytes())  # other groups are other splits
    splits, copies = leave_copies_out(splits, rows.hashes)
    called = names_of(rows.listing, len(codes)) if copies else []
    if copies:
        digest.update(splits.tobytes())
    clips = Clips(
        pixels=rows.pixels,
        labels=torch.from_numpy(codes.astype(np.int64)),
        names=names,
        splits=torch.from_numpy(splits),
        skipped=rows.skipped,
        digest=digest.hexdigest(),
        source=source.title,
        listing=rows.listing,
        copies={called[i]: called[j] for i, j in copies.items()},
        unread=source.unread,
        units=torch.from_numpy(units),
        unit="video" if groups is None else "group",
        fps=rows.facts.get("fps"),
    )
    if clips.left_out() or len(names) == 1 or not splits.any():
        _say(clips.describe())
    return clips


def _by_video(
    rows: Decoded, codes: Int[np.ndarray, " n"], names: list[str], seed: int
) -> tuple[Int[np.ndarray, " n"], Int8[np.ndarray, " n"]]:
    """The video of each clip, and its split, which is that of the video."""
    # Of equal files one is drawn for all.
    videos = np.stack([codes, rows.own.astype(np.int64), rows.hashes.view(np.int64)])
    _, first, video_of = np.unique(videos, axis=1, return_index=True, return_inverse=True)
    video_of = video_of.reshape(-1).astype(np.int64)
    if len(first) == 1:
        return video_of, np.zeros(len(codes), dtype=np.int8)
    drawn = assign_splits(codes[first], rows.own[first], rows.hashes[first], names=names, seed=seed, noun="video")
    return video_of, drawn[video_of]


def _by_group(
    rows: Decoded, codes: Int[np.ndarray, " n"], names: list[str], seed: int, *, groups: list[str | None], title: str
) -> tuple[Int[np.ndarray, " n"], Int8[np.ndarray, " n"]]:
    """The group of each clip, and its split, which is that of the group."""
    units = units_of(groups, rows.hashes, rows.own)
    splits = assign_unit_splits(
        units, codes=codes, names=names, own=rows.own, items=_videos(rows), unit="group", title=title, seed=seed
    )
    return units.view(np.int64), splits


def _say(line: str) -> None:
    print(line, file=sys.stderr)
