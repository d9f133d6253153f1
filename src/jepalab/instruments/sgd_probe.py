"""The linear probe by gradient descent, after MAE: batch normalisation without scale, one linear layer, SGD.

It is reported beside the closed form because papers report it (He et al., CVPR 2022, arXiv 2111.06377, appendix A.1).
As there: no weight decay, momentum 0.9, cosine decay. Not as there: MAE trains 90 epochs with a warm-up, by LARS in
batches of 16,384; here it is 40 epochs of plain SGD without one, in batches of 1,024. All learning rates train side by
side on the same batches as one wide layer, and validation picks one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.instruments.labelled import FrozenSamples, LabelledSubject, class_index, device_of, known_classes
from jepalab.instruments.probes import edge_of

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
MOMENTUM = 0.9


class Heads(NamedTuple):
    """r linear classifiers of c classes behind one normalisation."""

    norm: nn.BatchNorm1d
    weights: Float[Tensor, "d r c"]
    bias: Float[Tensor, "r c"]

    def predict(self, z: Float[Tensor, "n d"]) -> Int[Tensor, "r n"]:
        """The class that each head gives each row."""
        with torch.no_grad():
            return (torch.einsum("nd,drc->rnc", self.norm(z), self.weights) + self.bias[:, None]).argmax(dim=-1)


def sgd_probe(
    subject: LabelledSubject,
    *,
    rates: Sequence[float] = RATES,
    num_epochs: int = 40,
    batch_size: int = 1024,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of a batch-normalised linear layer trained by SGD: on test, on validation, and the rate chosen there.

    rates  learning rates at the start of the cosine, for a batch of any size; `linear_sgd_rate_edge` is `edge_of`.
    """
    classes, device = known_classes(subject.train), device_of(subject.encoder)

    def rows(part: FrozenSamples) -> tuple[Tensor, Tensor]:
        return part.z.to(device), class_index(part.labels, classes).to(device)

    heads = train_heads(
        *rows(subject.train),
        num_classes=len(classes),
        rates=rates,
        num_epochs=num_epochs,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
    )
    validation, truth = rows(subject.validation)
    scores = (heads.predict(validation) == truth).cpu().double().mean(dim=1)
    best = int(scores.argmax())
    test, test_truth = rows(subject.test)
    return {
        "linear_sgd": float((heads.predict(test)[best] == test_truth).cpu().double().mean()),
        "linear_sgd_validation": float(scores[best]),
        "linear_sgd_rate": float(rates[best]),
        "linear_sgd_rate_edge": edge_of(rates[best], rates),
        "linear_sgd_labels": float(len(subject.train.labels)),
    }


@torch.no_grad()
def train_heads(
    z: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    *,
    num_classes: int,
    rates: Sequence[float],
    num_epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> Heads:
    """Trains one head for each rate on the same batches, from zero. The gradient is written out: it is one product.

    generator  on the CPU; it orders the rows anew in each epoch, and the rest of a division by batch_size is left out.
    """
    if not rates or min(rates) <= 0 or num_epochs < 1 or len(z) < 2:
        raise ValueError(
            f"wanted one or more positive rates, at least 1 epoch and 2 rows, got {tuple(rates)}, {num_epochs} and "
            f"{len(z)}"
        )
    batch_size = min(batch_size, len(z))
    norm = nn.BatchNorm1d(z.shape[1], affine=False, eps=1e-6).to(z.device)
    weights = z.new_zeros(z.shape[1], len(rates), num_classes)
    bias = z.new_zeros(len(rates), num_classes)
    speed, bias_speed = torch.zeros_like(weights), torch.zeros_like(bias)
    rate = z.new_tensor(rates)[:, None]
    orders = [torch.randperm(len(z), generator=generator).split(batch_size) for _ in range(num_epochs)]
    batches = [rows.to(z.device) for order in orders for rows in order if len(rows) == batch_size]
    for step, rows in enumerate(batches):
        x = norm(z[rows])
        error = torch.softmax((x @ weights.flatten(1)).unflatten(1, bias.shape) + bias, dim=-1)
        error[torch.arange(batch_size, device=z.device), :, y[rows]] -= 1
        error /= batch_size
        speed.mul_(MOMENTUM).add_((x.T @ error.flatten(1)).unflatten(1, bias.shape))
        bias_speed.mul_(MOMENTUM).add_(error.sum(dim=0))
        now = rate * (0.5 + 0.5 * math.cos(math.pi * step / len(batches)))
        weights -= now * speed
        bias -= now * bias_speed
    return Heads(norm.eval(), weights, bias)
