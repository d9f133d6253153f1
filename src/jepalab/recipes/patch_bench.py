"""What every arm of a seed shares where a ViT reads patches: first weights, the budget of the heads, the schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from math import lcm, prod
from typing import TypeVar

import torch
from torch import nn

from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.patch_heads import PatchHead, build_of_size
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.positions import Positions
from jepalab.backbones.vit import ViT
from jepalab.data.augmentation import Augmentation
from jepalab.data.sample_stream import SampleStream
from jepalab.data.samples import Samples
from jepalab.dist import Precision, seeded
from jepalab.objectives.supervised import Supervised
from jepalab.objectives.untrained import Untrained
from jepalab.run import Run, count_parameters
from jepalab.types import Encoder, Objective

PCA_FRAMES, PCA_BYTES = 5_000, 2 * 10**8  # what components are fitted to, at most: frames, and their size in float64
Bench = TypeVar("Bench", bound="PatchBench")
Head = TypeVar("Head", bound=nn.Module)


@dataclass(frozen=True)
class Network:
    """The encoder that every arm trains, and the budget of the head beside it.

    Args:
        patch: side of a patch, in pixels or in rows of a series; it divides the size of the samples.
        width: of the encoder's tokens.
        depth: blocks of the encoder.
        num_heads: of each block.
        head_width: of the predictor or decoder; all heads have about as many parameters.
        head_depth: blocks of the predictor or decoder.
        positions: how the encoder and a predictor of hidden patches know places: codes that are added, rotations of
            queries and keys (as V-JEPA 2 means it), or the tiled ones that V-JEPA 2 released.
    """

    patch: int = 4
    width: int = 192
    depth: int = 6
    num_heads: int = 3
    head_width: int = 96
    head_depth: int = 3
    positions: Positions = "sincos"

    def __repr__(self) -> str:
        """Without the positions where they are the usual ones, so that older results keep their fingerprints."""
        shown = [f.name for f in fields(self) if f.name != "positions" or self.positions != "sincos"]
        return f"Network({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the same fields for every arm.

    Args:
        steps: how many times the optimizer moves.
        batch_size: samples in a step.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        warmup: share of the steps in which the learning rate rises.
        crop: smallest share of a picture that a random crop keeps; of series nothing is cropped.
        precision: of matrix products; "auto" is bf16 where the device multiplies it, else fp32.
    """

    steps: int = 2000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    crop: float = 0.5
    precision: Precision = "auto"


