"""Lengths of causal prefixes as a pure function of seed and step, as `MaskDrawer` draws masks."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from jepalab.dist import num_processes, rank
from jepalab.masks.causal import Prefix


class PrefixDrawer(nn.Module):
    """Draws a fresh length for each sample at each training step; in evaluation, the same ones for the same step.

    Those of the whole batch are drawn on every process, and each takes the rows of its own share.
    """

    step: Tensor

    def __init__(self, prefix: Prefix, *, seed: int = 0) -> None:
        super().__init__()
        self.prefix, self.seed = prefix, seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, num_samples: int) -> Int[Tensor, " b"]:
        """Lengths for this process's samples, on the device of this module."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.step)) % 2**63)
        lengths = self.prefix.lengths(num_samples * num_processes(), generator)
        if self.training:
            self.step += 1
        return lengths[rank() * num_samples : (rank() + 1) * num_samples].to(self.step.device, non_blocking=True)
