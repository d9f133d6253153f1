"""The comparison: cells x seeds, matched by seed, several at once, resumed by the same call, judged as declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jepalab.compare.caveats import edges, machines, search_edges
from jepalab.compare.cells import Budget, Cell, Judging, cell_folder, fingerprint, read_result, run_cell
from jepalab.compare.contrasts import Contrast, answer, judge_all
from jepalab.compare.courses import Course
from jepalab.compare.metrics import MOTION
from jepalab.compare.pool import run_jobs
from jepalab.dist import num_cores
from jepalab.progress import Display, Moment
from jepalab.records import describe_machine, write_json

AVERAGED = ("steps", "samples", "frames", "flops_per_step", "train_flops", "seconds", "cpu_seconds", "judging_seconds")


@dataclass(frozen=True)
class Plan:
    """What is compared, declared before anything runs.

    cells       every arm under every condition; `compare` trains each once for each seed.
    arms        what each arm's short name stands for; conditions likewise.
    contrasts   who should beat whom, where, by which metric, and which paper says so.
    exploratory further contrasts, minor or thought of after a first look: numbers, no p-values, no verdict.
    settings    how the cells were tuned, copied into the results.
    illustrate  writes pictures of the data into the folder it is given.
    metrics     how each chief metric is printed, in the order of the tables; the first is the one the report follows.
    notes       what the comparison can and cannot conclude, in sentences for the head of the report.
    conclude    what to take home, in sentences out of the cells; they come before the notes.
    courses     conditions that differ in one number, to be drawn as lines.
    goals       values of the first metric: the report says what each arm had spent when it got there.
    noun        what labelled samples are called, as in "clips", where arms are judged by their classes and a budget is
                counted in samples; empty where it is counted in steps.
    """

    name: str
    question: str
    cells: Sequence[Cell]
    seeds: Sequence[int]
    judging: Judging
    contrasts: Sequence[Contrast]
    arms: Mapping[str, str]
    conditions: Mapping[str, str]
    exploratory: Sequence[Contrast] = ()
    budget: Budget | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    illustrate: Callable[[Path], None] | None = None
    metrics: Mapping[str, str] = field(default_factory=lambda: MOTION)
    notes: Sequence[str] = ()
    conclude: Callable[[Sequence[Mapping[str, Any]]], Sequence[str]] | None = None
    courses: Sequence[Course] = ()
    goals: Sequence[float] = ()
    noun: str = ""


@dataclass(frozen=True)
class Comparison:
    """What came out: results.json as Python values, and the folder it lies in."""

    folder: Path
    results: Mapping[str, Any]


def compare(
    plan: Plan,
    *,
    out: Path,
    num_workers: int = 0,
    display: Display | None = None,
    ended: Sequence[dict[str, Any]] = (),
) -> Comparison:
    """Trains and judges every cell of the plan and writes `out`/results.json.

    num_workers  runs at a time; 0 takes one for each core, or one where there is a GPU. Each worker computes with its
                 share of the cores.
    ended        results of cells that were trained elsewhere; those with the same settings are not trained again.

    The same call goes on where the last one stopped. A cell that fails is a row with its error, not a hole.
    """
    jobs = [(cell, seed) for seed in plan.seeds for cell in plan.cells]
    grid = run_grid(
        jobs,
        out=out,
        judging=plan.judging,
        budget=plan.budget,
        num_workers=num_workers,
        display=display,
        ended=ended,
    )
    if plan.illustrate:
        plan.illustrate(out / "pictures")
    cells: list[dict[str, Any]] = []
    try:
        for cell in grid:
            cells.append(cell)  # one by one: an interruption keeps what came before it
    finally:
        cells += _unheard(jobs, cells, out=out, judging=plan.judging, budget=plan.budget)
        results = judge(plan, cells)
        write_json(out / "results.json", results)
    return Comparison(out, results)


def _unheard(
    jobs: Sequence[tuple[Cell, int]],
    heard: Sequence[Mapping[str, Any]],
    *,
    out: Path,
    judging: Judging,
    budget: Budget | None,
) -> list[dict[str, Any]]:
    """Results that were written in the moment of an interruption, before they could be told of."""
    known = {(each["condition"], each["arm"], each["seed"]) for each in heard}
    silent = [(cell, seed) for cell, seed in jobs if (cell.condition, cell.arm, seed) not in known]
    found = [(read_result(cell_folder(out, *job)), fingerprint(*job, judging, budget)) for job in silent]
    return [result for result, key in found if result and result["status"] == "done" and result["fingerprint"] == key]


def judge(plan: Plan, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """results.json: the cells in the plan's order, the declared contrasts judged, what it cost, how to repeat it."""
    conditions, arms = list(plan.conditions), list(plan.arms)
    cells.sort(key=lambda cell: (conditions.index(cell["condition"]), arms.index(cell["arm"]), cell["seed"]))
    declared = [contrast.name for contrast in plan.contrasts]
    judgements = judge_all([*plan.contrasts, *plan.exploratory], cells, primary=declared)
    machine = describe_machine()
    return {
        "name": plan.name,
        "question": plan.question,
        "answer": answer(judgements),
        "complete": len(cells) == len(plan.cells) * len(plan.seeds),
        "arms": dict(plan.arms),
        "conditions": dict(plan.conditions),
        "seeds": list(plan.seeds),
        "cells": cells,
        "contrasts": [judgement.as_dict() for judgement in judgements],
        "compute": _compute_table(cells),
        "settings": dict(plan.settings),
        "metrics": dict(plan.metrics),
        "noun": plan.noun,
        "goals": list(plan.goals),
        "courses": [course.as_dict() for course in plan.courses],
        "notes": [
            *(plan.conclude(cells) if plan.conclude else ()),
            *_alarms(cells),
            *machines(cells),
            *plan.notes,
            *search_edges(plan.settings),
            *edges(cells, plan.metrics),
        ],
        "command": machine["command"],
        "versions": machine,
    }


