"""Steps that cannot be audited are refused with the line at fault; none, refused or not, comes out changed."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit_cases import Case, audited, call, differences, marked_lines, run, state_of
from audit_ways import World
from jepalab.audit import audit


class Normalised(nn.Module):
    """Has statistics that every forward pass moves."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.normalise = nn.Linear(8, 16), nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(self.embed(x).mT).mT


# --- steps at fault: each line that the message may name is marked ----------------------------------------------------


def returns_nothing(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> None:  # <-
        world.loss(x, x_next)  # <-

    return world.case(step)


def returns_a_number(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> float:  # <-
        return world.loss(x, x_next).item()  # <-

    return world.case(step)


def returns_a_loss_for_each_sample(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:  # <-
        return F.mse_loss(world.decoder(world.encoder(x)), x_next, reduction="none").mean((1, 2))  # <-

    return world.case(step)


def returns_no_loss_among_others(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> dict[str, Tensor]:  # <-
        return {"embedding": world.encoder(x), "target": x_next}  # <-

    return world.case(step)


def takes_a_root_of_less_than_nothing(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:
        scale = (x - 100).sqrt()  # <-
        return world.loss(x * scale, x_next)

    return world.case(step)


class Divided(nn.Module):
    """Divides by a spread that is zero where a sample does not change."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True).sqrt()
        return centred / spread  # <-


def divides_zero_by_zero_in_a_module(world: World) -> Case:
    world.encoder = nn.Sequential(Divided(), world.encoder)
    world.x[0] = 1.0
    return world.case(world.loss)


def trains_nothing(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:  # <-
        return F.mse_loss(x, x_next)  # <-

    return world.case(step)


def detaches_its_loss(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:  # <-
        return world.loss(x, x_next).detach()  # <-

    return world.case(step)


def forgets_its_inputs(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:  # <-
        return torch.stack([parameter.square().sum() for parameter in world.trained()]).sum()  # <-

    return world.case(step)


def draws_its_own_batch(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:  # <-
        return world.loss(torch.randn(6, 4, 8), torch.randn(6, 4, 8))  # <-

    return world.case(step)


def raises(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:
        world.loss(x, x_next).backward()
        raise KeyError("no third frame")  # <-

    return world.case(step)


def multiplies_what_does_not_fit(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return F.mse_loss(world.decoder(world.predictor(world.decoder(x))), x_next)  # <-

    return world.case(step)


FAULTS = (
    (returns_nothing, "scalar"),
    (returns_a_number, "scalar"),
    (returns_a_loss_for_each_sample, r"scalar.*\b6\b"),
    (returns_no_loss_among_others, "scalar|loss"),
    (takes_a_root_of_less_than_nothing, "(?i)nan"),
    (divides_zero_by_zero_in_a_module, "(?i)nan"),
    (trains_nothing, "parameter"),
    (detaches_its_loss, "parameter|gradient"),
    (forgets_its_inputs, "inputs?.*(x, x_next|'x'.*'x_next')"),
    (draws_its_own_batch, "inputs?.*(x, x_next|'x'.*'x_next')"),
    (raises, "no third frame"),
    (multiplies_what_does_not_fit, "mat1 and mat2 shapes cannot be multiplied"),
)


def refusal(make: Callable[[World], Case]) -> ValueError:
    """How the audit refuses a step. `audited` sees to it that even then nothing has changed."""
    case = make(World(Normalised()))
    case.runs = False
    with pytest.raises(ValueError) as caught:
        audited(case)
    return caught.value


@pytest.mark.parametrize(("make", "said"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_refused_with_the_line_at_fault(make: Callable[[World], Case], said: str) -> None:
    message = str(refusal(make))
    assert re.search(said, message, re.DOTALL)
    marked = marked_lines(Divided if make is divides_zero_by_zero_in_a_module else make)
    named = {f"{Path(file).name}:{line}" for file, line in re.findall(r"([^\s\"'(]+\.py):(\d+)", message)}
    assert named & marked, f"none of {sorted(marked)} in: {message}"


@pytest.mark.parametrize("make", [raises, multiplies_what_does_not_fit], ids=lambda f: f.__name__)
def test_the_original_exception_is_the_cause(make: Callable[[World], Case]) -> None:
    case = make(World(Normalised()))
    with pytest.raises((KeyError, RuntimeError)) as plain:
        call(case.step, case.inputs)
    cause = refusal(make).__cause__
    assert type(cause) is plain.type
    assert str(cause) == str(plain.value)


def test_a_step_that_raises_under_its_own_backward_is_refused_too() -> None:
    """Whatever the user's code raises, it arrives with the line that raised it."""

    def make(world: World) -> Case:
        def step(x: Tensor, x_next: Tensor) -> Tensor:
            loss = world.loss(x, x_next)
            loss.register_hook(fail)
            return loss

        return world.case(step)

    def fail(gradient: Tensor) -> Tensor:
        raise RuntimeError("a hook went wrong")

    error = refusal(make)
    assert "a hook went wrong" in str(error)
    assert isinstance(error.__cause__, RuntimeError)


# --- what nobody can see through, and what must be put back -----------------------------------------------------------


class SquaredError(torch.autograd.Function):
    """A fused loss: nobody outside can see what it compares."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> Tensor:
        ctx.save_for_backward(found, wanted)
        return (found - wanted).square().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        found, wanted = ctx.saved_tensors
        return gradients[0] * 2 * (found - wanted) / found.numel(), None


def test_custom_loss_is_called_opaque_and_not_guessed() -> None:
    world = World()

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return SquaredError.apply(world.decoder(world.predictor(world.encoder(x))), x_next)

    result = audited(world.case(step))
    said = json.dumps(result.to_json())
    assert result.verdict == "unsupported"
    assert "opaque" in said
    assert "SquaredError" in said


def test_every_source_of_random_numbers_is_put_back(generator: torch.Generator) -> None:
    world = World()

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        noisy = x + 0.1 * torch.randn(x.shape, generator=generator) + 0.1 * torch.randn_like(x)
        return world.loss(noisy * random.uniform(0.9, 1.1), x_next) * float(np.random.uniform(0.9, 1.1))

    audited(world.case(step, generator=generator.get_state))


PYTHON_NUMBERS = """
import random
from audit_cases import audited
from audit_ways import World
from jepalab.audit import audit
world = World()
case = world.case(lambda x, x_next: world.loss(random.random() * x, x_next))
case.runs = False
before = random.getstate()
audited(case)
assert random.getstate() == before
"""


@pytest.mark.slow
def test_python_random_numbers_are_put_back() -> None:
    """In a process of its own: in this one the type checks draw from them too."""
    subprocess.run([sys.executable, "-c", PYTHON_NUMBERS], cwd=Path(__file__).parent, check=True)


DISTURBANCES: dict[str, Callable[[World], object]] = {
    "a weight": lambda world: world.predictor.weight.data.view(-1)[0].nextafter_(torch.tensor(9.0)),
    "a sign of zero": lambda world: world.x.view(-1)[0].fill_(-0.0),
    "a gradient": lambda world: world.predictor.weight.grad.mul_(2),  # type: ignore[union-attr]
    "no gradient": lambda world: setattr(world.predictor.weight, "grad", None),
    "a new parameter": lambda world: setattr(world.predictor, "weight", nn.Parameter(world.predictor.weight.detach())),
    "a frozen parameter": lambda world: world.predictor.requires_grad_(False),
    "statistics of batches": lambda world: world.encoder(world.x),
    "evaluation mode": lambda world: world.encoder.get_submodule("normalise").eval(),
    "a hook": lambda world: world.encoder.register_forward_hook(lambda *arguments: None),
    "a hook of a parameter": lambda world: world.predictor.weight.register_hook(lambda gradient: gradient),
    "the optimizer": lambda world: world.optimizer.state[world.predictor.weight]["exp_avg"].mul_(2),
    "a rate": lambda world: world.optimizer.param_groups[0].update(lr=1.0),
    "torch's numbers": lambda world: torch.rand(1),
    "NumPy's numbers": lambda world: np.random.uniform(),
}


@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
def test_every_trace_would_be_seen(disturb: Callable[[World], object]) -> None:
    """The check that all tests of the audit rely on."""
    world = World(Normalised())
    world.x.view(-1)[0] = 0.0
    case = world.case(lambda x, x_next: world.loss(x, x_next))
    run(case)
    before = state_of(case)
    assert differences(before, state_of(case)) == []
    disturb(world)
    assert differences(before, state_of(case))


def test_what_torch_func_does_is_not_followed_and_said_so() -> None:
    net, x = nn.Linear(5, 5), torch.randn(6, 5)

    def step(x: Tensor) -> Tensor:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            return F.mse_loss(torch.func.functional_call(net, weights, (x,)), x)

        return torch.func.grad_and_value(loss)(dict(net.named_parameters()))[1]

    found = audit(step, {"x": x}, steps=1)
    assert found.verdict == "unsupported"
    assert "torch.func" in found.why


def test_what_a_trainer_hands_over_beside_the_batch_is_filled_in() -> None:
    net = nn.Linear(5, 3)

    def training_step(batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(net(images), labels)

    assert audit(training_step, (torch.randn(6, 5), torch.arange(6) % 3), steps=1).verdict == "supervised"


def test_an_expanded_input_is_audited_as_its_copy_would_be() -> None:
    """Weights shared by all samples, as `expand` gives them: one of its elements cannot be changed alone."""
    torch.manual_seed(0)
    network, x, y = nn.Linear(8, 3), torch.randn(4, 8), torch.randn(4, 3)
    weight = torch.tensor([1.0, 0.5, 2.0])

    def step(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return ((network(x) - y).square() * weight).mean()

    shared = weight.expand(4, 3)
    found = audit(step, {"x": x, "y": y, "weight": shared}, parameters=network.parameters())
    copied = audit(step, {"x": x, "y": y, "weight": weight.repeat(4, 1)}, parameters=network.parameters())
    assert [term.space for term in found.terms] == [term.space for term in copied.terms] == ["label"]
    assert torch.equal(shared, weight.repeat(4, 1))
