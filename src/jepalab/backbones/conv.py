"""A small convolutional frame encoder: strided 3x3 layers and a linear map (after Sobal et al. 2022, 2211.10831)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.types import Encoder


class ConvEncoder(Encoder):
    """Encodes each frame on its own: one token for each frame.

    size       height and width of a frame; each layer halves them, rounded up.
    cell       with more than 1, pixels are first gathered into cells of that height and width, as channels, and the
               first layer keeps that grid: half the cost of large frames (the stem of Shi et al. 2016, 1609.05158).
    widths     channels after each layer.
    mean, std  of the pixels of the training data, of all or of each channel; x is normalised with them inside.
    No batch normalisation: its statistics would leak between a prediction and its target.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int = 28,
        *,
        channels: int = 1,
        dim: int = 64,
        cell: int = 1,
        widths: Sequence[int] = (16, 32, 32),
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        for name, given in (("mean", mean), ("std", std)):
            if isinstance(given, Sequence) and len(given) != channels:
                raise ValueError(f"Give one {name}, or one for each of {channels} channels, got {len(given)}.")
        self.size, self.channels, self.dim = size, channels, dim
        self.cell, self.widths = cell, tuple(widths)
        channels_in, strides = (channels * cell**2, *widths[:-1]), [2 if cell == 1 else 1, *[2] * (len(widths) - 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=stride, padding=1)
            for a, b, stride in zip(channels_in, widths, strides, strict=True)
        )
        self.project = nn.Linear(widths[-1] * (-(-size // (cell * prod(strides)))) ** 2, dim)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]

    def arguments(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("size", "channels", "dim", "cell", "widths")}
        return plain | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame; `keep` picks frames. Frames never see each other, so `causal` holds by itself."""
        if x.shape[2:] != (self.channels, self.size, self.size):
            wanted = f"[b t {self.channels} {self.size} {self.size}]"
            raise ValueError(f"This encoder was built for clips {wanted}, got {list(x.shape)}.")
        if keep is not None:
            x = x.gather(1, keep[:, :, None, None, None].expand(-1, -1, *x.shape[2:]))
        mean, std = (each.reshape(-1, 1, 1) for each in (self.mean, self.std))
        h = (x.flatten(0, 1) - mean) / std
        if self.cell > 1:
            missing = -self.size % self.cell
            cells = F.pad(h, (0, missing, 0, missing)).unflatten(3, (-1, self.cell)).unflatten(2, (-1, self.cell))
            h = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).permute(0, 3, 1, 2)  # pixel_unshuffle, channels last
        h = h.contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            h = F.relu(convolution(h))
        return self.project(h.flatten(1)).unflatten(0, x.shape[:2]).float()
