"""Where videos lie: files in folders, folders of frames, one file, or an array. Says what is there, then yields it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from jepalab.data.clip_files import SUFFIXES, pyav
from jepalab.data.image_files import SUFFIXES as FRAME_SUFFIXES
from jepalab.data.image_sources import SPLIT_NAMES, UNSPLIT, Item, Source, count_kinds, fingerprint, walk, without

KINDS = "video files in class sub-folders or none, a folder of frames for each video, or an array in a .npy file"


def recognised(path: Path, *, table: Path | None = None) -> Source:
    """The videos at a path: the files where there are any, else folders of frames.

    Class sub-folders are labels; top folders called train, val, validation or test are splits. A video directly in the
    folder (or directly in train/) has no label. Files of other kinds are counted; `table` holds labels, and is none.

    Raises:
        ValueError: nothing there, or nothing that looks like a video.
    """
    endings = ", ".join(sorted(SUFFIXES))
    if not path.exists():
        raise ValueError(f"Wanted {KINDS}, but there is no {path}.")
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"Wanted {KINDS}, got the file {path}; video files end in {endings}.")
        return _files(f"video {path.name}", path.parent, [path])
    files = without(table, walk(path))
    if videos := [file for file in files if file.suffix.lower() in SUFFIXES]:
        return replace(_files(f"folder {path.name}", path, videos), unread=count_kinds(files, known=SUFFIXES))
    if frames := [file for file in files if file.suffix.lower() in FRAME_SUFFIXES]:
        items = [_item(path, folder) for folder in sorted({file.parent for file in frames})]
        names = [item.name for item in items]
        key = fingerprint("frames", path, frames)
        unread = count_kinds(files, known=FRAME_SUFFIXES)
        return Source(f"frames in {path.name}", key, len(items), lambda: iter(items), listing=names, unread=unread)
    some = f"{len(files)} files, the first: {files[0].name}" if files else "nothing"
    raise ValueError(f"Wanted {KINDS}, but {path} holds no video (looked for {endings}); found {some}.")


def array(videos: np.ndarray, key: str, title: str) -> Source:
    """Videos [n t h w], [n t h w c] or [n t c h w]: bytes, 16 bits, booleans, or floats in [0, 1]."""
    if videos.ndim == 5 and videos.shape[-1] not in {1, 3, 4} and videos.shape[2] in {1, 3, 4}:
        videos = videos.transpose(0, 1, 3, 4, 2)
    if videos.ndim not in {4, 5} or (videos.ndim == 5 and videos.shape[-1] not in {1, 3, 4}):
        raise ValueError(f"Wanted videos [n t h w] or [n t h w c] with 1, 3 or 4 channels, got {list(videos.shape)}.")
    if not videos.size:
        raise ValueError(f"Wanted videos, got an array with none: {list(videos.shape)}.")
    if videos.dtype != np.uint8 and videos.dtype != np.uint16 and videos.dtype.kind not in "bf":
        raise ValueError(f"Wanted bytes, 16 bits without sign, booleans or floats in [0, 1], got {videos.dtype}.")
    return Source(title, key, len(videos), lambda: (Item(str(i), video) for i, video in enumerate(videos)))


def frame_files(folder: Path) -> list[Path]:
    """The frames of one video in the order of their numbers: frame9.png comes before frame10.png."""
    frames = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and path.name[0] != "."]
    # Text and digits alternate, so that a number is only ever compared with a number.
    return sorted(frames, key=lambda path: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)])


def _files(title: str, root: Path, videos: list[Path]) -> Source:
    items = [_item(root, video) for video in videos]

    def yielded() -> Iterator[Item]:
        # Asked for when something is decoded, and once: its absence is no fault of the files.
        pyav()
        yield from items

    key = fingerprint("videos", root, videos)
    return Source(title, key, len(items), yielded, listing=[item.name for item in items])


def _item(root: Path, video: Path) -> Item:
    place = list(video.relative_to(root).parts[:-1])
    split = SPLIT_NAMES.get(place[0].lower(), UNSPLIT) if place else UNSPLIT
    label = "/".join(place[split != UNSPLIT :]) or None
    # Frames that lie in the folder itself are one video.
    name = root.name if video == root else video.relative_to(root).as_posix()
    return Item(name, video, label, split)
