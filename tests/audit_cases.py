"""A training step to be audited; whatever it owns must come out of the audit as it went in, to the last bit."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jepalab.audit import audit
from jepalab.audit.report import Audit, Term

MATTERS = 0.05  # share of the encoder's gradient from which a term counts


@dataclass
class Case:
    """A training step as a user has it.

    modules      every network the step owns, frozen and slow ones too.
    optimizer    the audit (or `run`) steps with it; None where the step calls `backward` and the optimizers itself.
    owned        more state the step owns: optimizers it steps itself, generators, scalers, by name.
    runs         whether the step gets through without an audit.
    """

    step: Callable[..., Any]
    inputs: Any
    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer | None = None
    encoder: nn.Module | None = None
    after_step: Callable[[], None] | None = None
    owned: Mapping[str, Callable[[], Any]] | None = None
    runs: bool = True


def run(case: Case) -> None:
    """One training step without an audit."""
    found = call(case.step, case.inputs)
    if case.optimizer is not None:
        loss = found if isinstance(found, Tensor) else found["loss"] if isinstance(found, Mapping) else found.loss
        case.optimizer.zero_grad()
        loss.backward()
        case.optimizer.step()
    if case.after_step is not None:
        case.after_step()


def call(step: Callable[..., Any], inputs: Any) -> Any:
    """With nothing, with the inputs it names, or with the whole batch: as the audit calls it."""
    names = list(inspect.signature(step).parameters)
    if not names:
        return step()
    if isinstance(inputs, Mapping) and set(names) <= inputs.keys():
        return step(**{name: inputs[name] for name in names})
    return step(inputs)


def audited(case: Case, *, warm: bool = True, **options: Any) -> Audit:
    """The audit of a step, and the proof that it left no trace.

    A plain step goes first, so that there are gradients, optimizer states and statistics to be disturbed."""
    if case.runs and warm:
        run(case)
    before = state_of(case)
    options = {"steps": 2, "parameters": dict(case.modules), **options}
    try:
        return audit(
            case.step,
            case.inputs,
            encoder=case.encoder,
            optimizer=case.optimizer,
            after_step=case.after_step,
            **options,
        )
    finally:
        traces = differences(before, state_of(case))
        assert not traces, f"the audit left traces: {traces}"


def state_of(case: Case) -> dict[str, Any]:
    """Copies of everything that an audit must leave as it was."""
    found: dict[str, Any] = {}
    for name, module in case.modules.items():
        for path, part in module.named_modules():
            hooks = [len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)]
            found[f"{name}.{path} training, hooks"] = [part.training, *hooks]
            found[f"{name}.{path} attributes"] = sorted(vars(part))
        for path, value in module.named_parameters(remove_duplicate=False):
            found[f"{name}.{path} identity"] = [id(value), value.requires_grad, value.data_ptr(), value.is_leaf]
            found[f"{name}.{path} hooks"] = len(value._backward_hooks or {})
            found[f"{name}.{path}"], found[f"{name}.{path} gradient"] = value.detach(), value.grad
        for path, value in module.named_buffers(remove_duplicate=False):
            found[f"{name}.{path}"] = value
    if case.optimizer is not None:
        found["optimizer"] = case.optimizer.state_dict()
    found |= {name: read() for name, read in (case.owned or {}).items()}
    found["inputs"] = list(tensors_in(case.inputs))
    # Python's own are left out: the type checks of the tests draw from them. One test looks at them without.
    found["random numbers"] = [torch.get_rng_state(), np.random.get_state()]
    autocast = [torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")]
    modes = [torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_anomaly_enabled()]
    found["modes"] = [*autocast, *modes, torch.overrides._len_torch_function_stack()]
    return copy.deepcopy(found)


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two states differ, to the last bit."""
    if type(before) is not type(after):
        return [f"{path}: {type(before).__name__} became {type(after).__name__}"]
    if isinstance(before, Tensor):
        alike = before.dtype == after.dtype and before.shape == after.shape and bits(before) == bits(after)
        return [] if alike else [f"{path}: other values"]
    if isinstance(before, np.ndarray):
        return [] if before.tobytes() == after.tobytes() else [f"{path}: other values"]
    if isinstance(before, Mapping):
        if before.keys() != after.keys():
            return [f"{path}: {sorted(map(str, before.keys() ^ after.keys()))} came or went"]
        return [line for key in before for line in differences(before[key], after[key], f"{path}/{key}")]
    if isinstance(before, (list, tuple)):
        if len(before) != len(after):
            return [f"{path}: {len(before)} became {len(after)}"]
        pairs = zip(before, after, strict=True)
        return [line for i, (old, new) in enumerate(pairs) for line in differences(old, new, f"{path}/{i}")]
    return [] if before == after else [f"{path}: {before} became {after}"]


def bits(value: Tensor) -> bytes:
    """The memory of a tensor: tells -0 from 0 and one NaN from another."""
    return value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """Every tensor of a batch, whatever holds it."""
    if isinstance(batch, Tensor):
        yield batch
    elif is_dataclass(batch):
        yield from tensors_in([getattr(batch, part.name) for part in fields(batch)])
    elif isinstance(batch, Mapping):
        yield from tensors_in(list(batch.values()))
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        for part in batch:
            yield from tensors_in(part)


def move_towards(teacher: nn.Module, student: nn.Module, rate: float) -> None:
    """The step of an exponential moving average, momentum 1 - rate."""
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast, rate)


def driving(result: Audit) -> list[Term]:
    """The terms that matter to the encoder, the strongest first."""
    return sorted((term for term in result.terms if term.share >= MATTERS), key=lambda term: -term.share)


def marked_lines(function: Callable[..., Any], mark: str = "# <-") -> set[str]:
    """`file:line` of every line in a function's source that ends with this mark."""
    lines, start = inspect.getsourcelines(function)
    file = Path(inspect.getsourcefile(function) or "").name
    return {f"{file}:{start + i}" for i, line in enumerate(lines) if line.rstrip().endswith(mark)}
