"""Cross-entropy of discrete targets, in nats."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.dist import mean_over_processes


def token_cross_entropy(
    logits: Float[Tensor, "*rows v"], tokens: Int[Tensor, "*rows"], weight: Float[Tensor, "*rows"] | None = None
) -> Float[Tensor, ""]:
    """Mean of -log softmax(logits)[token], in float32; `weight` counts some rows more than others."""
    flat, wanted = logits.float().flatten(0, -2), tokens.flatten()
    if weight is None:
        return F.cross_entropy(flat, wanted)
    each = F.cross_entropy(flat, wanted, reduction="none")
    return (each * weight.flatten()).sum() / mean_over_processes(weight.sum())
