"""Rows 21-24: world models that predict observations, rewards, actions and their own embeddings side by side."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit_networks import DIM, adamw, frozen, mlp
from audit_rows import NUM_SAMPLES, REWARD, Expect, Row, pictures, row, series

NUM_BINS = 9

ACTION = Expect(space="action", target_learning="none", family="supervised", label="ACTION")
RECONSTRUCTION = Expect(
    space="input",
    process="regress",
    target_learning="none",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT",
)
SELF = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=True,
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (self)",
)


def episodes(generator: torch.Generator) -> dict[str, Tensor]:
    """Observations [6, 5, 7], actions [6, 5, 3], rewards [6, 5]."""
    x = series(generator)
    action = torch.randn(NUM_SAMPLES, 5, 3, generator=generator)
    return {"x": x, "action": action, "reward": torch.randn(NUM_SAMPLES, 5, generator=generator)}


def two_hot(x: Tensor, low: float = -2.0, high: float = 2.0) -> Tensor:
    """[...] -> [..., 9]: weight on the two bins next to each number."""
    x = torch.clamp(x, low, high)
    place = (x - low) / (high - low) * (NUM_BINS - 1)
    below = torch.floor(place).long().clamp(max=NUM_BINS - 2)
    part = (place - below).unsqueeze(-1)
    return F.one_hot(below, NUM_BINS) * (1 - part) + F.one_hot(below + 1, NUM_BINS) * part


def soft_ce(pred: Tensor, target: Tensor) -> Tensor:
    return -(two_hot(target) * F.log_softmax(pred, dim=-1)).sum(-1)


class RSSM(nn.Module):
    """DreamerV3's: 14 numbers of deterministic memory, 3 categorical variables of 4 values."""

    def __init__(self, groups: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.groups, self.classes = groups, classes
        self.cell = nn.GRUCell(groups * classes + 3, 14)
        self.prior_net = mlp(14, 20, groups * classes)
        self.post_net = mlp(14 + DIM, 20, groups * classes)

    def dist(self, logits: Tensor) -> torch.distributions.Distribution:
        probs = F.softmax(logits.unflatten(-1, (self.groups, self.classes)), dim=-1)
        probs = 0.99 * probs + 0.01 / self.classes
        return torch.distributions.Independent(torch.distributions.OneHotCategoricalStraightThrough(probs=probs), 1)

    def observe(self, embed: Tensor, action: Tensor) -> dict[str, Tensor]:
        deter = torch.zeros(len(embed), 14)
        stoch = torch.zeros(len(embed), self.groups * self.classes)
        states: dict[str, list[Tensor]] = {"deter": [], "stoch": [], "prior": [], "post": []}
        for t in range(embed.shape[1]):
            previous = action[:, t - 1] if t else torch.zeros_like(action[:, 0])
            deter = self.cell(torch.cat([stoch, previous], -1), deter)
            prior = self.prior_net(deter)
            post = self.post_net(torch.cat([deter, embed[:, t]], -1))
            stoch = self.dist(post).rsample().flatten(-2)
            for name, value in (("deter", deter), ("stoch", stoch), ("prior", prior), ("post", post)):
                states[name].append(value)
        return {name: torch.stack(values, 1) for name, values in states.items()}

    def kl_loss(self, post: Tensor, prior: Tensor, free: float) -> tuple[Tensor, Tensor]:
        kld = torch.distributions.kl_divergence
        dyn_loss = kld(self.dist(post.detach()), self.dist(prior))
        rep_loss = kld(self.dist(post), self.dist(prior.detach()))
        return torch.clip(dyn_loss, min=free).mean(), torch.clip(rep_loss, min=free).mean()


LATENT = Expect(
    space="own-embedding",
    target_learning="joint",
    stop_gradient=True,
    novelty="positive",
    family="JEPA-style",
    label=("EMBEDDING-PREDICTION (self)", "EMBEDDING-PREDICTION (discrete self-codes)"),
)
# The posterior pulled to the prior: the prediction here has seen more than what it is held against.
POSTERIOR_TO_PRIOR = Expect(space=("own-embedding", "statistic"), required=False)


@row(
    number=21,
    name="dreamer",
    verdict="mixed",
    mixture=("generative", "supervised"),
    terms=[RECONSTRUCTION, REWARD, Expect(space="own-embedding", required=False)],
)
def dreamer(generator: torch.Generator) -> Row:
    encoder, rssm, decoder, reward = mlp(7, 20, DIM), RSSM(), mlp(26, 20, 7), mlp(26, 20, NUM_BINS)
    modules = {"encoder": encoder, "rssm": rssm, "decoder": decoder, "reward": reward}
    optimizer = adamw(modules)

    def train_step(data: dict[str, Tensor]) -> dict[str, float]:
        states = rssm.observe(encoder(data["x"]), data["action"])
        feat = torch.cat([states["stoch"], states["deter"]], -1)
        losses = {}
        losses["dyn"], losses["rep"] = rssm.kl_loss(states["post"], states["prior"], 1.0)
        losses["image"] = ((decoder(feat) - data["x"]) ** 2).sum(-1).mean()
        losses["reward"] = soft_ce(reward(feat), data["reward"]).mean()
        scales = {"dyn": 1.0, "rep": 0.1, "image": 1.0, "reward": 1.0}
        model_loss = sum(scales[name] * loss for name, loss in losses.items())
        optimizer.zero_grad()
        model_loss.backward()
        torch.nn.utils.clip_grad_norm_([p for module in modules.values() for p in module.parameters()], 1000.0)
        optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    return Row(train_step, episodes(generator), modules, encoder, optimizer)


@row(
    number=21,
    name="dreamer 2, balanced",
    verdict="mixed",
    mixture=("generative", "supervised"),
    may_mix=("JEPA-style", "invariance"),
    terms=[RECONSTRUCTION, REWARD, LATENT, POSTERIOR_TO_PRIOR],
)
def dreamer_balanced(generator: torch.Generator) -> Row:
    """The KL counts from the start, four fifths of it pulling the prior, one fifth the posterior."""
    encoder, rssm, decoder, reward_head = mlp(7, 20, DIM), RSSM(), mlp(26, 20, 7), mlp(26, 20, 1)
    modules = {"encoder": encoder, "rssm": rssm, "decoder": decoder, "reward": reward_head}

    def step(x: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        states = rssm.observe(encoder(x), action)
        feat = torch.cat([states["stoch"], states["deter"]], -1)
        post, prior = rssm.dist(states["post"]), rssm.dist(states["prior"])
        kld = torch.distributions.kl_divergence
        value_lhs = kld(post, rssm.dist(states["prior"].detach())).mean()
        value_rhs = kld(rssm.dist(states["post"].detach()), prior).mean()
        kl = 0.2 * value_lhs + 0.8 * value_rhs
        image_pred = torch.distributions.Independent(torch.distributions.Normal(decoder(feat), 1), 1)
        reward_pred = torch.distributions.Normal(reward_head(feat).squeeze(-1), 1)
        return kl - image_pred.log_prob(x).mean() - reward_pred.log_prob(reward).mean()

    return Row(step, episodes(generator), modules, encoder, adamw(modules))


@row(
    number=22,
    name="dreamer-cdp",
    verdict="mixed",
    mixture=("JEPA-style", "supervised"),
    terms=[SELF, REWARD, Expect(space="own-embedding", required=False)],
)
def dreamer_cdp(generator: torch.Generator) -> Row:
    """No decoder: the memory foretells the embedding of the next observation, whose gradient is stopped."""
    encoder, rssm, reward, predictor = mlp(7, 20, DIM), RSSM(), mlp(26, 20, NUM_BINS), mlp(14, 20, DIM)
    modules = {"encoder": encoder, "rssm": rssm, "reward": reward, "predictor": predictor}

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        embed = encoder(batch["x"])
        states = rssm.observe(embed, batch["action"])
        feat = torch.cat([states["stoch"], states["deter"]], -1)
        dyn, rep = rssm.kl_loss(states["post"], states["prior"], 1.0)
        u_hat = F.normalize(predictor(states["deter"][:, 1:]), dim=-1)
        cdp = -(u_hat * F.normalize(embed[:, 1:].detach(), dim=-1)).sum(-1).mean()
        rew = soft_ce(reward(feat), batch["reward"]).mean()
        return {"loss": dyn + 0.1 * rep + 2.0 * cdp + rew, "cdp": cdp, "reward": rew}

    return Row(step, episodes(generator), modules, encoder, adamw(modules))


@row(
    number=22,
    name="mudreamer",
    verdict="mixed",
    mixture=("JEPA-style", "supervised"),
    may_mix=("invariance",),
    terms=[LATENT, REWARD, ACTION, POSTERIOR_TO_PRIOR],
)
def mudreamer(generator: torch.Generator) -> Row:
    """Reward and the action between two observations in place of pixels; the prior is trained towards the posterior."""
    encoder, rssm = nn.Sequential(mlp(7, 20, DIM), nn.LayerNorm(DIM)), RSSM()
    reward, action_head = mlp(26, 20, NUM_BINS), mlp(2 * DIM, 20, 3)
    modules = {"encoder": encoder, "rssm": rssm, "reward": reward, "action": action_head}
    optimizer = adamw(modules)

    def step(x: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        embed = encoder(x)
        states = rssm.observe(embed, action)
        feat = torch.cat([states["stoch"], states["deter"]], -1)
        dyn, rep = rssm.kl_loss(states["post"], states["prior"], 0.0)
        reward_loss = soft_ce(modules["reward"](feat), reward).mean()
        action_pred = action_head(torch.cat([embed[:, :-1], embed[:, 1:]], dim=-1))
        action_loss = (action_pred - action[:, :-1]).square().sum(-1).mean()
        loss = 10 * (dyn + 0.05 * rep) + reward_loss + 0.02 * action_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, episodes(generator), modules, encoder, optimizer)


class SimNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x.view(*x.shape[:-1], -1, 5), dim=-1).view(x.shape)


@row(number=23, name="td-mpc2", verdict="mixed", mixture=("JEPA-style", "supervised"), terms=[SELF, REWARD])
def td_mpc2(generator: torch.Generator) -> Row:
    """Time is axis 0, as published: observations [4, 6, 7], actions [3, 6, 3], rewards [3, 6, 1]."""
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
        pi_loss = -value.mean()
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
        total_loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 20.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_pi(torch.stack(zs).detach())
        with torch.no_grad():
            for p, p_target in zip(qs.parameters(), target_qs.parameters(), strict=True):
                p_target.lerp_(p, 0.01)
        return {"loss": total_loss.item(), "consistency": consistency_loss.item()}

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
    """One step ahead with plain squared errors: the embedding, the reward, and the value of one average network."""
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
    encoder, head = mlp(7, 20, DIM), mlp(2 * DIM, 20, 3)
    modules = {"encoder": encoder, "head": head}

    def step(x: Tensor, x_next: Tensor, action: Tensor) -> Tensor:
        return F.mse_loss(head(torch.cat([encoder(x), encoder(x_next)], dim=-1)), action)

    x, x_next = series(generator, 2).unbind(dim=1)
    inputs = {"x": x, "x_next": x_next, "action": torch.randn(NUM_SAMPLES, 3, generator=generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


@row(number=24, name="inverse dynamics, choice of an action", verdict="supervised", terms=[ACTION])
def inverse_dynamics_discrete(generator: torch.Generator) -> Row:
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
