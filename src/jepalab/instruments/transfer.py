"""Transfer: the frozen encoder judged on a second set of images that it has not seen, with that set's own labels."""

from __future__ import annotations

from collections.abc import Mapping

from jepalab.data.images import Images
from jepalab.data.sprites import SPLITS, Split
from jepalab.instruments.labelled import NUM_SAMPLES, LabelledSubject, freeze, split_index
from jepalab.instruments.recognition import read_out
from jepalab.types import Encoder


def transfer(
    subject: LabelledSubject, *, images: Images, num_samples: Mapping[Split, int] = NUM_SAMPLES
) -> dict[str, float]:
    """`transfer_linear`, `transfer_knn` and what was chosen on validation, on a second set of labelled images.

    The images are brought to the size and the channels of those that the encoder was trained on.
    """
    size, channels = subject.size or subject.samples.sample_shape[-1], subject.samples.channels
    return transfer_scores(subject.encoder, images, size=size, channels=channels, num_samples=num_samples)


def transfer_scores(
    encoder: Encoder,
    images: Images,
    *,
    size: int,
    channels: int,
    num_samples: Mapping[Split, int] = NUM_SAMPLES,
) -> dict[str, float]:
    """The same for an encoder alone, which takes square images of `size` pixels a side and this many channels.

    Images are resized to it; grey is repeated over three channels, colour becomes grey by its luma.
    """
    train, validation, test = (
        freeze(encoder, images, split_index(images, split, num_samples[split]), size=size, channels=channels)
        for split in SPLITS
    )
    return {f"transfer_{name}": score for name, score in read_out(train, validation, test).items()}
