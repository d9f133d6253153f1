"""The lab answers nobody else and serves nothing else: hostile requests against the real server, over a socket."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_browser import serving

SECRET = "the-secret-beside-the-root"


class Bomb:
    """A pickle that leaves a mark where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.mark), 0o700)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, with links out of it, pickles in it, and a secret beside it."""
    above = tmp_path_factory.mktemp("hostile")
    root = above / "runs"
    (root / "good" / "checkpoints").mkdir(parents=True)
    (root / "good" / "run.json").write_text('{"status": "done", "seed": 0, "steps": 3, "objective": "MAE"}')
    (root / "good" / "metrics.jsonl").write_text('{"step": 1, "loss": {"pixels": 1.0}}\n')
    (root / "good" / "run.json.secret").write_text(SECRET)
    for name in ("optimizer.pt", "metrics.pkl"):
        (root / "good" / "checkpoints" / name).write_bytes(pickle.dumps(Bomb(above / "exploded")))
    (above / "secret.txt").write_text(SECRET)
    (above / "outside").mkdir()
    for name in ("run.json", "results.json", "report.html", "metrics.jsonl"):
        (above / "outside" / name).write_text(json.dumps({"status": SECRET, "question": SECRET, "step": 1}) + "\n")
    (root / "link").symlink_to(above / "outside", target_is_directory=True)
    linked = root / "linked"
    linked.mkdir()
    for name in ("run.json", "results.json", "report.html", "metrics.jsonl"):
        (linked / name).symlink_to(above / "outside" / name)
    broken = {"half": '{"status": "run', "list": "[1, 2]", "deep": "[" * 100_000, "odd": '{"status": "<script>"}'}
    for name, text in broken.items():
        (root / name).mkdir()
        (root / name / "run.json").write_text(text)
    (root / "bad-comparison").mkdir()
    (root / "bad-comparison" / "results.json").write_text('{"question": 3}')
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with serving(root) as address:
        yield address


def say(address: str, request: bytes) -> tuple[int, str]:
    """Status and everything else that came back; 0 where the server hung up."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.settimeout(20)
        got = b""
        try:
            line.sendall(request)
            while chunk := line.recv(65_536):
                got += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
    found = re.match(rb"HTTP/1\.\d (\d{3})", got)
    return int(found[1]) if found else 0, got.decode("utf-8", "replace")


