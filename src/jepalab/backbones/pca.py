"""Principal components of raw pixels: the floor that any learned encoder has to beat."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.types import Encoder


class PixelPCA(Encoder):
    """Projects each frame on the first principal components of the frames it was fitted to."""

    mean: Tensor
    components: Tensor

    def __init__(self, num_pixels: int, *, dim: int = 64) -> None:
        super().__init__()
        if dim > num_pixels:
            raise ValueError(f"{num_pixels} pixels have at most {num_pixels} components, got dim={dim}.")
        self.dim = dim
        self.register_buffer("mean", torch.zeros(num_pixels))
        self.register_buffer("components", torch.zeros(num_pixels, dim))

    def arguments(self) -> dict[str, Any]:
        return {"num_pixels": len(self.mean), "dim": self.dim}

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "b t *obs"]) -> None:
        """Fits mean and components to these frames, in float64, from the smaller of the two matrices of products."""
        pixels = x.flatten(0, 1).flatten(1).double()
        if len(pixels) <= self.dim:
            raise ValueError(f"{self.dim} components need more than {self.dim} frames, got {len(pixels)}.")
        self.mean.copy_(pixels.mean(0))
        centred = pixels - pixels.mean(0)
        if len(centred) < centred.shape[1]:
            _, vectors = torch.linalg.eigh(centred @ centred.T)
            # Orthogonal already; the decomposition gives them length 1, and directions where there is no variance.
            vectors, _ = torch.linalg.qr(centred.T @ vectors[:, -self.dim :].flip(1))
        else:
            vectors = torch.linalg.eigh(centred.T @ centred)[1][:, -self.dim :].flip(1)
        self.components.copy_(vectors)

    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame; `keep` picks frames."""
        z = ((x.flatten(2) - self.mean) @ self.components).float()
        return z if keep is None else z.gather(1, keep.unsqueeze(-1).expand(-1, -1, self.dim))
