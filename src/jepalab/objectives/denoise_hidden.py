"""Denoising of what is hidden, given what is seen: DiffMAE (arXiv 2304.03283); of later frames, next-frame diffusion.

The encoder reads the clean context alone, as in MAE, so that its features never saw noise; the decoder denoises.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.masked_denoiser import MaskedDenoiser
from jepalab.backbones.patch_heads import draw_patches
from jepalab.backbones.vit import ViT, take_blocks
from jepalab.losses.denoising import (
    MAX_LEVEL,
    Levels,
    NoiseDrawer,
    Prediction,
    PredictVelocity,
    logit_normal_levels,
)
from jepalab.losses.distances import mean_squared
from jepalab.masks.drawing import MaskDrawer
from jepalab.masks.random import RandomMask
from jepalab.types import Batch, Mask, MaskSampler, Objective, Space


class DenoiseHidden(Objective):
    """What the decoder says of noised hidden patches against the noise, the velocity or the clean patches.

    masks    what is hidden; `PastFuture` hides the later frames of a clip.
    predict  `PredictNoise()`, `PredictVelocity()` or `PredictClean()`; its name is that of the term.
    levels   how often each level of noise is trained: `logit_normal_levels` or `uniform_levels`.
    Noise is standard normal in the encoder's units, one level for each sample.
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
        decoder: MaskedDenoiser,
        masks: MaskSampler,
        predict: Prediction,
        levels: Levels = logit_normal_levels,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not encoder.grid == masks.grid == decoder.grid:
            raise ValueError(
                f"Encoder, masks and decoder share one grid, got {encoder.grid}, {masks.grid} and {decoder.grid}."
            )
        if decoder.answer.out_features != encoder.patch_dim:
            raise ValueError(
                f"A patch has {encoder.patch_dim} numbers, the decoder answers with {decoder.answer.out_features}; "
                "build it with patch_dim=encoder.patch_dim."
            )
        self.encoder, self.decoder, self.predict = encoder, decoder, predict
        self.masks = MaskDrawer(masks, seed=seed)
        self.noise = NoiseDrawer(levels, seed=seed)
        self.weights = {self.predict.name: 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        mask = self.masks(len(batch))
        patches = self.vit.patches(batch.x)
        level, noise = self.noise(patches)
        clean = take_blocks(patches, mask.target)
        noise, t = take_blocks(noise, mask.target), level[:, None, None, None]
        z = self.encoder(batch.x, mask.context)
        prediction = self.decoder(z, (1 - t) * clean + t * noise, level, mask)
        weight = None if mask.present is None else mask.present.float()
        return {self.predict.name: mean_squared(prediction, self.predict.target(clean, noise, t), weight)}

    @torch.no_grad()
    def imagine(
        self,
        x: Float[Tensor, "b t *obs"],
        *,
        generator: torch.Generator,
        mask: Mask | None = None,
        num_steps: int = 20,
    ) -> Float[Tensor, "b t *obs"]:
        """x with the targets drawn anew out of noise, in [0, 1]: Euler steps along the path (arXiv 2010.02502).

        None draws a mask as training does. Where target blocks overlap, the last one is seen.
        """
        mask = self.masks(len(x)) if mask is None else mask
        patches = self.vit.patches(x)
        z = self.encoder(x, mask.context)
        shape = (*mask.target.shape, patches.shape[-1])
        noisy = torch.randn(shape, generator=generator).to(x.device)
        place = mask.target.flatten(1).unsqueeze(-1).expand(-1, -1, patches.shape[-1])
        for t, t_next in pairwise(torch.linspace(MAX_LEVEL, 0, num_steps + 1).tolist()):
            level = torch.full((len(x),), t, device=x.device)
            guess = self.predict.to_clean(self.decoder(z, noisy, level, mask), noisy, level[:, None, None, None])
            whole = patches.scatter(1, place, guess.flatten(1, 2))
            clean = take_blocks(self.vit.patches(draw_patches(self.vit, whole).clamp(0, 1)), mask.target)
            noisy = clean + t_next / t * (noisy - clean)
        return draw_patches(self.vit, patches.scatter(1, place, noisy.flatten(1, 2)))

    @property
    def vit(self) -> ViT:
        """The encoder, under the name of what it is."""
        assert isinstance(self.encoder, ViT)
        return self.encoder

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        decoder = MaskedDenoiser(12, 4, grid=(4, 4), width=8, depth=2, num_heads=2)
        objective = cls(encoder, decoder=decoder, masks=RandomMask((4, 4)), predict=PredictVelocity())
        return objective, Batch(x=torch.rand(4, 1, 1, 8, 8))
