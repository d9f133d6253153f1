"""One file, one objective. A file in this folder is found by the contract tests, `jepalab list` and the docs."""

from __future__ import annotations

import importlib
import pkgutil

from jepalab.types import Objective


def find_objectives() -> dict[str, type[Objective]]:
    """Every objective in this folder, by the name of its file."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        namespace = vars(importlib.import_module(f"{__name__}.{module.name}"))
        own = [c for c in namespace.values() if isinstance(c, type) and c.__module__ == f"{__name__}.{module.name}"]
        classes = [c for c in own if issubclass(c, Objective)]
        assert len(classes) == 1, f"objectives/{module.name}.py must define one objective, found {len(classes)}"
        found[module.name] = classes[0]
    return found
