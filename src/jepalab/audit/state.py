"""The world of a training step: everything the step can change, known by name, and put back to the last bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from jepalab.audit.discovery import Find, cannot_be_rewound, has_state_dict, joined, opener
from jepalab.audit.memory import Memory, in_plain_storage
from jepalab.audit.snapshots import Entries, Snapshot, StateDict, global_random_states

PLAIN = (type(None), int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


class World:
    """What a step can reach, as it was when it was first seen.

    Make it before anything runs: it keeps the random states at once. Then `watch` what the step is given and the step
    itself; what these hold is found: closures, arguments, globals that the code names, containers, attributes.

    modules     the modules found by a name of the step's own, not only as part of another module.
    optimizers  the optimizers found.
    iterators   generators and loaders found: what they hand out is gone, nobody can wind them back.
    """

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: list[Optimizer] = []
        self.iterators: dict[str, object] = {}
        self._random = global_random_states()
        self._memory = Memory()
        self._tensors: dict[int, _Standing] = {}
        self._seen: dict[int, object] = {}  # holds what it has seen, so that an id means one thing
        self._kept: list[Snapshot] = []
        self._names: dict[int, str] = {}
        self._named: dict[str, Tensor] = {}
        self._parameters: set[int] = set()
        self._buffers: set[int] = set()

    def watch(self, thing: Any, name: str = "") -> None:
        """Keeps a thing and all it holds, unless it has been seen before. ValueError for a lazy module not yet used."""
        if id(thing) in self._seen or id(thing) in self._names:
            return
        late: list[Any] = []
        with torch._C.DisableTorchFunction(), torch.no_grad():  # no part of a step that may be running
            agenda = _Agenda()
            agenda.add(Find(name, thing))
            while (find := agenda.next()) is not None:
                self._look(find, agenda, late)
            self._kept += [StateDict(each, self._memory.covers) for each in late]

    def restore(self) -> None:
        """Puts everything back as it was when it was first seen, any number of times."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            # What was seen first is put back last: where two overlap, the older knows better.
            late = [each for each in self._kept if isinstance(each, StateDict)]
            for snapshot in reversed(self._kept):
                if not isinstance(snapshot, StateDict):
                    snapshot.restore()
            self._memory.restore()
            for standing in reversed(self._tensors.values()):
                standing.restore()
            for snapshot in (*late, *self._random):
                snapshot.restore()

    def keep_before_change(self, tensor: Tensor) -> None:
        """Keeps a tensor from outside the step, about to be changed in place, that nothing led to."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            # A view made in the step of something watched needs nothing; to hold it would hold the step's graph.
            if id(tensor) not in self._tensors and not self._memory.covers(tensor):
                self._keep(tensor)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Every parameter, buffer and other tensor found, with its name, each once; no gradients or optimizer state."""
        return list(self._named.items())

    def name_of(self, tensor: Tensor) -> str:
        """A tensor's name, "" if it is unknown. Gradients and optimizer state have names too."""
        return self._names.get(id(tensor), "")

    def before(self, tensor: Tensor) -> Tensor:
        """A copy of a watched tensor as it was when it was first seen."""
        standing = self._tensors.get(id(tensor))
        if standing is None:
            raise ValueError(
                f"Wanted a watched tensor, got one nobody has seen, {tuple(tensor.shape)}: watch it first."
            )
        with torch._C.DisableTorchFunction(), torch.no_grad():
            return self._memory.before(standing.place)

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether it is trained or could be: a parameter, an optimizer's, or a leaf that requires a gradient."""
        if isinstance(tensor, nn.Parameter) or id(tensor) in self._parameters:
            return True
        return tensor.is_leaf and tensor.requires_grad

    def is_buffer(self, tensor: Tensor) -> bool:
        return id(tensor) in self._buffers

    def _look(self, find: Find, agenda: _Agenda, late: list[Any]) -> None:
        thing = find.thing
        if isinstance(thing, Tensor):
            self._see(find)
            return
        if id(thing) in self._seen or (opened := opener(find)) is None:
            if cannot_be_rewound(thing) and not any(thing is each for each in self.iterators.values()):
                self.iterators[_free(find.name or type(thing).__name__, self.iterators)] = thing
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, nn.Module) and find.role != "submodule":
            self.modules[_free(find.name or type(thing).__name__, self.modules)] = thing
        if isinstance(thing, Optimizer):
            self.optimizers.append(thing)
            self._parameters |= {id(tensor) for group in thing.param_groups for tensor in group["params"]}
        if has_state_dict(thing):
            late.append(thing)
        for part in opened(find):
            if isinstance(part, Find):
                agenda.add(part)
            else:
                self._kept.append(part)

    def _see(self, find: Find) -> None:
        """Keeps a tensor and gives it its name."""
        tensor = find.thing
        if find.role == "buffer":
            self._buffers.add(id(tensor))
        if id(tensor) not in self._tensors:
            self._keep(tensor, find.name)
        if id(tensor) in self._names or not find.name:
            return
        name = self._names[id(tensor)] = _free(find.name, self._named)
        if find.role != "machinery" or id(tensor) in self._parameters:
            self._named[name] = tensor
        if (gradient := self._tensors[id(tensor)].gradient) is not None:
            self._names.setdefault(id(gradient), joined(name, "grad"))

    def _keep(self, tensor: Tensor, name: str = "") -> None:
        if is_lazy(tensor):
            raise ValueError(
                f"Wanted parameters with a shape, got a lazy one ({name or 'without a name'}): run the step once, or "
                "the module on one batch, before the audit."
            )
        self._memory.keep(tensor)
        self._kept.append(Entries(vars(tensor)))
        standing = self._tensors[id(tensor)] = _Standing(tensor)
        if tensor.is_leaf and tensor.requires_grad:
            self._parameters.add(id(tensor))
        if (gradient := standing.gradient) is not None and id(gradient) not in self._tensors:
            self._keep(gradient, joined(name, "grad"))


