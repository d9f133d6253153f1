"""Autoregression over patches: AIM (arXiv 2401.08541). A causal trunk predicts the pixels of the next patch.

A random prefix of each picture is seen from everywhere in it, and no loss is taken there, so that the trunk can be read
with full attention afterwards (AIM 3.2): `encoder(x)` is what is probed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.backbones.patch_heads import PatchHead
from jepalab.backbones.vit import ViT
from jepalab.losses.distances import Distance, mean_squared
from jepalab.losses.pixels import PixelTarget, norm_pixels
from jepalab.masks.causal import Prefix, prefix_sees
from jepalab.masks.prefixes import PrefixDrawer
from jepalab.types import Batch, Objective, Space


class NextPatch(Objective):
    """The predicted pixels of each patch after the prefix, in raster order, against those pixels.

    head    answers in the numbers of a patch, for each token alone; token i answers for patch i + 1.
    prefix  how long prefixes are drawn.
    target  `norm_pixels` (each patch by its own mean and variance, best in AIM's table) or `plain_pixels`.
    weights: "predict".
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.INPUT}

    def __init__(
        self,
        encoder: ViT,
        *,
        head: PatchHead,
        prefix: Prefix,
        target: PixelTarget = norm_pixels,
        distance: Distance = mean_squared,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if encoder.grid != prefix.grid:
            raise ValueError(f"The prefixes are for a grid {prefix.grid}, the encoder has {encoder.grid}.")
        if head.answer.out_features != encoder.patch_dim:
            raise ValueError(
                f"A patch has {encoder.patch_dim} numbers, the head answers with {head.answer.out_features}; build it "
                "with out_dim=encoder.patch_dim."
            )
        self.encoder, self.head = encoder, head
        self.prefix = PrefixDrawer(prefix, seed=seed)
        self.target, self.distance = target, distance
        self.weights = {"predict": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        lengths = self.prefix(len(batch))
        wanted = self.target(self.vit.patches(batch.x)[:, 1:])
        later = torch.arange(1, wanted.shape[1] + 1, device=lengths.device) >= lengths.unsqueeze(1)
        return {"predict": self.distance(self.predict(batch.x, lengths), wanted, later.float())}

    def predict(self, x: Float[Tensor, "b t *obs"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b m p"]:
        """Targets of the second to the last patch. Those before the end of the prefix were answered knowing it all."""
        sees = prefix_sees(lengths, len(self.vit.positions))
        return self.head(self.vit(x, sees=sees)[:, :-1])

    @property
    def vit(self) -> ViT:
        """The encoder, under the name of what it is."""
        assert isinstance(self.encoder, ViT)
        return self.encoder

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        head = PatchHead(12, 4, width=8, depth=2)
        return cls(encoder, head=head, prefix=Prefix((4, 4))), Batch(x=torch.rand(4, 1, 1, 8, 8))
