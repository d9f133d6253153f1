"""How wrong a model is about each frame that follows, in embeddings or in pixels, whatever the model predicts with.

Every error is a mean square: a model's own scale and space are its own, so errors are compared between clips of one
model, never between models. All sees the same number of past frames, the `context`, and slides over the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.predictor import Predictor
from jepalab.backbones.vit import ViT, take_tokens
from jepalab.losses.distances import layer_normed
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.frozen_jepa import FrozenJEPA
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.types import Mask, Objective

Embed = Callable[[Tensor], Tensor]


@runtime_checkable
class Foretells(Protocol):
    """Whatever can be wrong about the frames that follow."""

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        """Mean squared error of each prediction from the `context` frames before it, to the end of the clip."""
        ...


@runtime_checkable
class Forward(Protocol):
    """An objective that encodes frames one by one and predicts the embedding that follows: most world models."""

    predictor: Predictor

    def encode(self, x: Float[Tensor, "b t *obs"]) -> Float[Tensor, "b t d"]: ...


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

    encode   [b t ...] to [b t d]: what the predictor reads.
    target   [b t ...] to [b t ...]: what a prediction is compared with.
    read     turns predicted embeddings [b s d] into something comparable; a decoder, for pixels.
    """

    encode: Embed
    predictor: Predictor
    target: Embed
    read: Embed = lambda z: z

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        z = self.encode(x)
        past = z[:, :-1].unfold(1, context, 1).mT  # [b s context d]
        following = self.predictor(past.flatten(0, 1))[:, -1].unflatten(0, past.shape[:2])
        return _per_frame(self.read(following) - self.target(x)[:, context:])


@dataclass(frozen=True, eq=False)
class MaskedFuture:
    """A model of masked clips, told the past and asked for the next patches in time; one error for each of them.

    The model's window slides over longer clips, and ends with what is asked for as soon as that is possible.

    encoder  whose grid is (time, rows, columns).
    wrong    (window [b t c h w], mask) to the squared error of each target token [b m].
    """

    encoder: ViT
    wrong: Callable[[Tensor, Mask], Tensor]

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        (times, *plane), depth = self.encoder.grid, self.encoder.patch[0]
        window, per_time = times * depth, prod(plane)
        if context % depth or not 0 < context <= window - depth or x.shape[1] < window or x.shape[1] % depth:
            raise ValueError(
                f"This model sees {window} frames, {depth} to a patch: wanted a context of {depth} to "
                f"{window - depth} frames and clips of {window} or more, both in whole patches, got context={context} "
                f"and clips of {x.shape[1]} frames."
            )
        found = []
        for frame in range(context, x.shape[1], depth):
            start = max(0, frame + depth - window)
            first, asked = (frame - start - context) // depth, (frame - start) // depth
            tokens = torch.arange(first * per_time, (asked + 1) * per_time, device=x.device).expand(len(x), -1)
            mask = Mask(tokens[:, :-per_time], tokens[:, None, -per_time:])
            found.append(self.wrong(x[:, start : start + window], mask).mean(1))
        return torch.stack(found, 1)


def foretellers(objective: Objective) -> Mapping[str, Foretells]:
    """What an objective foretells, by space, its own first; nothing for objectives that predict no future.

    A JEPA: "latent", against the targets of its training (of a masked one, the teacher's embedding of the whole
    window). A generative objective: "pixels", and beside it "latent": of next-frame prediction, the predicted embedding
    against the encoder's; of an MAE, the encoder's embeddings of past and next patches, with the prediction in place of
    the next and as they are (with `norm_pixels` the prediction is told each patch's true mean and variance).
    """
    if isinstance(objective, MaskedJEPA):
        return {"latent": MaskedFuture(_of_clips(objective), _embedding_error(objective))}
    if isinstance(objective, MAE):
        encoder = _of_clips(objective)
        return {
            "pixels": MaskedFuture(encoder, _pixel_error(objective)),
            "latent": MaskedFuture(encoder, _imagination_error(objective)),
        }
    if isinstance(objective, EMAJEPA):
        target = _composed(objective.teacher, objective.normalise)
        return {"latent": NextEmbedding(objective.encode, objective.predictor, target)}
    if isinstance(objective, FrozenJEPA):
        return {
            "latent": NextEmbedding(objective.encoder, objective.predictor, _composed(objective.teacher, layer_normed))
        }
    model: object = objective
    if not isinstance(model, Forward):
        return {}
    latent = NextEmbedding(model.encode, model.predictor, model.encode)
    if isinstance(objective, NextFrame):
        pixels = NextEmbedding(model.encode, model.predictor, lambda x: x, objective.decoder)
        return {"pixels": pixels, "latent": latent}
    return {"latent": latent}


def _of_clips(objective: Objective) -> ViT:
    encoder: object = objective.encoder
    if not isinstance(encoder, ViT) or len(encoder.grid) != 3:
        raise ValueError(
            f"wanted a model of clips, a ViT on a grid (time, rows, columns), got {type(encoder).__name__}"
            f"{f' on {encoder.grid}' if isinstance(encoder, ViT) else ''}; a model of still pictures foretells nothing"
        )
    return encoder


def _embedding_error(objective: MaskedJEPA) -> Callable[[Tensor, Mask], Tensor]:
    def wrong(x: Tensor, mask: Mask) -> Tensor:
        z_target = objective.targets(objective.teacher(objective.patch_encoder, x))
        z_pred = objective.predictor(objective.encoder(x, mask.context), mask)[:, 0]
        return (z_pred - take_tokens(z_target, mask.target[:, 0])).square().mean(-1)

    return wrong


def _pixel_error(objective: MAE) -> Callable[[Tensor, Mask], Tensor]:
    def wrong(x: Tensor, mask: Mask) -> Tensor:
        truth = objective.target(take_tokens(objective.vit.patches(x), mask.target[:, 0]))
        said = objective.decoder(objective.encoder(x, mask.context), mask)[:, 0]
        return (said - truth).square().mean(-1)

    return wrong


def _imagination_error(objective: MAE) -> Callable[[Tensor, Mask], Tensor]:
    def wrong(x: Tensor, mask: Mask) -> Tensor:
        seen = torch.cat([mask.context, mask.target[:, 0]], 1)

        def embed(clip: Tensor) -> Tensor:
            return objective.encoder(clip, seen)[:, mask.context.shape[1] :]

        return (embed(objective.reconstruct(x, mask)) - embed(x)).square().mean(-1)

    return wrong


def _composed(first: Embed, then: Embed) -> Embed:
    return lambda x: then(first(x))


def _per_frame(difference: Float[Tensor, "b s *rest"]) -> Float[Tensor, "b s"]:
    return difference.square().flatten(2).mean(2)
