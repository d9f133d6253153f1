"""What a training step's loss compares: a shipped step, an objective of ours, or, where allowed, code of the reader's.

{"list": true}                         the steps that there are
{"step": "byol"}                       one of them under the audit
{"objective": "MaskedJEPA"}            an objective's smallest instance
{"code": "...", "function": "my_step"}  a file whose function returns the step, its inputs and its modules
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jepalab.audit import Audit, audit, examples
from jepalab.audit.page import render
from jepalab.audit.picture import draw
from jepalab.audit.steps import audit_case, find_cases
from jepalab.audit.text import describe_place
from jepalab.audit.wording import VERSUS, compared_in_words
from jepalab.auditing import audit_objective, load
from jepalab.objectives import find_objectives
from jepalab.web.tasks import Arguments, Tell, wanted

MOST_CODE = 100_000
CLASSICS: dict[str, Callable[[], examples.Example]] = {
    "next token": examples.next_token,
    "masked picture": examples.masked_picture,
    "diffusion": examples.diffusion,
    "masked clip": examples.masked_clip,
}


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """Lists the steps, or audits one."""
    if arguments.get("list"):
        return {"steps": list_steps()}
    if "code" in arguments:
        if not allow_code:
            raise ValueError("Code from the browser runs only where `jepalab lab --allow-code` was said.")
        return audit_code(wanted(arguments, "code", str), function=wanted(arguments, "function", str))
    confirm = wanted(arguments, "confirm", bool, default=False)
    if "objective" in arguments:
        return _of_objective(wanted(arguments, "objective", str), confirm=confirm)
    return _of_step(wanted(arguments, "step", str), confirm=confirm)


def list_steps() -> list[dict[str, Any]]:
    """Every shipped step with a line about it, the four classics first, the objectives last."""
    classics = [{"name": e.name, "kind": "classic", "summary": f"Asks for {e.hidden}."} for e in examples.examples()]
    cases = [{"name": c.name, "kind": "table", "number": c.number, "summary": c.summary()} for c in find_cases()]
    ours = [
        {"name": kind.__name__, "kind": "objective", "summary": (inspect.getdoc(kind) or "").partition("\n")[0]}
        for kind in find_objectives().values()
        if kind.compares
    ]
    return [*classics, *cases, *ours]


def audit_code(code: str, *, function: str) -> dict[str, Any]:
    """The step that a pasted file's function returns, under the audit. ValueError for what is wrong with the code."""
    if len(code) > MOST_CODE or not function.isidentifier():
        raise ValueError(f"Wanted at most {MOST_CODE:,} characters of code, and the name of a function in it.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pasted_step.py"
        file.write_text(code, encoding="utf-8")
        try:
            given = load(f"{file}:{function}")
            found = audit(**given, steps=3, title=function)
        except ValueError:
            raise
        except Exception as error:  # whatever the pasted code raised is the answer
            raise ValueError(f"The code stopped with {type(error).__name__}: {error}") from error
        return describe(found, source=code)


def _of_step(name: str, *, confirm: bool) -> dict[str, Any]:
    if name in CLASSICS:
        found = next(each for each in examples.audit_examples(confirm=confirm) if each.title == name)
        return describe(found, source=inspect.getsource(CLASSICS[name]))
    case = next((case for case in find_cases() if case.name == name), None)
    if case is None:
        raise ValueError(f"There is no step {name[:60]!r} among the shipped ones.")
    return describe(audit_case(case, confirm=confirm), source=case.source())


def _of_objective(name: str, *, confirm: bool) -> dict[str, Any]:
    every = {kind.__name__: kind for kind in find_objectives().values()}
    if name not in every:
        raise ValueError(f"There is no objective {name[:60]!r} in this jepalab.")
    kind = every[name]
    if not kind.compares:
        raise ValueError(f"{name} is not trained, so there is nothing to compare.")
    found = audit_objective(kind, confirm=confirm, title=kind.__name__)
    return describe(found, source=inspect.getsource(kind))


def describe(found: Audit, *, source: str) -> dict[str, Any]:
    """An audit as the page shows it: verdict, terms, picture, findings, the code, and a page to keep."""
    return {
        "title": found.title,
        "verdict": found.verdict,
        "why": found.why,
        "question": found.question,
        "mixture": dict(found.mixture),
        "terms": [_term(term) for term in sorted(found.terms, key=lambda term: -term.share)],
        "findings": [_plain(asdict(f), found=("kind", "weight", "message")) for f in found.findings],
        "confirmations": [_plain(asdict(c), found=("test", "term", "agrees", "message")) for c in found.confirmations],
        "svg": draw(found.drawing) if found.drawing.boxes else "",
        "source": source,
        "page": render([found]),
    }


def _term(term: Any) -> dict[str, Any]:
    return {
        "name": term.name,
        "label": term.label,
        "family": str(term.family),
        "space": str(term.space) if term.space else "",
        "process": str(term.process),
        "target": str(term.target_learning),
        "share": term.share,
        "novelty": term.novelty,
        "words": compared_in_words(term).replace(VERSUS, " ↔ "),
        "place": describe_place(term.place),
        "ambiguous": term.ambiguous,
        "anti_collapse": list(term.anti_collapse),
    }


def _plain(facts: Mapping[str, Any], *, found: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts[name] for name in found}
