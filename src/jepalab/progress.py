"""What a person sees while things run: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_SECONDS = 10.0
COLLAPSED_STD = 0.05
ALARMS = {
    "std": "the embeddings all point one way",
    "std_samples": "tokens say where they are, and nothing of the sample",
    "teacher_std": "the teacher's embeddings all point one way",
    "teacher_std_samples": "the teacher's tokens say where they are, and nothing of the sample",
}
ADVICE = "If it lasts: lower lr, raise the teacher's momentum, warm up longer, or weigh the anti-collapse terms more."


@dataclass(frozen=True)
class Moment:
    """What there is to see after one step of a run.

    seconds  spent in training steps, over all sittings.
    frames   trained on so far.
    terms    of the loss, unweighted.
    meters   of collapse, measured every few steps: see `instruments.geometry.collapse_meters`; "std_samples" is
             `std_over_samples`, and "teacher_..." the same of a teacher.
    """

    step: int
    steps: int
    seconds: float
    frames: int
    terms: Mapping[str, float]
    meters: Mapping[str, float]

    def describe(self) -> str:
        """Rates, terms and meters in one line."""
        per_second = 1 / self.seconds if self.seconds else 0.0
        parts = [f"{self.step * per_second:.0f} steps/s", f"{self.frames * per_second:,.0f} frames/s"]
        parts += [f"{name} {value:.3g}" for name, value in self.terms.items()]
        if self.meters:
            meters = self.meters
            parts.append(
                f"std {meters['std']:.2f} · RankMe {meters['rankme']:.1f} / centred {meters['rankme_centred']:.1f}"
                f" · cosine {meters['mean_cosine']:.2f}"
            )
        return " · ".join(parts)

    def warn(self) -> str:
        """A collapsing encoder called by its name; nothing of one that is well."""
        alarms = find_alarms(self.meters)
        return f"COLLAPSING: {', and '.join(alarms.values())}. {ADVICE}" if alarms else ""


def find_alarms(meters: Mapping[str, float]) -> dict[str, str]:
    """The meters that say of a collapse, and what each says."""
    return {name: words for name, words in ALARMS.items() if meters.get(name, 1.0) < COLLAPSED_STD}


def sum_up_alarms(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of a run's records: each alarm that rang, at which of the measured steps first and last, and how often."""
    rung: dict[str, list[int]] = {}
    for record in records:
        for name in record.get("alarms", ()):
            rung.setdefault(name, []).append(record["step"])
    return [
        {"alarm": name, "what": ALARMS[name], "first": steps[0], "last": steps[-1], "times": len(steps)}
        for name, steps in rung.items()
    ]


@runtime_checkable
class Display(Protocol):
    """Shows many runs while they run; a single run is a grid of one."""

    def start(self, names: Sequence[str]) -> None: ...

    def news(self, name: str, moment: Moment) -> None: ...

    def ended(self, name: str, result: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def make_display() -> Display:
    """Live bars where standard error is a terminal, otherwise a plain line now and then."""
    return PlainDisplay() if _is_plain() else LiveDisplay()


class LiveDisplay:
    """A bar for all runs with the time left, and a line for each run in hand."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bars = Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.lines: dict[str, Group] = {}
        self.live = Live(console=Console(stderr=True), refresh_per_second=4)
        self.overall: TaskID | None = None
        self.tasks: dict[str, TaskID] = {}

    def start(self, names: Sequence[str]) -> None:
        self.single = len(names) == 1
        self.overall = None if self.single else self.bars.add_task("runs", total=len(names))
        self.live.start()

    def news(self, name: str, moment: Moment) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=moment.steps)
        self.bars.update(self.tasks[name], completed=moment.step)
        line = Text(f"  {name}: {moment.describe()}", style="dim", overflow="ellipsis", no_wrap=True)
        # A warning is never cut off: it takes as many lines as it needs.
        warning = [Text(f"  {name}: {moment.warn()}", style="bold red")] if moment.warn() else []
        self.lines[name] = Group(line, *warning)
        self.live.update(Group(self.bars, *self.lines.values()))

    def ended(self, name: str, result: Mapping[str, Any]) -> None:
        self.lines.pop(name, None)
        if name in self.tasks and not self.single:
            self.bars.remove_task(self.tasks.pop(name))
        if self.overall is not None:
            self.bars.advance(self.overall)
        if result.get("status") == "failed":
            self.live.console.print(Text.assemble(("failed", "red"), f" {name}: {result.get('error', '')}"))
        self.live.update(Group(self.bars, *self.lines.values()))

    def close(self) -> None:
        self.live.stop()


class PlainDisplay:
    """A line every few seconds, and one for each run that ends."""

    def __init__(self) -> None:
        self.began = self.spoken = time.monotonic()
        self.total = self.done = 0

    def start(self, names: Sequence[str]) -> None:
        self.total = len(names)

    def news(self, name: str, moment: Moment) -> None:
        if time.monotonic() - self.spoken > PLAIN_SECONDS or (self.total == 1 and moment.step == moment.steps):
            self.spoken = time.monotonic()
            parts = filter(None, [moment.describe(), moment.warn()])
            self._say(f"{name} step {moment.step}/{moment.steps} · {' · '.join(parts)}")

    def ended(self, name: str, result: Mapping[str, Any]) -> None:
        self.done += 1
        elapsed = time.monotonic() - self.began
        left = elapsed / self.done * (self.total - self.done)
        error = f" · {result['error']}" if "error" in result else ""
        self._say(f"[{self.done}/{self.total}] {result.get('status', 'done')} {name}{error} · about {left:.0f} s left")

    def close(self) -> None:
        return

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    """Items a second, once they are known."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def count_items(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that shows a count with its rate and the time left; silent until the first item."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate())
    bars = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task: TaskID | None = None
    began = spoken = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal task, spoken
        if _is_plain():
            now = time.monotonic()
            if now - spoken > PLAIN_SECONDS:
                spoken, rate = now, done / (now - began)
                left = (total - done) / rate
                print(f"{what} {done:,}/{total:,} · {rate:,.0f}/s · {left:.0f} s left", file=sys.stderr, flush=True)
            return
        if task is None:
            bars.start()
            task = bars.add_task(what, total=total)
        bars.update(task, completed=done)

    try:
        yield count
    finally:
        if task is not None:
            bars.stop()


def _is_plain() -> bool:
    return not sys.stderr.isatty() or "NO_COLOR" in os.environ or "CI" in os.environ
