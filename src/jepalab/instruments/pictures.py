"""Pictures of what a model expects, by its own decoder or by one trained afterwards on frozen embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.decoder import PixelDecoder
from jepalab.dist import seeded
from jepalab.losses.distances import mean_squared
from jepalab.objectives.next_frame import NextFrame
from jepalab.types import Objective, Stream, TaughtWorldModel, WorldModel

DECODER_STEPS = 300
NUM_CLIPS = 4


class Expectation(NamedTuple):
    """Frames as they came and as they were expected one step before, and who drew the latter."""

    truth: Float[Tensor, "b s h w"]
    predicted: Float[Tensor, "b s h w"]
    how: str


def expect_frames(objective: Objective, stream: Stream) -> Expectation | None:
    """One-step predictions on test clips as pictures; None for objectives that predict nothing.

    A generative objective draws with its own decoder. For the others a decoder learns to invert the frozen embedding
    and is then shown the predicted one: it reveals what the embedding holds and never touches the encoder.
    """
    batch = stream.held_out("test", NUM_CLIPS)
    model: object = objective.eval().cpu()
    if not isinstance(model, WorldModel) or batch.action is None:
        return None
    with torch.no_grad():
        z, action = model.encode(batch.x), batch.action
        alone, one_step = z[:, :-1].flatten(0, 1)[:, None], action.flatten(0, 1)[:, None, None]
        z_pred = model.rollout(alone, one_step[:, 0, :0], one_step)[:, 0, 0].unflatten(0, action.shape[:2])
    if isinstance(objective, NextFrame):
        decoder, how = objective.decoder, "its own decoder"
    else:
        decoder, how = train_decoder(model, stream), "post-hoc decoder on frozen embeddings"
    with torch.no_grad():
        return Expectation(batch.x[:, 1:, 0], decoder(z_pred)[:, :, 0], how)


def train_decoder(model: WorldModel, stream: Stream) -> PixelDecoder:
    """A pixel decoder that inverts the frozen embedding in which the model answers, trained on its training clips."""
    answered = model.encode_target if isinstance(model, TaughtWorldModel) else model.encode
    first = stream.batch(0)
    channels, size = first.x.shape[2], first.x.shape[-1]
    with torch.no_grad():
        dim = answered(first.x).shape[-1]
    with seeded(0):
        decoder = PixelDecoder(dim, size=size, channels=channels)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3, fused=True)
    for step in range(DECODER_STEPS):
        x = stream.batch(step).x
        with torch.no_grad():
            z = answered(x)
        mean_squared(decoder(z), x).backward()
        optimizer.step()
        optimizer.zero_grad()
    return decoder
