"""How much of the encoder's gradient each comparison sends: measured, since a term's presence says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from jepalab.audit.comparisons import Comparisons
from jepalab.audit.content import Contents
from jepalab.audit.leaves import SCORE, STATISTIC, Leaf
from jepalab.audit.report import ParameterClass
from jepalab.audit.tape import Tape


@dataclass
class Group:
    """Leaves of one kind from one line, counted as one term; `keys` are the ones that are compared at a time."""

    leaves: list[Leaf]
    pull: list[Tensor] = field(default_factory=list)  # its gradient, summed over the backward passes of one step
    weighed: Tensor | None = None  # where, in the first leaf's output, the loss depends on it


@dataclass
class Shares:
    """The groups of one run with the norm of the gradient each sends to the encoder, and what is left unexplained."""

    groups: dict[tuple[Any, ...], Group] = field(default_factory=dict)
    whole: list[Tensor] = field(default_factory=list)

    def norms(self) -> dict[tuple[Any, ...], float]:
        return {kind: norm(group.pull) for kind, group in self.groups.items()}

    @property
    def unexplained(self) -> float:
        """Norm of the gradient that comes from no group, as part of the whole."""
        rest = self.whole
        for group in self.groups.values():
            rest = torch._foreach_sub(rest, group.pull) if group.pull else rest
        whole = norm(self.whole)
        return norm(rest) / whole if whole else 0.0


class Weighing:
    """Called when backward is asked for: finds the leaves, weighs each, adds up over the calls of one step.

    check  also compare the groups' gradients with that of the whole loss, which costs one more backward pass.
    """

    def __init__(
        self,
        classes: Mapping[str, ParameterClass],
        encoder: Sequence[Tensor],
        batch_size: int | None,
        *,
        check: bool,
    ) -> None:
        self.classes, self.encoder, self.batch_size, self.check = classes, list(encoder), batch_size, check
        self.shares = Shares()
        self.tape: Tape | None = None

    def __call__(self, recorder: Any, scalars: list[Tensor], given: Any) -> None:
        tape: Tape = recorder.tape
        self.tape = tape
        contents = Contents(tape, self.classes)
        finder = Comparisons(tape, contents, self.batch_size)
        starts = given if isinstance(given, (list, tuple)) else [given] * len(scalars)
        for scalar, start in zip(scalars, starts, strict=True):
            leaves = finder.of(recorder.node_of(scalar))
            self._weigh(tape, contents, leaves, scalar, start)

    def _weigh(self, tape: Tape, contents: Contents, leaves: list[Leaf], scalar: Tensor, start: Tensor | None) -> None:
        flowing = [leaf for leaf in leaves if tape.nodes[leaf.cut].edge is not None]
        edges = [edge for leaf in flowing if (edge := tape.nodes[leaf.cut].edge) is not None]
        begin = torch.ones_like(scalar) if start is None else start
        whole = self._gradient([scalar], [begin]) if self.check else []
        pulls = torch.autograd.grad([scalar], edges, [begin], retain_graph=True, allow_unused=True) if edges else ()
        pull_of = {leaf.cut: pull for leaf, pull in zip(flowing, pulls, strict=True)}
        groups: dict[tuple[Any, ...], list[Leaf]] = {}
        for leaf in leaves:
            groups.setdefault(kind_of(tape, contents, leaf), []).append(leaf)
        self.shares.whole = added(self.shares.whole, whole)
        for kind, members in groups.items():
            parts = {tape.nodes[m.cut].edge: pull for m in members if (pull := pull_of.get(m.cut)) is not None}
            found = self.shares.groups.setdefault(kind, Group(members))
            if parts:
                found.pull = added(found.pull, self._gradient(list(parts), list(parts.values())))
                first = pull_of.get(members[0].cut)
                found.weighed = None if first is None else first.detach() != 0

    def _gradient(self, outputs: Sequence[Tensor | GradientEdge | None], pulls: Sequence[Tensor]) -> list[Tensor]:
        got = torch.autograd.grad(outputs, self.encoder, pulls, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
        return [torch.zeros_like(p) if g is None else g.detach() for p, g in zip(self.encoder, got, strict=True)]


def added(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return list(torch._foreach_add(a, b)) if a and b else a or b


def norm(tensors: Sequence[Tensor]) -> float:
    return sum(float(part) ** 2 for part in torch._foreach_norm(list(tensors))) ** 0.5 if tensors else 0.0


def kind_of(tape: Tape, contents: Contents, leaf: Leaf) -> tuple[Any, ...]:
    """Leaves that agree in this are one term: the same line, the same kind, the same contents on both sides."""
    node = tape.nodes[leaf.meet]
    sides = [
        None if key is None else (contents.of[key].atoms, contents.of[key].discrete)
        for key in (leaf.prediction, leaf.target)
    ]
    alone = leaf.kind in (STATISTIC, SCORE)
    kind, operation = ("alone", "") if alone else (leaf.kind, node.name)
    return (kind, operation, node.line, node.caller, leaf.contrast, leaf.cross, *sides)
