"""What every arm on series shares: the recordings, windows of them, spans as masks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jepalab.compare.cells import Judging
from jepalab.data.augmentation import Augmentation
from jepalab.data.hapt import MAGNITUDES, hapt
from jepalab.data.sample_stream import SampleStream
from jepalab.data.series import Series, open_series
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.recognition import recognition
from jepalab.instruments.sample_geometry import sample_geometry
from jepalab.masks.blocks import Blocks
from jepalab.masks.causal import PastFuture
from jepalab.masks.random import RandomMask
from jepalab.recipes.idle_flags import refuse_idle_flags
from jepalab.recipes.image_bench import subjects_where_labelled
from jepalab.recipes.patch_bench import Network, PatchBench
from jepalab.recipes.remembered import once_here
from jepalab.types import MaskSampler

SERIES_NETWORK = Network(patch=8, width=128, depth=4, num_heads=4, head_width=64, head_depth=2)
SpanSampler = Literal["blocks", "random", "causal"]


@dataclass(frozen=True)
class Recordings:
    """Where the series come from.

    Args:
        data: CSV, parquet or .npy of series, or a folder of them; without it, the smartphone data HAPT, whose package
            has to be installed.
        labels: of one .npy, a .npy or CSV with a class for each of its windows or rows; tables have columns.
        groups: of one .npy likewise, whom each window or row was measured on; no group is in two splits. Windows that
            are cut already need them, or neighbours that overlap lie in two splits.
        channels: columns to use; without them, all that are neither label, group nor clock.
        window: rows of a window.
        hop: rows from one window to the next.
        label_column: of tables, where it is not called label, class, target or activity.
        group_column: of tables, whom a row was measured on; no group is in two splits.
        rate: rows in a second, where that is known.
        cache: where windows are kept.
    """

    # What is not in the repr does not tell settings apart: a comparison goes on where its data was moved to.
    data: Path | None = field(default=None, repr=False)
    labels: Path | None = field(default=None, repr=False)
    groups: Path | None = field(default=None, repr=False)
    channels: tuple[str, ...] | None = field(default=None, repr=False)
    window: int = 128
    hop: int = 64
    label_column: str | None = field(default=None, repr=False)
    group_column: str | None = field(default=None, repr=False)
    rate: float | None = field(default=None, repr=False)
    cache: Path | None = field(default=None, repr=False)
    digest: Annotated[str, tyro.conf.Suppress] = ""

    def open(self) -> Series:
        """The windows, memory-mapped."""
        series = _open(replace(self, digest=""))
        if self.digest and series.digest != self.digest:
            raise ValueError(
                f"{self.data or 'HAPT'} holds other windows (digest {series.digest[:12]}) than those this began with "
                f"({self.digest[:12]}). Start anew in another folder (--out)."
            )
        return series

    def named(self) -> Recordings:
        """The same, known by their content: settings on other windows are other settings."""
        return replace(self, digest=self.open().digest)

    @property
    def magnitudes(self) -> tuple[tuple[int, ...], ...]:
        """Channels that are one vector, where that is known."""
        return MAGNITUDES if self.data is None else ()


@once_here
def _open(recordings: Recordings) -> Series:
    if recordings.data is None:
        given = ("labels", "groups", "channels", "label_column", "group_column", "rate")
        refuse_idle_flags(recordings, given, because="without --data, HAPT is read, which has its own")
        return hapt(window=recordings.window, hop=recordings.hop, cache=recordings.cache)
    return open_series(
        recordings.data,
        window=recordings.window,
        hop=recordings.hop,
        labels=recordings.labels,
        groups=recordings.groups,
        channels=recordings.channels,
        label_column=recordings.label_column,
        group_column=recordings.group_column,
        rate=recordings.rate,
        cache=recordings.cache,
    )


SERIES_JUDGING = Judging(
    instruments=(recognition, layer_sweep, label_efficiency, sample_geometry),
    subjects=subjects_where_labelled,
    chief=("linear", "logistic", "knn", "linear_best_level", "shot_10", "shots_auc", "rankme", "rankme_centred"),
)


@dataclass(frozen=True)
class SeriesBench(PatchBench):
    """What every arm of a seed shares.

    Args:
        network: the encoder and the budget of the heads.
        schedule: how long and how fast.
        seed: of the order of samples and of the weights.
        recordings: where the series come from.
    """

    network: Network = field(default_factory=lambda: SERIES_NETWORK)
    recordings: Recordings = field(default_factory=Recordings)

    @property
    def patch(self) -> tuple[int, ...]:
        return (self.network.patch,)

    @property
    def grid(self) -> tuple[int, ...]:
        window, patch = self.recordings.window, self.network.patch
        if window % patch or window // patch < 4:
            raise ValueError(
                f"Windows of {window} rows cannot be cut into at least 4 patches of {patch}; choose a patch that "
                f"divides {window}, at most {window // 4}."
            )
        return (window // patch,)

    def samples(self) -> Series:
        return self.recordings.open()

    def stream(self, *, num_views: int = 1, augmentation: Augmentation | None = None) -> SampleStream:
        s = self.schedule
        return SampleStream(
            self.samples(), batch_size=s.batch_size, seed=self.seed, num_views=num_views, augmentation=augmentation
        )

    def sampler(self, name: SpanSampler, *, hidden: float = 0.5) -> MaskSampler:
        """Spans as I-JEPA's blocks, random patches, or the first half as context of the second."""
        if name == "blocks":
            return Blocks(self.grid)
        if name == "random":
            return RandomMask(self.grid, share=hidden)
        return PastFuture(self.grid, num_context=self.grid[0] // 2)
