"""Several runs at once on this machine's cores: worker processes that live on, and whose death costs one job."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from jepalab.endings import InterruptedRunError
from jepalab.fit import stop_signals

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

    Raises:
        ValueError: a job cannot be sent to another process.
    """
    packed = [_pack(job) for job in jobs]
    waiting = list(range(len(jobs)))[::-1]
    with stop_signals() as stopped:
        workers = [_start(num_threads) for _ in range(min(num_workers, len(jobs)))]
        try:
            for worker in workers:
                _assign(worker, waiting, packed)
            while any(worker.job is not None for worker in workers):
                _wait_for(workers, stopped)
                for i, worker in enumerate(workers):
                    if worker.job is None:
                        continue
                    yield from _hear(worker)
                    if worker.job is None and waiting:
                        if not worker.process.is_alive():
                            workers[i] = worker = _start(num_threads)
                        _assign(worker, waiting, packed)
        finally:
            _stop(workers)


def _pack(job: Work) -> bytes:
    try:
        return bytes(ForkingPickler.dumps(job))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "Every run is made in a process of its own, which must be able to import its function: write it at the "
            "top level of a module and bind its arguments with functools.partial; no lambda, no function inside a "
            f"function, no open file. ({error})"
        ) from error


def _wait_for(workers: Sequence[_Worker], stopped: Sequence[int]) -> None:
    busy = [worker for worker in workers if worker.job is not None]
    wait([item for worker in busy for item in (worker.pipe, worker.process.sentinel)], timeout=0.5)
    # Asked last: Ctrl-C reaches the workers too, and one that stopped because of it is not lost.
    if stopped:
        raise InterruptedRunError(stopped[0], "; runs that ended are recorded, run the same command to go on")


def _hear(worker: _Worker) -> Iterator[Event]:
    """What the worker has said since; of a dead one, that its job is lost."""
    job = worker.job
    assert job is not None
    try:
        while worker.job is not None and worker.pipe.poll():
            kind, value = worker.pipe.recv()
            if kind != "news":
                worker.job = None
            yield Event(job, kind, value)
    except (EOFError, OSError):  # the end of what a dead process said, cut short or not
        worker.job = None
        worker.process.join()
        yield Event(job, "lost", f"its process died with exit code {worker.process.exitcode}")


def _assign(worker: _Worker, waiting: list[int], packed: Sequence[bytes]) -> None:
    if waiting:
        worker.job = waiting.pop()
        with suppress(BrokenPipeError, ConnectionResetError):  # it died just now, as `_hear` will find
            worker.pipe.send_bytes(packed[worker.job])


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

    def tell(news: Any) -> None:
        try:
            pipe.send(("news", news))
        except (BrokenPipeError, ConnectionResetError):
            signal.raise_signal(signal.SIGTERM)  # Nobody listens any more: save and stop, as if told to.

    try:
        while True:
            job = pipe.recv()
            pipe.send(("done", job(tell)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # The parent is gone or has closed the pipe.
    except InterruptedRunError:
        sys.exit(143)
