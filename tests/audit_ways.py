"""One training step written in many ways, as real code writes it; what it compares is always the same.

It predicts from x the slow embedding of x_next, and x_next itself: one term of each kind.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audit_cases import Case, move_towards


class World:
    """The networks, the batch and the plain step. Whatever a test does otherwise it puts in place of a part."""

    def __init__(self, encoder: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        self.encoder = encoder or nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16))
        self.predictor, self.decoder = nn.Linear(16, 16), nn.Linear(16, 8)
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False)
        self.x, self.x_next = torch.randn(2, 6, 4, 8)
        self.optimizer = torch.optim.AdamW(self.trained(), lr=1e-3)

    def trained(self) -> list[nn.Parameter]:
        modules = (self.encoder, self.predictor, self.decoder)
        return [parameter for module in modules for parameter in module.parameters()]

    def terms(self, x: Tensor, x_next: Tensor) -> tuple[Tensor, Tensor]:
        predicted = self.predictor(self.encoder(x))
        with torch.no_grad():
            target = self.teacher(x_next)
        return F.mse_loss(predicted, target), F.mse_loss(self.decoder(predicted), x_next)

    def loss(self, x: Tensor, x_next: Tensor) -> Tensor:
        latent, pixel = self.terms(x, x_next)
        return latent + 0.3 * pixel

    def move_teacher(self) -> None:
        move_towards(self.teacher, self.encoder, 0.05)

    def learn(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.move_teacher()

    def case(self, step: Callable[..., Any], inputs: Any = None, **owned: Callable[[], Any]) -> Case:
        """For a step that only returns a loss."""
        names = ("encoder", "predictor", "decoder", "teacher")
        return Case(
            step,
            {"x": self.x, "x_next": self.x_next} if inputs is None else inputs,
            {name: getattr(self, name) for name in names},
            self.optimizer,
            self.encoder,
            self.move_teacher,
            owned,
        )

    def trains(self, step: Callable[..., Any], **owned: Callable[[], Any]) -> Case:
        """For a step that does everything: backward, optimizer, slow copy."""
        case = self.case(step, optimizer_of_the_step=self.optimizer.state_dict, **owned)
        case.optimizer, case.after_step = None, None
        return case


def closure_without_arguments(world: World) -> Case:
    return world.case(lambda: world.loss(world.x, world.x_next))


def step_that_trains(world: World) -> Case:
    return world.trains(lambda x, x_next: world.learn(world.loss(x, x_next)))


def autocast(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return world.loss(x, x_next)

    return world.case(step)


def scaled_gradients(world: World) -> Case:
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    def step(x: Tensor, x_next: Tensor) -> None:
        world.optimizer.zero_grad()
        scaler.scale(world.loss(x, x_next)).backward()
        scaler.unscale_(world.optimizer)
        nn.utils.clip_grad_norm_(world.trained(), 1.0)
        scaler.step(world.optimizer)
        scaler.update()
        world.move_teacher()

    return world.trains(step, scaler=scaler.state_dict)


def accumulated_gradients(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> None:
        world.optimizer.zero_grad()
        for part, part_next in zip(x.split(2), x_next.split(2), strict=True):
            (world.loss(part, part_next) / 3).backward()
        world.optimizer.step()
        world.move_teacher()

    return world.trains(step)


def terms_backward_one_by_one(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> None:
        latent, pixel = world.terms(x, x_next)
        world.optimizer.zero_grad()
        latent.backward(retain_graph=True)
        (0.3 * pixel).backward()
        world.optimizer.step()
        world.move_teacher()

    return world.trains(step)


def several_optimizers(world: World) -> Case:
    heads = torch.optim.SGD([*world.predictor.parameters(), *world.decoder.parameters()], lr=1e-2, momentum=0.9)
    world.optimizer = torch.optim.Adam(world.encoder.parameters(), lr=1e-3)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        loss = world.loss(x, x_next)
        heads.zero_grad()
        world.learn(loss)
        heads.step()
        return loss

    return world.trains(step, heads=heads.state_dict)


def optimizer_in_the_backward_pass(world: World) -> Case:
    """Each parameter is moved as soon as its gradient is there, so that no two gradients are held at a time."""
    optimizers = {parameter: torch.optim.SGD([parameter], lr=1e-2, momentum=0.9) for parameter in world.trained()}

    def move(parameter: Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(move)

    def step(x: Tensor, x_next: Tensor) -> None:
        world.loss(x, x_next).backward()
        world.move_teacher()

    return world.trains(step, each=lambda: [optimizer.state_dict() for optimizer in optimizers.values()])


def checkpointed(world: World, *, use_reentrant: bool) -> Case:
    first, *others = world.encoder.children()
    rest = nn.Sequential(*others)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        predicted = world.predictor(checkpoint(rest, first(x), use_reentrant=use_reentrant))
        with torch.no_grad():
            target = world.teacher(x_next)
        return F.mse_loss(predicted, target) + 0.3 * F.mse_loss(world.decoder(predicted), x_next)

    return world.case(step)


def checkpointed_reentrant(world: World) -> Case:
    return checkpointed(world, use_reentrant=True)


def checkpointed_not_reentrant(world: World) -> Case:
    return checkpointed(world, use_reentrant=False)


def in_place_operations(world: World) -> Case:
    mask = torch.ones(6, 4, 1)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        z, predicted = world.encoder(x), torch.empty(6, 4, 16)
        for position in range(4):
            predicted[:, position] = world.predictor(z[:, position])
        with torch.no_grad():
            target = torch.zeros(6, 4, 16).copy_(world.teacher(x_next))
        loss_map = (predicted - target).pow(2)
        loss_map *= mask
        difference = world.decoder(predicted).sub_(x_next)
        loss = loss_map.sum().div_(16 * mask.sum())
        loss += difference.square_().mean().mul_(0.3)
        return loss

    return world.case(step)


def inference_mode(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:
        with torch.inference_mode():
            target = world.teacher(x_next)
        predicted = world.predictor(world.encoder(x))
        return F.mse_loss(predicted, target.clone()) + 0.3 * F.mse_loss(world.decoder(predicted), x_next)

    return world.case(step)


def features_from_a_hook(world: World) -> Case:
    kept: dict[nn.Module, Tensor] = {}
    for network in (world.encoder, world.teacher):
        network.register_forward_hook(lambda module, arguments, output: kept.__setitem__(module, output))

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        world.encoder(x)
        with torch.no_grad():
            world.teacher(x_next)
        predicted = world.predictor(kept[world.encoder])
        return F.mse_loss(predicted, kept[world.teacher]) + 0.3 * F.mse_loss(world.decoder(predicted), x_next)

    return world.case(step)


def backward_hooks(world: World) -> Case:
    world.predictor.register_full_backward_hook(lambda module, to_inputs, to_outputs: None)
    for parameter in world.encoder.parameters():
        parameter.register_hook(lambda gradient: gradient.nan_to_num())
    return world.case(lambda x, x_next: world.loss(x, x_next))


class Passed(torch.autograd.Function):
    """The identity, with a backward of its own: what gradient reversal and straight-through estimators look like."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clone()


