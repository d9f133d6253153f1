"""Candidates for clips with an occluder: many are drawn at once, and those taken that fit and belong to the split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from jepalab.data.occluder_scenes import SIZE, Scenes
from jepalab.data.sprites import Split
from jepalab.data.texture import RESIDUES, TURNS

MARGINS = (0, 4)  # rows that a bar leaves free above and below: its columns then hold every texture half and half
LAST = SIZE - 1


def owns(split: Split, column: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
    """Whether a split has the clips in which the first shape starts in this column.

    Of the column modulo 5, training has 0, 1 and 2, validation 3 and test 4. Both courses of a quartet start in one.
    """
    return torch.isin(column % TURNS, torch.tensor(RESIDUES[split]))


def first(fits: Bool[Tensor, " m"], num: int, what: str) -> Int[Tensor, " n"]:
    """The first `num` candidates that fit. ValueError if there are fewer."""
    found = fits.nonzero().flatten()[:num]
    if len(found) < num:
        raise ValueError(
            f"wanted {num} clips for {what}, but only {len(found)} of {len(fits)} candidates fit into the frames: give "
            "more frames (16 are enough), or a gravity near 0.25"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Numbers for `num_candidates` clips, of which `num` are taken in the end; each is drawn for all at once."""

    num: int
    num_candidates: int
    num_frames: int
    split: Split
    generator: torch.Generator

    def ints(self, low: int | Tensor, high: int | Tensor) -> Int[Tensor, " m"]:
        """Uniform from low to high, both included."""
        uniform = torch.rand(self.num_candidates, generator=self.generator)
        return low + (uniform * (high - low + 1)).floor().long()

    def chance(self, share: float) -> Bool[Tensor, " m"]:
        """True in this share of them."""
        return torch.rand(self.num_candidates, generator=self.generator) < share

    def one_of(self, *values: float | int) -> Tensor:
        return torch.tensor(values)[self.ints(0, len(values) - 1)]

    def scenes(self) -> Scenes:
        return Scenes.empty(self.num_candidates, self.num_frames)

    def time(self, moment: Int[Tensor, " m"]) -> Int[Tensor, "m t"]:
        """Frames counted from this one."""
        return torch.arange(self.num_frames) - moment[:, None]

    def late(self) -> Int[Tensor, " m"]:
        """A frame in the second half, so that what is judged comes after as many frames as are left."""
        return self.ints(self.num_frames // 2, self.num_frames - 4)

    def choose(self, fits: Bool[Tensor, " m"], what: str, *scenes: Scenes) -> tuple[Int[Tensor, " n"], list[Scenes]]:
        """The candidates that fit and belong to the split, in each of the scenes, mirrored by chance; and their places.

        What the scenes of a candidate have in common is the column in which the first shape starts.
        """
        mirrored = self.ints(0, 1).bool()
        scenes = tuple(each.mirrored(mirrored) for each in scenes)
        index = first(fits & owns(self.split, scenes[0].centre[:, 0, 0, 0]), self.num, what)
        return index, [each.take(index) for each in scenes]
