"""Batches of pictures, clips or series in random order, augmented where they are used: a function of (seed, step)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.data.augmentation import Augmentation, Crop, Plain, Views
from jepalab.data.samples import Samples
from jepalab.data.sprites import Split
from jepalab.dist import carry
from jepalab.types import Batch


@dataclass(frozen=True, eq=False)
class SampleStream:
    """A stream of observations with the factor "class" [b 1] (-1 unlabelled), each epoch in its own order.

    x is [b 1 c h w] of still pictures, [b t c h w] of clips, all frames of which are cropped and mirrored alike, and
    [b t c] of series. Two streams of one seed and batch size show the same samples in the same order, and with one
    augmentation the same crops, whatever else differs. Every batch is full: the rest of an epoch begins the first batch
    of the next.

    batch_size     samples of a batch.
    seed           of order and augmentation; with a step it determines a batch, so a run can resume anywhere.
    num_views      augmentations of each sample; the first is `x`, the others are `views`.
    augmentation   what happens to a training sample, `held_out` leaves it alone; None for series, which have none.
    split          that batches are drawn from.
    size           of pictures in pixels; None keeps theirs.
    num_train      samples that are used at all; a smaller number is a part of a larger one's. None uses the split.
    labelled_only  leaves out samples without a label.
    device         where bytes become pictures.
    """

    samples: Samples
    batch_size: int = 128
    seed: int = 0
    num_views: int = 1
    augmentation: Augmentation | None = field(default_factory=Crop)
    split: Split = "train"
    size: int | None = None
    num_train: int | None = None
    labelled_only: bool = False
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_views < 1 or (self.size is not None and self.size < 1):
            raise ValueError(
                "Batch size, number of views and size are at least 1, got "
                f"batch_size={self.batch_size}, num_views={self.num_views}, size={self.size}."
            )
        num = len(self._eligible)
        if not num:
            what = "labelled samples" if self.labelled_only else "samples"
            raise ValueError(f"The {self.split} split of {self.samples.source} is empty: it has no {what}.")
        if self.num_train is not None and not 1 <= self.num_train <= num:
            raise ValueError(f"Wanted num_train between 1 and the {num} samples there are, got {self.num_train}.")
        if len(self.samples.sample_shape) == 2 and (self.augmentation is not None or self.size is not None):
            raise ValueError("A series is neither augmented nor resized here: give augmentation=None and no size.")
        if isinstance(self.augmentation, Views) and self.samples.num_times > 1:
            raise ValueError("Views change the colours of still pictures; clips can be cropped and mirrored (Crop).")

    @property
    def clips_per_batch(self) -> int:
        return self.batch_size

    @property
    def frames_per_batch(self) -> int:
        return self.batch_size * self.samples.num_times

    @property
    def num_classes(self) -> int:
        return self.samples.num_classes

    @cached_property
    def _eligible(self) -> Int[Tensor, " m"]:
        eligible = self.samples.indices(self.split)
        return eligible[self.samples.labels[eligible] >= 0] if self.labelled_only else eligible

    @cached_property
    def members(self) -> Int[Tensor, " m"]:
        """Which samples this stream draws from, ascending."""
        members = self._eligible
        if self.num_train is None:
            return members
        return members[_permutation(len(members), f"subset {self.seed}")[: self.num_train]].sort().values

    def on(self, device: torch.device) -> SampleStream:
        """The same stream, its batches made on a device: bytes travel, floats are born there."""
        return replace(self, device=device)

    def indices(self, step: int) -> Int[Tensor, " b"]:
        """Which samples are in the batch of this step."""
        num = len(self.members)
        first, parts, wanted = step * self.batch_size, [], self.batch_size
        while wanted:
            epoch, place = divmod(first, num)
            parts.append(_permutation(num, f"epoch {epoch} {self.seed}")[place : place + wanted])
            first, wanted = first + len(parts[-1]), wanted - len(parts[-1])
        return self.members[torch.cat(parts)]

    def batch(self, step: int) -> Batch:
        """The batch of this step, a pure function of (seed, step)."""
        index = self.indices(step)
        x = self._observe(index)
        views = [self._shown(x, self.augmentation, f"view {i} {step} {self.seed}") for i in range(self.num_views)]
        return Batch(x=views[0], views=tuple(views[1:]), factors=self._factors(index))

    def held_out(self, split: Split, num_clips: int) -> Batch:
        """The first `num_clips` samples of a split in one order, the same for every seed; all where it has fewer.

        Of the split that batches are drawn from, the samples that batches may show.
        """
        members = self.members if split == self.split else self.samples.indices(split)
        if not len(members):
            raise ValueError(f"The {split} split of {self.samples.source} is empty: too few samples, or no labels.")
        index = members[_permutation(len(members), f"held out {split}")[:num_clips]]
        still = None if len(self.samples.sample_shape) == 2 else Plain()
        return Batch(x=self._shown(self._observe(index), still, "none"), factors=self._factors(index))

    def _observe(self, index: Int[Tensor, " b"]) -> Float[Tensor, "b t *obs"]:
        """Bytes travel, floats are born on the device."""
        return self.samples.as_floats(carry(self.samples.read(index), torch.device(self.device)))

    def _shown(
        self, x: Float[Tensor, "b t *obs"], augmentation: Augmentation | None, purpose: str
    ) -> Float[Tensor, "b t *shown"]:
        if augmentation is None:
            return x
        frames = x.shape[1:3]
        size = self.size or x.shape[-1]
        # The frames of a clip as channels of one picture: what happens to one happens to all.
        return augmentation(x.flatten(1, 2), size=size, generator=_generator(purpose)).unflatten(1, frames)

    def _factors(self, index: Int[Tensor, " b"]) -> dict[str, Tensor]:
        return {"class": carry(self.samples.labels[index], torch.device(self.device)).unsqueeze(1)}


def left_out(stream: object) -> str:
    """`Samples.left_out` of what a stream draws from; nothing for a stream of made things."""
    return stream.samples.left_out() if isinstance(stream, SampleStream) else ""


def _generator(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:7], "big"))


@lru_cache(maxsize=4)
def _permutation(num: int, purpose: str) -> Int[Tensor, " num"]:
    """Cached, since many batches in a row share an epoch."""
    return torch.randperm(num, generator=_generator(purpose))
