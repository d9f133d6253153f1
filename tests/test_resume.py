"""A run that is killed, stopped or finds the disk full goes on by the same call and ends bit-identical."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jepalab import cli
from jepalab.dist import Precision
from jepalab.fit import fit
from jepalab.recipes.bench import Bench, Training, World
from jepalab.recipes.sequences import ema_jepa
from jepalab.records import RunFolder
from small_runs import EVALUATE_AT, SAVE_EVERY, STEPS, small_run, start, train, wait_until

pytestmark = pytest.mark.dist

resource = pytest.importorskip("resource", reason="needs POSIX")
CLOCKS = ("seconds", "cpu_seconds")
SMALL_DISK = 20_000


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, all the way down."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def assert_ended_alike(one: Path, other: Path, *, step: int) -> None:
    """Same weights, same optimizer, same random state, same records, each once; only the clock may differ."""
    ends = [RunFolder(folder).latest() for folder in (one, other)]
    assert [end and end.step for end in ends] == [step, step]
    paths = [end.path for end in ends if end]
    assert len({(path / "model.safetensors").read_bytes() for path in paths}) == 1
    assert_same(*(torch.load(path / "optimizer.pt", weights_only=True) for path in paths))
    records = [RunFolder(folder).records() for folder in (one, other)]
    without_clock = [[{k: v for k, v in record.items() if k not in CLOCKS} for record in each] for each in records]
    assert without_clock[0] == without_clock[1]
    for each in records:
        assert [record["step"] for record in each] == sorted({record["step"] for record in each})
        assert [record["seconds"] for record in each] == sorted(record["seconds"] for record in each)


def latest_step(folder: Path) -> int:
    last = RunFolder(folder).latest()
    return last.step if last else 0


@pytest.mark.parametrize(("objective", "precision"), [("ema", "fp32"), ("sigreg", "bf16")])
def test_killed_at_any_moment_it_ends_as_if_never_killed(objective: str, precision: Precision, tmp_path: Path) -> None:
    train(tmp_path / "never", objective, precision)
    killed, chance, num_kills = tmp_path / "killed", random.Random(f"{objective} {precision}"), 0
    while True:
        goal = latest_step(killed) + chance.randrange(1, STEPS // 3)
        process = start(train, killed, objective, precision)
        wait_until(lambda p=process, goal=goal: latest_step(killed) >= min(goal, STEPS) or not p.is_alive())
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        num_kills += 1
        assert num_kills <= STEPS // SAVE_EVERY, "each life gets as far as its next checkpoint"
    assert num_kills >= 2
    assert_ended_alike(tmp_path / "never", killed, step=STEPS)
    scored = [record["step"] for record in RunFolder(killed).records() if "scores" in record]
    assert scored == list(EVALUATE_AT)


def test_stopped_by_signals_it_saves_the_step_in_hand_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C, then SIGTERM, then the same command to the end; against the library call that was never stopped."""
    steps, stopped, never = 200, tmp_path / "stopped", tmp_path / "never"
    command = ["train", "ema-jepa", "--thing", "dot", "--steps", str(steps), "--out", str(stopped)]
    reached = [0]
    for number in (signal.SIGINT, signal.SIGTERM):
        (stopped / "heartbeat").unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-m", "jepalab", *command], stderr=subprocess.PIPE, text=True)
        wait_until(lambda p=process: (stopped / "heartbeat").exists() or p.poll() is not None)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        reached.append(latest_step(stopped))
        assert f"Stopped by signal {int(number)} at step {reached[-1]}, saved" in said
        assert "Traceback" not in said
    assert 0 < reached[1] < reached[2] < steps
    assert cli.main(command) == 0
    bench = Bench(world=World(thing="dot"), training=Training(steps=steps))
    fit(ema_jepa(bench), folder=never)
    assert_ended_alike(stopped, never, step=steps)


def fill_the_disk(folder: Path) -> None:
    """Trains where no file may grow past SMALL_DISK bytes, and leaves the error's words beside the run."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK, SMALL_DISK))
    try:
        train(folder)
    except OSError as error:
        (folder / "error").write_text(str(error))


def test_full_disk_keeps_the_last_checkpoint_and_says_so(tmp_path: Path) -> None:
    full, never, last = tmp_path / "full", tmp_path / "never", 3 * SAVE_EVERY

    class PulledPlugError(Exception):
        pass

    def pull_the_plug(moment: object) -> None:
        if latest_step(full) == last:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        train(full, watch=pull_the_plug)
    process = start(fill_the_disk, full)
    process.join(60)
    assert process.exitcode == 0
    said = (full / "error").read_text()
    assert f"Could not write the checkpoint of step {last + SAVE_EVERY}" in said
    assert f"The checkpoint of step {last} in {full / 'checkpoints' / f'step-{last:06d}'} is whole" in said
    assert f"step-{last + SAVE_EVERY:06d}" in said
    assert {path.name for path in (full / "checkpoints").iterdir()} == {
        f"step-{last - SAVE_EVERY:06d}",
        f"step-{last:06d}",
    }
    run = small_run()
    assert RunFolder(full).load(run.objective, run.make_optimizer())[0] == last
    train(full)
    train(never)
    assert_ended_alike(full, never, step=STEPS)
