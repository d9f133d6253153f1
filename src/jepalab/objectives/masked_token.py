"""Discrete codes of hidden patches, from a small frozen tokenizer: BEiT's target (arXiv 2106.08254)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.codebook import PatchCodebook
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.vit import ViT
from jepalab.losses.tokens import token_cross_entropy
from jepalab.masks.drawing import MaskDrawer
from jepalab.masks.random import RandomMask
from jepalab.types import Batch, MaskSampler, Objective, Space


class MaskedToken(Objective):
    """The predicted codes of hidden patches against the codebook's, by cross-entropy.

    BEiT's encoder reads mask tokens; this one sees the context alone and the predictor answers, as in the arms that it
    is compared with. codebook: fitted before the first step, to `encoder.patches` of training pictures.
    weights: "predict".
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.TOKEN}

    def __init__(
        self,
        encoder: ViT,
        *,
        predictor: MaskedPredictor,
        codebook: PatchCodebook,
        masks: MaskSampler,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if encoder.grid != masks.grid:
            raise ValueError(f"The masks hide patches of a grid {masks.grid}, the encoder has {encoder.grid}.")
        if predictor.grid != encoder.grid:
            raise ValueError(f"The encoder has a grid {encoder.grid}, the predictor was built for {predictor.grid}.")
        if codebook.patch_dim != encoder.patch_dim:
            raise ValueError(f"A patch has {encoder.patch_dim} numbers, the codebook reads {codebook.patch_dim}.")
        if predictor.answer.out_features != codebook.num_codes:
            raise ValueError(
                f"The predictor answers with {predictor.answer.out_features} numbers for {codebook.num_codes} codes; "
                "build it with out_dim=codebook.num_codes."
            )
        self.encoder, self.predictor, self.codebook = encoder, predictor, codebook
        self.masks = MaskDrawer(masks, seed=seed)
        self.weights = {"predict": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        assert isinstance(self.encoder, ViT)
        mask = self.masks(len(batch))
        codes = self.codebook(self.encoder.patches(batch.x))
        hidden = codes.gather(1, mask.target.flatten(1)).unflatten(1, mask.target.shape[1:])
        logits = self.predictor(self.encoder(batch.x, mask.context), mask)
        weight = None if mask.present is None else mask.present.float()
        return {"predict": token_cross_entropy(logits, hidden, weight)}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        predictor = MaskedPredictor(12, 5, grid=(4, 4), width=8, depth=2, num_heads=2)
        codebook, x = PatchCodebook(5, encoder.patch_dim), torch.rand(4, 1, 1, 8, 8)
        codebook.fit(encoder.patches(x), torch.Generator().manual_seed(0))
        return cls(encoder, predictor=predictor, codebook=codebook, masks=RandomMask((4, 4))), Batch(x=x)
