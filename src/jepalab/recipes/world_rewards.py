"""Recorded walks of which some have a reward at every frame: what a few labels add to predicting embeddings (E5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from jepalab.data.trajectories import TrajectoryStream
from jepalab.recipes.world_bench import Walks
from jepalab.types import Batch


@dataclass(frozen=True)
class RewardedWalks:
    """The same walks, windows and pictures, and beside them the environment's reward: see `TwoRooms.reward`.

    share  of the walks whose rewards count, evenly spread and the same for every batch.
    """

    walks: Walks
    share: float

    def num_windows(self, num_frames: int) -> int:
        return self.walks.num_windows(num_frames)

    def read(self, windows: Int[Tensor, " b"], num_frames: int) -> Batch:
        """The walks' windows with the factors "reward" [b t] and "is_rewarded" [b t]."""
        shown = self.walks.states(windows, num_frames)
        batch = self.walks.show(windows, num_frames, shown)
        reward = self.walks.rooms.reward(shown).unflatten(0, (len(windows), num_frames))
        walk = torch.div(windows, self.walks.num_windows(num_frames) // len(self.walks.walked), rounding_mode="floor")
        is_rewarded = ((walk + 1) * self.share).floor() > (walk * self.share).floor()
        known = {"reward": reward, "is_rewarded": is_rewarded[:, None].expand_as(reward)}
        return replace(batch, factors={**batch.factors, **known})


def with_rewards(stream: TrajectoryStream, share: float) -> TrajectoryStream:
    """The stream whose training windows tell the reward of that share of the walks.

    Raises:
        ValueError: a share outside (0, 1], or episodes of other people's worlds, whose rewards are not recorded.
    """
    walks = stream.recorded["train"]
    if not 0 < share <= 1:
        raise ValueError(f"Wanted a share of rewarded walks in (0, 1], got {share:g}.")
    if not isinstance(walks, Walks):
        raise ValueError("Rewards are known of Two Rooms alone, not of stored episodes; leave out --rewarded.")
    return replace(stream, recorded={**stream.recorded, "train": RewardedWalks(walks, share)})
