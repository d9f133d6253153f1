"""The masks of I-JEPA and V-JEPA with the bias of the code they were published with, to measure what the bias does.

Written from what that code was seen to do, not from the code. See https://github.com/facebookresearch/ijepa, issues 40,
60 and 68, for three of I-JEPA's four defects; `masks.blocks` and `masks.tubes` have none of them.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import sqrt

import torch
from jaxtyping import Bool
from torch import Tensor

from jepalab.masks.plane import Plane, first_places, plane_of
from jepalab.types import Mask

NUM_TRIES = 20  # draws of a context block before one target less is kept out of it
NUM_UNIONS = 1000  # draws of blocks that hide a whole plane before all of them lie at one place


@dataclass(frozen=True)
class ReferenceBlocks:
    """Multi-block masks that depend on the batch and prefer the upper left of the picture.

    - One size of targets for the batch, whose scale and aspect come from one random number: few sizes ever appear.
    - No block starts at the last place where it fits, so the last row and column are never used. The context block, as
      large as the picture or nearly so, is cut to fit and then has one place: the upper left corner.
    - Contexts are cut to the smallest of the batch at their end in raster order: the lower rows are rarely seen, and
      the more rarely the larger the batch.

    min_keep  a context with so few tokens or fewer is drawn again; after 20 draws one target less is kept out of it,
              so that, rarely, context and targets overlap. A target block with so few could never be drawn.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_keep: int = 10

    def __post_init__(self) -> None:
        if len(self.grid) != 2 or min(self.grid) < 2:
            raise ValueError(
                f"The reference masks are made for pictures; wanted a grid (rows, columns), got {self.grid}."
            )
        smallest = min(h * w for h, w in (self._target_size(step / 256) for step in range(257)))
        if smallest <= self.min_keep:
            raise ValueError(
                f"The official code would never end here: on a grid {self.grid} it draws target blocks of {smallest} "
                f"tokens, and takes none of min_keep={self.min_keep} or fewer. Set min_keep below {smallest}."
            )

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """A mask for each sample. Another number of samples changes all of them."""
        plane = plane_of(self.grid)
        share, context_share = torch.rand(2, generator=generator).tolist()
        target_size = self._target_size(share)
        num_starts = _starts_but_last(target_size, plane)
        targets = _draw_blocks(target_size, num_starts, (num_samples, self.num_targets), plane, generator)
        context_size = _size(_between(self.context_scale, context_share), 1.0, plane, spare=1)
        seen = self._contexts(context_size, targets, plane, generator)
        context = first_places(seen, int(seen.sum(1).min()))
        target = targets.nonzero()[:, 2].view(num_samples, self.num_targets, -1)
        return Mask(context, target)

    def _target_size(self, share: float) -> tuple[int, int]:
        """The size for one random number in [0, 1), which both scale and aspect take."""
        scale, aspect = _between(self.target_scale, share), _between(self.target_aspect, share)
        return _size(scale, aspect, plane_of(self.grid), spare=1)

    def _contexts(
        self, size: tuple[int, int], targets: Bool[Tensor, "b g n"], plane: Plane, generator: torch.Generator
    ) -> Bool[Tensor, "b n"]:
        if size[0] * size[1] <= self.min_keep:
            raise ValueError(
                f"The official code would never end here: its context block of {size} has no more than min_keep="
                f"{self.min_keep} tokens. Lower min_keep or raise context_scale."
            )
        seen = torch.zeros(len(targets), plane.num_places, dtype=torch.bool)
        few = torch.arange(len(targets))
        for num_kept_out in range(self.num_targets, -1, -1):
            for _ in range(NUM_TRIES):
                block = _draw_blocks(size, _starts_but_last(size, plane), (len(few),), plane, generator)
                seen[few] = block & ~targets[few, :num_kept_out].any(1)
                few = few[seen[few].sum(1) <= self.min_keep]
                if not len(few):
                    return seen
        raise AssertionError("a block from which no target is kept out has more than min_keep tokens")


