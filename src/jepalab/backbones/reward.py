"""Tells the reward of each frame from its embedding, where the reward is known."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from jepalab.dist import mean_over_processes, num_processes


class RewardHead(nn.Module):
    """A two-layer perceptron on single embeddings."""

    def __init__(self, dim: int, *, width: int = 128) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, 1))

    def loss(self, z: Float[Tensor, "b t d"], factors: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean squared error over the frames with a reward, of all processes together; 0 where a batch has none.

        factors  "reward" [b t] and "is_rewarded" [b t], 1 where it counts.
        """
        if "reward" not in factors:
            raise ValueError(f"A reward head learns from rewards, got clips with {', '.join(factors) or 'nothing'}.")
        counts = factors["is_rewarded"].to(z)
        error = (self.read(z)[..., 0] - factors["reward"].to(z)).square()
        # Divided by the mean count of all processes, so that the mean of their losses is the loss of the whole batch.
        num = mean_over_processes(counts.sum())
        return (error * counts).sum() / num.clamp_min(1 / num_processes())
