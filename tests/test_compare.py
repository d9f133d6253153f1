"""A comparison: each cell trained once, under its own settings, alike for all; what fails or is stopped is survived."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from jepalab.compare import grid
from jepalab.compare.cells import CURVE_SHARE, Budget, Cell, Judging, cell_folder, fingerprint, read_result, run_cell
from jepalab.compare.grid import compare
from jepalab.compare.measuring import measure
from jepalab.compare.pool import Event, _serve, run_jobs
from jepalab.compare.report import write_report
from jepalab.compare.summary import publish, published_cells
from jepalab.endings import InterruptedRunError
from jepalab.fit import fit
from jepalab.hub.runs import find_encoders
from jepalab.recipes.bench import Bench, Training, World
from jepalab.recipes.distractor import ARMS, make_run
from jepalab.recipes.sequences import salt_jepa
from jepalab.records import RunFolder, describe_machine
from jepalab.run import Run
from small_runs import (
    JUDGING,
    QUICK_AND_SLOW,
    compare_until_stopped,
    die,
    make,
    make_where_allowed,
    small_plan,
    small_run,
    square,
    start,
    talk_until_stopped,
    wait_until,
)

CELL = Cell("J3", "plain", partial(make, objective="ema"))
RESULTS = {
    *("name", "question", "answer", "complete", "arms", "conditions", "seeds", "cells", "contrasts", "compute"),
    *("settings", "metrics", "noun", "goals", "courses", "notes", "command", "versions"),
}


def steps_logged(folder: Path) -> list[int]:
    return [record["step"] for record in RunFolder(folder).records() if "loss" in record]


def test_cell_is_trained_judged_and_recorded(tmp_path: Path) -> None:
    result = run_cell(CELL, 1, out=tmp_path, judging=JUDGING)
    run = make(1, objective="ema")
    assert (result["arm"], result["condition"], result["seed"], result["status"]) == ("J3", "plain", 1, "done")
    assert result["metrics"].keys() == {"energy", "teacher/energy"}, "what is no number is left out"
    flops = run.count_flops()
    assert [(point["step"], point["flops"]) for point in result["curve"]] == [(4, 4 * flops), (8, 8 * flops)]
    fit(run)
    follow = partial(measure, run.objective, stream=run.stream, instruments=JUDGING.curve, subjects=JUDGING.subjects)
    end = result["curve"][-1]
    assert (end["metrics"], end["share"]) == (follow(share=CURVE_SHARE), CURVE_SHARE), "as the points before it"
    assert end["metrics"] != result["metrics"] == follow()
    times = [result["curve"][0], end, result["compute"]]
    assert 0 < times[0]["cpu_seconds"] < times[1]["cpu_seconds"] == times[2]["cpu_seconds"]
    assert 0 < result["curve"][0]["seconds"] < result["curve"][1]["seconds"]
    spent = result["compute"]
    assert (spent["steps"], spent["samples"], spent["frames"]) == (8, 8 * 16, 8 * 16 * 3)
    assert (spent["flops_per_step"], spent["train_flops"]) == (flops, 8 * flops)
    assert (spent["machine"], spent["computed_in"]) == (describe_machine()["machine"], "fp32")
    assert spent["parameters"] == run.count_parameters()
    assert read_result(cell_folder(tmp_path, CELL, 1)) == result


def test_what_is_kept_and_drawn_is_of_the_whole_test(tmp_path: Path) -> None:
    seen: list[float] = []

    def shares(objective: Any, stream: Any, *, share: float = 1.0) -> dict[str, Any]:
        seen.append(share)
        return JUDGING.subjects(objective, stream, share=share)

    judging = replace(
        JUDGING,
        subjects=shares,
        keep=lambda run: {"kept_after": seen[-1]},
        draw=lambda cell, run, pictures: seen.append(seen[-1]),
    )
    assert run_cell(CELL, 0, out=tmp_path, judging=judging)["kept_after"] == 1.0
    assert seen == [CURVE_SHARE, 1.0, 1.0, CURVE_SHARE], "the last point of the curve comes after"


def test_an_alarm_that_rang_is_part_of_the_result_and_of_the_notes(tmp_path: Path) -> None:
    cells = [run_cell(Cell(arm, "plain", make), 0, out=tmp_path, judging=JUDGING) for arm in ("X", "Y")]
    assert [cell["alarms"] for cell in cells] == [[], []]
    plan = small_plan([Cell("X", "plain", make), Cell("Y", "plain", make)])
    assert not grid.judge(plan, cells)["notes"]
    rang = {"alarm": "std", "what": "they all point one way", "first": 26, "last": 51, "times": 2}
    (note,) = grid.judge(plan, [cells[0] | {"alarms": [rang]}, cells[1]])["notes"]
    assert note == "The collapse alarm rang in X, plain (seed 0 at steps 26 to 51 of 8): they all point one way."


def test_cell_is_trained_once(tmp_path: Path) -> None:
    first = run_cell(CELL, 0, out=tmp_path, judging=JUDGING)
    assert run_cell(CELL, 0, out=tmp_path, judging=JUDGING) == first, "seconds and all"
    longer = run_cell(replace(CELL, make=partial(make, objective="ema", steps=9)), 0, out=tmp_path, judging=JUDGING)
    assert longer["compute"]["steps"] == 9
    assert steps_logged(cell_folder(tmp_path, CELL, 0)) == [1, 9]


def test_cells_of_other_rules_are_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(CELL, 0, JUDGING, None)
    monkeypatch.setattr("jepalab.compare.cells.RULES", 0)
    assert fingerprint(CELL, 0, JUDGING, None) != before


def test_fingerprint_tells_apart_what_changes_the_result() -> None:
    other = replace(CELL, make=partial(make, objective="ema", steps=9))
    without = replace(JUDGING, curve=())
    keys = [
        fingerprint(CELL, 0, JUDGING, None),
        fingerprint(CELL, 1, JUDGING, None),
        fingerprint(other, 0, JUDGING, None),
        fingerprint(CELL, 0, without, None),
        fingerprint(CELL, 0, JUDGING, Budget(100)),
        fingerprint(CELL, 0, JUDGING, Budget(100, "samples")),
    ]
    assert len(set(keys)) == len(keys)
    assert fingerprint(replace(CELL), 0, replace(JUDGING), None) == keys[0]


def test_cell_that_fails_is_a_result_and_is_tried_again(tmp_path: Path) -> None:
    permit = tmp_path / "permit"
    cell = Cell("X", "plain", partial(make_where_allowed, permit=permit))
    failed = run_cell(cell, 0, out=tmp_path, judging=JUDGING)
    assert (failed["status"], failed["metrics"]) == ("failed", {})
    assert failed["error"] == "ValueError: This arm wants a permit."
    assert "make_where_allowed" in (cell_folder(tmp_path, cell, 0) / "error.txt").read_text()
    permit.touch()
    assert run_cell(cell, 0, out=tmp_path, judging=JUDGING)["status"] == "done"


def test_fault_of_ours_is_recorded_and_raised(tmp_path: Path) -> None:
    cell = replace(CELL, make=partial(make, objective="unheard of"))
    with pytest.raises(KeyError):
        run_cell(cell, 0, out=tmp_path, judging=JUDGING)
    found = read_result(cell_folder(tmp_path, cell, 0))
    assert found is not None
    assert found["error"] == "KeyError: 'unheard of'"


def test_budget_pays_for_whole_steps() -> None:
    run = small_run()
    flops = run.count_flops()
    assert Budget(70).steps(run) == 70
    assert Budget(100, "samples").steps(run) == 100 // 16
    assert Budget(3 * flops, "flops").steps(run) == 3
    assert Budget(4 * flops - 1, "flops").steps(run) == 3
    assert Budget(60.0, "seconds").steps(run) > Budget(0.6, "seconds").steps(run) > 1
    assert Budget(70).steps(replace(run, steps=0)) == 0
    with pytest.raises(ValueError, match="15 samples does not pay for one step of 16"):
        Budget(15, "samples").steps(run)


def test_budget_replaces_the_recipes_steps_and_is_measured_once(tmp_path: Path) -> None:
    result = run_cell(CELL, 0, out=tmp_path, judging=JUDGING, budget=Budget(33, "samples"))
    assert result["compute"]["steps"] == 2
    records = RunFolder(cell_folder(tmp_path, CELL, 0))
    assert records.description()["budgeted_steps"] == 2


def make_salt(seed: int) -> Run:
    return salt_jepa(Bench(world=World(thing="dot"), training=Training(steps=500), seed=seed), teacher_share=0.5)


def test_a_frozen_teacher_is_paid_for_out_of_the_same_budget(tmp_path: Path) -> None:
    run = make_salt(0)
    assert run.first is not None
    own, before = run.count_flops(), run.first.count_flops()
    assert before > 1.5 * own, "otherwise this shows little"
    budget = Budget(4.1 * own + 2.1 * before, "flops")
    assert budget.steps(run) == 6
    result = run_cell(Cell("J4p", "plain", make_salt), 0, out=tmp_path, judging=JUDGING, budget=budget)
    spent, curve = result["compute"], result["curve"]
    clips = run.stream.clips_per_batch
    assert (spent["steps"], spent["samples"], spent["train_flops"]) == (6, 6 * clips, 4 * own + 2 * before)
    assert [(each["step"], each["flops"]) for each in curve] == [
        (2 + 2, 2 * own + 2 * before),
        (2 + 4, 4 * own + 2 * before),
    ]
    assert spent["before"].keys() == {"steps", "seconds", "flops"}
    assert curve[-1]["seconds"] == spent["seconds"] > spent["before"]["seconds"] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_arms_of_a_seed_start_alike_and_see_the_same_batches(seed: int) -> None:
    runs = {arm: make_run(seed, arm=arm, world=World(), settings={}) for arm in ARMS}
    starts = {arm: run.objective.encoder.state_dict() for arm, run in runs.items() if arm != "PCA"}
    assert len(starts) >= 10
    for arm, start_ in starts.items():
        own = {name.removeprefix("frame."): value for name, value in start_.items()}
        assert own.keys() == starts["J1"].keys()
        differ = {name for name, value in own.items() if not torch.equal(value, starts["J1"][name])}
        assert differ <= ({"mean", "std"} if arm == "J1d" else set()), "differences are normalised as differences"
    other = make_run(seed + 1, arm="J1", world=World(), settings={})
    trained = [name for name, _ in other.objective.encoder.named_parameters()]
    assert not [name for name in trained if torch.equal(other.objective.encoder.state_dict()[name], starts["J1"][name])]
    batches = [run.stream.batch(7) for run in runs.values()]
    assert all(torch.equal(batch.x, batches[0].x) for batch in batches)
    assert not torch.equal(other.stream.batch(7).x, batches[0].x)


def test_job_that_cannot_travel_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"top level of a module.*functools\.partial"):
        list(run_jobs([partial(square, number=1), lambda tell: 1], num_workers=1))
    with pytest.raises(ValueError, match="top level of a module"):
        list(run_jobs([partial(square, number=(i for i in ()))], num_workers=1))


@pytest.mark.dist
def test_killed_worker_loses_its_job_only_and_is_replaced() -> None:
    jobs = [die, *(partial(square, number=number) for number in (1, 2, 3))]
    events = list(run_jobs(jobs, num_workers=1))
    assert events[0] == Event(0, "lost", "its process died with exit code -9")
    spoken = [(Event(job, "news", f"squaring {job}"), Event(job, "done", job**2)) for job in (1, 2, 3)]
    assert events[1:] == [event for pair in spoken for event in pair]


@pytest.mark.dist
def test_worker_whose_parent_is_gone_saves_and_stops(tmp_path: Path) -> None:
    here, there = multiprocessing.get_context("forkserver").Pipe()
    process = start(_serve, there, 1)
    there.close()
    here.send(partial(talk_until_stopped, witness=tmp_path / "witness"))
    assert here.recv() == ("news", "still here")
    here.close()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert (tmp_path / "witness").read_text() == "saved"


class Told:
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.results: dict[str, Any] = {}
        self.last: dict[str, int] = {}

    def start(self, names: list[str]) -> None:
        self.names = names

    def news(self, name: str, moment: Any) -> None:
        self.last[name] = moment.step

    def ended(self, name: str, result: Any) -> None:
        self.results[name] = result

    def close(self) -> None:
        return


@pytest.mark.dist
def test_comparison_is_whole_also_where_an_arm_fails(tmp_path: Path) -> None:
    cells = [
        Cell("J2", "plain", make),
        CELL,
        Cell("X", "plain", partial(make_where_allowed, permit=tmp_path / "permit")),
    ]
    told = Told()
    found = compare(small_plan(cells, seeds=(0, 1)), out=tmp_path / "small", num_workers=2, display=told)
    results = found.results
    assert results.keys() == RESULTS
    assert [(c["arm"], c["seed"], c["status"]) for c in results["cells"]] == [
        *(("J2", 0, "done"), ("J2", 1, "done"), ("J3", 0, "done"), ("J3", 1, "done")),
        *(("X", 0, "failed"), ("X", 1, "failed")),
    ]
    assert results["complete"] is True
    assert results["cells"][4]["error"] == "ValueError: This arm wants a permit."
    assert [(row["arm"], row["num_seeds"]) for row in results["compute"]] == [("J2", 2), ("J3", 2)]
    energies = {(c["arm"], c["seed"]): c["metrics"]["energy"] for c in results["cells"] if c["status"] == "done"}
    mean = sum(energies["J2", seed] - energies["J3", seed] for seed in (0, 1)) / 2
    assert results["contrasts"][0]["difference"] == pytest.approx(mean)
    assert energies["J3", 0] == run_cell(CELL, 0, out=tmp_path / "here", judging=JUDGING)["metrics"]["energy"]
    assert (
        sorted(told.names) == sorted(told.results) == [f"plain/{a}/seed-{s}" for a in ("J2", "J3", "X") for s in (0, 1)]
    )
    assert set(told.last.values()) == {8}

    (found.folder / "report.html").write_text("the report")
    publish(found.folder, tmp_path / "docs")
    published = tmp_path / "docs" / "small"
    assert (published / "results.json").read_bytes() == (found.folder / "results.json").read_bytes()
    assert (published / "report.html").read_text() == "the report"
    page = (published / "README.md").read_text()
    assert results["answer"] in page
    assert page.count("| failed |") == 1
    rows = [line.split(" | ")[:3] for line in page.splitlines() if line.startswith("| ")]
    assert rows[0][:2] == ["| arm", "seeds"]
    assert [row[1] for row in rows[2:5]] == ["2", "2", "0"]


def test_the_encoder_that_validates_best_stands_for_its_arm(tmp_path: Path) -> None:
    sizes = {"student": 2.0, "teacher": 3.0}

    def named(objective: Any, stream: Any, *, share: float = 1.0) -> dict[str, str]:
        return {name: name for name in objective.probed_encoders()}

    def size(name: str) -> dict[str, float]:
        return {"size": 10 * sizes[name], "size_validation": sizes[name]}

    def slow(name: str) -> dict[str, float]:
        return {"slow": sizes[name]}

    run = make(0, objective="ema")
    read = partial(measure, run.objective, stream=run.stream, instruments=[size], of_the_first=[slow], subjects=named)
    assert read() == {"size": 20, "size_validation": 2, "slow": 2, "teacher/size": 30, "teacher/size_validation": 3}
    by_name = {"student/size": 20, "student/size_validation": 2, "teacher/size": 30, "teacher/size_validation": 3}
    assert read(prefer="size_validation") == {"size": 30, "size_validation": 3, "slow": 3} | by_name
    alone = partial(measure, make(0).objective, stream=run.stream, instruments=[size], subjects=named)
    assert alone(prefer="size_validation") == {"size": 20, "size_validation": 2}

    shown = []

    def draw(cell: Cell, run: Run, pictures: Path, *, encoder: str) -> None:
        shown.append(encoder)

    judging = Judging(instruments=[size], subjects=named, prefer="size_validation", draw=draw)
    assert fingerprint(CELL, 0, judging, None) != fingerprint(CELL, 0, replace(judging, prefer=""), None)
    result = run_cell(CELL, 0, out=tmp_path, judging=judging)
    assert result["metrics"]["size"] == 30
    assert [*find_encoders(cell_folder(tmp_path, CELL, 0))] == ["teacher", "student"], "whom `load` takes"
    sizes["student"] = 4.0
    assert run_cell(CELL, 1, out=tmp_path, judging=judging)["metrics"]["size"] == 40
    assert [*find_encoders(cell_folder(tmp_path, CELL, 1))] == ["student", "teacher"]
    assert shown == ["teacher", "student"], "pictures are those of the encoder whose scores are printed"


@pytest.mark.dist
def test_comparison_goes_on_from_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("J1", "plain", partial(make)), Cell("J3", "plain", partial(make, objective="ema"))]
    first = compare(small_plan(cells), out=tmp_path / "here", num_workers=1)
    write_report(tmp_path / "here")
    picture = tmp_path / "here/pictures/plain/J1.stills.npz"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(b"a picture")
    publish(tmp_path / "here", tmp_path / "kept")

    trained: list[str] = []
    monkeypatch.setattr(grid, "run_jobs", lambda work, **_: trained.extend(str(job) for job in work) or iter(()))
    name, there = first.results["name"], tmp_path / "there"
    ended = published_cells(tmp_path / "kept", name, there)
    again = compare(small_plan(cells), out=there, ended=ended)
    assert trained == []
    assert again.results["cells"] == first.results["cells"]
    assert (there / "pictures/plain/J1.stills.npz").read_bytes() == b"a picture"

    other = [cells[0], Cell("J3", "plain", partial(make, objective="ema", steps=9))]
    compare(small_plan(other), out=tmp_path / "other", ended=ended)
    assert len(trained) == 1, "what has other settings is trained anew"
    assert published_cells(tmp_path / "nowhere", name, there) == []

    # Stopped before a cell had ended, and by rules that count nothing of what is there: it is not overwritten.
    stopped = tmp_path / "stopped"
    compare(small_plan([Cell(cell.arm, cell.condition, partial(make, steps=9)) for cell in cells]), out=stopped)
    write_report(stopped)
    assert json.loads((stopped / "results.json").read_text())["cells"] == []
    publish(stopped, tmp_path / "kept")
    assert published_cells(tmp_path / "kept", name, there) == ended


def test_what_ended_in_the_moment_of_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("J1", "plain", partial(make)), Cell("J3", "plain", partial(make, objective="ema"))]
    plan = small_plan(cells)
    ended = run_cell(cells[0], plan.seeds[0], out=tmp_path, judging=plan.judging, budget=plan.budget)

    def interrupted(*_: object, **__: object) -> Iterator[object]:
        raise InterruptedRunError(signal.SIGTERM, "before anything was told")
        yield

    monkeypatch.setattr(grid, "run_jobs", interrupted)
    with pytest.raises(InterruptedRunError):
        compare(plan, out=tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["cells"] == [ended]


def test_stopped_comparison_keeps_what_ended_and_goes_on(tmp_path: Path) -> None:
    quick, slow = (cell_folder(tmp_path, cell, 0) for cell in QUICK_AND_SLOW.cells)
    process = start(compare_until_stopped, tmp_path)
    ready = (quick / "result.json", slow / "heartbeat")
    wait_until(lambda: all(file.exists() for file in ready) or not process.is_alive())
    process.terminate()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    before = json.loads((tmp_path / "results.json").read_text())
    assert before["complete"] is False
    assert [cell["arm"] for cell in before["cells"]] == ["quick"]
    assert read_result(slow) is None
    saved = RunFolder(slow).latest()
    assert saved is not None
    assert 0 < saved.step < 300
    after = compare(QUICK_AND_SLOW, out=tmp_path, num_workers=2).results
    assert after["complete"] is True
    assert [cell["status"] for cell in after["cells"]] == ["done", "done"]
    assert after["cells"][0] == before["cells"][0], "seconds and all"
    assert steps_logged(slow) == [*range(1, 300, 25), 300]
