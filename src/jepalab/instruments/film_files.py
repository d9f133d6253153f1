"""Films and pictures as files: whether a place can be written, told before hours of playing, and how."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jepalab.data.clip_files import pyav
from jepalab.data.episode_videos import VideoFile, check_encoder

FILMS, PICTURES = (".gif", ".mp4"), (".png",)
LAST_FRAMES = 3  # the last frame of each film is shown so often more
FPS = 12
MP4 = "h264"


def check_place(place: Path, suffixes: Sequence[str]) -> None:
    """Makes the folder, and tells now what would go wrong later.

    Raises:
        ValueError: another suffix than these, mp4 without PyAV (the extra `video`), or a place that cannot be written.
    """
    if place.suffix.lower() not in suffixes:
        raise ValueError(f"Wanted a file that ends in {' or '.join(suffixes)}, got {place}.")
    if place.suffix.lower() == ".mp4":
        pyav()
        check_encoder(MP4, height=2, width=2)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            raise IsADirectoryError(f"{place} is a folder")
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise ValueError(f"{place} cannot be written: {error}.") from error


def write_films(place: Path, films: Sequence[UInt8[np.ndarray, "_ y x 3"]]) -> None:
    """The films one after the other, as a GIF or an MP4, whichever the suffix says."""
    frames = np.concatenate([np.concatenate([film, *[film[-1:]] * LAST_FRAMES]) for film in films])
    if place.suffix.lower() == ".gif":
        first, *others = map(Image.fromarray, frames)
        first.save(place, save_all=True, append_images=others, duration=1000 // FPS, loop=0)
        return
    odd = [(0, 0), *((0, side % 2) for side in frames.shape[1:3]), (0, 0)]
    frames = np.pad(frames, odd, constant_values=255)
    video = VideoFile(place, encoder=MP4, fps=FPS, height=frames.shape[1], width=frames.shape[2])
    is_whole = False
    try:
        video.add(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        is_whole = True
    finally:
        video.close(is_whole=is_whole)
