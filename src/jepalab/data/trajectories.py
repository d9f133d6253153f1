"""Clips of what an agent did, with its actions: windows of recorded trajectories, a pure function of the step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from jepalab.types import Batch

Split = Literal["train", "validation", "test"]


@runtime_checkable
class Trajectories(Protocol):
    """Recorded trajectories, from which windows can be read.

    num_windows  how many windows of so many frames there are, numbered from 0.
    """

    def num_windows(self, num_frames: int) -> int: ...

    def read(self, windows: Int[Tensor, " b"], num_frames: int) -> Batch:
        """Those windows: pictures, the actions between them, and what is known of each frame."""
        ...


@dataclass(frozen=True)
class TrajectoryStream:
    """Windows of recorded trajectories, drawn with a seed.

    recorded    the trajectories of each split, which share none.
    num_frames  of a window.
    relabel     "as taken", or "shuffled": each window gets the actions of another window of the batch, never its own, a
                control that shows whether a model uses them.
    """

    recorded: Mapping[Split, Trajectories]
    num_frames: int
    clips_per_batch: int = 64
    seed: int = 0
    relabel: Literal["as taken", "shuffled"] = "as taken"

    def __post_init__(self) -> None:
        for split, trajectories in self.recorded.items():
            if trajectories.num_windows(self.num_frames) < 1:
                raise ValueError(
                    f"No trajectory of the {split} split is {self.num_frames} frames long; take shorter clips."
                )
        if self.relabel == "shuffled" and self.clips_per_batch < 2:
            raise ValueError("Actions are shuffled among the windows of a batch; take two windows or more.")

    @property
    def frames_per_batch(self) -> int:
        return self.clips_per_batch * self.num_frames

    def batch(self, step: int) -> Batch:
        """The batch of this step: windows drawn with replacement, a pure function of (seed, step)."""
        generator = self._generator("batch", step)
        batch = self._draw("train", self.clips_per_batch, generator)
        if self.relabel == "as taken":
            return batch
        assert batch.action is not None
        # One cycle through all windows in a random order: a permutation leaves one of them its own actions on average.
        order = torch.randperm(len(batch), generator=generator)
        other = torch.empty_like(order).scatter_(0, order, order.roll(1))
        return Batch(batch.x, batch.views, batch.action[other], batch.proprio, batch.factors)

    def held_out(self, split: Split, num_clips: int) -> Batch:
        """Windows of a split, the same for the same number and seed, with the actions as they were taken."""
        return self.recorded[split].read(self.held_out_windows(split, num_clips), self.num_frames)

    def held_out_windows(self, split: Split, num_clips: int) -> Int[Tensor, " b"]:
        """The numbers of the windows that `held_out` reads."""
        return self._windows(split, num_clips, self._generator(f"held out {split}", num_clips))

    def judged_on(self, split: Split) -> TrajectoryStream:
        """The same stream with that split in the place of the test: what chooses settings must not have seen the test.

        Held-out clips, and the starts and goals that are taken from stored episodes, are then of that split.
        """
        return replace(self, recorded={**self.recorded, "test": self.recorded[split]})

    def statistics(self, num_clips: int = 256) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the pixels of each channel, from training windows."""
        x = self._draw("train", num_clips, self._generator("statistics", num_clips)).x.transpose(0, 2).flatten(1)
        return x.mean(1).tolist(), x.std(1).clamp_min(1e-6).tolist()

    def _draw(self, split: Split, num: int, generator: torch.Generator) -> Batch:
        return self.recorded[split].read(self._windows(split, num, generator), self.num_frames)

    def _windows(self, split: Split, num: int, generator: torch.Generator) -> Int[Tensor, " b"]:
        return torch.randint(self.recorded[split].num_windows(self.num_frames), (num,), generator=generator)

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        key = f"{purpose} {number} {self.seed}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))
