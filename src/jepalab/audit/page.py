"""Audits as one HTML page that needs no network, no script and nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from jepalab.audit.picture import draw
from jepalab.audit.report import Audit, Confirmation, Family, Finding, Place, Term
from jepalab.audit.shapes import printable
from jepalab.audit.text import (
    by_share,
    change,
    describe_average,
    describe_place,
    describe_steps,
    describe_unexplained,
    novelty,
    percent,
)
from jepalab.audit.wording import VERSUS, compared_in_words

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
WEIGHTS = {"error": ("bad", "✗ error"), "warning": ("bad", "! warning"), "note": ("open", "○ note")}
ANSWERS = {True: ("good", "✓ agree"), False: ("bad", "✗ CONTRADICT"), None: ("open", "○ could not tell")}
NOVELTY = "Novelty: the part of what the target depends on in the input that the prediction has not seen."
FAMILIES = [family.value.lower() for family in Family]


def write_page(audits: Sequence[Audit], path: Path) -> Path:
    """Writes the page of these audits to `path`, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(render(audits), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(audits: Sequence[Audit]) -> str:
    """The page as text. Equal audits give equal pages."""
    titles = [audit.title or "One training step" for audit in audits]
    heading = titles[0] if len(audits) == 1 else "What do these losses compare?"
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{_text(heading)}: what the loss compares</title>\n<style>\n{style}</style>\n</head>\n<body>",
    ]
    if len(audits) != 1:
        parts.append(f"<header>\n<h1>{_text(heading)}</h1>\n{_overview(audits, titles)}\n</header>")
    parts.append("<main>")
    parts += [_audit(audit, title, number) for number, (audit, title) in enumerate(zip(audits, titles, strict=True))]
    parts.append("</main>\n</body>\n</html>\n")
    return "\n".join(parts)


def _overview(audits: Sequence[Audit], titles: Sequence[str]) -> str:
    """One row for each term; the step's name and verdict span those of its terms."""
    rows = []
    for number, (audit, title) in enumerate(zip(audits, titles, strict=True)):
        ranked = by_share(audit.terms)
        span = f' rowspan="{len(ranked)}"' if len(ranked) > 1 else ""
        verdict = f'<td{span}><strong class="verdict-word">{_text(audit.verdict)}</strong></td>'
        first = f'<td{span}><a href="#audit-{number}">{_text(title)}</a></td>{verdict}'
        for term in ranked:
            cells = (f"<code>{_text(term.op)}</code>", _phrase(term), _text(term.target_learning), novelty(term))
            rows.append(
                f'<tr>{first}<td class="number">{_text(percent(term.share))}</td>{"".join(map(_cell, cells))}</tr>'
            )
            first = ""
        if not ranked:
            rows.append(f'<tr>{first}<td colspan="5">no term was found</td></tr>')
    head = ("step", "verdict", "share", "loss", "what it compares", "target network", "novelty")
    return _table(head, rows)


def _cell(markup: str) -> str:
    return f"<td>{markup}</td>"


def _audit(audit: Audit, title: str, number: int) -> str:
    parts = [
        f'<section class="audit" id="audit-{number}">\n<p class="kicker">{_text(title)}</p>',
        f'<h2 class="verdict">{_text(audit.verdict)}</h2>\n<p class="why">{_text(audit.why)}</p>',
        _mixture(audit),
        f'<div class="picture" tabindex="0">{draw(audit.drawing)}</div>' if audit.drawing.boxes else "",
        "<h3>What each term compares</h3>" + _terms(audit),
        _facts(
            "What else it could be called", [("open", t.name, _text(t.ambiguous)) for t in audit.terms if t.ambiguous]
        ),
        _facts("What keeps it from the constant solution", _guards(audit.terms)),
        _facts("Findings", map(_finding, audit.findings)),
        _facts("Confirmations", map(_confirmation, audit.confirmations)),
        _facts("Networks", _networks(audit)),
        f'<p class="question">{_text(audit.question)}</p>\n</section>',
    ]
    return "\n".join(filter(None, parts))


