"""The one training loop. Nobody forks it: an objective says what the loss is, a run says the rest."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from jepalab import dist
from jepalab.instruments.geometry import collapse_meters
from jepalab.records import RunFolder, describe_machine
from jepalab.run import Run
from jepalab.types import Batch, Loss, Objective

BEAT_SECONDS = 5.0
METERS_EVERY = 25


@dataclass(frozen=True)
class Moment:
    """What there is to see at one step; `watch` gets one after each."""

    step: int
    steps: int
    seconds: float
    frames: int
    terms: dict[str, float]
    meters: dict[str, float]


Watch = Callable[[Moment], None]
Evaluate = Callable[[Objective], dict[str, float]]


class DivergedError(ArithmeticError):
    """The loss stopped being a number."""


class InterruptedRunError(BaseException):
    """SIGTERM or Ctrl-C came; the run was saved first. Not an Exception, so that nothing mistakes it for a failure."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def fit(
    run: Run,
    *,
    folder: Path | None = None,
    device: str = "auto",
    watch: Watch | None = None,
    evaluate: Evaluate | None = None,
    evaluate_at: Collection[int] = (),
    save_every: int = 0,
) -> float:
    """Trains the run's objective in place and returns the seconds spent in training steps.

    folder       where to record; the same call with the same folder goes on where the last one stopped, and ends
                 bit-identical on the CPU to one that never stopped. None records nothing.
    evaluate     measures the objective after the steps in `evaluate_at`, outside the clock.
    save_every   steps between checkpoints; 0 saves at the end alone.
    Raises DivergedError with the step, the term and the last checkpoint when the loss stops being finite.
    """
    records = RunFolder(folder) if folder is not None and dist.rank() == 0 else None
    with dist.Engine(device=device, precision=run.precision) as engine, _interruption() as interrupted:
        objective = run.objective.train()
        step, seconds = _start(run, folder)
        model = engine.distribute(objective)
        optimizer = run.make_optimizer() if run.steps else None
        if records and records.latest() and optimizer:
            step, seconds = records.load(objective, optimizer)
        meters, last_beat = {}, 0.0
        while step < run.steps:
            assert optimizer is not None
            began = time.perf_counter()
            batch = run.stream.batch(step).map(engine.share)
            for group in optimizer.param_groups:
                group["lr"] = run.lr_at(step)
            with engine.autocast():
                loss: Loss = model(batch)
            if not loss.total.isfinite():
                raise DivergedError(_explain_divergence(loss, step, records))
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(objective.parameters(), run.clip, foreach=True)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            objective.after_step(step / run.steps)
            seconds += time.perf_counter() - began

            if watch and step % METERS_EVERY == 1:
                meters = _measure(objective, batch)
            if watch or records:
                terms = {name: value.item() for name, value in loss.terms.items()}
                frames = run.stream.frames_per_batch * step
                moment = Moment(step, run.steps, seconds, frames, terms, meters)
                if watch:
                    watch(moment)
                if records and (step % METERS_EVERY == 1 or step == run.steps):
                    records.log({"step": step, "seconds": round(seconds, 3), "loss": terms})
            if evaluate and step in evaluate_at:
                scores = evaluate(objective)
                if records:
                    records.log({"step": step, "seconds": round(seconds, 3), "scores": scores})
            if records and time.time() - last_beat > BEAT_SECONDS:
                records.beat(step)
                last_beat = time.time()
            ended = step == run.steps
            if records and (ended or interrupted or (save_every and step % save_every == 0)):
                records.save(objective, optimizer, step=step, seconds=seconds)
            if interrupted and not ended:
                saved = "saved; run the same command to go on" if records else "not recorded"
                raise InterruptedRunError(interrupted[0], f"Stopped by signal {interrupted[0]} at step {step}, {saved}.")
    objective.eval()
    return seconds


def _start(run: Run, folder: Path | None) -> tuple[int, float]:
    """Prepares a fresh run; one with a checkpoint reads everything from there."""
    resumed = folder is not None and RunFolder(folder).latest() is not None
    if folder is not None and dist.rank() == 0:
        records = RunFolder(folder)
        last = records.latest()
        records.rewind(last.step if last else 0)
        facts = {"objective": type(run.objective).__name__, "seed": run.seed, "steps": run.steps}
        records.describe(status="running", **facts, **describe_machine())
    if run.prepare and not resumed:
        run.prepare()
    return 0, 0.0


@torch.no_grad()
def _measure(objective: Objective, batch: Batch) -> dict[str, float]:
    return collapse_meters(objective.encoder(batch.x).flatten(0, 1).float().cpu())


def _explain_divergence(loss: Loss, step: int, records: RunFolder | None) -> str:
    broken = [name for name, value in loss.terms.items() if not value.isfinite()] or ["the weighted sum"]
    last = records.latest() if records else None
    kept = f"Last good checkpoint: {last.path}." if last else "There is no checkpoint yet."
    return f"The loss is no longer finite at step {step}: {', '.join(broken)}. {kept} Lower the learning rate, or check the data for NaN."


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them, so that the step in hand ends and is saved."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
