"""A residual network for small pictures (He et al. 2016, arXiv 1512.03385), with group normalisation (1803.08494).

Batch normalisation would make an embedding depend on its neighbours in the batch and leak between a prediction and
its target; groups of channels do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.types import Encoder

GROUPS = 8


class ResNet(Encoder):
    """One embedding for each cell of the last feature map: for objectives that do not hide patches.

    size      height and width of the pictures, [b 1 c size size].
    widths    channels of each stage, a multiple of 8; every stage after the first halves the picture.
    num_blocks  residual blocks of each stage; (2, 2, 2, 2) with widths 64 to 512 is the CIFAR variant of ResNet-18.
    mean, std   of x, one number or one for each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int = 32,
        *,
        channels: int = 3,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        num_blocks: tuple[int, ...] = (2, 2, 2, 2),
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        shrink = 2 ** (len(widths) - 1)
        if len(widths) != len(num_blocks) or size % shrink or any(width % GROUPS for width in widths):
            raise ValueError(
                f"wanted a block count for each of {len(widths)} stages, widths that {GROUPS} divides and a size that "
                f"{shrink} divides, got widths {widths}, num_blocks {num_blocks}, size {size}"
            )
        self.size, self.channels, self.dim = size, channels, widths[-1]
        self.widths, self.num_blocks = widths, num_blocks
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        stages, before = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, num_blocks, strict=True)):
            for block in range(count):
                stages.append(_Residual(before, width, stride=2 if stage and not block else 1))
                before = width
        self.blocks = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(GROUPS, before)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).expand(channels).clone())
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).expand(channels).clone())
        self.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]

    def arguments(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("size", "channels", "widths", "num_blocks")}
        return plain | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """The cells of the last feature map in raster order. Cells see each other, so none can be kept out."""
        if x.shape[1:] != (1, self.channels, self.size, self.size):
            raise ValueError(
                f"This encoder was built for pictures [b 1 {self.channels} {self.size} {self.size}], got "
                f"{list(x.shape)}."
            )
        if keep is not None or causal:
            raise ValueError(
                "A convolution cannot leave patches out; train a ResNet with lejepa, vicreg or supervised."
            )
        h = (x[:, 0] - self.mean[:, None, None]) / self.std[:, None, None]
        h = self.blocks(self.stem(h.contiguous(memory_format=torch.channels_last)))
        return F.relu(self.norm(h)).flatten(2).mT.float()


class _Residual(nn.Module):
    """Pre-activation residual block (arXiv 1603.05027)."""

    def __init__(self, before: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, before), nn.GroupNorm(GROUPS, width)
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = before == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, width, 1, stride=stride, bias=False)

    def forward(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        active = F.relu(self.norm1(h))
        skip = h if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(active))))
