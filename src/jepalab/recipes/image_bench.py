"""What every arm on pictures shares: the data, the encoder's first weights, the heads' budget, the schedule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.compare.cells import Judging
from jepalab.data.augmentation import Augmentation, Crop
from jepalab.data.images import Images, open_images
from jepalab.data.sample_stream import SampleStream
from jepalab.dist import seeded
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import LabelledSubject, labelled_subjects
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.likelihood import BITS, bits_per_dimension
from jepalab.instruments.recognition import recognition
from jepalab.masks.blocks import Blocks
from jepalab.masks.random import RandomMask
from jepalab.masks.reference import ReferenceBlocks
from jepalab.progress import count_items
from jepalab.recipes.patch_bench import PatchBench
from jepalab.recipes.remembered import once_here
from jepalab.types import MaskSampler, Objective

Backbone = Literal["vit", "resnet"]
SamplerName = Literal["blocks", "reference", "random"]


def subjects_where_labelled(
    objective: Objective, stream: SampleStream, *, share: float = 1.0
) -> dict[str, LabelledSubject]:
    """What the instruments read of each encoder; nothing where fewer than two classes have labels."""
    return labelled_subjects(objective, stream, share=share) if stream.samples.num_classes > 1 else {}


JUDGING = Judging(
    instruments=(recognition, layer_sweep, label_efficiency, image_geometry),
    of_the_first=(bits_per_dimension,),
    subjects=subjects_where_labelled,
    chief=("linear", "logistic", "knn", "linear_best_level", "shot_10", "shots_auc", "rankme", "rankme_centred", BITS),
)


@dataclass(frozen=True)
class Pictures:
    """Where the pictures come from.

    Args:
        data: a folder of images (class sub-folders or none), Hugging Face parquet, webdataset tars or IDX files; or
            fashion-mnist, which is fetched into the cache (30 MB).
        labels: a CSV of file,label; otherwise labels come from sub-folders or the data's own column. A third column
            called group, subject or the like says whom or what a file shows: no group is in two splits. none: there are
            no labels, whatever folders or the files beside the pictures say.
        label_column: of that CSV, or without one of parquet, where it is not called label, class, target or the like.
        group_column: of that CSV, where it is not called group, subject, person or the like.
        size: pictures are cut square and resized to this many pixels.
        cache: where decoded pictures are kept; decoding happens once.
    """

    # What is not in the repr does not tell settings apart: a comparison goes on where its data was moved to.
    data: Path = field(default=Path("data"), repr=False)
    labels: Path | None = field(default=None, repr=False)
    label_column: str | None = field(default=None, repr=False)
    group_column: str | None = field(default=None, repr=False)
    size: int = 32
    cache: Path | None = field(default=None, repr=False)
    digest: Annotated[str, tyro.conf.Suppress] = ""

    def open(self) -> Images:
        """The decoded pictures, memory-mapped; decoding shows its progress."""
        images = _open(replace(self, digest=""))
        if self.digest and images.digest != self.digest:
            raise ValueError(
                f"{self.data} holds other pictures (digest {images.digest[:12]}) than those this began with "
                f"({self.digest[:12]}). Start anew in another folder (--out)."
            )
        return images

    def named(self) -> Pictures:
        """The same, known by their content: settings on other pictures are other settings."""
        return replace(self, digest=self.open().digest)


@once_here
def _open(pictures: Pictures) -> Images:
    with count_items(f"decoding {pictures.data}") as progress:
        return open_images(
            pictures.data,
            size=pictures.size,
            labels=pictures.labels,
            label_column=pictures.label_column,
            group_column=pictures.group_column,
            cache=pictures.cache,
            progress=progress,
        )


@dataclass(frozen=True)
class ImageBench(PatchBench):
    """What every arm of a seed shares.

    Args:
        network: the encoder and the budget of the heads.
        schedule: how long and how fast.
        seed: of the order of samples and of the weights.
        pictures: where they come from.
    """

    pictures: Pictures = field(default_factory=Pictures)

    @property
    def patch(self) -> tuple[int, ...]:
        return self.network.patch, self.network.patch

    @property
    def grid(self) -> tuple[int, ...]:
        side, patch = self.pictures.size, self.network.patch
        if side % patch or side // patch < 4:
            raise ValueError(
                f"Pictures of {side} pixels cannot be cut into at least 4 x 4 patches of {patch}; choose a patch that "
                f"divides {side}, at most {side // 4}."
            )
        return side // patch, side // patch

    def samples(self) -> Images:
        return self.pictures.open()

    def stream(self, *, num_views: int = 1, augmentation: Augmentation | None = None) -> SampleStream:
        crop = Crop(scale=(self.schedule.crop, 1.0))
        return SampleStream(
            self.samples(),
            batch_size=self.schedule.batch_size,
            seed=self.seed,
            num_views=num_views,
            augmentation=augmentation or crop,
        )

    def resnet(self) -> ResNet:
        """A convolutional encoder instead, for the objectives that hide nothing."""
        images = self.samples()
        mean, std = images.mean_std()
        with seeded(self.seed):
            return ResNet(self.pictures.size, channels=images.channels, mean=mean, std=std)

    def backbone(self, name: Backbone) -> ViT | ResNet:
        """The transformer, or for objectives that hide nothing a residual network."""
        return self.encoder() if name == "vit" else self.resnet()

    def sampler(self, name: SamplerName = "blocks", *, hidden: float = 0.75) -> MaskSampler:
        """I-JEPA's blocks done right, the official sampler with its bias, or random patches.

        The official sampler has min_keep=4 here: with its own 10 it would never end on a grid of 8 x 8, where its
        smallest target blocks have fewer patches.
        """
        if name == "random":
            return RandomMask(self.grid, share=hidden)
        return Blocks(self.grid) if name == "blocks" else ReferenceBlocks(self.grid, min_keep=4)
