"""Which inputs are views of one thing: named so, or treated so by the step."""

from __future__ import annotations

from collections.abc import Iterable

from jepalab.audit.content import EMA, NOISE, Content, Contents
from jepalab.audit.leaves import COMPARISON, Leaf
from jepalab.audit.roles import ROLE, Inputs, is_view, kind_of

NAMED = frozenset(ROLE.values()) - {"x", ""}


def views_among(leaves: Iterable[Leaf], contents: Contents, inputs: Inputs) -> frozenset[str]:
    """The inputs to be changed together.

    Inputs without a telling role are views if one network makes both sides of a comparison from them, or if each is
    the target of the other. Pictures in a list are, if there are more than two, or two sizes of them (multi-crop).
    """
    found = {root for root in inputs.by_id.values() if is_view(root)}
    compared = [
        (contents.of[leaf.prediction], contents.of[leaf.target])
        for leaf in leaves
        if leaf.kind == COMPARISON and leaf.target is not None
    ]
    for pred, targ in compared:
        roots = plain(pred) | plain(targ)
        if targ.stage < EMA or len(roots) < 2 or any(kind_of(root) in NAMED or is_view(root) for root in roots):
            continue
        mirrored = any(
            plain(one) == plain(targ) and plain(other) == plain(pred) and one.params == pred.params
            for one, other in compared
        )
        online = pred.params & contents.online
        twins = bool(online) and online == targ.params & contents.online
        shapes = {tuple(t.shape) for t in inputs.tensors.values() if inputs.by_id[id(t)] in roots}
        pictures = all(len(shape) == 4 for shape in shapes)
        crops = plain(targ) <= plain(pred) and (len(plain(pred)) > 2 or len(shapes) > 1) and pictures
        if (not plain(pred) & plain(targ) and (mirrored or twins)) or crops:
            found |= roots
    return frozenset(found)


def plain(content: Content) -> frozenset[str]:
    return content.roots - {NOISE}
