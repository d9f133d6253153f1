"""V-JEPA's multi-block masks of clips (2404.08471): blocks of the plane held through all times, predicted together.

The official sampler cuts targets and contexts off in raster order, so that the last times are hardly ever either
(`masks.reference` reproduces it). Here nothing is cut off: contexts are thinned by whole tubes, drawn at random.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from jepalab.masks.blocks import NUM_SIMULATED, RARELY, Blocks, check_range
from jepalab.masks.plane import mark, plane_of
from jepalab.types import Mask


@dataclass(frozen=True)
class Tubes:
    """The union of some blocks at all times as one target, and of the places beside it a fixed number as context.

    The blocks of a sample share one size, may overlap, and lie anywhere on the plane, all starts equally likely. Unions
    differ in size; the target is filled up to the largest that can be drawn. Pictures and series are clips of one time.

    num_blocks   blocks of a sample.
    scale        area of one of them as a share of the plane (the last two axes).
    aspect       height of a block over its width, in tokens, drawn for each sample.
    num_context  tokens the encoder sees. None takes what nine in ten masks leave; it depends on the settings alone.
    num_seen_times  first times that are seen; what comes later is predicted at every place, so that the past predicts
                    the future (V-JEPA's causal multi-block masks). None sees all times.
    """

    grid: tuple[int, ...]
    _: KW_ONLY
    num_blocks: int = 8
    scale: float = 0.15
    aspect: tuple[float, float] = (0.75, 1.5)
    num_context: int | None = None
    num_seen_times: int | None = None

    def __post_init__(self) -> None:
        plane = plane_of(self.grid)
        if self.num_blocks < 1:
            raise ValueError(f"Wanted one block or more, got num_blocks={self.num_blocks}.")
        if not 0 < self.scale <= 1:
            raise ValueError(f"Wanted a scale of more than 0 and 1 at most, got scale={self.scale}.")
        check_range("aspect", self.aspect)
        if not 0 < self._num_seen_times <= plane.num_times:
            raise ValueError(
                f"Wanted from 1 to {plane.num_times} times to be seen on a grid {self.grid}, got "
                f"num_seen_times={self.num_seen_times}."
            )
        plane._replace(num_times=self._num_seen_times).check_context(self.num_context)

    @classmethod
    def short_range(cls, grid: tuple[int, ...]) -> Tubes:
        """The first of V-JEPA's two: eight blocks of 15 % of the plane."""
        return cls(grid, num_blocks=8, scale=0.15)

    @classmethod
    def long_range(cls, grid: tuple[int, ...]) -> Tubes:
        """The second of V-JEPA's two: two blocks of 70 % of the plane."""
        return cls(grid, num_blocks=2, scale=0.7)

    @property
    def context_length(self) -> int:
        """Tokens of every context: `num_context`, or what takes its place where it is None."""
        return _blocks_of(self).context_length * self._num_seen_times

    @property
    def target_length(self) -> int:
        """Tokens of the largest target that can be drawn, to which all are filled up."""
        plane = plane_of(self.grid)
        later = plane.num_times - self._num_seen_times
        return self._most_hidden * self._num_seen_times + plane.num_places * later

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        """A mask for each sample; context and target ascend."""
        return self.draw(num_samples, generator)[0]

    def draw(self, num_samples: int, generator: torch.Generator) -> tuple[Mask, Int[Tensor, " b"]]:
        """A mask for each sample, and what it gave up: a `Relaxation`, as a number."""
        plane, times = plane_of(self.grid), self._num_seen_times
        seen = plane._replace(num_times=times)
        drawn, relaxed = _blocks_of(self).draw(num_samples, generator)
        places, is_there = _ascending(mark(drawn.target, plane.num_places), self._most_hidden)
        later = torch.arange(seen.num_tokens, plane.num_tokens).expand(num_samples, -1)
        target = torch.cat([seen.through_time(places), later], 1).unsqueeze(1)
        present = None
        if self.num_blocks > 1 or drawn.present is not None:  # a question of the settings: never of what was drawn
            present = torch.cat([is_there.repeat(1, times), torch.ones_like(later, dtype=torch.bool)], 1).unsqueeze(1)
        return Mask(seen.through_time(drawn.context), target, present), relaxed

    @property
    def _num_seen_times(self) -> int:
        return plane_of(self.grid).num_times if self.num_seen_times is None else self.num_seen_times

    @property
    def _most_hidden(self) -> int:
        """Places of the largest union: of blocks that nowhere overlap, or of all that are not seen."""
        blocks = _blocks_of(self)
        return min(self.num_blocks * blocks.target_length, plane_of(self.grid).num_places - blocks.context_length)


@lru_cache(maxsize=256)
def _blocks_of(tubes: Tubes) -> Blocks:
    """The blocks of one time, with the context that a fixed simulation finds where none is given.

    Unions that hide all are no masks and do not count there: on a plane of 4 x 4, two blocks of 70 % are often one.
    """
    plane = plane_of(tubes.grid)
    blocks = partial(
        Blocks,
        plane[1:],
        num_targets=tubes.num_blocks,
        target_scale=(tubes.scale, tubes.scale),
        target_aspect=tubes.aspect,
        context_scale=(1.0, 1.0),
    )
    if tubes.num_context is not None:
        return blocks(num_context=tubes.num_context // tubes._num_seen_times)
    target = blocks(num_context=1)(NUM_SIMULATED, torch.Generator().manual_seed(0)).target
    left = (~mark(target, plane.num_places)).sum(1).sort().values
    return blocks(num_context=int(left[int(RARELY * NUM_SIMULATED)]))


def _ascending(marked: Bool[Tensor, "b n"], most: int) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """The marked places of each row, filled up with its last one to `most`, and which are no filling."""
    num_places = marked.shape[1]
    places = torch.arange(num_places).where(marked, num_places).sort(1).values[:, :most]
    is_there = places < num_places
    return places.where(is_there, places.where(is_there, 0).amax(1, keepdim=True)), is_there
