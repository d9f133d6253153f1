"""Rows 23 and 24: world models without a decoder that one plans with, and inverse dynamics."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import ACTION, REWARD, SELF
from jepalab.audit.steps.batches import NUM_SAMPLES, pictures, series
from jepalab.audit.steps.case import Row, row
from jepalab.audit.steps.network_examples import DIM, adamw, frozen, mlp
from jepalab.audit.steps.world_recurrent_examples import NUM_BINS, soft_ce


class SimNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x.view(*x.shape[:-1], -1, 5), dim=-1).view(x.shape)


@row(number=23, name="td-mpc2", verdict="mixed", mixture=("JEPA-style", "supervised"), terms=[SELF, REWARD])
def td_mpc2(generator: torch.Generator) -> Row:
    """The embeddings of the observations to come, held against them, with rewards and values: TD-MPC2.

    Time is axis 0, as published: observations [4, 6, 7], actions [3, 6, 3], rewards [3, 6, 1].
    """
    encoder, dynamics = mlp(7, 20, DIM, last=SimNorm()), mlp(DIM + 3, 20, DIM, last=SimNorm())
    reward_net, qs = mlp(DIM + 3, 20, NUM_BINS), nn.ModuleList(mlp(DIM + 3, 20, NUM_BINS) for _ in range(2))
    policy, target_qs = mlp(DIM, 20, 3, last=nn.Tanh()), frozen(deepcopy(qs))
    model = {"encoder": encoder, "dynamics": dynamics, "reward": reward_net, "qs": qs}
    optimizer = adamw(model, lr=3e-4)
    pi_optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4)
    bins = torch.linspace(-2, 2, NUM_BINS)

    @torch.no_grad()
    def td_target(next_z: Tensor, reward: Tensor) -> Tensor:
        next_input = torch.cat([next_z, policy(next_z)], dim=-1)
        values = [(F.softmax(q(next_input), dim=-1) * bins).sum(-1, keepdim=True) for q in target_qs]
        return reward + 0.99 * torch.minimum(*values)

    def update_pi(zs: Tensor) -> None:
        qs.requires_grad_(False)
        za = torch.cat([zs, policy(zs)], dim=-1)
        value = sum((F.softmax(q(za), dim=-1) * bins).sum(-1) for q in qs) / len(qs)
        pi_loss = -value.mean()  # pyrefly: ignore[missing-attribute]
        pi_optimizer.zero_grad()
        pi_loss.backward()
        pi_optimizer.step()
        qs.requires_grad_(True)

    def update(x: Tensor, action: Tensor, reward: Tensor) -> dict[str, float]:
        with torch.no_grad():
            next_z = encoder(x[1:])
            td_targets = td_target(next_z, reward)
        z = encoder(x[0])
        zs, consistency_loss = [z], 0
        for t, (_action, _next_z) in enumerate(zip(action.unbind(0), next_z.unbind(0), strict=True)):
            z = dynamics(torch.cat([z, _action], dim=-1))
            consistency_loss = consistency_loss + F.mse_loss(z, _next_z) * 0.5**t
            zs.append(z)
        reward_loss, value_loss = 0, 0
        for t, (_z, _action) in enumerate(zip(zs[:-1], action, strict=True)):
            za = torch.cat([_z, _action], dim=-1)
            reward_loss = reward_loss + soft_ce(reward_net(za), reward[t].squeeze(-1)).mean() * 0.5**t
            for q in qs:
                value_loss = value_loss + soft_ce(q(za), td_targets[t].squeeze(-1)).mean() * 0.5**t
        total_loss = 20 * consistency_loss / 3 + 0.1 * reward_loss / 3 + 0.1 * value_loss / 6
        total_loss.backward()  # pyrefly: ignore[missing-attribute]
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 20.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_pi(torch.stack(zs).detach())
        with torch.no_grad():
            for p, p_target in zip(qs.parameters(), target_qs.parameters(), strict=True):
                p_target.lerp_(p, 0.01)
        return {"loss": total_loss.item(), "consistency": consistency_loss.item()}  # pyrefly: ignore[missing-attribute]

    inputs = {
        "x": series(generator, 4).transpose(0, 1).contiguous(),
        "action": torch.randn(3, NUM_SAMPLES, 3, generator=generator),
        "reward": torch.randn(3, NUM_SAMPLES, 1, generator=generator),
    }
    modules = {**model, "policy": policy, "target_qs": target_qs}
    return Row(update, inputs, modules, encoder, optimizer)


@row(
    number=23,
    name="td-mpc2, model half",
    verdict="mixed",
    mixture=("JEPA-style", "supervised"),
    terms=[SELF, REWARD],
)
def td_mpc(generator: torch.Generator) -> Row:
    """The embedding of the next observation, held against it, with reward and value: TD-MPC2 one step ahead.

    One step ahead with plain squared errors: the embedding, the reward, and the value of one average network.
    """
    encoder, dynamics = mlp(7, 20, DIM), mlp(DIM + 3, 20, DIM)
    reward_net, q = mlp(DIM + 3, 20, 1), mlp(DIM + 3, 20, 1)
    q_target = frozen(deepcopy(q))
    modules = {"encoder": encoder, "dynamics": dynamics, "reward": reward_net, "q": q, "q_target": q_target}

    def step(x: Tensor, action: Tensor, reward: Tensor, x_next: Tensor) -> Tensor:
        z = encoder(x)
        za = torch.cat([z, action], dim=-1)
        with torch.no_grad():
            z_next = encoder(x_next)
            target = reward + 0.99 * q_target(torch.cat([z_next, action], dim=-1)).squeeze(-1)
        consistency = F.mse_loss(dynamics(za), z_next)
        reward_loss = F.mse_loss(reward_net(za).squeeze(-1), reward)
        value_loss = F.mse_loss(q(za).squeeze(-1), target)
        return 2.0 * consistency + 0.5 * reward_loss + 0.1 * value_loss

    def after_step() -> None:
        averages: Iterable[tuple[Tensor, Tensor]] = zip(q_target.parameters(), q.parameters(), strict=True)
        for slow, fast in averages:
            slow.data.copy_(0.99 * slow.data + 0.01 * fast.data)

    inputs = {
        "x": torch.randn(NUM_SAMPLES, 7, generator=generator),
        "action": torch.randn(NUM_SAMPLES, 3, generator=generator),
        "reward": torch.randn(NUM_SAMPLES, generator=generator),
        "x_next": torch.randn(NUM_SAMPLES, 7, generator=generator),
    }
    return Row(step, inputs, modules, encoder, adamw(modules), after_step)


@row(number=24, name="inverse dynamics", verdict="supervised", terms=[ACTION])
def inverse_dynamics(generator: torch.Generator) -> Row:
    """The action between two observations, held against the one that was taken: inverse dynamics."""
    encoder, head = mlp(7, 20, DIM), mlp(2 * DIM, 20, 3)
    modules = {"encoder": encoder, "head": head}

    def step(x: Tensor, x_next: Tensor, action: Tensor) -> Tensor:
        return F.mse_loss(head(torch.cat([encoder(x), encoder(x_next)], dim=-1)), action)

    x, x_next = series(generator, 2).unbind(dim=1)
    inputs = {"x": x, "x_next": x_next, "action": torch.randn(NUM_SAMPLES, 3, generator=generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


@row(number=24, name="inverse dynamics, choice of an action", verdict="supervised", terms=[ACTION])
def inverse_dynamics_discrete(generator: torch.Generator) -> Row:
    """Which action led from one picture to the next, held against the one taken: inverse dynamics, as in ICM."""
    encoder = nn.Sequential(nn.Conv2d(3, 9, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, DIM))
    head = nn.Linear(2 * DIM, 5)
    modules = {"encoder": encoder, "head": head}
    optimizer = adamw(modules)

    def step(batch: dict[str, Tensor]) -> Tensor:
        obs, next_obs = batch["x"], batch["x_next"]
        z, z_next = encoder(torch.cat([obs, next_obs])).chunk(2)
        loss = F.nll_loss(F.log_softmax(head(torch.cat([z, z_next], dim=1)), dim=1), batch["action"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    action = torch.randint(0, 5, (NUM_SAMPLES,), generator=generator)
    inputs = {"x": pictures(generator), "x_next": pictures(generator), "action": action}
    return Row(step, inputs, modules, encoder, optimizer)
