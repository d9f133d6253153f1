"""Where a token lies on its grid: codes to add (arXiv 1706.03762), or rotations of queries and keys (2104.09864).

Three named kinds. `sincos` is added once, to the tokens. `rope` turns the queries and keys of every block, so that what
one token says to another depends on the offset between them and not on where they lie. `rope-tiled` is what V-JEPA 2
released (2506.09985): meant as `rope`, but with the angles laid out so that it is no rotation. Its weights need it, new
ones do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

Positions = Literal["sincos", "rope", "rope-tiled"]
THETA = 10000.0


def make_positions(
    kind: Positions, grid: tuple[int, ...], *, dim: int, num_heads: int
) -> Float[Tensor, "n d"] | Float[Tensor, "n 2 c"]:
    """What is known of each token's place: a code [n d] to add to it, or rotations [n 2 c] of its queries and keys."""
    if kind == "sincos":
        return sincos_positions(grid, dim)
    if kind == "rope":
        return rotations(grid, dim // num_heads)
    if kind == "rope-tiled":
        return tiled_rotations(grid, dim // num_heads)
    raise ValueError(f"wanted positions that are one of {', '.join(get_args(Positions))}, got {kind!r}")


def sincos_positions(grid: tuple[int, ...], dim: int) -> Float[Tensor, "n d"]:
    """Fixed position of each token of the grid, in raster order.

    The dim / 2 frequencies are dealt to the axes in order, as evenly as they go, earlier axes first. An axis with f
    of them gets 2 f neighbouring columns, sin(i w) then cos(i w), with w = 10000^(-j / f) for j = 0 .. f - 1.
    """
    if dim % 2 or dim < 2 * len(grid):
        raise ValueError(f"wanted an even width of at least 2 for each axis of {grid}, got {dim}; choose another dim")
    shares = torch.arange(dim // 2).tensor_split(len(grid))
    angles = [
        place * THETA ** (-torch.arange(len(share), dtype=torch.float64) / len(share))
        for place, share in zip(_places(grid), shares, strict=True)
    ]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()


def rotations(grid: tuple[int, ...], head_dim: int) -> Float[Tensor, "n 2 c"]:
    """How far `rotate` turns each pair of channels (2 i, 2 i + 1) of a head, for each token in raster order.

    Axis by axis, each gets 2 f channels, f the most that go evenly; what remains is not turned (V-JEPA 2). The i-th
    pair of an axis turns by its place on the axis, 0, 1, ..., times 10000^(-i / f).
    """
    return _waves(grid, head_dim, lambda frequencies: frequencies.repeat_interleave(2))


def tiled_rotations(grid: tuple[int, ...], head_dim: int) -> Float[Tensor, "n 2 c"]:
    """V-JEPA 2's: the f angles of an axis are tiled, so the two channels of a pair get those of two frequencies.

    Hence no rotation: tokens at equal distances say different things, and lengths change (facebookresearch/vjepa2, pull
    requests 15 and 65; V-JEPA 2.1 turns as `rotations` do).
    """
    return _waves(grid, head_dim, lambda frequencies: frequencies.repeat(2))


def _waves(grid: tuple[int, ...], head_dim: int, lay_out: Callable[[Tensor], Tensor]) -> Float[Tensor, "n 2 c"]:
    """Cosine and signed sine of each channel's angle: the two factors of `rotate`."""
    num_pairs = head_dim // len(grid) // 2
    if head_dim % 2 or not num_pairs:
        raise ValueError(
            f"wanted heads of an even number of channels, at least 2 for each axis of {grid}, got {head_dim}; choose "
            "another dim or num_heads"
        )
    of_channel = lay_out(THETA ** (-torch.arange(num_pairs, dtype=torch.float64) / num_pairs))
    angles = torch.cat([place * of_channel for place in _places(grid)], 1)
    angles = pad(angles, (0, head_dim - angles.shape[1]))
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(head_dim // 2)
    return torch.stack([angles.cos(), angles.sin() * signs], 1).float()


def _places(grid: tuple[int, ...]) -> list[Float[Tensor, "n 1"]]:
    """Where each token lies on each axis: 0, 1, ..."""
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    return [axis.reshape(-1, 1) for axis in axes]


def rotate(x: Float[Tensor, "b h n c"], rotation: Float[Tensor, "#b n 2 c"]) -> Float[Tensor, "b h n c"]:
    """Queries or keys of h heads, each token's turned by its own rotation; in the precision of x."""
    cos, signed_sin = rotation.unsqueeze(1).unbind(-2)
    neighbours = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (x * cos + neighbours * signed_sin).to(x.dtype)
