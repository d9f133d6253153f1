"""Embeddings or pixels of clips: one function an arm, each returning a `Run`.

All arms of one seed start from the same encoder weights and see the same clips and crops in the same order; their heads
have about as many parameters.
"""

from __future__ import annotations

from typing import Literal

from jepalab.backbones.teachers import EMATeacher, OwnTeacher
from jepalab.losses.distances import mean_absolute
from jepalab.losses.pixels import NormChannels, PixelTarget, plain_pixels
from jepalab.losses.regularisers import Gaussianity, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.targets import SeveralLevels
from jepalab.masks.causal import Prefix
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_token import NextToken
from jepalab.recipes.clip_bench import CLIP_JUDGING as JUDGING
from jepalab.recipes.clip_bench import ClipBench, ClipSampler
from jepalab.recipes.image_generative import PREDICTIONS, TargetName
from jepalab.run import Run
from jepalab.types import MaskSampler

__all__ = [
    "JUDGING",
    "clip_classifier",
    "clip_pca",
    "frame_denoiser",
    "frame_pixels",
    "frame_tokens",
    "random_clip_vit",
    "videomae",
    "vjepa",
    "vjepa_dense",
    "vjepa_sigreg",
    "vjepa_vicreg",
]


def vjepa(bench: ClipBench, *, momentum: float = 0.998, masks: ClipSampler = "multi-block", hidden: float = 0.9) -> Run:
    """V-JEPA: embeddings of hidden tubes, of a slowly moving teacher that sees the whole clip (arXiv 2404.08471).

    Args:
        bench: what every arm shares.
        momentum: of the teacher after the first step; it rises to .9999.
        masks: short-range and long-range tubes as published; the same in the first half alone, with all that follows to
            be predicted; I-JEPA's blocks; random tubes; or whole first frames as context, as many as are drawn.
        hidden: share of the places that random tubes hide, as VideoMAE's.
    """
    encoder, samplers = bench.encoder(), bench.samplers(masks, hidden=hidden)
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim, num_mask_tokens=len(samplers)),
        masks=samplers,
        teacher=EMATeacher(encoder, momentum=momentum),
        distance=mean_absolute,
        seed=bench.seed,
    )
    return bench.run(objective)


def vjepa_dense(bench: ClipBench, *, context: float = 0.5, masks: ClipSampler = "multi-block") -> Run:
    """V-JEPA 2.1: the context is predicted too, nearer tokens more; several levels are read and predicted at once.

    The teacher's momentum is .998 at first, and not tuned as vjepa's is.

    Args:
        bench: what every arm shares.
        context: weight of the loss at the context's places against that at the targets.
        masks: as for vjepa.
    """
    encoder, samplers = bench.encoder(), bench.samplers(masks)
    depth = bench.network.depth
    levels = tuple(sorted({round(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)} - {-1}))
    wide = len(levels) * encoder.dim
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(wide, in_dim=wide, context_dim=wide, num_mask_tokens=len(samplers)),
        masks=samplers,
        teacher=EMATeacher(encoder, momentum=0.998),
        targets=SeveralLevels(levels),
        reads=SeveralLevels(levels),
        distance=mean_absolute,
        weights={"ema": 1.0, "ema_context": context},
        seed=bench.seed,
    )
    return bench.run(objective)


def vjepa_vicreg(bench: ClipBench, *, spread: float = 1.0, masks: ClipSampler = "multi-block") -> Run:
    """V-JEPA's masks and predictor with VICReg's terms in place of the teacher; gradient on both sides.

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
        masks: as for vjepa.
    """
    encoder, samplers = bench.encoder(), bench.samplers(masks)
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim, num_mask_tokens=len(samplers)),
        masks=samplers,
        teacher=OwnTeacher(),
        distance=mean_absolute,
        regulariser=VarianceCovariance(),
        weights={"own": 1.0, "variance": spread, "covariance": spread},
        seed=bench.seed,
    )
    return bench.run(objective)


