"""The lab as a person meets it: `jepalab lab` in a process of its own, and headless Chromium in front of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright.sync_api")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")


@contextmanager
def serving(root: Path, *words: str) -> Iterator[str]:
    """The address of `jepalab lab` over this folder, without a slash at its end; with the token where there is one."""
    command = [sys.executable, "-m", "jepalab", "lab", str(root), "--port", "0", "--no-browse", *words]
    settings = {"CI": "1", "JEPALAB_CACHE": str(root.parent / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | settings) as process:
        assert process.stdout
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, f"no address in {line!r}"
            yield found[0].rstrip("/")
        finally:
            process.terminate()
            process.wait(timeout=20)


@contextmanager
def browsing(*, size: dict[str, int] = DESKTOP, refused: int = 0, **context: Any) -> Iterator[Page]:
    """A page in a fresh browser. At the end: nothing was asked of another machine, and the console shows no error.

    refused  how many answers with a status of 400 or more are expected; browsers write each into the console.
    context  goes to the browser's context: color_scheme="dark", reduced_motion="reduce", ...
    """
    foreign: list[str] = []
    errors: list[str] = []
    refusals: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" in message.text:
            refusals.append(f"{message.text} ({message.location})")
        elif message.type == "error":
            errors.append(f"{message.text} ({message.location})")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        page = browser.new_context(viewport=size, **context).new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: None if _is_here(request.url) else foreign.append(request.url))
        page.set_default_timeout(60_000)
        yield page
        browser.close()
    assert foreign == []
    assert errors == []
    assert len(refusals) == refused, refusals


def _is_here(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("data", "blob", "file", "about") or parts.hostname == "127.0.0.1"


def until(page: Page, expression: str, *, seconds: float = 60.0) -> None:
    """Waits until the expression is true in the page. Playwright's own wait would compile it there."""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"never became true: {expression}"
        page.wait_for_timeout(100)


def violations(page: Page) -> list[str]:
    """What axe-core finds to be serious or critical, a line each."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {json.dumps([node['html'][:120] for node in each['nodes'][:4]])}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
