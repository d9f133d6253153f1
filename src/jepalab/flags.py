"""Flags made from the keyword arguments of a function, so that a recipe's signature is its command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import tyro


class Called(NamedTuple):
    """What came of a command line: where to put the result, the settings, and what the function made of them."""

    place: Any
    settings: dict[str, Any]
    made: Any


def call_with_flags(function: Callable[..., Any], place: Any, *, program: str, words: list[str]) -> Called:
    """Calls the function with flags made from its keyword arguments, beside those of `place`, a dataclass.

    What is a field of `place` and an argument of the function too is one flag, which both get.
    """
    signature = inspect.signature(function, eval_str=True)
    both = signature.parameters.keys() & vars(place).keys()
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values() if p.name not in both]
    own = [p.replace(default=p.annotation()) if p.default is p.empty else p for p in own]
    where = inspect.Parameter("place", inspect.Parameter.KEYWORD_ONLY, annotation=type(place), default=place)

    def called(*, place: Any, **settings: Any) -> Called:
        shared = {name: getattr(place, name) for name in both}
        return Called(place, settings, function(**settings, **shared))

    called.__signature__ = signature.replace(parameters=[*own, where])  # pyrefly: ignore[missing-attribute]
    called.__annotations__ = {p.name: p.annotation for p in (*own, where)}
    called.__doc__ = function.__doc__
    flat = (tyro.conf.OmitArgPrefixes, tyro.conf.ConsolidateSubcommandArgs)
    return tyro.cli(called, prog=program, args=words, config=flat)


def flatten(settings: dict[str, Any]) -> dict[str, str | int | float | None]:
    """The settings flag by flag, as JSON can hold them."""
    flat: dict[str, str | int | float | None] = {}
    for name, value in settings.items():
        is_plain = value is None or isinstance(value, str | int | float)
        flat |= flatten(vars(value)) if is_dataclass(value) else {name: value if is_plain else str(value)}
    return flat
