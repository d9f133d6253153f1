"""How a predictor is run over a clip in training: one step at a time, or further on its own predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.predictor import MarkovPredictor, Predictor


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
    history    real embeddings up to each place that a predictor with memory reads before it goes on by its own
               predictions, as it will when it plans; None for all there are. Without memory it makes no difference.
    """

    num_steps: int = 1
    history: int | None = None

    def __call__(
        self, predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b u a"]
    ) -> Iterator[Foreseen]:
        if not 1 <= self.num_steps < z.shape[1]:
            raise ValueError(f"Clips of {z.shape[1]} frames hold no {self.num_steps} steps; take longer clips.")
        if isinstance(predictor, MarkovPredictor) or (self.num_steps == 1 and self.history is None):
            for ahead in range(1, self.num_steps + 1):
                z = predictor(z[:, :-1], action[:, ahead - 1 :])
                yield Foreseen(z, ahead)
            return
        paths = self._imagined(predictor, z, action)
        for ahead in range(1, self.num_steps + 1):
            yield Foreseen(paths[:, : z.shape[1] - ahead, ahead - 1], ahead)

    def _imagined(
        self, predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b u a"]
    ) -> Float[Tensor, "b u h d"]:
        """The rollout from each place but the last, whose own history it reads; what is past the clip is to be left."""
        num_places, batch = z.shape[1] - 1, len(z)
        most = min(self.history or num_places, num_places)
        beyond = torch.cat([action, action.new_zeros(batch, self.num_steps, action.shape[2])], 1)
        parts = []
        for given in range(1, most + 1):  # places with as many embeddings before them go together
            places = range(given - 1, num_places if given == most else given)
            read = torch.stack([z[:, place + 1 - given : place + 1] for place in places], 1)
            past = torch.stack([action[:, place + 1 - given : place] for place in places], 1)
            taken = torch.stack([beyond[:, place : place + self.num_steps] for place in places], 1)
            path = predictor.rollout(read.flatten(0, 1), past.flatten(0, 1), taken.flatten(0, 1)[:, None])[:, 0]
            parts.append(path.unflatten(0, (batch, len(places))))
        return torch.cat(parts, 1)


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


def each_alone(
    predictor: Predictor, z: Float[Tensor, "b t d"], action: Float[Tensor, "b t a"]
) -> Float[Tensor, "b t d"]:
    """What follows each embedding by itself, of which a predictor with memory sees nothing that came before."""
    alone = predictor(z.flatten(0, 1)[:, None], action.flatten(0, 1)[:, None])
    return alone[:, 0].unflatten(0, z.shape[:2])


def latest(foreseen: Foreseen, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b n d"]:
    """What the predictions are of."""
    return z[:, foreseen.first : foreseen.first + foreseen.z_pred.shape[1]]


def mean_over(parts: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean of the parts' losses."""
    return torch.stack(parts).mean()
