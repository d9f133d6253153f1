"""Predicts the next embedding of a sequence from the past ones, given the actions where there are any."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Predictor(Protocol):
    """Whatever predicts the embedding that follows each one, and imagines further."""

    def __call__(
        self, z: Float[Tensor, "b t d"], action: Float[Tensor, "b t a"] | None = None
    ) -> Float[Tensor, "b t d"]: ...

    def rollout(self, z: Float[Tensor, "b d"], action: Float[Tensor, "b h a"]) -> Float[Tensor, "b h d"]: ...


class SequencePredictor(nn.Module):
    """A GRU over (embedding, action) that adds its answer to the present embedding.

    num_actions  width of the action vector; 0 for sequences without actions.
    """

    def __init__(self, dim: int, *, num_actions: int = 0, width: int = 128) -> None:
        super().__init__()
        self.dim, self.num_actions = dim, num_actions
        self.gru = nn.GRU(dim + num_actions, width, batch_first=True)
        self.answer = nn.Sequential(nn.Linear(width + dim + num_actions, width), nn.ReLU(), nn.Linear(width, dim))

    def forward(
        self, z: Float[Tensor, "b t d"], action: Float[Tensor, "b t a"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """For each time the prediction of the embedding that follows, from z up to that time (teacher forcing)."""
        inputs = self._join(z, action)
        memory, _ = self.gru(inputs)
        return z + self.answer(torch.cat([memory, inputs], -1)).float()

    def rollout(self, z: Float[Tensor, "b d"], action: Float[Tensor, "b h a"]) -> Float[Tensor, "b h d"]:
        """Imagines h steps from one embedding; each prediction is the input of the next. Without actions, a = 0."""
        memory, steps = None, []
        for i in range(action.shape[1]):
            inputs = self._join(z[:, None], action[:, i : i + 1] if action.shape[-1] else None)
            output, memory = self.gru(inputs, memory)
            z = z + self.answer(torch.cat([output, inputs], -1))[:, 0].float()
            steps.append(z)
        return torch.stack(steps, 1)

    def _join(self, z: Tensor, action: Tensor | None) -> Tensor:
        given = 0 if action is None else action.shape[-1]
        if given != self.num_actions:
            raise ValueError(f"This predictor was built for {self.num_actions} action values a step, got {given}.")
        return z if action is None else torch.cat([z, action], -1)
