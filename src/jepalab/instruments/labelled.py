"""Embeddings of labelled samples, read once for every instrument, and the subject that such instruments judge.

All is read in evaluation mode, without gradient and without augmentation, on the device the objective is on, under
bfloat16 autocast as it was trained. Features come back as float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.data.augmentation import LUMA, Crop, Plain
from jepalab.data.sample_stream import SampleStream
from jepalab.data.samples import Samples
from jepalab.data.sprites import SPLITS, Split
from jepalab.dist import autocast
from jepalab.types import Encoder, Objective, PatchEncoder

SAMPLES_AT_ONCE = 256
NUM_SAMPLES: Mapping[Split, int] = {"train": 50_000, "validation": 5_000, "test": 10_000}


@dataclass(frozen=True)
class FrozenSamples:
    """What an encoder says of n samples of one split, in random order, so that the first k are a random sample.

    levels  [n l d] float32 on the CPU: the mean over the tokens of each level of the encoder; the last is its output.
    labels  [n], all known.
    index   [n] places in the set of samples.
    """

    levels: Float[Tensor, "n l d"]
    labels: Int[Tensor, " n"]
    index: Int[Tensor, " n"]

    def __post_init__(self) -> None:
        if not len(self.levels) == len(self.labels) == len(self.index):
            raise ValueError(
                f"wanted a label and a place for each of {len(self.levels)} samples, got {len(self.labels)} labels and "
                f"{len(self.index)} places"
            )
        check_finite(self.levels)

    @property
    def z(self) -> Float[Tensor, "n d"]:
        """The pooled output of the encoder."""
        return self.levels[:, -1]


@dataclass(frozen=True)
class LabelledSubject:
    """What an instrument judges: one encoder of a trained objective, on three splits of labelled samples.

    size  of the pictures that the encoder takes, in pixels; None if it is that of the samples, or they are series.
    seed  of the run, for read-outs that draw labels: the same for every arm of a seed.
    crop  that the run trains with, where its augmentation is one and nothing else.
    """

    objective: Objective
    encoder: Encoder
    samples: Samples
    train: FrozenSamples
    validation: FrozenSamples
    test: FrozenSamples
    size: int | None = None
    seed: int = 0
    crop: Crop | None = None

    def part(self, split: Split) -> FrozenSamples:
        """The part by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


class Tokens(NamedTuple):
    """Every token of the encoder's output, not pooled, and the samples' labels."""

    z: Float[Tensor, "n t d"]
    labels: Int[Tensor, " n"]


def labelled_subjects(
    objective: Objective,
    stream: SampleStream,
    *,
    share: float = 1.0,
    num_samples: Mapping[Split, int] = NUM_SAMPLES,
) -> dict[str, LabelledSubject]:
    """One subject for each encoder that the objective would hand over ("student", and a "teacher" that follows it).

    share        of `num_samples` to use at most, for a quick look.
    num_samples  how many labelled samples of each split are read at most; the same ones for every encoder.

    Pictures have the stream's size and are not augmented; the stream's other settings play no part. The objective
    stays on its device and is left as it was. ValueError where a split has no labelled samples.
    """
    samples, size = stream.samples, stream.size
    crop = stream.augmentation if isinstance(stream.augmentation, Crop) else None
    index = {split: split_index(samples, split, max(2, round(share * num_samples[split]))) for split in SPLITS}
    found = {}
    for name, encoder in objective.probed_encoders().items():
        parts = {split: freeze(encoder, samples, index[split], size=size) for split in SPLITS}
        found[name] = LabelledSubject(objective, encoder, samples, **parts, size=size, seed=stream.seed, crop=crop)
    return found


def encoder_named(objective: Objective, name: str = "") -> Encoder:
    """The encoder of this name that the objective would hand over; without a name the first."""
    every = objective.probed_encoders()
    return every[name or next(iter(every))]


def split_index(samples: Samples, split: Split, num_samples: int) -> Int[Tensor, " n"]:
    """Places of labelled samples of a split, in an order drawn once and for all; a smaller number gives the first."""
    labels, places = samples.labels, samples.indices(split)
    places = places[labels[places] >= 0]
    if len(places) < 2:
        raise ValueError(
            f"wanted at least 2 labelled samples in the {split} split, got {len(places)} ({int((labels >= 0).sum())} "
            f"labelled of {len(labels)} in all); give labels, or split them anew"
        )
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(SPLITS.index(split)))
    return places[order[:num_samples]]


