"""Rows 16 to 18: a predicted embedding against that of a frozen network, distillation among them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import SUPERVISED
from jepalab.audit.steps.batches import NUM_CLASSES, NUM_SAMPLES, pictures
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import (
    DIM,
    NUM_PATCHES,
    Block,
    ConvNet,
    MaskedViT,
    Predictor,
    ViT,
    adamw,
    frozen,
    gather_tokens,
    random_mask,
)

FROZEN_TARGET = Expect(
    space="frozen-embedding",
    process="regress",
    target_learning="frozen",
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (frozen target)",
    ambiguous=True,
)


@row(number=16, name="dino-wm", verdict="JEPA-style", terms=[FROZEN_TARGET])
def dino_wm(generator: torch.Generator) -> Row:
    """The embedding of the next picture under an action, held against that of a frozen DINO: DINO-WM."""
    dino, predictor, head = frozen(ViT()), Block(14), nn.Linear(14, DIM)
    action_encoder = nn.Linear(3, 4)
    modules = {"dino": dino, "predictor": predictor, "action_encoder": action_encoder, "head": head}
    optimizer = adamw(modules)

    def step(x: Tensor, action: Tensor, x_next: Tensor) -> Tensor:
        with torch.no_grad():
            z = dino(x)
            z_tgt = dino(x_next)
        act_emb = action_encoder(action).unsqueeze(1).expand(-1, z.shape[1], -1)
        z_pred = head(predictor(torch.cat([z, act_emb], dim=-1)))
        loss = F.mse_loss(z_pred, z_tgt.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    action = torch.randn(NUM_SAMPLES, 3, generator=generator)
    inputs = {"x": pictures(generator), "action": action, "x_next": pictures(generator)}
    return Row(step, inputs, modules, None, optimizer)


@row(number=16, name="vjepa 2-ac", verdict="JEPA-style", terms=[FROZEN_TARGET])
def vjepa2_ac(generator: torch.Generator) -> Row:
    """The embeddings of the next frames under actions, held against those of a frozen encoder: V-JEPA 2-AC.

    One step with the true embedding, and two steps in a row on its own prediction; frames of a clip on axis 1.
    """
    encoder, predictor, action_embed = frozen(ViT()), Block(DIM), nn.Linear(3, DIM)
    modules = {"encoder": encoder, "predictor": predictor, "action_embed": action_embed}

    def predict(z: Tensor, action: Tensor) -> Tensor:
        tokens = torch.cat([action_embed(action).unsqueeze(1), z], dim=1)
        return F.layer_norm(predictor(tokens)[:, 1:], (DIM,))

    def loss_fn(z: Tensor, h: Tensor) -> Tensor:
        return torch.mean(torch.abs(z - h))

    def step(batch: dict[str, Tensor]) -> Tensor:
        clips, actions = batch["x"], batch["action"]
        with torch.no_grad():
            h = encoder(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
            h = F.layer_norm(h, (h.size(-1),))
        jloss = loss_fn(torch.stack([predict(h[:, t], actions[:, t]) for t in range(2)], dim=1), h[:, 1:])
        z = predict(predict(h[:, 0], actions[:, 0]), actions[:, 1])
        sloss = loss_fn(z, h[:, 2])
        return jloss + sloss

    clips = torch.rand(NUM_SAMPLES, 3, 3, 8, 8, generator=generator)
    inputs = {"x": clips, "action": torch.randn(NUM_SAMPLES, 2, 3, generator=generator)}
    return Row(step, inputs, modules, None, adamw(modules))


@row(number=17, name="salt", verdict="JEPA-style", terms=[FROZEN_TARGET])
def salt(generator: torch.Generator) -> Row:
    """The embeddings of hidden patches from the others, held against those of a frozen teacher: SALT.

    The student of a static teacher, which an earlier run trained on pixels; the step does not show that.
    """
    teacher, student, predictor = frozen(ViT()), ViT(), Predictor()
    modules = {"teacher": teacher, "student": student, "predictor": predictor}
    optimizer = torch.optim.AdamW([{"params": student.parameters()}, {"params": [predictor.mask_token]}], lr=1e-3)
    optimizer.add_param_group({"params": [*predictor.predictor_embed.parameters(), *predictor.block.parameters()]})
    optimizer.add_param_group({"params": [*predictor.norm.parameters(), *predictor.proj.parameters()], "lr": 5e-4})

    def step(x: Tensor) -> Tensor:
        order = torch.rand(len(x), NUM_PATCHES).argsort(dim=1)
        visible, hidden = order[:, :5], order[:, 5:]
        with torch.no_grad():
            target = gather_tokens(F.layer_norm(teacher(x), (DIM,)), hidden)
        return F.l1_loss(predictor(student(x, visible), visible, [hidden]), target)

    return Row(step, {"x": pictures(generator)}, modules, student, optimizer)


LOGITS = Expect(
    space="frozen-embedding",
    process="classify-token",
    target_learning="frozen",
    novelty="zero",
    family="distillation",
    label="DISTILLATION",
    ambiguous=True,
)
FEATURES = Expect(
    space="frozen-embedding",
    process="regress",
    target_learning="frozen",
    novelty="zero",
    family="distillation",
    label="DISTILLATION",
    ambiguous=True,
)


def classifier() -> nn.Module:
    return nn.Sequential(ConvNet(), nn.Linear(DIM, NUM_CLASSES))


@row(number=18, name="distilled logits", verdict="distillation", terms=[LOGITS])
def distilled_logits(generator: torch.Generator) -> Row:
    """The scores of a picture, held against a frozen teacher's of the same picture: knowledge distillation."""
    student, teacher = classifier(), frozen(classifier())

    def step(x: Tensor) -> Tensor:
        T = 4.0
        with torch.no_grad():
            teacher_logits = teacher(x)
        p_s = F.log_softmax(student(x) / T, dim=1)
        p_t = F.softmax(teacher_logits / T, dim=1)
        return F.kl_div(p_s, p_t, reduction="batchmean") * (T**2)

    modules = {"student": student, "teacher": teacher}
    return Row(step, {"x": pictures(generator)}, modules, student, adamw(modules))


