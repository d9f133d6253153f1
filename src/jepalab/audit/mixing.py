"""Whether samples of a batch reach each other inside the networks: one is changed, and all are watched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepalab.audit import operations as ops
from jepalab.audit.changes import change
from jepalab.audit.content import Contents
from jepalab.audit.rehearsal import Rehearsal
from jepalab.audit.tape import Node, Tape


def mixing(rehearsal: Rehearsal, tape: Tape, contents: Contents) -> Sequence[int]:
    """Calls inside the networks after which other samples depend on the first one: keys of the nodes, in order."""
    size = rehearsal.inputs.batch_size
    if not size or size < 2 or rehearsal.inputs.batch_axis != 0:
        return []
    base, after = Rows(size), Rows(size)
    try:
        rehearsal.record(watch=base)
        rehearsal.world.restore()
        for _, tensor in rehearsal.inputs.tensors.items():
            if tensor.ndim and len(tensor) == size:
                change(tensor[:1], torch.Generator().manual_seed(0), whole=True)
        rehearsal.record(watch=after)
    finally:
        rehearsal.world.restore()
    spoiled = {k for k, rows in base.rows.items() if k in after.rows and rows[1:] != after.rows[k][1:]}
    feeds = feeding(tape, contents)
    culprits = []
    for key in sorted(spoiled):
        node = tape.nodes[key] if key < len(tape.nodes) else None
        if node is None or node.kind != "call" or node.name in ops.LAYOUT or node.name in ops.SELECTION:
            continue
        known = [k for _, k in node.inputs if k in base.rows]
        if key >= tape.first_backward:
            break  # weights that were moved by all samples since
        clean = known and not any(k in spoiled for k in known)
        if node.name in ops.JOINING:
            continue
        if elementwise(node):
            # Its own row alone, unless something without a batch was made of all rows: a mean, a maximum.
            rest = [tape.nodes[k] for _, k in node.inputs if k not in base.rows and contents.of[k].atoms]
            clean = clean and any(size not in each.shape for each in rest)
        if clean and (key in feeds or contents.is_network(node)) and contents.of[key].params:
            culprits.append(key)
    return culprits


def elementwise(node: Node) -> bool:
    """Whether every value that comes out is made of the values at its own place."""
    return node.name in ops.ADDITIVE or node.name in ops.PRODUCT or node.name in ops.FIXED - ops.REDUCING


class Rows:
    """A fingerprint of every sample in every node whose first axis is the batch."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: dict[int, list[list[float]]] = {}

    def __call__(self, key: int, tensor: Tensor) -> None:
        if tensor.ndim and len(tensor) == self.size and tensor.numel() and not tensor.is_complex():
            flat = tensor.detach().reshape(self.size, -1)
            flat = flat.cpu() if flat.device.type == "mps" else flat  # which has no double precision
            marks = [flat.sum(1, dtype=torch.float64), *(part.double() for part in flat.aminmax(dim=1))]
            # Numbers, not tensors: small blocks that outlive large ones keep the heap from shrinking.
            self.rows[key] = torch.stack(marks, 1).nan_to_num().tolist()


def feeding(tape: Tape, contents: Contents) -> set[int]:
    """The nodes from which a network is still to come."""
    found: set[int] = set()
    for node in reversed(tape.nodes):
        if node.key in found or contents.is_network(node):
            found |= {key for _, key in node.inputs}
    return found
