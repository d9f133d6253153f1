"""Denoising as pretraining: diffusion (arXiv 2006.11239) and flow matching (2209.03003) through a plain encoder.

The encoder reads the noised picture; a small decoder, which alone is told the level of the noise, answers for patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.patch_heads import draw_patches
from jepalab.backbones.vit import ViT
from jepalab.losses.denoising import (
    MAX_LEVEL,
    Levels,
    NoiseDrawer,
    Prediction,
    PredictVelocity,
    logit_normal_levels,
)
from jepalab.losses.distances import mean_squared
from jepalab.types import Batch, Objective, Space


class Denoise(Objective):
    """What the decoder says of a noised picture against the noise, the velocity or the clean picture.

    predict  `PredictNoise()`, `PredictVelocity()` or `PredictClean()`; its name is that of the term.
    levels   how often each level of noise is trained: `logit_normal_levels` or `uniform_levels`.
    Noise is standard normal in the encoder's units: clean and noise are both patches as it normalises them.
    weights: "noise", "velocity" or "clean".
    """

    compares: ClassVar[Mapping[str, Space]] = {
        "noise": Space.NOISE,
        "velocity": Space.VELOCITY,
        "clean": Space.INPUT,
    }

    def __init__(
        self,
        encoder: ViT,
        *,
        decoder: DenoisingDecoder,
        predict: Prediction,
        levels: Levels = logit_normal_levels,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if decoder.answer.out_features != encoder.patch_dim:
            raise ValueError(
                f"A patch has {encoder.patch_dim} numbers, the decoder answers with {decoder.answer.out_features}; "
                "build it with out_dim=encoder.patch_dim."
            )
        self.encoder, self.decoder, self.predict = encoder, decoder, predict
        self.noise = NoiseDrawer(levels, seed=seed)
        self.weights = {self.predict.name: 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        clean = self.vit.patches(batch.x)
        level, noise = self.noise(clean)
        t = level[:, None, None]
        prediction = self.answer((1 - t) * clean + t * noise, level)
        return {self.predict.name: mean_squared(prediction, self.predict.target(clean, noise, t))}

    def answer(self, noisy: Float[Tensor, "b n p"], level: Float[Tensor, " b"]) -> Float[Tensor, "b n p"]:
        """What the network says of noised patches: noise, velocity or clean patches, by `predict`."""
        return self.decoder(self.encoder(draw_patches(self.vit, noisy)), level)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: torch.Generator, num_steps: int = 50) -> Float[Tensor, "b t *obs"]:
        """Pictures out of noise, in [0, 1]: Euler steps along the path, which on it are DDIM's (arXiv 2010.02502).

        Each step moves x_t towards the clean picture it is thought to be, after that is cut to [0, 1].
        """
        n, p, device = len(self.vit.positions), self.vit.patch_dim, self.vit.positions.device
        noisy = torch.randn(num_samples, n, p, generator=generator).to(device)
        for t, t_next in pairwise(torch.linspace(MAX_LEVEL, 0, num_steps + 1).tolist()):
            level = torch.full((num_samples,), t, device=device)
            guess = self.predict.to_clean(self.answer(noisy, level), noisy, level[:, None, None])
            clean = self.vit.patches(draw_patches(self.vit, guess).clamp(0, 1))
            noisy = clean + t_next / t * (noisy - clean)
        return draw_patches(self.vit, noisy)

    @property
    def vit(self) -> ViT:
        """The encoder, under the name of what it is."""
        assert isinstance(self.encoder, ViT)
        return self.encoder

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        decoder = DenoisingDecoder(12, 4, grid=(4, 4), width=8, depth=2, num_heads=2)
        return cls(encoder, decoder=decoder, predict=PredictVelocity()), Batch(x=torch.rand(4, 1, 1, 8, 8))
