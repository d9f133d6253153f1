"""What is opened once in a process, though its path may be relative to where the process stands."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TypeVar

Arg = TypeVar("Arg")
Opened = TypeVar("Opened")


def once_here(opening: Callable[[Arg], Opened]) -> Callable[[Arg], Opened]:
    """As `functools.cache`, but "photos" is another folder where the working directory is another, as in a notebook."""

    @cache
    def remembered(_: Path, asked: Arg) -> Opened:
        return opening(asked)

    @wraps(opening)
    def ask(asked: Arg) -> Opened:
        return remembered(Path.cwd(), asked)

    return ask
