"""Embeddings or raw numbers of series: one function an arm, each returning a `Run`.

All arms of one seed start from the same encoder weights and see the same windows in the same order; their heads have
about as many parameters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.backbones.teachers import EMATeacher, OwnTeacher
from jepalab.instruments.hand_features import hand_features
from jepalab.losses.regularisers import Gaussianity, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.masks.causal import Prefix
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_patch import NextPatch
from jepalab.objectives.untrained import Untrained
from jepalab.recipes.image_generative import TARGETS, TargetName
from jepalab.recipes.series_bench import SERIES_JUDGING as JUDGING
from jepalab.recipes.series_bench import SeriesBench, SpanSampler
from jepalab.run import Run
from jepalab.types import Encoder

__all__ = [
    "JUDGING",
    "hand_made",
    "random_series_vit",
    "raw_window",
    "series_classifier",
    "series_jepa",
    "series_mae",
    "series_next_patch",
    "series_sigreg",
    "series_vicreg",
]


def series_jepa(bench: SeriesBench, *, momentum: float = 0.996, masks: SpanSampler = "blocks") -> Run:
    """Masked JEPA of series: embeddings of hidden spans, of a slowly moving teacher that sees the whole window.

    Args:
        bench: what every arm shares.
        momentum: of the teacher after the first step; it rises to .9999.
        masks: spans, random patches, or the first half as context of the second.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(masks),
        teacher=EMATeacher(encoder, momentum=momentum),
        seed=bench.seed,
    )
    return bench.run(objective)


def series_vicreg(bench: SeriesBench, *, spread: float = 1.0, masks: SpanSampler = "causal") -> Run:
    """The past predicts the future's embedding, with VICReg's terms against collapse; gradient on both sides.

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
        masks: as for series_jepa.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(masks),
        teacher=OwnTeacher(),
        regulariser=VarianceCovariance(),
        weights={"own": 1.0, "variance": spread, "covariance": spread},
        seed=bench.seed,
    )
    return bench.run(objective)


def series_sigreg(bench: SeriesBench, *, sigreg: float = 0.02, masks: SpanSampler = "causal") -> Run:
    """The past predicts the future's embedding, with SIGReg against collapse; gradient on both sides.

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
        masks: as for series_jepa.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(masks),
        teacher=OwnTeacher(),
        regulariser=Gaussianity(SIGReg(seed=bench.seed)),
        weights={"own": 1.0, "sigreg": sigreg},
        seed=bench.seed,
    )
    return bench.run(objective)


def series_mae(
    bench: SeriesBench, *, target: TargetName = "pixels", hidden: float = 0.5, masks: SpanSampler = "random"
) -> Run:
    """Masked reconstruction: the raw numbers of hidden patches, from the visible ones.

    Args:
        bench: what every arm shares.
        target: numbers as they are, or normalised patch by patch.
        hidden: share of the patches that random masks hide.
        masks: random patches, or as for series_jepa, so that only what is compared differs from it.
    """
    encoder = bench.encoder()
    objective = MAE(
        encoder,
        decoder=bench.predictor(encoder.patch_dim),
        masks=bench.sampler(masks, hidden=hidden),
        target=TARGETS[target],
        seed=bench.seed,
    )
    return bench.run(objective)


def series_next_patch(bench: SeriesBench, *, target: TargetName = "pixels") -> Run:
    """Next-step prediction: the raw numbers of each patch, from those before it (as AIM, arXiv 2401.08541).

    Args:
        bench: what every arm shares.
        target: numbers as they are, or normalised patch by patch.
    """
    encoder = bench.encoder()
    head = bench.patch_head(encoder.patch_dim)
    objective = NextPatch(encoder, head=head, prefix=Prefix(bench.grid), target=TARGETS[target], seed=bench.seed)
    return bench.run(objective)


def series_classifier(bench: SeriesBench, *, rising: float = 0.1) -> Run:
    """Supervised ceiling: the class from labels, through the mean token.

    Args:
        bench: what every arm shares.
        rising: share of the steps in which the learning rate rises, in place of the schedule's warmup.
    """
    bench = bench.with_schedule(warmup=rising)
    return bench.supervised(bench.encoder())


def random_series_vit(bench: SeriesBench) -> Run:
    """Floor: the encoder as it was initialised."""
    return bench.untrained()


def raw_window(bench: SeriesBench) -> Run:
    """Floor: the raw numbers of the window."""
    return replace(bench.run(Untrained(RawWindow(bench.samples().sample_shape))), steps=0)


def hand_made(bench: SeriesBench) -> Run:
    """Floor: statistics that engineers made by hand (as Anguita et al., ESANN 2013)."""
    encoder = HandMade(bench.samples().sample_shape, bench.recordings.magnitudes)
    return replace(bench.run(Untrained(encoder)), steps=0)


class RawWindow(Encoder):
    """A window's numbers as one embedding: what a linear read-out makes of the data itself."""

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        times, channels = sample_shape
        self.dim = times * channels

    def forward(
        self, x: Float[Tensor, "b t c"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b 1 d"]:
        """All of x in one token; there are no others to keep."""
        return x.flatten(1).unsqueeze(1)


class HandMade(Encoder):
    """A window's hand-made features as one embedding."""

    def __init__(self, sample_shape: tuple[int, ...], magnitudes: tuple[tuple[int, ...], ...] = ()) -> None:
        super().__init__()
        self.magnitudes = magnitudes
        self.dim = hand_features(torch.zeros(1, *sample_shape), magnitudes=magnitudes).shape[1]

    def forward(
        self, x: Float[Tensor, "b t c"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b 1 d"]:
        """The features of x in one token; there are no others to keep."""
        return hand_features(x, magnitudes=self.magnitudes).unsqueeze(1)
