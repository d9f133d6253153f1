"""The one training loop. Nobody forks it: an objective says what the loss is, a run says the rest."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab import dist
from jepalab.endings import DivergedError, InterruptedRunError
from jepalab.instruments.geometry import collapse_meters, std_over_samples
from jepalab.progress import Moment, find_alarms
from jepalab.records import Checkpoint, RunFolder, describe_machine
from jepalab.run import Run
from jepalab.types import Batch, Encoder, Loss, MovableStream, Objective

BEAT_SECONDS = 5.0
METERS_EVERY = 25
# A number that is asked of a GPU waits for all its work, so there the loss is looked at now and then.
LOOK_EVERY = 10

Watch = Callable[[Moment], None]
Evaluate = Callable[[Objective], dict[str, float]]


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
    Raises DivergedError with the step, the term and the last checkpoint when the loss or its gradient stops being
    finite, and ValueError when the folder holds a checkpoint of another run.
    """
    records = RunFolder(folder) if folder is not None and dist.rank() == 0 else None
    engine = dist.Engine(device=device, precision=run.precision)
    with engine, stop_signals() as interrupted, dist.seeded(run.seed):
        objective = run.objective.train()
        last = RunFolder(folder).latest() if folder else None
        _prepare(run, records, last, engine)
        model = engine.distribute(objective)
        stream = run.stream.on(engine.device) if isinstance(run.stream, MovableStream) else run.stream
        optimizer = run.make_optimizer() if run.steps else None
        step, seconds, meters, last_beat, stop = 0, 0.0, {}, 0.0, False
        # The processor's time too, which other work on the machine does not lengthen; on a GPU it says nothing.
        cpu_seconds = 0.0 if engine.device.type == "cpu" else None
        look_every = 1 if engine.device.type == "cpu" else LOOK_EVERY
        healthy = torch.ones((), dtype=torch.bool, device=engine.device)
        if folder and last:
            step, seconds = RunFolder(folder).load(objective, optimizer)
            cpu_seconds = None if cpu_seconds is None else RunFolder(folder).cpu_seconds()
        while step < run.steps and not stop:
            assert optimizer is not None
            began, cpu_began = time.perf_counter(), time.process_time()
            batch = stream.batch(step).map(engine.share)
            for group in optimizer.param_groups:
                group["lr"] = run.lr_at(step)
            with engine.autocast():
                loss: Loss = model(batch)
            loss.total.backward()
            norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), run.clip)
            healthy &= loss.total.isfinite() & norm.isfinite()
            measures = (step + 1) % METERS_EVERY == 1
            # Where it looks it waits for the device, inside the clock: what follows must not find work still queued.
            looks = (
                (step + 1) % look_every == 0
                or measures
                or step + 1 in (run.steps, *evaluate_at)
                or _is_due(step + 1, save_every)
            )
            if looks and not healthy:
                reason = _explain_divergence(loss, step, records)
                if records:
                    records.describe(status="failed", error=reason)
                raise DivergedError(reason)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            objective.after_step(step / run.steps)
            _move_average(objective, step)
            seconds += time.perf_counter() - began
            if cpu_seconds is not None:
                cpu_seconds += (time.process_time() - cpu_began) / torch.get_num_threads()

            if (watch or records) and measures:
                meters = _measure(objective, batch)
            if (watch or records) and looks:
                terms = {name: value.item() for name, value in loss.terms.items()}
                frames = run.stream.frames_per_batch * step
                moment = Moment(step, run.steps, seconds, frames, terms, meters)
                if watch:
                    watch(moment)
                if records and (measures or step == run.steps):
                    record = {"step": step, "seconds": round(seconds, 3), "loss": terms}
                    rung = [*find_alarms(meters)] if measures else []
                    records.log(record | ({"meters": meters} if measures else {}) | ({"alarms": rung} if rung else {}))
            if evaluate and step in evaluate_at:
                with records.beating(step) if records else nullcontext():
                    scores = evaluate(objective)
                objective.to(engine.device)  # an instrument may have computed elsewhere
                if records:
                    spent = {} if cpu_seconds is None else {"cpu_seconds": round(cpu_seconds, 3)}
                    records.log({"step": step, "seconds": round(seconds, 3), **spent, "scores": scores})
            if records and time.time() - last_beat > BEAT_SECONDS:
                records.beat(step)
                last_beat = time.time()
            stop = bool(interrupted)  # asked once: a signal that comes later waits for the next step to be saved
            if records and (stop or step == run.steps or _is_due(step, save_every)) and healthy:
                records.save(objective, optimizer, step=step, seconds=seconds, cpu_seconds=cpu_seconds)
        if records and run.steps == 0 and not last:
            records.save(objective, None, step=0, seconds=0.0, cpu_seconds=cpu_seconds)
        if interrupted:
            if records:
                records.describe(status="stopped")
            kept = "saved; run the same command to go on" if records and healthy else "not recorded"
            raise InterruptedRunError(interrupted[0], f"at step {step}, {kept}")
        # DDP must be gone before its process group is, or gloo's threads outlive it (dist.close_process_group).
        del model, optimizer
    objective.eval()
    return seconds


