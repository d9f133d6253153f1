"""Predicting raw pictures, labels or nothing at all: one function an arm, each returning a `Run`.

The same encoder, pictures and crops as the arms of `image_jepas`; heads have as many parameters, within a tenth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from jepalab.backbones.codebook import PatchCodebook
from jepalab.backbones.pooled import PooledPixels
from jepalab.losses.denoising import PredictClean, Prediction, PredictNoise, PredictVelocity
from jepalab.losses.pixels import norm_pixels, plain_pixels
from jepalab.masks.causal import Prefix
from jepalab.objectives.denoise import Denoise
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_token import MaskedToken
from jepalab.objectives.next_patch import NextPatch
from jepalab.objectives.next_token import NextToken
from jepalab.objectives.untrained import Untrained
from jepalab.recipes.image_bench import JUDGING, Backbone, ImageBench, SamplerName
from jepalab.run import Run

__all__ = [
    "JUDGING",
    "classifier",
    "denoise",
    "image_pca",
    "mae",
    "masked_token",
    "next_patch",
    "next_token",
    "pooled_pixels",
    "random_vit",
]

TARGETS = {"pixels": plain_pixels, "norm-pixels": norm_pixels}
PREDICTIONS: dict[str, Prediction] = {
    "noise": PredictNoise(),
    "velocity": PredictVelocity(),
    "clean": PredictClean(),
}
TargetName = Literal["pixels", "norm-pixels"]


def mae(
    bench: ImageBench, *, target: TargetName = "norm-pixels", hidden: float = 0.75, masks: SamplerName = "random"
) -> Run:
    """MAE: the pixels of hidden patches, from the visible ones (arXiv 2111.06377).

    Args:
        bench: what every arm shares.
        target: pixels as they are, or normalised patch by patch.
        hidden: share of the patches that random masks hide.
        masks: random patches as published, or I-JEPA's blocks.
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


def next_patch(bench: ImageBench, *, target: TargetName = "norm-pixels") -> Run:
    """AIM: the pixels of the next patch, from those before it and a prefix that sees itself (arXiv 2401.08541).

    Args:
        bench: what every arm shares.
        target: pixels as they are, or normalised patch by patch.
    """
    encoder = bench.encoder()
    head = bench.patch_head(encoder.patch_dim)
    objective = NextPatch(encoder, head=head, prefix=Prefix(bench.grid), target=TARGETS[target], seed=bench.seed)
    return bench.run(objective)


def next_token(bench: ImageBench, *, num_bins: int = 16) -> Run:
    """Autoregression over discrete pixels: the next patch's intensities as bins, by cross-entropy (as iGPT and AIM).

    Args:
        bench: what every arm shares.
        num_bins: equal parts of the intensity range.
    """
    encoder = bench.encoder()
    head = bench.patch_head(encoder.patch_dim * num_bins)
    objective = NextToken(encoder, head=head, prefix=Prefix(bench.grid), num_bins=num_bins, seed=bench.seed)
    return bench.run(objective)


def denoise(bench: ImageBench, *, predict: Literal["noise", "velocity", "clean"] = "velocity") -> Run:
    """Diffusion: noise, velocity or the clean picture from a noisy one; it can draw pictures (arXiv 2209.03003).

    Args:
        bench: what every arm shares.
        predict: what the decoder answers.
    """
    encoder = bench.encoder()
    objective = Denoise(
        encoder, decoder=bench.denoiser(encoder.patch_dim), predict=PREDICTIONS[predict], seed=bench.seed
    )
    return bench.run(objective)


def masked_token(bench: ImageBench, *, num_codes: int = 256) -> Run:
    """BEiT-like: which of a frozen tokenizer's codes each hidden patch has, by cross-entropy (arXiv 2106.08254).

    It hides random patches as MAE does; BEiT hides blocks.

    Args:
        bench: what every arm shares.
        num_codes: of the tokenizer, k-means centres of normalised patches.
    """
    encoder, stream = bench.encoder(), bench.stream()
    codebook = PatchCodebook(num_codes, encoder.patch_dim)
    codebook.draw(torch.Generator().manual_seed(bench.seed))  # a step is priced before the codes are fitted
    objective = MaskedToken(
        encoder,
        predictor=bench.predictor(num_codes),
        codebook=codebook,
        masks=bench.sampler("random"),
        seed=bench.seed,
    )

    def prepare() -> None:
        patches = encoder.patches(stream.held_out("train", 1_000).x)
        codebook.fit(patches, torch.Generator().manual_seed(bench.seed))

    return replace(bench.run(objective, stream=stream), prepare=prepare)


def classifier(bench: ImageBench, *, least_crop: float = 0.5, backbone: Backbone = "vit") -> Run:
    """Supervised ceiling: the class from labels, through the mean token.

    Args:
        bench: what every arm shares.
        least_crop: smallest share of a picture that a random crop keeps.
        backbone: the transformer, or a residual network.
    """
    bench = bench.with_schedule(crop=least_crop)
    return bench.supervised(bench.backbone(backbone))


def random_vit(bench: ImageBench) -> Run:
    """Floor: the encoder as it was initialised."""
    return bench.untrained()


def image_pca(bench: ImageBench) -> Run:
    """Floor: the first principal components of raw pixels, as many as the encoder is wide."""
    return bench.components()


def pooled_pixels(bench: ImageBench) -> Run:
    """Floor: the picture itself, averaged over 8 x 8 cells."""
    _, channels, height, width = bench.samples().sample_shape
    encoder = PooledPixels((channels, height, width), grid=min(8, height, width))
    return replace(bench.run(Untrained(encoder)), steps=0)
