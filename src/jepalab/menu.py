"""What the commands share when they talk: names with suggestions, tables of words, first lines of docstrings."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Collection
from typing import Any


def known(word: str, names: Collection[str], kind: str) -> str | None:
    """The word if it is one of the names; otherwise None, after a suggestion on standard error."""
    if word in names:
        return word
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    hint = f"Perhaps you meant {close[0]}." if close else f"There are: {', '.join(names)}."
    print(f"jepalab knows no {kind} {word!r}. {hint}", file=sys.stderr)
    return None


def summary(function: Callable[..., Any]) -> str:
    """The first line of what a function says of itself."""
    return (function.__doc__ or "").strip().split("\n")[0]


def table(rows: dict[str, str]) -> str:
    """Names and texts in two columns."""
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())
