"""Terms before they have words, and how those of one step are found again in the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from jepalab.audit.content import Contents
from jepalab.audit.leaves import STATISTIC, Leaf
from jepalab.audit.shares import Group


@dataclass
class Weighed:
    """A term before it has words: its leaf, the share of every step, and where the loss depends on it."""

    leaf: Leaf
    shares: list[float]
    weighed: Tensor | None
    name: str = ""


def representative(group: Group, contents: Contents) -> Leaf:
    """The leaf that stands for its group: a statistic before the linear parts that belong to it."""
    return next((leaf for leaf in group.leaves if leaf.kind == STATISTIC), group.leaves[0])


def nearest(kind: tuple[Any, ...], found: Mapping[tuple[Any, ...], Weighed]) -> tuple[Any, ...] | None:
    """The term of the first step that this one of a later step is: the same contents, else the same line.

    Random augmentation inside a step changes what its tensors went through from run to run.
    """
    if kind in found:
        return kind
    same = [known for known in found if known[:6] == kind[:6]]
    return max(
        same,
        key=lambda known: sum(roots_of(a) == roots_of(b) for a, b in zip(known[6:], kind[6:], strict=True)),
        default=None,
    )


def roots_of(side: Any) -> frozenset[str]:
    return frozenset() if side is None else frozenset(atom.root for atom in side[0])
