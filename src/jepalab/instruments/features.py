"""Embeddings extracted once for every instrument: float32, no gradient, no augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.types import Batch, Encoder, Features, Objective, Stream, Subject, ViewedStream

CLIPS_AT_ONCE = 128
NUM_CLIPS: dict[Literal["train", "validation", "test"], int] = {"train": 768, "validation": 256, "test": 384}
NUM_STATES, NUM_VIEWS = 256, 8


@torch.no_grad()
def embed_with(encode: Callable[[Tensor], Tensor], x: Float[Tensor, "b t *obs"]) -> Float[Tensor, "b n d"]:
    """encode(x), computed part by part."""
    return torch.cat([encode(part).float() for part in x.split(CLIPS_AT_ONCE)])


def features(encoder: Encoder, batch: Batch) -> Features:
    """The batch's embeddings beside the batch itself."""
    return Features(embed_with(encoder, batch.x), batch)


def subjects(objective: Objective, stream: Stream, *, share: float = 1.0) -> dict[str, Subject]:
    """One subject for each encoder that the objective would hand over ("student", and "teacher" where there is one).

    share  of the held-out clips to use; less is a quick look, and has no views. Nor have encoders whose embedding is of
           several frames: views are single ones.

    The objective is moved to the CPU and put in evaluation mode.
    """
    objective.eval().cpu()
    batches = {split: stream.held_out(split, round(share * num_clips)) for split, num_clips in NUM_CLIPS.items()}
    seen = stream.views("test", NUM_STATES, NUM_VIEWS) if share == 1 and isinstance(stream, ViewedStream) else None
    found = {}
    for name, encoder in objective.probed_encoders().items():
        views = None if seen is None or encoder.num_frames_seen > 1 else embed_with(encoder, seen)
        parts = {split: features(encoder, batch) for split, batch in batches.items()}
        found[name] = Subject(objective, parts["train"], parts["validation"], parts["test"], views, encoder)
    return found
