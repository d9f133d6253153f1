"""The lesson as HTML: a body that the lab shows at /learn, and a page that stands alone and asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jepalab.web.lesson import choices
from jepalab.web.lesson.bundle import bundle
from jepalab.web.lesson.content import Content, Evidence, Question, read_content
from jepalab.web.lesson.figures import Figures, fill, read_figures
from jepalab.web.lesson.prose import inline, paragraphs, plain
from jepalab.web.lesson.verdicts import audit_figures, read_verdicts

STATIC = Path(__file__).parents[1] / "static"
LETTERS = "abcdefg"


@cache
def lesson_body(*, served: bool) -> Markup:
    """The lesson without a page around it. `served`: there is a worker that can audit a step live."""
    content, figures = read_content(), {**read_figures(), **audit_figures(read_verdicts())}
    template = _templates().get_template("lesson_body.html.jinja")
    return Markup(
        template.render(
            content=content,
            lead=inline(content.lead),
            questions=[
                _question(letter, q, content, figures) for letter, q in zip(LETTERS, content.question, strict=True)
            ],
            items=_items(content),
            hints=_hints(),
            data=data_block(page_data(content, served=served)),
            served=served,
        )
    )


def page_alone() -> str:
    """The whole lesson in one file: style and script inside, allowed by their hashes and nothing else."""
    style = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("lab.css", "learn.css"))
    script = bundle(STATIC, "learn.js")
    mark = base64.b64encode((STATIC / "mark.svg").read_bytes()).decode()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _templates().get_template("lesson_alone.html.jinja")
    return template.render(
        title=read_content().title,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        mark=f"data:image/svg+xml;base64,{mark}",
        body=lesson_body(served=False),
    )


def page_data(content: Content, *, served: bool) -> dict[str, Any]:
    """What the page's script works on."""
    verdicts = read_verdicts()
    return {
        "served": served,
        "labels": choices.LABELS,
        "spaces": choices.SPACES,
        "instruments": choices.INSTRUMENTS,
        "categories": choices.CATEGORIES,
        "steps": [
            {
                "id": step.step,
                "fixed": step.classic,
                "title": step.title,
                "method": step.method,
                "describes": step.describes,
                "reason": step.reason,
                "verdict": verdicts[step.step].verdict,
                "label": verdicts[step.step].label,
                "spaces": verdicts[step.step].spaces,
                "terms": [[t.label, t.family, t.space, t.share, t.novelty] for t in verdicts[step.step].terms],
                "disputed": verdicts[step.step].disputed,
                "source": verdicts[step.step].source,
            }
            for step in content.step
        ],
        "scopes": [
            {
                "id": item.id,
                "fixed": item.fixed,
                "asks": item.asks,
                "scope": item.scope,
                "by": [item.by, *item.also],
                "reason": item.reason,
                "command": item.command,
            }
            for item in content.scope
        ],
        "cards": [{"topic": card.topic, "front": plain(card.front), "back": plain(card.back)} for card in content.card],
    }


def data_block(value: Any) -> Markup:
    """JSON that may stand in a script element of type application/json."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _question(letter: str, question: Question, content: Content, figures: Figures) -> dict[str, Any]:
    return {
        "letter": letter,
        "id": question.id,
        "title": question.title,
        "ask": inline(question.ask),
        "answer": paragraphs(fill(question.answer, figures)),
        "points": [inline(point) for point in question.points],
        "headings": question.evidence,
        "supporting": [_evidence(each, content, figures) for each in question.supporting],
        "opposing": [_evidence(each, content, figures) for each in question.opposing],
        "runs": [
            {
                "command": run.command,
                "takes": run.takes,
                "needs": run.needs,
                "shows": inline(fill(run.shows, figures)),
                "measured": inline(fill(run.measured, figures)),
            }
            for run in question.run
        ],
    }


def _evidence(evidence: Evidence, content: Content, figures: Figures) -> dict[str, Any]:
    sources = [content.source_named(name) for name in evidence.sources]
    return {
        "text": inline(fill(evidence.text, figures)),
        "sources": sources,
        "secondary": evidence.secondary or any(source.secondary for source in sources),
    }


def _items(content: Content) -> list[dict[str, Any]]:
    """The steps with their verdicts, for paper."""
    verdicts = read_verdicts()
    return [{"step": step, "verdict": verdicts[step.step]} for step in content.step]


def _hints() -> dict[str, str]:
    """The words of both exercises in one line each, for paper."""
    return {
        "labels": ", ".join(choices.LABELS),
        "spaces": ", ".join(choices.SPACES),
        "instruments": ", ".join(choices.INSTRUMENTS),
        "categories": ", ".join(choices.CATEGORIES),
    }


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("jepalab.web", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
