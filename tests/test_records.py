"""What lies on disk is whole at any moment, is what was written, and is not believed when it should not be."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import subprocess
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from jepalab.records import KEPT_CHECKPOINTS, RunFolder, describe_machine, write_atomically, write_json
from small_runs import start, wait_until


def write_for_ever(path: Path) -> None:
    """A large file, again and again."""
    number = 0
    while True:
        number += 1
        write_json(path, {"number": number, "filling": "x" * 1_000_000, "again": number})


@pytest.mark.dist
def test_file_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path, chance, last = tmp_path / "value.json", random.Random(0), 0
    for _ in range(4):
        process = start(write_for_ever, path)
        wait_until(lambda last=last: path.exists() and json.loads(path.read_text())["number"] != last)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        found = json.loads(path.read_text())
        assert found["again"] == found["number"] >= 1
        last = found["number"]


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "content").touch()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"a file cannot take a folder's place")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_are_refused(value: float, tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"r2": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"r2": value})
    assert json.loads((tmp_path / "value.json").read_text()) == {"r2": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A folder with ten records."""
    folder = RunFolder(tmp_path / "run")
    folder.describe(status="running")
    for step in range(1, 11):
        folder.log({"step": step, "loss": step / 7})
    return folder


def test_records_come_back_as_they_were(folder: RunFolder) -> None:
    assert folder.records() == [{"step": step, "loss": step / 7} for step in range(1, 11)]
    assert RunFolder(folder.path / "elsewhere").records() == []


def test_line_cut_short_by_a_kill_is_left_out_and_then_written_over(folder: RunFolder) -> None:
    with folder.metrics.open("a") as file:
        file.write('{"step": 11, "lo')
    assert [record["step"] for record in folder.records()] == list(range(1, 11))
    folder.rewind(10)
    folder.log({"step": 11, "loss": 0.0})
    assert [record["step"] for record in folder.records()] == list(range(1, 12))


def test_rewinding_forgets_what_will_be_written_again(folder: RunFolder) -> None:
    folder.rewind(4)
    assert folder.records() == [{"step": step, "loss": step / 7} for step in range(1, 5)]
    folder.rewind(0)
    assert folder.records() == []


def test_facts_add_up(folder: RunFolder) -> None:
    folder.describe(seed=3)
    folder.describe(status="done")
    assert folder.description() == {"status": "done", "seed": 3}


def test_heartbeat_tells_step_and_time(folder: RunFolder) -> None:
    folder.beat(7)
    step, seconds = (folder.path / "heartbeat").read_text().split()
    assert int(step) == 7
    assert abs(time.time() - int(seconds)) < 5


