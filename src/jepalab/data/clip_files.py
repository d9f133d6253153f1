"""One video file, whatever its encoding, as clips of small frames: what is read through PyAV, and what is refused."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from jepalab.data.clip_sampling import Sampling

SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".3gp", ".gif"}
# Frames that a decoder may swallow in a row: some packets hold nothing to show.
NUM_SWALLOWED = 2
# A file is cut short when it ends before this share of the time that it announces.
WHOLE = 0.9
# libswscale's SWS_BICUBIC, and what gives the same bytes on every processor: SWS_FULL_CHR_H_INT, SWS_ACCURATE_RND and
# SWS_BITEXACT. Not all versions of PyAV have names for them.
FILTER = 0x4 | 0x2000 | 0x40000 | 0x80000
# Pixels much wider or higher than this are a mistake in the header.
MAX_PIXEL_ASPECT = 10


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown, in the order in which they are.

    times  [n] seconds; NaN where nothing tells.
    marks  their timestamps in the stream's own unit, ascending; None where frames must be counted from the start.
    keys   frames at which decoding can begin, ascending.
    """

    times: Float[np.ndarray, " n"]
    marks: list[int] | None
    keys: list[int]

    @property
    def rate(self) -> float | None:
        """Frames a second; None where nothing tells. Pauses do not count, and times that were rounded average out."""
        if len(self.times) < 2 or np.isnan(self.times).any():
            return None
        gaps = np.diff(self.times)
        return float(1 / gaps[gaps < 1.5 * np.median(gaps)].mean())


class _OutOfStepError(ValueError):
    """The timestamps do not tell which frame is which."""

    def __init__(self) -> None:
        super().__init__("its timestamps do not tell which frame is which")


def pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError("Video files are read by PyAV: pip install 'jepalab[video]'.") from error
    return av


