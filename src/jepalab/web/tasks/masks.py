"""Real masks of one sampler on a grid of patches, and how often it shows and asks for each patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jepalab.masks.blocks import Blocks
from jepalab.masks.causal import Prefix
from jepalab.masks.coverage import coverage
from jepalab.masks.random import RandomMask
from jepalab.masks.reference import ReferenceBlocks
from jepalab.types import Mask, MaskSampler
from jepalab.web.looking_arguments import number, one_of, whole
from jepalab.web.tasks import Arguments, Tell

SAMPLERS = ("blocks", "reference", "random", "next")
FEWEST, MOST = 4, 24  # patches along a side
NUM_MASKS, BATCH, NUM_COVERED = 12, 16, 1024


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """{grid, sampler, masks: [{context: [place], targets: [[place]]}], seen: [share], asked: [share]}.

    Arguments: grid (patches along each side), sampler, seed, hidden (share that random masks hide).
    """
    side = whole(arguments, "grid", low=FEWEST, high=MOST, default=14)
    name = one_of(arguments, "sampler", SAMPLERS, default="blocks")
    seed = whole(arguments, "seed", low=0, high=2**31 - 1, default=0)
    hidden = number(arguments, "hidden", low=0.05, high=0.95, default=0.75)
    grid = (side, side)
    if name == "next":
        return {"grid": side, "sampler": name, "masks": _prefixes(grid, seed), "seen": None, "asked": None}
    sampler = _sampler(name, grid, hidden)
    # Masks of the official sampler depend on their batch: those shown come from one of the size it is trained with.
    mask = sampler(BATCH, torch.Generator().manual_seed(seed))
    found = coverage(sampler, num_samples=NUM_COVERED, batch_size=BATCH)
    return {
        "grid": side,
        "sampler": name,
        "masks": [_described(mask, i) for i in range(NUM_MASKS)],
        "seen": found.context.flatten().tolist(),
        "asked": found.target.flatten().tolist(),
    }


def _sampler(name: str, grid: tuple[int, int], hidden: float) -> MaskSampler:
    if name == "random":
        return RandomMask(grid, share=hidden)
    return Blocks(grid) if name == "blocks" else ReferenceBlocks(grid, min_keep=_min_keep(grid))


def _min_keep(grid: tuple[int, int]) -> int:
    """10, as published, where blocks are larger; else as much as the smallest block allows."""
    for keep in range(10, 0, -1):
        try:
            return ReferenceBlocks(grid, min_keep=keep).min_keep
        except ValueError:
            continue
    return 0


def _prefixes(grid: tuple[int, int], seed: int) -> list[dict[str, Any]]:
    """A prefix that sees itself, and the patch after it: the first that is asked for."""
    lengths = Prefix(grid).lengths(NUM_MASKS, torch.Generator().manual_seed(seed)).tolist()
    return [{"context": [*range(length)], "targets": [[length]]} for length in lengths]


def _described(mask: Mask, row: int) -> dict[str, Any]:
    blocks = mask.target[row]
    present = torch.ones_like(blocks, dtype=torch.bool) if mask.present is None else mask.present[row]
    targets = [sorted({*block[there].tolist()}) for block, there in zip(blocks, present, strict=True)]
    return {"context": mask.context[row].tolist(), "targets": targets}
