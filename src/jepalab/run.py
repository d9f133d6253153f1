"""One run: everything needed to train one objective once."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jepalab.dist import Engine, Precision
from jepalab.masks.drawing import MaskDrawer
from jepalab.types import MovableStream, Objective, Stream

MASKS_COUNTED = 10
TIMED_STEPS = 9
MASK_TOKEN = "mask_token"  # what a module calls its learned stand-ins for hidden tokens


@dataclass(frozen=True)
class Run:
    """What a recipe returns and `fit` trains.

    stream        the data, a function of the step.
    lr            peak learning rate of AdamW, reached after the `warmup` share of the steps, then cosine to a
                  hundredth of it.
    weight_decay  on matrices and kernels, not on biases, gains, scalars and mask tokens.
    clip          largest norm of the gradient.
    first         a run that is trained before this one, such as a frozen teacher's; it is paid for as this one is.
    remake        makes the same run on another number of steps, those of `first` included, which it is needed with.
    prepare       called once before the first step and after `first` (fit a PCA, take over a teacher's weights); its
                  result must lie in the objective's state, which a resumed run reads back instead.
    """

    objective: Objective
    stream: Stream
    steps: int
    lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 1.0
    precision: Precision = "auto"
    seed: int = 0
    prepare: Callable[[], None] | None = None
    first: Run | None = None
    remake: Callable[[int], Run] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.lr > 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1 or not self.clip > 0:
            raise ValueError(
                "A run needs steps >= 0, lr > 0, weight_decay >= 0, warmup in [0, 1) and clip > 0, got "
                f"steps={self.steps}, lr={self.lr}, weight_decay={self.weight_decay}, warmup={self.warmup}, "
                f"clip={self.clip}."
            )
        assert self.first is None or self.remake is not None, "how many of its steps go to the first run?"

    def on_steps(self, steps: int) -> Run:
        """The same run on another number of steps, those of the run before it included."""
        return replace(self, steps=steps) if self.remake is None else self.remake(steps)

    def total(self, of_step: Callable[[Run], float]) -> float:
        """What all steps add up to, those of the run before it included, given what one step of a run counts for."""
        before = 0.0 if self.first is None else self.first.total(of_step)
        return before + (self.steps * of_step(self) if self.steps else 0.0)

    def mean_step(self, of_step: Callable[[Run], float]) -> float:
        """What a step counts for on average, those of the run before it included."""
        return self.total(of_step) / self.total(lambda _: 1.0)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine to a hundredth of the peak."""
        warmup_steps = math.ceil(self.warmup * self.steps)
        if step < warmup_steps:
            return self.lr * (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, self.steps - warmup_steps)
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)

    def make_optimizer(self) -> torch.optim.AdamW:
        """AdamW over every parameter that asks for a gradient.

        Mask tokens never decay, be they one vector or several in a matrix; I-JEPA's and V-JEPA's releases decay them.
        """
        trained = [(name, p) for name, p in self.objective.named_parameters() if p.requires_grad]
        decayed = [p for name, p in trained if p.ndim > 1 and name.rpartition(".")[2] != MASK_TOKEN]
        spared = [p for name, p in trained if p.ndim <= 1 or name.rpartition(".")[2] == MASK_TOKEN]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.lr, fused=True)

    def count_flops(self) -> float:
        """Floating point operations of one training step, forward and backward: teachers and decoders included.

        Where masks are drawn, how much is encoded is drawn with them: the mean over MASKS_COUNTED of them.
        """
        if self.steps == 0:
            return 0.0
        state = {name: value.clone() for name, value in self.objective.state_dict().items()}
        batch = self.stream.batch(0)
        has_masks = any(isinstance(part, MaskDrawer) for part in self.objective.modules())
        num = MASKS_COUNTED if has_masks else 1
        with FlopCounterMode(display=False) as counter:
            for _ in range(num):
                self.objective(batch).total.backward()
        self.objective.zero_grad(set_to_none=True)
        self.objective.load_state_dict(state)
        return counter.get_total_flops() / num

    def time_step(self) -> float:
        """Seconds of one training step as `fit` makes it here, measured on a copy that is thrown away."""
        engine = Engine(precision=self.precision)
        trial = replace(self, objective=copy.deepcopy(self.objective).to(engine.device))
        stream = self.stream.on(engine.device) if isinstance(self.stream, MovableStream) else self.stream
        optimizer, durations = trial.make_optimizer(), []
        for step in range(TIMED_STEPS):
            began = time.perf_counter()
            batch = stream.batch(step).map(lambda tensor: tensor.to(engine.device))
            with engine.autocast():
                loss = trial.objective(batch).total
            loss.backward()
            optimizer.step()
            loss.item()  # waits for the device
            optimizer.zero_grad()
            durations.append(time.perf_counter() - began)
        return statistics.median(durations)

    def count_parameters(self) -> dict[str, int]:
        """Parameters of the encoder and of all that is trained beside it (predictor, decoder, head)."""
        trained = sum(p.numel() for p in self.objective.parameters() if p.requires_grad)
        return {"encoder": count_parameters(self.objective.encoder), "trained": trained}


def split_steps(steps: int, share: float) -> tuple[int, int]:
    """All steps as (own, before): those of the run before it are `share` times its own; each has one at least."""
    own = max(1, round(steps / (1 + share)))
    return own, max(1, steps - own)


def count_parameters(module: nn.Module) -> int:
    """Numbers in all parameters, trained or not."""
    return sum(p.numel() for p in module.parameters())
