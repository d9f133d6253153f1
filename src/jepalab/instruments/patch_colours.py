"""Patch features as colours: the principal components that DINOv2's figures made familiar (arXiv 2304.07193)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def patch_colours(z: Float[Tensor, "k n d"], *, fitted: Float[Tensor, "m n d"]) -> UInt8[np.ndarray, "k n 3"]:
    """Patch features along their first three principal components, as red, green and blue. Needs d of at least 3.

    Components are those of the `fitted` patches; each points to where its largest weight is positive. Colours run
    from the 2nd to the 98th percentile of those patches.
    """
    rows = fitted.flatten(0, 1).double()
    mean = rows.mean(0)
    components = torch.linalg.eigh((rows - mean).T @ (rows - mean)).eigenvectors[:, -3:].flip(1)
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))
    components = components * torch.where(largest < 0, -1.0, 1.0)
    along = ((rows - mean) @ components).sort(0).values
    margin = int(0.02 * len(along))
    low, high = along[margin], along[-1 - margin]
    scaled = ((z.double() - mean) @ components - low) / (high - low).clamp_min(1e-12)
    return (scaled.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
