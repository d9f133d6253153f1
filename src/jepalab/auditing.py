"""The command `jepalab audit`: somebody's step, the classic examples, or every objective of ours under the audit."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from jepalab.audit import Audit, Family, audit
from jepalab.audit.page import write_page
from jepalab.audit.text import in_words, side_by_side
from jepalab.objectives import find_objectives
from jepalab.types import Objective

KEYWORDS = ("step", "inputs", "parameters", "encoder", "optimizer", "after_step", "roles")
WANTED = (
    "a function without arguments that returns the step, its inputs and its modules, for example\n"
    '    return step, {"x": images}, {"encoder": encoder, "predictor": predictor}\n'
    f"or a mapping with some of {', '.join(KEYWORDS)}"
)


@dataclass(frozen=True)
class AuditCommand:
    """Says what each term of a training step's loss compares, and how much each drives the encoder.

    Args:
        target: MODULE:FUNCTION or FILE.py:FUNCTION; the function returns the step, its inputs and its modules.
        all: audit every objective of jepalab and hold it against what it declares.
        examples: audit the four classic set-ups side by side.
        steps: number of training steps over which the shares of the gradient are averaged.
        confirm: also run the black-box tests, which look at numbers alone.
        html: also write the audit, with a picture of the computation, into this file.
        json: print the audit as JSON.
    """

    target: Annotated[str, tyro.conf.Positional] = ""
    all: bool = False
    examples: bool = False
    steps: int = 10
    confirm: bool = False
    html: Path | None = None
    json: bool = False


def run(words: list[str]) -> int:
    """Runs the command; 1 if an objective of ours compares something else than it declares."""
    command = tyro.cli(AuditCommand, prog="jepalab audit", args=words)
    if sum((bool(command.target), command.all, command.examples)) != 1:
        print("usage: jepalab audit FILE.py:FUNCTION, jepalab audit --examples or jepalab audit --all", file=sys.stderr)
        return 2
    broken: list[str] = []
    if command.examples:
        from jepalab.audit.examples import audit_examples

        audits = audit_examples(steps=command.steps, confirm=command.confirm)
    elif command.all:
        audits = []
        for name, objective in find_objectives().items():
            if objective.compares:
                found = audit_objective(objective, steps=command.steps, confirm=command.confirm, title=name)
                broken += [f"{name}: {difference}" for difference in differences(found, objective)]
                audits.append(found)
    else:
        audits = [audit(**load(command.target), steps=command.steps, confirm=command.confirm, title=command.target)]
    if command.html:
        write_page(audits, command.html)
    if command.json:
        several = [found.to_json() for found in audits]
        print(json.dumps(several if len(audits) > 1 else several[0], indent=2))
    else:
        print(_shown(audits, command))
        if command.html:
            print(f"\npicture: {command.html.resolve()}")
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


def _shown(audits: list[Audit], command: AuditCommand) -> str:
    if command.examples:
        from jepalab.audit.lesson import lesson

        return lesson(audits)
    return in_words(audits[0]) if command.target else side_by_side(audits)


def load(target: str) -> dict[str, Any]:
    """What `audit` needs, from the function that MODULE:FUNCTION or FILE.py:FUNCTION names."""
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise ValueError(f"Wanted FILE.py:FUNCTION or MODULE:FUNCTION, got {target!r}.")
    function = getattr(_module(where), name, None)
    if not callable(function):
        raise ValueError(f"{where} has no function {name!r}. Wanted {WANTED}.")
    try:
        given = function()
    except TypeError as error:
        raise ValueError(f"{name} could not be called without arguments ({error}). Wanted {WANTED}.") from error
    return settings(given, target)


def settings(given: Any, target: str) -> dict[str, Any]:
    """The arguments of `audit` in what such a function returned."""
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        given = dict(zip(given._fields, given, strict=True))
    elif dataclasses.is_dataclass(given) and not isinstance(given, type):
        given = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    if isinstance(given, Mapping) and {"step", "inputs"} <= given.keys():
        return {name: given[name] for name in KEYWORDS if given.get(name) is not None}
    if isinstance(given, tuple) and len(given) in (2, 3) and callable(given[0]):
        modules = given[2] if len(given) == 3 else {}
        encoder = modules.get("encoder") if isinstance(modules, Mapping) else None
        return {"step": given[0], "inputs": given[1], "parameters": modules, "encoder": encoder}
    raise ValueError(f"{target} returned {type(given).__name__}. Wanted {WANTED}.")


def _module(where: str) -> Any:
    """A module by the path of its file or by its name, with the folder one stands in importable."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"There is no module {where!r} here ({error}). For a file, write FILE.py:FUNCTION."
            ) from error
    path = Path(where)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module


def audit_objective(kind: type[Objective], *, steps: int = 10, confirm: bool = False, title: str = "") -> Audit:
    """An objective's smallest instance under the audit, trained as `fit` trains it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective, batch = kind.tiny()
        optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-3)

        def step() -> Any:
            loss = objective(batch)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            objective.after_step(0.0)
            return loss

        encoder = objective.encoder
        return audit(step, batch, parameters=objective, encoder=encoder, steps=steps, confirm=confirm, title=title)


def differences(found: Audit, kind: type[Objective]) -> list[str]:
    """Where the audit saw another space than the objective declares, or no such term at all."""
    said = []
    for name, space in kind.compares.items():
        seen = {str(term.space) for term in found.terms if term.name == name}
        if seen and seen != {str(space)}:
            said.append(f"the term {name!r} compares {', '.join(sorted(seen))}, not {space} as declared")
    strange = {term.name for term in found.terms if term.family is not Family.REGULARISER} - kind.compares.keys()
    return said + [f"compares {name!r} without declaring it" for name in sorted(strange)]
