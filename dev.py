#!/usr/bin/env python3
"""Set jepalab up in an environment of its own and run it there. Needs nothing but Python.

    python3 dev.py demo [options]      train JEPAs and their generative twins on the CPU, write a report
    python3 dev.py run [arguments]     run `jepalab` with these arguments
    python3 dev.py test [arguments]    run every gate; the arguments go to pytest
    python3 dev.py check               run the gates that need no execution

The environment is the active one ($VIRTUAL_ENV), else .venv beside this file. It is made on first use, filled again
when pyproject.toml or constraints.txt change, and never replaced.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = Path(os.environ.get("VIRTUAL_ENV") or ROOT / ".venv").absolute()
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")
STAMP = ENVIRONMENT / "jepalab.stamp"

DEMO = ("compare", "distractor", "--preset", "demo")
GATES = {
    "ruff check": (PYTHON, "-m", "ruff", "check", "."),
    "ruff format": (PYTHON, "-m", "ruff", "format", "--check", "."),
    "pyrefly": (PYTHON, "-m", "pyrefly", "check"),
    "lint-imports": ("lint-imports", "--no-logo"),
}


def main(command: str = "", *arguments: str) -> int:
    """Run one of the commands above and return its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this file may have an older Python
        sys.exit(f"jepalab needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: python3.12 dev.py ...")
    if command in ("demo", "run"):
        prepare("[lab]")
        return call(PYTHON, "-m", "jepalab", *(DEMO if command == "demo" else ()), *arguments)
    if command == "test" or (command == "check" and not arguments):
        prepare("[test]")
        if (code := run_static_gates()) or command == "check":
            return code
        os.environ["OMP_NUM_THREADS"] = "1"
        return call(PYTHON, "-m", "pytest", "-n", "2", *arguments, cwd=ROOT)
    print(__doc__)
    return 0 if command in ("-h", "--help") else 2


def prepare(extra: str) -> None:
    """Make sure that the environment exists, holds jepalab with this extra, and is active for what runs next."""
    if not ENVIRONMENT.exists():
        make_environment()
    if not PYTHON.exists():
        sys.exit(f"{ENVIRONMENT} holds no working Python. Delete or deactivate it, then try again.")
    os.environ.update(VIRTUAL_ENV=str(ENVIRONMENT), PATH=f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}")
    # What suffices for the tests suffices for everything else.
    if not STAMP.exists() or STAMP.read_text() not in (contents(extra), contents("[test]")):
        install(extra)


def make_environment() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("This Python cannot make environments. On Debian and Ubuntu: sudo apt install python3-venv")
    if code := call(sys.executable, "-m", "venv", ENVIRONMENT):
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)  # half of one would look like a whole one next time
        sys.exit(code)


def install(extra: str) -> None:
    start = time.perf_counter()
    print(f"Installing jepalab{extra} into {ENVIRONMENT} ... ", end="", flush=True)
    STAMP.unlink(missing_ok=True)
    if code := call(PYTHON, "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", f".{extra}", cwd=ROOT):
        sys.exit(code)
    STAMP.write_text(contents(extra))
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


def contents(extra: str) -> str:
    """A fingerprint of all that decides what the environment holds."""
    versions = f"{ROOT} {extra} {sys.version_info[:2]}".encode()
    files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([versions, *files])).hexdigest()


def run_static_gates() -> int:
    """Run the gates in order, a line each, up to the first that fails; only that one's output is shown."""
    for name, command in GATES.items():
        start = time.perf_counter()
        gate = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        code = exit_code(gate)
        verdict = {0: "ok", 128 + signal.SIGINT: "stopped"}.get(code, "FAILED")
        if verdict == "FAILED":
            sys.stdout.buffer.write(gate.stdout)
        print(f"{name:<14}{verdict:<8}{time.perf_counter() - start:.1f} s", flush=True)
        if code:
            return code
    return 0


def call(*command: str | Path, cwd: Path | None = None) -> int:
    return exit_code(subprocess.run(command, cwd=cwd))


def exit_code(process: subprocess.CompletedProcess) -> int:
    """The exit code as a shell would give it: 128 + the number of the signal that ended the process."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    # Ctrl-C reaches the command that is running too: it ends in its own words, and its exit code is ours.
    signal.signal(signal.SIGINT, lambda *_: None)
    sys.exit(main(*sys.argv[1:]))
