"""Runs somebody's training step under watch, as often as the audit needs, and puts everything back."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from jepalab.audit.opaque import Opaque
from jepalab.audit.places import HERE, owner_of
from jepalab.audit.roles import Inputs, calling, loss_in, walk
from jepalab.audit.state import World
from jepalab.audit.tape import Recorder, Tape

Asked = Callable[[Recorder, list[Tensor], Any], None]


class Enough(BaseException):
    """Ends a run of the step once all that was asked of it is known."""


class Rehearsal:
    """A step, its inputs and its world; every run starts from where the last `restore` left it.

    names  what the step itself calls its scalars: {name: node}, from the last recorded run.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        inputs: Any,
        *,
        parameters: Any = None,
        encoder: Any = None,
        optimizer: Any = None,
        after_step: Callable[..., Any] | None = None,
        roles: Any = None,
    ) -> None:
        self.inputs = Inputs(inputs, roles)
        self.step, self.call = step, calling(step, inputs)
        self.optimizer, self.after_step = optimizer, after_step
        self.world = World()
        for name, thing in (("", parameters), ("encoder", encoder), ("", optimizer), ("", step), ("", after_step)):
            if thing is not None:
                self.world.watch(thing, name)
        self.world.watch(inputs, "inputs")
        self.num_backwards, self.stepped = 0, False
        self.stands_in = False  # the audit's own optimizer stepped, since neither the step nor the caller has one
        self._module_names: dict[int, str] = {}
        self.names: dict[str, int] = {}
        self.reached: set[str] = set()  # parameters that a backward pass gave a gradient in the last training run

    def leaf(self, tensor: Tensor) -> tuple[str, str]:
        """What a tensor from outside the step is."""
        role = self.inputs.by_id.get(id(tensor))
        if role is not None:
            return "root", role
        if self.world.is_parameter(tensor):
            if not self.world.name_of(tensor):
                self.world.watch(tensor, "parameter")
            return "parameter", self.world.name_of(tensor)
        return ("buffer", self.world.name_of(tensor)) if self.world.is_buffer(tensor) else ("constant", "")

    def record(self, *, asked: Asked | None = None, train: bool = False, **watching: Any) -> Tape:
        """One run of the step on a tape.

        asked   called with each group of scalars that backward is asked of, before it runs.
        train   run backward and the optimizer too; otherwise the run ends when the last backward is asked for.
        """
        recorder = Recorder(leaf=self.leaf, touched=self.world.keep_before_change, **watching)
        with recorder.pause():
            self._clear_gradients()
        self._run(recorder, asked, train)
        return recorder.tape

    def _run(self, recorder: Recorder, asked: Asked | None, train: bool) -> None:
        count, self.stepped = 0, False
        plain = torch.autograd.backward
        distributed = any(isinstance(m, nn.parallel.DistributedDataParallel) for m in self.world.modules.values())

        def backward(tensors: Any, grad_tensors: Any = None, *rest: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            recorder.tape.first_backward = min(recorder.tape.first_backward, len(recorder.tape.nodes))
            scalars = [tensors] if isinstance(tensors, Tensor) else list(tensors)
            with recorder.pause():
                if asked:
                    asked(recorder, scalars, grad_tensors)
                if not train and not distributed and count >= self.num_backwards:
                    raise Enough
                plain(tensors, grad_tensors, *rest, **options)
                self._note_gradients()

        try:
            with ExitStack() as stack:
                stack.enter_context(self._patched(recorder, backward))
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings(
                    "ignore", message="Using `torch.compile\\(module\\)` when there are global hooks"
                )
                with recorder, Opaque(recorder):
                    result = self.call()
                    loss = loss_in(result) if count == 0 else None
                    with recorder.pause():
                        self.names = {
                            path.removeprefix("terms."): key
                            for path, tensor in walk(result)
                            if tensor.numel() == 1 and (key := recorder.tape.key_of(tensor)) is not None
                        }
                if count == 0:
                    self._check(loss, result, recorder.tape)
                    assert loss is not None
                    if asked:
                        asked(recorder, [loss], None)
                    if train:
                        plain(loss)
                        self._note_gradients()
            if train:
                self.num_backwards = count
                self._finish(recorder)
        except Enough:
            return
        except Exception as error:
            if is_ours(error):
                raise
            raise at_fault(error) from error

    def demand_a_finite_loss(self) -> None:
        """Runs the step again; a loss that is NaN or infinite is a ValueError that names the line where it began."""
        bad: list[tuple[str, int]] = []
        wrong: list[float] = []

        def look(key: int, tensor: Tensor) -> None:
            if tensor.is_floating_point() and not tensor.isfinite().all():
                bad.append(("NaN" if tensor.isnan().any() else "infinite", key))

        def ask(recorder: Recorder, scalars: list[Tensor], _: Any) -> None:
            wrong.extend(float(scalar.detach()) for scalar in scalars if not scalar.isfinite().all())

        try:
            tape = self.record(asked=ask, watch=look)
        finally:
            self.world.restore()
        if not wrong:
            return
        kind = "NaN" if wrong[0] != wrong[0] else "infinite"
        node = next((tape.nodes[key] for what, key in bad if what == kind), None)
        began = ""
        if node is not None and node.kind == "root":
            began = f" The input {node.name!r} already holds one."
        elif node is not None:
            here, there = node.places
            again = f" (called from {there})" if there else ""
            began = f" The first one came out of {node.name} at {here}: {here.text if here else ''}{again}."
        raise ValueError(f"The loss is {kind}, so there is no gradient to look at.{began}")

    def _finish(self, recorder: Recorder) -> None:
        """What the step left to the training loop: the optimizer's step and what follows it."""
        if not self.stepped:
            if self.optimizer is not None:
                given = self.optimizer if isinstance(self.optimizer, (list, tuple)) else [self.optimizer]
                for optimizer in given:
                    optimizer.step()
            else:
                trained = [t for _, t in self.world.tensors() if t.requires_grad and t.is_leaf and t.grad is not None]
                self.stands_in = True
                if trained:
                    torch.optim.AdamW(trained, lr=1e-3).step()
        if self.after_step is not None:
            with recorder:
                calling(self.after_step, 0.0)()

    def _check(self, loss: Tensor | None, result: Any, tape: Tape) -> None:
        name = getattr(self.step, "__qualname__", "the step")
        if loss is None:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"The audit wanted a scalar loss from {name} (a 0-dimensional tensor, or `loss` in what it returns) "
                "or a "
                f"call of backward inside it; it got {shape}. Return the loss.{self.where()}"
            )
        if not loss.requires_grad:
            raise ValueError(
                f"The loss of {name} depends on no trainable parameter: nothing in its graph requires a gradient. "
                "Look for "
                f"a detach, torch.no_grad or parameters that were frozen.{self.where(tape)}"
            )

    def where(self, tape: Tape | None = None) -> str:
        """Where the step stands, as the end of a complaint; with a hint if it does what the audit cannot follow."""
        code = getattr(getattr(self.step, "__func__", self.step), "__code__", None)
        hint = " The audit does not look into torch.func.grad and vmap: write the step with backward and batches."
        here = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return (hint if tape is not None and tape.transformed else "") + here

    def _name_of(self, module: nn.Module) -> str:
        if id(module) not in self._module_names:
            self.world.watch(module, type(module).__name__.lower())
            for top, whole in self.world.modules.items():
                for name, part in whole.named_modules():
                    self._module_names.setdefault(id(part), f"{top}.{name}".strip("."))
        return self._module_names.get(id(module), type(module).__name__)

    def _note_gradients(self) -> None:
        self.reached |= {name for name, tensor in self.world.tensors() if tensor.is_leaf and tensor.grad is not None}

    def _clear_gradients(self) -> None:
        self.reached = set()
        for _, tensor in self.world.tensors():
            if tensor.requires_grad and tensor.is_leaf:
                tensor.grad = None

    @contextmanager
    def _patched(self, recorder: Recorder, backward: Callable[..., None]) -> Iterator[None]:
        """Watches modules, optimizers and backward while the step runs."""

        def enter(module: nn.Module, _: Any) -> None:
            recorder.modules.append(self._name_of(module))

        def leave(module: nn.Module, _: Any, output: Any) -> None:
            recorder.modules.pop()
            if recorder.active and isinstance(output, Tensor) and (key := recorder.tape.key_of(output)) is not None:
                recorder.tape.outputs[key] = id(module)

        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            self.world.watch(optimizer)
            self.stepped = True
            self._note_gradients()  # a hook in the backward pass may step and clear before that has ended
            recorder.active = recorder.active and len(args) + len(kwargs) > 1  # a closure computes the loss in there

        def after(*_: Any) -> None:
            recorder.active = True

        plain, gather = (
            torch.autograd.backward,
            torch.distributed.all_gather if torch.distributed.is_available() else None,
        )

        def all_gather(parts: list[Tensor], own: Tensor, *rest: Any, **options: Any) -> Any:
            assert gather is not None
            given = [("0", recorder.node_of(own))] if recorder.active else []
            result = gather(parts, own, *rest, **options)
            if given:
                recorder.write("all_gather", given, parts)
            return result

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
            register_optimizer_step_pre_hook(before),
            register_optimizer_step_post_hook(after),
        ]
        torch.autograd.backward = backward
        if gather is not None:
            torch.distributed.all_gather = all_gather  # fills its first argument where no torch function sees it
        try:
            yield
        finally:
            torch.autograd.backward = plain
            if gather is not None:
                torch.distributed.all_gather = gather
            for handle in handles:
                handle.remove()


def is_ours(error: Exception) -> bool:
    """Whether the audit failed in a line of its own, and not in a call of the step's that it passed on."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    passed_on = last.name in ("__torch_function__", "apply", "backward", "<lambda>")
    return last.filename.startswith(HERE) and owner_of(last.filename) != "user" and not passed_on


def at_fault(error: Exception) -> ValueError:
    """The step's own error, with the line of the user's that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if owner_of(frame.filename) == "user"]
    where = f" at {mine[-1].filename}:{mine[-1].lineno}: {mine[-1].line}" if mine else ""
    return ValueError(f"The step raised {type(error).__name__}{where}\n  {error}")
