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
from jepalab.recipes.idle_flags import refuse_idle_flags
from jepalab.types import Encoder


@dataclass(frozen=True)
class Opening:
    """How data becomes samples.

    Args:
        labels: CSV of file,label; otherwise labels come from sub-folders or the data's own column. A third column
            called group, subject or the like says whom or what a file shows: no group is in two splits. Of a .npy of
            series, a .npy or CSV with a class for each window. Of pictures, none: there are no labels, whatever their
            folders or the files beside them say.
        groups: of a .npy of series, a .npy or CSV of whom each window was measured on.
        stride: of video, frames from one frame of a clip to the next.
        fps: of video, frames a second of a clip, in place of the stride.
        clips_per_video: cut out of each video, evenly spread.
        hop: of series, rows from one window to the next; without it, a window.
        channels: of series, columns to use; without them, all that are neither label, group nor clock.
        label_column: of the CSV of labels, of parquet or of tables of series, where it is not called label, class,
            target or the like.
        group_column: of the CSV of labels or of tables of series, where it is not called group, subject, person or the
            like; no group is in two splits.
        cache: where decoded data is kept.
    """

    labels: Path | None = None
    groups: Path | None = None
    stride: int = 2
    fps: float | None = None
    clips_per_video: int = 1
    hop: int | None = None
    channels: tuple[str, ...] | None = None
    label_column: str | None = None
    group_column: str | None = None
    cache: Path | None = None


OF_SERIES = ("hop", "groups", "channels")
OF_VIDEO = ("stride", "fps", "clips_per_video")


def open_for(encoder: Encoder, data: Path, opening: Opening, *, needs_splits: bool = True) -> Samples:
    """What lies at `data`, as samples that this encoder takes but for their colour. Shows its progress.

    needs_splits  False takes samples too that cannot be split, as `open_images` has it.

    ValueError where a flag was given that says nothing of what the encoder reads, beside what opening it raises.
    """
    shape = read_shape(encoder)
    if len(shape) == 2:
        refuse_idle_flags(opening, OF_VIDEO, because="this encoder reads series")
        return open_series(
            data,
            window=shape[0],
            hop=opening.hop,
            labels=opening.labels,
            groups=opening.groups,
            channels=opening.channels,
            label_column=opening.label_column,
            group_column=opening.group_column,
            cache=opening.cache,
            needs_splits=needs_splits,
        )
    refuse_idle_flags(opening, OF_SERIES, because="this encoder reads no series")
    with count_items(f"decoding {data}") as progress:
        if shape[0] == 1:
            refuse_idle_flags(opening, OF_VIDEO, because="this encoder reads single pictures")
            return open_images(
                data,
                size=shape[-1],
                labels=opening.labels,
                label_column=opening.label_column,
                group_column=opening.group_column,
                cache=opening.cache,
                needs_splits=needs_splits,
                progress=progress,
            )
        if opening.fps is not None:
            refuse_idle_flags(opening, ("stride",), because="--fps says which frames are taken")
        return open_clips(
            data,
            num_frames=shape[0],
            size=shape[-1],
            stride=opening.stride if opening.fps is None else 1,
            fps=opening.fps,
            clips_per_video=opening.clips_per_video,
            labels=opening.labels,
            label_column=opening.label_column,
            group_column=opening.group_column,
            cache=opening.cache,
            needs_splits=needs_splits,
            progress=progress,
        )
