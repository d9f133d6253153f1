"""The app: pages, what they ask for, and the live stream. It imports neither torch nor numpy; the worker does."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as PlainHTTPException

from jepalab.progress import ADVICE, ALARMS, COLLAPSED_STD
from jepalab.web.desk import BusyError, Desk, Job
from jepalab.web.guard import Asgi, Guard
from jepalab.web.lesson.page import lesson_body
from jepalab.web.places import ForbiddenPlaceError, inside
from jepalab.web.reading import in_a_line, read_bytes
from jepalab.web.shelf import Shelf

HERE = Path(__file__).parent
PAGES = {  # by address: template, and the name in the menu
    "/": ("runs", "Runs"),
    "/look": ("look", "Look inside"),
    "/plan": ("plan", "Plan"),
    "/step": ("step", "Bring a step"),
    "/learn": ("learn", "Lesson"),
}
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
LOOK_SECONDS = 1.0
MOST_FOLLOWED = 64
MOST_REPORT = 64 * 2**20
SAME_AS = {"runs": ("run", "comparison")}  # pages below a menu's


class Work(BaseModel):
    """What a page asks the worker to do."""

    task: str = Field(max_length=60)
    arguments: dict[str, Any] = {}


@dataclass(eq=False)
class Glance:
    """The shelf as it was a moment ago, so that ten open pages read the disk once."""

    shelf: Shelf
    at: float = -math.inf
    seen: dict[str, Any] = field(default_factory=dict)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def now(self) -> dict[str, Any]:
        """Every run and comparison as JSON."""
        async with self.looking:
            if time.monotonic() - self.at > 0.8 * LOOK_SECONDS:
                runs, comparisons = await asyncio.to_thread(self.shelf.look)
                self.seen = {"runs": [r.as_dict() for r in runs], "comparisons": [c.as_dict() for c in comparisons]}
                self.at = time.monotonic()
            return self.seen


def create_app(
    root: Path,
    *,
    hosts: Sequence[str],
    token: str | None = None,
    allow_code: bool = False,
    deadline: float = 180.0,
) -> Asgi:
    """The lab over the folder `root`, behind its guard.

    hosts     names, with their port, under which it may be called.
    token     what callers must bring; None where only this machine can call.
    deadline  seconds that a piece of work may take.
    """
    root = root.resolve()
    shelf, desk = Shelf(root), Desk(root, allow_code=allow_code, deadline=deadline)
    glance = Glance(shelf)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await desk.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=life, title="jepalab lab")
    _add_pages(app, root, allow_code=allow_code)
    _add_shelf(app, shelf, glance)
    _add_work(app, desk)
    _add_errors(app)
    return Guard(app, hosts=frozenset(host.lower() for host in hosts), token=token)


def _add_pages(app: FastAPI, root: Path, *, allow_code: bool) -> None:
    templates = Environment(
        loader=PackageLoader("jepalab.web", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["lesson_body"] = lesson_body  # for /learn alone

    def show(name: str) -> HTMLResponse:
        menu = [
            (where, words, template == name or name in SAME_AS.get(template, ()))
            for where, (template, words) in PAGES.items()
        ]
        page = templates.get_template(f"{name}.html.jinja")
        return HTMLResponse(page.render(menu=menu, root=str(root), allow_code=allow_code))

    for where, (name, _) in PAGES.items():
        app.add_api_route(where, partial(show, name), methods=["GET", "HEAD"], response_class=HTMLResponse)
    for name in SAME_AS["runs"]:
        app.add_api_route(f"/{name}", partial(show, name), methods=["GET"], response_class=HTMLResponse)

    @app.get("/static/{name:path}")
    def static(name: str) -> FileResponse:
        file = inside(HERE / "static", name)
        if file.suffix not in TYPES or not file.is_file():
            raise HTTPException(404, "There is no such file.")
        return FileResponse(file, media_type=TYPES[file.suffix])


def _add_shelf(app: FastAPI, shelf: Shelf, glance: Glance) -> None:
    @app.get("/api/runs")
    async def runs() -> dict[str, Any]:
        return await glance.now()

    @app.get("/api/alarm")
    def alarm() -> dict[str, Any]:
        return {"std": COLLAPSED_STD, "rings": ALARMS, "advice": ADVICE}

    @app.get("/api/run")
    def run(name: str) -> JSONResponse:
        return JSONResponse(_or_refuse(lambda: shelf.facts(name), "run"))

    @app.get("/api/records")
    def records(run: str, offset: int = 0) -> dict[str, Any]:
        found, end = shelf.records(run, max(0, offset))
        return {"records": found, "offset": end}

    @app.get("/api/comparison")
    def comparison(name: str) -> JSONResponse:
        return JSONResponse(_or_refuse(lambda: shelf.results(name), "comparison"))

    @app.get("/api/report")
    def report(name: str) -> Response:
        try:
            page = read_bytes(shelf.root, inside(shelf.root, name) / "report.html", most=MOST_REPORT)
        except ForbiddenPlaceError:
            raise
        except (OSError, ValueError) as error:
            raise HTTPException(404, "There is no report yet.") from error
        return Response(page, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    @app.get("/api/live")
    async def live(request: Request) -> StreamingResponse:
        followed = dict(map(_place_to_go_on, request.query_params.getlist("run")[:MOST_FOLLOWED]))
        for name in followed:
            inside(shelf.root, name)
        return _events(_follow(shelf, glance, followed))


def _place_to_go_on(text: str) -> tuple[str, int]:
    """A run and the byte of its records to go on from, out of NAME or NAME@BYTE."""
    name, at, digits = text.rpartition("@")
    return (name, int(digits)) if at and digits.isascii() and digits.isdigit() and len(digits) < 19 else (text, 0)


def _or_refuse(read: Callable[[], dict[str, Any]], noun: str) -> dict[str, Any]:
    """What was read, or a refusal in a sentence."""
    try:
        return read()
    except ForbiddenPlaceError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HTTPException(404, f"There is no such {noun}.") from error
    except (OSError, ValueError, TypeError) as error:
        raise HTTPException(409, f"This {noun} cannot be read: {in_a_line(error)}.") from error


async def _follow(shelf: Shelf, glance: Glance, followed: dict[str, int]) -> AsyncIterator[tuple[int, str, Any]]:
    """The list of runs whenever it changes, and some runs' records, each from its byte on, as they are written."""
    shown: Any = None
    for number in itertools.count():
        seen = await glance.now()
        stable = [{k: v for k, v in run.items() if k != "age"} for run in seen["runs"]], seen["comparisons"]
        if stable != shown:
            shown = stable
            yield number, "shelf", seen
        for name, offset in followed.items():
            while True:
                try:
                    found, end = await asyncio.to_thread(shelf.records, name, offset)
                except OSError:
                    break  # not readable for now
                if not found and end == offset:
                    break
                followed[name] = offset = end
                yield number, "records", {"run": name, "records": found, "offset": end}
        yield number, "beat", time.time()
        await asyncio.sleep(LOOK_SECONDS)


