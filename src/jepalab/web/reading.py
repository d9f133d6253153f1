"""Files of folders that nobody vouches for: plain ones only, no links on the way, bounded, and JSON that is JSON."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 16 * 2**20
FOLLOWS_NOTHING = os.O_NOFOLLOW | os.O_NONBLOCK if os.name == "posix" else 0  # nor waits for the other end of a pipe
CAN_WALK = os.name == "posix" and os.open in os.supports_dir_fd


@contextmanager
def opened(root: Path, file: Path) -> Iterator[BinaryIO]:
    """A plain file below the root, opened folder by folder, so that none of them can be swapped for a link meanwhile.

    Raises OSError where it is not there or cannot be opened, and ValueError for what is no plain file.
    """
    parts = file.relative_to(root).parts
    if CAN_WALK:
        number = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=number)
                os.close(number)
                number = inner
            found = os.open(parts[-1], os.O_RDONLY | FOLLOWS_NOTHING, dir_fd=number)
        finally:
            os.close(number)
    else:
        if any((root / Path(*parts[: i + 1])).is_symlink() for i in range(len(parts))):
            raise ValueError("it is a link")
        found = os.open(file, os.O_RDONLY | os.O_BINARY if os.name == "nt" else os.O_RDONLY)
    with os.fdopen(found, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("it is no plain file")
        yield stream


def read_bytes(root: Path, file: Path, *, most: int = MOST_BYTES) -> bytes:
    """All of a plain file. ValueError where it is larger than `most` bytes."""
    with opened(root, file) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most / 2**20:g} MiB")
    return content


def read_json(file: Path, *, root: Path | None = None) -> dict[str, Any]:
    """A JSON object out of a plain file; numbers that are not finite become None. ValueError for anything else.

    root  from which on no folder may be a link; the file's own folder where it is not named.
    """
    found = parse_json(read_bytes(root or file.parent, file))
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def parse_json(text: bytes) -> Any:
    """JSON in UTF-8, made such that it can be sent on as JSON in UTF-8."""
    try:
        return clean(json.loads(text.decode("utf-8", "replace")))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def clean(value: Any) -> Any:
    """The same with None for numbers that are not finite or too large for one, and without halves of letters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): clean(each) for key, each in value.items()}
    return [clean(each) for each in value] if isinstance(value, list | tuple) else value


def clean_text(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def in_a_line(problem: Exception) -> str:
    """An error as one line that names no place outside the root."""
    said = (problem.strerror or "it cannot be opened") if isinstance(problem, OSError) else str(problem)
    return clean_text(" ".join(said.split())[:200])
