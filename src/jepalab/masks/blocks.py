"""I-JEPA's multi-block masks (2301.08243) on a grid of any rank: spans of series, blocks of pictures, tubes of clips.

Each sample is drawn on its own, every place of the grid can be reached, and drawing always ends. The official sampler
differs in all three (`masks.reference` reproduces it).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.masks.plane import Plane, choose, mark, plane_of
from jepalab.types import Mask

NUM_STEPS = 64  # scale and aspect each take one of so many values, evenly spaced over their range
NUM_CANDIDATES = 8  # sets of targets drawn for each sample; the first that leaves enough context is taken
NUM_SIMULATED = 4096  # samples from which the size of the context is found, where none is given
RARELY = 0.1  # share of first candidates that may leave less context than that


class Relaxation(IntEnum):
    """What a sample's mask gave up to leave enough context; each step includes those before it."""

    NOTHING = 0
    CONTEXT_BLOCK = 1  # the context is drawn from all that is no target, not from its block alone
    TARGET_PLACES = 2  # all targets lie at one place
    TARGET_SIZE = 3  # and are smaller than drawn


@dataclass(frozen=True)
class Blocks:
    """Target blocks anywhere on the grid, and a context block without them, thinned at random to a fixed size.

    The blocks of a sample share one size and may overlap one another; context and targets never do. On a grid of rank 3
    the first axis is time, and everything holds at all times: a block is a tube, and the context loses whole tubes.

    num_targets    blocks of a sample, each predicted on its own.
    target_scale   area of a block as a share of the plane (the last two axes), drawn for each sample.
    target_aspect  height of a block over its width, in tokens, drawn apart from the scale.
    context_scale  area of the context block, which has the plane's own aspect.
    num_context    tokens the encoder sees. None takes what nine in ten masks leave; it depends on the settings alone.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    num_context: int | None = None

    def __post_init__(self) -> None:
        plane = plane_of(self.grid)
        if self.num_targets < 1:
            raise ValueError(f"Wanted one target block or more, got num_targets={self.num_targets}.")
        check_range("target_scale", self.target_scale, most=1.0)
        check_range("target_aspect", self.target_aspect)
        check_range("context_scale", self.context_scale, most=1.0)
        plane.check_context(self.num_context)

    @property
    def context_length(self) -> int:
        """Tokens of every context: `num_context`, or what takes its place where it is None."""
        return _tables(self).num_context * plane_of(self.grid).num_times

    @property
    def target_length(self) -> int:
        """Tokens of the largest block that can be drawn, to which all are filled up."""
        return _tables(self).shifts.shape[1] * plane_of(self.grid).num_times

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """A mask for each sample."""
        return self.draw(num_samples, generator)[0]

    def draw(self, num_samples: int, generator: torch.Generator) -> tuple[Mask, Int[Tensor, " b"]]:
        """A mask for each sample, and what it gave up: a `Relaxation`, as a number."""
        plane, tables = plane_of(self.grid), _tables(self)
        draw = _draw(self, tables, num_samples, generator)
        size, target = draw.size, _blocks_at(draw.where[:, 0], tables, draw.size, plane)
        seen = draw.inside & ~mark(target, plane.num_places)
        relaxed = torch.zeros(num_samples, dtype=torch.int64)
        late = (seen.sum(1) < tables.num_context).nonzero()[:, 0]
        if len(late):
            again = _Draw(*(part[late] for part in draw))
            size[late], target[late], seen[late], relaxed[late] = _draw_again(again, tables, plane)
        context = choose(draw.noise, tables.num_context, seen)
        present = None
        if tables.present is not None:
            present = tables.present[size].unsqueeze(1).expand(-1, self.num_targets, -1)
        return Mask(plane.through_time(context), plane.through_time(target), present), relaxed


class _Tables(NamedTuple):
    """What follows from the settings alone. A size is an index into those of the blocks that can be drawn, s of them.

    size_drawn     [NUM_STEPS * NUM_STEPS] the size at each scale and aspect.
    room           [s 2] rows and columns at which a block of this size can start.
    shifts         [s m] from a block's first place to each of its own; filled up with the last.
    present        [s t*m] False where it is filled up, at every time; None if all blocks have m places.
    smaller        [s] the size that leaves enough context where all targets lie at one place; mostly the size itself.
    context_sizes  [NUM_STEPS 2] rows and columns of the context block at each scale.
    shape          [2] rows and columns of the plane, and `rows`, `columns` their numbers.
    num_context    places of the context.
    """

    size_drawn: Int[Tensor, " q"]
    room: Int[Tensor, "s 2"]
    shifts: Int[Tensor, "s m"]
    present: Bool[Tensor, "s tm"] | None
    smaller: Int[Tensor, " s"]
    context_sizes: Int[Tensor, "q 2"]
    shape: Int[Tensor, " 2"]
    rows: Int[Tensor, " h"]
    columns: Int[Tensor, " w"]
    num_context: int


class _Draw(NamedTuple):
    """What is drawn for each sample: a size, where q candidate sets of targets lie, the context block, and noise."""

    size: Int[Tensor, " b"]
    where: Float[Tensor, "b q g 2"]
    inside: Bool[Tensor, "b n"]
    noise: Float[Tensor, "b n"]


def _draw(blocks: Blocks, tables: _Tables, num_samples: int, generator: torch.Generator) -> _Draw:
    """All random numbers of a sample are one row of one draw: a sample's mask is the same in a batch of any size."""
    plane = plane_of(blocks.grid)
    parts = [2, 3, NUM_CANDIDATES * blocks.num_targets * 2, plane.num_places]
    numbers = torch.rand(num_samples, sum(parts), generator=generator)
    form, context, where, noise = numbers.split(parts, 1)
    step = (form * NUM_STEPS).long()
    size = tables.size_drawn[step[:, 0] * NUM_STEPS + step[:, 1]]

    extent = tables.context_sizes[(context[:, 0] * NUM_STEPS).long()]
    start = (context[:, 1:] * (tables.shape - extent + 1)).long()
    end = start + extent
    in_rows = (tables.rows >= start[:, :1]) & (tables.rows < end[:, :1])
    in_columns = (tables.columns >= start[:, 1:]) & (tables.columns < end[:, 1:])
    inside = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).flatten(1)
    return _Draw(size, where.unflatten(1, (NUM_CANDIDATES, blocks.num_targets, 2)), inside, noise)


