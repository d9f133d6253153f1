"""What an agent feels of itself, beside the embedding of what it sees: standardised, without anything to learn."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Standardised(nn.Module):
    """Subtracts the mean and divides by the deviation of each number; both are part of the model's state.

    Nothing is learned: a learned map that predicts itself would shrink to nothing, since the terms against collapse
    look at the encoder's embedding alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " q"], std: Float[Tensor, " q"]) -> None:
        super().__init__()
        self.dim = len(mean)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, proprio: Float[Tensor, "b t q"]) -> Float[Tensor, "b t q"]:
        if proprio.shape[-1] != self.dim:
            raise ValueError(f"This model was built for {self.dim} numbers that are felt, got {proprio.shape[-1]}.")
        return (proprio - self.mean) / self.std
