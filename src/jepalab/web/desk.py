"""Long work for the pages: one worker process, a queue, a deadline and a cancel for each job."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jepalab.web.tasks import known_tasks

LONGEST_LINE = 64 * 2**20
MOST_WAITING, MOST_KEPT = 8, 50
IDLE_SECONDS = 900.0  # after which the worker gives its memory back
News = Literal["waiting", "began", "progress", "done", "failed", "cancelled"]
ENDINGS = ("done", "failed", "cancelled")


class BusyError(RuntimeError):
    """Too much is waiting already."""


@dataclass
class Job:
    """One piece of work: what it is, and everything said about it so far."""

    task: str
    arguments: Mapping[str, Any]
    deadline: float
    name: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    said: list[dict[str, Any]] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    is_cancelled: bool = False

    @property
    def has_ended(self) -> bool:
        return bool(self.said) and self.said[-1]["event"] in ENDINGS

    async def say(self, event: News, value: Any = None) -> None:
        async with self.heard:
            if not self.has_ended:
                self.said.append({"event": event, "value": value})
            self.heard.notify_all()

    async def news(self) -> AsyncIterator[dict[str, Any]]:
        """Everything that was said and will be said, up to the end."""
        for i in itertools.count():
            async with self.heard:
                await self.heard.wait_for(lambda i=i: len(self.said) > i)
            yield self.said[i]
            if self.said[i]["event"] in ENDINGS:
                return


class Desk:
    """Gives jobs to a worker process, one after the other. A job that is cancelled or overdue takes the process along,
    and the next one gets a fresh process; otherwise the process lives on and remembers what it loaded.

    deadline  seconds that a job may take.
    """

    def __init__(self, root: Path, *, allow_code: bool = False, deadline: float = 180.0) -> None:
        self.root, self.allow_code, self.deadline = root, allow_code, deadline
        self.jobs: dict[str, Job] = {}
        self.queue: asyncio.Queue[Job] = asyncio.Queue()
        self.process: asyncio.subprocess.Process | None = None
        self.server: asyncio.Task[None] | None = None
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
        job.is_cancelled = True
        is_running = any(each["event"] == "began" for each in job.said) and not job.has_ended
        await job.say("cancelled")
        if is_running:
            self._kill()

    async def close(self) -> None:
        """Ends everything."""
        if self.server is not None:
            self.server.cancel()
        self._kill()
        await asyncio.gather(*self.burials)

    async def _serve(self) -> None:
        while True:
            try:
                job = await asyncio.wait_for(self.queue.get(), IDLE_SECONDS)
            except TimeoutError:
                self._kill()
                return
            if job.is_cancelled:
                continue
            try:
                async with asyncio.timeout(job.deadline):
                    await self._work(job)
            except TimeoutError:
                self._kill()
                await job.say("failed", f"This took longer than {job.deadline:g} seconds and was stopped.")
            except (OSError, ValueError, EOFError):
                self._kill()
                await job.say("failed", "The worker process died; its memory may have run out. Try something smaller.")

    async def _work(self, job: Job) -> None:
        process = await self._awake()
        assert process.stdin is not None
        assert process.stdout is not None
        await job.say("began")
        asked = {"task": job.task, "arguments": job.arguments, "root": str(self.root), "allow_code": self.allow_code}
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        await process.stdin.drain()
        while not job.has_ended:
            line = await process.stdout.readline()
            if not line:
                raise EOFError
            heard = json.loads(line)
            await job.say(heard["event"], heard["value"])

    async def _awake(self) -> asyncio.subprocess.Process:
        if self.process is None or self.process.returncode is not None:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jepalab.web.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
                # Plain lines on standard error, no bars; one thread, as small models are faster so, beside training.
                env={"OMP_NUM_THREADS": "1"} | os.environ | {"CI": "1"},
            )
        return self.process

    def _kill(self) -> None:
        """Ends the worker, if there is one."""
        killed, self.process = self.process, None
        if killed is not None:
            with contextlib.suppress(ProcessLookupError):
                killed.kill()
            burial = asyncio.ensure_future(_bury(killed))
            self.burials.add(burial)
            burial.add_done_callback(self.burials.discard)


async def _bury(process: asyncio.subprocess.Process) -> None:
    """Waits for the end of a killed process, and closes its pipes."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()
    while await process.stdout.read(LONGEST_LINE):
        pass
    await process.wait()
