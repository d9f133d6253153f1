"""Masks as a pure function of seed and step: a resumed run, and a run on several processes, sees the same ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepalab.dist import num_processes, rank
from jepalab.types import Mask, MaskSampler


class MaskDrawer(nn.Module):
    """Draws fresh masks at each training step; in evaluation, the same ones for the same step.

    The masks of the whole batch are drawn on every process, and each takes the rows of its own share.
    """

    step: Tensor

    def __init__(self, sampler: MaskSampler, *, seed: int = 0) -> None:
        super().__init__()
        self.sampler, self.seed = sampler, seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, num_samples: int) -> Mask:
        """Masks for this process's samples, on the device of this module."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.step)) % 2**63)
        mask = self.sampler(num_samples * num_processes(), generator)
        if self.training:
            self.step += 1
        mine = slice(rank() * num_samples, (rank() + 1) * num_samples)
        return mask.map(lambda tensor: tensor[mine].to(self.step.device, non_blocking=True))