def freeze(
    encoder: Encoder,
    samples: Samples,
    index: Int[Tensor, " n"],
    *,
    size: int | None = None,
    channels: int | None = None,
) -> FrozenSamples:
    """The encoder's pooled levels of the samples at these places; `size` and `channels` as in `observe`."""

    def pooled(x: Tensor) -> Tensor:
        return torch.stack([tokens.float().mean(dim=1) for tokens in _levels(encoder, x)], dim=1)

    levels = read(encoder, samples, index, pooled, size=size, channels=channels)
    return FrozenSamples(levels, samples.labels[index], index)


def tokens(subject: LabelledSubject, split: Split, num_samples: int) -> Tokens:
    """The encoder's output on the first samples of a split, float32 on the CPU: n x t x d x 4 bytes."""
    part = subject.part(split)
    z = read(subject.encoder, subject.samples, part.index[:num_samples], subject.encoder, size=subject.size)
    check_finite(z)
    return Tokens(z, part.labels[:num_samples])


@torch.no_grad()
def read(
    module: nn.Module,
    samples: Samples,
    index: Int[Tensor, " n"],
    function: Callable[[Tensor], Tensor],
    *,
    size: int | None = None,
    channels: int | None = None,
) -> Float[Tensor, "n ..."]:
    """function(x) for the samples at these places, batch by batch, with the module in evaluation mode."""
    device, found = device_of(module), None
    with evaluating(module):
        for start in range(0, len(index), SAMPLES_AT_ONCE):
            rows = slice(start, start + SAMPLES_AT_ONCE)
            with autocast(device):
                x = observe(samples, index[rows], device=device, size=size, channels=channels)
                part = function(x).float().cpu()
            if found is None:  # filled in place: a list of parts would hold everything twice when joined
                found = torch.empty(len(index), *part.shape[1:])
            found[rows] = part
    assert found is not None, "no samples to read"
    return found


def observe(
    samples: Samples,
    index: Int[Tensor, " n"],
    *,
    device: torch.device,
    size: int | None = None,
    channels: int | None = None,
) -> Float[Tensor, "n t *obs"]:
    """The samples at these places as a network reads them, on the device: pictures as floats in [0, 1].

    size, channels  of pictures, wanted in place of their own: they are resized, grey is repeated over three channels,
                    and colour becomes grey by its luma.
    """
    x = samples.as_floats(samples.read(index).to(device))
    if channels is not None and channels != samples.channels:
        if channels not in {1, 3} or samples.channels not in {1, 3} or x.ndim == 3:
            raise ValueError(
                f"pictures have 1 channel (grey) or 3 (colour) and can be turned into the other, series cannot; got "
                f"{channels} for samples [{', '.join(map(str, samples.sample_shape))}]"
            )
        grey = x.new_tensor(LUMA)[:, None, None]
        x = x.expand(-1, -1, 3, -1, -1) if channels == 3 else (x * grey).sum(2, keepdim=True)
    if size is not None:
        frames = x.shape[1:3]
        x = Plain()(x.flatten(1, 2), size=size, generator=torch.Generator()).unflatten(1, frames)
    return x


def known_classes(train: FrozenSamples) -> Int[Tensor, " c"]:
    """The labels seen in training, ascending. ValueError below two."""
    classes = train.labels.unique()
    if len(classes) < 2:
        raise ValueError(
            f"wanted at least 2 classes in the training labels, got {classes.tolist()}; label more samples"
        )
    return classes


def class_index(labels: Int[Tensor, " n"], classes: Int[Tensor, " c"]) -> Int[Tensor, " n"]:
    """Each label's place among the classes; -1 for a label that training has not seen."""
    place = torch.searchsorted(classes, labels).clamp_max(len(classes) - 1)
    return torch.where(classes[place] == labels, place, -1)


def check_finite(z: Float[Tensor, "*shape"]) -> None:
    """ValueError if any embedding is NaN or infinite."""
    num_bad = int((~z.isfinite()).sum())
    if num_bad:
        raise ValueError(
            f"embeddings {tuple(z.shape)} must be finite, but {num_bad} numbers are NaN or infinite; find the step "
            "where the training diverged, and lower the learning rate"
        )


def device_of(module: nn.Module) -> torch.device:
    """Where the module's numbers lie; the CPU if it has none."""
    return next(chain(module.parameters(), module.buffers()), torch.zeros(())).device


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """float32 inside `dist.autocast`: pictures that are changed there must keep their eight bits."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module and all in it in evaluation mode inside; each part as it was afterwards."""
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in was:
            part.training = training


def _levels(encoder: Encoder, x: Tensor) -> list[Tensor]:
    network: object = encoder
    if not isinstance(network, PatchEncoder):
        return [encoder(x)]
    # Levels of another width (early stages of a convolutional network) cannot stand in one table with the last.
    return [level for level in network.levels(x) if level.shape[-1] == encoder.dim]
