"""Vision Transformer over a grid of patches of rank 1 (series), 2 (still images) or 3 (clips) (arXiv 2010.11929).

No class token, and only the kept tokens are encoded, as in I-JEPA (arXiv 2301.08243). Positions are fixed: sine-cosine
codes as there, or rotations as in V-JEPA 2 (2506.09985).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from jepalab.backbones.attention import Transformer
from jepalab.backbones.positions import Positions, make_positions
from jepalab.types import PatchEncoder


def patchify(x: Float[Tensor, "b t *obs"], patch: tuple[int, ...]) -> Float[Tensor, "b n p"]:
    """Cuts x into patches, in raster order (time, then rows, then columns).

    One size (p,) cuts series [b t c], two (ph, pw) still images [b 1 c h w], three (pt, ph, pw) clips [b t c h w].
    The numbers of a patch run over channel, time, row, column, so that the flattened weights of a convolution with
    stride = kernel = `patch` are those of a linear layer here. ValueError if the patches do not tile x.
    """
    pt, ph, pw = _sizes_in_clip(patch)
    clip = x[..., None, None] if len(patch) == 1 else x
    tiled = clip.ndim == 5 and clip.shape[1] % pt == clip.shape[3] % ph == clip.shape[4] % pw == 0
    if not tiled or (len(patch) == 2 and x.shape[1] != 1):
        wanted = {1: "[b t c]", 2: "[b 1 c h w]", 3: "[b t c h w]"}[len(patch)]
        raise ValueError(
            f"wanted x of shape {wanted} with sizes that the patch {patch} divides, got {list(x.shape)}; "
            "crop or resize x, or choose another patch"
        )
    b, t, c, h, w = clip.shape
    cells = clip.reshape(b, t // pt, pt, c, h // ph, ph, w // pw, pw)
    return cells.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)


def unpatchify(
    patches: Float[Tensor, "b n p"], patch: tuple[int, ...], grid: tuple[int, ...]
) -> Float[Tensor, "b t *obs"]:
    """The exact inverse of `patchify`; `grid` is the number of patches along each axis."""
    pt, ph, pw = _sizes_in_clip(patch)
    gt, gh, gw = _sizes_in_clip(grid)
    b, n, p = patches.shape
    if len(patch) != len(grid) or n != prod(grid) or p % prod(patch):
        raise ValueError(
            f"wanted {prod(grid)} patches (grid {grid}) of channels x {prod(patch)} numbers (patch {patch}), "
            f"got {n} of {p}; pass the patch and the grid that cut them"
        )
    cells = patches.reshape(b, gt, gh, gw, -1, pt, ph, pw)
    clip = cells.permute(0, 1, 5, 4, 2, 6, 3, 7).reshape(b, gt * pt, -1, gh * ph, gw * pw)
    return clip[..., 0, 0] if len(patch) == 1 else clip


def _sizes_in_clip(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes along (time, rows, columns): a series is a clip of single pixels, a still image a clip of one frame."""
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise ValueError(f"wanted one positive size (series), two (still images) or three (clips), got {sizes}")
    return {1: (*sizes, 1, 1), 2: (1, *sizes), 3: sizes}[len(sizes)]


