"""I-JEPA's masks with the bias of the code they were published with, to measure what the bias does.

Written from what that code was seen to do, not from the code. See https://github.com/facebookresearch/ijepa, issues 40,
60 and 68, for three of the four defects; `masks.blocks` has none of them.
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
        targets = _draw_blocks(target_size, (num_samples, self.num_targets), plane, generator)
        context_size = _size(_between(self.context_scale, context_share), 1.0, plane)
        seen = self._contexts(context_size, targets, plane, generator)
        context = first_places(seen, int(seen.sum(1).min()))
        target = targets.nonzero()[:, 2].view(num_samples, self.num_targets, -1)
        return Mask(context, target)

    def _target_size(self, share: float) -> tuple[int, int]:
        """The size for one random number in [0, 1), which both scale and aspect take."""
        scale, aspect = _between(self.target_scale, share), _between(self.target_aspect, share)
        return _size(scale, aspect, plane_of(self.grid))

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
                block = _draw_blocks(size, (len(few),), plane, generator)
                seen[few] = block & ~targets[few, :num_kept_out].any(1)
                few = few[seen[few].sum(1) <= self.min_keep]
                if not len(few):
                    return seen
        raise AssertionError("a block from which no target is kept out has more than min_keep tokens")


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])


def _size(scale: float, aspect: float, plane: Plane) -> tuple[int, int]:
    """Rows and columns of a block, each at least one less than the plane has."""
    area = int(scale * plane.num_places)
    rows, columns = round(sqrt(area * aspect)), round(sqrt(area / aspect))
    return min(max(rows, 1), plane.num_rows - 1), min(max(columns, 1), plane.num_columns - 1)


def _draw_blocks(
    size: tuple[int, int], shape: tuple[int, ...], plane: Plane, generator: torch.Generator
) -> Bool[Tensor, "*shape n"]:
    """Blocks that start anywhere but at the last row and column where they fit."""
    inside = []
    for length, extent in ((plane.num_rows, size[0]), (plane.num_columns, size[1])):
        start = torch.randint(length - extent, shape, generator=generator).unsqueeze(-1)
        place = torch.arange(length)
        inside.append((place >= start) & (place < start + extent))
    return (inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)).flatten(-2)
