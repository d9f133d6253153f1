"""What a thing holds: the way from a training step to all that it can reach and change."""

from __future__ import annotations

import dis
import io
import sys
from argparse import Namespace
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property, partial
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from jepalab.audit.snapshots import (
    MISSING,
    Bindings,
    Body,
    Cell,
    Elements,
    Entries,
    Slots,
    Snapshot,
    content_of,
    inner_state,
)

MAX_HOPS = 3  # plain objects within plain objects that are opened: trainer.algorithm.learner
MAX_MEMBERS = 4096  # a longer container is put back, its members are not looked into: a data set, a vocabulary
REGISTERED = {"_parameters": "parameter", "_buffers": "buffer", "_modules": "submodule"}
MACHINERY = (Optimizer, LRScheduler, ReduceLROnPlateau, GradScaler)
TRANSPARENT = (Namespace, SimpleNamespace, UserDict, UserList)  # the standard library's, yet only holders of others
DESCRIPTORS = (staticmethod, classmethod, property, cached_property)


@dataclass(frozen=True)
class Find:
    """Something that was found.

    hops  number of plain objects opened on the way to it.
    role  "parameter", "buffer" or "submodule" where a module has registered it, "machinery" for what belongs to an
          optimizer, a schedule or a gradient scaler, else "".
    """

    name: str
    thing: Any
    hops: int = 0
    role: str = ""

    def part(self, label: str, thing: object, *, hops: int = 0) -> Find:
        """Something this thing holds under a label."""
        return Find(joined(self.name, label), thing, self.hops + hops, self.role if self.role == "machinery" else "")


def joined(name: str, label: str) -> str:
    return f"{name}.{label}" if name and label else name or label


Contents = Iterator[Find | Snapshot]


def opener(find: Find) -> Callable[[Find], Contents] | None:
    """The function that opens a thing: it yields what to keep of the thing itself and what it holds.

    None if there is nothing to be opened: plain values, other people's libraries, objects too far away.
    """
    thing = find.thing
    if isinstance(thing, nn.Module):
        return _open_module
    if isinstance(thing, (FunctionType, MethodType, partial)):
        return _open_function if isinstance(thing, FunctionType) else _open_bound
    if isinstance(thing, type):
        return None if is_library(thing.__module__) or issubclass(thing, Enum) else _open_class
    for kinds, handler in _HANDLERS:
        if isinstance(thing, kinds):
            return handler
    if (kept := inner_state(thing)) is not None:
        return lambda _: iter([kept])
    if has_state_dict(thing):
        return _open_object
    foreign = is_closed(type(thing).__module__) and not isinstance(thing, TRANSPARENT)
    return None if foreign or isinstance(thing, Enum) or find.hops >= MAX_HOPS else _open_object


def cannot_be_rewound(thing: object) -> bool:
    """Whether this hands out its items once and tells nobody where it stands: a generator, a loader's iterator."""
    return isinstance(thing, Iterator) and is_closed(type(thing).__module__) and not isinstance(thing, io.IOBase)


def has_state_dict(thing: object) -> bool:
    """Whether a thing, no class, reads and writes its own state and nobody here knows how it is built."""
    kind = type(thing)
    if isinstance(thing, (type, nn.Module, *MACHINERY)) or not callable(getattr(kind, "load_state_dict", None)):
        return False
    read = getattr(kind, "state_dict", None)
    return isinstance(read, FunctionType) and read.__code__.co_argcount - len(read.__defaults__ or ()) <= 1


def _open_module(find: Find) -> Contents:
    module = find.thing
    yield Entries(vars(module))
    for name, value in tuple(vars(module).items()):
        role = REGISTERED.get(name)
        if role is None:
            yield find.part(name, value)
        elif isinstance(value, dict):
            yield Entries(value)
            for key, item in value.items():
                yield Find(joined(find.name, key), item, role=role)
    if "_parameters" not in vars(module):  # a scripted module keeps its own elsewhere
        for name, parameter in module.named_parameters():
            yield Find(joined(find.name, name), parameter, role="parameter")
        for name, buffer in module.named_buffers():
            yield Find(joined(find.name, name), buffer, role="buffer")
    yield Find("", type(module))


def _open_machinery(find: Find) -> Contents:
    find = Find(find.name or type(find.thing).__name__.lower(), find.thing, role="machinery")
    return _attributes(find, find.thing)


def _open_object(find: Find) -> Contents:
    yield from _attributes(find, find.thing)
    yield Find("", type(find.thing))


def _attributes(find: Find, thing: object) -> Contents:
    attributes = getattr(thing, "__dict__", None)
    hops = 0 if has_state_dict(thing) or isinstance(thing, MACHINERY) else 1
    if type(attributes) is dict:
        yield Entries(attributes)
        for name, value in tuple(attributes.items()):
            yield find.part(name, value, hops=hops)
    slots = _slots(type(thing))
    if slots:
        yield Slots(thing, slots)
        for name in slots:
            if (value := getattr(thing, name, MISSING)) is not MISSING:
                yield find.part(name, value, hops=hops)


