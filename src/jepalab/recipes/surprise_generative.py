"""Generative models that expect what comes next behind occluders and answer with more than one frame: noise, tokens.

Encoder, clips and the size of the head are those of the other clip models in `surprise_arms`.
"""

from __future__ import annotations

from typing import Literal

from jepalab.backbones.masked_denoiser import MaskedDenoiser
from jepalab.backbones.patch_heads import PatchHead, build_of_size
from jepalab.dist import seeded
from jepalab.masks.causal import DrawnPast, Prefix
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.next_token import NextToken
from jepalab.recipes.image_generative import PREDICTIONS
from jepalab.recipes.surprise_arms import HEAD_DEPTH, JUDGING, NUM_HEADS, WIDTH, ExpectationBench
from jepalab.run import Run, count_parameters

__all__ = ["JUDGING", "expect_noise", "expect_tokens"]


def expect_noise(bench: ExpectationBench, *, predict: Literal["noise", "velocity", "clean"] = "velocity") -> Run:
    """Denoises the next frames, given the past, which the encoder reads clean (as DiffMAE, arXiv 2304.03283).

    Each time is denoised given the past alone, so that its error cannot know what comes later.

    Args:
        bench: what every arm shares.
        predict: what the decoder answers.
    """
    encoder = bench.vit()
    budget = count_parameters(bench.head(encoder, encoder.dim))
    with seeded(bench.seed + 1):
        decoder = build_of_size(
            budget,
            lambda width: MaskedDenoiser(
                WIDTH, encoder.patch_dim, grid=encoder.grid, width=width, depth=HEAD_DEPTH, num_heads=NUM_HEADS
            ),
            step=2 * NUM_HEADS,
        )
    objective = DenoiseHidden(
        encoder,
        decoder=decoder,
        masks=DrawnPast(encoder.grid, num_asked=1),
        predict=PREDICTIONS[predict],
        seed=bench.seed,
    )
    return bench.run(objective)


def expect_tokens(bench: ExpectationBench, *, num_bins: int = 16) -> Run:
    """Autoregression over discrete patches, frame by frame: the next patch's intensities as bins, by cross-entropy.

    Args:
        bench: what every arm shares.
        num_bins: equal parts of the intensity range, to which a television adds its strength.
    """
    encoder = bench.vit()
    budget = count_parameters(bench.head(encoder, encoder.dim))
    out_dim = encoder.patch_dim * num_bins
    with seeded(bench.seed + 1):
        head = build_of_size(budget, lambda width: PatchHead(WIDTH, out_dim, width=width, depth=HEAD_DEPTH))
    objective = NextToken(
        encoder,
        head=head,
        prefix=Prefix(encoder.grid),
        num_bins=num_bins,
        top=1.0 + bench.world.strength,
        seed=bench.seed,
    )
    return bench.run(objective)
