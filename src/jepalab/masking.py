"""The command `jepalab masks`: what a mask sampler covers, in the terminal and as a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from jepalab.masks.blocks import Blocks
from jepalab.masks.causal import PastFuture
from jepalab.masks.coverage import coverage
from jepalab.masks.picture import draw_coverage
from jepalab.masks.plane import plane_of
from jepalab.masks.random import RandomMask, RandomTubes
from jepalab.masks.reference import ReferenceBlocks, ReferenceTubes
from jepalab.masks.tubes import Tubes
from jepalab.masks.wording import in_words
from jepalab.types import MaskSampler

SamplerName = Literal[
    "blocks",
    "short-range",
    "long-range",
    "random",
    "random-tubes",
    "past",
    "reference",
    "reference-short-range",
    "reference-long-range",
]


@dataclass(frozen=True)
class MasksCommand:
    """Shows how often each token is context and target, how large both are, and what was relaxed to draw them.

    Args:
        grid: tokens along each axis: 14x14 for pictures, 64 for series, 8x14x14 for clips.
        sampler: blocks (I-JEPA), tubes (V-JEPA: short or long range), random tokens or random tubes, past and future;
            or blocks and tubes with the bias of the official code.
        num_samples: number of masks to draw.
        batch_size: masks drawn at a time; the masks of the reference samplers alone depend on it.
        num_context: tokens that the encoder sees; without it, what nine in ten masks of blocks or tubes leave, and of a
            past the first half of the times.
        num_seen_times: first times that tubes show the encoder, so that the rest is predicted; without it, all.
        share: share of the tokens that random masks hide.
        min_keep: tokens that a block of the reference sampler must have more of.
        seed: of the random numbers.
        out: file the picture is written into.
    """

    grid: str = "14x14"
    sampler: SamplerName = "blocks"
    num_samples: int = 4096
    batch_size: int = 16
    num_context: int | None = None
    num_seen_times: int | None = None
    share: float = 0.75
    min_keep: int = 10
    seed: int = 0
    out: Path = Path("masks.svg")


def run(words: list[str]) -> int:
    """Runs the command."""
    command = tyro.cli(MasksCommand, prog="jepalab masks", args=words)
    found = coverage(
        choose_sampler(command), num_samples=command.num_samples, seed=command.seed, batch_size=command.batch_size
    )
    command.out.parent.mkdir(parents=True, exist_ok=True)
    command.out.write_text(draw_coverage(found, name=command.sampler), encoding="utf-8")
    print(in_words(found, command.sampler))
    print(f"\npicture: {command.out.resolve()}")
    return 0


def choose_sampler(command: MasksCommand) -> MaskSampler:
    """The sampler that the command names."""
    grid = read_grid(command.grid)
    match command.sampler:
        case "blocks":
            return Blocks(grid, num_context=command.num_context)
        case "short-range":
            return _of_command(Tubes.short_range(grid), command)
        case "long-range":
            return _of_command(Tubes.long_range(grid), command)
        case "random":
            return RandomMask(grid, share=command.share)
        case "random-tubes":
            return RandomTubes(grid, share=command.share)
        case "past":
            half = plane_of(grid).num_tokens // grid[0] * (grid[0] // 2)
            return PastFuture(grid, num_context=half if command.num_context is None else command.num_context)
        case "reference":
            return ReferenceBlocks(grid, min_keep=command.min_keep)
        case "reference-short-range":
            return ReferenceTubes.short_range(grid)
        case "reference-long-range":
            return ReferenceTubes.long_range(grid)


def _of_command(tubes: Tubes, command: MasksCommand) -> Tubes:
    return replace(tubes, num_context=command.num_context, num_seen_times=command.num_seen_times)


def read_grid(text: str) -> tuple[int, ...]:
    """(14, 14) from 14x14."""
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2}", text):
        raise ValueError(f"Wanted a grid such as 14x14, 64 or 8x14x14, got {text!r}.")
    return tuple(map(int, text.split("x")))