def request(address: str, method: str, target: str, body: str = "", **headers: str) -> bytes:
    named = {"host": address.removeprefix("http://"), "connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        named = {"content-type": "application/json", "content-length": str(len(body.encode()))} | named
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("utf-8", "surrogateescape")


CLIMBS = [
    *(
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "..%5csecret.txt",
        "....//secret.txt",
        "%2e%2e%2fsecret.txt",
    ),
    *("/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "file:///etc/passwd", "~/.ssh/id_rsa", "~root", "."),
    *("good/../../secret.txt", "good/%2e%2e/%2e%2e/secret.txt", "link", "link/run.json", "linked", "good/../link"),
    *(
        "good%00",
        "good%0d%0aset-cookie:%20a=b",
        "C:%5cWindows",
        "C:/Windows",
        "%c0%ae%c0%ae/secret.txt",
        "good\\..\\..",
    ),
    *(
        "a" * 3_000,
        "%ff%fe",
        "good/checkpoints/optimizer.pt",
        "good/run.json.secret",
        "..;/secret.txt",
        "%252e%252e%252fsecret.txt",
    ),
]
PLACES = [
    *("/static/{}", "/api/run?name={}", "/api/records?run={}", "/api/comparison?name={}", "/api/report?name={}"),
    *("/{}", "/api/work/{}"),
]
BODIES = [
    *("{", "[]", "null", '"x"', '{"task": 3}', '{"task": "../worker"}', '{"task": "os.system", "arguments": {}}'),
    *('{"task": "masks", "arguments": []}', '{"arguments": {}}', '{"task": "' + "a" * 10_000 + '"}', "[" * 50_000),
    *('{"task": "__init__"}', '{"task": "places"}', '{"task": "\\u0000"}', '{"task": null}'),
]


def hostile(address: str) -> list[tuple[str, bytes]]:
    """Each with its name."""
    found = [
        (f"GET {place.format(climb)[:80]}", request(address, "GET", place.format(climb)))
        for place, climb in itertools.product(PLACES, CLIMBS)
    ]
    found += [(f"POST {body[:40]}", request(address, "POST", "/api/work", body)) for body in BODIES]
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "HEAD", "BREW"):
        found += [(f"{method} {where}", request(address, method, where)) for where in ("/", "/api/runs", "/api/work/x")]
    task = '{"task": "masks", "arguments": {}}'
    for name, headers in {
        "another host": {"host": "evil.example"},
        "no host": {"host": ""},
        "another port": {"host": "127.0.0.1:1"},
        "another origin": {"origin": "http://evil.example"},
        "origin null": {"origin": "null"},
        "another site": {"sec_fetch_site": "cross-site"},
        "a form": {"content_type": "application/x-www-form-urlencoded"},
        "text": {"content_type": "text/plain"},
        "a lie about its length": {"content_length": "99999999999"},
        "a length that is none": {"content_length": "-5"},
    }.items():
        found.append((f"POST from {name}", request(address, "POST", "/api/work", task, **headers)))
    for name in ("another host", "no host"):
        host = "evil.example" if name == "another host" else ""
        found += [
            (f"GET {w} by {name}", request(address, "GET", w, host=host)) for w in ("/", "/api/runs", "/static/lab.css")
        ]
    return [
        *found,
        ("nonsense", b"\x00\x01\x02\xff" * 40 + b"\r\n\r\n"),
        ("no version", b"GET /\r\n\r\n"),
        ("a long header", request(address, "GET", "/", x="y" * 200_000)),
        ("many headers", request(address, "GET", "/", **{f"x{i}": "y" for i in range(2_000)})),
        ("a websocket", request(address, "GET", "/api/runs", upgrade="websocket", sec_websocket_key="x")),
    ]


def test_hostile_requests_get_neither_a_file_nor_a_trace(address: str, root: Path) -> None:
    requests = hostile(address)
    assert len(requests) >= 200
    for name, raw in requests:
        status, answer = say(address, raw)
        assert SECRET not in answer, name
        assert "root:" not in answer, name
        assert "Traceback" not in answer, name
        assert 'File "' not in answer, name
        assert "set-cookie" not in answer.lower(), name
        assert status < 500, f"{name}: {status}"
    assert not (root.parent / "exploded").exists()
    status, answer = say(address, request(address, "GET", "/api/runs"))
    assert status == 200, "the server is still there"
    assert "good" in answer


def test_what_is_refused_is_refused_with_its_own_status(address: str) -> None:
    task = '{"task": "masks", "arguments": {}}'
    assert say(address, request(address, "GET", "/", host="evil.example"))[0] == 421
    assert say(address, request(address, "POST", "/api/work", task, origin="http://evil.example"))[0] == 403
    assert say(address, request(address, "POST", "/api/work", task, sec_fetch_site="cross-site"))[0] == 403
    assert say(address, request(address, "POST", "/api/work", task, content_type="text/plain"))[0] == 415
    assert say(address, request(address, "POST", "/api/work", task, content_length="9000000"))[0] == 413
    assert say(address, request(address, "GET", "/static/..%2fapp.py"))[0] == 404
    assert say(address, request(address, "GET", "/api/run?name=nobody"))[0] == 404
    assert say(address, request(address, "GET", "/api/report?name=link"))[0] == 404
    assert say(address, request(address, "POST", "/api/work", '{"task": "nobody"}'))[0] == 404


def test_broken_runs_are_shown_as_broken_and_break_nothing(address: str) -> None:
    _, answer = say(address, request(address, "GET", "/api/runs"))
    shelf = json.loads(answer.partition("\r\n\r\n")[2])
    status = {run["name"]: run["status"] for run in shelf["runs"]}
    assert status == dict.fromkeys(("half", "list", "deep", "odd", "linked"), "broken") | {"good": "done"}
    assert [found["name"] for found in shelf["comparisons"] if found["status"] == "broken"] == [
        "bad-comparison",
        "linked",
    ]
    assert "link" not in status
    for name in ("half", "list", "deep"):
        found, words = say(address, request(address, "GET", f"/api/run?name={name}"))
        assert found == 409
        assert "cannot be read" in words


def test_every_answer_forbids_what_pages_do_not_need(address: str) -> None:
    for where in ("/", "/api/runs", "/static/lab.css", "/nothing", "/static/..%2fapp.py"):
        _, answer = say(address, request(address, "GET", where))
        head = answer.partition("\r\n\r\n")[0].lower()
        assert "content-security-policy: default-src 'none'" in head, where
        assert "x-content-type-options: nosniff" in head, where
        assert "server:" not in head, where


def test_another_address_asks_for_the_token(root: Path) -> None:
    with serving(root, "--host", "0.0.0.0") as shown:
        found = re.search(r":(\d+)/\?token=([\w-]+)", shown)
        assert found
        token, address = found[2], f"http://127.0.0.1:{found[1]}"
        assert say(address, request(address, "GET", "/api/runs"))[0] == 401
        assert say(address, request(address, "GET", "/api/runs?token=guess"))[0] == 401
        assert say(address, request(address, "GET", "/api/runs", cookie=f"jepalab-{found[1]}=guess"))[0] == 401
        status, answer = say(address, request(address, "GET", f"/look?a=1&token={token}"))
        assert status == 303
        assert "location: /look?a=1\r\n" in answer
        assert "HttpOnly; SameSite=Strict" in answer
        assert say(address, request(address, "GET", "/api/runs", cookie=f"jepalab-{found[1]}={token}"))[0] == 200
