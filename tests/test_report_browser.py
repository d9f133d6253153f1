"""The report in a real browser: it renders, nothing is cut off, and it cannot reach the network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sample_image_report import make_image_results, make_pictures
from sample_report import make_results, render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
)

# Widths in the page: how far it is wider than the window, texts that leave their picture, names that cover each other.
MEASURE = """<script>
const found = {texts: 0, cut: [], overlaps: []}, slack = 1.5;
for (const svg of document.querySelectorAll(".panels svg")) {
  const frame = svg.getBoundingClientRect();
  if (!frame.width) continue;
  const texts = [...svg.querySelectorAll("text")].map(
    t => [t.textContent, t.getAttribute("class"), t.getBoundingClientRect()]);
  found.texts += texts.length;
  for (const [text, , box] of texts)
    if (box.left < frame.left - slack || box.right > frame.right + slack || box.top < frame.top - slack
        || box.bottom > frame.bottom + slack) found.cut.push([svg.getAttribute("aria-label").slice(0, 60), text]);
  const names = texts.filter(([, style]) => style.startsWith("name"));
  names.forEach(([text, , a], i) => names.slice(i + 1).forEach(([other, , b]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > slack && down > 0.35 * a.height) found.overlaps.push([text, other]);
  }));
}
found.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.insertAdjacentHTML("beforeend", '<pre id="measured"></pre>');
document.getElementById("measured").textContent = JSON.stringify(found);
</script>"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]


class Server(ThreadingHTTPServer):
    """A server on this machine that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Listener(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(tmp_path_factory.mktemp("report"), make_results(conditions={"none": "", "changing": ""}))


def browse(page: str, folder: Path, *flags: str) -> str:
    """The document after the browser has loaded and laid it out."""
    (folder / "page.html").write_text(page)
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def with_temptations(page: str, server: Server) -> str:
    """The page with an image, a script, a style sheet and a frame from the server in it."""
    tempting = (
        f'<img src="{server.address}/image"><script src="{server.address}/script"></script>'
        f'<link rel="stylesheet" href="{server.address}/style"><iframe src="{server.address}/frame"></iframe>'
    )
    return page.replace("</main>", f"{tempting}</main>")


def test_report_renders_and_asks_for_nothing(report: str, server: Server, tmp_path: Path) -> None:
    document = browse(report, tmp_path, "--dump-dom")
    assert document.count("<figure>") == report.count("<figure>")
    assert document.count("</svg>") == report.count("</svg>")
    assert server.requests == []


def test_policy_blocks_what_was_smuggled_in(report: str, server: Server, tmp_path: Path) -> None:
    document = browse(with_temptations(report, server), tmp_path, "--dump-dom")
    assert f"{server.address}/image" in document
    assert server.requests == []


def test_without_the_policy_the_same_page_does_ask(report: str, server: Server, tmp_path: Path) -> None:
    unguarded = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report)
    assert unguarded != report
    browse(with_temptations(unguarded, server), tmp_path, "--dump-dom")
    assert set(server.requests) >= {"/image", "/script", "/style", "/frame"}


@pytest.fixture(scope="module")
def image_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("image-report")
    make_pictures(folder)
    return render(folder, make_image_results())


@pytest.mark.parametrize("width", [1240, 600])
@pytest.mark.parametrize("kind", ["report", "image_report"])
def test_nothing_is_cut_off_and_no_names_overlap(
    kind: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", request.getfixturevalue(kind))
    page = page.replace("</body>", f"{MEASURE}</body>")
    document = browse(page, tmp_path, "--dump-dom", f"--window-size={width},900")
    measured = json.loads(html.unescape(document.rpartition('id="measured">')[2].partition("<")[0]))
    assert measured["texts"] > 200
    assert measured["wider"] <= 0
    assert measured["cut"] == []
    assert measured["overlaps"] == []
