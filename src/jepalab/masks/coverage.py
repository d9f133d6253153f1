"""What a mask sampler covers: how often each token is seen and predicted, how many are, and what was relaxed for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.masks.blocks import Blocks, Relaxation
from jepalab.masks.plane import plane_of
from jepalab.masks.tubes import Tubes
from jepalab.types import Mask, MaskSampler


@dataclass(frozen=True)
class Coverage:
    """Figures of `num_samples` masks.

    context, target  share of the samples in which each token is seen, and in which it is in one target or more.
    context_sizes, target_sizes  fewest, mean and most tokens of a context, and of one target block.
    num_blocks  target blocks of a sample.
    relaxed     samples by what they gave up, those that gave up something; None if the sampler relaxes nothing.
    examples    the first masks, as they come in one batch: `num_examples` of them, or fewer where a batch is smaller.
    """

    grid: tuple[int, ...]
    num_samples: int
    context: Float[Tensor, "*grid"]
    target: Float[Tensor, "*grid"]
    context_sizes: tuple[int, float, int]
    target_sizes: tuple[int, float, int]
    num_blocks: int
    relaxed: dict[Relaxation, int] | None
    examples: Mask

    @property
    def num_tokens(self) -> int:
        return prod(self.grid)

    def on_plane(self, share: Float[Tensor, "*grid"]) -> Float[Tensor, "h w"]:
        """`context` or `target`, averaged over the times."""
        return share.view(*plane_of(self.grid)).mean(0)

    def by_time(self, share: Float[Tensor, "*grid"]) -> Float[Tensor, " t"]:
        """`context` or `target`, averaged over the places of each time."""
        return share.view(*plane_of(self.grid)).mean((1, 2))


def coverage(
    sampler: MaskSampler, *, num_samples: int = 4096, seed: int = 0, batch_size: int = 64, num_examples: int = 6
) -> Coverage:
    """Draws so many masks, `batch_size` at a time; which matters for the reference samplers alone."""
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"Wanted one sample or more at a time, got {num_samples=}, {batch_size=}.")
    generator, num_tokens = torch.Generator().manual_seed(seed), prod(sampler.grid)
    seen, hidden = torch.zeros(num_tokens), torch.zeros(num_tokens)
    context_sizes, target_sizes, examples = [], [], None
    relaxed = torch.zeros(len(Relaxation), dtype=torch.int64)
    for done in range(0, num_samples, batch_size):
        size = min(batch_size, num_samples - done)
        if isinstance(sampler, Blocks | Tubes):
            mask, given_up = sampler.draw(size, generator)
            relaxed += given_up.bincount(minlength=len(Relaxation))
        else:
            mask = sampler(size, generator)
        seen += _marked(mask.context, num_tokens)
        hidden += _marked(mask.target.flatten(1), num_tokens)
        num_blocks, most = mask.target.shape[1:]
        context_sizes.append(torch.full((size,), mask.context.shape[1]))
        target_sizes.append(torch.full((size, num_blocks), most) if mask.present is None else mask.present.sum(2))
        examples = examples or mask.map(lambda tensor: tensor[:num_examples])
    assert examples is not None
    names = {Relaxation(i): int(count) for i, count in enumerate(relaxed) if i and count}
    return Coverage(
        sampler.grid,
        num_samples,
        context=(seen / num_samples).view(sampler.grid),
        target=(hidden / num_samples).view(sampler.grid),
        context_sizes=_spread(context_sizes),
        target_sizes=_spread(target_sizes),
        num_blocks=examples.target.shape[1],
        relaxed=names if isinstance(sampler, Blocks | Tubes) else None,
        examples=examples,
    )


def _marked(tokens: Int[Tensor, "b m"], num_tokens: int) -> Float[Tensor, " n"]:
    """The number of rows in which each token occurs."""
    return torch.zeros(len(tokens), num_tokens).scatter_(1, tokens, 1.0).sum(0)


def _spread(sizes: list[Tensor]) -> tuple[int, float, int]:
    together = torch.cat([size.flatten() for size in sizes])
    return int(together.min()), float(together.float().mean()), int(together.max())
