"""From the tokens that are seen to those that are not: I-JEPA's predictor (2301.08243) and MAE's decoder (2111.06377).

Both are this one network: a narrow transformer over the context and one learned mask token for each hidden place.
What tells them apart is what their answer is compared with, so the two camps get the same head by construction.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from jepalab.backbones.attention import Transformer, init_linear
from jepalab.backbones.vit import sincos_positions
from jepalab.types import Mask


class MaskedPredictor(nn.Module):
    """Answers for each target token, each block of them in a pass of its own over the context.

    dim      of the tokens it reads; out_dim of its answers (an embedding's width, or the numbers of a patch).
    grid     of the encoder: the positions of context and targets on it are all it knows of where they are.
    context_dim  width of a second answer, at the context's own places (V-JEPA 2.1); None answers for targets alone.
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
    ) -> None:
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(width), std=0.02))
        self.register_buffer("positions", sincos_positions(grid, width))
        self.answer = nn.Linear(width, out_dim)
        self.answer_context = None if context_dim is None else nn.Linear(width, context_dim)
        init_linear(self)
        self.transformer = Transformer(width, depth=depth, num_heads=num_heads)

    def forward(self, z: Float[Tensor, "b k d"], mask: Mask) -> Float[Tensor, "b g m o"]:
        """Predictions at the targets from the context's embeddings, in the order of `mask.target`."""
        together = self._join(z, mask)
        num_targets = mask.target.shape[2]
        tokens = self.transformer(together, sees=_present_only(mask), num_last=num_targets)
        return self.answer(tokens).float().unflatten(0, mask.target.shape[:2])

    def with_context(
        self, z: Float[Tensor, "b k d"], mask: Mask
    ) -> tuple[Float[Tensor, "b g m o"], Float[Tensor, "b g k c"]]:
        """`forward`, and the second answer at the places of the context, for each block."""
        if self.answer_context is None:
            raise ValueError("This predictor answers for targets alone; build it with a context_dim.")
        tokens = self.transformer(self._join(z, mask), sees=_present_only(mask))
        num_context = mask.context.shape[1]
        shape = mask.target.shape[:2]
        there, here = tokens[:, num_context:], tokens[:, :num_context]
        return self.answer(there).float().unflatten(0, shape), self.answer_context(here).float().unflatten(0, shape)

    def _join(self, z: Float[Tensor, "b k d"], mask: Mask) -> Float[Tensor, "bg n w"]:
        """Context and mask tokens of each block as one sequence; blocks lie along the batch."""
        context = self.embed(z) + self.positions[mask.context]
        targets = (self.mask_token + self.positions[mask.target]).to(context.dtype)
        each = context.unsqueeze(1).expand(-1, targets.shape[1], -1, -1)
        return torch.cat([each, targets], 2).flatten(0, 1)


def _present_only(mask: Mask) -> Bool[Tensor, "bg 1 n"] | None:
    """Nobody attends to a place that only fills a block up."""
    if mask.present is None:
        return None
    present = mask.present.flatten(0, 1)
    context = present.new_ones(len(present), mask.context.shape[1])
    return torch.cat([context, present], 1).unsqueeze(1)
