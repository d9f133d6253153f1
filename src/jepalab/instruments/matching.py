"""Samples and encoders that fit each other: what an encoder was built for, and grey beside colour."""

from __future__ import annotations

from math import isqrt

from jaxtyping import Float, Int
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.pooled import PooledPixels
from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.data.augmentation import LUMA
from jepalab.data.samples import Samples
from jepalab.types import Encoder, PatchEncoder


def read_shape(encoder: Encoder) -> tuple[int, ...]:
    """The shape of one sample that the encoder was built for: (t, c, h, w) with t = 1 for pictures, (t, c) for series.

    ValueError, in words, if pictures are not square, or neither grey nor in colour, or nothing is known of it.
    """
    name = type(encoder).__name__
    if isinstance(encoder, ViT):
        shape = encoder.sample_shape
    elif isinstance(encoder, ResNet | ConvEncoder):
        shape = (1, encoder.channels, encoder.size, encoder.size)
    elif isinstance(encoder, PixelPCA):
        shape = _square_of(len(encoder.mean))
    elif isinstance(encoder, PooledPixels):
        shape = (1, *encoder.sample_shape)
    else:
        raise ValueError(f"What a {name} reads is not known here; wanted an encoder of jepalab.")
    if len(shape) == 4 and shape[2] != shape[3]:
        raise ValueError(f"Pictures are cut square, and this {name} reads {shape[2]} x {shape[3]} pixels.")
    if len(shape) == 4 and shape[1] not in {1, 3}:
        raise ValueError(f"Pictures have 1 channel (grey) or 3 (colour), and this {name} reads {shape[1]}.")
    return shape


def match_channels(encoder: Encoder, samples: Samples) -> Encoder:
    """The encoder itself, or one that takes samples of these channels and gives it what it was built for.

    ValueError for series of other channels: no rule turns one into another.
    """
    channels = read_shape(encoder)[1]
    if channels == samples.channels:
        return encoder
    if len(samples.sample_shape) == 2:
        raise ValueError(
            f"The encoder was built for series of {channels} channels, and {samples.source} has {samples.channels}."
        )
    if isinstance(encoder, PatchEncoder):
        return RecolouredPatches(encoder, channels=channels)
    return Recoloured(encoder, channels=channels)


def describe_match(encoder: Encoder, samples: Samples) -> str:
    """What `match_channels` does to the samples, in a sentence; nothing if they fit."""
    channels = read_shape(encoder)[1]
    if channels == samples.channels:
        return ""
    if channels == 1:
        return "The encoder was built for grey pictures: colour was made grey."
    return "The encoder was built for pictures in colour: grey was repeated in each channel."


class Recoloured(Encoder):
    """An encoder built for grey that takes colour, by its luma, or one built for colour that takes grey, repeated.

    channels  that the encoder was built for.
    """

    def __init__(self, encoder: Encoder, *, channels: int) -> None:
        super().__init__()
        self.encoder, self.channels, self.dim = encoder, channels, encoder.dim

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        return self.encoder(_recolour(x, self.channels), keep, causal)


class RecolouredPatches(PatchEncoder):
    """`Recoloured` for encoders of patches."""

    def __init__(self, encoder: PatchEncoder, *, channels: int) -> None:
        super().__init__()
        self.encoder, self.channels, self.dim = encoder, channels, encoder.dim
        self.grid, self.patch_dim = encoder.grid, encoder.patch_dim

    def patches(self, x: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b n p"]:
        return self.encoder.patches(_recolour(x, self.channels))

    def levels(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None
    ) -> list[Float[Tensor, "b n d"]]:
        return self.encoder.levels(_recolour(x, self.channels), keep)

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        return self.encoder(_recolour(x, self.channels), keep, causal)


def _recolour(x: Float[Tensor, "b t c h w"], channels: int) -> Float[Tensor, "b t e h w"]:
    if channels == 1:
        return (x * x.new_tensor(LUMA)[:, None, None]).sum(2, keepdim=True)
    return x.expand(-1, -1, channels, -1, -1)


def _square_of(num_pixels: int) -> tuple[int, ...]:
    """No number is both a square and three times a square, so the channels are known too."""
    sizes = {channels: isqrt(num_pixels // channels) for channels in (1, 3)}
    for channels, size in sizes.items():
        if channels * size**2 == num_pixels:
            return 1, channels, size, size
    raise ValueError(f"This encoder reads {num_pixels} numbers, which are no square picture, grey or in colour.")
