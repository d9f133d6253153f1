"""V-JEPA's attentive probe: one learned query looks at all frozen tokens (Bardes et al. 2024, arXiv 2404.08471).

Mean pooling asks whether the average token knows the class; this asks whether any token does. The read-out is larger,
so its parameters are counted: judge it beside the same probe on a randomly initialised encoder. On images V-JEPA trains
it for 20 epochs with a weight decay of .001; here it is 15 epochs and .01 for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm
from torch.optim.lr_scheduler import CosineAnnealingLR

from jepalab.backbones.attention import init_linear
from jepalab.data.sprites import Split
from jepalab.dist import seeded
from jepalab.instruments.labelled import LabelledSubject, Tokens, class_index, device_of, known_classes, tokens
from jepalab.instruments.probes import edge_of

NUM_SAMPLES: Mapping[Split, int] = {"train": 4_000, "validation": 1_000, "test": 2_000}
MAX_BYTES = 10**9  # of the tokens of one split, however many a sample has
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WEIGHT_DECAY = 0.01
CLIP = 1.0
TOKENS_AT_ONCE = 1 << 16
HEAD_WIDTH = 64


class AttentiveProbe(nn.Module):
    """A learned query, attention over layer-normed tokens, a two-layer MLP, each added to the query; a linear head.

    Like the original, it has no projection after the attention; a head is 64 wide where that divides the width. With
    a single query, keys and values need not be formed: score = token . (K' query) and value = V (mean token), which is
    the same function at a tenth of the cost. The bias of the keys, which no softmax sees, is left out.
    """

    def __init__(self, dim: int, *, num_classes: int) -> None:
        super().__init__()
        self.num_heads = next(heads for heads in range(max(1, dim // HEAD_WIDTH), 0, -1) if dim % heads == 0)
        self.query = nn.Parameter(torch.empty(dim))
        self.norm_tokens = nn.LayerNorm(dim, eps=1e-6)
        self.to_query = nn.Linear(dim, dim)
        self.to_key = nn.Parameter(torch.empty(dim, dim))
        self.to_value = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)
        self.head = nn.Linear(dim, num_classes)
        init_linear(self)
        for weight in (self.query, self.to_key):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b f"]:
        """Logits of the classes."""
        query = self.query + self.attend(z)
        query = query + self.fc2(gelu(self.fc1(self.norm(query))))
        return self.head(query)

    def attend(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """softmax(q k' / sqrt(width of a head)) v, head by head."""
        # The norm's scale and shift join the query and the value, so that no gradient needs the size of the tokens.
        scale, shift = self.norm_tokens.weight, self.norm_tokens.bias
        z = layer_norm(z, (z.shape[2],), eps=self.norm_tokens.eps)
        heads = (self.num_heads, -1)
        q = self.to_query(self.query).unflatten(0, heads)
        looks_for = torch.einsum("he,hed->hd", q, self.to_key.unflatten(0, heads)) * scale * q.shape[1] ** -0.5
        # As a batch of products, whose gradient is three times faster than that of one tall product.
        weight = torch.bmm(z, looks_for.T.expand(len(z), -1, -1)).softmax(dim=1)
        seen = weight.mT @ z * scale + shift
        value = torch.einsum("bhd,hed->bhe", seen, self.to_value.weight.unflatten(0, heads))
        return value.flatten(1) + self.to_value.bias


class Trained(NamedTuple):
    """A probe at its best epoch on validation, its accuracy there, and with which rate and after which epoch it was."""

    probe: AttentiveProbe
    validation: float
    rate: float
    epoch: int


def attentive(
    subject: LabelledSubject,
    *,
    num_samples: Mapping[Split, int] = NUM_SAMPLES,
    rates: Sequence[float] = RATES,
    num_epochs: int = 15,
    num_trial_epochs: int = 4,
    batch_size: int = 128,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of the attentive probe on test; on validation, where rate and epoch were chosen; and its parameters.

    num_samples  of each split at most, and no more than fit: tokens take n x t x d x 4 bytes.
    rates        learning rates of AdamW at the start of a cosine to zero, each tried for num_trial_epochs; the one
                 chosen trains anew for num_epochs.
    max_bytes    of a split's tokens. It depends on their size alone: the same samples for encoders of one shape.

    `attentive_labels` is the number of labels that it learned from, `attentive_rate_edge` is `edge_of` the rate.
    """
    classes = known_classes(subject.train)
    most = max_bytes // (4 * tokens(subject, "validation", 1).z.numel())
    if most < 2:
        raise ValueError(f"wanted max_bytes for the tokens of at least 2 samples, got {max_bytes}")
    num_samples = {split: min(num, most) for split, num in num_samples.items()}
    train, validation = (tokens(subject, split, num_samples[split]) for split in ("train", "validation"))
    best = train_probes(
        Tokens(train.z, class_index(train.labels, classes)),
        Tokens(validation.z, class_index(validation.labels, classes)),
        num_classes=len(classes),
        rates=rates,
        num_epochs=num_epochs,
        num_trial_epochs=num_trial_epochs,
        batch_size=batch_size,
        device=device_of(subject.encoder),
        seed=seed,
    )
    test = tokens(subject, "test", num_samples["test"])
    return {
        "attentive": accuracy(best.probe, Tokens(test.z, class_index(test.labels, classes))),
        "attentive_validation": best.validation,
        "attentive_rate": best.rate,
        "attentive_rate_edge": edge_of(best.rate, rates),
        "attentive_epoch": float(best.epoch),
        "attentive_labels": float(len(train.labels)),
        "attentive_parameters": float(sum(p.numel() for p in best.probe.parameters())),
    }


def train_probes(
    train: Tokens,
    validation: Tokens,
    *,
    num_classes: int,
    rates: Sequence[float],
    num_epochs: int,
    num_trial_epochs: int,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> Trained:
    """The probe at its best epoch on validation, with the rate that was the best there in a short run; on a tie the
    first. Labels are places among the classes."""
    if not rates or min(rates) <= 0 or min(num_epochs, num_trial_epochs, batch_size) < 1:
        raise ValueError(
            f"wanted one or more positive rates, and at least 1 epoch of batches of at least 1, got {tuple(rates)}, "
            f"{num_epochs}, {num_trial_epochs} in a trial and {batch_size}"
        )

    def best_epoch(rate: float, num_epochs: int) -> Trained:
        with seeded(seed):
            probe = AttentiveProbe(train.z.shape[2], num_classes=num_classes).to(device)
        best, generator = None, torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        schedule = CosineAnnealingLR(optimizer, num_epochs * -(-len(train.z) // batch_size))
        for epoch in range(1, num_epochs + 1):
            for rows in torch.randperm(len(train.z), generator=generator).split(batch_size):
                loss = cross_entropy(probe(train.z[rows].to(device)), train.labels[rows].to(device))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(probe.parameters(), CLIP)
                optimizer.step()
                schedule.step()
            score = accuracy(probe, validation)
            if best is None or score > best.validation:
                best = Trained(deepcopy(probe), score, rate, epoch)
        assert best is not None
        return best

    rate = max(rates, key=lambda rate: best_epoch(rate, num_trial_epochs).validation) if len(rates) > 1 else rates[0]
    return best_epoch(rate, num_epochs)


@torch.no_grad()
def accuracy(probe: AttentiveProbe, data: Tokens) -> float:
    """The share of images whose class is predicted exactly."""
    device, at_once = device_of(probe), max(1, TOKENS_AT_ONCE // data.z.shape[1])
    found = [probe(z.to(device)).argmax(dim=1).cpu() for z in data.z.split(at_once)]
    return float((torch.cat(found) == data.labels).double().mean())
