"""Predicts the next embedding of a sequence from the past ones, given the actions where there are any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Predictor(Protocol):
    """Whatever predicts the embedding that follows each one, and imagines further.

    `rollout` goes on from a history z [b t d], between whose frames the actions `past` [b t-1 a] were taken, under s
    candidates of h actions each; each prediction is the input of the next. What the history costs, it costs once.
    """

    def __call__(
        self, z: Float[Tensor, "b t d"], action: Float[Tensor, "b t a"] | None = None
    ) -> Float[Tensor, "b t d"]: ...

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]: ...


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
        inputs = join(z, action, self.num_actions)
        memory, _ = self.gru(inputs)
        return z + self.answer(torch.cat([memory, inputs], -1)).float()

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        """Imagines h steps for each candidate. Without actions, a = 0."""
        memory, (num, horizon), steps = None, action.shape[1:3], []
        if z.shape[1] > 1:
            _, memory = self.gru(join(z[:, :-1], past, self.num_actions))
            memory = memory.repeat_interleave(num, 1)
        z = z[:, -1].repeat_interleave(num, 0)
        for i in range(horizon):
            inputs = join(z, action[:, :, i].flatten(0, 1), self.num_actions)[:, None]
            output, memory = self.gru(inputs, memory)
            z = z + self.answer(torch.cat([output, inputs], -1))[:, 0].float()
            steps.append(z)
        return torch.stack(steps, 1).unflatten(0, (-1, num))


class MarkovPredictor(nn.Module, ABC):
    """Predicts from the present embedding and the action alone: what came before must be in the embedding.

    A subclass writes `step`, and sets num_actions.
    """

    num_actions: int

    @abstractmethod
    def step(self, z: Float[Tensor, "n d"], action: Float[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """The embedding that follows."""

    def forward(
        self, z: Float[Tensor, "b t d"], action: Float[Tensor, "b t a"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """For each embedding the one that follows."""
        given = z.new_zeros(*z.shape[:2], 0) if action is None else action
        check_actions(given, self.num_actions)
        return self.step(z.flatten(0, 1), given.flatten(0, 1)).unflatten(0, z.shape[:2])

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        """Imagines h steps for each candidate, from the last embedding of the history."""
        check_actions(action, self.num_actions)
        z, steps = z[:, -1].repeat_interleave(action.shape[1], 0), []
        for each in action.flatten(0, 1).unbind(1):
            z = self.step(z, each)
            steps.append(z)
        return torch.stack(steps, 1).unflatten(0, action.shape[:2])


class GRUDynamics(MarkovPredictor):
    """A GRU cell whose memory is the embedding and whose input is the action (PLDM, arXiv 2502.14819; eb_jepa).

    What the cell proposes passes a linear layer, the identity at first: a plain cell would draw embeddings into
    [-1, 1], and nothing bounds those that it must predict.

    norm  applied to what the cell answers; the encoder's own last norm, where it has one, so that predictions lie
          where embeddings do, as eb_jepa has it.
    """

    def __init__(self, dim: int, *, num_actions: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.cell, self.propose = nn.GRUCell(num_actions, dim), nn.Linear(dim, dim)
        nn.init.eye_(self.propose.weight)
        nn.init.zeros_(self.propose.bias)
        self.norm = norm or nn.Identity()

    def step(self, z: Float[Tensor, "n d"], action: Float[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        cell = self.cell  # written out: a fused cell would not run in bfloat16 under autocast
        from_action = nn.functional.linear(action, cell.weight_ih, cell.bias_ih)
        from_memory = nn.functional.linear(z, cell.weight_hh, cell.bias_hh)
        reset, update, new = from_action.float().chunk(3, -1)
        reset_z, update_z, new_z = from_memory.float().chunk(3, -1)
        keep = torch.sigmoid(update + update_z)
        candidate = self.propose(torch.tanh(new + torch.sigmoid(reset + reset_z) * new_z)).float()
        return self.norm(candidate + keep * (z - candidate)).float()


class ResidualDynamics(MarkovPredictor):
    """A perceptron of two hidden layers that adds its answer to the embedding."""

    def __init__(self, dim: int, *, num_actions: int, width: int = 256) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.answer = nn.Sequential(
            nn.Linear(dim + num_actions, width),
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, dim),
        )

    def step(self, z: Float[Tensor, "n d"], action: Float[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        return z + self.answer(torch.cat([z, action], -1)).float()


def join(z: Tensor, action: Tensor | None, num_actions: int) -> Tensor:
    """Embeddings and the actions taken there, side by side. ValueError for another number of action values."""
    check_actions(z.new_zeros(*z.shape[:-1], 0) if action is None else action, num_actions)
    return z if action is None else torch.cat([z, action], -1)


def check_actions(action: Tensor, num_actions: int) -> None:
    """ValueError unless actions have the width that a predictor was built for."""
    if action.shape[-1] != num_actions:
        raise ValueError(f"This predictor was built for {num_actions} action values a step, got {action.shape[-1]}.")
