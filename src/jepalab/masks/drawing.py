"""Masks as a pure function of seed and step: a resumed run, and a run on several processes, sees the same ones."""

from __future__ import annotations

from collections.abc import Sequence

from jepalab.dist import StepSeeded, carry, num_processes, rank
from jepalab.types import Mask, MaskSampler

APART = 1_000_000  # from one sampler's seed to the next one's: farther than the seeds of any two runs


class MaskDrawer(StepSeeded):
    """Draws fresh masks at each training step; in evaluation, the same ones for the same step.

    The masks of the whole batch are drawn on every process, and each takes the rows of its own share.
    """

    def __init__(self, sampler: MaskSampler, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.sampler = sampler

    def forward(self, num_samples: int) -> Mask:
        """Masks for this process's samples, on the device of this module."""
        mask = self.sampler(num_samples * num_processes(), self.draw())
        mine = slice(rank() * num_samples, (rank() + 1) * num_samples)
        return mask.map(lambda tensor: carry(tensor[mine], self.device))


def mask_drawers(samplers: Sequence[MaskSampler], *, seed: int = 0) -> list[MaskDrawer]:
    """A drawer for each of the samplers of one objective, with random numbers of its own; the first has the seed."""
    return [MaskDrawer(sampler, seed=seed + APART * i) for i, sampler in enumerate(samplers)]
