"""Runs of about a second, and what other processes do with them; importable without pytest."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import SequencePredictor
from jepalab.compare.cells import Cell, Judging
from jepalab.compare.contrasts import Better
from jepalab.compare.grid import Plan, compare
from jepalab.data.moving import MovingObject
from jepalab.data.sprites import dot
from jepalab.dist import Precision, seeded
from jepalab.endings import InterruptedRunError
from jepalab.fit import Watch, fit, stop_signals
from jepalab.losses.sigreg import SIGReg
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.sigreg_jepa import SIGRegJEPA
from jepalab.run import Run
from jepalab.types import Objective, Subject

STEPS, SAVE_EVERY, EVALUATE_AT = 240, 24, (30, 60)
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


def train(folder: Path, objective: str = "sigreg", precision: Precision = "fp32", watch: Watch | None = None) -> None:
    """Trains a small run in a folder, or goes on there."""
    torch.set_num_threads(1)
    fit(
        small_run(objective, precision=precision),
        folder=folder,
        device="cpu",
        watch=watch,
        save_every=SAVE_EVERY,
        evaluate=read_out,
        evaluate_at=EVALUATE_AT,
    )


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


def energy(subject: Subject) -> dict[str, float]:
    """An instrument that costs nothing, with a score that is no number."""
    return {"energy": float(subject.test.z.square().mean()), "undefined": math.nan}


def make(seed: int, *, objective: str = "sigreg", steps: int = 8) -> Run:
    """A cell's run."""
    return small_run(objective, steps=steps, seed=seed)


def make_where_allowed(seed: int, *, permit: Path) -> Run:
    """A cell's run, if the permit is there."""
    if not permit.exists():
        raise ValueError("This arm wants a permit.")
    return small_run(steps=8, seed=seed)


JUDGING = Judging(instruments=(energy,), curve=(energy,), curve_at=(0.5,))


def small_plan(cells: Sequence[Cell], *, seeds: Sequence[int] = (0,)) -> Plan:
    """A comparison of these cells, with one contrast between the first two arms."""
    names = list(dict.fromkeys(cell.arm for cell in cells))
    claim = Better(
        "one against the other",
        better=names[0],
        than=names[1],
        metric="energy",
        condition="plain",
        because="somebody has to be",
        source="nowhere",
    )
    return Plan(
        name="small",
        question="Which embeds with more energy?",
        cells=cells,
        seeds=seeds,
        judging=JUDGING,
        contrasts=[claim],
        arms={name: f"arm {name}" for name in names},
        conditions={"plain": "a dot"},
        settings={"tuning": "none"},
    )


QUICK_AND_SLOW = small_plan(
    [Cell("quick", "plain", partial(make, steps=8)), Cell("slow", "plain", partial(make, steps=300))]
)


def compare_until_stopped(folder: Path) -> None:
    """What the command line does with a comparison that is stopped."""
    try:
        compare(QUICK_AND_SLOW, out=folder, num_workers=2)
    except InterruptedRunError as stop:
        sys.exit(stop.exit_code)


def square(tell: Callable[[Any], None], *, number: int) -> int:
    """A job with news and a result."""
    tell(f"squaring {number}")
    return number**2


def die(tell: Callable[[Any], None]) -> None:
    """A job that runs out of memory, as the kernel sees to it."""
    os.kill(os.getpid(), signal.SIGKILL)


def talk_until_stopped(tell: Callable[[Any], None], *, witness: Path) -> None:
    """A job that ends as a run does: at the end of a step, when a signal came."""
    with stop_signals() as stopped:
        while not stopped:
            tell("still here")
    witness.write_text("saved")
    raise InterruptedRunError(stopped[0], "at the end of a step")
