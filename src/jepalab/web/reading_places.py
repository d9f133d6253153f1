"""What a recipe may touch on this machine when a run folder, which may come from anywhere, says with which words it was
called: it reads below a few folders alone, and writes nowhere but into the usual cache.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from jepalab.remaking import settings_of

WRITTEN = frozenset({"cache", "out", "publish"})  # settings that say where something is written; all others are read


@dataclass(frozen=True)
class Reader:
    """Below which folders the recipe of a run may read.

    root  that the lab shows. What lies below it may come from elsewhere, so that links in it lead nowhere else.
    name  of the run, for what is said to the reader.

    The folder in which the lab was started and the one that $JEPALAB_DATA names are allowed as well: who starts the lab
    chose both.
    """

    root: Path
    name: str

    def settings(self, function: Callable[..., Any], place: Any, *, program: str, words: Any) -> dict[str, Any]:
        """With what these words would call the function, which is not called.

        What says where to write is as if it had not been said, here and in `place`.

        Raises:
            ValueError: words that the function does not take today, or that name a place which may not be read.
        """
        settings = settings_of(self.name)(function, place, program=program, words=words)
        signature = inspect.signature(function, eval_str=True)
        defaults = {key: None if p.default is p.empty else p.default for key, p in signature.parameters.items()}
        return {key: self._allowed(key, value, defaults[key]) for key, value in settings.items()}

    def _allowed(self, key: str, value: Any, default: Any) -> Any:
        """The value of a setting, whatever it holds, if it names no place that may not be read."""
        if key in WRITTEN:
            return default
        if is_dataclass(value) and not isinstance(value, type):
            parts = [field for field in fields(value) if field.init]
            held = {each.name: getattr(value, each.name) for each in parts}
            usual = {each.name: None if each.default is MISSING else each.default for each in parts}
            return replace(value, **{name: self._allowed(name, each, usual[name]) for name, each in held.items()})
        if isinstance(value, Mapping):
            for each in value.values():
                self._allowed(key, each, None)
        elif isinstance(value, list | tuple | set | frozenset):
            for each in value:
                self._allowed(key, each, None)
        elif isinstance(value, Path) or (isinstance(value, str) and value != default):
            self._check(key, value)  # some text is a path as well, such as a folder of things that move
        return value

    def _check(self, key: str, value: Path | str) -> None:
        """ValueError if what lies there may not be read. Links are resolved; relative paths are the recipe's own."""
        if "\0" in str(value):
            raise ValueError(f"{self.name} was trained with {key} {str(value)[:60]!r}, which is no path.")
        place, root = _real(value), _real(self.root)
        if not any(place.is_relative_to(folder) for folder in (root, *_named())):
            allowing = place if place.is_dir() or not place.exists() else place.parent
            raise ValueError(
                f"{self.name} wants to read {place} ({key}), which lies neither below the folder that this lab shows "
                f"nor below that in which it was started. If that is data of yours, start the lab with "
                f"JEPALAB_DATA={shlex.quote(str(allowing))} to allow it."
            )
        folder = place if place.is_dir() else place.parent  # what reads a file may look beside it
        if not place.exists() or not (folder.is_relative_to(root) or root.is_relative_to(folder)):
            return
        for link in _links(folder):
            if not _real(link).is_relative_to(folder):
                raise ValueError(
                    f"{self.name} wants to read {folder} ({key}), in which {link.relative_to(folder)} is a link to "
                    "elsewhere; such links are not followed. Put the files themselves there."
                )


def _named() -> list[Path]:
    """The folders that whoever started the lab allows for reading."""
    data = os.environ.get("JEPALAB_DATA")
    return [Path(os.path.realpath(folder)) for folder in (os.getcwd(), data) if folder]


def _real(place: Path | str) -> Path:
    return Path(os.path.realpath(place))


def _links(folder: Path) -> Iterator[Path]:
    for at, folders, files in os.walk(folder, followlinks=False):
        yield from (place for name in (*folders, *files) if (place := Path(at, name)).is_symlink())
