"""The command `jepalab learn`: the lesson as one file, opened in the browser. It needs no server and no torch."""

from __future__ import annotations

import os
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class LearnCommand:
    """Writes the lesson into one HTML file and opens it: seven questions, two exercises, a deck of flashcards.

    The file asks nothing of the network and keeps what you enter in your browser.

    Args:
        out: where to write it; without it, lesson.html in $JEPALAB_CACHE or .cache/jepalab in your home.
        browse: open it in your browser.
    """

    out: Path | None = None
    browse: bool = True


def run(words: list[str]) -> int:
    """jepalab learn [--out FILE] [--no-browse]"""
    asked = tyro.cli(LearnCommand, prog="jepalab learn", args=words)
    from jepalab.web.lesson.page import page_alone

    file = (asked.out or default_place()).resolve()
    if file.is_dir():
        raise ValueError(f"Wanted a file to write the lesson into, got the folder {file}; add a name, as lesson.html.")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        partial.write_text(page_alone(), encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    print(file)
    if asked.browse:
        webbrowser.open(file.as_uri())
    return 0


def default_place() -> Path:
    """Where the lesson is kept between calls."""
    return Path(os.environ.get("JEPALAB_CACHE") or Path.home() / ".cache" / "jepalab") / "lesson.html"
