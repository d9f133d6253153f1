"""Data opened as an encoder reads it: still pictures, clips or series, in the size it was built for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jepalab.data.clips import open_clips
from jepalab.data.images import open_images
from jepalab.data.samples import Samples
from jepalab.data.series import open_series
from jepalab.instruments.matching import read_shape
from jepalab.progress import count_items
from jepalab.types import Encoder


@dataclass(frozen=True)
class Opening:
    """How data becomes samples.

    Args:
        labels: CSV of file,label; otherwise labels come from sub-folders or the data's own column.
        stride: of video, frames from one frame of a clip to the next.
        fps: of video, frames a second of a clip, in place of the stride.
        clips_per_video: cut out of each video, evenly spread.
        hop: of series, rows from one window to the next; without it, a window.
        label_column: of tables of series, where it is not called label, class, target or activity.
        group_column: of tables of series, whom a row was measured on; no group is in two splits.
        cache: where decoded data is kept.
    """

    labels: Path | None = None
    stride: int = 2
    fps: float | None = None
    clips_per_video: int = 1
    hop: int | None = None
    label_column: str | None = None
    group_column: str | None = None
    cache: Path | None = None


def open_for(encoder: Encoder, data: Path, opening: Opening) -> Samples:
    """What lies at `data`, as samples that this encoder takes but for their colour. Shows its progress."""
    shape = read_shape(encoder)
    if len(shape) == 2:
        return open_series(
            data,
            window=shape[0],
            hop=opening.hop,
            label_column=opening.label_column,
            group_column=opening.group_column,
            cache=opening.cache,
        )
    with count_items(f"decoding {data}") as progress:
        if shape[0] == 1:
            return open_images(data, size=shape[-1], labels=opening.labels, cache=opening.cache, progress=progress)
        return open_clips(
            data,
            num_frames=shape[0],
            size=shape[-1],
            stride=opening.stride,
            fps=opening.fps,
            clips_per_video=opening.clips_per_video,
            labels=opening.labels,
            cache=opening.cache,
            progress=progress,
        )
