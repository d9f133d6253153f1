"""A row of the audit's label table: a training step as public code would write it, and what is to be said of it.

The rows themselves are in `audit_rows_*.py`. Batch size, widths and numbers of tokens all differ, so that a shape tells
which axis is which: 6 samples, pictures of 3 x 8 x 8 cut into 16 patches of 12 numbers, series of 5 observations of 7
numbers, sentences of 9 words out of 13, embeddings of 10 numbers, predictors of 14.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from audit_networks import NUM_WORDS

NUM_SAMPLES, NUM_CLASSES = 6, 4


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


SUPERVISED = Expect(
    space="label", process="classify-token", target_learning="none", family="supervised", label="SUPERVISED"
)
STATISTIC = Expect(space="statistic", process="match-statistic", family="regulariser", label="STATISTIC")
REWARD = Expect(space="reward", family="supervised", label="REWARD")


@dataclass
class Row:
    """A step ready to be called, and what belongs to it; the names are those of `audit`'s arguments."""

    step: Callable[..., Any]
    inputs: dict[str, Any]
    parameters: dict[str, nn.Module]
    encoder: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    after_step: Callable[[], object] | None = None


@dataclass(frozen=True)
class Case:
    """A row of the label table, by number, and its right answer.

    mixture    families with at least 5 % of the encoder's gradient, for the verdict "mixed".
    may_mix    families that may be among them: the table does not say.
    terms      None where no term is to be judged.
    """

    number: int
    name: str
    verdict: str
    terms: tuple[Expect, ...] | None
    mixture: frozenset[str]
    may_mix: frozenset[str]
    make: Callable[[torch.Generator], Row] = field(repr=False)

    def build(self) -> Row:
        """The same row each time: networks and data follow from the name."""
        seed = zlib.crc32(self.name.encode())
        torch.manual_seed(seed)
        return self.make(torch.Generator().manual_seed(seed))


CASES: list[Case] = []


def row(
    *,
    number: int,
    name: str,
    verdict: str,
    terms: Iterable[Expect] | None,
    mixture: Iterable[str] = (),
    may_mix: Iterable[str] = (),
) -> Callable[[Callable[[torch.Generator], Row]], Callable[[torch.Generator], Row]]:
    """Enters the decorated function into the table."""

    def enter(make: Callable[[torch.Generator], Row]) -> Callable[[torch.Generator], Row]:
        judged = None if terms is None else tuple(terms)
        CASES.append(Case(number, name, verdict, judged, frozenset(mixture), frozenset(may_mix), make))
        return make

    return enter


def pictures(generator: torch.Generator) -> Tensor:
    """[6, 3, 8, 8], between 0 and 1."""
    return torch.rand(NUM_SAMPLES, 3, 8, 8, generator=generator)


def series(generator: torch.Generator, num_steps: int = 5) -> Tensor:
    """[6, num_steps, 7]"""
    return torch.randn(NUM_SAMPLES, num_steps, 7, generator=generator)


def sentences(generator: torch.Generator, length: int = 9) -> Tensor:
    """[6, length], words 1 to 12; word 0 is left for a mask or a padding."""
    return torch.randint(1, NUM_WORDS, (NUM_SAMPLES, length), generator=generator)
