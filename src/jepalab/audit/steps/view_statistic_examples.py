"""Row 20: two views that agree, while a statistic of the embedding keeps it from collapsing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import STATISTIC
from jepalab.audit.steps.batches import NUM_SAMPLES, two_views
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, ConvNet, ViT, adamw, mlp, projector

JOINT = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=False,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (joint)",
)


def off_diagonal(x: Tensor) -> Tensor:
    n, _ = x.shape
    return x.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


@row(number=20, name="vicreg", verdict="invariance", terms=[JOINT, STATISTIC])
def vicreg(generator: torch.Generator) -> Row:
    """The embeddings of two views, held against each other, with variance and covariance held in place: VICReg."""
    backbone, expander = ConvNet(), projector(DIM, 20, 14)
    modules = {"backbone": backbone, "projector": expander}
    optimizer = adamw(modules)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        x, y = expander(backbone(view1)), expander(backbone(view2))
        repr_loss = F.mse_loss(x, y)
        x = x - x.mean(dim=0)
        y = y - y.mean(dim=0)
        std_x = torch.sqrt(x.var(dim=0) + 0.0001)
        std_y = torch.sqrt(y.var(dim=0) + 0.0001)
        std_loss = torch.mean(F.relu(1 - std_x)) / 2 + torch.mean(F.relu(1 - std_y)) / 2
        cov_x = (x.T @ x) / (x.shape[0] - 1)
        cov_y = (y.T @ y) / (y.shape[0] - 1)
        cov_loss = off_diagonal(cov_x).pow_(2).sum().div(14) + off_diagonal(cov_y).pow_(2).sum().div(14)
        loss = 25.0 * repr_loss + 25.0 * std_loss + 1.0 * cov_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, two_views(generator), modules, backbone, optimizer)


@row(
    number=20,
    name="barlow twins",
    verdict="invariance",
    terms=[
        Expect(
            space="own-embedding",
            process=("regress", "match-statistic"),
            target_learning="joint",
            stop_gradient=False,
            family="invariance",
            label="EMBEDDING-INVARIANCE (joint)",
        ),
        # What is off the diagonal may be read as a statistic of the pair.
        Expect(label=("EMBEDDING-INVARIANCE (joint)", "STATISTIC"), required=False),
    ],
)
def barlow_twins(generator: torch.Generator) -> Row:
    """The correlations between the features of two views, held against the identity: Barlow Twins."""
    backbone, proj, bn = ConvNet(), projector(DIM, 20, 14), nn.BatchNorm1d(14, affine=False)
    modules = {"backbone": backbone, "projector": proj, "bn": bn}

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        z1, z2 = proj(backbone(view1)), proj(backbone(view2))
        c = bn(z1).T @ bn(z2)
        c.div_(NUM_SAMPLES)
        on_diag = torch.diagonal(c).add_(-1).pow_(2).sum()
        off_diag = off_diagonal(c).pow_(2).sum()
        return on_diag + 0.0051 * off_diag

    return Row(step, two_views(generator), modules, backbone, adamw(modules))


@row(number=20, name="lejepa", verdict="invariance", terms=[JOINT, STATISTIC])
def lejepa(generator: torch.Generator) -> Row:
    """The embedding of each view, held against the mean over views; all embeddings against a normal: LeJEPA.

    Every view against the mean of all, and a Gaussian embedding; no teacher, no stop-gradient.
    """
    encoder, proj = ViT(), mlp(DIM, 20, 8)
    modules = {"encoder": encoder, "proj": proj}

    def sigreg(x: Tensor) -> Tensor:
        A = torch.randn(x.size(-1), 16)
        A /= A.norm(p=2, dim=0)
        t = torch.linspace(-5, 5, 17)
        exp_f = torch.exp(-0.5 * t**2)
        x_t = (x @ A).unsqueeze(2) * t
        ecf = (1j * x_t).exp().mean(0)
        err = (ecf - exp_f).abs().square().mul(exp_f)
        return (torch.trapz(err, t, dim=1) * x.size(0)).mean()

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        views = torch.cat([batch["view1"], batch["view2"]])
        z = proj(encoder(views).mean(dim=1)).unflatten(0, (2, -1))
        inv_loss = (z.mean(0) - z).square().mean()
        sigreg_loss = sigreg(z.flatten(0, 1))
        return {"loss": sigreg_loss * 0.02 + inv_loss * (1 - 0.02), "inv": inv_loss, "sigreg": sigreg_loss}

    return Row(step, two_views(generator), modules, encoder, adamw(modules))