def vjepa_sigreg(bench: ClipBench, *, sigreg: float = 0.02, masks: ClipSampler = "multi-block") -> Run:
    """V-JEPA's masks and predictor with SIGReg in place of the teacher; gradient on both sides (as arXiv 2511.08544).

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
        masks: as for vjepa.
    """
    encoder, samplers = bench.encoder(), bench.samplers(masks)
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim, num_mask_tokens=len(samplers)),
        masks=samplers,
        teacher=OwnTeacher(),
        distance=mean_absolute,
        regulariser=Gaussianity(SIGReg(seed=bench.seed)),
        weights={"own": 1.0, "sigreg": sigreg},
        seed=bench.seed,
    )
    return bench.run(objective)


def videomae(
    bench: ClipBench,
    *,
    target: TargetName = "norm-pixels",
    masks: Literal["tubes", "multi-block"] = "tubes",
    hidden: float = 0.9,
) -> Run:
    """VideoMAE: the pixels of hidden tubes, from the visible ones (arXiv 2203.12602).

    Args:
        bench: what every arm shares.
        target: pixels as they are, or normalised patch by patch, each channel on its own.
        masks: random tubes as published, or V-JEPA's two kinds, so that only what is compared differs from vjepa.
        hidden: share of the places that random tubes hide.
    """
    samplers = bench.samplers("random", hidden=hidden) if masks == "tubes" else bench.samplers("multi-block")
    return _pixels(bench, samplers, target)


def frame_pixels(bench: ClipBench, *, target: TargetName = "norm-pixels") -> Run:
    """The pixels of the later frames, from the earlier ones, of which as many are seen as are drawn for each batch.

    Args:
        bench: what every arm shares.
        target: pixels as they are, or normalised patch by patch, each channel on its own.
    """
    return _pixels(bench, bench.samplers("causal"), target)


def frame_denoiser(bench: ClipBench, *, predict: Literal["noise", "velocity", "clean"] = "velocity") -> Run:
    """Diffusion of the later frames given the earlier ones, which the encoder reads clean (as arXiv 2304.03283).

    How many are given is drawn for each batch.

    Args:
        bench: what every arm shares.
        predict: what the decoder answers.
    """
    encoder = bench.encoder()
    objective = DenoiseHidden(
        encoder,
        decoder=bench.masked_denoiser(encoder.patch_dim),
        masks=bench.samplers("causal")[0],
        predict=PREDICTIONS[predict],
        seed=bench.seed,
    )
    return bench.run(objective)


def frame_tokens(bench: ClipBench, *, num_bins: int = 16) -> Run:
    """Autoregression over discrete patches, frame by frame: the next patch's intensities as bins, by cross-entropy.

    Args:
        bench: what every arm shares.
        num_bins: equal parts of the intensity range.
    """
    encoder = bench.encoder()
    head = bench.patch_head(encoder.patch_dim * num_bins)
    objective = NextToken(encoder, head=head, prefix=Prefix(bench.grid), num_bins=num_bins, seed=bench.seed)
    return bench.run(objective)


def clip_classifier(bench: ClipBench, *, least_crop: float = 0.5) -> Run:
    """Supervised ceiling: the class from labels, through the mean token.

    Args:
        bench: what every arm shares.
        least_crop: smallest share of a frame that a random crop keeps.
    """
    bench = bench.with_schedule(crop=least_crop)
    return bench.supervised(bench.encoder())


def random_clip_vit(bench: ClipBench) -> Run:
    """Floor: the encoder as it was initialised."""
    return bench.untrained()


def clip_pca(bench: ClipBench) -> Run:
    """Floor of appearance: the first principal components of single frames, in the mean over a clip."""
    return bench.components()


def _pixels(bench: ClipBench, samplers: tuple[MaskSampler, ...], target: TargetName) -> Run:
    encoder = bench.encoder()
    targets: dict[TargetName, PixelTarget] = {"pixels": plain_pixels, "norm-pixels": NormChannels(encoder.channels)}
    objective = MAE(
        encoder,
        decoder=bench.predictor(encoder.patch_dim, num_mask_tokens=len(samplers)),
        masks=samplers,
        target=targets[target],
        seed=bench.seed,
    )
    return bench.run(objective)
