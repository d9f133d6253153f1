"""Distances between a prediction and its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jepalab.dist import mean_over_processes


@runtime_checkable
class Distance(Protocol):
    """How far predictions are from their targets, as one number; `weight` counts some rows more than others."""

    def __call__(
        self,
        prediction: Float[Tensor, "*rows d"],
        target: Float[Tensor, "*rows d"],
        weight: Float[Tensor, "*rows"] | None = None,
    ) -> Float[Tensor, ""]: ...


def mean_squared(
    prediction: Float[Tensor, "*rows d"],
    target: Float[Tensor, "*rows d"],
    weight: Float[Tensor, "*rows"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over all entries of (prediction - target)^2, in float32."""
    return _weighted(F.mse_loss, prediction, target, weight)


def mean_absolute(
    prediction: Float[Tensor, "*rows d"],
    target: Float[Tensor, "*rows d"],
    weight: Float[Tensor, "*rows"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over all entries of |prediction - target|, in float32, as V-JEPA uses it (arXiv 2404.08471)."""
    return _weighted(F.l1_loss, prediction, target, weight)


def smooth_l1(
    prediction: Float[Tensor, "*rows d"],
    target: Float[Tensor, "*rows d"],
    weight: Float[Tensor, "*rows"] | None = None,
) -> Float[Tensor, ""]:
    """Huber distance with its corner at 1, as I-JEPA uses it (Assran et al. 2023)."""
    return _weighted(F.smooth_l1_loss, prediction, target, weight)


def _weighted(loss: Callable[..., Tensor], prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return loss(prediction.float(), target.float())
    each = loss(prediction.float(), target.float(), reduction="none").mean(-1)
    # Divided by the mean weight of all processes, so that the mean of their losses is the loss of the whole batch.
    return (each * weight).sum() / mean_over_processes(weight.sum())


def layer_normed(target: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    """The target with each embedding brought to mean 0 and variance 1, without learned parameters."""
    return F.layer_norm(target.float(), target.shape[-1:])