def _mixture(audit: Audit) -> str:
    if len(audit.mixture) < 2:
        return ""
    ranked = sorted(audit.mixture.items(), key=lambda item: -item[1])
    styles = [name.lower() if name.lower() in FAMILIES else "other" for name, _ in ranked]
    bar = "".join(
        f'<span class="{style}" style="flex:{share:.4f}"></span>'
        for (_, share), style in zip(ranked, styles, strict=True)
    )
    names = "".join(
        f'<li class="{style}"><span>{_text(name)} {_text(percent(share))}</span></li>'
        for (name, share), style in zip(ranked, styles, strict=True)
    )
    return f'<div class="mixture"><div class="bar" aria-hidden="true">{bar}</div><ul>{names}</ul></div>'


def _terms(audit: Audit) -> str:
    if not audit.terms:
        return "<p>No term was found in this step.</p>"
    columns: dict[str, Callable[[Term], str]] = {
        "share": lambda term: _text(percent(term.share)),
        "early, late": lambda term: _text(change(term)).replace(" -&gt; ", "\u00a0→\u00a0"),
        "term": lambda term: f"<strong>{_text(term.name)}</strong>",
        "what it compares": lambda term: f"{_phrase(term)}<small>{_text(term.label)}</small>",
        "space": lambda term: _text(term.space or "unknown"),
        "process": lambda term: _text(term.process),
        "target network": lambda term: _text(term.target_learning),
        "stop-gradient": lambda term: "yes" if term.stop_gradient else "no",
        "novelty": novelty,
        "where": _where,
    }
    rows = [
        "<tr>" + "".join(_cell(cell(term)) for cell in columns.values()) + "</tr>" for term in by_share(audit.terms)
    ]
    unexplained = describe_unexplained(audit)
    warning = f'<p class="warning">{_text(unexplained)}</p>' if unexplained else ""
    note = f'<p class="note">{_text(describe_steps(audit))} {NOVELTY}</p>'
    return "\n".join([_table(tuple(columns), rows), note, warning])


def _where(term: Term) -> str:
    called = f"<small>from {_place(term.called_from)}</small>" if term.called_from else ""
    return f"<code>{_text(term.op)}</code><small>{_place(term.place)}</small>{called}"


def _place(place: Place) -> str:
    return f'<code title="{_text(f"{place} in {place.function}: {place.text}")}">{_text(describe_place(place))}</code>'


def _guards(terms: Iterable[Term]) -> list[tuple[str, str, str]]:
    return [("open", term.name, _text(", ".join(term.anti_collapse))) for term in terms if term.anti_collapse]


def _finding(finding: Finding) -> tuple[str, str, str]:
    style, word = WEIGHTS.get(finding.weight, ("open", finding.weight))
    place = f" {_place(finding.place)}" if finding.place else ""
    return style, word, f"<strong>{_text(finding.kind)}</strong>: {_text(finding.message)}{place}"


def _confirmation(each: Confirmation) -> tuple[str, str, str]:
    about = f" of {_text(each.term)}" if each.term else ""
    return *ANSWERS[each.agrees], f"<strong>{_text(each.test)}</strong>{about}: {_text(each.message)}"


def _networks(audit: Audit) -> list[tuple[str, str, str]]:
    facts = [("open", name, f"{count:,} parameters") for name, count in audit.parameters.items()]
    return facts + [("open", "slow copy", _text(describe_average(average))) for average in audit.averages]


def _facts(title: str, facts: Iterable[tuple[str, str, str]]) -> str:
    """A titled list of (style, word, markup); nothing where it is empty."""
    lines = [f'<li><strong class="{s}">{_text(word)}</strong><span>{markup}</span></li>' for s, word, markup in facts]
    return f'<h3>{title}</h3>\n<ul class="facts">{"".join(lines)}</ul>' if lines else ""


def _table(head: Sequence[str], rows: Iterable[str]) -> str:
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    table = f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _phrase(term: Term) -> str:
    words = _text(compared_in_words(term)).replace(_text(VERSUS), " ↔ ")
    return f'<span class="phrase">{words}</span>'


def _text(text: str) -> str:
    """The text as markup; a number keeps its per cent sign, and no control character gets in."""
    return escape(printable(text)).replace(" %", "\u00a0%")
