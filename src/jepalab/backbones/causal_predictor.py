"""A causal transformer over embeddings whose blocks the actions modulate (LeWorldModel, arXiv 2603.19312; AdaLN-zero of
DiT, 2212.09748), with keys and values kept while it imagines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

from jepalab.backbones.attention import attend, init_linear
from jepalab.backbones.positions import rotate, rotations
from jepalab.backbones.predictor import check_actions

# Candidates that advance together on a CPU: with more, what a block computes for them leaves the caches.
MAX_TOGETHER = 2400


class Kept(NamedTuple):
    """Keys and values of one block: of the history, which all candidates share, and of each step they have imagined."""

    past_k: Float[Tensor, "b h t c"]
    past_v: Float[Tensor, "b h t c"]
    own: list[tuple[Float[Tensor, "b s h c"], Float[Tensor, "b s h c"]]]


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
        self, x: Float[Tensor, "b s w"], given: Float[Tensor, "b s w"], turns: Complex[Tensor, "2 p"], kept: Kept
    ) -> Float[Tensor, "b s w"]:
        """One more token for each candidate, which sees the history and what the candidate imagined, and is kept.

        turns  of its queries and of its keys, as `_turns` has them.
        """
        m = self.modulate(given).chunk(6, -1)
        q, k, v = self.qkv(_modulated(x, m[0], m[1])).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        kept.own.append((_turned(k, turns[1]), v.contiguous()))
        x = x + m[2] * self.proj(_look_back(_turned(q, turns[0]), kept).flatten(2))
        return self._think(x, m)

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
        if action.device.type != "cpu":
            return self._imagine(z, past, action)
        together = max(1, MAX_TOGETHER // max(1, action.shape[1]))
        parts = zip(z.split(together), past.split(together), action.split(together), strict=True)
        return torch.cat([self._imagine(*part) for part in parts])

    def _imagine(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        batch, num, horizon, _ = action.shape
        given = silu(self.read_action(action.permute(2, 0, 1, 3)))
        if (history := z.shape[1]) > 1:
            kept = [Kept(k, v, []) for k, v in self._read(z[:, :-1], past)[1]]
        else:
            nothing = given.new_zeros(batch, self.num_heads, 0, self.head_width)
            kept = [Kept(nothing, nothing, []) for _ in self.blocks]
        table = rotations((history - 1 + horizon,), self.head_width)[history - 1 :].to(z.device)
        z, steps = z[:, -1:].expand(-1, num, -1), []
        for turns, each in zip(_turns(table), given, strict=True):
            x = self.embed(z)
            for block, before in zip(self.blocks, kept, strict=True):
                x = block.step(x, each, turns, before)  # pyrefly: ignore[not-callable]
            z = z + self.answer(_normed(x)).float()
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


def _turns(table: Float[Tensor, "h 2 c"]) -> Complex[Tensor, "h 2 p"]:
    """What `rotate` does to queries and keys at each place, as factors of pairs of channels read as complex numbers.

    Those of queries hold the scale of the scores as well.
    """
    turn = torch.complex(table[:, 0, ::2].contiguous(), table[:, 1, 1::2].contiguous())
    return torch.stack([turn * table.shape[-1] ** -0.5, turn], 1)


def _turned(x: Float[Tensor, "b s h c"], turn: Complex[Tensor, " p"]) -> Float[Tensor, "b s h c"]:
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2).to(x.dtype)


def _look_back(q: Float[Tensor, "b s h c"], kept: Kept) -> Float[Tensor, "b s h c"]:
    """Attention of each candidate's newest token, which has turned and scaled queries.

    What a candidate imagined is a few tokens that are its own: taking them one by one spares the copies, and the
    thousands of tiny products, that a batched product would make of them.
    """
    num_past = kept.past_k.shape[2]
    of_past = (q.transpose(1, 2) @ kept.past_k.mT).transpose(1, 2)
    of_own = [(q * k).sum(-1, keepdim=True) for k, _ in kept.own]
    share = torch.cat([of_past, *of_own], -1).softmax(-1).to(q.dtype)
    seen = (share[..., :num_past].transpose(1, 2) @ kept.past_v).transpose(1, 2)
    for each, (_, v) in zip(share[..., num_past:].split(1, -1), kept.own, strict=True):
        seen = torch.addcmul(seen, each, v)
    return seen


def _normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], eps=1e-6)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return _normed(x) * (1 + scale) + shift
