"""One cell of a comparison, one seed of it: train, judge, record. A failure is a result too."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from jepalab.fit import Watch, fit
from jepalab.hub.runs import save_encoders
from jepalab.instruments.features import subjects
from jepalab.records import RunFolder, write_json
from jepalab.run import Run
from jepalab.types import Objective, Stream

Unit = Literal["steps", "samples", "flops", "seconds"]
CURVE_SHARE = 0.25


@runtime_checkable
class Subjects(Protocol):
    """Makes what the instruments read of each encoder, on a share of the held-out data."""

    def __call__(self, objective: Objective, stream: Any, *, share: float = 1.0) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Budget:
    """What every arm may spend: optimizer steps, clips seen, training FLOPs, or seconds of training on this machine."""

    amount: float | int
    unit: Unit = "steps"

    def steps(self, run: Run) -> int:
        """The optimizer steps that this run's budget pays for. Seconds are measured on a few steps of a copy."""
        if run.steps == 0:
            return 0
        cost = {
            "steps": lambda: 1.0,
            "samples": lambda: float(run.stream.clips_per_batch),
            "flops": run.count_flops,
            "seconds": run.time_step,
        }[self.unit]()
        steps = int(self.amount / cost)
        if steps < 1:
            raise ValueError(f"A budget of {self.amount:g} {self.unit} does not pay for one step of {cost:g}.")
        return steps


@dataclass(frozen=True)
class Cell:
    """One arm under one condition: a function from a seed to a run, importable by another process."""

    arm: str
    condition: str
    make: Callable[[int], Run]


@dataclass(frozen=True)
class Judging:
    """How every cell is judged: the same instruments for all, at the same shares of their training.

    instruments  at the end, on all held-out clips, for every encoder that the objective would hand over.
    of_the_first  likewise, for the first encoder alone: read-outs that take their time.
    curve        on the way, after each share of the steps in `curve_at`, on a quarter of the clips.
    draw         writes pictures of a cell that has ended, given the comparison's folder of pictures.
    subjects     what the instruments read: features extracted once from each encoder.
    chief        the scores to print where there is room for some; all if empty.
    """

    instruments: Sequence[Callable[[Any], dict[str, float]]]
    curve: Sequence[Callable[[Any], dict[str, float]]] = ()
    curve_at: Sequence[float] = (0.1, 0.25, 0.5)
    draw: Callable[[Cell, Run, Path], None] | None = None
    subjects: Subjects = subjects
    of_the_first: Sequence[Callable[[Any], dict[str, float]]] = ()
    chief: Sequence[str] = ()


def run_cell(
    cell: Cell, seed: int, *, out: Path, judging: Judging, budget: Budget | None = None, watch: Watch | None = None
) -> dict[str, Any]:
    """The cell's result: read back where it is already there, otherwise trained (on from a checkpoint) and judged.

    out  the comparison's folder; the cell's own lies in it, at `cell_folder`.
    """
    folder = cell_folder(out, cell, seed)
    key = fingerprint(cell, seed, judging, budget)
    found = read_result(folder)
    if found and found["fingerprint"] == key and found["status"] == "done":
        return found
    _forget_other_settings(folder, key)
    facts = {"arm": cell.arm, "condition": cell.condition, "seed": seed, "fingerprint": key}
    try:
        result = facts | {"status": "done"} | _train_and_judge(cell, seed, out, judging, budget, watch)
    except Exception as error:
        result = facts | {"status": "failed", "metrics": {}, "error": f"{type(error).__name__}: {error}"}
        (folder / "error.txt").write_text(traceback.format_exc())
        RunFolder(folder).describe(status="failed", error=result["error"])
        write_json(folder / "result.json", result)
        if not isinstance(error, (ArithmeticError, ValueError, RuntimeError, OSError)):
            raise
        return result
    write_json(folder / "result.json", result)
    RunFolder(folder).describe(status="done")
    return result


def slug(name: str) -> str:
    """A name as part of a path."""
    return name.replace(" ", "-").replace("+", "-")


def cell_folder(out: Path, cell: Cell, seed: int) -> Path:
    """Where a cell's seed is recorded."""
    return out / "cells" / slug(cell.condition) / slug(cell.arm) / f"seed-{seed}"


def picture_folder(pictures: Path, condition: str) -> Path:
    """Where a condition's pictures lie; made if it is not there."""
    folder = pictures / slug(condition)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_result(folder: Path) -> dict[str, Any] | None:
    """result.json of a cell, or None where it has not ended yet."""
    file = folder / "result.json"
    return json.loads(file.read_text()) if file.exists() else None


