"""Flags that would do nothing are refused: what was asked for and not done would be taken for done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def refuse_idle_flags(settings: Any, names: Sequence[str], *, because: str) -> None:
    """ValueError where one of these fields of a dataclass is not at its default.

    because  why the flag has no effect, as the end of a sentence: "without --data, ...".
    """
    usual = {field.name: field.default for field in fields(settings)}
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(settings, name) != usual[name]]:
        have = "has" if len(given) == 1 else "have"
        raise ValueError(f"{', '.join(given)} {have} no effect here: {because}. Leave it out, or change what it needs.")
