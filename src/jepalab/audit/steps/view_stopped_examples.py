"""Rows 13 and 14: two views that agree, the target a moving average or without its gradient."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import pictures, two_views
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, ConvNet, DINOHead, ViT, adamw, ema_update, mlp, projector

EMA = Expect(
    space="ema-embedding",
    process="regress",
    target_learning="ema",
    stop_gradient=True,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (EMA)",
)
STOP_GRADIENT = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=True,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (stop-grad)",
)


@row(number=13, name="byol", verdict="invariance", terms=[EMA])
def byol(generator: torch.Generator) -> Row:
    """The embedding of one view from the other, nothing hidden, held against a slow copy's: BYOL."""
    online, predictor = nn.Sequential(ConvNet(), projector(DIM, 20, 14)), projector(14, 20, 14)
    target = deepcopy(online).requires_grad_(False)
    modules = {"online": online, "predictor": predictor, "target": target}
    optimizer = adamw(modules)

    def regression_loss(x: Tensor, y: Tensor) -> Tensor:
        x, y = F.normalize(x, dim=-1, p=2), F.normalize(y, dim=-1, p=2)
        return 2 - 2 * (x * y).sum(dim=-1)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        predictions_from_view_1 = predictor(online(view1))
        predictions_from_view_2 = predictor(online(view2))
        with torch.no_grad():
            targets_to_view_2 = target(view1)
            targets_to_view_1 = target(view2)
        loss = regression_loss(predictions_from_view_1, targets_to_view_1)
        loss = loss + regression_loss(predictions_from_view_2, targets_to_view_2)
        loss = loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(target, online, 0.996)
        return loss

    return Row(step, two_views(generator), modules, online[0], optimizer)


class DINOLoss(nn.Module):
    center: Tensor

    def __init__(self, num_prototypes: int = 15) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(1, num_prototypes))

    def forward(self, student_output: Tensor, teacher_output: Tensor) -> Tensor:
        student_out = (student_output / 0.1).chunk(2)
        teacher_out = F.softmax((teacher_output - self.center) / 0.04, dim=-1).detach().chunk(2)
        total_loss, n_loss_terms = 0, 0
        for iq, q in enumerate(teacher_out):
            for v in range(len(student_out)):
                if v == iq:
                    continue
                loss = torch.sum(-q * F.log_softmax(student_out[v], dim=-1), dim=-1)
                total_loss += loss.mean()
                n_loss_terms += 1
        self.update_center(teacher_output)
        return total_loss / n_loss_terms  # pyrefly: ignore[bad-return]

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        batch_center = torch.sum(teacher_output, dim=0, keepdim=True) / len(teacher_output)
        self.center = self.center * 0.9 + batch_center * (1 - 0.9)


@row(
    number=13,
    name="dino",
    verdict="invariance",
    terms=[
        Expect(
            space="ema-embedding",
            process="classify-token",
            target_learning="ema",
            stop_gradient=True,
            novelty="zero",
            family="invariance",
            label="EMBEDDING-INVARIANCE (EMA)",
        )
    ],
)
def dino(generator: torch.Generator) -> Row:
    """The scores of one view over learned classes, held against a slow copy's of the other view: DINO."""
    backbone, head, dino_loss = ConvNet(), DINOHead(), DINOLoss()
    student = nn.Sequential(backbone, head)
    teacher = nn.Sequential(ConvNet(), DINOHead())
    teacher.load_state_dict(student.state_dict())
    for p in teacher.parameters():
        p.requires_grad = False
    modules = {"student": student, "teacher": teacher, "dino_loss": dino_loss}
    optimizer = adamw(modules)

    def train_step(batch: dict[str, Tensor]) -> None:
        images = torch.cat([batch["view1"], batch["view2"]])
        teacher_output = teacher(images)
        student_output = student(images)
        loss = dino_loss(student_output, teacher_output)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        with torch.no_grad():
            m = 0.99
            for param_q, param_k in zip(student.parameters(), teacher.parameters(), strict=True):
                param_k.data.mul_(m).add_((1 - m) * param_q.detach().data)

    return Row(train_step, two_views(generator), modules, backbone, optimizer)


@row(number=14, name="simsiam", verdict="invariance", terms=[STOP_GRADIENT])
def simsiam(generator: torch.Generator) -> Row:
    """The embedding of one view from the other, held against that embedding, without gradient: SimSiam."""
    encoder, proj, predictor = ConvNet(), projector(DIM, 20, 14), projector(14, 8, 14)
    modules = {"encoder": encoder, "projector": proj, "predictor": predictor}
    criterion = nn.CosineSimilarity(dim=1)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        z1, z2 = proj(encoder(view1)), proj(encoder(view2))
        p1, p2 = predictor(z1), predictor(z2)
        z1, z2 = z1.detach(), z2.detach()
        return -(criterion(p1, z2).mean() + criterion(p2, z1).mean()) * 0.5

    return Row(step, two_views(generator), modules, encoder, adamw(modules))


def augment(x: Tensor) -> Tensor:
    """Brightness and noise, drawn anew at each call."""
    brightness = 0.6 + 0.8 * torch.rand(x.shape[0], 1, 1, 1)
    return x * brightness + 0.05 * torch.randn_like(x)


@row(number=14, name="simsiam, views made in the step", verdict="invariance", terms=[STOP_GRADIENT])
def simsiam_own_views(generator: torch.Generator) -> Row:
    """The embedding of a view, held against that of another view drawn in the same step, without gradient: SimSiam."""
    encoder, proj, predictor = ViT(), mlp(DIM, 20, 14), mlp(14, 8, 14)
    modules = {"encoder": encoder, "projector": proj, "predictor": predictor}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        z1, z2 = (proj(encoder(augment(x)).mean(dim=1)) for _ in range(2))
        loss = 0
        for p, z in ((predictor(z1), z2.detach()), (predictor(z2), z1.detach())):
            p, z = F.normalize(p, dim=1), F.normalize(z, dim=1)
            loss = loss - (p * z).sum(dim=1).mean() / 2
        optimizer.zero_grad()
        loss.backward()  # pyrefly: ignore[missing-attribute]
        optimizer.step()
        return loss  # pyrefly: ignore[bad-return]

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)
