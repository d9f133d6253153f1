"""Black-box tests of what the trace said: they look at numbers alone, and where they contradict it they say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from jepalab.audit.content import EMA, FROZEN, ONLINE
from jepalab.audit.findings import Evidence
from jepalab.audit.footprint import changed, run
from jepalab.audit.leaves import COMPARISON
from jepalab.audit.report import Confirmation, Family, ParameterClass

if TYPE_CHECKING:
    from jepalab.audit.examine import Examination

REHEARSED = 30  # steps of training before the targets are shuffled: an untrained prediction suits any target alike
MADE_BY = {ParameterClass.ONLINE: ONLINE, ParameterClass.EMA: EMA, ParameterClass.FROZEN: FROZEN}


def confirm(examination: Examination, evidence: Sequence[Evidence]) -> Iterator[Confirmation]:
    """All tests of all comparisons."""
    compared = [item for item in evidence if item.leaf.kind == COMPARISON and item.leaf.target is not None]
    for item in compared:
        yield from footprint(examination, item)
    yield from intervention(examination, compared)
    yield from shuffle(examination, compared)
    yield from constant(examination, evidence)


def footprint(examination: Examination, item: Evidence) -> Iterator[Confirmation]:
    """The inputs that move the target are those the trace found in it."""
    seen = item.footprint
    if seen is None or item.leaf.target is None:
        return
    traced = {
        r for r in examination.contents.of[item.leaf.target].roots if r in examination.rehearsal.inputs.by_id.values()
    }
    if not traced:
        yield Confirmation("footprint", item.term.name, True, "no input is in the target, and none was expected to be")
        return
    moved = seen.target_roots & traced
    if seen.failed and not moved:
        yield Confirmation("footprint", item.term.name, None, "the step took another way when its inputs were changed")
    elif moved == traced:
        yield Confirmation(
            "footprint", item.term.name, True, f"the target moves with {', '.join(sorted(traced))}, as traced"
        )
    else:
        missing = ", ".join(sorted(traced - moved))
        message = f"the trace found {missing} in the target, but changing it does not move the target"
        # The trace is cautious: what a later line overwrites, or a drawn code swallows, it still counts.
        doubt = bool(moved) or examination.contents.of[item.leaf.target].sampled
        yield Confirmation("footprint", item.term.name, None if doubt else False, message)


def intervention(examination: Examination, compared: Sequence[Evidence]) -> Iterator[Confirmation]:
    """Each class of parameters is shifted in turn: a side moves if, and only if, that class is said to make it."""
    rehearsal, contents = examination.rehearsal, examination.contents
    keys = {key for item in compared for key in (item.leaf.prediction, item.leaf.target) if key is not None}
    base = run(rehearsal, keys)
    for kind, stage in MADE_BY.items():
        names = {name for name, found in examination.observation.classes.items() if found is kind}
        if not names:
            continue
        shift([tensor for name, tensor in rehearsal.world.tensors() if name in names])
        after = run(rehearsal, keys)
        bits = sum(1 << i for i, found in enumerate(contents.classes) if found == stage)
        for item in compared:
            for side, key in (("prediction", item.leaf.prediction), ("target", item.leaf.target)):
                if key is None or key not in base or key not in after or base[key].shape != after[key].shape:
                    yield Confirmation("intervention", item.term.name, None, f"the {side} could not be followed")
                    continue
                moves, said = bool(changed(base[key], after[key]).any()), bool(contents.of[key].params & bits)
                follows = kind is ParameterClass.ONLINE and contents.of[key].stage == EMA
                if moves and not said and follows:
                    message = f"the {side} moves with the online parameters, which its average follows within the step"
                    yield Confirmation("intervention", item.term.name, True, message)
                elif moves != said:
                    what = f"shifting the {kind} parameters {'moves' if moves else 'does not move'} the {side}"
                    message = f"{what}, though the trace says they {'are' if said else 'are not'} on its way"
                    # A code or a saturated unit may stand still although its network moved.
                    agrees = None if said and not moves else False
                    yield Confirmation("intervention", item.term.name, agrees, message)
                elif said:
                    yield Confirmation(
                        "intervention", item.term.name, True, f"the {side} moves with the {kind} parameters"
                    )


@torch.no_grad()
def shift(tensors: Sequence[Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    for tensor in tensors:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.data.add_(noise * (0.2 * tensor.float().abs().mean() + 1e-2).to(tensor))


def shuffle(examination: Examination, compared: Sequence[Evidence]) -> Iterator[Confirmation]:
    """After the steps of the audit the loss rises when the targets are dealt to other samples."""
    rehearsal = examination.rehearsal
    size = rehearsal.inputs.batch_size or 1
    for item in compared:
        if item.term.family in (Family.CONTRASTIVE, Family.REGULARISER, Family.UNSUPPORTED):
            continue
        try:
            for _ in range(max(REHEARSED, examination.steps)):
                rehearsal.record(train=True)
            state = {name: tensor.detach().clone() for name, tensor in rehearsal.world.tensors()}
            plain = loss_of(rehearsal, None)
            rehearsal.world.restore()
            with torch.no_grad():
                for name, tensor in rehearsal.world.tensors():
                    tensor.data.copy_(state[name])
            dealt = loss_of(rehearsal, Dealt(item, size))
        finally:
            rehearsal.world.restore()
        if plain is None or dealt is None:
            yield Confirmation("shuffle", item.term.name, None, "the target's samples could not be told apart")
        elif dealt > plain:
            yield Confirmation(
                "shuffle", item.term.name, True, f"with shuffled targets the loss rises from {plain:.4g} to {dealt:.4g}"
            )
        elif dealt == plain:
            yield Confirmation(
                "shuffle", item.term.name, False, "shuffled targets change nothing: the target is not used"
            )
        else:
            message = (
                f"with shuffled targets the loss falls from {plain:.4g} to {dealt:.4g}: after so few steps it "
                "need not rise"
            )
            yield Confirmation("shuffle", item.term.name, None, message)


class Dealt:
    """Gives every sample its neighbour's target where a comparison is called."""

    def __init__(self, item: Evidence, size: int) -> None:
        self.item, self.size, self.done = item, size, False

    def __call__(self, key: int, args: list[Any], kwargs: dict[str, Any], keys: dict[str, int]) -> None:
        if key != self.item.leaf.meet:
            return
        for slot, given in keys.items():
            if given != self.item.leaf.target:
                continue
            where: Any = kwargs if slot in kwargs else args
            place: Any = slot if slot in kwargs else int(slot) if slot.isdigit() else None
            tensor = None if place is None else where[place]
            if isinstance(tensor, Tensor) and tensor.ndim and len(tensor) % self.size == 0 and len(tensor) > 1:
                where[place] = tensor.roll(max(1, len(tensor) // self.size), 0)
                self.done = True


def loss_of(rehearsal: Any, replace: Dealt | None) -> float | None:
    """The loss of a dry run; None where what was to be replaced was not met."""
    found: list[float] = []

    def ask(recorder: Any, scalars: list[Tensor], given: Any) -> None:
        found.extend(float(scalar.detach()) for scalar in scalars)

    rehearsal.record(asked=ask, replace=replace)
    return sum(found) if replace is None or replace.done else None


def constant(examination: Examination, evidence: Sequence[Evidence]) -> Iterator[Confirmation]:
    """With every embedding replaced by one constant: is a latent comparison solved, and does anything object?"""
    latent = [i for i in evidence if i.term.family in (Family.JEPA, Family.INVARIANCE) and i.leaf.target is not None]
    if not latent:
        return
    rehearsal = examination.rehearsal
    encoders = collapsible(examination)
    if not encoders:
        yield Confirmation("constant", latent[0].term.name, None, "name the encoder as a module to run this test")
        return
    keys = {i.leaf.target for i in latent if i.leaf.target is not None} | {i.leaf.cut for i in evidence}
    made = {id(encoder) for encoder in encoders}
    outputs = {key for key, module in examination.tape.outputs.items() if module in made}
    values = run(rehearsal, keys, alter=lambda key, tensor: flatten(tensor) if key in outputs else tensor)
    for item in latent:
        assert item.leaf.target is not None
        target = values.get(item.leaf.target)
        if target is None or not target.ndim:
            continue
        size = rehearsal.inputs.batch_size or 1
        rows = target.float().reshape(size, -1) if target.shape[0] % size == 0 else target.float()
        solved = bool(rows.std(0).max() < 1e-4 * (1 + rows.abs().max()))
        guarded = bool(item.term.anti_collapse)
        if not solved:
            message = (
                "the target still tells samples apart when the encoder is constant: the constant does not solve it"
            )
            yield Confirmation("constant", item.term.name, None if not guarded else True, message)
        elif guarded:
            message = (
                f"a constant encoder makes the target constant; against that works {', '.join(item.term.anti_collapse)}"
            )
            yield Confirmation("constant", item.term.name, True, message)
        else:
            message = "a constant encoder makes the target constant and nothing in the step objects: collapse-prone"
            yield Confirmation("constant", item.term.name, True, message)


def collapsible(examination: Examination) -> list[nn.Module]:
    """The encoder and the modules built like it (its teachers)."""
    wanted = {id(tensor) for tensor in examination.encoder}
    found: list[nn.Module] = []
    for module in examination.rehearsal.world.modules.values():
        for part in module.modules():
            own = [p for p in part.parameters() if p.requires_grad]
            if own and {id(p) for p in own} == wanted:
                found.append(part)
    if not found:
        return []
    shapes = [tuple(p.shape) for p in found[0].parameters()]
    for module in examination.rehearsal.world.modules.values():
        for part in module.modules():
            if [tuple(p.shape) for p in part.parameters()] == shapes and type(part) is type(found[0]):
                found.append(part)
    return list(dict.fromkeys(found))


def flatten(output: Tensor) -> Tensor:
    """The same embedding for every sample and place: the mean of all."""
    if output.ndim < 2:
        return output
    features = 1 if output.ndim == 4 else output.ndim - 1
    mean = output.mean([axis for axis in range(output.ndim) if axis != features], keepdim=True)
    return mean.expand_as(output) + 0 * output
