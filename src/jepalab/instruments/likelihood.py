"""What a model with a likelihood says of test samples, in bits for each number: of generative pretraining alone."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.instruments.labelled import SAMPLES_AT_ONCE, LabelledSubject, device_of, evaluating, observe

BITS, NUM_JUDGED = "bits_per_dimension", 2_000


@runtime_checkable
class Likelihood(Protocol):
    """An objective that can say how likely samples are."""

    def bits_per_dimension(self, x: Float[Tensor, "b t *obs"]) -> float:
        """Bits for each number of the samples, the mean over them; NaN where they are not what it models."""
        ...


def bits_per_dimension(subject: LabelledSubject, *, num_samples: int = NUM_JUDGED) -> dict[str, float]:
    """`bits_per_dimension` of up to `num_samples` test samples, in float32; nothing where there is no likelihood.

    Not comparable with read-outs: it says how well pixels are foretold, not how much of them is kept.
    """
    objective: object = subject.objective
    if not isinstance(objective, Likelihood):
        return {}
    index, device, bits = subject.test.index[:num_samples], device_of(subject.objective), 0.0
    with torch.no_grad(), evaluating(subject.objective):
        for rows in index.split(SAMPLES_AT_ONCE):
            x = observe(subject.samples, rows, device=device, size=subject.size)
            bits += len(rows) * objective.bits_per_dimension(x)
    return {BITS: bits / len(index)}