def _alarms(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each alarm of collapse that rang in an arm under a condition."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        for each in cell.get("alarms", ()):
            where = f"seed {cell['seed']} at steps {each['first']} to {each['last']} of {cell['compute']['steps']}"
            found.setdefault((cell["arm"], cell["condition"], each["what"]), []).append(where)
    return [
        f"The collapse alarm rang in {arm}, {condition} ({', '.join(places)}): {what}."
        for (arm, condition, what), places in found.items()
    ]


def run_grid(
    jobs: Sequence[tuple[Cell, int]],
    *,
    out: Path,
    judging: Judging,
    budget: Budget | None = None,
    num_workers: int = 0,
    display: Display | None = None,
    ended: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Runs each (cell, seed) in its own folder below `out` and yields the results as they come.

    ended  results of cells that were trained elsewhere; those with the same settings come back as they are.
    """
    done = {each["fingerprint"]: each for each in ended if each["status"] == "done"}
    keys = [fingerprint(cell, seed, judging, budget) for cell, seed in jobs]
    yield from (done[key] for key in keys if key in done)
    jobs = [job for job, key in zip(jobs, keys, strict=True) if key not in done]
    names = [f"{cell.condition}/{cell.arm}/seed-{seed}" for cell, seed in jobs]
    work = [partial(_work, cell, seed, out=out, judging=judging, budget=budget) for cell, seed in jobs]
    # Runs on one GPU share it: at once they would be no faster, and might not fit.
    num_workers = num_workers or (1 if torch.cuda.is_available() else num_cores())
    # A thread that waits for a busy core makes every small operation wait: never more than were asked for here.
    num_threads = max(1, min(num_cores() // num_workers, torch.get_num_threads()))
    if display:
        display.start(names)
    for event in run_jobs(work, num_workers=num_workers, num_threads=num_threads):
        name, (cell, seed) = names[event.job], jobs[event.job]
        if event.kind == "news":
            if display:
                display.news(name, event.value)
            continue
        lost = {"arm": cell.arm, "condition": cell.condition, "seed": seed, "status": "failed", "metrics": {}}
        result = event.value if event.kind == "done" else lost | {"error": event.value}
        if display:
            display.ended(name, result)
        yield result


def _work(
    cell: Cell, seed: int, tell: Callable[[Moment], None], *, out: Path, judging: Judging, budget: Budget | None
) -> dict[str, Any]:
    def watch(moment: Moment) -> None:
        if moment.step % 10 == 0 or moment.step == moment.steps:
            tell(moment)

    return run_cell(cell, seed, out=out, judging=judging, budget=budget, watch=watch)


def _compute_table(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an arm and condition, averaged over the seeds that ended."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if "compute" in cell:
            groups.setdefault((cell["arm"], cell["condition"]), []).append(cell["compute"])
    return [
        {"arm": arm, "condition": condition, "num_seeds": len(rows)}
        | {"parameters": rows[0]["parameters"]}
        | {key: sum(row[key] for row in rows) / len(rows) for key in AVERAGED if all(key in row for row in rows)}
        for (arm, condition), rows in groups.items()
    ]
