"""The audit's world: whatever a training step changes is put back to the last bit."""

from __future__ import annotations

import argparse
import random
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepalab.audit.discovery import names_in
from jepalab.audit.state import World

COUNT = 0
MEMORY: list[Tensor] = []
GLOBAL_HEAD = nn.Linear(3, 2)


def photo(thing: Any, seen: frozenset[int] = frozenset()) -> Any:
    """Everything in a thing as nested tuples of plain values, tensors as identity, flags, gradient and bytes."""
    if isinstance(thing, Tensor):
        raw = thing.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if thing.numel() else b""
        gradient = photo(thing.grad) if thing.is_leaf and thing.grad is not None else None
        flags = (thing.requires_grad, thing.is_leaf, thing.dtype, thing.shape, thing.stride(), thing.data_ptr())
        return (id(thing), *flags, raw, gradient)
    if isinstance(thing, torch.Generator):
        return thing.get_state().numpy().tobytes()
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if id(thing) in seen:
        return "again"
    seen |= {id(thing)}
    if isinstance(thing, dict):
        return tuple((key if isinstance(key, str) else id(key), photo(value, seen)) for key, value in thing.items())
    if isinstance(thing, (list, tuple, deque)):
        return (id(thing) if not isinstance(thing, tuple) else 0, *(photo(item, seen) for item in thing))
    if isinstance(thing, (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)):
        return photo(vars(thing), seen)
    return thing


def draws() -> tuple[Any, ...]:
    """Where the global random generators stand."""
    numbers = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numbers[1].tolist(), numbers[2:]


def unchanged(step: Callable[[], Any], *things: Any) -> World:
    """Runs a step three times and restores after each; all must be as before, and the step must do the same again."""
    before, standing, results = photo(things), draws(), []
    world = World()
    world.watch(step)
    world.restore()  # the checker of types that tests run under draws numbers of its own
    for _ in range(3):
        results.append(photo(step()))
        assert (photo(things), draws()) != (before, standing), "the step changes nothing, so the test tests nothing"
        world.restore()
        assert photo(things) == before
        assert draws() == standing
    assert results[0] == results[1] == results[2]
    return world


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, steps: int) -> float:
    for _ in range(steps):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    "tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), capturable=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
}


