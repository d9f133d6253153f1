"""One cell of a comparison, one seed of it: train, judge, record. A failure is a result too."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jepalab.compare.measuring import Subjects, measure, stands_for
from jepalab.data.sample_stream import left_out
from jepalab.fit import Watch, fit
from jepalab.hub.runs import put_first, save_encoders
from jepalab.instruments.features import subjects
from jepalab.progress import sum_up_alarms
from jepalab.records import RunFolder, write_json
from jepalab.run import Run

Unit = Literal["steps", "samples", "flops", "seconds"]
CURVE_SHARE = 0.25
COSTS: Mapping[Unit, Callable[[Run], float]] = {
    "steps": lambda run: 1.0,
    "samples": lambda run: float(run.stream.clips_per_batch),
    "flops": Run.count_flops,
    "seconds": Run.time_step,
}
# Part of every cell's key: raise it when training or read-outs change what they compute.
RULES = 3


@dataclass(frozen=True)
class Budget:
    """What every arm may spend: optimizer steps, clips seen, training FLOPs, or seconds of training on this machine.

    A run that is trained before another, as a frozen teacher's is, is paid for out of the same budget.
    """

    amount: float | int
    unit: Unit = "steps"

    def steps(self, run: Run) -> int:
        """The optimizer steps that the budget pays for, as `Run.on_steps` takes them.

        Seconds are measured on a few steps of a copy.
        """
        if run.steps == 0:
            return 0
        cost = run.mean_step(COSTS[self.unit])
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
    of_the_first  likewise, for the encoder that stands for its arm: read-outs that take their time.
    prefer       the score on validation by which an encoder stands for its arm; the first, if empty.
    curve        on the way, after each share of the steps in `curve_at`, and at the end, on a quarter of the clips.
    draw         writes pictures of a cell that has ended, given the comparison's folder of pictures; where encoders are
                 preferred, also `encoder`, the name of the one that stands for the arm.
    subjects     what the instruments read: features extracted once from each encoder.
    chief        the scores to print where there is room for some; all if empty.
    skipped      metrics that fuller read-outs measure and these do not: nothing can be claimed of them.
    keep         of a run that was judged, what is no score but belongs into its result, as JSON can hold it.
    """

    instruments: Sequence[Callable[[Any], dict[str, float]]]
    curve: Sequence[Callable[[Any], dict[str, float]]] = ()
    curve_at: Sequence[float] = (0.1, 0.25, 0.5)
    draw: Callable[..., None] | None = None
    subjects: Subjects = subjects
    of_the_first: Sequence[Callable[[Any], dict[str, float]]] = ()
    chief: Sequence[str] = ()
    skipped: Sequence[str] = ()
    keep: Callable[[Run], Mapping[str, Any]] | None = None
    prefer: str = ""

    def with_more(self, *instruments: Callable[[Any], dict[str, float]]) -> Judging:
        """The same, and these of the encoder that stands for its arm, of every cell."""
        return replace(self, of_the_first=(*self.of_the_first, *instruments))


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
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
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
    text = f"{RULES} {_describe(cell.make)} {seed} {names} {tuple(judging.curve_at)} {budget}{judging.prefer}"
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
    records.list_skipped(left_out(run.stream))
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
    follow = partial(
        measure,
        stream=run.stream,
        instruments=judging.curve,
        share=CURVE_SHARE,
        subjects=judging.subjects,
        prefer=judging.prefer,
    )
    seconds = fit(run, folder=folder, device="auto", watch=watch, evaluate=follow, evaluate_at=curve_at)
    cpu_seconds = records.cpu_seconds()
    save_encoders(run.objective, folder, stream=run.stream, recipe=cell.arm)
    began = time.perf_counter()
    with records.beating(run.steps):
        metrics = judge_run(run, judging)
        standing = {}
        if judging.prefer:
            standing["encoder"] = stands_for(metrics, run.objective.probed_encoders(), judging.prefer)
            put_first(folder, standing["encoder"])
        # Before the curve's last point, which is read on a share: what is kept and drawn is of the whole test.
        kept = judging.keep(run) if judging.keep else {}
        if judging.draw:
            judging.draw(cell, run, out / "pictures", **standing)
        at_the_end = follow(run.objective) if judging.curve else metrics
    told = records.description()
    before = {"seconds": told.get("prepare_seconds", 0.0), "flops": told.get("prepare_flops", 0.0)}
    before["steps"] = int(run.first.total(COSTS["steps"])) if run.first else 0

    def moment(step: int, seconds: float, cpu_seconds: float | None, scores: Mapping[str, float]) -> dict[str, Any]:
        """A reading, and what was spent until then."""
        spent = {"step": before["steps"] + step, "seconds": before["seconds"] + seconds}
        if cpu_seconds is not None:
            spent["cpu_seconds"] = told.get("prepare_cpu_seconds", 0.0) + cpu_seconds
        return spent | {"flops": before["flops"] + step * flops, "metrics": scores}

    scored = [record for record in records.records() if "scores" in record]
    curve = [moment(each["step"], each["seconds"], each.get("cpu_seconds"), each["scores"]) for each in scored]
    # On the same share as the points before it, or the last step of every curve would be a jump in labels.
    share = {"share": CURVE_SHARE} if judging.curve else {}
    curve.append(moment(run.steps, seconds, cpu_seconds, at_the_end) | share)
    compute = {
        "steps": curve[-1]["step"],
        "samples": int(run.total(COSTS["samples"])),
        "frames": int(run.total(lambda each: each.stream.frames_per_batch)),
        "flops_per_step": flops,
        "train_flops": curve[-1]["flops"],
        **{clock: curve[-1][clock] for clock in ("seconds", "cpu_seconds") if clock in curve[-1]},
        "before": before,
        "judging_seconds": time.perf_counter() - began,
        "parameters": run.count_parameters(),
        **{fact: told[fact] for fact in ("machine", "computed_in") if fact in told},
    }
    alarms = sum_up_alarms(records.records())
    return {"metrics": metrics, "curve": curve, "compute": compute, "alarms": alarms, **kept}


def judge_run(run: Run, judging: Judging) -> dict[str, float]:
    """Every score of a trained run."""
    return measure(
        run.objective,
        stream=run.stream,
        instruments=judging.instruments,
        of_the_first=judging.of_the_first,
        subjects=judging.subjects,
        prefer=judging.prefer,
    )
