"""Ground truth by theory: in deep linear networks JEPA learns predictable features first, reconstruction large ones.

Littwin et al. 2024 (arXiv 2407.03475): feature i has covariance lambda_i = E[x_i y_i] and regression coefficient
rho_i = lambda_i / Var(x_i). From a small balanced start, gradient flow moves the encoder's strength w_i by

    JEPA (stop-gradient target)   dw/dt = L (lambda w^(3 - 1/L) - lambda/rho w^3)   fixed point rho^L
    reconstruction                dw/dt = L (lambda w^(2 - 1/L) - lambda/rho w^3)   fixed point rho^(L / (L + 1))

with L the encoder's depth. Both are greedy in lambda; JEPA is greedy in rho too, the more the deeper, so that at depth
5 it learns a small predictable feature before a large noisy one. If our objectives do not, they are wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.linear import DeepLinear, LinearHead
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.types import Batch, Objective

Camp = Literal["JEPA", "reconstruction"]
LAMBDA, RHO = (1.5, 1.0), (0.7, 1.0)
START = 0.05
LEARNED = 0.9


EXPECTED: dict[tuple[Camp, int], str] = {
    ("JEPA", 1): "large lambda",
    ("JEPA", 5): "large rho",
    ("reconstruction", 1): "large lambda",
    ("reconstruction", 5): "large lambda",
}


@dataclass(frozen=True)
class Lesson:
    """How one camp learned at one depth.

    times      [s] of gradient flow (step x learning rate).
    strengths  [s f] of each feature.
    learned    the time at which each feature first reached 90 % of its fixed point; infinity if it never did.
    """

    camp: Camp
    depth: int
    times: Float[Tensor, " s"]
    strengths: Float[Tensor, "s f"]
    learned: tuple[float, ...]

    @property
    def first(self) -> str:
        """Which feature came first: the one with the large lambda, the one with the large rho, or neither yet."""
        if self.learned[0] == self.learned[1]:
            return "neither"
        return "large lambda" if self.learned[0] < self.learned[1] else "large rho"


def learn(camp: Camp, *, depth: int, seed: int = 0, lr: float = 0.1, duration: float = 120.0) -> Lesson:
    """Trains one of our own objectives on the two features by plain gradient descent and watches their strengths.

    Gradient descent rather than `fit`: the theory is about gradient flow, and AdamW would rescale every feature.
    """
    generator = torch.Generator().manual_seed(seed)
    objective = _objective(camp, depth, generator)
    encoder, batch = objective.encoder, two_features(generator)
    assert isinstance(encoder, DeepLinear)
    strengths = [encoder.strengths()]
    trained: list[Tensor] = [p for p in objective.parameters() if p.requires_grad]
    for _ in range(round(duration / lr)):
        gradients = torch.autograd.grad(objective(batch).total, trained)
        with torch.no_grad():
            torch._foreach_add_(trained, gradients, alpha=-lr)
        objective.after_step(0.0)
        strengths.append(encoder.strengths())
    path, times = torch.stack(strengths), torch.arange(len(strengths)) * lr
    return Lesson(camp, depth, times, path, _times_learned(path, times, fixed_points(camp, depth)))


def fixed_points(camp: Camp, depth: int) -> tuple[float, ...]:
    """Where each feature's strength ends."""
    exponent = depth if camp == "JEPA" else depth / (depth + 1)
    return tuple(rho**exponent for rho in RHO)


def gradient_flow(camp: Camp, *, depth: int, times: Float[Tensor, " s"]) -> Float[Tensor, "s f"]:
    """The theory's strengths at these times, by fourth-order Runge-Kutta."""
    scale, correlation = torch.tensor(LAMBDA, dtype=torch.float64), torch.tensor(RHO, dtype=torch.float64)
    power = (3 if camp == "JEPA" else 2) - 1 / depth

    def slope(w: Tensor) -> Tensor:
        return depth * scale * (w**power - w**3 / correlation)

    w = torch.full_like(scale, START)
    path = [w]
    for step in times.double().diff().tolist():
        a = slope(w)
        b = slope(w + step / 2 * a)
        c = slope(w + step / 2 * b)
        w = w + step / 6 * (a + 2 * b + 2 * c + slope(w + step * c))
        path.append(w)
    return torch.stack(path)


def two_features(generator: torch.Generator, *, num_samples: int = 64) -> Batch:
    """Pairs (x, y) as series of two steps whose sample moments are exactly lambda and rho."""
    white = torch.randn(num_samples, 2 * len(RHO), generator=generator)
    white = torch.linalg.qr(white).Q * math.sqrt(num_samples)
    scale, rho = (torch.tensor(LAMBDA) / torch.tensor(RHO)).sqrt(), torch.tensor(RHO)
    x = white[:, : len(RHO)] * scale
    y = rho * x + (1 - rho**2).sqrt() * scale * white[:, len(RHO) :]
    return Batch(x=torch.stack([x, y], 1))


def _objective(camp: Camp, depth: int, generator: torch.Generator) -> Objective:
    encoder = DeepLinear(len(RHO), depth=depth, strength=START, generator=generator)
    # The head continues the encoder's balanced start: its layers' common scale, in the basis each target lives in.
    basis = encoder.product().detach() / START
    scale = START ** (1 / depth)
    if camp == "reconstruction":
        decoder = LinearHead(len(RHO), weight=scale * basis.T)
        return NextFrame(encoder, predictor=LinearHead(len(RHO)), decoder=decoder, distance=half_squared)
    predictor = LinearHead(len(RHO), weight=scale * torch.eye(len(RHO)))
    return EMAJEPA(
        encoder,
        predictor=predictor,
        momentum=0.0,
        final_momentum=0.0,
        distance=half_squared,
        normalise=torch.nn.Identity(),
    )


def half_squared(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Half the squared distance, summed over the embedding and averaged over the samples, as the theory has it."""
    assert weight is None, "the theory knows no weights"
    return 0.5 * (prediction - target).square().sum(-1).mean()


def _times_learned(path: Tensor, times: Tensor, ends: tuple[float, ...]) -> tuple[float, ...]:
    reached = path >= LEARNED * torch.tensor(ends)
    return tuple(float(times[column.int().argmax()]) if column.any() else math.inf for column in reached.unbind(1))
