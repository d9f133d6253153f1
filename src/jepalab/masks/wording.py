"""The coverage of a mask sampler in words and in the characters of a terminal."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from jepalab.masks.blocks import NUM_CANDIDATES, Relaxation
from jepalab.masks.coverage import Coverage
from jepalab.masks.plane import plane_of
from jepalab.types import Mask

GIVEN_UP = {
    Relaxation.CONTEXT_BLOCK: "look beyond the context block",
    Relaxation.TARGET_PLACES: "put all targets at one place",
    Relaxation.TARGET_SIZE: "put all at one place and make them smaller",
}
NUMBERS_PER_LINE = 16


def headline(coverage: Coverage, name: str) -> str:
    return f"Masks of the sampler {name} on a grid of {' × '.join(map(str, coverage.grid))} tokens"


def sentences(coverage: Coverage) -> list[str]:
    """The sizes of context and targets, and what was relaxed: a sentence each."""
    fewest, mean, most = coverage.context_sizes
    seen, predicted = float(coverage.context.mean()), float(coverage.target.mean())
    low, middle, high = coverage.target_sizes
    some = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    every = "in every sample" if fewest == most else f"by the batch, in the mean {mean:.1f}"
    blocks = f"{coverage.num_blocks} blocks" if coverage.num_blocks > 1 else "one block"
    block = f"{low} tokens" if low == high else f"{low} to {high} tokens, in the mean {middle:.1f}"
    return [
        f"Context: {some} of {coverage.num_tokens} tokens {every} ({seen:.0%}).",
        f"Targets: {blocks} of {block}; together {predicted:.0%} of the tokens.",
        _relaxed(coverage),
    ]


def _relaxed(coverage: Coverage) -> str:
    samples = f"{coverage.num_samples} samples"
    if coverage.relaxed is None:
        return f"Drawn: {samples}."
    if not coverage.relaxed:
        return f"Relaxed: nothing in {samples}."
    parts = [f"{count} {GIVEN_UP[what]}" for what, count in coverage.relaxed.items()]
    return f"Relaxed, where {NUM_CANDIDATES} draws left too little context: of {samples} {', '.join(parts)}."


def in_words(coverage: Coverage, name: str, *, num_masks: int = 2) -> str:
    """All of it for a terminal: sizes, coverage along each axis, and masks as characters."""
    lines = [headline(coverage, name), "", *sentences(coverage), ""]
    lines.append("How often a token is context, and target: means over the samples and each")
    names = ("time", "row", "column")[3 - len(coverage.grid) :]
    for axis, title in enumerate(names):
        lines += _margin(title, _along(coverage.context, axis), _along(coverage.target, axis))
    masks = coverage.examples.map(lambda tensor: tensor[:num_masks])
    lines += ["", *_side_by_side(masks, coverage.grid)]
    return "\n".join(lines)


def _along(share: Float[Tensor, "*grid"], axis: int) -> list[float]:
    return share.movedim(axis, 0).flatten(1).mean(1).tolist() if share.ndim > 1 else share.tolist()


def _margin(title: str, context: list[float], target: list[float]) -> list[str]:
    lines = []
    for start in range(0, len(context), NUMBERS_PER_LINE):
        part = slice(start, start + NUMBERS_PER_LINE)
        lines.append(f"\n  {title:<8}" + "".join(f"{start + i + 1:>5}" for i in range(len(context[part]))))
        lines.append("  context " + "".join(f"{value:>5.2f}".replace("0.", " .") for value in context[part]))
        lines.append("  target  " + "".join(f"{value:>5.2f}".replace("0.", " .") for value in target[part]))
    return lines


def _side_by_side(masks: Mask, grid: tuple[int, ...]) -> list[str]:
    plane = plane_of(grid)
    pictures = [
        _characters(context, target, plane.num_columns, plane.num_places)
        for context, target in zip(masks.context.tolist(), masks.target.tolist(), strict=True)
    ]
    when = " at the first time" if plane.num_times > 1 else ""
    key = "o context, 1 2 … target block, * in several of them, · neither"
    first = f"The first masks{when}: {key}"
    if plane.num_columns > 32:
        return [first, *("\n  " + "\n  ".join(picture) for picture in pictures)]
    return [first, "", *("  " + "    ".join(row) for row in zip(*pictures, strict=True))]


def _characters(context: list[int], blocks: list[list[int]], num_columns: int, num_places: int) -> list[str]:
    """One mask, a line for each row."""
    marks = ["·"] * num_places
    for token in context:
        if token < num_places:
            marks[token] = "o"
    for number, block in enumerate(blocks, 1):
        for token in {token for token in block if token < num_places}:
            marks[token] = f"{number % 10}" if marks[token] == "·" else "*"
    gap = " " if num_columns <= 32 else ""
    return [gap.join(marks[start : start + num_columns]) for start in range(0, num_places, num_columns)]
