"""Several runs at once on this machine's cores: worker processes that live on, and whose death costs one job."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import torch

from jepalab.fit import InterruptedRunError

Work = Callable[[Callable[[Any], None]], Any]


@dataclass(frozen=True)
class Event:
    """Something a job said: "news" while it runs, then "done" with its value or "lost" with the reason."""

    job: int
    kind: str
    value: Any


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: int | None = field(default=None)


def run_jobs(jobs: Sequence[Work], *, num_workers: int, num_threads: int = 1) -> Iterator[Event]:
    """Runs every job, `num_workers` at a time, and yields what they say as it comes.

    A job is a picklable function of `tell`, which sends news. A worker that dies (killed, out of memory) loses its
    job and is replaced. On SIGTERM or Ctrl-C the workers save and stop, then InterruptedRunError is raised.
    """
    waiting = list(range(len(jobs)))[::-1]
    with _stop_signals() as stopped:
        workers = [_start(num_threads) for _ in range(min(num_workers, len(jobs)))]
        try:
            for worker in workers:
                _assign(worker, waiting, jobs)
            while any(worker.job is not None for worker in workers):
                _wait_for(workers, stopped)
                for i, worker in enumerate(workers):
                    if worker.job is None:
                        continue
                    for event in _hear(worker):
                        yield event
                        if event.kind != "news":
                            worker.job = None
                    if not worker.process.is_alive() and not worker.pipe.poll():
                        if worker.job is not None:
                            reason = f"its process died with exit code {worker.process.exitcode}"
                            yield Event(worker.job, "lost", reason)
                        workers[i] = worker = _start(num_threads)
                    if worker.job is None:
                        _assign(worker, waiting, jobs)
        finally:
            _stop(workers)


def _wait_for(workers: Sequence[_Worker], stopped: Sequence[int]) -> None:
    if stopped:
        raise InterruptedRunError(stopped[0], "; runs that ended are recorded, run the same command to go on")
    busy = [worker for worker in workers if worker.job is not None]
    wait([item for worker in busy for item in (worker.pipe, worker.process.sentinel)], timeout=0.5)


def _hear(worker: _Worker) -> Iterator[Event]:
    assert worker.job is not None
    try:
        while worker.pipe.poll():
            kind, value = worker.pipe.recv()
            yield Event(worker.job, kind, value)
            if kind != "news":
                return
    except (EOFError, ConnectionResetError):
        return


def _assign(worker: _Worker, waiting: list[int], jobs: Sequence[Work]) -> None:
    if waiting:
        worker.job = waiting.pop()
        worker.pipe.send(jobs[worker.job])


def _start(num_threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, num_threads), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _stop(workers: Sequence[_Worker]) -> None:
    """An idle worker ends when its pipe closes; a busy one saves its run first."""
    for worker in workers:
        if worker.job is not None and worker.process.is_alive():
            worker.process.terminate()
        worker.pipe.close()
    for worker in workers:
        worker.process.join(timeout=60)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(pipe: Connection, num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides.
    torch.set_num_threads(num_threads)
    try:
        while True:
            job = pipe.recv()
            pipe.send(("done", job(lambda news: pipe.send(("news", news)))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # The parent is gone or has closed the pipe.
    except InterruptedRunError:
        sys.exit(143)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
