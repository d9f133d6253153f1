"""The command `jepalab lab`: the lab in the browser, over a folder of runs."""

from __future__ import annotations

import importlib.util
import secrets
import socket
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class LabCommand:
    """Opens the lab in the browser: runs as they train, a look inside encoders, plans by click, audits, the lesson.

    It answers on this machine alone. Where another address is asked for, or code from the browser may run, callers need
    the token that is then printed as part of the address.

    Args:
        root: folder of runs, as `jepalab train` and `jepalab compare` write them.
        host: address to answer on; any but this machine's own asks every caller for a token.
        port: to answer on; 0 takes a free one.
        allow_code: let steps that are pasted into the browser run here, as Python, with your rights.
        deadline: seconds that a plan, a picture or an audit may take before it is stopped.
        browse: open the page in your browser.
    """

    root: Annotated[Path, tyro.conf.Positional] = Path("runs")
    host: str = "127.0.0.1"
    port: int = 8765
    allow_code: bool = False
    deadline: float = 180.0
    browse: bool = True


def run(words: list[str]) -> int:
    """jepalab lab [ROOT] [options]"""
    asked = tyro.cli(LabCommand, prog="jepalab lab", args=words)
    if missing := [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise ValueError(f'The lab needs {" and ".join(missing)}: pip install "jepalab[lab]"')
    import uvicorn

    from jepalab.web.app import create_app

    if not asked.root.is_dir():
        asked.root.mkdir(parents=True)
        print(f"{asked.root} is new and empty; `jepalab train` and `jepalab compare` fill it.")
    is_local = asked.host in ("127.0.0.1", "localhost", "::1")
    token = None if is_local and not asked.allow_code else secrets.token_urlsafe(24)
    listening = listen(asked.host, asked.port)
    port = listening.getsockname()[1]
    hosts = [f"{name}:{port}" for name in (*LOOPBACK, *([] if is_local else _own_names(asked.host)))]
    shown = {"localhost": "127.0.0.1", "::1": "[::1]"}.get(asked.host, asked.host)
    shown = shown if is_local else next(iter(_own_names(asked.host)))
    address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    app = create_app(asked.root, hosts=hosts, token=token, allow_code=asked.allow_code, deadline=asked.deadline)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # live streams never end by themselves
        lifespan="on",
        ws="none",
    )
    print(f"jepalab lab over {asked.root}: {address}\nCtrl-C ends it.", flush=True)
    if asked.browse and is_local:
        webbrowser.open(address)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes calls on this address; port 0 takes a free one. ValueError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ValueError(
            f"Port {port} of {host} cannot be taken ({error.strerror}); choose another with --port, or 0 for any."
        ) from error
    return listening


def _own_names(host: str) -> list[str]:
    """What this machine may be called from outside, where it answers on that address."""
    if host not in ("0.0.0.0", "::"):
        return [f"[{host}]" if ":" in host else host]
    name = socket.gethostname()
    try:
        addresses = [entry[4][0] for entry in socket.getaddrinfo(name, None, socket.AF_INET)]
    except OSError:
        addresses = []
    return [*dict.fromkeys([*map(str, addresses), name, socket.getfqdn()])]
