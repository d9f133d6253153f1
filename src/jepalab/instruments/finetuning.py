"""End-to-end fine-tuning of a copy of the encoder under a linear head on its pooled tokens (He et al., 2111.06377).

Frozen read-outs and fine-tuning can rank encoders differently, so both are shown. The budget is a number of steps, the
same for every arm, and the images are not augmented. The rate is chosen by short runs, and one run goes on from there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from jepalab.data.sprites import Split
from jepalab.dist import autocast, seeded
from jepalab.instruments.labelled import (
    LabelledSubject,
    class_index,
    device_of,
    known_classes,
    observe,
    read,
)
from jepalab.instruments.probes import edge_of
from jepalab.types import Encoder

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
NUM_STEPS, TRIAL_STEPS, BATCH = 360, 60, 64
LAYER_DECAY = 0.75
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.999)
WARMUP = 0.1
CLIP = 1.0


class Classifier(nn.Module):
    """An encoder, the mean of its tokens at unit scale, and a linear head that starts at zero."""

    def __init__(self, encoder: Encoder, *, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.dim, elementwise_affine=False)
        self.head = nn.Linear(encoder.dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "b 1 c h w"]) -> Float[Tensor, "b f"]:
        """Logits of the classes."""
        return self.head(self.norm(self.encoder(x).mean(dim=1))).float()


class FineTuned(NamedTuple):
    """A fine-tuned classifier, its accuracy on validation, and its learning rate."""

    classifier: Classifier
    validation: float
    rate: float


def finetuning(
    subject: LabelledSubject,
    *,
    num_steps: int = NUM_STEPS,
    num_trial_steps: int = TRIAL_STEPS,
    batch_size: int = BATCH,
    rates: Sequence[float] = RATES,
    layer_decay: float = LAYER_DECAY,
    num_validation: int = 1000,
    num_test: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on test after fine-tuning; on validation, where the rate was chosen; that rate, with its `edge_of`; and
    the number of labels seen.

    num_steps        AdamW steps, the first tenth warming up, then a cosine to zero.
    num_trial_steps  likewise, for each rate, to choose one.
    layer_decay      the rate of block l of L is multiplied by layer_decay^(L - l); 1 gives all the same rate.

    The objective is not touched: each rate fine-tunes a copy of its encoder.
    """
    best = finetune(
        subject,
        num_steps=num_steps,
        num_trial_steps=num_trial_steps,
        batch_size=batch_size,
        rates=rates,
        layer_decay=layer_decay,
        num_validation=num_validation,
        seed=seed,
    )
    return {
        "finetuned": accuracy(best.classifier, subject, "test", num_test),
        "finetuned_validation": best.validation,
        "finetuned_rate": best.rate,
        "finetuned_rate_edge": edge_of(best.rate, rates),
        "finetuned_labels": float(min(num_steps * batch_size, len(subject.train.labels))),
    }


def finetune(
    subject: LabelledSubject,
    *,
    num_steps: int,
    num_trial_steps: int,
    batch_size: int,
    rates: Sequence[float],
    layer_decay: float,
    num_validation: int,
    seed: int,
) -> FineTuned:
    """The fine-tuned copy, with the rate that is the best on the first validation images after a short run; on a tie
    the first rate. A single rate is not tried before."""
    if min(num_steps, num_trial_steps, batch_size) < 1 or not rates or min(rates) <= 0 or not 0 < layer_decay <= 1:
        raise ValueError(
            f"wanted num_steps, num_trial_steps and batch_size of at least 1, positive rates and 0 < layer_decay <= 1, "
            f"got {num_steps}, {num_trial_steps}, {batch_size}, {tuple(rates)} and {layer_decay}"
        )

    def train(rate: float, num_steps: int) -> FineTuned:
        classifier = _train(subject, rate, num_steps, batch_size, layer_decay, seed)
        return FineTuned(classifier, accuracy(classifier, subject, "validation", num_validation), rate)

    best = max(rates, key=lambda rate: train(rate, num_trial_steps).validation) if len(rates) > 1 else rates[0]
    return train(best, num_steps)


def rate_shares(encoder: nn.Module, layer_decay: float) -> dict[str, float]:
    """The multiple of the learning rate for each parameter, by its name (BEiT, arXiv 2106.08254).

    What comes before the blocks lies at depth 0, block l (counted from 1) at depth l, what comes after all L blocks at
    depth L + 1; the share is layer_decay^(L + 1 - depth). An encoder without blocks gets 1 everywhere.
    """
    names = [name for name, _ in encoder.named_parameters()]
    block = {name: int(found[1]) + 1 for name in names if (found := re.search(r"\bblocks\.(\d+)\.", name))}
    if not block:
        return dict.fromkeys(names, 1.0)
    first, last = names.index(next(iter(block))), max(block.values()) + 1
    depths = {name: block.get(name, 0 if i < first else last) for i, name in enumerate(names)}
    return {name: layer_decay ** (last - depth) for name, depth in depths.items()}


def _train(
    subject: LabelledSubject, rate: float, num_steps: int, batch_size: int, layer_decay: float, seed: int
) -> Classifier:
    classes, device = known_classes(subject.train), device_of(subject.encoder)
    truth = class_index(subject.train.labels, classes)
    with seeded(seed):
        classifier = Classifier(deepcopy(subject.encoder), num_classes=len(classes)).to(device)
    classifier.requires_grad_(True).train()
    shares = rate_shares(classifier.encoder, layer_decay)
    groups = [
        {"params": [parameter], "lr": rate * shares[name], "weight_decay": WEIGHT_DECAY if parameter.ndim > 1 else 0.0}
        for name, parameter in classifier.encoder.named_parameters()
    ]
    groups.append({"params": list(classifier.head.parameters()), "lr": rate, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, betas=BETAS)
    schedule = LambdaLR(optimizer, lambda step: _warm_cosine(step, num_steps))
    for rows in _batches(len(truth), batch_size, num_steps, torch.Generator().manual_seed(seed)):
        x = observe(subject.samples, subject.train.index[rows], device=device, size=subject.size)
        with autocast(device):
            logits = classifier(x)
        loss = cross_entropy(logits, truth[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    return classifier


def _warm_cosine(step: int, num_steps: int) -> float:
    warm = max(1, round(WARMUP * num_steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, num_steps - warm))


def _batches(num_rows: int, batch_size: int, num_steps: int, generator: torch.Generator) -> list[Int[Tensor, " b"]]:
    """num_steps batches: epochs in random order, one after another."""
    num_epochs = -(-num_steps * batch_size // num_rows)
    order = torch.cat([torch.randperm(num_rows, generator=generator) for _ in range(num_epochs)])
    return list(order.split(batch_size)[:num_steps])


def accuracy(classifier: Classifier, subject: LabelledSubject, split: Split, num_samples: int) -> float:
    """The share of the first samples of a split whose class is predicted exactly."""
    part = subject.part(split)
    truth = class_index(part.labels[:num_samples], known_classes(subject.train))
    logits = read(classifier, subject.samples, part.index[:num_samples], classifier, size=subject.size)
    return float((logits.argmax(dim=1) == truth).double().mean())
