"""What each parameter does: observed over two steps, not read from its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jepalab.audit.places import Line
from jepalab.audit.rehearsal import Rehearsal
from jepalab.audit.report import Average, ParameterClass

FITS = 0.05  # largest relative residual of a move that still counts as averaging


@dataclass(frozen=True)
class Observation:
    """The class of every parameter by name, the moving averages among them, and the copies that stand still.

    still   copies that equal what they copy, or are written to, and yet never move.
    writes  where parameters are written to by the step itself.
    """

    classes: Mapping[str, ParameterClass]
    averages: tuple[Average, ...]
    still: tuple[str, ...]
    writes: Mapping[str, Line]


@torch.no_grad()
def observe(rehearsal: Rehearsal) -> Observation:
    """Runs the step twice. Before the second time, what took no gradient is shifted, so that even a very slow average
    moves by more than rounding; afterwards all is put back."""
    world = rehearsal.world
    finite = True

    def ask(_: object, scalars: list[Tensor], given: object) -> None:
        nonlocal finite
        finite = finite and all(bool(scalar.isfinite().all()) for scalar in scalars)

    with torch.enable_grad():
        tape = rehearsal.record(train=True, asked=ask)
    if not finite:
        world.restore()
        with torch.enable_grad():
            rehearsal.demand_a_finite_loss()
    parameters = {name: t for name, t in world.tensors() if world.is_parameter(t) and not t.is_meta}
    moved = {name for name, t in parameters.items() if differs(t, world.before(t))}
    given = {id(t) for optimizer in world.optimizers for group in optimizer.param_groups for t in group["params"]}
    # Where the audit's own optimizer stands in, it was given everything that took a gradient, be that gradient zero.
    reached = {
        n
        for n in rehearsal.reached
        if n in parameters and (n in moved or id(parameters[n]) in given or rehearsal.stands_in)
    }
    world.restore()
    still = {name: t for name, t in parameters.items() if name not in reached and t.is_floating_point()}
    twins = {name: t.clone() for name, t in still.items()}
    generator = torch.Generator().manual_seed(0)
    for tensor in still.values():
        spread = tensor.float().std() if tensor.numel() > 1 else tensor.float().abs()
        shift = torch.randn(tensor.shape, generator=generator).to(tensor) * (0.1 * spread + 1e-3).to(tensor)
        tensor.data.add_(shift.detach())
    shifted = {name: t.detach().clone() for name, t in still.items()}
    start = {name: parameters[name].detach().clone() for name in reached}
    try:
        with torch.enable_grad():
            rehearsal.record(train=True)
        end = {name: parameters[name].detach() for name in reached}
        followed = {name for name, t in still.items() if differs(t, shifted[name])}
        pairs = match(followed, reached, parameters)
        averages, kept = [], set()
        for (copy, source), names in group(pairs).items():
            average = fit(copy, source, names, still, shifted, start, end)
            if average is not None:
                averages.append(average)
                kept |= {slow for slow, _ in names}
    finally:
        world.restore()
    copies = group(match(still.keys() - followed, reached, parameters))
    same = [
        copy
        for (copy, _), names in copies.items()
        if all(a in tape.writes or torch.equal(twins[a], parameters[b]) for a, b in names)
        and any(bool((twins[a] != twins[a].flatten()[0]).any()) for a, _ in names)  # ones and zeros are alike by chance
    ]
    classes = {}
    for name, tensor in parameters.items():
        if name in reached:
            classes[name] = ParameterClass.ONLINE
        elif name in kept:
            classes[name] = ParameterClass.EMA
        elif name in moved or name in followed:
            classes[name] = ParameterClass.DRIFTING
        else:
            classes[name] = ParameterClass.IDLE if tensor.requires_grad else ParameterClass.FROZEN
    return Observation(classes, tuple(averages), tuple(same), tape.writes)


def differs(a: Tensor, b: Tensor) -> bool:
    return not torch.equal(a.detach(), b.detach())


def match(slow: Iterable[str], fast: Iterable[str], tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Pairs every copied parameter with the trained one of the same shape whose name ends most alike."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in fast:
        by_shape.setdefault(tuple(tensors[name].shape), []).append(name)
    pairs = []
    for name in sorted(slow):
        same = by_shape.get(tuple(tensors[name].shape), [])
        if same:
            pairs.append((name, max(sorted(same), key=lambda other: common_end(name, other))))
    return pairs


def common_end(a: str, b: str) -> int:
    """How many dotted parts two names share, counted from the end."""
    count = 0
    for left, right in zip(reversed(a.split(".")), reversed(b.split(".")), strict=False):
        if left != right:
            break
        count += 1
    return count


def group(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The pairs by what is copied and from where: the names without their common end."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for slow, fast in pairs:
        end = common_end(slow, fast)
        heads = tuple(".".join(name.split(".")[: len(name.split(".")) - end]) or name for name in (slow, fast))
        groups.setdefault((heads[0], heads[1]), []).append((slow, fast))
    return groups


def fit(
    copy: str,
    source: str,
    names: list[tuple[str, str]],
    now: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
) -> Average | None:
    """The momentum that explains the copies' move best, towards the trained weights before or after their step."""
    found: list[tuple[float, str, float]] = []
    trained: tuple[tuple[str, Mapping[str, Tensor]], ...] = (("after", end), ("before", start))
    for order, towards in trained:
        across = moved = whole = 0.0
        for slow, fast in names:  # one at a time: in double precision, all together are four times the copy
            move = (now[slow] - before[slow]).cpu().double().flatten()
            way = (towards[fast].cpu().double() - before[slow].cpu().double()).flatten()
            across, moved, whole = across + float(move @ way), moved + float(move @ move), whole + float(way @ way)
        rate = across / max(whole, 1e-300)
        left = max(moved - 2 * rate * across + rate**2 * whole, 0.0)
        found.append(((left / max(moved, 1e-300)) ** 0.5, order, 1 - rate))
    residual, order, momentum = min(found)
    if residual > FITS or not -0.01 <= momentum <= 1.01:
        return None
    return Average(copy, source, momentum=min(max(momentum, 0.0), 1.0), residual=residual, order=order)
