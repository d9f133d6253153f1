"""Which paths the browser may name: relative ones that stay below the root, without links on the way."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

MOST_CHARACTERS = 500


class ForbiddenPlaceError(ValueError):
    """A path that leads out of the root, or is none."""


def inside(root: Path, name: str) -> Path:
    """The place below `root` that the page calls `name`, with slashes between folders; "" is the root itself.

    Raises ForbiddenPlaceError for an absolute path, one that climbs, one through a link, and one that is no path.
    """
    parts = PurePosixPath(name).parts
    is_odd = len(name) > MOST_CHARACTERS or any(ord(letter) < 32 or letter == "\\" for letter in name)
    is_odd |= any(part in ("..", ".") or ":" in part or len(os.fsencode(part)) > 255 for part in parts)
    if is_odd or name.startswith(("/", "~")):
        raise ForbiddenPlaceError("That is no path below the folder of runs.")
    place = root
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise ForbiddenPlaceError("That path goes through a link; links are not followed.")
    return place


def name_of(root: Path, place: Path) -> str:
    """What the page calls a place below the root."""
    return place.relative_to(root).as_posix()