@row(
    number=18,
    name="distilled logits and labels",
    verdict="mixed",
    mixture=("distillation", "supervised"),
    terms=[LOGITS, SUPERVISED],
)
def distilled_logits_and_labels(generator: torch.Generator) -> Row:
    """The scores of a picture, held against a frozen teacher's and against its label: knowledge distillation."""
    student, teacher = classifier(), frozen(classifier())
    modules = {"student": student, "teacher": teacher}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)

    def step(batch: dict[str, Tensor]) -> Tensor:
        inputs, labels = batch["x"], batch["label"]
        optimizer.zero_grad()
        with torch.no_grad():
            teacher_logits = teacher(inputs)
        student_logits = student(inputs)
        soft_targets = nn.functional.softmax(teacher_logits / 2, dim=-1)
        soft_prob = nn.functional.log_softmax(student_logits / 2, dim=-1)
        soft_targets_loss = torch.sum(soft_targets * (soft_targets.log() - soft_prob)) / soft_prob.size()[0] * 2**2
        label_loss = F.cross_entropy(student_logits, labels)
        loss = 0.9 * soft_targets_loss + 0.1 * label_loss
        loss.backward()
        optimizer.step()
        return loss

    label = torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator)
    return Row(step, {"x": pictures(generator), "label": label}, modules, student, optimizer)


@row(number=18, name="distilled features", verdict="distillation", terms=[FEATURES])
def distilled_features(generator: torch.Generator) -> Row:
    """The features of a picture, held against a frozen teacher's of the same picture: FitNets."""
    student, teacher, regressor = ConvNet(), frozen(ConvNet(11)), nn.Linear(DIM, 11)
    modules = {"student": student, "teacher": teacher, "regressor": regressor}

    def step(x: Tensor) -> Tensor:
        return F.mse_loss(regressor(student(x)), teacher(x))

    return Row(step, {"x": pictures(generator)}, modules, student, adamw(modules))


@row(number=18, name="eva", verdict="JEPA-style", terms=[FROZEN_TARGET])
def eva(generator: torch.Generator) -> Row:
    """The embeddings of masked patches from the others, held against a frozen CLIP's: EVA."""
    clip, encoder, head = frozen(ViT()), MaskedViT(), nn.Linear(DIM, DIM)
    modules = {"clip": clip, "encoder": encoder, "head": head}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        bool_masked_pos = random_mask(len(x), 7).bool()
        with torch.no_grad():
            clip_features = clip(x)[bool_masked_pos]
        outputs = head(encoder(x, bool_masked_pos)[bool_masked_pos])
        loss = -nn.functional.cosine_similarity(outputs.float(), clip_features.float(), dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)