def take_tokens(tokens: Float[Tensor, "b n d"], keep: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """The tokens of each sample that `keep` names, in its order."""
    if keep.ndim != 2 or keep.shape[0] != tokens.shape[0]:
        raise ValueError(
            f"wanted a row of token indices for each of {tokens.shape[0]} samples, got indices of shape "
            f"{list(keep.shape)}; expand them to [b k]"
        )
    return tokens.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def take_blocks(tokens: Float[Tensor, "b n d"], target: Int[Tensor, "b g m"]) -> Float[Tensor, "b g m d"]:
    """The tokens of each target block of a mask, block by block."""
    return take_tokens(tokens, target.flatten(1)).unflatten(1, target.shape[1:])


class ViT(PatchEncoder):
    """One embedding for each patch of a fixed grid.

    grid, patch  patches along each axis and the size of a patch, (time,), (rows, columns) or (time, rows, columns):
                 x is [b t c], [b 1 c h w] or [b t c h w] with sizes grid * patch.
    mean, std    of x, one number or one for each channel; kept as buffers, taken out of x before anything else.
    positions    how a token knows its place: "sincos" is added to it, "rope" turns its queries and keys in each block,
                 "rope-tiled" does what the released V-JEPA 2 does in place of turning them. The buffer of that name
                 has the codes [n d], or the rotations [n 2 c].
    """

    mean: Tensor
    std: Tensor
    positions: Tensor

    def __init__(
        self,
        grid: tuple[int, ...],
        *,
        patch: tuple[int, ...],
        channels: int = 1,
        dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        positions: Positions = "sincos",
    ) -> None:
        super().__init__()
        if len(grid) != len(patch):
            raise ValueError(f"wanted as many patch sizes as grid axes, got patch {patch} for grid {grid}")
        self.grid, self.patch, self.channels, self.dim = grid, patch, channels, dim
        self.depth, self.num_heads, self.mlp_ratio = depth, num_heads, mlp_ratio
        self.position_kind: Positions = positions
        self.patch_dim = channels * prod(patch)
        t, h, w = (g * p for g, p in zip(_sizes_in_clip(grid), _sizes_in_clip(patch), strict=True))
        self.sample_shape = (t, channels) if len(grid) == 1 else (t, channels, h, w)
        self.register_buffer("mean", _one_per_channel(mean, channels))
        self.register_buffer("std", _one_per_channel(std, channels))
        if (self.std <= 0).any():
            raise ValueError(f"wanted a positive std for each channel, got {std}; leave out channels that never vary")
        self.register_buffer("positions", make_positions(positions, grid, dim=dim, num_heads=num_heads))
        self.embed = nn.Linear(self.patch_dim, dim)
        # As MAE: patches count as much as positions whatever their size. At a fixed standard deviation of 0.02 small
        # patches drown in the positions, and an I-JEPA begins by predicting positions alone.
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        self.transformer = Transformer(dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio)

    def arguments(self) -> dict[str, Any]:
        names = ("grid", "patch", "channels", "dim", "depth", "num_heads", "mlp_ratio")
        plain = {name: getattr(self, name) for name in names}
        return plain | {"mean": self.mean.tolist(), "std": self.std.tolist(), "positions": self.position_kind}

    def patches(self, x: Float[Tensor, "b t *obs"]) -> Float[Tensor, "b n p"]:
        """Normalised patches: what the network reads, and what a pixel objective predicts.

        ValueError unless x has the sizes this encoder was built for.
        """
        if x.shape[1:] != self.sample_shape:
            wanted = f"[b {' '.join(map(str, self.sample_shape))}]"
            raise ValueError(
                f"wanted x of shape {wanted} (grid {self.grid}, patch {self.patch}, {self.channels} channels), "
                f"got {list(x.shape)}; resize x or build the ViT with another grid"
            )
        channels = patchify(x, self.patch).unflatten(-1, (self.channels, -1))
        return ((channels - self.mean[:, None]) / self.std[:, None]).flatten(-2)

    def forward(
        self,
        x: Float[Tensor, "b t *obs"],
        keep: Int[Tensor, "b k"] | None = None,
        causal: bool = False,
        sees: Bool[Tensor, "#b #k k"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Embeds the patches of x, or only those that `keep` names, in its order and blind to the others.

        `causal` lets a token see itself and those before it: in raster order, or in the order of `keep`. `sees`, in
        place of it, says which token sees which.
        """
        tokens, rotation = self._place(x, keep)
        return self.transformer(tokens, causal, sees, rotation=rotation)

    def levels(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None
    ) -> list[Float[Tensor, "b n d"]]:
        """What `forward` would return after each block; the last is what it does return."""
        return self.transformer.levels(*self._place(x, keep))

    def _place(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "#b n 2 c"] | None]:
        """The tokens, and the rotations that tell their places if it is not in the tokens already."""
        patches, positions = self.patches(x), self.positions
        if keep is not None:
            patches, positions = take_tokens(patches, keep), positions[keep]
        if self.position_kind == "sincos":
            return self.embed(patches) + positions, None
        # In the precision of the positions, as adding them would leave it: the sum over blocks is not for bfloat16.
        return self.embed(patches).to(positions.dtype), positions if keep is not None else positions.unsqueeze(0)


def _one_per_channel(value: float | Sequence[float], channels: int) -> Float[Tensor, " c"]:
    values = torch.as_tensor(value, dtype=torch.float32)
    if values.shape not in {(), (1,), (channels,)}:
        raise ValueError(f"wanted one number or one for each of {channels} channels, got {value}")
    return values.expand(channels).clone()
