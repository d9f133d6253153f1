"""What each side of a comparison depends on: one element of an input is changed at a time, and both sides are watched.

This tells prediction from auto-encoding and invariance, which look alike to a trace (I-JEPA and BYOL have the same
provenance), and it sees leaks of the target and mixing of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jepalab.audit import operations as ops
from jepalab.audit.changes import change
from jepalab.audit.content import FROZEN, RAW, Contents
from jepalab.audit.leaves import COMPARISON, Leaf
from jepalab.audit.rehearsal import Rehearsal
from jepalab.audit.tape import Tape

WANTED = 96  # changed elements of an input that are enough to estimate a share
MOST = 16  # runs an input


@dataclass
class Footprint:
    """Counts over changed elements and compared values.

    target    where the target reacted, by what was changed; fresh: where it did and the prediction did not.
    target_roots  the inputs the target reacted to.
    own_seen  changes a target reacted to far more than its neighbours did (its own place), and how often the
              prediction saw them: a context that overlaps its targets.
    """

    target: dict[str, float] = field(default_factory=dict)
    fresh: dict[str, float] = field(default_factory=dict)
    target_roots: set[str] = field(default_factory=set)
    own: float = 0.0
    own_seen: float = 0.0
    failed: int = 0

    def novelty(self, roots: Iterable[str] | None = None) -> float | None:
        """Share of the target's reactions, to these inputs or to all, that the prediction did not share."""
        names = self.target.keys() if roots is None else self.target.keys() & set(roots)
        whole = sum(self.target[name] for name in names)
        return sum(self.fresh[name] for name in names) / whole if whole else None

    def forget(self) -> None:
        self.target, self.fresh, self.own, self.own_seen = {}, {}, 0.0, 0.0

    def count(self, root: str, target: float, fresh: float) -> None:
        self.target[root] = self.target.get(root, 0.0) + target
        self.fresh[root] = self.fresh.get(root, 0.0) + fresh


class Capture:
    """Keeps copies of chosen nodes of a run."""

    def __init__(self, keys: Iterable[int]) -> None:
        self.keys, self.kept = set(keys), {}

    def __call__(self, key: int, tensor: Tensor) -> None:
        if key in self.keys:
            self.kept[key] = tensor.detach().clone()


