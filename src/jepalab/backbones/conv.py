"""A small convolutional frame encoder: three strided 3x3 layers, a linear map (after Sobal et al. 2022, 2211.10831)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.types import Encoder


class ConvEncoder(Encoder):
    """Encodes each frame on its own: one token for each frame.

    size  height and width of a frame, a multiple of 4.
    mean, std  of the pixels of the training data; x is normalised with them inside.
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
        widths: tuple[int, int, int] = (16, 32, 32),
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(f"ConvEncoder takes frames whose size is a multiple of 4, got {size}; pad or resize them.")
        self.size, self.channels, self.dim = size, channels, dim
        self.widths = widths
        steps = zip((channels, *widths[:-1]), widths, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in steps)
        self.project = nn.Linear(widths[-1] * (-(-size // 8)) ** 2, dim)
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))
        self.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]

    def arguments(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("size", "channels", "dim", "widths")}
        return plain | {"mean": self.mean.item(), "std": self.std.item()}

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame; `keep` picks frames. Frames never see each other, so `causal` holds by itself."""
        if x.shape[2:] != (self.channels, self.size, self.size):
            wanted = f"[b t {self.channels} {self.size} {self.size}]"
            raise ValueError(f"This encoder was built for clips {wanted}, got {list(x.shape)}.")
        if keep is not None:
            x = x.gather(1, keep[:, :, None, None, None].expand(-1, -1, *x.shape[2:]))
        h = ((x.flatten(0, 1) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            h = F.relu(convolution(h))
        return self.project(h.flatten(1)).unflatten(0, x.shape[:2]).float()
