"""The run folders and comparisons below a root, read without torch and without trust: a broken one is shown as such."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jepalab.web.places import MOST_CHARACTERS, inside, name_of
from jepalab.web.reading import clean_text, in_a_line, opened, parse_json, read_bytes, read_json

Status = Literal["running", "done", "failed", "stopped", "lost", "broken"]
Camp = Literal["JEPA", "generative", "other"]
LOST_SECONDS = 60.0  # without a heartbeat
DEEPEST = 6  # folders below the root
MOST_AT_ONCE = 2**20  # bytes of records
EMBEDDINGS = {"ema-embedding", "own-embedding", "frozen-embedding"}
RAW = {"input", "fixed-feature", "token", "noise", "velocity"}
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """A run as the list shows it.

    name       its folder below the root.
    camp       by what its loss compares: embeddings, or raw output.
    steps      of training in all; 0 where it is not known.
    beat       when the run last said that it lives, by its own clock, in seconds since 1970; None where it never did.
    age        seconds since then, by this machine's clock; None where it never did.
    prepare_flops  operations spent before the first step.
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
    age: float | None = None
    error: str = ""
    compares: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    clips_per_batch: float = 0
    flops_per_step: float = 0
    prepare_flops: float = 0

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


@dataclass
class _Pulse:
    """A heartbeat as it was last read, and since when, by this machine's own clock."""

    said: bytes
    since: float


