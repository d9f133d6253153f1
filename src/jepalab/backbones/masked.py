"""From the tokens that are seen to those that are not: I-JEPA's predictor (2301.08243) and MAE's decoder (2111.06377).

Both are this one network: a narrow transformer over the context and one learned mask token for each hidden place.
What tells them apart is what their answer is compared with, so the two camps get the same head by construction.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from jepalab.backbones.attention import Transformer, init_linear
from jepalab.backbones.positions import Positions, make_positions
from jepalab.types import Mask


class MaskedPredictor(nn.Module):
    """Answers for each target token, each block of them in a pass of its own over the context.

    dim      of the tokens it reads; out_dim of its answers (an embedding's width, or the numbers of a patch).
    grid     of the encoder: the positions of context and targets on it are all it knows of where they are.
    context_dim  width of a second answer, at the context's own places (V-JEPA 2.1); None answers for targets alone.
    positions    how a token knows its place, as in `ViT`.
    num_mask_tokens  one for each mask generator (V-JEPA, 2404.08471): `which` of them stands for the hidden tokens.
                     They start from a truncated normal of .02, as I-JEPA's; V-JEPA's release starts them from zero.
    """

    positions: Tensor

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        grid: tuple[int, ...],
        width: int = 96,
        depth: int = 3,
        num_heads: int = 3,
        context_dim: int | None = None,
        positions: Positions = "sincos",
        num_mask_tokens: int = 1,
    ) -> None:
        super().__init__()
        if num_mask_tokens < 1:
            raise ValueError(f"wanted a mask token or more, got num_mask_tokens={num_mask_tokens}; leave it at 1")
        self.grid, self.width, self.num_mask_tokens = grid, width, num_mask_tokens
        self.position_kind: Positions = positions
        self.embed = nn.Linear(dim, width)
        # A single one has no axis to count it by: checkpoints from before there were several hold it so.
        shape = (width,) if num_mask_tokens == 1 else (num_mask_tokens, width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(shape), std=0.02))
        self.register_buffer("positions", make_positions(positions, grid, dim=width, num_heads=num_heads))
        self.answer = nn.Linear(width, out_dim)
        self.answer_context = None if context_dim is None else nn.Linear(width, context_dim)
        init_linear(self)
        self.transformer = Transformer(width, depth=depth, num_heads=num_heads)

    def forward(self, z: Float[Tensor, "b k d"], mask: Mask, which: int = 0) -> Float[Tensor, "b g m o"]:
        """Predictions at the targets from the context's embeddings, in the order of `mask.target`.

        which  mask token asks for them: 0 is the first.
        """
        together, rotation = self._join(z, mask, which)
        num_targets = mask.target.shape[2]
        tokens = self.transformer(together, sees=present_only(mask), num_last=num_targets, rotation=rotation)
        return self.answer(tokens).float().unflatten(0, mask.target.shape[:2])

    def with_context(
        self, z: Float[Tensor, "b k d"], mask: Mask, which: int = 0
    ) -> tuple[Float[Tensor, "b g m o"], Float[Tensor, "b g k c"]]:
        """`forward`, and the second answer at the places of the context, for each block."""
        if self.answer_context is None:
            raise ValueError("This predictor answers for targets alone; build it with a context_dim.")
        together, rotation = self._join(z, mask, which)
        tokens = self.transformer(together, sees=present_only(mask), rotation=rotation)
        num_context = mask.context.shape[1]
        shape = mask.target.shape[:2]
        there, here = tokens[:, num_context:], tokens[:, :num_context]
        return self.answer(there).float().unflatten(0, shape), self.answer_context(here).float().unflatten(0, shape)

    def _join(
        self, z: Float[Tensor, "b k d"], mask: Mask, which: int
    ) -> tuple[Float[Tensor, "bg n w"], Float[Tensor, "bg n 2 c"] | None]:
        """Context and mask tokens of each block as one sequence, and their rotations; blocks lie along the batch."""
        if not 0 <= which < self.num_mask_tokens:
            raise ValueError(
                f"wanted one of {self.num_mask_tokens} mask tokens, counted from 0, got {which}; build the predictor "
                "with more num_mask_tokens"
            )
        context, asking = self.embed(z), self.mask_token.view(-1, self.width)[which]
        here, there = self.positions[mask.context], self.positions[mask.target]
        if self.position_kind == "sincos":
            context = context + here
            return _append(context, (asking + there).to(context.dtype)), None
        asking = asking.expand(*mask.target.shape, -1)
        return _append(context.to(here.dtype), asking.to(here.dtype)), _append(here, there)


def _append(context: Float[Tensor, "b k *w"], targets: Float[Tensor, "b g m *w"]) -> Float[Tensor, "bg n *w"]:
    """Each block's targets after the context they share."""
    each = context.unsqueeze(1).expand(-1, targets.shape[1], *context.shape[1:])
    return torch.cat([each, targets], 2).flatten(0, 1)


def present_only(mask: Mask) -> Bool[Tensor, "bg 1 n"] | None:
    """Nobody attends to a place that only fills a block up."""
    if mask.present is None:
        return None
    present = mask.present.flatten(0, 1)
    context = present.new_ones(len(present), mask.context.shape[1])
    return torch.cat([context, present], 1).unsqueeze(1)
