"""What is kept of a Python thing, and how it is put back: containers, attributes, closures, globals, random states."""

from __future__ import annotations

import copy
import random
import sys
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from types import CellType, ModuleType
from typing import Any

import torch
from torch import Tensor

MISSING: Any = object()


class Snapshot(ABC):
    """Something as it was when it was first seen. `restore` changes only what has changed, and may be called again."""

    @abstractmethod
    def restore(self) -> None: ...


class Entries(Snapshot):
    """A dict, or an object's attributes: the same keys with the same values in the same order."""

    def __init__(self, target: dict) -> None:
        # The plain type's own methods: a subclass may do more than store when it is written to.
        kind: Any = OrderedDict if isinstance(target, OrderedDict) else dict
        self._kind, self._target, self._items = kind, target, tuple(kind.items(target))

    def restore(self) -> None:
        now = tuple(self._kind.items(self._target))
        if len(now) == len(self._items) and all(
            a is c and b is d for (a, b), (c, d) in zip(now, self._items, strict=True)
        ):
            return
        self._kind.clear(self._target)
        for key, value in self._items:
            self._kind.__setitem__(self._target, key, value)


class Elements(Snapshot):
    """A list, a deque or a set: the same members in the same order."""

    def __init__(self, target: list | deque | set) -> None:
        self._target, self._members = target, tuple(target)

    def restore(self) -> None:
        now = tuple(self._target)
        if len(now) == len(self._members) and all(a is b for a, b in zip(now, self._members, strict=True)):
            return
        if isinstance(self._target, list):
            list.__setitem__(self._target, slice(None), self._members)
        elif isinstance(self._target, deque):
            deque.clear(self._target)
            deque.extend(self._target, self._members)
        else:
            set.clear(self._target)
            set.update(self._target, self._members)


class Cell(Snapshot):
    """A variable that functions share with the function around them."""

    def __init__(self, cell: CellType) -> None:
        self._cell, self.content = cell, content_of(cell)

    def restore(self) -> None:
        if content_of(self._cell) is self.content:
            return
        if self.content is MISSING:
            del self._cell.cell_contents
        else:
            self._cell.cell_contents = self.content


def content_of(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return MISSING


class Bindings(Snapshot):
    """What some names of a module mean; a name that meant nothing means nothing again."""

    def __init__(self, namespace: MutableMapping[str, Any], names: Iterable[str]) -> None:
        self._namespace, self._values = namespace, {name: namespace.get(name, MISSING) for name in names}

    def restore(self) -> None:
        for name, value in self._values.items():
            now = self._namespace.get(name, MISSING)
            if value is MISSING:
                # A submodule imported meanwhile stays: Python would not bind it a second time.
                if now is not MISSING and not isinstance(now, ModuleType):
                    del self._namespace[name]
            elif now is not value:
                self._namespace[name] = value


class Body(Snapshot):
    """A class's own attributes, its methods among them."""

    def __init__(self, target: type) -> None:
        self._target, self._values = target, own_attributes(target)

    def restore(self) -> None:
        now = own_attributes(self._target)
        for name in now.keys() - self._values.keys():
            type.__delattr__(self._target, name)
        for name, value in self._values.items():
            if now.get(name, MISSING) is not value:
                type.__setattr__(self._target, name, value)


def own_attributes(target: type) -> dict[str, Any]:
    return {name: value for name, value in vars(target).items() if not name.startswith("__")}


class Slots(Snapshot):
    """The attributes of an object that keeps them in slots."""

    def __init__(self, target: object, names: Iterable[str]) -> None:
        self._target, self._values = target, {name: getattr(target, name, MISSING) for name in names}

    def restore(self) -> None:
        for name, value in self._values.items():
            if getattr(self._target, name, MISSING) is value:
                continue
            if value is MISSING:
                object.__delattr__(self._target, name)
            else:
                object.__setattr__(self._target, name, value)


class Inner(Snapshot):
    """A state that only the object's own methods read and write: a random generator, a numpy array."""

    def __init__(self, state: Any, put_back: Callable[[Any], Any]) -> None:
        self._state, self._put_back = state, put_back

    def restore(self) -> None:
        self._put_back(self._state)


class StateDict(Snapshot):
    """The last resort for what hides behind `state_dict`: loaded back if all else has left it changed.

    covers  whether a tensor's bytes are put back by someone else, so that no copy of them is needed.
    """

    def __init__(self, target: Any, covers: Callable[[Tensor], bool]) -> None:
        self._target, self._state = target, _copied(target.state_dict(), covers)

    def restore(self) -> None:
        if not _same(self._target.state_dict(), self._state):
            self._target.load_state_dict(_copied(self._state, lambda tensor: False))


def _copied(value: Any, covers: Callable[[Tensor], bool]) -> Any:
    if isinstance(value, Tensor):
        return value if covers(value) else value.detach().clone()
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _copied(item, covers)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_copied(item, covers) for item in value)
    return copy.deepcopy(value)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) if isinstance(a, (int, float, complex, str, bytes)) else False


def global_random_states() -> list[Snapshot]:
    """Where the global random generators stand: torch on every device in use, Python, and numpy if it is loaded."""
    states: list[Snapshot] = [
        Inner(torch.get_rng_state(), torch.set_rng_state),
        Inner(random.getstate(), random.setstate),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(Inner(torch.cuda.get_rng_state_all(), torch.cuda.set_rng_state_all))
    if torch.xpu.is_available() and torch.xpu.is_initialized():
        states.append(Inner(torch.xpu.get_rng_state_all(), torch.xpu.set_rng_state_all))
    if torch.backends.mps.is_available():
        states.append(Inner(torch.mps.get_rng_state(), torch.mps.set_rng_state))
    if (numpy := sys.modules.get("numpy")) is not None:
        states.append(Inner(numpy.random.get_state(), numpy.random.set_state))
    return states


def inner_state(thing: object) -> Inner | None:
    """A snapshot of a generator or a numpy array, None if the thing is neither."""
    if isinstance(thing, torch.Generator):
        return Inner(thing.get_state(), thing.set_state)
    if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
        return Inner(thing.getstate(), thing.setstate)
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(thing, numpy.random.RandomState):
        return Inner(thing.get_state(), thing.set_state)
    if isinstance(thing, numpy.random.Generator):
        bits: Any = thing.bit_generator
        return Inner(bits.state, lambda state: setattr(bits, "state", state))
    if isinstance(thing, numpy.ndarray) and thing.flags.writeable:
        return Inner(thing.copy(), lambda values: numpy.copyto(thing, values))
    return None