@dataclass(frozen=True)
class ReferenceTubes:
    """V-JEPA's multi-block masks of clips, cut off in raster order: the first times are preferred.

    - Contexts, and targets, are cut to the smallest of the batch at their end, where the last times lie. So the last
      times are hardly ever predicted and hardly ever seen, and the more rarely the larger the batch; what is cut off is
      neither.
    - One size of blocks for the batch.

    Blocks that leave nothing to see are drawn again: officially without end, here up to 1000 times, and then those of
    a sample lie at one place. num_blocks, scale, aspect  as for `masks.tubes.Tubes`.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    num_blocks: int = 8
    scale: float = 0.15
    aspect: tuple[float, float] = (0.75, 1.5)

    def __post_init__(self) -> None:
        plane = plane_of(self.grid)
        if len(self.grid) != 3:
            raise ValueError(
                f"These reference masks are made for clips; wanted a grid (times, rows, columns), got {self.grid}."
            )
        if plane[1:] in {self._size(step / 256) for step in range(257)}:
            raise ValueError(
                f"The official code may never end here: on a grid {self.grid} one block of scale={self.scale} can "
                "cover the whole plane, and nothing is left to see. Lower the scale."
            )

    @classmethod
    def short_range(cls, grid: tuple[int, ...]) -> ReferenceTubes:
        """The first of V-JEPA's two: eight blocks of 15 % of the plane."""
        return cls(grid, num_blocks=8, scale=0.15)

    @classmethod
    def long_range(cls, grid: tuple[int, ...]) -> ReferenceTubes:
        """The second of V-JEPA's two: two blocks of 70 % of the plane."""
        return cls(grid, num_blocks=2, scale=0.7)

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """A mask for each sample. Another number of samples changes all of them."""
        plane = plane_of(self.grid)
        size = self._size(float(torch.rand((), generator=generator)))
        hidden = self._unions(size, num_samples, plane, generator).repeat(1, plane.num_times)
        context, target = (first_places(marked, int(marked.sum(1).min())) for marked in (~hidden, hidden))
        return Mask(context, target.unsqueeze(1))

    def _size(self, share: float) -> tuple[int, int]:
        return _size(self.scale, _between(self.aspect, share), plane_of(self.grid), spare=0)

    def _unions(
        self, size: tuple[int, int], num_samples: int, plane: Plane, generator: torch.Generator
    ) -> Bool[Tensor, "b n"]:
        """Which places each sample hides."""
        num_starts = (plane.num_rows - size[0] + 1, plane.num_columns - size[1] + 1)
        hidden = torch.ones(num_samples, plane.num_places, dtype=torch.bool)
        full = torch.arange(num_samples)
        for _ in range(NUM_UNIONS):
            hidden[full] = _draw_blocks(size, num_starts, (len(full), self.num_blocks), plane, generator).any(1)
            full = full[hidden[full].all(1)]
            if not len(full):
                return hidden
        hidden[full] = _draw_blocks(size, num_starts, (len(full),), plane, generator)
        return hidden


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])


def _size(scale: float, aspect: float, plane: Plane, *, spare: int) -> tuple[int, int]:
    """Rows and columns of a block, each at least `spare` less than the plane has."""
    area = int(scale * plane.num_places)
    rows, columns = round(sqrt(area * aspect)), round(sqrt(area / aspect))
    return min(max(rows, 1), plane.num_rows - spare), min(max(columns, 1), plane.num_columns - spare)


def _starts_but_last(size: tuple[int, int], plane: Plane) -> tuple[int, int]:
    """Rows and columns at which a block may start: the last one where it fits is left out."""
    return plane.num_rows - size[0], plane.num_columns - size[1]


def _draw_blocks(
    size: tuple[int, int],
    num_starts: tuple[int, int],
    shape: tuple[int, ...],
    plane: Plane,
    generator: torch.Generator,
) -> Bool[Tensor, "*shape n"]:
    """Blocks that start at one of the first so many rows and columns."""
    inside = []
    for length, extent, starts in zip(plane[1:], size, num_starts, strict=True):
        start = torch.randint(starts, shape, generator=generator).unsqueeze(-1)
        place = torch.arange(length)
        inside.append((place >= start) & (place < start + extent))
    return (inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)).flatten(-2)
