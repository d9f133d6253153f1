"""Distances between a prediction and its target."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]


def mean_squared(prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean over all entries of (prediction - target)^2, in float32."""
    return F.mse_loss(prediction.float(), target.float())


def smooth_l1(prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Huber distance with its corner at 1, as I-JEPA uses it (Assran et al. 2023)."""
    return F.smooth_l1_loss(prediction.float(), target.float())


def layer_normed(target: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    """The target with each embedding brought to mean 0 and variance 1, without learned parameters."""
    return F.layer_norm(target.float(), target.shape[-1:])
