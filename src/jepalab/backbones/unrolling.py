"""How a predictor is run over a clip in training: one step at a time, or further on its own predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.predictor import Predictor


class Foreseen(NamedTuple):
    """Predictions of consecutive embeddings: z_pred[:, i] is of the clip's embedding number first + i."""

    z_pred: Float[Tensor, "b n d"]
    first: int


@runtime_checkable
class Unroll(Protocol):
    """Everything that a predictor says of a clip in one training step, in parts that count alike."""

    def __call__(
        self, predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b u a"]
    ) -> Iterator[Foreseen]: ...


@dataclass(frozen=True)
class FromEvery:
    """From every embedding of the clip `num_steps` steps ahead, all places at once (eb_jepa, arXiv 2602.03604).

    num_steps  1 is teacher forcing. The k-th part holds the predictions k steps ahead, made from those k - 1 ahead.
    """

    num_steps: int = 1

    def __call__(
        self, predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b u a"]
    ) -> Iterator[Foreseen]:
        if not 1 <= self.num_steps < z.shape[1]:
            raise ValueError(f"Clips of {z.shape[1]} frames hold no {self.num_steps} steps; take longer clips.")
        for ahead in range(1, self.num_steps + 1):
            z = predictor(z[:, :-1], action[:, ahead - 1 :])
            yield Foreseen(z, ahead)


@dataclass(frozen=True)
class FromFirst:
    """From the first embeddings to the end of the clip (PLDM, arXiv 2502.14819).

    num_context  embeddings that are given.
    """

    num_context: int = 1

    def __call__(
        self, predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b u a"]
    ) -> Iterator[Foreseen]:
        given = self.num_context
        if not 1 <= given < z.shape[1]:
            raise ValueError(f"Clips of {z.shape[1]} frames leave nothing after {given} given ones; take longer clips.")
        yield Foreseen(
            predictor.rollout(z[:, :given], action[:, : given - 1], action[:, None, given - 1 :])[:, 0], given
        )


@dataclass(frozen=True)
class Together:
    """Several ways at once (V-JEPA 2-AC: teacher forcing and a rollout, arXiv 2506.09985)."""

    parts: tuple[Unroll, ...]

    def __call__(
        self, predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b u a"]
    ) -> Iterator[Foreseen]:
        for part in self.parts:
            yield from part(predictor, z, action)


def latest(foreseen: Foreseen, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b n d"]:
    """What the predictions are of."""
    return z[:, foreseen.first : foreseen.first + foreseen.z_pred.shape[1]]


def mean_over(parts: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean of the parts' losses."""
    return torch.stack(parts).mean()