def _blocks_at(where: Float[Tensor, "b g 2"], tables: _Tables, size: Int[Tensor, " b"], plane: Plane) -> Tensor:
    """The places [b g m] of blocks that start anywhere on the plane where they fit, all starts equally likely."""
    start = (where * tables.room[size].unsqueeze(1)).long()
    first = start[..., 0] * plane.num_columns + start[..., 1]
    return first.unsqueeze(2) + tables.shifts[size].unsqueeze(1)


def _draw_again(draw: _Draw, tables: _Tables, plane: Plane) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Size, target, seen places and `Relaxation` of samples whose first targets leave the context block too little.

    The first candidate that leaves it enough is taken; else the steps of `Relaxation` follow.
    """
    shape = draw.where.shape[:2]
    targets = _blocks_at(draw.where.flatten(0, 1), tables, draw.size.repeat_interleave(shape[1]), plane)
    outside = ~mark(targets, plane.num_places).unflatten(0, shape)
    targets = targets.unflatten(0, shape)
    seen = outside & draw.inside.unsqueeze(1)
    taken, is_kept = _first_with(tables.num_context, seen)
    found = (draw.size.clone(), targets[taken], seen[taken], torch.zeros_like(draw.size))
    if not is_kept.all():
        rest = ~is_kept
        for part, relaxed in zip(found, _relax(draw, tables, plane, targets, outside), strict=True):
            part[rest] = relaxed[rest]
    return found


def _relax(draw: _Draw, tables: _Tables, plane: Plane, targets: Tensor, outside: Tensor) -> tuple[Tensor, ...]:
    """As `_draw_again`, with the context from all that is no target.

    The first candidate that leaves it enough; else one place for all targets, and there a block that does.
    """
    taken, is_enough = _first_with(tables.num_context, outside)
    smaller = tables.smaller[draw.size]
    together = _blocks_at(draw.where[:, 0, :1], tables, smaller, plane).expand_as(targets[:, 0])
    relaxed = torch.where(smaller == draw.size, int(Relaxation.TARGET_PLACES), int(Relaxation.TARGET_SIZE))
    return (
        torch.where(is_enough, draw.size, smaller),
        torch.where(is_enough[:, None, None], targets[taken], together),
        torch.where(is_enough[:, None], outside[taken], ~mark(together, plane.num_places)),
        torch.where(is_enough, int(Relaxation.CONTEXT_BLOCK), relaxed),
    )


def _first_with(num_context: int, seen: Bool[Tensor, "b q n"]) -> tuple[tuple[Tensor, Tensor], Bool[Tensor, " b"]]:
    """For each sample the index of its first candidate that leaves so many places, and whether there is one."""
    enough = seen.sum(2) >= num_context
    return (torch.arange(len(seen)), enough.int().argmax(1)), enough.any(1)


@lru_cache(maxsize=256)
def _tables(blocks: Blocks) -> _Tables:
    """The tables of these settings, with the context that a fixed simulation finds where none is given."""
    plane = plane_of(blocks.grid)
    if blocks.num_context is not None:
        return _build(blocks, blocks.num_context // plane.num_times)
    unknown = _build(blocks, 1)
    found = _draw(blocks, unknown, NUM_SIMULATED, torch.Generator().manual_seed(0))
    target = _blocks_at(found.where[:, 0], unknown, found.size, plane)
    left = (found.inside & ~mark(target, plane.num_places)).sum(1).sort().values
    return _build(blocks, min(max(int(left[int(RARELY * NUM_SIMULATED)]), 1), plane.num_places - 1))


def _build(blocks: Blocks, num_context: int) -> _Tables:
    plane = plane_of(blocks.grid)
    scale, aspect = _steps(blocks.target_scale), _steps(blocks.target_aspect)
    drawn = _extents(scale[:, None], aspect[None, :], plane).flatten(0, 1)
    sizes = {(int(h), int(w)): None for h, w in drawn.unique(dim=0)}
    smaller = {size: _shrink(size, plane.num_places - num_context) for size in sizes}
    order = list(sizes | dict.fromkeys(smaller.values()))
    most = max(h * w for h, w in order)
    rows, columns, counts = [], [], torch.tensor([h * w for h, w in order])
    shifts = torch.zeros(len(order), most, dtype=torch.int64)
    for shift, (h, w) in zip(shifts, order, strict=True):
        places = torch.arange(h)[:, None] * plane.num_columns + torch.arange(w)
        shift[:] = places[-1, -1]
        shift[: h * w] = places.flatten()
        rows.append(plane.num_rows - h + 1)
        columns.append(plane.num_columns - w + 1)
    present = torch.arange(most) < counts[:, None]
    index = {size: i for i, size in enumerate(order)}
    return _Tables(
        size_drawn=torch.tensor([index[int(h), int(w)] for h, w in drawn]),
        room=torch.tensor([rows, columns]).mT.contiguous(),
        shifts=shifts,
        present=None if present.all() else present.repeat(1, plane.num_times),
        smaller=torch.tensor([index[smaller.get(size, size)] for size in order]),
        context_sizes=_extents(_steps(blocks.context_scale), plane.num_rows / plane.num_columns, plane),
        shape=torch.tensor(plane[1:]),
        rows=torch.arange(plane.num_rows),
        columns=torch.arange(plane.num_columns),
        num_context=num_context,
    )


def check_range(name: str, ends: tuple[float, float], *, most: float = float("inf")) -> None:
    """ValueError unless 0 < low <= high <= most."""
    low, high = ends
    if not 0 < low <= high <= most:
        raise ValueError(f"Wanted {name}=(low, high) with 0 < low <= high <= {most:g}, got {ends}.")


def _steps(ends: tuple[float, float]) -> Float[Tensor, " q"]:
    """The middles of NUM_STEPS equal parts of a range."""
    low, high = ends
    return low + (high - low) * (torch.arange(NUM_STEPS, dtype=torch.float64) + 0.5) / NUM_STEPS


def _extents(scale: Tensor, aspect: Tensor | float, plane: Plane) -> Int[Tensor, "*shape 2"]:
    """Rows and columns of a block. The columns make up for the rounding of the rows, so that the area is kept."""
    area = scale * plane.num_places
    rows = (area * aspect).sqrt().round().clamp(1, plane.num_rows)
    columns = (area / rows).round().clamp(1, plane.num_columns)
    return torch.stack([rows, columns.expand_as(rows)], -1).long()


def _shrink(size: tuple[int, int], most: int) -> tuple[int, int]:
    """The size, its longer side cut by one until it has `most` places or fewer."""
    h, w = size
    while h * w > most:
        h, w = (h - 1, w) if h >= w else (h, w - 1)
    return h, w
