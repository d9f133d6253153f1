"""Long work for the pages: one worker process, a queue, a deadline and a cancel for each job."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jepalab.web.tasks import known_tasks

LONGEST_LINE = 64 * 2**20
MOST_WAITING, MOST_KEPT = 8, 24
IDLE_SECONDS = 900.0  # after which the worker gives its memory back
ALONE_SECONDS = 10.0  # after which a job that nobody listens to any more is cancelled
News = Literal["waiting", "began", "progress", "done", "failed", "cancelled"]
ENDINGS = ("done", "failed", "cancelled")
DIED = "The worker process died; its memory may have run out. Try something smaller."
BROKE = "Something went wrong here; the terminal of `jepalab lab` says what."


class BusyError(RuntimeError):
    """Too much is waiting already."""


@dataclass(eq=False)
class Job:
    """One piece of work: what it is, and everything said about it so far."""

    task: str
    arguments: Mapping[str, Any]
    deadline: float
    name: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    said: list[dict[str, Any]] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    num_listeners: int = 0

    @property
    def has_ended(self) -> bool:
        return bool(self.said) and self.said[-1]["event"] in ENDINGS

    async def say(self, event: News, value: Any = None) -> None:
        """Adds to what was said; after the end nothing is."""
        async with self.heard:
            if not self.has_ended:
                self.said.append({"event": event, "value": value})
                if event in ENDINGS:
                    self.arguments = {}
            self.heard.notify_all()

    async def news(self, first: int = 0) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """Everything that was and will be said from number `first` on, with its number, up to the end."""
        self.num_listeners += 1
        try:
            for i in itertools.count(first):
                async with self.heard:
                    await self.heard.wait_for(lambda i=i: len(self.said) > i or self.has_ended)
                if i >= len(self.said):
                    return
                yield i, self.said[i]
                if self.said[i]["event"] in ENDINGS:
                    return
        finally:
            self.num_listeners -= 1


class Desk:
    """Gives jobs to a worker process, one after the other. A job that is cancelled or overdue takes the process along,
    and the next one gets a fresh process; otherwise the process lives on and remembers what it loaded. Code of the
    reader's own gets a process to itself.

    deadline  seconds that a job may take.
    """

    def __init__(self, root: Path, *, allow_code: bool = False, deadline: float = 180.0) -> None:
        self.root, self.allow_code, self.deadline = root, allow_code, deadline
        self.jobs: dict[str, Job] = {}
        self.queue: asyncio.Queue[Job] = asyncio.Queue()
        self.process: asyncio.subprocess.Process | None = None
        self.server: asyncio.Task[None] | None = None
        self.work: asyncio.Task[None] | None = None
        self.current: Job | None = None
        self.watches: set[asyncio.Task[None]] = set()
        self.burials: set[asyncio.Task[None]] = set()

    async def start(self, task: str, arguments: Mapping[str, Any]) -> Job:
        """Puts a job in the queue. ValueError for a task that there is not, BusyError where the queue is full."""
        if task not in known_tasks():
            raise ValueError(f"There is no task {task[:40]!r}; there are {', '.join(known_tasks())}.")
        if sum(not job.has_ended for job in self.jobs.values()) >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} pieces of work are waiting already; cancel one, or wait.")
        ended = [name for name, job in self.jobs.items() if job.has_ended]
        for name in ended[: max(0, len(self.jobs) - MOST_KEPT)]:
            del self.jobs[name]
        job = Job(task, arguments, self.deadline)
        self.jobs[job.name] = job
        await job.say("waiting")
        await self.queue.put(job)
        if self.server is None or self.server.done():
            self.server = asyncio.create_task(self._serve())
        return job

    async def cancel(self, job: Job) -> None:
        """Ends the job, whether it waits or runs."""
        await job.say("cancelled")
        if job is self.current and self.work is not None:
            self.work.cancel()  # the worker is ended by who waits for it

    def left(self, job: Job) -> None:
        """Says that somebody listens no more. A job that nobody comes back to is cancelled."""

        async def watch() -> None:
            await asyncio.sleep(ALONE_SECONDS)
            if not job.num_listeners and not job.has_ended:
                await self.cancel(job)

        if not job.has_ended:
            task = asyncio.create_task(watch())
            self.watches.add(task)
            task.add_done_callback(self.watches.discard)

    async def close(self) -> None:
        """Ends everything."""
        tasks = [task for task in (self.server, self.work, *self.watches) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end_worker()
        await asyncio.gather(*self.burials)

    async def _serve(self) -> None:
        """The only one that starts, asks and ends the worker."""
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):  # wait_for may swallow a cancellation in Python 3.11
                    job = await self.queue.get()
            except TimeoutError:
                await self._end_worker()
                return
            if job.has_ended:
                continue
            is_code = "code" in job.arguments
            self.current, self.work = job, asyncio.create_task(self._work(job))
            await asyncio.wait({self.work}, timeout=job.deadline)
            work, self.current = self.work, None
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                await self._end_worker()
                await job.say("failed", f"This took longer than {job.deadline:g} seconds and was stopped.")
            elif work.cancelled() or (problem := work.exception()) is not None:
                await self._end_worker()
                if not work.cancelled():
                    is_death = isinstance(problem, OSError | ValueError | EOFError)
                    if not is_death:
                        traceback.print_exception(problem, file=sys.stderr)
                    await job.say("failed", DIED if is_death else BROKE)
            elif is_code:  # it may have changed anything in its process
                await self._end_worker()

    async def _work(self, job: Job) -> None:
        process = await self._awake()
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {"job": job.name, "task": job.task, "arguments": job.arguments}
        asked |= {"root": str(self.root), "allow_code": self.allow_code}
        await job.say("began")
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        await process.stdin.drain()
        while not job.has_ended:
            line = await process.stdout.readline()
            if not line:
                raise EOFError
            heard = json.loads(line)
            if heard["job"] == job.name:
                await job.say(heard["event"], heard["value"])

    async def _awake(self) -> asyncio.subprocess.Process:
        if self.process is None or self.process.returncode is not None:
            self.process = await asyncio.create_subprocess_exec(
                # -P: what lies in the folder of runs is no module.
                *(sys.executable, "-P", "-m", "jepalab.web.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
                # Plain lines on standard error, no bars; one thread, as small models are faster so, beside training.
                env={"OMP_NUM_THREADS": "1"} | os.environ | {"CI": "1"},
                start_new_session=True,  # so that what it starts ends with it
            )
        return self.process

    async def _end_worker(self) -> None:
        """Ends the worker, if there is one; also when who waits for it is cancelled."""
        process, self.process = self.process, None
        if process is not None:
            burial = asyncio.create_task(_bury(process))
            self.burials.add(burial)
            burial.add_done_callback(self.burials.discard)
            await asyncio.shield(burial)


async def _bury(process: asyncio.subprocess.Process) -> None:
    """Kills a process and whatever it started, and closes its pipes."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()
    while await process.stdout.read(LONGEST_LINE):
        pass
    await process.wait()