@dataclass(eq=False)
class Shelf:
    """What lies below `root`. A call reads only what has changed since the last one.

    Whether a run lives is told from when its heartbeat last changed here: machines' clocks differ.
    """

    root: Path
    pulses: dict[Path, _Pulse] = field(default_factory=dict)
    known: dict[Path, tuple[Stamp, Any]] = field(default_factory=dict)

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
        name = clean_text(name_of(self.root, folder))
        try:
            described = self._described(folder)
            step, beat, age = self._heartbeat(folder)
            status = described.status
            if status == "running" and age > LOST_SECONDS:
                status = "done" if (folder / "result.json").exists() else "lost"
            return replace(
                described,
                status=status,
                step=described.steps if status == "done" else step,
                beat=beat,
                age=None if beat is None else age,
            )
        except Exception as problem:  # noqa: BLE001 - whatever is wrong with one folder is no reason to show none
            return Entry(name=name, status="broken", error=f"run.json cannot be read: {in_a_line(problem)}")

    def comparison(self, folder: Path) -> Comparison:
        """One comparison; what cannot be read is said in it."""
        name, file = clean_text(name_of(self.root, folder)), folder / "results.json"
        try:
            if not file.exists():
                return Comparison(name, "running", num_cells=len(list((folder / "cells").glob("*/*/*/run.json"))))
            found = self._kept(file, _in_short)
            return replace(found, name=name, has_report=(folder / "report.html").is_file())
        except Exception as problem:  # noqa: BLE001 - as above
            return Comparison(name, "broken", error=f"results.json cannot be read: {in_a_line(problem)}")

    def facts(self, name: str) -> dict[str, Any]:
        """All that is known of one run: its entry, run.json and the scores it ended with.

        Raises OSError where there is no run, and ValueError where its run.json cannot be read.
        """
        folder = inside(self.root, name)
        described = read_json(folder / "run.json", root=self.root)
        scores: dict[str, Any] = {}
        for file, key in (("scores.json", None), ("result.json", "metrics")):
            if (folder / file).is_file():
                found = read_json(folder / file, root=self.root)
                inner = found if key is None else found.get(key)
                scores = inner if isinstance(inner, dict) else scores
        return {"entry": self.entry(folder).as_dict(), "run": described, "scores": scores}

    def results(self, name: str) -> dict[str, Any]:
        """results.json of a comparison. ValueError where it cannot be read."""
        return read_json(inside(self.root, name) / "results.json", root=self.root)

    def records(self, name: str, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """What the run wrote from this byte of its metrics on, at most a mebibyte, and the byte to go on from.

        A last line that is not complete yet waits for the next call; a line that is not JSON is left out. Where the
        file has become shorter, as a resumed run rewinds it, or is gone, the first record is {"rewound": true} and what
        follows is to be read anew.
        """
        rewound: list[dict[str, Any]] = [{"rewound": True}]
        try:
            with opened(self.root, inside(self.root, name) / "metrics.jsonl") as stream:
                again = os.fstat(stream.fileno()).st_size < offset
                offset = 0 if again else offset
                stream.seek(offset)
                text = stream.read(MOST_AT_ONCE)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return (rewound, 0) if offset else ([], 0)
        whole = text[: text.rfind(b"\n") + 1]
        if not whole and len(text) == MOST_AT_ONCE:  # a line of this size is no record
            return [], offset + len(text)
        return [*(rewound if again else []), *_parsed(whole)], offset + len(whole)

    def _described(self, folder: Path) -> Entry:
        """What run.json says, without what the heartbeat adds."""
        file = folder / "run.json"
        known = self._kept(file, dict)
        name, status = clean_text(name_of(self.root, folder)), known.get("status", "running")
        if status not in ("running", "done", "failed", "stopped"):
            raise ValueError(f"an unknown status, {str(status)[:40]!r}")
        compares = {str(term): str(space) for term, space in dict(known.get("compares", {})).items()}
        return Entry(
            name=name,
            status=status,
            camp=camp_of(compares),
            objective=str(known.get("objective", "")),
            recipe=str(known.get("recipe", "")),
            seed=None if known.get("seed") is None else int(known["seed"]),
            steps=int(known.get("budgeted_steps") or known.get("steps") or 0),
            error=str(known.get("error", "")),
            compares=compares,
            weights={str(term): float(weight) for term, weight in dict(known.get("weights", {})).items()},
            clips_per_batch=float(known.get("clips_per_batch") or 0),
            flops_per_step=float(known.get("flops_per_step") or 0),
            prepare_flops=float(known.get("prepare_flops") or 0),
        )

    def _heartbeat(self, folder: Path) -> tuple[int, float | None, float]:
        """Step, time by the run's clock, and age in seconds, of the last sign of life; writing run.json is one too."""
        try:
            said = read_bytes(self.root, folder / "heartbeat", most=200)
            words = said.split()
            step, beat = int(words[0]), float(words[1])
        except (FileNotFoundError, ValueError, IndexError):
            said, step, beat = b"", 0, None
        written = (folder / "run.json").stat()
        said += str(written.st_mtime_ns).encode()
        now, pulse = time.monotonic(), self.pulses.get(folder)
        if pulse is None:  # the first look has nothing but the clocks
            since = now - max(0.0, time.time() - max(written.st_mtime, beat or 0.0))
            pulse = self.pulses[folder] = _Pulse(said, since)
        elif pulse.said != said:
            pulse = self.pulses[folder] = _Pulse(said, now)
        return step, beat, now - pulse.since

    def _kept(self, file: Path, read: Callable[[dict[str, Any]], Any]) -> Any:
        """What was made of a JSON file, made anew only where the file has changed."""
        facts = file.lstat()
        stamp = facts.st_ino, facts.st_mtime_ns, facts.st_size
        kept = self.known.get(file)
        if kept is None or kept[0] != stamp:
            kept = self.known[file] = stamp, read(read_json(file, root=self.root))
        return kept[1]


def camp_of(compares: Mapping[str, str]) -> Camp:
    """JEPA where any term holds embeddings against embeddings and none reads raw output, and so on."""
    spaces = {*compares.values()}
    if spaces & EMBEDDINGS and not spaces & RAW:
        return "JEPA"
    return "generative" if spaces & RAW else "other"


def _in_short(found: dict[str, Any]) -> Comparison:
    return Comparison(
        name="",
        status="done" if found.get("complete", True) else "running",
        question=str(found["question"]),
        answer=str(found["answer"]),
        num_cells=len(list(found["cells"])),
    )


def _folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every folder that may hold something, with the names of its files; the inside of runs is left alone."""
    for path, folders, files in os.walk(root, followlinks=False):
        place = Path(path)
        deep = len(place.relative_to(root).parts)
        is_run = "run.json" in files
        shown = [name for name in sorted(folders) if not name.startswith(".") and len(path) < 4 * MOST_CHARACTERS]
        folders[:] = [] if is_run or deep >= DEEPEST else shown
        yield place, {*files}


def _is_unfinished_comparison(folder: Path) -> bool:
    return (folder / "cells").is_dir() and not (folder / "results.json").exists()


def _parsed(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record
