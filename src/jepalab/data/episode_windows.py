"""Windows of stored episodes for world models: every k-th frame, and the k actions between two frames as one block."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.data.episodes import Episode, Episodes
from jepalab.data.trajectories import Split
from jepalab.types import Batch

# What the columns begin with that together are the state of the environment, from which it can go on.
SIMULATOR = "simulator."
# Steps that are looked at to tell usual actions and feelings.
NUM_MEASURED = 2_000
SALT = "split 4240"  # with it, of the first 10, 20 and 100 episodes exactly a tenth each are held out


class Moments(NamedTuple):
    """Mean and standard deviation of each number of a column."""

    mean: Float[Tensor, " n"]
    std: Float[Tensor, " n"]


def split_of(number: int) -> Split:
    """To which split the episode of this number belongs, by a hash: 80, 10 and 10 in a hundred, and of the first ten
    episodes 8, 1 and 1. An episode stays where it is when more are recorded.
    """
    share = int.from_bytes(hashlib.sha256(f"{SALT} {number}".encode()).digest()[:7], "big") / 2**56
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


@dataclass(frozen=True, eq=False)
class EpisodeWindows:
    """Windows of some stored episodes, as `trajectories.Trajectories`.

    rows       which of the episodes, by their index.
    frameskip  k: steps from one frame to the next. Block j holds the actions between frames j and j + 1, in order.
    middle, unit  actions are given as (action - middle) / unit, of each component or all alike.
    feels      whether batches hold `proprio`.
    parts      the factors that lie in `state` one after the other, with their widths; 0 is a class of its own. Without
               any, the state is one factor.
    position   which factors together are "position", for those who judge.
    """

    episodes: Episodes
    rows: Sequence[int]
    frameskip: int = 1
    middle: float | Float[Tensor, " a"] = 0.0
    unit: float | Float[Tensor, " a"] = 1.0
    feels: bool = False
    parts: Mapping[str, int] = field(default_factory=dict)
    position: Sequence[str] = ()

    def num_windows(self, num_frames: int) -> int:
        """Windows may begin at every step.

        Raises:
            ValueError: no episode is as long.
        """
        num = int(self._counts(num_frames).sum())
        if not num:
            longest, span = self._lengths.max(initial=0), self._span(num_frames)
            raise ValueError(
                f"{num_frames} frames, {self.frameskip} steps apart, need episodes of {span} frames, and the longest "
                f"of {len(self.rows)} has {longest}; take fewer frames, a smaller frameskip, or longer episodes."
            )
        return num

    def read(self, windows: Int[Tensor, " b"], num_frames: int) -> Batch:
        """Windows numbered episode by episode, pixels as floats in [0, 1]."""
        ends = self._counts(num_frames).cumsum()
        which = np.searchsorted(ends, windows.numpy(), side="right")
        starts = windows.numpy() - np.where(which > 0, ends[which - 1], 0)
        span = self._span(num_frames)
        found = [
            self.episodes.window(self.rows[row], start=int(start), length=span)
            for row, start in zip(which, starts, strict=True)
        ]
        action = torch.from_numpy(np.stack([each.action for each in found])).float()
        blocks = ((action - self.middle) / self.unit).unflatten(1, (num_frames - 1, self.frameskip)).flatten(2)
        felt = self._seen(found, "proprio").float() if self.feels else None
        pixels = self._seen(found, "pixels")
        x = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        return Batch(x=x, action=blocks, proprio=felt, factors=self._factors(found))

    def _seen(self, found: Sequence[Episode], name: str) -> Tensor:
        """A column at the frames of the windows."""
        return torch.from_numpy(np.stack([each[name][:: self.frameskip] for each in found]))

    def _factors(self, found: Sequence[Episode]) -> dict[str, Tensor]:
        if "state" not in self.episodes.columns:
            return {}
        state = self._seen(found, "state").float()
        if not self.parts:
            return {"state": state, "position": state}
        cut = state.split([max(1, width) for width in self.parts.values()], -1)
        known = dict(zip(self.parts, cut, strict=True))
        factors = {name: known[name] if width else known[name][..., 0].long() for name, width in self.parts.items()}
        if "position" not in factors and self.position:
            factors["position"] = torch.cat([known[name] for name in self.position], -1)
        return factors

    def _span(self, num_frames: int) -> int:
        return (num_frames - 1) * self.frameskip + 1

    @cached_property
    def _lengths(self) -> Int[np.ndarray, " m"]:
        return self.episodes.lengths[list(self.rows)]

    def _counts(self, num_frames: int) -> Int[np.ndarray, " m"]:
        return np.maximum(0, self._lengths - self._span(num_frames) + 1)


def measure(episodes: Episodes, rows: Sequence[int], name: str) -> Moments:
    """Mean and standard deviation of a column of vectors in some episodes, from steps drawn always alike.

    A column that does not change has the deviation 1.
    """
    draw = np.random.default_rng(0)
    long = [row for row in rows if episodes.lengths[row] > 1]
    if not long:
        raise ValueError("No episode has two frames, so there is nothing to learn from.")
    chosen = draw.choice(long, NUM_MEASURED)
    starts = draw.integers(episodes.lengths[chosen] - 1)
    pairs = zip(chosen.tolist(), starts.tolist(), strict=True)
    values = np.stack([episodes.window(row, start=start, length=2)[name][0] for row, start in pairs])
    found = torch.from_numpy(values).double()
    std = found.std(0)
    return Moments(found.mean(0).float(), torch.where(std > 1e-6, std, 1.0).float())
