"""Rows 21 and 22: recurrent world models of the Dreamer kind, with and without a decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import ACTION, REWARD, SELF
from jepalab.audit.steps.batches import NUM_SAMPLES, series
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, adamw, mlp

NUM_BINS = 9
RECONSTRUCTION = Expect(
    space="input",
    process="regress",
    target_learning="none",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT",
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
    """The observation and the reward from the memory, held against the two that came: DreamerV3."""
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
        model_loss.backward()  # pyrefly: ignore[missing-attribute]
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
    """The observation and the reward, held against what came, and the prior against the posterior: DreamerV2.

    The KL counts from the start, four fifths of it pulling the prior, one fifth the posterior.
    """
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
    """The embedding of the next observation, held against that embedding, and the reward that came: Dreamer-CDP.

    No decoder: the memory foretells the embedding of the next observation, whose gradient is stopped.
    """
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
    """The reward and the action in between, held against what came, and the prior against the posterior: MuDreamer.

    Reward and the action between two observations in place of pixels; the prior is trained towards the posterior.
    """
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
