"""How wrong a model is about each frame that follows, in embeddings or in pixels, whatever the model predicts with.

A model's scale and space are its own, so errors are compared between clips of one model, never between models. Every
model is told all frames before the one that it foretells, as in its training; errors count from frame `context` on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.predictor import Predictor
from jepalab.instruments.foretelling_clips import (
    future_of_denoiser,
    future_of_jepa,
    future_of_mae,
    imagination_of_mae,
    tokens_of,
)
from jepalab.losses.distances import layer_normed
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.frozen_jepa import FrozenJEPA
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.next_token import NextToken
from jepalab.types import Objective

Embed = Callable[[Tensor], Tensor]


@runtime_checkable
class Foretells(Protocol):
    """Whatever can be wrong about the frames that follow."""

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        """The error about each frame (or time of a grid) from `context` on, foretold from all frames before it."""
        ...


@dataclass(frozen=True)
class CopyLastFrame:
    """Expects what it saw last. Its error is the pixels' change, which matched pairs share."""

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        return _per_frame(x[:, context:] - x[:, context - 1 : -1])


@dataclass(frozen=True)
class PixelVelocity:
    """Expects each pixel to go on changing as it did last: a linear extrapolation of two frames."""

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        if context < 2:
            raise ValueError(f"A velocity takes two frames, got context={context}.")
        return _per_frame(x[:, context:] - 2 * x[:, context - 1 : -1] + x[:, context - 2 : -2])


@dataclass(frozen=True, eq=False)
class NextEmbedding:
    """The predicted next embedding, in the space of the targets or after `read` has made something else of it.

    The predictor reads the clip once, and at each frame knows it and those before it alone, as in training.

    encode   [b t ...] to [b t d]: what the predictor reads.
    target   [b t ...] to [b t ...]: what a prediction is compared with.
    read     turns predicted embeddings [b s d] into something comparable; a decoder, for pixels.
    """

    encode: Embed
    predictor: Predictor
    target: Embed
    read: Embed = lambda z: z

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        if not 0 < context < x.shape[1]:
            raise ValueError(f"Wanted a context of 1 to {x.shape[1] - 1} frames, got context={context}.")
        following = self.predictor(self.encode(x)[:, :-1])[:, context - 1 :]
        return _per_frame(self.read(following) - self.target(x)[:, context:])


def foretellers(objective: Objective) -> Mapping[str, Foretells]:
    """What an objective foretells, by space, its own first; nothing for objectives that predict no future.

    A JEPA: "latent", against the targets of its training (of a masked one, the teacher's embedding of the whole
    window). A generative objective: "pixels" (of a denoiser, the clean ones) or "tokens"; and beside it "latent": of
    next-frame prediction, the predicted embedding against the encoder's; of an MAE, the encoder's embeddings of past
    and next patches, with the prediction in place of the next and as they are.
    """
    if isinstance(objective, MaskedJEPA):
        return {"latent": future_of_jepa(objective)}
    if isinstance(objective, MAE):
        return {"pixels": future_of_mae(objective), "latent": imagination_of_mae(objective)}
    if isinstance(objective, DenoiseHidden):
        return {"pixels": future_of_denoiser(objective)}
    if isinstance(objective, NextToken):
        return {"tokens": tokens_of(objective)}
    if isinstance(objective, EMAJEPA):
        target = _composed(objective.teacher.encoder, objective.normalise)
        return {"latent": NextEmbedding(objective.encode, objective.predictor, target)}
    if isinstance(objective, FrozenJEPA):
        return {
            "latent": NextEmbedding(objective.encoder, objective.predictor, _composed(objective.teacher, layer_normed))
        }
    encode, predictor = getattr(objective, "encode", None), getattr(objective, "predictor", None)
    if encode is None or not isinstance(predictor, Predictor):
        return {}
    latent = NextEmbedding(encode, predictor, encode)
    if isinstance(objective, NextFrame):
        pixels = NextEmbedding(encode, predictor, lambda x: x, objective.decoder)
        return {"pixels": pixels, "latent": latent}
    return {"latent": latent}


def _composed(first: Embed, then: Embed) -> Embed:
    return lambda x: then(first(x))


def _per_frame(difference: Float[Tensor, "b s *rest"]) -> Float[Tensor, "b s"]:
    return difference.square().flatten(2).mean(2)
