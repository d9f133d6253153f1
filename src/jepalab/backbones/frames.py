"""Frame encoders under another face: a clip whose tokens are its frames, and a clip of frame differences."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.types import Encoder, PatchEncoder


class FramesAsPatches(PatchEncoder):
    """A `ConvEncoder` as an encoder of patches: each frame is one, so that masks can hide frames of a clip.

    num_frames  of a clip that masks are drawn for; clips of other lengths can be encoded all the same.
    """

    def __init__(
        self,
        num_frames: int,
        *,
        size: int = 28,
        channels: int = 1,
        dim: int = 64,
        widths: tuple[int, int, int] = (16, 32, 32),
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.frame = ConvEncoder(size, channels=channels, dim=dim, widths=widths, mean=mean, std=std)
        self.grid, self.dim = (num_frames,), dim
        self.patch_dim = prod((channels, size, size))

    def arguments(self) -> dict[str, Any]:
        return {"num_frames": self.grid[0]} | self.frame.arguments()

    def patches(self, x: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b n p"]:
        """Normalised frames."""
        return ((x - self.frame.mean) / self.frame.std).flatten(2)

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame; `keep` picks frames, which never see each other."""
        return self.frame(x, keep, causal)

    def levels(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None
    ) -> list[Float[Tensor, "b n d"]]:
        """The output alone: earlier layers have another width."""
        return [self.frame(x, keep)]


class FrameDifferences(Encoder):
    """A `ConvEncoder` that sees what changed since the frame before; of a clip's first frame, nothing.

    What stays cannot be seen at all: the oldest remedy against a background that does not move.
    std  of the differences.
    """

    num_frames_seen: ClassVar[int] = 2

    def __init__(
        self,
        *,
        size: int = 28,
        channels: int = 1,
        dim: int = 64,
        widths: tuple[int, int, int] = (16, 32, 32),
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.frame = ConvEncoder(size, channels=channels, dim=dim, widths=widths, mean=mean, std=std)
        self.dim = dim

    def arguments(self) -> dict[str, Any]:
        return self.frame.arguments()

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame, of its difference from the one before; `keep` picks frames."""
        change = torch.cat([torch.zeros_like(x[:, :1]), x.diff(dim=1)], 1)
        return self.frame(change, keep, causal)