@dataclass(frozen=True)
class PatchBench(ABC):
    """What every arm of a seed shares.

    Args:
        network: the encoder and the budget of the heads.
        schedule: how long and how fast.
        seed: of the order of samples and of the weights.
    """

    network: Network = field(default_factory=Network)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0

    @abstractmethod
    def samples(self) -> Samples:
        """What the arms learn from."""

    @property
    @abstractmethod
    def patch(self) -> tuple[int, ...]:
        """The size of a patch along each axis of the grid."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, ...]:
        """Patches along each axis; ValueError where the patches do not tile a sample."""

    @abstractmethod
    def stream(self, *, num_views: int = 1, augmentation: Augmentation | None = None) -> SampleStream:
        """The same samples in the same order for every arm of this seed, and the same crops for one view."""

    def encoder(self) -> ViT:
        """The same first weights for every arm of this seed, normalised by the training samples."""
        n, samples = self.network, self.samples()
        mean, std = samples.mean_std()
        with seeded(self.seed):
            return ViT(
                self.grid,
                patch=self.patch,
                channels=samples.channels,
                dim=n.width,
                depth=n.depth,
                num_heads=n.num_heads,
                mean=mean,
                std=std,
                positions=n.positions,
            )

    def predictor(
        self, out_dim: int, *, in_dim: int | None = None, context_dim: int | None = None, num_mask_tokens: int = 1
    ) -> MaskedPredictor:
        """I-JEPA's predictor, or MAE's decoder: what it answers is up to `out_dim`, its size is the same.

        in_dim  of what it reads; the encoder's width if not said.
        """
        n = self.network

        def of_width(width: int) -> MaskedPredictor:
            return MaskedPredictor(
                in_dim or n.width,
                out_dim,
                grid=self.grid,
                width=width,
                depth=n.head_depth,
                num_heads=n.num_heads,
                context_dim=context_dim,
                positions=n.positions,
                num_mask_tokens=num_mask_tokens,
            )

        if n.positions == "sincos":
            return self._head(of_width, step=self.head_step)
        # An attention head turns pairs of channels, at least one for each axis.
        return self._head(of_width, step=2 * n.num_heads, least=len(self.grid))

    def patch_head(self, out_dim: int) -> PatchHead:
        """A head that answers for each token alone, with about as many parameters as I-JEPA's predictor."""
        n = self.network
        return self._head(lambda width: PatchHead(n.width, out_dim, width=width, depth=n.head_depth), step=1)

    def denoiser(self, out_dim: int) -> DenoisingDecoder:
        """A head that sees every token, with about as many parameters as I-JEPA's predictor."""
        n = self.network

        def of_width(width: int) -> DenoisingDecoder:
            return DenoisingDecoder(
                n.width, out_dim, grid=self.grid, width=width, depth=n.head_depth, num_heads=n.num_heads
            )

        return self._head(of_width, step=self.head_step)

    @property
    def head_step(self) -> int:
        """Widths of heads that attend are multiples of this: even, and the same for every attention head."""
        return lcm(2, self.network.num_heads)

    def _head(self, of_width: Callable[[int], Head], *, step: int, least: int = 1) -> Head:
        """At the width that comes closest to the size of I-JEPA's predictor, which is as wide as the network says."""
        n = self.network
        with torch.device("meta"):
            ijepa = MaskedPredictor(
                n.width, n.width, grid=self.grid, width=n.head_width, depth=n.head_depth, num_heads=n.num_heads
            )
        with seeded(self.seed + 1):
            return build_of_size(count_parameters(ijepa), of_width, step=step, least=least)

    def run(self, objective: Objective, *, stream: SampleStream | None = None) -> Run:
        """The run of this objective, which keeps an average of its weights."""
        s = self.schedule
        objective.keep_average()
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

    def with_schedule(self: Bench, **changes: float | int) -> Bench:
        """The same bench on another schedule."""
        return replace(self, schedule=replace(self.schedule, **changes))  # pyrefly: ignore[bad-argument-type]

    def supervised(self, encoder: Encoder) -> Run:
        """The ceiling: the class from labels, through the mean token.

        As many samples as every arm sees, all of them labelled: where few are, in more epochs.
        """
        num_classes = self.samples().num_classes
        if num_classes < 2:
            raise ValueError(f"A classifier needs labels of at least 2 classes, got {num_classes}.")
        stream = replace(self.stream(), labelled_only=True)
        objective = Supervised(encoder, num_outputs={"class": num_classes}, weights={"class": 1.0})
        return self.run(objective, stream=stream)

    def untrained(self) -> Run:
        """The floor of the encoder as it was initialised."""
        return replace(self.run(Untrained(self.encoder())), steps=0)

    def components(self) -> Run:
        """The floor of raw numbers: the first principal components of a frame, as many as the encoder is wide, or
        fewer where the training frames, less their mean, have no more."""
        stream = self.stream()
        num_pixels, num_times = prod(stream.samples.sample_shape[1:]), stream.samples.num_times
        num_known = len(stream.members) * num_times
        pca = PixelPCA(num_pixels, dim=max(1, min(self.network.width, num_pixels, num_known - 1)))
        num_frames = max(min(PCA_FRAMES, PCA_BYTES // (8 * num_pixels)), pca.dim + 1)

        def prepare() -> None:
            pca.fit(stream.held_out("train", -(-num_frames // num_times)).x)

        return replace(self.run(Untrained(pca)), steps=0, prepare=prepare)
