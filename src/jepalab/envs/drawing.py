"""Pictures of dots and boxes, as products of a row and a column so that thousands take a moment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.envs.geometry import Arena

DOT_STD = 1.3  # pixels, as in PLDM (arXiv 2502.14819)


def draw_dots(
    position: Float[Tensor, "n 2"], *, size: int, std: float = DOT_STD, peak: float = 1.0
) -> Float[Tensor, "n h w"]:
    """peak exp(-r^2 / (2 std^2)) around each position (x, y), the product of a Gaussian along x and one along y."""
    pixels = torch.arange(size, device=position.device)
    across = (-0.5 * ((position[..., None] - pixels) / std) ** 2).exp()
    return (peak * across[:, 1, :, None]) * across[:, 0, None, :]


def draw_boxes(boxes: Float[Tensor, "n k 4"], *, size: int) -> Float[Tensor, "n h w"]:
    """1 where a pixel's middle lies in a box, 0 elsewhere."""
    pixels = torch.arange(size, device=boxes.device)
    across = (pixels > boxes[..., :2, None]) & (pixels < boxes[..., 2:, None])
    covered = across[:, :, 1].mT.float() @ across[:, :, 0].float()
    return covered.clamp_max_(1.0)


def frame(arena: Arena, *, size: int) -> Float[Tensor, "h w"]:
    """A line one pixel wide around the arena."""
    first, last = round(arena[0] - 0.5), round(arena[1] + 0.5)
    lines = torch.zeros(size, size)
    lines[[first, last]] = 1
    lines[:, [first, last]] = 1
    return lines


def overlay(*pictures: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Lights on top of each other: 1 - (1 - a) (1 - b) ..., so that nothing passes 1 and nothing dims anything."""
    dark = 1 - pictures[0]
    for picture in pictures[1:]:
        dark = dark * (1 - picture)
    return 1 - dark
