"""What a pixel objective predicts of a patch: its numbers as they are, or normalised patch by patch.

MAE normalises all numbers of a patch together (arXiv 2111.06377), VideoMAE each channel on its own (2203.12602).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class PixelTarget(Protocol):
    """Makes a patch's target of the patch, and undoes that for a picture of what was predicted."""

    def __call__(self, patches: Float[Tensor, "*rows p"]) -> Float[Tensor, "*rows p"]: ...

    def restore(
        self, prediction: Float[Tensor, "*rows p"], patches: Float[Tensor, "*rows p"]
    ) -> Float[Tensor, "*rows p"]: ...


@dataclass(frozen=True)
class PlainPixels:
    """The patch itself, in the encoder's units."""

    def __call__(self, patches: Float[Tensor, "*rows p"]) -> Float[Tensor, "*rows p"]:
        return patches

    def restore(
        self, prediction: Float[Tensor, "*rows p"], patches: Float[Tensor, "*rows p"]
    ) -> Float[Tensor, "*rows p"]:
        """The prediction as it is."""
        return prediction


@dataclass(frozen=True)
class NormPixels:
    """(patch - mean) / sqrt(variance + eps) over the numbers of one patch, variance unbiased, as MAE takes it.

    Contrast and brightness of a patch are then no part of what is predicted. ValueError for patches of one number.
    """

    eps: float = 1e-6

    def __call__(self, patches: Float[Tensor, "*rows p"]) -> Float[Tensor, "*rows p"]:
        mean, scale = self._statistics(patches)
        return (patches - mean) / scale

    def restore(
        self, prediction: Float[Tensor, "*rows p"], patches: Float[Tensor, "*rows p"]
    ) -> Float[Tensor, "*rows p"]:
        """The prediction with the true patch's mean and variance, which the network never says (as MAE's figures)."""
        mean, scale = self._statistics(patches)
        return prediction * scale + mean

    def _statistics(
        self, patches: Float[Tensor, "*rows p"]
    ) -> tuple[Float[Tensor, "*rows 1"], Float[Tensor, "*rows 1"]]:
        if patches.shape[-1] < 2:
            raise ValueError("A patch of one number has no variance; take plain_pixels, or larger patches.")
        return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + self.eps).sqrt()


@dataclass(frozen=True)
class NormChannels:
    """(patch - mean) / (sqrt(variance) + eps), each channel of a patch on its own, as VideoMAE takes it (2203.12602).

    num_channels  whose numbers lie one after the other in a patch. The variance is unbiased. ValueError where a channel
                  has one number in a patch.
    """

    num_channels: int
    eps: float = 1e-6

    def __call__(self, patches: Float[Tensor, "*rows p"]) -> Float[Tensor, "*rows p"]:
        channels, mean, scale = self._statistics(patches)
        return ((channels - mean) / scale).flatten(-2)

    def restore(
        self, prediction: Float[Tensor, "*rows p"], patches: Float[Tensor, "*rows p"]
    ) -> Float[Tensor, "*rows p"]:
        """The prediction with the mean and variance of the true patch's channels."""
        _, mean, scale = self._statistics(patches)
        return (prediction.unflatten(-1, (self.num_channels, -1)) * scale + mean).flatten(-2)

    def _statistics(self, patches: Float[Tensor, "*rows p"]) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers by channel, their mean and their scale."""
        if patches.shape[-1] % self.num_channels or patches.shape[-1] < 2 * self.num_channels:
            raise ValueError(
                f"Wanted at least 2 numbers in each of a patch's {self.num_channels} channels, got {patches.shape[-1]}."
            )
        channels = patches.unflatten(-1, (self.num_channels, -1))
        return channels, channels.mean(-1, keepdim=True), channels.std(-1, keepdim=True) + self.eps


plain_pixels = PlainPixels()
norm_pixels = NormPixels()