def footprints(
    rehearsal: Rehearsal,
    tape: Tape,
    contents: Contents,
    leaves: Mapping[Any, tuple[Leaf, Tensor | None]],
    views: frozenset[str],
) -> dict[Any, Footprint]:
    """The footprint of each comparison, by the keys it was given under.

    The tensor beside a leaf says which of its values count. `views` are inputs that hold the same thing.
    """
    compared = {k: v for k, v in leaves.items() if v[0].kind == COMPARISON and v[0].target is not None}
    keys = {key for leaf, _ in compared.values() for key in (leaf.prediction, leaf.target) if key is not None}
    prints = {name: Footprint() for name in compared}
    if not compared:
        return prints
    base = run(rehearsal, keys)
    wanted = {root for leaf, _ in compared.values() for root in contents.of[leaf.target or 0].roots}
    for roots in changes(rehearsal, wanted, views):
        copies = rehearsal.inputs.copies
        tensors = [(role, t) for role, t in rehearsal.inputs.tensors.items() if role in roots and role not in copies]
        whole = bool(roots & views)
        size = rehearsal.inputs.batch_size or 1
        rounds = 1 if whole else max(2, min(MOST, -(-WANTED // size)))
        for index in range(rounds):
            generator = torch.Generator().manual_seed(index)
            for _, tensor in tensors:
                # One place a sample, not one a time step, where time comes first.
                first = rehearsal.inputs.batch_axis == 0 or tensor.ndim < 2
                turned = tensor if first else tensor.transpose(0, 1)
                change(turned, generator.manual_seed(index), whole=whole)
            rehearsal.inputs.follow()
            after = run(rehearsal, keys)
            for name, (leaf, counted) in compared.items():
                compare(prints[name], tape, contents, leaf, base, after, counted, roots)
    for name, (leaf, _) in compared.items():
        raw = leaf.target is not None and contents.of[leaf.target].stage == RAW
        made = contents.of[leaf.prediction]
        if raw and (made.sampled or made.coded):
            follow_gradient(prints[name], rehearsal, leaf)
    return prints


def follow_gradient(print_: Footprint, rehearsal: Rehearsal, leaf: Leaf) -> None:
    """Counts again by derivatives where codes are drawn on the way: a small change seldom flips a code, but the
    gradient that is sent through it says what it was made of."""
    roots = [t for t in rehearsal.inputs.tensors.values() if t.is_floating_point() and not t.requires_grad]
    if not roots:  # bytes and indices have no derivative: what was counted says nothing
        print_.forget()
        return
    kept: dict[int, Tensor] = {}
    try:
        for tensor in roots:
            tensor.requires_grad_(True)
        rehearsal.record(
            watch=lambda key, t: kept.setdefault(key, t) if key in (leaf.prediction, leaf.target) else None
        )
        prediction, target = (kept.get(key or 0) for key in (leaf.prediction, leaf.target))
        if prediction is None or target is None or prediction.shape != target.shape or not target.requires_grad:
            return
        passed = torch.autograd.grad(prediction.sum(), roots, retain_graph=True, allow_unused=True)
        if not any(g is not None and bool(g.any()) for g in passed):
            return  # no gradient passes the codes
        print_.forget()
        places = torch.randperm(target.numel(), generator=torch.Generator().manual_seed(0))[:MOST]
        for place in places.tolist():
            seen, wanted = (
                torch.cat(
                    [(torch.zeros_like(t) if g is None else g).flatten() for t, g in zip(roots, got, strict=True)]
                )
                for got in (
                    torch.autograd.grad(side.flatten()[place], roots, retain_graph=True, allow_unused=True)
                    for side in (prediction, target)
                )
            )
            print_.count("x", float((wanted != 0).sum()), float(((wanted != 0) & (seen == 0)).sum()))
    finally:
        rehearsal.world.restore()


def run(rehearsal: Rehearsal, keys: Iterable[int], **changing: Any) -> dict[int, Tensor]:
    """The values of these nodes in a dry run from the restored world, whose inputs may have been changed."""
    capture = Capture(keys)
    try:
        rehearsal.record(watch=capture, traceable=True, **changing)
    finally:
        rehearsal.world.restore()
    return capture.kept


def changes(rehearsal: Rehearsal, wanted: set[str], views: frozenset[str]) -> list[frozenset[str]]:
    """Inputs to be changed together: every view of one thing at once, everything else by itself."""
    roots = [root for root in dict.fromkeys(rehearsal.inputs.by_id.values()) if root in wanted]
    single = [frozenset((root,)) for root in roots if root not in views]
    return single + ([views] if views & set(roots) else [])


def compare(
    print_: Footprint,
    tape: Tape,
    contents: Contents,
    leaf: Leaf,
    base: Mapping[int, Tensor],
    after: Mapping[int, Tensor],
    counted: Tensor | None,
    roots: frozenset[str],
) -> None:
    """Adds what one change did to both sides of a comparison."""
    assert leaf.target is not None
    pairs = [(base.get(key), after.get(key)) for key in (leaf.prediction, leaf.target)]
    if any(a is None or b is None or a.shape != b.shape for a, b in pairs):
        print_.failed += 1
        return
    (p0, p1), (t0, t1) = pairs
    assert p0 is not None
    assert p1 is not None
    assert t0 is not None
    assert t1 is not None
    prediction, target = changed(p0, p1), changed(t0, t1)
    if t0.is_floating_point() and t0.ndim > 1 and contents.of[leaf.target].stage >= FROZEN and p0.shape == t0.shape:
        # One embedding is one thing: a unit that a rectifier silenced has still been reached.
        axis = 1 if t0.ndim == 4 and convolved(tape, leaf.target) else -1
        prediction, target = (side.any(axis, keepdim=True).expand_as(t0) for side in (prediction, target))
    if target.any():
        print_.target_roots |= roots
    meet = tape.nodes[leaf.meet]
    node_target = tape.nodes[leaf.target]
    prediction, counts = aligned(prediction, target, meet.name, node_target.integer)
    if meet.name in ops.CLASS_INDEX and node_target.integer:
        target = target & (t0 >= 0)
    if prediction.shape != target.shape:
        try:
            prediction, target = torch.broadcast_tensors(prediction, target)
        except RuntimeError:
            prediction, target = prediction.any(), target.any()
    if counted is not None and counts and counted.shape == target.shape:
        target = target & counted
    print_.count(min(roots), float(target.sum()), float((target & ~prediction).sum()))
    drawn = contents.of[leaf.prediction].sampled or contents.of[leaf.target].sampled
    own = own_place(t0, t1) if not drawn and t0.is_floating_point() and t0.ndim >= 3 else None
    if own is not None and prediction.shape == own.shape:
        own = own & target
        print_.own += float(own.sum())
        print_.own_seen += float((own & prediction).sum())


def convolved(tape: Tape, key: int) -> bool:
    """Whether channels are the second axis here: the last layer that made it was a convolution."""
    while tape.nodes[key].kind == "call":
        name = tape.nodes[key].name
        if name.startswith("conv") or "pool2d" in name or name == "batch_norm":
            return True
        if name in ("linear", "layer_norm", "embedding") or not tape.nodes[key].inputs:
            return False
        key = tape.nodes[key].inputs[0][1]
    return False


def changed(a: Tensor, b: Tensor) -> Tensor:
    return (a != b) & ~(a.isnan() & b.isnan()) if a.is_floating_point() else a != b


def aligned(prediction: Tensor, target: Tensor, name: str, integer: bool) -> tuple[Tensor, bool]:
    """The prediction's reactions by compared value: over all classes where the target is a class."""
    if integer and prediction.ndim == target.ndim + 1:
        axis = 1 if name in ops.CLASS_INDEX and prediction.ndim > 1 else -1
        axis = axis if prediction.shape[:axis] + prediction.shape[axis:][1:] == target.shape else -1
        return prediction.any(axis), True
    if integer and name in ("gather", "take_along_dim") and prediction.ndim == target.ndim:
        return prediction.any(-1, keepdim=True), True
    if integer and name == "getitem":
        return prediction.flatten(0, -2).any(-1).reshape(-1)[: target.numel()].reshape(target.shape), True
    return prediction, True


def own_place(before: Tensor, after: Tensor) -> Tensor | None:
    """Per sample the token that reacted far more than any other: the one the change was made at."""
    size = (after - before).float().abs().flatten(2).amax(2)
    if size.shape[1] < 2:
        return None
    top = size.topk(2, dim=1)
    clear = top.values[:, 0] > 4 * top.values[:, 1]
    own = torch.zeros_like(size, dtype=torch.bool)
    own[torch.arange(len(size)), top.indices[:, 0]] = clear
    return own.reshape(*own.shape, *[1] * (before.ndim - 2)).expand_as(before)
