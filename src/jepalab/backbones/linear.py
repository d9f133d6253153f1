"""Deep linear networks: the case where theory says exactly what each objective learns, and in which order."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.types import Encoder


class DeepLinear(Encoder):
    """`depth` square linear layers without bias, applied to each time step of a series.

    Balanced start: every layer is an orthogonal matrix times strength^(1/depth), and their product has all singular
    values equal to `strength`, along the axes of the input.
    """

    def __init__(self, dim: int, *, depth: int, strength: float, generator: torch.Generator) -> None:
        super().__init__()
        self.dim = dim
        bases = [torch.eye(dim), *(_orthogonal(dim, generator) for _ in range(depth))]
        layers = [after @ before.T for before, after in pairwise(bases)]
        self.layers = nn.ParameterList(nn.Parameter(strength ** (1 / depth) * layer) for layer in layers)

    def forward(
        self, x: Float[Tensor, "b t c"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding for each time step; `keep` picks steps."""
        z = x @ self.product().T
        return z if keep is None else z.gather(1, keep.unsqueeze(-1).expand(-1, -1, self.dim))

    def product(self) -> Float[Tensor, "d d"]:
        """The one matrix that all layers make together."""
        product = self.layers[0]
        for layer in self.layers[1:]:
            product = layer @ product
        return product

    def strengths(self) -> Float[Tensor, " d"]:
        """How strongly each input axis is represented: the norms of the product's columns."""
        return self.product().detach().norm(dim=0)


class LinearHead(nn.Module):
    """One square linear layer without bias: a decoder, or a predictor that reads the present embedding alone.

    weight  [d d] at the start; None makes it the identity and leaves it untrained.
    """

    def __init__(self, dim: int, *, weight: Float[Tensor, "d d"] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim) if weight is None else weight, requires_grad=weight is not None)

    def forward(self, z: Float[Tensor, "b t d"], action: None = None) -> Float[Tensor, "b t d"]:
        return z @ self.weight.T

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        """Applies the layer h times; the actions count the steps and are not read."""
        z, steps = z[:, -1:].expand(-1, action.shape[1], -1), []
        for _ in range(action.shape[2]):
            z = z @ self.weight.T
            steps.append(z)
        return torch.stack(steps, 2)


def _orthogonal(dim: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
