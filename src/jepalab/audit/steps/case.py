"""A row of the audit's label table: a training step as public code would write it, and what is to be said of it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Expect:
    """The fields one audited term must have. None: any value will do; a tuple: one of these.

    novelty    "one" (> 0.95), "zero" (< 0.05), "positive" (> 0.05) or "none" (the target depends on no input).
    ambiguous  the term must say what else it could be called.
    required   False for a term that may be there and need not.
    """

    space: str | tuple[str, ...] | None = None
    process: str | tuple[str, ...] | None = None
    target_learning: str | tuple[str, ...] | None = None
    stop_gradient: bool | None = None
    novelty: str | None = None
    family: str | tuple[str, ...] | None = None
    label: str | tuple[str, ...] | None = None
    ambiguous: bool = False
    required: bool = True


@dataclass
class Row:
    """A step ready to be called, and what belongs to it; the names are those of `audit`'s arguments."""

    step: Callable[..., Any]
    inputs: dict[str, Any]
    parameters: Mapping[str, nn.Module]
    encoder: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    after_step: Callable[[], object] | None = None


Make = Callable[[torch.Generator], Row]
LINTERS = re.compile(r"  # (?:noqa|pyrefly|type): .*$")


@dataclass(frozen=True)
class Case:
    """A row of the label table, by number, and its right answer.

    verdict    what the audit must say of the whole step.
    mixture    families with at least 5 % of the encoder's gradient, for the verdict "mixed".
    may_mix    families that may be among them: the table does not say.
    terms      None where no term is to be judged.
    make       the function that builds the step; data come from its generator, networks from torch's random numbers.
    """

    number: int
    name: str
    verdict: str
    terms: tuple[Expect, ...] | None
    mixture: frozenset[str]
    may_mix: frozenset[str]
    make: Make = field(repr=False)

    @property
    def seed(self) -> int:
        """Follows from the name."""
        return zlib.crc32(self.name.encode())

    def build(self) -> Row:
        """The same row each time, networks and data; the caller's random numbers are left alone."""
        with torch.random.fork_rng(devices=[]):
            return self.build_here()

    def build_here(self) -> Row:
        """The same row each time; torch's random numbers on the CPU go on from those that made its networks."""
        torch.default_generator.manual_seed(self.seed)  # and no other device's
        return self.make(torch.Generator().manual_seed(self.seed))

    def source(self) -> str:
        """The function that builds the step, to be read as an example: without decorators and notes to linters."""
        text = textwrap.dedent(inspect.getsource(self.make))
        definition = ast.parse(text).body[0]
        assert isinstance(definition, ast.FunctionDef)
        lines = text.splitlines()[definition.lineno - 1 :]
        return "".join(f"{LINTERS.sub('', line)}\n" for line in lines)

    def summary(self) -> str:
        """In one line: what is asked, what the answer is held against, and the name of the method."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]


def row(
    *,
    number: int,
    name: str,
    verdict: str,
    terms: Iterable[Expect] | None,
    mixture: Iterable[str] = (),
    may_mix: Iterable[str] = (),
) -> Callable[[Make], Case]:
    """Makes a case of the function that builds a step."""

    def enter(make: Make) -> Case:
        judged = None if terms is None else tuple(terms)
        return Case(number, name, verdict, judged, frozenset(mixture), frozenset(may_mix), make)

    return enter
