"""Masked auto-encoding of pixels: MAE (arXiv 2111.06377), on the masks, encoder and head that I-JEPA has here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.patch_heads import draw_patches
from jepalab.backbones.vit import ViT, take_blocks
from jepalab.losses.distances import Distance, mean_squared
from jepalab.losses.pixels import PixelTarget, norm_pixels
from jepalab.masks.drawing import MaskDrawer
from jepalab.masks.random import RandomMask
from jepalab.types import Batch, Mask, MaskSampler, Objective, Space


class MAE(Objective):
    """The predicted pixels of hidden patches against those pixels; the encoder sees the context alone.

    decoder  answers in the numbers of a patch. With one target block of all hidden patches this is MAE's decoder.
    target   `norm_pixels` (each patch by its own mean and variance) or `plain_pixels`.
    weights: "reconstruct".
    """

    compares: ClassVar[Mapping[str, Space]] = {"reconstruct": Space.INPUT}

    def __init__(
        self,
        encoder: ViT,
        *,
        decoder: MaskedPredictor,
        masks: MaskSampler,
        target: PixelTarget = norm_pixels,
        distance: Distance = mean_squared,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if encoder.grid != masks.grid:
            raise ValueError(f"The masks hide patches of a grid {masks.grid}, the encoder has {encoder.grid}.")
        if decoder.grid != encoder.grid:
            raise ValueError(f"The encoder has a grid {encoder.grid}, the decoder was built for {decoder.grid}.")
        if decoder.answer.out_features != encoder.patch_dim:
            raise ValueError(
                f"A patch has {encoder.patch_dim} numbers, the decoder answers with {decoder.answer.out_features}; "
                "build it with out_dim=encoder.patch_dim."
            )
        self.encoder, self.decoder = encoder, decoder
        self.masks = MaskDrawer(masks, seed=seed)
        self.target, self.distance = target, distance
        self.weights = {"reconstruct": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        mask = self.masks(len(batch))
        hidden = take_blocks(self.vit.patches(batch.x), mask.target)
        weight = None if mask.present is None else mask.present.float()
        return {"reconstruct": self.distance(self._predict(batch.x, mask), self.target(hidden), weight)}

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "b t *obs"], mask: Mask | None = None) -> Float[Tensor, "b t *obs"]:
        """x with the predictions in place of the targets, in the units of x; None draws a mask as training does.

        Where target blocks overlap, their mean. With `norm_pixels` the true mean and variance of each patch are put
        back, as in the figures of the paper.
        """
        mask = self.masks(len(x)) if mask is None else mask
        patches = self.vit.patches(x)
        drawn = self.target.restore(self._predict(x, mask), take_blocks(patches, mask.target)).flatten(1, 2)
        present = torch.ones_like(mask.target, dtype=torch.bool) if mask.present is None else mask.present
        weight = present.flatten(1).unsqueeze(-1).to(drawn.dtype)
        place = mask.target.flatten(1).unsqueeze(-1)
        total = torch.zeros_like(patches).scatter_add_(1, place.expand_as(drawn), drawn * weight)
        count = torch.zeros_like(patches[..., :1]).scatter_add_(1, place, weight)
        return draw_patches(self.vit, torch.where(count > 0, total / count.clamp(min=1), patches))

    @property
    def vit(self) -> ViT:
        """The encoder, under the name of what it is."""
        assert isinstance(self.encoder, ViT)
        return self.encoder

    def _predict(self, x: Float[Tensor, "b t *obs"], mask: Mask) -> Float[Tensor, "b g m p"]:
        return self.decoder(self.encoder(x, mask.context), mask)

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        decoder = MaskedPredictor(12, 4, grid=(4, 4), width=8, depth=2, num_heads=2)
        return cls(encoder, decoder=decoder, masks=RandomMask((4, 4))), Batch(x=torch.rand(4, 1, 1, 8, 8))