def _add_work(app: FastAPI, desk: Desk) -> None:
    def job_of(name: str) -> Job:
        if name not in desk.jobs:
            raise HTTPException(404, "There is no such piece of work; it may be long over.")
        return desk.jobs[name]

    @app.post("/api/work", status_code=202)
    async def begin(work: Work) -> dict[str, str]:
        try:
            return {"job": (await desk.start(work.task, work.arguments)).name}
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        except BusyError as error:
            raise HTTPException(429, str(error)) from error

    @app.get("/api/work/{name}")
    async def news(name: str, request: Request) -> StreamingResponse:
        job, last = job_of(name), request.headers.get("last-event-id", "")
        first = int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 10 else 0

        async def told() -> AsyncIterator[tuple[int, str, Any]]:
            try:
                async for number, each in job.news(first):
                    yield number, each["event"], each["value"]
            finally:
                desk.left(job)

        return _events(told())

    @app.delete("/api/work/{name}")
    async def cancel(name: str) -> dict[str, bool]:
        await desk.cancel(job_of(name))
        return {"cancelled": True}


def _add_errors(app: FastAPI) -> None:
    """Every refusal is one sentence of JSON."""

    @app.exception_handler(PlainHTTPException)
    async def refused(request: Request, error: PlainHTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "That request is not what this address wants."}, 422)

    @app.exception_handler(OSError)
    async def unreadable_place(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse({"error": "That cannot be read."}, 404)

    @app.exception_handler(ForbiddenPlaceError)
    async def forbidden(request: Request, error: ForbiddenPlaceError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404)


def _events(news: AsyncIterator[tuple[int, str, Any]]) -> StreamingResponse:
    """Server-sent events, each with its number and JSON as its data."""

    async def lines() -> AsyncIterator[str]:
        async for number, event, value in news:
            yield f"id: {number}\nevent: {event}\ndata: {json.dumps(value, allow_nan=False)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})
