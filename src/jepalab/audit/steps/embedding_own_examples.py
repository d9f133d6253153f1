"""Rows 15 and 29: a predicted embedding against one that the trained encoder itself gives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import SELF, STATISTIC
from jepalab.audit.steps.batches import NUM_SAMPLES, pictures, series
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, NUM_PATCHES, Block, ViT, adamw, mlp


@row(number=15, name="nepa", verdict="JEPA-style", terms=[SELF])
def nepa(generator: torch.Generator) -> Row:
    """The embedding of the next patch from those before it, held against that embedding, without gradient: NEPA.

    Next-embedding prediction: causal attention over patch embeddings, the target is the next one.
    """
    embed, block, norm = nn.Conv2d(3, DIM, 2, stride=2), Block(DIM), nn.LayerNorm(DIM)
    pos = nn.Embedding(NUM_PATCHES, DIM)
    modules = {"embed": embed, "pos": pos, "block": block, "norm": norm}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        embedding = embed(x).flatten(2).transpose(1, 2)
        h_out = norm(block(embedding + pos.weight, causal=True))
        target = embedding.detach()
        p, z = h_out[:, :-1, :], target[:, 1:, :]
        loss = -(F.normalize(p, dim=-1) * F.normalize(z, dim=-1)).sum(dim=-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, nn.ModuleList(modules.values()), optimizer)


@row(number=15, name="continuous deterministic prediction", verdict="JEPA-style", terms=[SELF])
def dreamer_cdp(generator: torch.Generator) -> Row:
    """The embedding of the next observation, held against that embedding, without gradient: Dreamer-CDP's own term.

    A recurrent state foretells the embedding of the observation it has not read yet.
    """
    encoder, cell, head = mlp(7, 20, DIM), nn.GRUCell(DIM + 3, 14), mlp(14, 20, DIM)
    modules = {"encoder": encoder, "cell": cell, "head": head}

    def step(x: Tensor, action: Tensor) -> Tensor:
        u = encoder(x)
        h, preds = torch.zeros(len(x), 14), []
        for t in range(x.shape[1] - 1):
            h = cell(torch.cat([u[:, t], action[:, t]], dim=-1), h)
            preds.append(head(h))
        return -F.cosine_similarity(torch.stack(preds, dim=1), u[:, 1:].detach(), dim=-1).mean()

    inputs = {"x": series(generator), "action": torch.randn(NUM_SAMPLES, 5, 3, generator=generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


class SIGReg(nn.Module):
    """Projections on random directions against a standard normal, by characteristic functions (LeJEPA)."""

    def __init__(self, num_knots: int = 17, num_proj: int = 32) -> None:
        super().__init__()
        self.num_proj = num_proj
        t = torch.linspace(0, 3, num_knots)
        weights = torch.full((num_knots,), 2 * 3 / (num_knots - 1))
        weights[[0, -1]] = 3 / (num_knots - 1)
        window = torch.exp(-t.square() / 2.0)
        self.register_buffer("t", t)
        self.register_buffer("phi", window)
        self.register_buffer("weights", weights * window)

    def forward(self, proj: Tensor) -> Tensor:
        A = torch.randn(proj.size(-1), self.num_proj)
        A = A.div_(A.norm(p=2, dim=0))
        x_t = (proj @ A).unsqueeze(-1) * self.t
        err = (x_t.cos().mean(-3) - self.phi).square() + x_t.sin().mean(-3).square()
        statistic = (err @ self.weights) * proj.size(-2)
        return statistic.mean()


JOINT_PREDICTION = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=False,
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (self)",
)


@row(number=15, name="lewm", verdict="JEPA-style", terms=[JOINT_PREDICTION, STATISTIC])
def lewm(generator: torch.Generator) -> Row:
    """The next embedding under an action, held against the next embedding; all embeddings against a normal: LeWM."""
    encoder = nn.Sequential(mlp(7, 20, 14), nn.Linear(14, DIM))
    predictor, action_encoder, sigreg = Block(DIM), nn.Linear(3, DIM), SIGReg()
    pred_proj = nn.Linear(DIM, DIM)
    modules = {"encoder": encoder, "predictor": predictor, "action": action_encoder, "proj": pred_proj, "s": sigreg}

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        emb = encoder(batch["x"])
        act_emb = action_encoder(batch["action"])
        ctx_emb, ctx_act = emb[:, :4], act_emb[:, :4]
        tgt_emb = emb[:, 1:]
        pred_emb = pred_proj(predictor(ctx_emb + ctx_act, causal=True))
        output = {"pred_loss": (pred_emb - tgt_emb).pow(2).mean()}
        output["sigreg_loss"] = sigreg(emb.transpose(0, 1))
        output["loss"] = output["pred_loss"] + 0.09 * output["sigreg_loss"]
        return output

    inputs = {"x": series(generator), "action": torch.randn(NUM_SAMPLES, 5, 3, generator=generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


BOTH_LEARNED = Expect(space="own-embedding", process="regress", target_learning="joint", stop_gradient=False)


@row(number=29, name="naive latent prediction", verdict="collapse-prone", terms=[BOTH_LEARNED])
def naive_prediction(generator: torch.Generator) -> Row:
    """The embedding of the next picture, held against that embedding, which learns too: naive latent prediction."""
    encoder, predictor = nn.Sequential(nn.Flatten(), mlp(192, 20, DIM)), mlp(DIM, 20, DIM)
    modules = {"encoder": encoder, "predictor": predictor}

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return F.mse_loss(predictor(encoder(x)), encoder(x_next))

    inputs = {"x": pictures(generator), "x_next": pictures(generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


@row(number=29, name="naive agreement of two views", verdict="collapse-prone", terms=[BOTH_LEARNED])
def naive_views(generator: torch.Generator) -> Row:
    """The embeddings of two views, held against each other, and nothing else: naive siamese network."""
    encoder, head = ViT(), mlp(DIM, 20, 14)
    modules = {"encoder": encoder, "head": head}
    optimizer = adamw(modules)

    def step(batch: dict[str, Tensor]) -> float:
        z1, z2 = head(encoder(batch["view1"]).mean(1)), head(encoder(batch["view2"]).mean(1))
        loss = ((z1 - z2) ** 2).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    x = pictures(generator)
    inputs = {"view1": x + 0.1 * torch.randn(x.shape, generator=generator), "view2": x.flip(-1)}
    return Row(step, inputs, modules, encoder, optimizer)