def _prepare(run: Run, records: RunFolder | None, last: Checkpoint | None, engine: dist.Engine) -> None:
    """Describes the run and prepares a fresh one; one with a checkpoint reads what was prepared from there."""
    if records:
        settings = ("seed", "steps", "lr", "weight_decay", "warmup", "clip", "precision")
        records.claim(objective=type(run.objective).__name__, **{name: getattr(run, name) for name in settings})
        records.describe(status="running", error="", **describe_objective(run), **describe_machine())
        records.describe(computed_in=engine.precision)
        records.rewind(last.step if last else 0)
        records.beat(last.step if last else 0)
    if last or not (run.first or run.prepare):
        return
    flops = run.first.total(Run.count_flops) if run.first else 0.0
    with records.beating(0) if records else nullcontext():
        cpu_began = time.process_time()
        seconds = fit(run.first, device=str(engine.device)) if run.first else 0.0
        began = time.perf_counter()
        if run.prepare:
            run.prepare()
        seconds += time.perf_counter() - began
        cpu_seconds = (time.process_time() - cpu_began) / torch.get_num_threads()
    if records:
        spent = {"prepare_seconds": round(seconds, 3), "prepare_cpu_seconds": round(cpu_seconds, 3)}
        records.describe(prepare_flops=flops, **spent)


def describe_objective(run: Run) -> dict[str, Any]:
    """What readers of the folder need to draw its curves: what the loss compares, and what a step consumes."""
    objective = run.objective
    return {
        "compares": {name: str(objective.compares[name]) for name, weight in objective.weights.items() if weight},
        "weights": {name: float(weight) for name, weight in objective.weights.items()},
        "clips_per_batch": run.stream.clips_per_batch,
        "frames_per_batch": run.stream.frames_per_batch,
    }


@torch.no_grad()
def _measure(objective: Objective, batch: Batch) -> dict[str, float]:
    """`collapse_meters` of the encoder, its spread over samples at one place, and both spreads of a teacher."""
    z, meters = _embed(objective.encoder, batch), {}
    if not z.isfinite().all():
        return {}  # the next loss will say that it is not finite
    meters |= collapse_meters(z.flatten(0, 1)) | _spread_over_samples(z)
    teacher = objective.probed_encoders().get("teacher")
    if teacher is not None and (z := _embed(teacher, batch)).isfinite().all():
        spreads = {"std": collapse_meters(z.flatten(0, 1))["std"]} | _spread_over_samples(z)
        meters |= {f"teacher_{name}": value for name, value in spreads.items()}
    return meters


@torch.no_grad()
def _move_average(objective: Objective, step: int) -> None:
    """Where an average is kept, it follows the weights after step number `step`, from 1, over about the last tenth.

    Its momentum is (1 + step) / (10 + step), as of TensorFlow's averages that count their updates.
    """
    if objective.average is not None:
        slow, fast = tuple(objective.average.parameters()), tuple(objective.encoder.parameters())
        torch._foreach_lerp_(slow, fast, 9 / (10 + step))
        for old, new in zip(objective.average.buffers(), objective.encoder.buffers(), strict=True):
            old.copy_(new)


def _embed(encoder: Encoder, batch: Batch) -> Float[Tensor, "b n d"]:
    """To watch a run must not change it: no dropout drawn, no statistics moved."""
    training = encoder.training
    z = encoder.eval()(batch.x).float().cpu()
    encoder.train(training)
    return z


def _spread_over_samples(z: Float[Tensor, "b n d"]) -> dict[str, float]:
    return {"std_samples": std_over_samples(z)} if len(z) > 1 and z.shape[1] > 1 else {}


def _is_due(step: int, save_every: int) -> bool:
    return save_every > 0 and step % save_every == 0


def _explain_divergence(loss: Loss, step: int, records: RunFolder | None) -> str:
    broken = [name for name, value in loss.terms.items() if not value.isfinite()]
    broken = broken or ["the weighted sum" if not loss.total.isfinite() else "its gradient"]
    last = records.latest() if records else None
    kept = f"Last good checkpoint: {last.path}." if last else "There is no checkpoint yet."
    advice = "Lower the learning rate, or check the data for NaN."
    return f"The loss is no longer finite at step {step}: {', '.join(broken)}. {kept} {advice}"


@contextmanager
def stop_signals() -> Iterator[list[int]]:
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
