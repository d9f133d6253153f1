"""Made-up batches for the steps of the label table.

Batch size, widths and numbers of tokens all differ, so that a shape tells which axis is which: 6 samples, pictures of
3 x 8 x 8 cut into 16 patches of 12 numbers, series of 5 observations of 7 numbers, sentences of 9 words out of 13,
embeddings of 10 numbers, predictors of 14.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jepalab.audit.steps.network_examples import NUM_WORDS

NUM_SAMPLES, NUM_CLASSES = 6, 4


def pictures(generator: torch.Generator) -> Tensor:
    """[6, 3, 8, 8], between 0 and 1."""
    return torch.rand(NUM_SAMPLES, 3, 8, 8, generator=generator)


def series(generator: torch.Generator, num_steps: int = 5) -> Tensor:
    """[6, num_steps, 7]"""
    return torch.randn(NUM_SAMPLES, num_steps, 7, generator=generator)


def sentences(generator: torch.Generator, length: int = 9) -> Tensor:
    """[6, length], words 1 to 12; word 0 is left for a mask or a padding."""
    return torch.randint(1, NUM_WORDS, (NUM_SAMPLES, length), generator=generator)


def two_views(generator: torch.Generator) -> dict[str, Tensor]:
    """A picture brighter and noisier, and the same mirrored: what a loader with two transforms hands over."""
    x = pictures(generator)
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    return {"view1": (1.2 * x + noise).clamp(0, 1), "view2": x.flip(-1) * 0.9}