def fingerprint(cell: Cell, seed: int, judging: Judging, budget: Budget | None) -> str:
    """Tells settings apart: a cell recorded under other settings is trained anew, not passed off as this one."""
    read = (*judging.instruments, *judging.of_the_first, *judging.curve, judging.subjects)
    names = [_describe(function) for function in read]
    text = f"{_describe(cell.make)} {seed} {names} {tuple(judging.curve_at)} {budget}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _describe(function: Callable[..., Any]) -> str:
    if isinstance(function, partial):
        return f"{_describe(function.func)}({function.args}, {sorted(function.keywords.items())})"
    return f"{function.__module__}.{function.__qualname__}"


def _forget_other_settings(folder: Path, key: str) -> None:
    records = RunFolder(folder)
    if folder.exists() and records.description().get("fingerprint") != key:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    records.describe(fingerprint=key)


def _train_and_judge(
    cell: Cell, seed: int, out: Path, judging: Judging, budget: Budget | None, watch: Watch | None
) -> dict[str, Any]:
    run, folder = cell.make(seed), cell_folder(out, cell, seed)
    records = RunFolder(folder)
    if budget:
        # Written down before the first step: a resumed run must not measure its seconds again.
        steps = records.description().get("budgeted_steps") or budget.steps(run)
        records.describe(budgeted_steps=steps)
        run = run.on_steps(steps)
    flops = records.description().get("flops_per_step")
    if flops is None:
        flops = run.count_flops()
        records.describe(flops_per_step=flops)
    curve_at = (
        sorted({max(1, round(share * run.steps)) for share in judging.curve_at} - {run.steps}) if run.steps else []
    )
    seconds = fit(
        run,
        folder=folder,
        device="auto",
        watch=watch,
        evaluate=partial(
            measure, stream=run.stream, instruments=judging.curve, share=CURVE_SHARE, subjects=judging.subjects
        ),
        evaluate_at=curve_at,
    )
    save_encoders(run.objective, folder, stream=run.stream, recipe=cell.arm)
    began = time.perf_counter()
    with records.beating(run.steps):
        metrics = judge_run(run, judging)
        if judging.draw:
            judging.draw(cell, run, out / "pictures")
    prepared = records.description().get("prepare_flops", 0.0)
    scored = [record for record in records.records() if "scores" in record]
    curve = [
        {
            "step": r["step"],
            "seconds": r["seconds"],
            "flops": r["step"] * flops + prepared,
            "metrics": r["scores"],
        }
        for r in scored
    ]
    curve.append({"step": run.steps, "seconds": seconds, "flops": run.steps * flops + prepared, "metrics": metrics})
    compute = {
        "steps": run.steps,
        "samples": run.steps * run.stream.clips_per_batch,
        "frames": run.steps * run.stream.frames_per_batch,
        "flops_per_step": flops,
        "train_flops": run.steps * flops + prepared,
        "seconds": seconds,
        "judging_seconds": time.perf_counter() - began,
        "parameters": run.count_parameters(),
    }
    return {"metrics": metrics, "curve": curve, "compute": compute}


def judge_run(run: Run, judging: Judging) -> dict[str, float]:
    """Every score of a trained run."""
    return measure(
        run.objective,
        stream=run.stream,
        instruments=judging.instruments,
        of_the_first=judging.of_the_first,
        subjects=judging.subjects,
    )


def measure(
    objective: Objective,
    *,
    stream: Stream,
    instruments: Sequence[Callable[[Any], dict[str, float]]],
    share: float = 1.0,
    subjects: Subjects = subjects,
    of_the_first: Sequence[Callable[[Any], dict[str, float]]] = (),
) -> dict[str, float]:
    """Every instrument on every encoder; the first encoder's scores bear no prefix, the teacher's read "teacher/...".

    Scores that are not finite are left out: they are not JSON, and a contrast counts them as missing.
    """
    training, device, scores = objective.training, next(objective.parameters(), torch.zeros(())).device, {}
    for i, (name, subject) in enumerate(subjects(objective, stream, share=share).items()):
        prefix = "" if i == 0 else f"{name}/"
        for instrument in (*instruments, *(of_the_first if i == 0 else ())):
            scores |= {f"{prefix}{key}": value for key, value in instrument(subject).items()}
    objective.train(training).to(device)  # an instrument may have computed elsewhere
    return {name: value for name, value in scores.items() if math.isfinite(value)}
