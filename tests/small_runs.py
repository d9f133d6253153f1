"""Runs of about a second, and what other processes do with them; importable without pytest."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import SequencePredictor
from jepalab.data.moving import MovingObject
from jepalab.data.sprites import dot
from jepalab.dist import Precision, seeded
from jepalab.fit import fit
from jepalab.losses.sigreg import SIGReg
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.sigreg_jepa import SIGRegJEPA
from jepalab.run import Run
from jepalab.types import Objective

STEPS, SAVE_EVERY, EVALUATE_AT = 120, 5, (30, 60)
SECONDS_TO_WAIT = 60
# What every process would otherwise import anew; the first optimizer step of torch imports its compiler.
IMPORTED_ONCE = ["pytest", "torch._dynamo", "jepalab.fit", "jepalab.compare.grid", "jepalab.data.moving"]


def small_stream(seed: int = 0) -> MovingObject:
    """Three frames of a dot on 8 x 8 pixels."""
    return MovingObject(sprites=dot(sigma=0.5), size=8, num_frames=3, clips_per_batch=16, seed=seed)


def small_run(objective: str = "sigreg", *, steps: int = STEPS, precision: Precision = "fp32", seed: int = 0) -> Run:
    """A JEPA whose state is more than its weights: a teacher ("ema"), or the step of its random directions."""
    with seeded(seed):
        encoder, predictor = ConvEncoder(8, dim=4), SequencePredictor(4, num_actions=2, width=8)
    made: dict[str, Callable[[], Objective]] = {
        "ema": lambda: EMAJEPA(encoder, predictor=predictor, momentum=0.9),
        "sigreg": lambda: SIGRegJEPA(
            encoder,
            predictor=predictor,
            weights={"predict": 1.0, "sigreg": 0.1},
            sigreg=SIGReg(num_directions=8, num_knots=5),
        ),
    }
    return Run(made[objective](), small_stream(seed), steps=steps, lr=1e-2, precision=precision, seed=seed)


def read_out(objective: Objective) -> dict[str, float]:
    """Something to evaluate on the way."""
    return {"energy": float(objective.encoder(small_stream().batch(1_000).x).detach().square().mean())}


def train(folder: Path, objective: str = "sigreg", precision: Precision = "fp32") -> None:
    """Trains a small run in a folder, or goes on there."""
    torch.set_num_threads(1)
    run = small_run(objective, precision=precision)
    fit(run, folder=folder, device="cpu", save_every=SAVE_EVERY, evaluate=read_out, evaluate_at=EVALUATE_AT)


def start(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """The function in a process of its own, forked from one that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def wait_until(happened: Callable[[], object]) -> None:
    """Polls; asserts that it happens in a minute."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not happened():
        assert time.monotonic() < deadline, f"waited {SECONDS_TO_WAIT} s in vain"
        time.sleep(0.002)
