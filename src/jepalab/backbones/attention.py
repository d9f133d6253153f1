"""Softmax attention, the one place that picks a kernel for it, and the pre-norm blocks around it (arXiv 1706.03762)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from jepalab.backbones.positions import rotate

# Up to here two batched products beat the CPU's fused kernel: two to three times faster under bfloat16, equal in
# float32. Beyond, the fused kernel's saving of memory counts for more.
MAX_EXPLICIT_TOKENS = 512


def attend(
    q: Float[Tensor, "*batch n d"],
    k: Float[Tensor, "*batch m d"],
    v: Float[Tensor, "*batch m e"],
    causal: bool = False,
    sees: Bool[Tensor, "*#batch #n m"] | None = None,
) -> Float[Tensor, "*batch n e"]:
    """softmax(q k^T / sqrt(d)) v. `causal` hides from each query the keys that come after its own place.

    sees  in place of `causal`: which keys each query sees; every query must see one.

    Short sequences on the CPU take the explicit products, all others PyTorch's fused kernels; both give the same
    numbers up to rounding.
    """
    if q.device.type == "cpu" and k.shape[-2] <= MAX_EXPLICIT_TOKENS:
        return attend_by_products(q, k, v, causal, sees)
    if sees is not None:
        return scaled_dot_product_attention(q, k, v, attn_mask=sees)
    return scaled_dot_product_attention(q, k, v, is_causal=causal)


def attend_by_products(
    q: Float[Tensor, "*batch n d"],
    k: Float[Tensor, "*batch m d"],
    v: Float[Tensor, "*batch m e"],
    causal: bool = False,
    sees: Bool[Tensor, "*#batch #n m"] | None = None,
) -> Float[Tensor, "*batch n e"]:
    """`attend` written out. Holds all n x m scores in memory."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if sees is None and causal:
        sees = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if sees is not None:
        scores = scores.masked_fill(~sees, float("-inf"))
    return scores.softmax(-1) @ v


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to what came in."""

    def __init__(self, dim: int, *, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(
                f"wanted a width that {num_heads} heads divide, got {dim}; choose another dim or num_heads"
            )
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, int(dim * mlp_ratio))
        self.fc2 = nn.Linear(int(dim * mlp_ratio), dim)

    def forward(
        self,
        z: Float[Tensor, "b n d"],
        causal: bool = False,
        sees: Bool[Tensor, "#b #n n"] | None = None,
        num_last: int | None = None,
        rotation: Float[Tensor, "#b n 2 c"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """`num_last` answers for that many last tokens only, which spares the others' queries and MLP."""
        q, k, v = self.heads(z, rotation)
        if num_last is not None:
            assert not causal, "`causal` counts from the first query"
            sees = sees if sees is None or sees.shape[1] == 1 else sees[:, -num_last:]
            z, q = z[:, -num_last:], q[:, :, -num_last:]
        together = attend(q, k, v, causal, None if sees is None else sees[:, None])
        z = z + self.proj(together.transpose(1, 2).flatten(2))
        return z + self.fc2(gelu(self.fc1(self.norm2(z))))

    def heads(
        self, z: Float[Tensor, "b n d"], rotation: Float[Tensor, "#b n 2 c"] | None = None
    ) -> tuple[Float[Tensor, "b h n c"], Float[Tensor, "b h n c"], Float[Tensor, "b h n c"]]:
        """The queries, keys and values that `forward` makes of z, queries and keys turned by each token's rotation."""
        q, k, v = self.qkv(self.norm1(z)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return (q, k, v) if rotation is None else (rotate(q, rotation), rotate(k, rotation), v)


class Transformer(nn.Module):
    """Blocks and a final LayerNorm: the trunk of an encoder, a predictor or a decoder."""

    def __init__(self, dim: int, *, depth: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        blocks = [Block(dim, num_heads=num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        init_linear(self)
        # The l-th block's two residual branches shrink by sqrt(2 l) (BEiT, arXiv 2106.08254; I-JEPA's constructor).
        for level, block in enumerate(blocks, start=1):
            for layer in (block.proj, block.fc2):
                nn.init.trunc_normal_(layer.weight, std=0.02 * (2 * level) ** -0.5)

    def forward(
        self,
        z: Float[Tensor, "b n d"],
        causal: bool = False,
        sees: Bool[Tensor, "#b #n n"] | None = None,
        num_last: int | None = None,
        rotation: Float[Tensor, "#b n 2 c"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """The tokens after all blocks, or the `num_last` last of them. `sees[b, i, j]`: token i attends to token j.

        rotation  of each token's queries and keys, the same in every block, if that is how places are told.
        """
        for block in self.blocks[:-1]:
            z = block(z, causal, sees, rotation=rotation)
        for block in self.blocks[-1:]:
            z = block(z, causal, sees, num_last, rotation=rotation)
        return self.norm(z)

    def levels(
        self, z: Float[Tensor, "b n d"], rotation: Float[Tensor, "#b n 2 c"] | None = None
    ) -> list[Float[Tensor, "b n d"]]:
        """The tokens after each block, the last after the final norm."""
        levels = []
        for block in self.blocks:
            z = block(z, rotation=rotation)
            levels.append(z)
        return [*levels[:-1], self.norm(z)]


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights of standard deviation 0.02 and zero biases, for every linear layer in the module."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
