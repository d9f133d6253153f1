"""Frames of episodes in a video file: encoded with or without loss, decoded by the second at which they are shown."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jepalab.data.clip_files import FILTER, pyav


class Encoder(NamedTuple):
    """A codec of FFmpeg's, what its pixels are, and its settings."""

    codec: str
    pixel_format: str
    options: dict[str, str]


# "h264-lossless" keeps every bit of RGB; "h264" halves the resolution of colours and rounds.
ENCODERS = {
    "h264-lossless": Encoder("libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast"}),
    "h264": Encoder("libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}),
}
# Every other frame can be decoded by itself, or nearly: training jumps.
KEY_FRAMES_EVERY = 2


def check_encoder(name: str, *, height: int, width: int) -> None:
    """ValueError where PyAV is missing or lacks the encoder, or it cannot encode such frames."""
    encoder = ENCODERS[name]
    av = pyav()
    if encoder.pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise ValueError(f"{name} wants an even height and width, got {height} x {width}; choose h264-lossless or png.")
    try:
        av.codec.Codec(encoder.codec, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise ValueError(f"This PyAV was built without {encoder.codec}, which {name} needs; choose png.") from error


class VideoFile:
    """An mp4 file that frames are added to, in one thread.

    Without loss, the same frames make the same file; x264's lossy files were seen to differ, one in a thousand.
    OSError where it cannot be written.
    """

    def __init__(self, path: Path, *, encoder: str, fps: int, height: int, width: int) -> None:
        self.path, self.num_frames, self.num_bytes, self.rate = path, 0, 0, Fraction(1, fps)
        codec, pixel_format, options = ENCODERS[encoder]
        with _as_os_errors(path):
            self.container = pyav().open(f"file:{path}", "w", format="mp4")
            self.stream = self.container.add_stream(codec, rate=fps, options=options)
        self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, pixel_format
        self.stream.codec_context.gop_size = KEY_FRAMES_EVERY
        self.stream.codec_context.thread_count = 1

    def add(self, frames: UInt8[np.ndarray, "t 3 h w"]) -> None:
        """Appends frames, each 1 / fps seconds after the one before."""
        with _as_os_errors(self.path):
            for pixels in frames.transpose(0, 2, 3, 1):
                frame = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame = _converted(frame, self.stream.pix_fmt)
                frame.pts, frame.time_base = self.num_frames, self.rate
                packets = self.stream.encode(frame)
                self.num_bytes += sum(packet.size for packet in packets)
                self.container.mux(packets)
                self.num_frames += 1

    def close(self, *, is_whole: bool) -> None:
        """Ends the file; what is not whole need not become one."""
        with _as_os_errors(self.path):
            try:
                if is_whole:
                    self.container.mux(self.stream.encode())
            finally:
                self.container.close()


def read_frames(path: Path, *, start: float, num: int, fps: float) -> UInt8[np.ndarray, "t h w 3"]:
    """`num` frames as RGB, the first shown at second `start` and each 1 / fps after the one before.

    Raises:
        ValueError: a missing file, no video, a damaged one, or one without these frames.
    """
    av, found = pyav(), {}
    try:
        # The prefix and the list keep a file that pretends to be a playlist from opening others, or the network.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise ValueError(f"{path.name} holds no video that this PyAV can decode")
            size = stream.codec_context.width * stream.codec_context.height
            if Image.MAX_IMAGE_PIXELS is not None and size > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{path.name}: a frame's {size} pixels are more than {Image.MAX_IMAGE_PIXELS}")
            stream.codec_context.thread_count = 1
            unit = float(stream.time_base or 0)
            if start > 0 and unit:
                container.seek(round((start - 0.5 / fps) / unit), stream=stream)
            for frame in container.decode(stream):
                place = num if frame.pts is None else round((frame.pts * unit - start) * fps)
                if place >= num:
                    break
                if place >= 0 and not frame.is_corrupt:
                    found[place] = _converted(frame, "rgb24").to_ndarray()
    except av.FFmpegError as error:
        raise ValueError(f"{path.name} is missing, no video, or a damaged one ({error.strerror})") from error
    if len(found) < num:
        raise ValueError(f"{path.name} has {len(found)} of the {num} frames from second {start:.3f} on")
    return np.stack([found[place] for place in range(num)])


def _converted(frame: Any, pixel_format: str) -> Any:
    """The frame with other pixels, rounded in the same way wherever it lies in memory."""
    return pyav().video.reformatter.VideoReformatter().reformat(frame, None, None, pixel_format, interpolation=FILTER)


@contextmanager
def _as_os_errors(path: Path) -> Generator[None]:
    """FFmpeg's errors as those of the system: what fails while a file is written is the disk."""
    try:
        yield
    except pyav().FFmpegError as error:
        raise OSError(error.errno, f"Could not encode: {error.strerror}", str(path)) from error


def video_facts(video: VideoFile) -> dict[str, Any]:
    """What LeRobot writes down about a video."""
    context = video.stream.codec_context
    return {
        "video.height": context.height,
        "video.width": context.width,
        "video.codec": context.codec.canonical_name,
        "video.pix_fmt": context.pix_fmt,
        "video.fps": int(1 / video.rate),
        "video.channels": 3,
        "has_audio": False,
        "is_depth_map": False,
    }
