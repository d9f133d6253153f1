"""What the worker can do, a file each: `run(arguments, *, root, allow_code, tell)` returns what JSON can hold.

    arguments   what the page sent, unchecked.
    root        the folder of runs; names in the arguments are below it (`places.inside`).
    allow_code  whether code that was written in the browser may run.
    tell        sends news to the page while the work goes on.

A task raises ValueError with a sentence for the reader where it cannot do what was asked. There is no list of tasks:
what lies in this folder exists.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

Tell = Callable[[Any], None]
Arguments = Mapping[str, Any]


def known_tasks() -> list[str]:
    """The names of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def wanted(arguments: Arguments, name: str, kind: type, *, default: Any = None) -> Any:
    """An argument of this type. ValueError where it is missing or of another type."""
    value = arguments.get(name, default)
    is_number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, kind) or is_number) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"Wanted {name} as {kind.__name__}, got {str(value)[:60]!r}.")
    return float(value) if is_number else value
