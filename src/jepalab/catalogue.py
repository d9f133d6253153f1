"""What there is, found by looking: a file in objectives/, a function in recipes/, nothing registered anywhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from jepalab import instruments, recipes
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.instruments.labelled import LabelledSubject
from jepalab.objectives import find_objectives
from jepalab.run import Run
from jepalab.types import Subject


def find_recipes() -> dict[str, Callable[..., Run]]:
    """Every public function in recipes/ whose first argument is a `Bench` and which returns a run, name hyphenated."""
    return _find(recipes, lambda f, hints: hints.get("return") is Run and "bench" in hints)


def find_experiments() -> dict[str, Callable[..., Plan]]:
    """Every function `plan` in recipes/, by the name of its module."""
    return _by_module("plan")


def find_tunables() -> dict[str, Callable[..., Tunable]]:
    """Every function `tunable` in recipes/, by the name of its module."""
    return _by_module("tunable")


def _by_module(name: str) -> dict[str, Callable[..., Any]]:
    modules = [module for module in _modules(recipes) if name in vars(module)]
    return {module.__name__.split(".")[-1].replace("_", "-"): vars(module)[name] for module in modules}


def find_instruments() -> dict[str, Callable[..., dict[str, float]]]:
    """Every public function in instruments/ that turns a subject, of clips or of pictures, into scores."""
    judged = (Subject, LabelledSubject)
    return _find(instruments, lambda f, hints: hints.get("subject") in judged and hints["return"] == dict[str, float])


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """All of it, with one-line summaries, as JSON can hold it."""
    objectives = {
        name: {"summary": _first_line(o), "compares": {term: str(space) for term, space in o.compares.items()}}
        for name, o in find_objectives().items()
    }
    others = {"recipes": find_recipes(), "experiments": find_experiments(), "instruments": find_instruments()}
    rest = {kind: {name: {"summary": _first_line(f)} for name, f in found.items()} for kind, found in others.items()}
    return {"objectives": objectives, **rest}


def _find(package: ModuleType, wanted: Callable[[Any, dict[str, Any]], bool]) -> dict[str, Any]:
    found = {}
    for module in _modules(package):
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                hints = inspect.get_annotations(function, eval_str=True)
                if wanted(function, hints):
                    found[name.replace("_", "-")] = function
    return found


def _modules(package: ModuleType) -> list[ModuleType]:
    return [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n")[0]
