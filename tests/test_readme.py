"""README keeps its word: every Python block runs, every command line is one that jepalab understands."""

from __future__ import annotations

import functools
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jepalab import auditing, catalogue, embedding, learning, masking, planning, probing, serving
from jepalab.audit import examples
from jepalab.cli import main
from jepalab.compare import report
from jepalab.recipes import linear, tuning
from small_runs import start

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SCRIPTS = [text for language, text in BLOCKS if language in ("python", "py")]
LINES = [
    words
    for language, text in BLOCKS
    if language in ("bash", "sh", "console")
    for line in text.replace("\\\n", " ").splitlines()
    if (words := shlex.split(line.removeprefix("$ "), comments=True))
]
DEMO = runpy.run_path(str(ROOT / "dev.py"), run_name="dev")["DEMO"]
UNDERSTOOD = 77


def spoken_to_jepalab(words: list[str]) -> list[str] | None:
    """The arguments that `jepalab` gets from this line, or None where it gets none."""
    match words:
        case ["jepalab", *rest] | [_, "-m", "jepalab", *rest] | [_, "dev.py", "run", *rest]:
            return rest
        case [_, "dev.py", "demo", *rest]:
            return [*DEMO, *rest]
        case _:
            return None


COMMANDS = [words for line in LINES if (words := spoken_to_jepalab(line)) is not None]


def understand(words: list[str], folder: Path) -> None:
    """Ends with UNDERSTOOD where jepalab has read the words and goes to work; for a process of its own."""
    os.chdir(folder)
    for find in ("find_recipes", "find_experiments", "find_tunables"):
        found = {name: at_work(function) for name, function in getattr(catalogue, find)().items()}
        for module in [module for module in sys.modules.values() if find in getattr(module, "__dict__", {})]:
            setattr(module, find, lambda found=found: found)  # commands may have been imported before
    works = ((tuning, "tune"), (linear, "learn"), (report, "write_report"), (auditing, "load"))
    works = (*works, (probing, "load"), (embedding, "load"), (masking, "coverage"), (planning, "open_world"))
    works = (*works, (serving, "listen"), (learning, "default_place"))
    for module, name in (*works, (auditing, "audit_objective"), (examples, "audit_examples")):
        setattr(module, name, at_work(getattr(module, name)))
    if main(words) == 0 and words[0] == "list":
        sys.exit(UNDERSTOOD)


def at_work(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's flags and prose, without what it does."""

    @functools.wraps(function)
    def go_to_work(*arguments: Any, **settings: Any) -> None:
        sys.exit(UNDERSTOOD)

    return go_to_work


def test_readme_shows_python_and_commands() -> None:
    assert SCRIPTS
    assert COMMANDS
    assert {"compare", "train"} <= {words[0] for words in COMMANDS}
    for promised in (["python3", "dev.py", "demo"], ["python3", "dev.py", "test"]):
        assert promised in LINES


@pytest.mark.dist
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_line_is_understood(words: list[str], tmp_path: Path) -> None:
    process = start(understand, words, tmp_path)
    process.join(60)
    process.kill()  # should it have gone to work after all
    assert process.exitcode == UNDERSTOOD


def test_python_blocks_run_in_order(tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text("\n".join(SCRIPTS), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", script]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
