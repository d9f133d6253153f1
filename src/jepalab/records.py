"""What a run writes to disk: the run folder, which is the interface to reports and to the browser.

    run.json        what ran, with which versions, and its status
    metrics.jsonl   one record a line
    skipped.txt     items of the data that were not read, and why; absent where there were none
    heartbeat       step and time, rewritten while the run lives
    checkpoints/step-000500/   model.safetensors · optimizer.pt · state.json, complete or absent

Every file appears whole or not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

READERS_TAKE = (0.01, 0.05, 0.2, 0.5, 1.0)  # seconds
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    path: Path
    step: int


def write_atomically(path: Path, content: bytes) -> None:
    """The file as a whole or not at all, also when the process is killed or the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _replace(partial: Path, path: Path) -> None:
    """Windows refuses to replace a file for as long as somebody reads it, so there it is asked again for a while."""
    for pause in READERS_TAKE if sys.platform == "win32" else ():
        with suppress(PermissionError):
            partial.replace(path)
            return
        time.sleep(pause)
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically. NaN and infinities are refused: they are not JSON."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"

    def describe(self, **facts: Any) -> None:
        """Adds facts to run.json."""
        write_json(self.path / "run.json", self.description() | facts)

    def claim(self, **settings: Any) -> None:
        """Adds to run.json under which settings the run is trained.

        Raises ValueError where a checkpoint lies that was trained under others: it would be passed off as this run's.
        """
        known = self.description()
        others = [f"{k} {known[k]} (now {v})" for k, v in settings.items() if k in known and known[k] != v]
        if others and self.latest():
            raise ValueError(
                f"{self.path} holds a run of other settings: {', '.join(others)}. "
                "Choose another folder, or delete this one to start anew."
            )
        self.describe(**settings)

    def list_skipped(self, lines: str) -> None:
        """Writes what of the data was not read, a line each, into skipped.txt; nothing to say leaves no file."""
        file = self.path / "skipped.txt"
        if lines:
            write_atomically(file, lines.encode())
        else:
            file.unlink(missing_ok=True)

    def description(self) -> dict[str, Any]:
        """run.json, or nothing where there is none yet."""
        file = self.path / "run.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def beat(self, step: int) -> None:
        """Says that the run is alive; a reader takes a running run without a fresh heartbeat for lost.

        Where it cannot be written the run goes on: a full disk is told of by what writes results.
        """
        with suppress(OSError):
            write_atomically(self.path / "heartbeat", f"{step} {time.time():.0f}\n".encode())

    @contextmanager
    def beating(self, step: int, *, every: float = 5.0) -> Iterator[None]:
        """Beats by itself while something long runs that does not: judging, writing pictures."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.is_set():
                self.beat(step)
                ended.wait(every)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All complete records; a last line cut short by a kill is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rewind(self, step: int) -> None:
        """Forgets the records of steps after `step`, which a resumed run will write again."""
        kept = [record for record in self.records() if record["step"] <= step]
        if self.metrics.exists():
            write_atomically(self.metrics, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def save(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        *,
        step: int,
        seconds: float,
        cpu_seconds: float | None = None,
    ) -> None:
        """A checkpoint of this step. On a full disk the previous one stays whole and the error says where it is."""
        partial, final = self.checkpoints / f".partial-{os.getpid()}", self.checkpoints / f"step-{step:06d}"
        if final.exists():
            return
        optimizer_bytes, moments = io.BytesIO(), optimizer.state_dict() if optimizer else {}
        torch.save({"optimizer": moments, "rng": torch.get_rng_state()}, optimizer_bytes)
        for left_by_a_kill in self.checkpoints.glob(".partial-*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        try:
            write_atomically(partial / "model.safetensors", safetensors.torch.save(_detached(objective.state_dict())))
            write_atomically(partial / "optimizer.pt", optimizer_bytes.getvalue())
            write_json(partial / "state.json", {"step": step, "seconds": seconds, "cpu_seconds": cpu_seconds})
            partial.rename(final)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            last = self.latest()
            kept = f"The checkpoint of step {last.step} in {last.path} is whole." if last else "There is none yet."
            raise OSError(
                error.errno,
                f"Could not write the checkpoint of step {step} ({error.strerror}). {kept} "
                "Make room and run the same command",
                str(final),
            ) from error
        for old in self.complete()[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old.path, ignore_errors=True)  # one that somebody reads on Windows goes the next time

    def complete(self) -> list[Checkpoint]:
        """The complete checkpoints, oldest first."""
        found = [Checkpoint(path, int(path.name[5:])) for path in self.checkpoints.glob("step-*")]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def latest(self) -> Checkpoint | None:
        found = self.complete()
        return found[-1] if found else None

    def cpu_seconds(self) -> float | None:
        """Of the training that the latest checkpoint stands for; None where they were not recorded."""
        last = self.latest()
        return json.loads((last.path / "state.json").read_text()).get("cpu_seconds") if last else None

    def load(self, objective: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> tuple[int, float]:
        """Reads the latest checkpoint back; returns its step and the seconds of training it stands for."""
        last = self.latest()
        if last is None:
            raise ValueError(f"{self.path} holds no checkpoint; train it first with `jepalab train`.")
        objective.load_state_dict(safetensors.torch.load_file(last.path / "model.safetensors"))
        state = json.loads((last.path / "state.json").read_text())
        if optimizer is not None:
            saved = torch.load(last.path / "optimizer.pt", weights_only=True, map_location="cpu")
            optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["rng"])
        return state["step"], state["seconds"]


def _detached(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def describe_machine() -> dict[str, Any]:
    """Versions, processor and commit, for run.json and for the report."""
    packages = ("jepalab", "torch", "numpy")
    return {
        "packages": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "commit": _commit(),
        "command": shlex.join(["jepalab", *sys.argv[1:]]),
    }


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str:
    """That of this package's own checkout, not of another that it is installed in; a machine may have no git."""
    here = Path(__file__).parent
    asking = ["git", "rev-parse", "HEAD", "--show-prefix"]
    try:
        asked = subprocess.run(asking, cwd=here, capture_output=True, text=True, check=False)
    except OSError:
        return "not known without git"
    commit, _, prefix = asked.stdout.partition("\n")
    is_ours = asked.returncode == 0 and prefix.strip() == "src/jepalab/"
    return commit if is_ours else "not a checkout"