@pytest.mark.parametrize("warm", [0, 2])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizer_fresh_and_warm(make: Callable[..., torch.optim.Optimizer], warm: int) -> None:
    model, x = network(), torch.ones(4, 3)
    optimizer = make(model.parameters())

    def step() -> float:
        if isinstance(optimizer, torch.optim.LBFGS):
            return float(optimizer.step(lambda: closure()).detach())
        optimizer.param_groups[0]["betas" if "betas" in optimizer.param_groups[0] else "new"] = (0.5, 0.5)
        return trained(model, optimizer, x, 3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        (loss := model(x).square().mean()).backward()
        return loss

    for _ in range(warm):
        step()
    unchanged(step, model, optimizer)
    assert bool(optimizer.state) == bool(warm)


def test_all_random_draws() -> None:
    own, python, numbers, old = torch.Generator(), random.Random(0), np.random.default_rng(0), np.random.RandomState(0)
    noise = np.zeros(2)

    def step() -> tuple[Any, ...]:
        noise[:] = np.random.rand(2)
        drawn = [torch.randn(2), torch.rand(2, generator=own), F.dropout(torch.ones(9))]
        plain = [random.random(), python.random(), numbers.random(), old.rand(), *noise]
        return (*torch.cat(drawn).tolist(), *map(float, plain))

    unchanged(step, own, noise)


def test_modes_and_flags_and_module_attributes() -> None:
    model = network()
    model.num_calls, model.cache, model.teacher = 0, None, [network()]

    def step() -> int:
        model.eval()
        model.requires_grad_(False)
        model.teacher[0].train(not model.teacher[0].training)
        model.num_calls += 1
        model.cache, model.added = torch.ones(2), nn.Linear(1, 1)
        model.register_buffer("late", torch.ones(1), persistent=False)
        model[0].register_forward_hook(lambda *_: None)
        model[1].running_mean = model[1].running_mean + 1  # another tensor, not another value
        return model.num_calls

    world = unchanged(step, model, model.teacher)
    assert model.training
    assert model[0].weight.requires_grad
    assert world.name_of(model.teacher[0][0].weight) == "model.teacher.0.0.weight"
    assert set(world.modules) == {"model", "model.teacher.0"}


@pytest.mark.parametrize("make", ["lambda", "cosine", "plateau", "sequential"])
def test_schedule_and_scaler(make: str) -> None:
    model, x = network(), torch.ones(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kinds = torch.optim.lr_scheduler
    schedule: Any = {
        "lambda": lambda: kinds.LambdaLR(optimizer, lambda t: 1 / (t + 1)),
        "cosine": lambda: kinds.CosineAnnealingLR(optimizer, 5),
        "plateau": lambda: kinds.ReduceLROnPlateau(optimizer, patience=0),
        "sequential": lambda: kinds.SequentialLR(
            optimizer, [kinds.ConstantLR(optimizer), kinds.ExponentialLR(optimizer, 0.5)], [1]
        ),
    }[make]()
    scaler = torch.amp.GradScaler("cpu", growth_interval=1)

    def step() -> float:
        optimizer.zero_grad()
        scaler.scale(loss := model(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step(*[1.0] * (make == "plateau"))
        return loss.item()

    unchanged(step, model, optimizer, vars(schedule), vars(scaler))
    step()
    unchanged(step, model, optimizer, vars(schedule), vars(scaler))


@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("how", ["none", "zero", "replaced", "data", "sparse"])
def test_gradients_and_data(how: str, had: bool) -> None:
    model = nn.Embedding(5, 3, sparse=how == "sparse")

    def backward() -> None:
        model(torch.tensor([0, 2])).square().sum().backward()

    if had:
        backward()

    def step() -> None:
        backward()
        if how == "replaced":
            model.weight.grad = torch.full((5, 3), float("nan"))
        elif how == "data":
            model.weight.data = torch.zeros(7, 1, dtype=torch.float64)
        elif how != "sparse":
            model.zero_grad(set_to_none=how == "none")
        with torch.no_grad():
            model.weight.add_(1)

    if how != "sparse":
        unchanged(step, model)
        return
    world, before = World(), model.weight.detach().clone()
    world.watch(step)
    gradient, content = model.weight.grad, model.weight.grad.to_dense() if had else None
    step()
    world.restore()
    assert torch.equal(model.weight, before)
    assert model.weight.grad is gradient
    assert gradient is None or torch.equal(gradient.to_dense(), content)


def test_tied_views_expanded_and_nan() -> None:
    encoder, decoder = nn.Linear(4, 4), nn.Linear(4, 4)
    decoder.weight = encoder.weight
    whole = torch.full((6, 4), float("nan"))
    bank = nn.ParameterList([nn.Parameter(whole[i : i + 2]) for i in (0, 2, 4)])
    odd, spread, one = (
        whole.view(torch.uint8)[1:, 3:6],
        torch.zeros(1, 3).expand(5, 3),
        torch.zeros((), dtype=torch.int8),
    )

    sign, freed = torch.zeros(1), torch.ones(4)

    def step() -> float:
        with torch.no_grad():
            for tensor in (encoder.weight, *bank, odd, spread[0], one):
                tensor.add_(1)
            sign.neg_()  # to -0, which equals 0
            freed.untyped_storage().resize_(0)
        return float(one)

    world = unchanged(step, encoder, decoder, bank, whole, odd, spread, one, sign)
    assert freed.tolist() == [1] * 4
    names = [name for name, _ in world.tensors()]
    assert len(names) == len(set(names))
    assert world.name_of(decoder.weight) in ("encoder.weight", "decoder.weight")
    assert sum(tensor is encoder.weight for _, tensor in world.tensors()) == 1


def test_each_byte_is_kept_once() -> None:
    flat = torch.arange(12.0)
    views = [flat[2:5], flat[4:9], flat.view(3, 4)[:, 1], flat]
    world = World()
    for index, view in enumerate(views):
        world.watch(view, f"view{index}")
        flat.add_(100)  # what was seen first counts, although a later view sees other values
    kept = [region for regions in world._memory._regions.values() for region in regions]
    assert sum(region.stop - region.start for region in kept) == flat.nbytes
    assert all(a.stop <= b.start for a, b in pairwise(kept))
    world.restore()
    assert flat[2:5].tolist() == [2, 3, 4]
    assert flat[5:9].tolist() == [105, 106, 107, 108]
    flat.zero_()
    assert world.before(views[0]).tolist() == [2, 3, 4]
    assert world.before(views[1]).tolist() == [4, 105, 106, 107, 108]
    assert world.before(views[2]).tolist() == [201, 105, 209]


def test_before_keeps_shape_strides_and_place() -> None:
    weight = nn.Parameter(torch.arange(6.0).view(2, 3).t())
    world = World()
    world.watch(weight, "weight")
    weight.data = torch.zeros(1)
    assert torch.equal(world.before(weight), torch.arange(6.0).view(2, 3).t())
    with pytest.raises(ValueError, match="watch it first"):
        world.before(torch.zeros(2))


def test_a_queue_and_its_pointer() -> None:
    def make() -> tuple[Callable[[], int], Callable[[], Any]]:
        queue, ring, pointer, name = [torch.zeros(2)], deque([torch.zeros(1)], maxlen=2), 0, None
        bank, seen, counts = torch.zeros(4, 2), {7, 8}, Counter(a=1)
        groups: dict[str, Any] = defaultdict(list, {"a": [torch.ones(1)]})
        ordered = OrderedDict(a=1, b=2)

        def step() -> int:
            nonlocal pointer, bank, name
            queue.append(torch.ones(2))
            queue[0] += 1
            ring.extend([torch.ones(1), torch.ones(1)])
            bank[pointer] = 3
            bank, pointer, name = torch.cat([bank, bank]), pointer + 1, "renamed"
            seen.add(pointer)
            seen.remove(7)
            counts.update(a=3, b=1)
            groups["b"].append(1)
            groups["a"].clear()
            ordered.move_to_end("a")
            ordered.pop("b")
            return pointer

        def look() -> Any:
            return queue, ring, pointer, name, bank, tuple(seen), dict(counts), dict(groups), tuple(ordered.items())

        return step, look

    step, look = make()
    world = World()
    world.watch(step)
    before = photo(look())
    for _ in range(2):
        assert step() == 1
        assert photo(look()) != before
        world.restore()
        assert photo(look()) == before


def test_globals_that_the_code_names() -> None:
    sibling = types.ModuleType("own_settings")
    sibling.rate, sibling.table, sibling.other = 1.0, torch.zeros(2), 5
    globals()["own_settings"] = sibling

    def step() -> int:
        def inner() -> None:
            GLOBAL_HEAD.weight.data.add_(1)

        global COUNT, NEW
        COUNT, NEW = COUNT + 1, "made by the step"
        MEMORY.append(torch.ones(1))
        own_settings.rate *= 2
        own_settings.table += 1
        step.calls = getattr(step, "calls", 0) + 1
        [inner() for _ in range(1)]
        return COUNT

    try:
        before = photo(GLOBAL_HEAD)
        world = World()
        world.watch(step)
        for _ in range(2):
            assert step() == 1
            world.restore()
            assert (COUNT, MEMORY, sibling.rate, sibling.table.tolist()) == (0, [], 1.0, [0, 0])
            assert "NEW" not in globals()
            assert not vars(step)
            assert photo(GLOBAL_HEAD) == before
        assert world.name_of(GLOBAL_HEAD.weight) == "GLOBAL_HEAD.weight"
    finally:
        del globals()["own_settings"]
    assert set(names_in(step.__code__)[0]) >= {"COUNT", "NEW", "MEMORY"}
    assert "calls" not in names_in(step.__code__)[0]


class Pair(NamedTuple):
    left: nn.Module
    right: Tensor


@dataclass(frozen=True)
class Held:
    model: nn.Module
    pair: Pair
    settings: dict[str, Any] = field(default_factory=dict)


class Slotted:
    __slots__ = ("extra", "table")

    def __init__(self) -> None:
        self.table = torch.zeros(2)


class Learner:
    total: ClassVar[int] = 0
    log: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.model = network()
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.num_steps, self.slotted, self.me = 0, Slotted(), self


class Trainer:
    def __init__(self) -> None:
        self.learner, self.options = Learner(), argparse.Namespace(step=0)

    def step(self, x: Tensor) -> float:
        learner = self.learner
        learner.num_steps += 1
        self.options.step += 1
        Learner.total += 1
        Learner.log.append(1)
        Learner.late = 1
        learner.slotted.table += 1
        learner.slotted.extra = 1
        return trained(learner.model, learner.optimizer, x, 1)


def test_bound_method_of_a_trainer() -> None:
    trainer = Trainer()
    learner = trainer.learner

    def look() -> Any:
        plain = learner.num_steps, vars(trainer.options), Learner.total, Learner.log, hasattr(Learner, "late")
        return photo((learner.model, learner.optimizer, learner.slotted.table, *plain)), hasattr(
            learner.slotted, "extra"
        )

    world = World()
    world.watch(partial(trainer.step, torch.ones(4, 3)))
    before = look()
    for _ in range(2):
        trainer.step(torch.ones(4, 3))
        assert look() != before
        world.restore()
        assert look() == before
    assert list(world.modules) == ["learner.model"]
    assert world.optimizers == [learner.optimizer]
    assert world.name_of(learner.model[0].weight) == "learner.model.0.weight"


def test_discovery_names() -> None:
    held = Held(nn.Linear(2, 2), Pair(nn.Linear(2, 2), torch.zeros(1)), {"deep": [nn.Linear(2, 2)]})
    given, partially, default, last = (nn.Linear(2, 2) for _ in range(4))
    raw = torch.zeros(2, requires_grad=True)
    everything = [*held.model.parameters(), raw]
    optimizer = torch.optim.Adam([raw])

    def step(model: nn.Module, end: nn.Module = last, *, keyword: nn.Module, other: nn.Module = default) -> None:
        print(held, everything, optimizer)

    world = World()
    world.watch({"encoder": given})
    world.watch(partial(step, partially, keyword=given))
    expected = {
        "encoder": given, "model": partially, "end": last, "other": default, "held.model": held.model,
        "held.pair.left": held.pair.left, "held.settings.deep.0": held.settings["deep"][0],
    }  # fmt: skip
    assert {name: id(module) for name, module in world.modules.items()} == {k: id(v) for k, v in expected.items()}
    assert world.name_of(held.pair.right) == "held.pair.right"
    assert world.name_of(held.model.weight) == "held.model.weight"
    assert world.name_of(raw) == "everything.2"
    assert world.name_of(torch.zeros(1)) == ""
    assert world.is_parameter(raw)
    assert world.is_parameter(given.weight)
    assert not world.is_parameter(held.pair.right)


def test_buffers_gradients_and_optimizer_state() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer, torch.ones(4, 3), 1)
    world = World()
    world.watch(optimizer)
    world.watch(model, "model")
    assert world.is_buffer(model[1].running_var)
    assert not world.is_buffer(model[1].weight)
    assert world.name_of(model[1].running_var) == "model.1.running_var"
    expected = [*model.parameters(), *model.buffers()]
    assert {id(tensor) for _, tensor in world.tensors()} == {id(tensor) for tensor in expected}
    assert world.name_of(optimizer.state[model[0].weight]["exp_avg"]) == "adam.state.0.exp_avg"
    assert world.name_of(model[0].weight.grad) == f"{world.name_of(model[0].weight)}.grad"


def test_first_sight_counts() -> None:
    model = network()
    world = World()
    world.watch(model, "model")
    before = photo(model)
    model[0].weight.data.zero_()
    world.watch(model, "again")
    world.watch({"third": model})
    world.restore()
    assert photo(model) == before
    assert list(world.modules) == ["model"]


def test_an_exception_in_the_middle() -> None:
    model, x = network(), torch.ones(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        trained(model.eval(), optimizer, x, 1)
        model(x).sum().backward()
        raise RuntimeError("in the middle")

    before, standing = photo((model, optimizer)), draws()
    world = World()
    world.watch(step)
    with pytest.raises(RuntimeError, match="in the middle"):
        step()
    world.restore()
    assert (photo((model, optimizer)), draws()) == (before, standing)


def test_a_buffer_that_became_part_of_the_graph() -> None:
    model, bank = nn.Linear(2, 2), torch.zeros(3, 2)

    def step() -> None:
        bank[0] = model(torch.ones(2))
        bank.sum().backward()

    unchanged(step, model, bank)
    assert bank.is_leaf


def test_an_unknown_tensor_about_to_change() -> None:
    world, unknown, model = World(), torch.zeros(4), nn.Linear(2, 2)
    world.watch(model, "model")
    world.keep_before_change(unknown)
    before = len(world._tensors)
    world.keep_before_change(model.weight[0])  # a view of something watched is watched already
    assert len(world._tensors) == before
    unknown.add_(1)
    world.keep_before_change(unknown)
    world.restore()
    assert unknown.tolist() == [0] * 4
    assert not any(tensor is unknown for _, tensor in world.tensors())


def test_state_behind_a_state_dict() -> None:
    hidden: ContextVar[dict[str, Any]] = ContextVar("hidden")  # nobody can look into one
    hidden.set({"table": torch.zeros(2), "log": [1]})

    class Keeper:
        def state_dict(self) -> dict[str, Any]:
            return hidden.get()

        def load_state_dict(self, state: dict[str, Any]) -> None:
            hidden.set(state)

    world = World()
    world.watch([Keeper()])
    for _ in range(2):
        hidden.get()["table"] += 1
        hidden.get()["log"].append(2)
        world.restore()
        assert hidden.get()["table"].tolist() == [0, 0]
        assert hidden.get()["log"] == [1]


def test_what_cannot_be_rewound_is_named() -> None:
    schedule, batches = (i for i in range(3)), iter(torch.utils.data.DataLoader([1.0, 2.0]))

    def step() -> Any:
        return next(schedule), next(batches)

    world = World()
    world.watch(step)
    assert {name: id(each) for name, each in world.iterators.items()} == {
        "batches": id(batches),
        "schedule": id(schedule),
    }


def test_a_lazy_module_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lazy one \(model.weight\)"):
        World().watch(nn.LazyLinear(2), "model")


def test_nothing_installed_is_opened() -> None:
    world = World()
    world.watch(
        {"logger": __import__("logging").getLogger(), "module": torch, "class": nn.Linear, "test": pytest.fixture}
    )
    held = {type(each).__name__ for each in world._seen.values()}
    assert held <= {"dict", "function", "tuple", "list"}


def test_watching_is_no_part_of_the_step() -> None:
    calls = []

    class Listening(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    model = network()
    with Listening():
        calls.clear()
        world = World()
        world.watch(model)
        world.keep_before_change(model[0].weight)
        world.before(model[0].weight)
        world.restore()
    assert not calls


def test_numpy_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    world = World()
    world.watch({"generator": torch.Generator(), "model": network()})
    world.restore()
