"""What every arm on pictures shares: the data, the encoder's first weights, the heads' budget, the schedule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.patch_heads import PatchHead, build_of_size
from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.compare.cells import Judging
from jepalab.data.augmentation import Augmentation, Crop
from jepalab.data.images import Images, open_images
from jepalab.data.sample_stream import SampleStream
from jepalab.dist import Precision, seeded
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import LabelledSubject, labelled_subjects
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.recognition import recognition
from jepalab.masks.blocks import Blocks
from jepalab.masks.random import RandomMask
from jepalab.masks.reference import ReferenceBlocks
from jepalab.progress import count_items
from jepalab.run import Run, count_parameters
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
    subjects=subjects_where_labelled,
    chief=("linear", "logistic", "knn", "linear_best_level", "shot_10", "shots_auc", "rankme", "rankme_centred"),
)


@dataclass(frozen=True)
class Pictures:
    """Where the pictures come from.

    Args:
        data: a folder of images (class sub-folders or none), Hugging Face parquet, webdataset tars or IDX files.
        labels: a CSV of file,label; otherwise labels come from sub-folders or the data's own column.
        size: pictures are cut square and resized to this many pixels.
        cache: where decoded pictures are kept; decoding happens once.
    """

    # What is not in the repr does not tell settings apart: a comparison goes on where its data was moved to.
    data: Path = field(default=Path("data"), repr=False)
    labels: Path | None = field(default=None, repr=False)
    size: int = 32
    cache: Path | None = field(default=None, repr=False)
    digest: Annotated[str, tyro.conf.Suppress] = ""

    def open(self) -> Images:
        """The decoded pictures, memory-mapped; decoding shows its progress."""
        images = _open(self.data, self.labels, self.size, self.cache)
        if self.digest and images.digest != self.digest:
            raise ValueError(
                f"{self.data} holds other pictures (digest {images.digest[:12]}) than those this began with "
                f"({self.digest[:12]}). Start anew in another folder (--out)."
            )
        return images

    def named(self) -> Pictures:
        """The same, known by their content: settings on other pictures are other settings."""
        return replace(self, digest=self.open().digest)


@cache
def _open(data: Path, labels: Path | None, size: int, cache: Path | None) -> Images:
    with count_items(f"decoding {data}") as progress:
        return open_images(data, size=size, labels=labels, cache=cache, progress=progress)


@dataclass(frozen=True)
class Network:
    """The encoder that every arm trains, and the budget of the head beside it.

    Args:
        patch: side of a patch in pixels; it divides the size of the pictures.
        width: of the encoder's tokens.
        depth: blocks of the encoder.
        num_heads: of each block.
        head_width: of the predictor or decoder; all heads have about as many parameters.
        head_depth: blocks of the predictor or decoder.
    """

    patch: int = 4
    width: int = 192
    depth: int = 6
    num_heads: int = 3
    head_width: int = 96
    head_depth: int = 3


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the same fields for every arm.

    Args:
        steps: how many times the optimizer moves.
        batch_size: pictures in a step.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        warmup: share of the steps in which the learning rate rises.
        crop: smallest share of a picture that a random crop keeps.
        precision: "bf16" runs matrix products in bfloat16, weights stay in float32.
    """

    steps: int = 2000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    crop: float = 0.5
    precision: Precision = "bf16"


@dataclass(frozen=True)
class ImageBench:
    """What every arm of a seed shares.

    Args:
        pictures: where they come from.
        network: the encoder and the budget of the heads.
        schedule: how long and how fast.
        seed: of the order of samples and of the weights.
    """

    pictures: Pictures = field(default_factory=Pictures)
    network: Network = field(default_factory=Network)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        side, patch = self.pictures.size, self.network.patch
        if side % patch or side // patch < 4:
            raise ValueError(
                f"Pictures of {side} pixels cannot be cut into at least 4 x 4 patches of {patch}; choose a patch that "
                f"divides {side}, at most {side // 4}."
            )
        return side // patch, side // patch

    def images(self) -> Images:
        return self.pictures.open()

    def stream(self, *, num_views: int = 1, augmentation: Augmentation | None = None) -> SampleStream:
        """The same pictures in the same order for every arm of this seed, and the same crops for one view."""
        crop = Crop(scale=(self.schedule.crop, 1.0))
        return SampleStream(
            self.images(),
            batch_size=self.schedule.batch_size,
            seed=self.seed,
            num_views=num_views,
            augmentation=augmentation or crop,
        )

    def encoder(self) -> ViT:
        """The same first weights for every arm of this seed, normalised by the training pictures."""
        n, images = self.network, self.images()
        mean, std = images.mean_std()
        with seeded(self.seed):
            return ViT(
                self.grid,
                patch=(n.patch, n.patch),
                channels=images.channels,
                dim=n.width,
                depth=n.depth,
                num_heads=n.num_heads,
                mean=mean,
                std=std,
            )

    def resnet(self) -> ResNet:
        """A convolutional encoder instead, for the objectives that hide nothing."""
        images = self.images()
        mean, std = images.mean_std()
        with seeded(self.seed):
            return ResNet(self.pictures.size, channels=images.channels, mean=mean, std=std)

    def backbone(self, name: Backbone) -> ViT | ResNet:
        """The transformer, or for objectives that hide nothing a residual network."""
        return self.encoder() if name == "vit" else self.resnet()

    def sampler(self, name: SamplerName = "blocks", *, hidden: float = 0.75) -> MaskSampler:
        """I-JEPA's blocks done right, the official sampler with its bias, or random patches."""
        if name == "random":
            return RandomMask(self.grid, share=hidden)
        return Blocks(self.grid) if name == "blocks" else ReferenceBlocks(self.grid, min_keep=4)

    def predictor(self, out_dim: int, *, context_dim: int | None = None) -> MaskedPredictor:
        """I-JEPA's predictor, or MAE's decoder: what it answers is up to `out_dim`."""
        n = self.network
        with seeded(self.seed + 1):
            return MaskedPredictor(
                n.width,
                out_dim,
                grid=self.grid,
                width=n.head_width,
                depth=n.head_depth,
                num_heads=n.num_heads,
                context_dim=context_dim,
            )

    def patch_head(self, out_dim: int) -> PatchHead:
        """A head that answers for each token alone, with about as many parameters as I-JEPA's predictor."""
        n = self.network
        budget = count_parameters(self.predictor(n.width))
        with seeded(self.seed + 1):
            return build_of_size(
                budget, lambda width: PatchHead(n.width, out_dim, width=width, depth=n.head_depth), step=8
            )

    def denoiser(self, out_dim: int) -> DenoisingDecoder:
        """A head that sees every token, as wide and deep as I-JEPA's predictor."""
        n = self.network
        with seeded(self.seed + 1):
            return DenoisingDecoder(
                n.width, out_dim, grid=self.grid, width=n.head_width, depth=n.head_depth, num_heads=n.num_heads
            )

    def run(self, objective: Objective, *, stream: SampleStream | None = None) -> Run:
        s = self.schedule
        return Run(
            objective=objective,
            stream=stream or self.stream(),
            steps=s.steps,
            lr=s.lr,
            weight_decay=s.weight_decay,
            warmup=s.warmup,
            precision=s.precision,
            seed=self.seed,
        )

    def with_schedule(self, **changes: float | int) -> ImageBench:
        """The same bench on another schedule."""
        return replace(self, schedule=replace(self.schedule, **changes))  # pyrefly: ignore[bad-argument-type]
