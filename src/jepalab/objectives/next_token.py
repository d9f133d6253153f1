"""Autoregression over discrete pixels: each number of the next patch as one of a few intensities, by cross-entropy.

iGPT (Chen et al. 2020) classifies one coarse pixel a token; here a token is a patch, whose pixels are independent given
the patches before it: trunk and cost are those of `next_patch`, and only the space of the loss differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.backbones.patch_heads import PatchHead
from jepalab.backbones.vit import ViT, patchify
from jepalab.losses.tokens import token_cross_entropy
from jepalab.masks.causal import Prefix, prefix_sees
from jepalab.masks.prefixes import PrefixDrawer
from jepalab.types import Batch, Objective, Space

NUM_LEVELS = 256


class NextToken(Objective):
    """The predicted intensity of every pixel and channel after the prefix against the bin it lies in.

    num_bins  equal parts of the 256 intensities of x in [0, top]; a divisor of 256.
    top       the largest number of x; what lies above it counts as it.
    head      answers with patch_dim x num_bins logits, for each token alone; token i answers for patch i + 1.
    prefix    how long prefixes are drawn, as in AIM (arXiv 2401.08541).
    The first patch has nothing before it: its logits are learned as such, so that every picture has a likelihood.
    weights: "predict", in nats.
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.TOKEN}

    def __init__(
        self, encoder: ViT, *, head: PatchHead, prefix: Prefix, num_bins: int = 16, top: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if num_bins < 2 or NUM_LEVELS % num_bins:
            raise ValueError(f"Bins are equal parts of {NUM_LEVELS} intensities: 2, 4, 8 ... 256; got {num_bins}.")
        if top <= 0:
            raise ValueError(f"Intensities lie between 0 and top, a positive number, got top={top}.")
        if encoder.grid != prefix.grid:
            raise ValueError(f"The prefixes are for a grid {prefix.grid}, the encoder has {encoder.grid}.")
        if head.answer.out_features != encoder.patch_dim * num_bins:
            raise ValueError(
                f"A patch has {encoder.patch_dim} numbers of {num_bins} bins, the head answers with "
                f"{head.answer.out_features}; build it with out_dim=encoder.patch_dim * {num_bins}."
            )
        self.encoder, self.head, self.num_bins, self.top = encoder, head, num_bins, top
        self.prefix = PrefixDrawer(prefix, seed=seed)
        self.first = nn.Parameter(torch.zeros(encoder.patch_dim, num_bins))
        self.weights = {"predict": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        lengths = self.prefix(len(batch))
        bins = self.bins(batch.x)
        place = torch.arange(bins.shape[1], device=bins.device)
        counts = (place == 0) | (place >= lengths.unsqueeze(1))
        logits = self.logits(batch.x, lengths)
        return {"predict": token_cross_entropy(logits, bins, counts.float().unsqueeze(-1).expand(bins.shape))}

    def bins(self, x: Float[Tensor, "b t *obs"]) -> Int[Tensor, "b n p"]:
        """The bin of every pixel, from x itself: equal intensities lie in equal bins, whatever the encoder's mean."""
        levels = (patchify(x, self.vit.patch) * ((NUM_LEVELS - 1) / self.top)).round().long().clamp(0, NUM_LEVELS - 1)
        return levels // (NUM_LEVELS // self.num_bins)

    def logits(self, x: Float[Tensor, "b t *obs"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b n p v"]:
        """Of all patches. Those in the prefix, except the first, were answered knowing it all."""
        sees = prefix_sees(lengths, len(self.vit.positions))
        later = self.head(self.vit(x, sees=sees)[:, :-1]).unflatten(-1, self.first.shape)
        return torch.cat([self.first.float().expand(len(x), 1, -1, -1), later], 1)

    @torch.no_grad()
    def bits_per_dimension(self, x: Float[Tensor, "b t *obs"]) -> float:
        """Bits for each pixel and channel of pictures of 256 intensities, under strictly causal attention.

        Cross-entropy over ln 2, plus log2(256 / num_bins) for the place in a bin, of which the model says nothing. NaN
        for pictures with intensities between the 256, of which this is not the likelihood.
        """
        levels = x * ((NUM_LEVELS - 1) / self.top)
        if (levels - levels.round()).abs().max() > 1e-2 or levels.min() < -0.5 or levels.max() > NUM_LEVELS - 0.5:
            return math.nan
        causal = torch.ones(len(x), dtype=torch.long, device=x.device)  # a prefix of one patch
        nats = token_cross_entropy(self.logits(x, causal), self.bins(x))
        return float(nats) / math.log(2) + math.log2(NUM_LEVELS / self.num_bins)

    @property
    def vit(self) -> ViT:
        """The encoder, under the name of what it is."""
        assert isinstance(self.encoder, ViT)
        return self.encoder

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        head = PatchHead(12, 16, width=8, depth=2)
        objective = cls(encoder, head=head, prefix=Prefix((4, 4)), num_bins=4)
        return objective, Batch(x=torch.rand(4, 1, 1, 8, 8))
