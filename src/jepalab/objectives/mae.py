"""Masked auto-encoding of pixels: MAE (arXiv 2111.06377), on the masks, encoder and head that I-JEPA has here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.patch_heads import draw_patches
from jepalab.backbones.vit import ViT, take_blocks
from jepalab.losses.distances import Distance, mean_squared
from jepalab.losses.pixels import PixelTarget, norm_pixels
from jepalab.masks.drawing import mask_drawers
from jepalab.masks.random import RandomMask
from jepalab.types import Batch, Mask, MaskSampler, Objective, Space


class MAE(Objective):
    """The predicted pixels of hidden patches against those pixels; the encoder sees the context alone.

    masks    one sampler, or several as for `MaskedJEPA`: each hides part of every sample in a pass of its own, with a
             mask token of its own, and the term is the mean over them.
    decoder  answers in the numbers of a patch. With one target block of all hidden patches this is MAE's decoder.
    target   `norm_pixels` (each patch by its own mean and variance), `NormChannels` (each channel of it) or
             `plain_pixels`.
    weights: "reconstruct".
    """

    compares: ClassVar[Mapping[str, Space]] = {"reconstruct": Space.INPUT}

    def __init__(
        self,
        encoder: ViT,
        *,
        decoder: MaskedPredictor,
        masks: MaskSampler | Sequence[MaskSampler],
        target: PixelTarget = norm_pixels,
        distance: Distance = mean_squared,
        seed: int = 0,
    ) -> None:
        super().__init__()
        samplers = (masks,) if isinstance(masks, MaskSampler) else tuple(masks)
        if {sampler.grid for sampler in samplers} != {encoder.grid}:
            grids = " and ".join(str(sampler.grid) for sampler in samplers)
            raise ValueError(f"The masks hide patches of a grid {grids}, the encoder has {encoder.grid}.")
        if decoder.num_mask_tokens < len(samplers):
            raise ValueError(
                f"Each of {len(samplers)} masks has a mask token of its own, the decoder has "
                f"{decoder.num_mask_tokens}; build it with num_mask_tokens={len(samplers)}."
            )
        if decoder.grid != encoder.grid:
            raise ValueError(f"The encoder has a grid {encoder.grid}, the decoder was built for {decoder.grid}.")
        if decoder.answer.out_features != encoder.patch_dim:
            raise ValueError(
                f"A patch has {encoder.patch_dim} numbers, the decoder answers with {decoder.answer.out_features}; "
                "build it with out_dim=encoder.patch_dim."
            )
        self.encoder, self.decoder = encoder, decoder
        self.masks, *further = mask_drawers(samplers, seed=seed)
        self.further_masks = nn.ModuleList(further)
        self.target, self.distance = target, distance
        self.weights = {"reconstruct": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        patches = self.vit.patches(batch.x)
        found = [
            self._compare(batch.x, patches, draw(len(batch)), which)
            for which, draw in enumerate((self.masks, *self.further_masks))
        ]
        return {"reconstruct": torch.stack(found).mean()}

    def _compare(
        self, x: Float[Tensor, "b t *obs"], patches: Float[Tensor, "b n p"], mask: Mask, which: int
    ) -> Float[Tensor, ""]:
        """The term of one of the masks."""
        hidden = take_blocks(patches, mask.target)
        weight = None if mask.present is None else mask.present.float()
        return self.distance(self._predict(x, mask, which), self.target(hidden), weight)

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

    def _predict(self, x: Float[Tensor, "b t *obs"], mask: Mask, which: int = 0) -> Float[Tensor, "b g m p"]:
        return self.decoder(self.encoder(x, mask.context), mask, which)

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        decoder = MaskedPredictor(12, 4, grid=(4, 4), width=8, depth=2, num_heads=2)
        return cls(encoder, decoder=decoder, masks=RandomMask((4, 4))), Batch(x=torch.rand(4, 1, 1, 8, 8))
