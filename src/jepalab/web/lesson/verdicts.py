"""The audit's verdicts on the steps of the first exercise, kept in verdicts.json.

`make_verdicts` runs the audit on every step, which takes half a minute and needs torch; reading the file needs neither.
"""

from __future__ import annotations

import ast
import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepalab.web.lesson.figures import Figure

if TYPE_CHECKING:
    from jepalab.audit.report import Audit

FILE = Path(__file__).with_name("verdicts.json")
COUNTS = 0.05  # share of the encoder's gradient from which a term counts, as in the audit
NOT_COMPARED = ("regulariser", "unsupported")  # families of terms that hold nothing against a target


@dataclass(frozen=True)
class ShownTerm:
    """A term of the loss as the audit reports it."""

    name: str
    label: str
    family: str
    space: str
    share: float
    novelty: float | None


@dataclass(frozen=True)
class Verdict:
    """What the audit says of a step.

    label      the verdict without its shares: what the exercise takes for right.
    spaces     where the terms compare that send at least 5 % of the gradient, the largest first; "none" where none.
    disputed   what else the largest of them could be called.
    source     the step's code, without what would give its name away.
    """

    step: str
    verdict: str
    label: str
    spaces: tuple[str, ...]
    terms: tuple[ShownTerm, ...]
    disputed: str
    source: str


@cache
def read_verdicts() -> dict[str, Verdict]:
    """The verdicts that were made last, by step."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return {each["step"]: _verdict_from(each) for each in stored}


def _verdict_from(stored: dict[str, Any]) -> Verdict:
    spaces, terms = tuple(stored["spaces"]), tuple(ShownTerm(**term) for term in stored["terms"])
    rest = {name: stored[name] for name in ("step", "verdict", "label", "disputed", "source")}
    return Verdict(spaces=spaces, terms=terms, **rest)


def audit_figures(verdicts: dict[str, Verdict]) -> dict[str, Figure]:
    """What the prose may quote: {audit:STEP/verdict} and {audit:STEP/novelty} of its largest term."""
    figures = {}
    for step, verdict in verdicts.items():
        figures[f"audit:{step}/verdict"] = Figure(verdict.verdict)
        novelty = next((t.novelty for t in verdict.terms), None)
        figures[f"audit:{step}/novelty"] = Figure("none" if novelty is None else f"{novelty:.2f}")
    return figures


def make_verdicts(steps: Iterable[str]) -> list[dict[str, Any]]:
    """What belongs into verdicts.json: the named steps under the audit, live. ValueError for one that is not there."""
    from jepalab.audit import examples
    from jepalab.audit.steps import audit_case, find_cases

    wanted = list(steps)
    cases = {case.name: case for case in find_cases()}
    classics = [each.name for each in examples.examples()]
    functions = dict(
        zip(
            classics,
            (examples.next_token, examples.masked_picture, examples.diffusion, examples.masked_clip),
            strict=True,
        )
    )
    if unknown := [name for name in wanted if name not in cases and name not in functions]:
        raise ValueError(f"The audit has no step {unknown[0]!r}; it has {', '.join([*functions, *cases])}.")
    audits = {}
    if set(wanted) & set(classics):
        audits = dict(zip(classics, examples.audit_examples(confirm=False), strict=True))
    made = []
    for name in wanted:
        if name in audits:
            found, source = audits[name], source_of(functions[name])
        else:
            found, source = audit_case(cases[name]), anonymous(cases[name].source())
        made.append(asdict(verdict_of(name, found, source)))
    return json.loads(json.dumps(made))


def verdict_of(step: str, found: Audit, source: str) -> Verdict:
    """An audit in the few words that the exercise needs."""
    terms = sorted(found.terms, key=lambda term: -term.share)
    counting = [t for t in terms if t.share >= COUNTS and t.family not in NOT_COMPARED]
    spaces = tuple(dict.fromkeys(str(t.space) for t in counting)) if found.verdict != "unsupported" else ()
    return Verdict(
        step=step,
        verdict=found.verdict,
        label=found.verdict.partition(" (")[0],
        spaces=spaces or ("none",),
        terms=tuple(
            ShownTerm(
                name=t.name,
                label=t.label,
                family=str(t.family),
                space=str(t.space),
                share=round(t.share, 2),
                novelty=None if t.novelty is None else round(t.novelty, 2),
            )
            for t in sorted(terms, key=lambda t: t not in counting)
        ),
        disputed=counting[0].ambiguous if counting else "",
        source=source,
    )


def source_of(function: Any) -> str:
    """The code of one of the classic examples, up to what it says of itself."""
    import inspect

    return anonymous(textwrap.dedent(inspect.getsource(function)))


def anonymous(source: str) -> str:
    """A function's source without its docstring, called `ready`, and without the description that it may return."""
    lines = source.splitlines()
    definition = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    first, last = definition.body[0], definition.body[-1]
    has_docstring = ast.get_docstring(definition) is not None
    describes = isinstance(last, ast.Return) and "Example(" in lines[last.lineno - 1]
    start = first.end_lineno if has_docstring else first.lineno - 1
    body = lines[start : last.lineno - 1 if describes else None]
    return "\n".join(["def ready():", *body]).rstrip() + "\n"
