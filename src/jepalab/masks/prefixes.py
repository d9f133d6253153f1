"""Lengths of causal prefixes as a pure function of seed and step, as `MaskDrawer` draws masks."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from jepalab.dist import StepSeeded, carry, num_processes, rank
from jepalab.masks.causal import Prefix


class PrefixDrawer(StepSeeded):
    """Draws a fresh length for each sample at each training step; in evaluation, the same ones for the same step.

    Those of the whole batch are drawn on every process, and each takes the rows of its own share.
    """

    def __init__(self, prefix: Prefix, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.prefix = prefix

    def forward(self, num_samples: int) -> Int[Tensor, " b"]:
        """Lengths for this process's samples, on the device of this module."""
        lengths = self.prefix.lengths(num_samples * num_processes(), self.draw())
        return carry(lengths[rank() * num_samples : (rank() + 1) * num_samples], self.device)