@cache
def _slots(kind: type) -> tuple[str, ...]:
    if is_closed(kind.__module__):
        return ()
    named = [vars(one).get("__slots__", ()) for one in kind.__mro__ if not is_closed(one.__module__)]
    names = [name for some in named for name in ((some,) if isinstance(some, str) else some)]
    return tuple(name for name in names if not name.startswith("__"))


def _open_dict(find: Find) -> Contents:
    yield Entries(find.thing)
    yield from _items(find)
    yield from _attributes(find, find.thing)


def _items(find: Find) -> Contents:
    if len(find.thing) <= MAX_MEMBERS:
        for index, (key, value) in enumerate(tuple(find.thing.items())):
            yield find.part(key if isinstance(key, str) else str(key if isinstance(key, int) else index), value)


def _open_list(find: Find) -> Contents:
    yield Elements(find.thing)
    yield from _members(find)
    yield from _attributes(find, find.thing)


def _members(find: Find) -> Contents:
    if len(find.thing) <= MAX_MEMBERS:
        fields = getattr(type(find.thing), "_fields", None)  # of a named tuple
        for index, item in enumerate(tuple(find.thing)):
            yield find.part(fields[index] if fields else str(index), item)


def _open_bound(find: Find) -> Contents:
    """A method with its object, a partial with its arguments; both are known by the names of what they hold."""
    thing = find.thing
    if isinstance(thing, MethodType):
        yield Find(type(thing.__self__).__name__ if find.name else "", thing.__self__, find.hops)
        yield Find(find.name, thing.__func__, find.hops)
        return
    names = thing.func.__code__.co_varnames if isinstance(thing.func, FunctionType) else ()
    names = (*names[: len(thing.args)], *map(str, range(len(names), len(thing.args))))
    for name, value in (*zip(names, thing.args, strict=True), *thing.keywords.items()):
        yield Find(name, value, find.hops)
    yield Find(find.name, thing.func, find.hops)


def _open_descriptor(find: Find) -> Contents:
    for name in ("__func__", "func", "fget", "fset", "fdel"):
        if isinstance(function := getattr(find.thing, name, None), FunctionType):
            yield Find(find.name, function)


def _open_class(find: Find) -> Contents:
    kind = find.thing
    yield Body(kind)
    for name, value in tuple(vars(kind).items()):
        if not name.startswith("__") or isinstance(value, (FunctionType, *DESCRIPTORS)):
            yield Find(joined(kind.__name__, name), value, 1)
    for parent in kind.__bases__:
        yield Find("", parent)


def _open_function(find: Find) -> Contents:
    """A function's variables from outside, by their own names: closure, defaults, attributes and globals."""
    function, code = find.thing, find.thing.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield Cell(cell)
        if (content := content_of(cell)) is not MISSING:
            yield Find(name, content, find.hops)
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    yield from (Find(name, value) for name, value in zip(reversed(positional), reversed(defaults), strict=False))
    yield from (Find(name, value) for name, value in (function.__kwdefaults__ or {}).items())
    yield Entries(vars(function))
    yield from (Find(name, value, find.hops) for name, value in tuple(vars(function).items()))
    if is_library(function.__globals__.get("__name__") or ""):
        return
    names, attributes = names_in(code)
    yield Bindings(function.__globals__, names)
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            yield Find(name, value)
        elif not is_library(value.__name__):  # their own module: the names that may be `value.name` in this code
            yield Bindings(vars(value), attributes)
            yield from (Find(each, vars(value)[each]) for each in attributes if each in vars(value))


@cache
def names_in(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The globals that code reads or writes, with the functions inside it, and every name that may be an attribute."""
    operations = [i for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))]
    names = [str(i.argval) for i in operations if not i.opname.startswith("IMPORT")]
    attributes = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = names_in(constant)
            names += inner[0]
            attributes += inner[1]
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(attributes))


@cache
def is_closed(module: str) -> bool:
    """Whether a module is Python's, torch's, numpy's or the audit's own: its objects are not looked into."""
    root = module.partition(".")[0]
    own = __name__.rpartition(".")[0]
    return root in sys.stdlib_module_names or root in ("torch", "numpy") or module.startswith(own)


@cache
def is_library(module: str) -> bool:
    """Whether a module was installed: its functions keep nothing that counts in globals."""
    if is_closed(module):
        return True
    origin = getattr(sys.modules.get(module), "__file__", None) or ""
    return bool({"site-packages", "dist-packages"} & set(Path(origin).parts))


_HANDLERS: tuple[tuple[Any, Callable[[Find], Contents]], ...] = (
    (MACHINERY, _open_machinery),
    ((dict, OrderedDict), _open_dict),
    ((list, deque, set), _open_list),
    ((tuple, frozenset), _members),
    (MappingProxyType, _items),
    (DESCRIPTORS, _open_descriptor),
)