class Pass(nn.Module):
    """A layer around `Passed`."""

    def forward(self, x: Tensor) -> Tensor:
        return Passed.apply(x)


def custom_function_in_the_network(world: World) -> Case:
    world.encoder = nn.Sequential(world.encoder, Pass())
    return world.case(lambda x, x_next: world.loss(x, x_next))


def functional_call(world: World) -> Case:
    def step(x: Tensor, x_next: Tensor) -> Tensor:
        weights = dict(world.encoder.named_parameters())
        predicted = world.predictor(torch.func.functional_call(world.encoder, weights, (x,)))
        slow = {name: value.detach() for name, value in world.teacher.named_parameters()}
        target = torch.func.functional_call(world.teacher, slow, (x_next,))
        return F.mse_loss(predicted, target) + 0.3 * F.mse_loss(world.decoder(predicted), x_next)

    return world.case(step)


def compiled(world: World) -> Case:
    world.encoder = torch.compile(world.encoder, backend="eager")
    return world.case(lambda x, x_next: world.loss(x, x_next))


def compiled_in_place(world: World) -> Case:
    world.encoder.compile(backend="eager")
    return world.case(lambda x, x_next: world.loss(x, x_next))


WAYS = (
    closure_without_arguments,
    step_that_trains,
    autocast,
    scaled_gradients,
    accumulated_gradients,
    terms_backward_one_by_one,
    several_optimizers,
    optimizer_in_the_backward_pass,
    checkpointed_reentrant,
    checkpointed_not_reentrant,
    in_place_operations,
    inference_mode,
    features_from_a_hook,
    backward_hooks,
    custom_function_in_the_network,
    functional_call,
)
COMPILED = (compiled, compiled_in_place)
