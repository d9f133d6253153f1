"""A multilayer perceptron between the encoder and a loss on whole pictures; it is thrown away after training."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Module):
    """Linear layers with batch normalisation and ReLU between them, as VICReg and LeJEPA use it.

    Batch normalisation lives here alone, never in the encoder, whose embeddings must not depend on their neighbours.
    """

    def __init__(self, dim: int, *, widths: tuple[int, ...] = (512, 512), out_dim: int = 64) -> None:
        super().__init__()
        self.out_dim = out_dim
        layers: list[nn.Module] = []
        for before, after in zip((dim, *widths), widths, strict=False):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear((dim, *widths)[-1], out_dim))

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b o"]:
        return self.layers(z).float()
