"""A causal transformer over embeddings whose blocks the actions modulate (LeWorldModel, arXiv 2603.19312; AdaLN-zero of
DiT, 2212.09748), with keys and values kept while it imagines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

from jepalab.backbones.attention import attend, init_linear
from jepalab.backbones.positions import rotate, rotations
from jepalab.backbones.predictor import check_actions


class Kept(NamedTuple):
    """Keys and values of one block: of the history, which all candidates share, and of what each has imagined."""

    past_k: Float[Tensor, "b h t c"]
    past_v: Float[Tensor, "b h t c"]
    own_k: Float[Tensor, "b h s i c"]
    own_v: Float[Tensor, "b h s i c"]


class ModulatedBlock(nn.Module):
    """Attention and an MLP, each on a norm that the action scales and shifts, each gated by the action from zero."""

    def __init__(self, width: int, *, num_heads: int, head_width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads, inner = num_heads, num_heads * head_width
        self.qkv, self.proj = nn.Linear(width, 3 * inner), nn.Linear(inner, width)
        self.fc1, self.fc2 = nn.Linear(width, int(width * mlp_ratio)), nn.Linear(int(width * mlp_ratio), width)
        self.modulate = nn.Linear(width, 6 * width)
        init_linear(self)
        nn.init.zeros_(self.modulate.weight)

    def heads(self, x: Float[Tensor, "b n w"], rotation: Float[Tensor, "1 n 2 c"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [b h n c], the first two turned by each token's place."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(q, rotation), rotate(k, rotation), v

    def forward(
        self, x: Float[Tensor, "b n w"], given: Float[Tensor, "b n w"], rotation: Float[Tensor, "1 n 2 c"]
    ) -> tuple[Float[Tensor, "b n w"], Tensor, Tensor]:
        """Every token sees those before it and itself. Also the keys and values, for going on."""
        m = self.modulate(given).chunk(6, -1)
        q, k, v = self.heads(_modulated(x, m[0], m[1]), rotation)
        x = x + m[2] * self.proj(attend(q, k, v, causal=True).transpose(1, 2).flatten(2))
        return self._think(x, m), k, v

    def step(
        self, x: Float[Tensor, "b s w"], given: Float[Tensor, "b s w"], rotation: Float[Tensor, "1 s 2 c"], kept: Kept
    ) -> tuple[Float[Tensor, "b s w"], Kept]:
        """One more token for each candidate, which sees the history and what the candidate imagined."""
        m = self.modulate(given).chunk(6, -1)
        q, k, v = self.heads(_modulated(x, m[0], m[1]), rotation)
        own_k, own_v = torch.cat([kept.own_k, k.unsqueeze(3)], 3), torch.cat([kept.own_v, v.unsqueeze(3)], 3)
        q = q * q.shape[-1] ** -0.5
        scores = torch.cat([q @ kept.past_k.mT, (q.unsqueeze(3) @ own_k.mT).squeeze(3)], -1)
        share = scores.softmax(-1).to(v.dtype)
        num_past = kept.past_k.shape[2]
        seen = share[..., :num_past] @ kept.past_v + (share[..., None, num_past:] @ own_v).squeeze(3)
        x = x + m[2] * self.proj(seen.transpose(1, 2).flatten(2))
        return self._think(x, m), Kept(kept.past_k, kept.past_v, own_k, own_v)

    def _think(self, x: Tensor, m: tuple[Tensor, ...]) -> Tensor:
        return x + m[5] * self.fc2(gelu(self.fc1(_modulated(x, m[3], m[4]))))


class CausalPredictor(nn.Module):
    """Predicts the next embedding from all before it, and adds its answer to the present one.

    num_actions  width of the action vector. An action modulates the token of the embedding it was taken at.
    width        inside. Places are told by rotary codes, so clips may have any length.
    head_width   channels of a head, an even number; without it num_heads divide the width. LeWorldModel has 16 heads of
                 64 on a width of 192.
    No dropout: a run is a function of its seed, and resumes exactly.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_actions: int,
        width: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        head_width: int | None = None,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if head_width is None and width % num_heads:
            raise ValueError(f"Wanted a width that {num_heads} heads divide, got {width}; or say head_width.")
        self.dim, self.num_actions = dim, num_actions
        self.num_heads, self.head_width = num_heads, head_width or width // num_heads
        self.embed, self.answer = nn.Linear(dim, width), nn.Linear(width, dim)
        self.read_action = nn.Sequential(nn.Linear(num_actions, width), nn.SiLU(), nn.Linear(width, width))
        for layer in (self.embed, self.answer, self.read_action):
            init_linear(layer)
        self.blocks = nn.ModuleList(
            ModulatedBlock(width, num_heads=num_heads, head_width=self.head_width, mlp_ratio=mlp_ratio)
            for _ in range(depth)
        )

    def forward(
        self, z: Float[Tensor, "b t d"], action: Float[Tensor, "b t a"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """For each time the prediction of the embedding that follows, from z up to that time (teacher forcing)."""
        given = z.new_zeros(*z.shape[:2], 0) if action is None else action
        return self._read(z, given)[0]

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        """Imagines h steps for each candidate. The history is read once; each step costs one token a candidate."""
        check_actions(action, self.num_actions)
        num, (batch, history) = action.shape[1], z.shape[:2]
        if history > 1:
            _, pairs = self._read(z[:, :-1], past)
        else:
            pairs = [(None, None)] * len(self.blocks)
        given = silu(self.read_action(action))
        kept = [self._keep(k, v, batch, num, given) for k, v in pairs]
        table = rotations((history - 1 + action.shape[2],), self.head_width).to(z.device)[history - 1 :]
        z, steps = z[:, -1:].expand(-1, num, -1), []
        for place, each in zip(table, given.unbind(2), strict=True):
            x, rotation, longer = self.embed(z), place.expand(1, num, -1, -1), []
            for block, before in zip(self.blocks, kept, strict=True):
                x, after = block.step(x, each, rotation, before)  # pyrefly: ignore[not-callable]
                longer.append(after)
            z, kept = z + self.answer(_normed(x)).float(), longer
            steps.append(z)
        return torch.stack(steps, 2)

    def _read(self, z: Tensor, action: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        check_actions(action, self.num_actions)
        x, given, pairs = self.embed(z), silu(self.read_action(action)), []
        rotation = rotations((z.shape[1],), self.head_width).to(z.device)[None]
        for block in self.blocks:
            x, k, v = block(x, given, rotation)
            pairs.append((k, v))
        return z + self.answer(_normed(x)).float(), pairs

    def _keep(self, k: Tensor | None, v: Tensor | None, batch: int, num: int, like: Tensor) -> Kept:
        nothing = like.new_zeros(batch, self.num_heads, 0, self.head_width)
        own = like.new_zeros(batch, self.num_heads, num, 0, self.head_width)
        return Kept(nothing if k is None else k, nothing if v is None else v, own, own)


def _normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], eps=1e-6)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return _normed(x) * (1 + scale) + shift
