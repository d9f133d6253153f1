"""The tape: every call of a torch function during a step, what went in, what came out, and where it was written.

What runs at every call is exempt from run-time type checks, which would cost more than the calls.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from jepalab.audit import operations as ops
from jepalab.audit.norms import with_fixed_statistics
from jepalab.audit.places import Line, lines, place
from jepalab.audit.report import Place


@dataclass(slots=True)
class Node:
    """One tensor: a leaf (an input, a parameter ...) or one output of a call.

    kind    "call", "root", "parameter", "buffer", "constant" or "noise".
    name    of the operation, or of the leaf.
    inputs  what the call read: (slot, key) for each tensor among its arguments; the slot is the argument's position
            or keyword, "0.1" inside a list.
    edge    where this tensor stands in autograd's graph, if a gradient can flow through it.
    """

    key: int
    kind: str
    name: str
    inputs: tuple[tuple[str, int], ...] = ()
    shape: tuple[int, ...] = ()
    requires_grad: bool = False
    integer: bool = False
    edge: GradientEdge | None = None
    output: int = 0
    literal: str = ""
    line: Line | None = None
    caller: Line | None = None
    module: str = ""
    opaque: bool = False

    @property
    def places(self) -> tuple[Place | None, Place | None]:
        """Where the call was written, and the line of the step that led there, where that is another one."""
        here = place(self.line) if self.line else None
        there = place(self.caller) if self.caller and self.caller != self.line else None
        return here, there


@dataclass
class Tape:
    """The nodes of one step in the order of the calls, and the scalars whose gradient was asked for."""

    nodes: list[Node] = field(default_factory=list)
    seen: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    left: set[int] = field(default_factory=set)  # nodes whose values went to numpy or Python lists
    asked: list[tuple[int, ...]] = field(default_factory=list)  # inputs of torch.autograd.grad within the step
    writes: dict[str, Line] = field(default_factory=dict)  # parameter -> the line that first wrote into it
    written: dict[str, int] = field(default_factory=dict)  # parameter -> number of nodes when that happened
    first_backward: int = sys.maxsize  # number of nodes when a gradient was first asked for
    transformed: bool = False  # whether torch.func (vmap, grad) ran in the step: what it wraps cannot be followed
    outputs: dict[int, int] = field(default_factory=dict)  # node -> id of the module whose output it is

    def key_of(self, tensor: Tensor) -> int | None:
        key = self.seen.get(tensor)
        return None if key is None else cast(int, key)

    def ancestors(self, keys: list[int]) -> set[int]:
        found, todo = set(), list(keys)
        while todo:
            if (key := todo.pop()) not in found:
                found.add(key)
                todo += [k for _, k in self.nodes[key].inputs]
        return found


class Recorder(TorchFunctionMode):
    """Writes the tape while a step runs. It computes nothing itself: every call goes on as it came.

    leaf       says what a tensor from outside the step is: (kind, name).
    touched    is told of a tensor from outside that is about to be changed in place.
    traceable  normalise batches with fixed statistics, and let rectifiers leak: what they read shows in what they give.
    replace    may exchange a call's arguments, given the node each came from; alter its output; watch may look at it.
               All get the node's key.
    """

    def __init__(
        self,
        *,
        leaf: Callable[[Tensor], tuple[str, str]],
        touched: Callable[[Tensor], None] = lambda tensor: None,
        replace: Callable[[int, list[Any], dict[str, Any], dict[str, int]], None] | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
        alter: Callable[[int, Tensor], Tensor] | None = None,
        traceable: bool = False,
    ) -> None:
        super().__init__()
        self.tape, self.leaf, self.touched, self.replace, self.watch = Tape(), leaf, touched, replace, watch
        self.active, self.modules, self.alter, self.traceable = True, [""], alter, traceable

    @no_type_check
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.active:
            return func(*args, **kwargs)
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        raw = getattr(func, "__name__", str(func))
        name = ops.plain_name(raw, owner)
        if raw == "grad" and owner != "grad" and func is torch.autograd.grad:
            return self._gradient(func, args, kwargs)
        arguments = list(tensors_in(args, kwargs))
        given = [(slot, self.node_of(tensor)) for slot, tensor in arguments]
        first = args[0] if args else None
        writes = raw in ("__setitem__", "__set__") or (raw.endswith("_") and not raw.endswith("__"))
        if writes:
            for tensor in first if isinstance(first, (list, tuple)) else (first,):
                if isinstance(tensor, Tensor) and (leaf := self.tape.nodes[self.node_of(tensor)]).kind != "call":
                    if not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                        self.touched(tensor)
                    line, _ = lines(sys._getframe(1))
                    if leaf.kind == "parameter" and line:
                        self.tape.writes.setdefault(leaf.name, line)
                        self.tape.written.setdefault(leaf.name, len(self.tape.nodes))
        if self.replace and given:
            changed, options = list(args), dict(kwargs)
            self.replace(len(self.tape.nodes), changed, options, dict(given))
            args, kwargs = tuple(changed), options
        if self.traceable and func is F.batch_norm:
            args, kwargs = (), with_fixed_statistics(*args, **kwargs)
        elif self.traceable and name == "relu":
            in_place = raw == "relu_" or True in args[1:] or bool(kwargs.get("inplace"))
            func, args, kwargs = F.leaky_relu_ if in_place else F.leaky_relu, args[:1], {}
        result = func(*args, **kwargs)
        if self.alter and isinstance(result, Tensor):
            result = self.alter(len(self.tape.nodes), result)
        if raw == "__setitem__":
            result = first
            self.write(name, given, result, literal=selection(name, args, kwargs), base=first)
            return None
        if raw in ("numpy", "__array__", "tolist") and given and isinstance(first, Tensor) and first.numel() > 1:
            self.tape.left.add(given[0][1])
        if name in ops.IGNORED or raw.startswith("_foreach") or raw in ("__set__", "__bool__", "__len__"):
            return result
        outputs = list(tensors_in(result, {}))
        if outputs:
            self.write(name, given, result, literal=selection(name, args, kwargs), base=first if writes else None)
        return result

    @no_type_check
    def write(
        self,
        name: str,
        given: list[tuple[str, int]],
        result: Any,
        *,
        literal: str = "",
        base: Any = None,
        opaque: bool = False,
    ) -> None:
        """A node for each tensor that came out."""
        line, caller = lines(sys._getframe(1))
        if not given and self.tape.left and name in ("tensor", "from_numpy", "as_tensor", "stack", "asarray"):
            given, name = [(str(i), key) for i, key in enumerate(sorted(self.tape.left))], "outside"
        kind = "noise" if name in ops.NOISE else "call"
        for index, (_, tensor) in enumerate(tensors_in(result, {})):
            before = self.tape.key_of(tensor)
            if before is not None and self.tape.nodes[before].kind == "parameter":
                continue  # a parameter stays one, whatever is written into it
            if not given and kind == "call":
                if before is None:
                    self._add(tensor, Node(len(self.tape.nodes), "constant", name))
                continue
            own = given[index : index + 1] if name in ops.ELEMENTWISE_OUTPUTS else given
            own = given[:1] if name in ops.SHAPED_LIKE else own
            node = Node(
                len(self.tape.nodes), kind, name, tuple(own), output=index, line=line, caller=caller,
                literal=f"{literal}#{index}" if literal else "", module=self.modules[-1], opaque=opaque,
            )  # fmt: skip
            self._add(tensor, node)
            if tensor is base and tensor._is_view() and isinstance(tensor._base, Tensor):
                # What is written into a view is written into what it is a view of.
                whole = self.node_of(tensor._base)
                into = (("0", whole), ("1", node.key))
                self._add(tensor._base, Node(len(self.tape.nodes), "call", "setitem", into, line=line, caller=caller))

    @no_type_check
    def node_of(self, tensor: Tensor) -> int:
        """The key of a tensor's node; a tensor never seen before becomes a leaf."""
        key = self.tape.key_of(tensor)
        if key is not None:
            node = self.tape.nodes[key]
            if tensor.requires_grad and not node.requires_grad and node.kind == "call" and is_custom(tensor):
                # Came out of a custom autograd function, whose own lines ran without gradient.
                name = type(tensor.grad_fn).__name__.removesuffix("Backward")
                node = Node(
                    len(self.tape.nodes), "call", name, (("0", key),), line=node.line, caller=node.caller, opaque=True,
                    module=node.module,
                )  # fmt: skip
                return self._add(tensor, node)
            return key
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        self.tape.transformed = self.tape.transformed or wrapped
        kind, name = ("constant", "") if wrapped else self.leaf(tensor)
        return self._add(tensor, Node(len(self.tape.nodes), kind, name))

    @no_type_check
    def _add(self, tensor: Tensor, node: Node) -> int:
        node.shape, node.requires_grad = tuple(tensor.shape), tensor.requires_grad
        node.integer = not (tensor.is_floating_point() or tensor.is_complex())
        if node.kind == "call" and tensor.requires_grad and tensor.grad_fn is not None:
            node.edge = get_gradient_edge(tensor)
        self.tape.nodes.append(node)
        self.tape.seen[tensor] = node.key
        if self.watch and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            self.watch(node.key, tensor)  # what is inside a vmap has no values to look at
        return node.key

    def _gradient(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """torch.autograd.grad inside the step: its result depends on all it was given."""
        given = [(slot, self.node_of(tensor)) for slot, tensor in tensors_in(args, kwargs)]
        wanted = args[1] if len(args) > 1 else kwargs.get("inputs")
        self.active = False
        try:
            result = func(*args, **kwargs)
        finally:
            self.active = True
        self.tape.asked.append(tuple(self.node_of(t) for _, t in tensors_in((wanted,), {})))
        self.write("autograd.grad", given, result)
        return result

    def pause(self) -> AbstractContextManager[None]:
        """Nothing is recorded meanwhile: backward passes, optimizer steps."""
        return _Paused(self)


class _Paused(AbstractContextManager):
    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.before = recorder, recorder.active

    def __enter__(self) -> None:
        self.recorder.active = False

    def __exit__(self, *_: object) -> None:
        self.recorder.active = self.before


@no_type_check
def tensors_in(value: Any, options: dict[str, Any] | None = None, slot: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a call's arguments with the slot it stands in."""
    if isinstance(value, Tensor):
        yield slot or "0", value
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            if isinstance(item, (Tensor, tuple, list, dict)):
                yield from tensors_in(item, None, f"{slot}.{index}" if slot else str(index))
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (Tensor, tuple, list, dict)):
                yield from tensors_in(item, None, f"{slot}.{key}" if slot else str(key))
    for key, item in (options or {}).items():
        if isinstance(item, (Tensor, tuple, list, dict)):
            yield from tensors_in(item, None, str(key))


@no_type_check
def selection(name: str, args: tuple, kwargs: dict) -> str:
    """What a selecting call selects, as text; empty where it takes everything."""
    if name not in ops.SELECTION:
        return ""
    rest = [argument for argument in args[1:] if not isinstance(argument, Tensor)]
    if name in ("getitem", "setitem"):
        index = args[1] if len(args) > 1 else None
        parts = index if isinstance(index, tuple) else (index,)
        whole = (None, Ellipsis, slice(None))
        if not [part for part in parts if isinstance(part, Tensor) or part not in whole]:
            return ""
        return repr([part for part in parts if not isinstance(part, Tensor)])
    return repr((name, rest, sorted((k, v) for k, v in kwargs.items() if not isinstance(v, Tensor))))


@no_type_check
def is_custom(tensor: Tensor) -> bool:
    return isinstance(tensor.grad_fn, torch.autograd.function.BackwardCFunction)