def read_clips(path: Path, *, sampling: Sampling, size: int) -> tuple[UInt8[np.ndarray, "m t s s 3"], float | None]:
    """The clips of one video, the largest central square of each frame as size x size bytes, and its frame rate.

    A frame of exactly this size keeps its pixels, others are resized with antialiasing (bicubic); the display matrix,
    pixels that are not square, and the colour space are heeded. Only the frames that are wanted are kept, and where
    there are key frames between clips, what lies before them is not decoded. Damage that a decoder conceals by itself
    stays unnoticed.

    Raises:
        ValueError: no video, a damaged one, one that is cut short, or one that is too short for a clip.
        OSError: the file cannot be read.
    """
    line = _timeline(path)
    try:
        return _decode(path, line, sampling, size), line.rate
    except _OutOfStepError:
        # Some files, such as AVI with B-frames, give frames false timestamps. In the decoder's order they are right.
        line = _counted(path, line)
        return _decode(path, line, sampling, size), line.rate


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its main video stream."""
    av = pyav()
    # The prefix and the list keep a file that pretends to be a playlist from opening others, or the network.
    name, options = f"file:{path}", {"protocol_whitelist": "file"}
    try:
        try:
            container = av.open(name, options=options)
        except UnicodeDecodeError:
            # PyAV 19 has no such argument, nor trouble with titles in other encodings.
            container = av.open(name, options=options, metadata_errors="ignore")
        with container:
            stream = container.streams.best("video")
            if stream is None:
                raise ValueError("holds no video")
            if stream.codec_context is None:
                raise ValueError("is no video, or one that this PyAV cannot decode")
            num_pixels = stream.codec_context.width * stream.codec_context.height
            if Image.MAX_IMAGE_PIXELS is not None and num_pixels > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"a frame's {num_pixels} pixels are more than {Image.MAX_IMAGE_PIXELS}")
            # Videos are read side by side: one thread each.
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        raise ValueError(f"is no video, or a damaged one ({error.strerror})") from error


def _timeline(path: Path) -> Timeline:
    """Read from the packets: nothing is decoded."""
    shown: list[tuple[int, bool]] = []
    ends: list[int] = []
    has_clock = True
    with _opened(path) as (container, stream):
        for packet in container.demux(stream):
            # The last one is empty, and makes a decoder give out what it holds.
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise ValueError("is cut short, or damaged")
            if packet.pts is not None:
                ends.append(packet.pts)
            # An edit list hides frames that are there.
            if not packet.is_discard:
                has_clock = has_clock and packet.pts is not None
                shown.append((packet.pts or 0, packet.is_keyframe))
        unit = float(stream.time_base or 0)
        announced = float(stream.duration or 0) * unit
        if not announced and len(container.streams) == 1:
            announced = (container.duration or 0) / 1e6
    shown.sort()
    marks = [mark for mark, _ in shown]
    if not has_clock or not unit or len(marks) < 2 or len(set(marks)) < len(marks):
        return _counted(path, None)
    times = np.array(marks) * unit
    found = (max(ends) - min(0, min(ends))) * unit + float(np.median(np.diff(times)))
    if found < WHOLE * announced:
        raise ValueError(f"is cut short: {found:.2f} of {announced:.2f} s are there")
    return Timeline(times, marks, [i for i, (_, is_key) in enumerate(shown) if is_key])


def _counted(path: Path, line: Timeline | None) -> Timeline:
    """By decoding all of it."""
    with _opened(path) as (container, stream):
        num = sum(1 for _ in container.decode(stream))
        rate = float(stream.average_rate or stream.guessed_rate or 0)
    if not num:
        raise ValueError("holds no frame that can be decoded")
    if line is not None and len(line.times) == num:
        return Timeline(line.times, None, [])
    return Timeline(np.arange(num) / rate if rate else np.full(num, np.nan), None, [])


def _decode(path: Path, line: Timeline, sampling: Sampling, size: int) -> UInt8[np.ndarray, "m t s s 3"]:
    index = sampling.clips(line.times)
    clips = np.empty((*index.shape, size, size, 3), dtype=np.uint8)
    wanted = np.unique(index)
    for place, picture in zip(wanted, _pictures(path, line, wanted, size), strict=True):
        clips[index == place] = picture
    return clips


def _pictures(path: Path, line: Timeline, wanted: Int[np.ndarray, " k"], size: int) -> Iterator[np.ndarray]:
    """The wanted frames as squares [s s 3]; without a clock, counted from the start."""
    places = {mark: place for place, mark in enumerate(line.marks or ())}
    with _opened(path) as (container, stream):
        shrink = _Shrink(stream, size)
        upcoming, place, picture = container.decode(stream), -1, None
        for want in wanted.tolist():
            before = bisect_right(line.keys, want)
            has_jumped = line.marks is not None and before > 0 and line.keys[before - 1] > place + 1
            if line.marks is not None and has_jumped:
                try:
                    container.seek(line.marks[line.keys[before - 1]], stream=stream)
                except pyav().FFmpegError as error:
                    raise _OutOfStepError from error
                upcoming, place = container.decode(stream), -1
            while place < want:
                frame = next(upcoming, None)
                if frame is None:
                    raise _OutOfStepError
                found = place + 1 if line.marks is None else places.get(frame.pts, -1)
                if found <= place or (has_jumped and found > want):
                    raise _OutOfStepError
                place, has_jumped = found, False
                if place >= want:
                    if place > want + NUM_SWALLOWED or (frame.is_corrupt and line.marks is not None):
                        raise _OutOfStepError
                    if frame.is_corrupt:
                        raise ValueError(f"is damaged at frame {place}")
                    picture = shrink(frame)
            assert picture is not None, "some frame was wanted"
            yield picture


class _Shrink:
    """Makes frames of one video upright squares of bytes."""

    def __init__(self, stream: Any, size: int) -> None:
        self.size, self.reformatter = size, pyav().video.reformatter.VideoReformatter()
        aspect = float(stream.sample_aspect_ratio or 1)
        self.aspect = aspect if 1 / MAX_PIXEL_ASPECT < aspect < MAX_PIXEL_ASPECT else 1.0

    def __call__(self, frame: Any) -> UInt8[np.ndarray, "s s 3"]:
        size, width, height = self.size, frame.width * self.aspect, frame.height
        scale = size / min(width, height)
        shape = max(size, round(width * scale)), max(size, round(height * scale))
        # Scaling and conversion of colours in one go: the frame is never there in full size and three colours.
        small = self.reformatter.reformat(frame, *shape, "rgb24", interpolation=FILTER, threads=1).to_ndarray()
        top, left = (small.shape[0] - size) // 2, (small.shape[1] - size) // 2
        square = small[top : top + size, left : left + size]
        return np.rot90(square, round(frame.rotation / 90))
