"""The run folders and comparisons below a root, read without torch and without trust: a broken one is shown as such."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jepalab.web.places import inside, name_of

Status = Literal["running", "done", "failed", "stopped", "lost", "broken"]
Camp = Literal["JEPA", "generative", "other"]
LOST_SECONDS = 60.0  # without a heartbeat
DEEPEST = 6  # folders below the root
MOST_BYTES = 16 * 2**20  # of a JSON file, and of records read at a time
EMBEDDINGS = {"ema-embedding", "own-embedding", "frozen-embedding"}
RAW = {"input", "fixed-feature", "token", "noise", "velocity"}


@dataclass(frozen=True)
class Entry:
    """A run as the list shows it.

    name       its folder below the root.
    camp       by what its loss compares: embeddings, or raw output.
    steps      of training in all; 0 where it is not known.
    beat       when the run last said that it lives, in seconds since 1970; None where it never did.
    """

    name: str
    status: Status
    camp: Camp = "other"
    objective: str = ""
    recipe: str = ""
    seed: int | None = None
    step: int = 0
    steps: int = 0
    beat: float | None = None
    error: str = ""
    compares: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    clips_per_batch: float = 0
    flops_per_step: float = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """A comparison as the list shows it."""

    name: str
    status: Status
    question: str = ""
    answer: str = ""
    num_cells: int = 0
    has_report: bool = False
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Shelf:
    """What lies below `root`, read anew at each call."""

    root: Path

    def look(self) -> tuple[list[Entry], list[Comparison]]:
        """Every run and every comparison, by name."""
        runs, comparisons = [], []
        for folder, files in _folders(self.root):
            if "run.json" in files:
                runs.append(self.entry(folder))
            if "results.json" in files or _is_unfinished_comparison(folder):
                comparisons.append(self.comparison(folder))
        return runs, comparisons

    def entry(self, folder: Path) -> Entry:
        """One run; what cannot be read is said in it."""
        name = name_of(self.root, folder)
        try:
            known = read_json(folder / "run.json")
            step, beat = _heartbeat(folder)
            steps = _whole(known.get("budgeted_steps") or known.get("steps"))
            status, error = str(known.get("status", "running")), str(known.get("error", ""))
            if status == "running" and (beat is None or time.time() - beat > LOST_SECONDS):
                ended = (folder / "result.json").exists()
                status = "done" if ended else "lost"
            if status not in ("running", "done", "failed", "stopped", "lost"):
                raise ValueError(f"an unknown status, {status[:40]!r}")
            compares = {str(term): str(space) for term, space in dict(known.get("compares", {})).items()}
            return Entry(
                name=name,
                status=status,  # pyrefly: ignore[bad-argument-type]
                camp=camp_of(compares),
                objective=str(known.get("objective", "")),
                recipe=str(known.get("recipe", "")),
                seed=_whole(known["seed"]) if "seed" in known else None,
                step=steps if status == "done" else step,
                steps=steps,
                beat=beat,
                error=error,
                compares=compares,
                weights={str(term): float(weight) for term, weight in dict(known.get("weights", {})).items()},
                clips_per_batch=float(known.get("clips_per_batch", 0)),
                flops_per_step=float(known.get("flops_per_step", 0)),
            )
        except (OSError, ValueError, TypeError) as problem:
            return Entry(name=name, status="broken", error=f"run.json cannot be read: {in_a_line(problem)}")

    def comparison(self, folder: Path) -> Comparison:
        """One comparison; what cannot be read is said in it."""
        name = name_of(self.root, folder)
        file = folder / "results.json"
        if not file.exists():
            return Comparison(name, "running", num_cells=len(list((folder / "cells").glob("*/*/*/run.json"))))
        try:
            found = read_json(file)
            return Comparison(
                name=name,
                status="done" if found.get("complete", True) else "running",
                question=str(found["question"]),
                answer=str(found["answer"]),
                num_cells=len(list(found["cells"])),
                has_report=(folder / "report.html").is_file(),
            )
        except (OSError, ValueError, TypeError, KeyError) as problem:
            return Comparison(name, "broken", error=f"results.json cannot be read: {in_a_line(problem)}")

    def facts(self, name: str) -> dict[str, Any]:
        """All that is known of one run: its entry, run.json and the scores it ended with.

        Raises OSError where there is no run, and ValueError where its run.json cannot be read.
        """
        folder = inside(self.root, name)
        described = read_json(folder / "run.json")
        scores: dict[str, Any] = {}
        for file, key in (("scores.json", None), ("result.json", "metrics")):
            if (folder / file).is_file():
                found = read_json(folder / file)
                scores = found if key is None else dict(found.get(key, {}))
        return {"entry": self.entry(folder).as_dict(), "run": described, "scores": scores}

    def results(self, name: str) -> dict[str, Any]:
        """results.json of a comparison. ValueError where it cannot be read."""
        return read_json(inside(self.root, name) / "results.json")

    def records(self, name: str, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """What the run wrote from this byte of its metrics on, and the byte to go on from.

        A last line that is not complete yet waits for the next call; a line that is not JSON is left out. Where the
        file has become shorter, as a resumed run rewinds it, everything is read anew and the first record is
        {"rewound": true}.
        """
        file = inside(self.root, name) / "metrics.jsonl"
        if file.is_symlink() or not file.is_file():
            return [], 0
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            again = size < offset
            offset = 0 if again else offset
            stream.seek(offset)
            text = stream.read(MOST_BYTES)
        whole = text[: text.rfind(b"\n") + 1]
        if not whole and len(text) == MOST_BYTES:  # a single line of this size is no record
            return [], size
        rewound: list[dict[str, Any]] = [{"rewound": True}] if again else []
        return [*rewound, *_parsed(whole)], offset + len(whole)


def camp_of(compares: Mapping[str, str]) -> Camp:
    """JEPA where any term holds embeddings against embeddings and none reads raw output, and so on."""
    spaces = {*compares.values()}
    if spaces & EMBEDDINGS and not spaces & RAW:
        return "JEPA"
    return "generative" if spaces & RAW else "other"


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object out of a file. ValueError for anything else."""
    if file.is_symlink():
        raise ValueError("it is a link")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES // 2**20} MiB")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def in_a_line(problem: Exception) -> str:
    """An error as one line that names no place outside the root."""
    said = problem.strerror or "it cannot be opened" if isinstance(problem, OSError) else str(problem)
    return " ".join(said.split())[:200]


def _folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every folder that may hold something, with the names of its files; the inside of runs is left alone."""
    for path, folders, files in os.walk(root, followlinks=False):
        place = Path(path)
        deep = len(place.relative_to(root).parts)
        is_run = "run.json" in files
        folders[:] = [] if is_run or deep >= DEEPEST else sorted(f for f in folders if not f.startswith("."))
        yield place, {*files}


def _is_unfinished_comparison(folder: Path) -> bool:
    return (folder / "cells").is_dir() and not (folder / "results.json").exists()


def _heartbeat(folder: Path) -> tuple[int, float | None]:
    """Step and time of the last sign of life."""
    file = folder / "heartbeat"
    if file.is_symlink() or not file.is_file():
        return 0, None
    step, when = file.read_text(encoding="utf-8").split()[:2]
    return int(step), float(when)


def _parsed(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record


def _whole(value: Any) -> int:
    return int(value or 0)
