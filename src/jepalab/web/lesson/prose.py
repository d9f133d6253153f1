"""Prose of the lesson as HTML: paragraphs, `code`, *emphasis*, **names**, [links](https://...); the rest is escaped."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

INLINE = re.compile(r"`([^`]+)`|\[([^\]]+)\]\((https://[^)\s]+)\)|\*\*([^*]+)\*\*|\*([^*]+)\*")


def inline(text: str) -> Markup:
    """One line or paragraph."""
    parts, done = [], 0
    for match in INLINE.finditer(text):
        parts.append(escape(text[done : match.start()]))
        code, words, address, strong, emphasis = match.groups()
        if code:
            parts.append(Markup("<code>{}</code>").format(code))
        elif address:
            parts.append(Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, words))
        else:
            tag = "strong" if strong else "em"
            parts.append(Markup(f"<{tag}>{{}}</{tag}>").format(strong or emphasis))
        done = match.end()
    return Markup("").join([*parts, escape(text[done:])])


def paragraphs(text: str) -> list[Markup]:
    """The paragraphs of a text whose lines may be broken anywhere."""
    return [inline(" ".join(part.split())) for part in re.split(r"\n\s*\n", text.strip())]


def plain(text: str) -> str:
    """The words alone."""
    return INLINE.sub(lambda match: next(group for group in match.groups() if group), text)
