"""Clips of video as one memory map of bytes, with classes and splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.data.samples import Samples


@dataclass(frozen=True, eq=False, kw_only=True)
class Clips(Samples):
    """Clips of one length and size, bytes on the disk.

    pixels  [n t h w c] bytes, memory-mapped; c = 1 where all are grey, else 3.
    fps     frames a second that a clip keeps; None where that is not known.
    """

    pixels: UInt8[np.ndarray, "n t h w c"]
    fps: float | None = None

    @property
    def stored(self) -> UInt8[np.ndarray, "n t h w c"]:
        return self.pixels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        _, t, h, w, c = self.pixels.shape
        return t, c, h, w

    @property
    def size(self) -> int:
        return self.pixels.shape[2]

    def as_floats(self, rows: UInt8[Tensor, "m t h w c"]) -> Float[Tensor, "m t c h w"]:
        channels_first = rows.permute(0, 1, 4, 2, 3)
        return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def describe(self) -> str:
        colour = "grey" if self.channels == 1 else "colour"
        rate = "" if self.fps is None else f" at {self.fps:g} frames a second"
        first = (
            f"{len(self):,} {colour} clips of {self.num_times} frames{rate}, {self.size} x {self.size} pixels, from "
            f"{self.source}"
        )
        return "; ".join([first, *self.facts("clips")]) + f". Digest {self.digest[:12]}."