def trained(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A weight and an optimizer that has taken a step."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.full((3, 2), value)).sum().backward()
    optimizer.step()
    nn.init.constant_(model.weight, value)
    return model, optimizer


def test_last_checkpoints_are_kept_and_the_latest_is_read_back(folder: RunFolder) -> None:
    for step in (1, 2, 3):
        folder.save(*trained(float(step)), step=step, seconds=step / 2)
    assert [checkpoint.step for checkpoint in folder.complete()] == [2, 3][-KEPT_CHECKPOINTS:]
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000002", "step-000003"]
    drawn = torch.rand(3)
    (model, optimizer), (_, wanted) = trained(0.0), trained(3.0)
    assert folder.load(model, optimizer) == (3, 1.5)
    assert torch.equal(torch.rand(3), drawn), "random numbers go on where the checkpoint was saved"
    assert model.weight.tolist() == [[3.0, 3.0]]
    averages = [each.state_dict()["state"][0]["exp_avg"] for each in (optimizer, wanted)]
    assert torch.equal(*averages)


def test_checkpoints_are_ordered_by_number_not_by_name(folder: RunFolder) -> None:
    for step in (999_998, 999_999, 1_000_000):
        folder.save(*trained(1.0), step=step, seconds=0.0)
    latest = folder.latest()
    assert latest is not None
    assert latest.step == 1_000_000
    assert [checkpoint.step for checkpoint in folder.complete()] == [999_999, 1_000_000]


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes_with_the_next(folder: RunFolder) -> None:
    half = folder.checkpoints / f".partial-{os.getpid() + 1}"
    write_atomically(half / "model.safetensors", b"half")
    assert folder.latest() is None
    folder.save(*trained(1.0), step=1, seconds=0.0)
    assert not half.exists()


def test_folder_without_a_checkpoint_says_so(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"run holds no checkpoint; train it first"):
        folder.load(nn.Linear(2, 1))


class Malice:
    """Runs a command wherever it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.witness}",)


def test_checkpoint_from_a_stranger_runs_no_code(folder: RunFolder, tmp_path: Path) -> None:
    folder.save(*trained(1.0), step=1, seconds=0.0)
    latest, witness = folder.latest(), tmp_path / "witness"
    assert latest is not None
    torch.save({"optimizer": Malice(witness), "rng": torch.get_rng_state()}, latest.path / "optimizer.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"(?i)weights.only"):
        folder.load(*trained(1.0))
    assert not witness.exists()
    torch.load(latest.path / "optimizer.pt", weights_only=False)
    assert witness.exists(), "the command itself works"


def test_settings_are_claimed_until_a_checkpoint_holds_them_for_good(folder: RunFolder) -> None:
    folder.claim(lr=0.1, thing="dot")
    folder.claim(lr=0.2, thing="dot")
    folder.save(*trained(1.0), step=1, seconds=0.0)
    folder.claim(lr=0.2, momentum=0.9)
    with pytest.raises(ValueError, match=r"lr 0\.2 \(now 0\.3\), momentum 0\.9 \(now 1\)\. Choose another folder"):
        folder.claim(lr=0.3, momentum=1, thing="dot")
    assert folder.description() == {"status": "running", "lr": 0.2, "thing": "dot", "momentum": 0.9}


def test_weights_are_plain_safetensors(folder: RunFolder) -> None:
    model, optimizer = trained(2.0)
    folder.save(model, optimizer, step=1, seconds=0.0)
    latest = folder.latest()
    assert latest is not None
    weights = safetensors.torch.load_file(latest.path / "model.safetensors")
    assert {name: value.tolist() for name, value in weights.items()} == {
        "weight": [[2.0, 2.0]],
        "bias": model.bias.tolist(),
    }


def test_machine_is_described_so_that_the_command_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["jepalab", "train", "--thing", "my photos"])
    described = describe_machine()
    assert described["command"] == "jepalab train --thing 'my photos'"
    assert described["packages"]["torch"] == torch.__version__
    assert json.loads(json.dumps(described)) == described


def test_a_machine_without_git_has_a_description_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_machine()["commit"] == "not known without git"


def test_the_commit_of_somebody_elses_repository_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inside = tmp_path / "theirs" / "site-packages" / "jepalab"
    inside.mkdir(parents=True)
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path / "theirs", check=True)
    monkeypatch.setattr("jepalab.records.__file__", str(inside / "records.py"))
    assert describe_machine()["commit"] == "not a checkout"


def test_a_heartbeat_that_cannot_be_written_stops_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jepalab.records.write_atomically", full)
    folder.beat(3)


def test_on_windows_a_reader_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, refused = Path.replace, [PermissionError(13, "in use")] * 2

    def refusing(self: Path, target: Path) -> Path:
        if refused:
            raise refused.pop()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refusing)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "run.json", b"new")
    assert not (tmp_path / "run.json").exists()
    monkeypatch.setattr("sys.platform", "win32")
    write_atomically(tmp_path / "run.json", b"new")
    assert ((tmp_path / "run.json").read_bytes(), refused) == (b"new", [])


def test_a_checkpoint_of_a_gpu_is_read_onto_the_cpu_first(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save(*trained(1.0), step=1, seconds=1.0)
    read, asked = torch.load, {}

    def load(*where: Path, **how: object) -> object:
        asked.update(how)
        return read(*where, weights_only=True)

    monkeypatch.setattr("torch.load", load)
    folder.load(*trained(0.0))
    assert asked["map_location"] == "cpu"