class _Standing:
    """How a tensor stands towards autograd and memory, apart from its content."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.gradient = tensor, _gradient(tensor)
        # A second view on the same bytes, which stays where it is if the step gives the tensor other ones.
        self.place = tensor.data if in_plain_storage(tensor) else tensor
        self._is_leaf, self._requires_grad = tensor.is_leaf, tensor.requires_grad

    def restore(self) -> None:
        tensor, place = self.tensor, self.place
        if place is not tensor and not _in_place(tensor, place):
            tensor.data = place
        if self._is_leaf:
            if not tensor.is_leaf and not tensor._is_view():
                tensor.detach_()  # written to with gradient on: it had become part of the step's graph
            if tensor.is_leaf and tensor.requires_grad != self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
        if _gradient(tensor) is not self.gradient:
            tensor.grad = self.gradient


def _in_place(tensor: Tensor, place: Tensor) -> bool:
    return tensor.dtype == place.dtype and tensor.device == place.device and tensor.is_set_to(place)


def _gradient(tensor: Tensor) -> Tensor | None:
    return tensor.grad if tensor.is_leaf or tensor.retains_grad else None  # to ask others is a warning


class _Agenda:
    """What is still to be looked at: modules first, stray tensors last, so that a tensor gets its module's name."""

    def __init__(self) -> None:
        self._queues: tuple[deque[Find], deque[Find], deque[Find]] = (deque(), deque(), deque())

    def add(self, find: Find) -> None:
        if isinstance(find.thing, PLAIN):
            return
        registered = isinstance(find.thing, nn.Module) or find.role in ("parameter", "buffer")
        rank = 0 if registered else 2 if isinstance(find.thing, Tensor) else 1
        self._queues[rank].append(find)

    def next(self) -> Find | None:
        return next((queue.popleft() for queue in self._queues if queue), None)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or the first of "name#2", "name#3" ... that nobody has."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free
