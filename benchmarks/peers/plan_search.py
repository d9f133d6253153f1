"""The search that planning.py measures: its sizes, what all are given, and how it is timed. Imports torch alone.

A worker builds one implementation and says what it has built. For each line "count" it searches once and answers with
the operations, for each line "N" it searches N times and answers with the seconds; an empty line asks for memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from peers.timing import MISSING

DIM, HISTORY, DEPTH, HEADS, HEAD_WIDTH, MLP = 192, 3, 6, 16, 64, 2048
ACTION_BLOCK, ACTIONS = 5, 2  # one latent step is this many actions of this many numbers
BLOCK = ACTION_BLOCK * ACTIONS
SAMPLES, ELITES, HORIZON = 300, 30, 5


@dataclass(frozen=True)
class Given:
    """Where e environments are and want to go: z [e t d], the actions between its frames past [e t-1 a], goal [e d].

    num_iterations  of the search.
    batch_size      environments that stable-worldmodel's solver plans for together.
    """

    z: Tensor
    past: Tensor
    goal: Tensor
    num_iterations: int
    batch_size: int


@dataclass(frozen=True)
class Search:
    """One implementation: what of it a search uses, and the search, which answers with the plans [e h a]."""

    package: str
    modules: list[nn.Module]
    run: Callable[[], Tensor]


class WithPast(nn.Module):
    """For models that take the first actions of a candidate for those at the frames of the history: puts them there."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def get_cost(self, info: dict[str, Any], action: Tensor) -> Tensor:
        return self.model.get_cost(info, torch.cat([info["past"], action], 2))


def wake(module: nn.Module) -> None:
    """Fills weights that begin at zero: with AdaLN's gates closed no action would matter."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def serve(build: Callable[[Given], Search]) -> None:
    """Runs one implementation for the script that started this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--given", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints must not be read as an answer
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    given = Given(**torch.load(arguments.given))

    def answer(**what: object) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        search = build(given)
    except ImportError as error:
        answer(missing=f"{error}")
        raise SystemExit(MISSING) from error
    for module in search.modules:
        wake(module.eval())
    parameters = sum(p.numel() for module in search.modules for p in module.parameters())
    answer(package=search.package, parameters=parameters)
    before = _peak()
    for line in sys.stdin:
        if not line.strip():
            break
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            if line.strip() == "count":
                answer(flops=_count(search, (len(given.z), HORIZON, BLOCK)))
            else:
                answer(seconds=[_time(search.run) for _ in range(int(line))])
    answer(grown=_peak() - before)


def _count(search: Search, wanted: tuple[int, ...]) -> int:
    """Floating point operations of one search, attention as the two matrix products that it is."""
    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        plan = search.run()
    assert plan.shape == wanted, f"wanted plans of {wanted}, got {tuple(plan.shape)}"
    assert plan.isfinite().all()
    return counter.get_total_flops()


def _attention(q: list[int], k: list[int], *_: object, **__: object) -> int:
    return 4 * math.prod(q) * k[-2]


def _time(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _peak() -> int:
    """Bytes of this process in memory at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
