"""Run folders as the lab reads them: whole, half-written, lost, broken; and the worker's desk."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from jepalab.records import RunFolder
from jepalab.web import desk, shelf, tasks
from jepalab.web.desk import BusyError, Desk, Job
from jepalab.web.places import ForbiddenPlaceError, inside
from jepalab.web.shelf import Shelf, camp_of

SLOW = """
import time
def run(arguments, *, root, allow_code, tell):
    tell("started")
    if arguments.get("die"):
        import os
        os._exit(3)
    if arguments.get("refuse"):
        raise ValueError("Wanted something else.")
    if "child" in arguments:
        import subprocess
        tell(subprocess.Popen(["sleep", "600"]).pid)
    if "code" in arguments:
        import builtins
        builtins.left_behind = getattr(builtins, "left_behind", 0) + 1
        return {"left_behind": builtins.left_behind}
    time.sleep(arguments["seconds"])
    return {"slept": arguments["seconds"], "odd": float("nan")}
"""


def make_run(root: Path, name: str, **facts: Any) -> RunFolder:
    folder = RunFolder(root / name)
    folder.describe(
        **({"status": "running", "steps": 100, "seed": 0, "compares": {"predict": "ema-embedding"}} | facts)
    )
    return folder


def entry(root: Path, name: str) -> shelf.Entry:
    return next(found for found in Shelf(root).look()[0] if found.name == name)


def age(folder: Path, seconds: float) -> None:
    """Makes the folder look as if the run had been silent for so long."""
    then = time.time() - seconds
    os.utime(folder / "run.json", (then, then))
    if (folder / "heartbeat").exists():
        step = (folder / "heartbeat").read_text().split()[0]
        (folder / "heartbeat").write_text(f"{step} {then:.0f}\n")


def test_a_run_that_beats_is_running_and_one_that_does_not_is_lost(tmp_path: Path) -> None:
    make_run(tmp_path, "group/alive").beat(25)
    make_run(tmp_path, "begins")
    make_run(tmp_path, "silent")
    make_run(tmp_path, "late").beat(50)
    for name in ("silent", "late"):
        age(tmp_path / name, shelf.LOST_SECONDS + 1)
    assert (entry(tmp_path, "group/alive").status, entry(tmp_path, "group/alive").step) == ("running", 25)
    assert entry(tmp_path, "begins").status == "running"
    assert entry(tmp_path, "silent").status == "lost"
    assert (entry(tmp_path, "late").status, entry(tmp_path, "late").step) == ("lost", 50)


def test_another_machines_clock_plays_no_part_once_a_beat_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = make_run(tmp_path, "run").path, Shelf(tmp_path)
    (folder / "heartbeat").write_text(f"1 {time.time() - 86_400:.0f}\n")
    age(folder, 86_400)
    assert seen.look()[0][0].status == "lost"
    (folder / "heartbeat").write_text(f"2 {time.time() - 86_395:.0f}\n")
    assert seen.look()[0][0].status == "running"
    (folder / "heartbeat").write_text(f"3 {time.time() + 86_400:.0f}\n")
    assert seen.look()[0][0].status == "running"
    now = time.monotonic()
    monkeypatch.setattr(shelf.time, "monotonic", lambda: now + shelf.LOST_SECONDS + 1)
    assert seen.look()[0][0].status == "lost"


def test_what_ended_says_how(tmp_path: Path) -> None:
    make_run(tmp_path, "done", status="done")
    make_run(tmp_path, "failed", status="failed", error="the loss is no longer finite")
    make_run(tmp_path, "stopped", status="stopped")
    found = {each.name: (each.status, each.error) for each in Shelf(tmp_path).look()[0]}
    assert found["done"] == ("done", "")
    assert found["failed"] == ("failed", "the loss is no longer finite")
    assert found["stopped"] == ("stopped", "")


@pytest.mark.parametrize(
    ("compares", "camp"),
    [
        ({"predict": "ema-embedding"}, "JEPA"),
        ({"predict": "own-embedding", "variance": "statistic"}, "JEPA"),
        ({"pixels": "input"}, "generative"),
        ({"pixels": "input", "latent": "own-embedding"}, "generative"),
        ({"class": "label"}, "other"),
        ({}, "other"),
    ],
)
def test_the_camp_is_what_the_loss_compares(compares: dict[str, str], camp: str) -> None:
    assert camp_of(compares) == camp


def test_records_come_as_they_are_written_and_anew_after_a_rewind(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run")
    assert Shelf(tmp_path).records("run") == ([], 0)
    folder.log({"step": 1, "loss": {"predict": 1.0}})
    first, offset = Shelf(tmp_path).records("run")
    assert [record["step"] for record in first] == [1]
    with folder.metrics.open("a") as file:
        file.write('nonsense\n{"step": 2}\n{"step": 3, "lo')
    second, offset = Shelf(tmp_path).records("run", offset)
    assert second == [{"step": 2}]
    assert Shelf(tmp_path).records("run", offset) == ([], offset)
    folder.metrics.write_text('{"step": 1}\n')
    assert Shelf(tmp_path).records("run", offset)[0] == [{"rewound": True}, {"step": 1}]


def test_records_of_a_run_that_is_gone_are_forgotten(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run")
    folder.log({"step": 1})
    _, offset = Shelf(tmp_path).records("run")
    folder.metrics.unlink()
    assert Shelf(tmp_path).records("run", offset) == ([{"rewound": True}], 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": 1e999}',
        '{"seed": Infinity}',
        '{"seed": 1' + "0" * 400 + "}",
        '{"objective": "\\ud800"}',
        '{"status": 3}',
        '{"compares": 3}',
        '{"weights": {"a": NaN}}',
        '{"steps": "many"}',
    ],
)
def test_an_odd_folder_hides_no_other_and_everything_stays_json(text: str, tmp_path: Path) -> None:
    make_run(tmp_path, "good", status="done")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text(text)
    found = {each.name: each for each in Shelf(tmp_path).look()[0]}
    assert found["good"].status == "done"
    json.dumps([each.as_dict() for each in found.values()], allow_nan=False).encode()


@pytest.mark.skipif(os.name != "posix", reason="there are no pipes with names")
def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run").path
    for name in ("heartbeat", "metrics.jsonl"):
        os.mkfifo(folder / name)
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "run.json")
    assert {each.name: each.status for each in Shelf(tmp_path).look()[0]} == {"run": "running", "piped": "broken"}
    assert Shelf(tmp_path).records("run") == ([], 0)


def test_numbers_that_are_not_finite_become_none(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run")
    folder.metrics.write_text('{"step": 1, "loss": {"predict": NaN, "other": -Infinity, "good": 2.5}}\n')
    assert Shelf(tmp_path).records("run")[0] == [{"step": 1, "loss": {"predict": None, "other": None, "good": 2.5}}]


def test_comparisons_are_found_finished_or_not(tmp_path: Path) -> None:
    make_run(tmp_path, "under-way/cells/none/J1/seed-0")
    (tmp_path / "ended").mkdir()
    results = {"question": "Which?", "answer": "Neither.", "cells": [{}], "complete": True}
    (tmp_path / "ended" / "results.json").write_text(json.dumps(results))
    found = {each.name: (each.status, each.num_cells) for each in Shelf(tmp_path).look()[1]}
    assert found == {"ended": ("done", 1), "under-way": ("running", 1)}


@pytest.mark.parametrize("name", ["..", "a/../b", "/etc", "a\\b", "~", "a\0", "C:x", "a" * 600, "./a/./..", "\n"])
def test_paths_out_of_the_root_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ForbiddenPlaceError):
        inside(tmp_path, name)


def test_paths_through_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert inside(tmp_path / "root", "a/b") == tmp_path / "root" / "a" / "b"
    with pytest.raises(ForbiddenPlaceError, match="link"):
        inside(tmp_path / "root", "link/a")


def test_the_server_holds_neither_torch_nor_much_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "jepalab", "lab", str(tmp_path), "--port", "0", "--no-browse"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stderr
        server.stdout.readline()
        status = Path(f"/proc/{server.pid}/status")
        resident = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
        server.terminate()
        imported = {line.rpartition("|")[2].strip() for line in server.stderr}
    assert "jepalab.web.app" in imported
    assert not imported & {"torch", "numpy"}
    assert resident is None or int(resident[1]) < 100_000


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task `slow` beside the others, here and in the worker."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    (folder / "sitecustomize.py").write_text(
        f"import jepalab.web.tasks as tasks\ntasks.__path__.append({str(folder)!r})\n",
    )
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
    monkeypatch.setenv("PYTHONPATH", str(folder))


async def end_of(job: Job) -> tuple[str, Any]:
    last = [each async for _, each in job.news()][-1]
    return last["event"], last["value"]


def at_the_desk(root: Path, do: Callable[[Desk], Any], **options: Any) -> Any:
    async def whole() -> Any:
        table = Desk(root, **options)
        try:
            return await do(table)
        finally:
            await table.close()

    return asyncio.run(whole())


@pytest.mark.usefixtures("slow")
def test_the_desk_works_refuses_survives_a_death_and_cancels(tmp_path: Path) -> None:
    async def do(table: Desk) -> None:
        assert await end_of(await table.start("slow", {"seconds": 0})) == ("done", {"slept": 0, "odd": None})
        assert await end_of(await table.start("slow", {"refuse": True})) == ("failed", "Wanted something else.")
        first = table.process
        event, words = await end_of(await table.start("slow", {"die": True}))
        assert (event, "died" in words) == ("failed", True)
        assert await end_of(await table.start("slow", {"seconds": 0})) == ("done", {"slept": 0, "odd": None})
        assert table.process is not first
        long, waiting = await table.start("slow", {"seconds": 60}), await table.start("slow", {"seconds": 60})
        async for _, each in long.news():
            if each["event"] == "progress":
                await table.cancel(waiting)
                await table.cancel(long)
        assert await end_of(long) == ("cancelled", None)
        assert await end_of(waiting) == ("cancelled", None)
        assert (await end_of(await table.start("slow", {"seconds": 0})))[0] == "done"

    at_the_desk(tmp_path, do)


@pytest.mark.usefixtures("slow")
def test_the_desk_stops_what_is_overdue_and_what_is_too_much(tmp_path: Path) -> None:
    async def do(table: Desk) -> None:
        event, words = await end_of(await table.start("slow", {"seconds": 600}))
        assert (event, "longer than" in words) == ("failed", True)
        for _ in range(desk.MOST_WAITING):
            await table.start("slow", {"seconds": 600})
        with pytest.raises(BusyError):
            await table.start("slow", {"seconds": 600})
        with pytest.raises(ValueError, match="no task"):
            await table.start("worker", {})

    at_the_desk(tmp_path, do, deadline=3.0)


@pytest.mark.usefixtures("slow")
def test_a_job_cancelled_before_its_worker_is_awake_answers_no_other(tmp_path: Path) -> None:
    async def do(table: Desk) -> None:
        for wait in (0.0, 0.002, 0.01, 0.03):
            first = await table.start("slow", {"code": "1"})
            await asyncio.sleep(wait)
            await table.cancel(first)
            assert await end_of(await table.start("slow", {"seconds": 0})) == ("done", {"slept": 0, "odd": None})

    at_the_desk(tmp_path, do)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("wait", [0.0, 0.01, 0.1])
def test_a_desk_closed_while_it_ends_its_worker_leaves_no_process(wait: float, tmp_path: Path) -> None:
    async def do(table: Desk) -> None:
        job = await table.start("slow", {"seconds": 600})
        async for _ in first_of(job, 3):
            pass
        await table.cancel(job)
        await asyncio.sleep(wait)

    at_the_desk(tmp_path, do)
    gc.collect()  # what was left open would warn now


@pytest.mark.usefixtures("slow")
def test_code_gets_a_process_to_itself_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def do(table: Desk) -> None:
        for _ in range(2):
            assert await end_of(await table.start("slow", {"code": "1"})) == ("done", {"left_behind": 1})
        job = await table.start("slow", {"child": True, "seconds": 600})
        children = [each["value"] async for _, each in first_of(job, 4) if isinstance(each["value"], int)]
        await table.cancel(job)
        await table.start("slow", {"seconds": 0})
        for _ in range(100):
            if not is_alive(children[0]):
                return
            await asyncio.sleep(0.1)
        pytest.fail("what the job started outlived it")

    at_the_desk(tmp_path, do)


async def first_of(job: Job, num: int) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """The first things that were said of a job."""
    async for number, each in job.news():
        yield number, each
        if number == num - 1:
            return


def is_alive(process: int) -> bool:
    """Whether there is a process of this number that is not merely waiting to be buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.usefixtures("slow")
def test_a_job_that_everybody_left_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "ALONE_SECONDS", 0.2)

    async def do(table: Desk) -> None:
        job = await table.start("slow", {"seconds": 600})
        async for _ in first_of(job, 2):
            pass
        table.left(job)
        assert (await end_of_unheard(job))["event"] == "cancelled"

    at_the_desk(tmp_path, do)


async def end_of_unheard(job: Job) -> dict[str, Any]:
    """How a job ends that nobody listens to."""
    for _ in range(200):
        if job.has_ended:
            break
        await asyncio.sleep(0.05)
    return job.said[-1]
