"""What every I-JEPA is given, and how any step is timed. Imports torch alone: it runs in the peers' environment too.

A worker builds one implementation, says what it has built, and then waits: for each line "STEPS" on its standard input
it makes that many training steps and answers with their seconds; an empty line asks for memory, operations and masks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

IMAGE, PATCH, GRID, BATCH = 64, 8, 8, 64
DIM, DEPTH, HEADS = 192, 6, 3
PREDICTOR_DIM, PREDICTOR_DEPTH = 96, 3
NUM_CONTEXT, NUM_BLOCKS, BLOCK = 24, 4, (3, 4)
MOMENTUM, LR, WEIGHT_DECAY = 0.996, 1e-3, 0.05
MISSING = 3  # exit status of a worker whose package is not installed
Given_ = TypeVar("Given_")


@dataclass
class Work:
    """One implementation, ready to train.

    loss        of the batch, forward only. optimizer, after_step (the teacher's update) and draw_masks (its own
                sampler, for a batch) as the package ships them; clip is the largest gradient norm where it clips.
    num_draws   batches over which operations are counted; more than one where masks differ in size from draw to draw.
    tokens      mean tokens of context, of target, and of target with its filling, for each mask of a step.
    """

    package: str
    modules: list[nn.Module]
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    after_step: Callable[[], object]
    draw_masks: Callable[[], object] | None = None
    clip: float | None = None
    autocast: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)
    num_draws: int = 1
    tokens: Callable[[], list[tuple[float, float, float]]] | None = None

    def step(self) -> None:
        """The body of the loop in jepalab's `fit`."""
        with self.autocast():
            loss = self.loss()
        loss.backward()
        if self.clip is not None:
            trained = [p for module in self.modules for p in module.parameters()]
            torch.nn.utils.clip_grad_norm_(trained, self.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after_step()


@dataclass(frozen=True)
class Given:
    """The same images and masks for all: images [b 3 64 64] in [0, 1]; context [b 24]; target [b 4 12]."""

    images: Tensor
    context: Tensor
    target: Tensor
    ijepa: str | None

    def normalised(self) -> Tensor:
        return (self.images - 0.5) / 0.25


def draw_masks(num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four blocks of 3 x 4 tokens anywhere, and 24 tokens outside all of them, at random for each sample.

    Of 32 draws for each sample the first counts that leaves 24 tokens; about one in ten does not.
    """
    rows = torch.randint(GRID - BLOCK[0] + 1, (num_samples, 32, NUM_BLOCKS, 1, 1), generator=generator)
    columns = torch.randint(GRID - BLOCK[1] + 1, (num_samples, 32, NUM_BLOCKS, 1, 1), generator=generator)
    inside = torch.arange(BLOCK[0])[:, None] * GRID + torch.arange(BLOCK[1])
    blocks = (rows * GRID + columns + inside).flatten(3)
    hidden = torch.zeros(num_samples, 32, GRID**2, dtype=torch.bool).scatter_(2, blocks.flatten(2), value=True)
    fits = hidden.sum(2) <= GRID**2 - NUM_CONTEXT
    assert fits.any(1).all()
    first, sample = fits.int().argmax(1), torch.arange(num_samples)
    target, hidden = blocks[sample, first], hidden[sample, first]
    order = torch.rand(num_samples, GRID**2, generator=generator) + hidden
    return order.argsort(1)[:, :NUM_CONTEXT].sort(1).values, target


def serve(build: Callable[[Given_], Work], kind: Callable[..., Given_] = Given) -> None:
    """Runs one implementation for the script that started this process. `kind` is what it is given, from a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--given", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints must not be read as an answer
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    given = kind(**torch.load(arguments.given))
    before = _resident("VmRSS")

    def answer(**what: object) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        work = build(given)
    except ImportError as error:
        answer(missing=f"{error}")
        raise SystemExit(MISSING) from error
    if arguments.bf16:
        work.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    for module in work.modules:
        module.train()
    trained = sum(p.numel() for module in work.modules for p in module.parameters() if p.requires_grad)
    before = max(before, _resident("VmRSS") - _bytes_of_parameters(work))  # what a package imports late is no step's
    peak_is_of_steps = _forget_peak()
    answer(package=work.package, trained=trained)
    for line in sys.stdin:
        if not line.strip():
            break
        answer(seconds=[_time(work.step) for _ in range(int(line))])
    peak = _resident("VmHWM")
    answer(
        flops=count_flops(work),
        resident_before=before,
        resident_peak=peak if peak_is_of_steps else None,
        counted=_bytes_of_parameters(work) + _bytes_of_state(work) + count_saved(work),
        mask_seconds=None if work.draw_masks is None else statistics.median(_time(work.draw_masks) for _ in range(25)),
        tokens=None if work.tokens is None else work.tokens(),
    )


def count_flops(work: Work) -> float:
    """Floating point operations of forward and backward, attention as the matrix products that it is."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    # A package that chooses the fused kernel itself (vjepa2) is counted as if it had written the products out.
    counts = {
        fused: lambda q, k, v, *_, **__: 2 * _product(q, k),
        backward: lambda grad, q, k, v, *_, **__: 4 * _product(q, k),
    }
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=counts) as counter:
        for _ in range(work.num_draws):
            work.loss().backward()
    work.optimizer.zero_grad()
    return counter.get_total_flops() / work.num_draws


def _product(q: list[int], k: list[int]) -> int:
    """Operations of the product of queries and keys, whose shapes these are, batch and heads first."""
    return 2 * math.prod(q) * k[-2]


def count_saved(work: Work) -> int:
    """Bytes that autograd keeps from the forward pass for the backward pass, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for module in work.modules for p in module.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), work.autocast():
        loss = work.loss()
    total = sum(saved.values())
    del loss
    return total


def _bytes_of_parameters(work: Work) -> int:
    return sum(p.numel() * p.element_size() for module in work.modules for p in module.parameters())


def _bytes_of_state(work: Work) -> int:
    states = [value for state in work.optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in states if isinstance(value, Tensor))


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _resident(which: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{which}:"))


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
