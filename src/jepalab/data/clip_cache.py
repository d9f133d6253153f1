"""Clips in the cache of `image_cache`: what is read of one video, and what its bytes depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from jepalab.data.clip_files import read_clips
from jepalab.data.clip_sampling import Sampling
from jepalab.data.clip_sources import frame_files
from jepalab.data.image_cache import Decoded, Progress, Reader, Row, cached
from jepalab.data.image_files import UNREADABLE, decode, strict_about_bombs
from jepalab.data.image_sources import Broken, Item, Source, as_bytes

# Part of every key: raise it when decoding changes.
VERSION = 1
# Videos that are read at a time, and the bytes that their clips may fill.
MAX_AHEAD = 8
MAX_AHEAD_BYTES = 2**30
# What reading a damaged video raises. Not TypeError and its like: they would be mistakes of ours.
DAMAGED = (OSError, ValueError, LookupError, ArithmeticError, MemoryError)
# Frame rates that differ by less than this share are called one.
SAME_RATE = 0.01


def decoded_clips(
    source: Source, *, sampling: Sampling, size: int, cache: Path, progress: Progress | None = None
) -> Decoded:
    """The clips of a source, called VIDEO:0, VIDEO:1, ...; out of the cache, or decoded into it.

    Its one fact is "fps", the frames a second that the clips keep; None where that is not known, or not the same for
    all.

    Raises:
        ValueError: more than half of the videos cannot be read, or are too short; PyAV is missing.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    rates: list[float | None] = []

    def read(item: Item) -> list[Row] | Broken:
        try:
            clips, rate, content_hash = _read(item.content, sampling, size)
        except DAMAGED as error:
            return Broken(str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")
        rates.append(rate)
        return [Row(f"{item.name}:{i}", _grey_where_it_is(clip), content_hash) for i, clip in enumerate(clips)]

    shape = (sampling.num_frames, size, size)
    num_bytes = sampling.clips_per_video * int(np.prod(shape)) * 3
    reader = Reader(
        settings=f"clips {VERSION} {sampling.settings} {size}",
        read=read,
        shape=shape,
        noun="clips",
        most=sampling.clips_per_video,
        ahead=min(MAX_AHEAD, max(1, MAX_AHEAD_BYTES // num_bytes)),
        versions={"decoding": VERSION, "pyav": _pyav_version(), "pillow": PIL.__version__},
        facts=lambda: {"fps": _kept_rate(rates, sampling)},
    )
    with strict_about_bombs():
        return cached(source, reader=reader, cache=cache, progress=progress)


def _read(
    content: Path | bytes | np.ndarray | Broken, sampling: Sampling, size: int
) -> tuple[UInt8[np.ndarray, "m t s s 3"], float | None, bytes]:
    """Its clips, its frame rate where something tells it, and a hash of all that it holds."""
    if isinstance(content, np.ndarray):
        return _read_pictures((as_bytes(frame) for frame in content), len(content), sampling, size)
    assert isinstance(content, Path), "videos lie in files, folders and arrays"
    if content.is_dir():
        frames = frame_files(content)
        return _read_pictures((frame.read_bytes() for frame in frames), len(frames), sampling, size)
    clips, rate = read_clips(content, sampling=sampling, size=size)
    with content.open("rb") as file:
        return clips, rate, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).digest()


def _read_pictures(
    pictures: Iterator[bytes | np.ndarray | Broken], num: int, sampling: Sampling, size: int
) -> tuple[UInt8[np.ndarray, "m t s s 3"], None, bytes]:
    index = sampling.clips(np.full(num, np.nan))
    clips = np.empty((*index.shape, size, size, 3), dtype=np.uint8)
    content_hash = hashlib.blake2b(digest_size=8)
    for place, picture in enumerate(pictures):
        if isinstance(picture, Broken):
            raise ValueError(f"frame {place}: {picture.why}")
        content_hash.update(picture if isinstance(picture, bytes) else picture.tobytes())
        where = index == place
        if where.any():
            try:
                clips[where] = decode(picture, size=size)
            except UNREADABLE as error:
                raise ValueError(f"frame {place}: {error}") from error
    return clips, None, content_hash.digest()


def _grey_where_it_is(clip: UInt8[np.ndarray, "t s s 3"]) -> UInt8[np.ndarray, "t s s c"]:
    is_grey = (clip[..., :1] == clip[..., 1:]).all()
    return clip[..., :1] if is_grey else clip


def _kept_rate(rates: list[float | None], sampling: Sampling) -> float | None:
    """Frames a second that all clips keep."""
    if sampling.fps is not None:
        return sampling.fps
    known = sorted(rate for rate in rates if rate is not None)
    if not known or len(known) < len(rates) or known[-1] > known[0] * (1 + SAME_RATE):
        return None
    return round(known[len(known) // 2], 3) / sampling.stride


def _pyav_version() -> str:
    try:
        return version("av")
    except PackageNotFoundError:
        return "none"
