"""How much of a nuisance an embedding still holds, by readers of growing capacity.

A linear probe that finds nothing proves little: the nuisance may be there in a form that it cannot read. So the same
target is read linearly, by a small network, and by a convolutional decoder that sees every token.
"""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, mse_loss

from jepalab.dist import seeded
from jepalab.instruments.geometry import finite_float64
from jepalab.instruments.probes import Ridge, moments, standardise
from jepalab.types import Features, Subject

HIDDEN = 256
WIDTH = 24
BATCH = 128
MOST_EPOCHS, PATIENCE = 40, 5
LR, WEIGHT_DECAY = 2e-3, 1e-2


def nuisance_capacity(subject: Subject) -> dict[str, float]:
    """R2 of the added picture, averaged in cells ("nuisance" [b t f], f a square), by three readers; t = 1.

    capacity_linear_r2  ridge on the mean over the tokens.
    capacity_mlp_r2     one hidden layer of 256 on the same.
    capacity_conv_r2    three convolutions on the grid of tokens, or, where there is a single embedding, on cells that a
                        linear map makes of it. It sees more than the other two: where things are, token by token.

    The network starts from the linear answer and corrects it, so it can say all that ridge can. All learn on the
    training split, stop by the validation split, and are scored on the test split. Deterministic. Read them as a curve,
    beside a random encoder's: what a larger reader adds is there but hidden. Without a nuisance there is nothing to
    read, and the answer is empty.
    """
    target = {name: _target(part) for name, part in _parts(subject).items()}
    if target["train"].std() == 0:
        return {}
    pooled = {name: part.z.mean(1) for name, part in _parts(subject).items()}
    linear = Ridge().fit(pooled["train"], target["train"], pooled["validation"], target["validation"])
    dim, num_targets = pooled["train"].shape[1], target["train"].shape[1]
    with seeded(0):
        last = nn.Linear(HIDDEN, num_targets)
        mlp = nn.Sequential(nn.Linear(dim, HIDDEN), nn.GELU(), last)
        conv = _ConvReader(subject.train.z.shape[1], dim, side=math.isqrt(num_targets))
    nn.init.zeros_(last.weight)
    from_linear = {name: target[name] - linear.predict(pooled[name]) for name in target}
    from_mean = {name: value - target["train"].mean(0) for name, value in target.items()}
    tokens = {name: part.z for name, part in _parts(subject).items()}
    return {
        "capacity_linear_r2": linear.score(pooled["test"], target["test"]),
        "capacity_mlp_r2": correct(mlp, pooled, from_linear, target["test"]),
        "capacity_conv_r2": correct(conv, tokens, from_mean, target["test"]),
    }


class _ConvReader(nn.Module):
    """From tokens [b n d] on a square grid, or from one embedding [b 1 d], to cells [b f]."""

    def __init__(self, num_tokens: int, dim: int, *, side: int) -> None:
        super().__init__()
        grid = math.isqrt(num_tokens)
        self.side, self.grid = side, grid if grid > 1 and grid**2 == num_tokens else None
        self.embed = nn.Linear(dim, WIDTH if self.grid else WIDTH * side**2)
        self.between = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.draw = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b f"]:
        if self.grid:
            planes = gelu(self.embed(z)).mT.unflatten(2, (self.grid, self.grid))
            if self.grid != self.side:
                planes = interpolate(planes, size=self.side, mode="bilinear", align_corners=False)
        else:
            planes = gelu(self.embed(z.mean(1))).unflatten(1, (WIDTH, self.side, self.side))
        return self.draw(gelu(self.between(planes))).flatten(1)


def correct(reader: nn.Module, z: dict[str, Tensor], left: dict[str, Tensor], truth: Tensor) -> float:
    """Trains the reader on what an answer left until validation gets no better; R2 on test of both together."""
    by = moments(z["train"].flatten(0, -2))
    z = {
        name: standardise(value.flatten(0, -2), by).unflatten(0, value.shape[:-1]).float() for name, value in z.items()
    }
    unit = left["train"].std()
    y = {name: (value / unit).float() for name, value in left.items()}
    optimizer = torch.optim.AdamW(reader.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    order = torch.Generator().manual_seed(0)
    best, waited = copy.deepcopy(reader.state_dict()), 0
    best_error = _error(reader, z["validation"], y["validation"])
    for _ in range(MOST_EPOCHS):
        for rows in torch.randperm(len(z["train"]), generator=order).split(BATCH):
            mse_loss(reader(z["train"][rows]), y["train"][rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
        error, waited = _error(reader, z["validation"], y["validation"]), waited + 1
        if error < best_error:
            best, best_error, waited = copy.deepcopy(reader.state_dict()), error, 0
        if waited == PATIENCE:
            break
    reader.load_state_dict(best)
    with torch.no_grad():
        wrong = finite_float64(left["test"] - unit * reader(z["test"])).square().sum(0)
    truth = finite_float64(truth)
    return float((1 - wrong / (truth - truth.mean(0)).square().sum(0)).mean())


@torch.no_grad()
def _error(reader: nn.Module, z: Tensor, y: Tensor) -> float:
    return float(mse_loss(reader(z), y))


def _target(features: Features) -> Tensor:
    cells = features.batch.factors["nuisance"]
    num_frames, num_cells = cells.shape[1:]
    if num_frames != 1 or math.isqrt(num_cells) ** 2 != num_cells:
        raise ValueError(
            f"Wanted still pictures whose nuisance is told in a square of cells, got {num_frames} frames of "
            f"{num_cells} numbers; `TexturedShapes` makes such pictures."
        )
    return cells[:, 0]


def _parts(subject: Subject) -> dict[str, Features]:
    return {"train": subject.train, "validation": subject.validation, "test": subject.test}
