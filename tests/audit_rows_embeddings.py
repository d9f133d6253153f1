"""Rows 11, 12, 15-18, 26 and 29: steps that hold a predicted embedding against an embedding of what was not shown."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit_networks import (
    DIM,
    NUM_PATCHES,
    PATCH_DIM,
    Block,
    ConvNet,
    MaskedViT,
    ViT,
    adamw,
    ema_update,
    frozen,
    gather_tokens,
    mlp,
    patchify,
    random_mask,
    random_masking,
)
from audit_rows import NUM_CLASSES, NUM_SAMPLES, STATISTIC, SUPERVISED, Expect, Row, pictures, row, series

EMA = Expect(
    space="ema-embedding",
    process="regress",
    target_learning="ema",
    stop_gradient=True,
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (EMA)",
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
FROZEN_TARGET = Expect(
    space="frozen-embedding",
    process="regress",
    target_learning="frozen",
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (frozen target)",
    ambiguous=True,
)


class Predictor(nn.Module):
    """Context tokens and their places in, embeddings at the asked places out."""

    def __init__(self, *, num_tokens: int = NUM_PATCHES, dim: int = 14) -> None:
        super().__init__()
        self.predictor_embed = nn.Linear(DIM, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, num_tokens, dim) * 0.2, requires_grad=False)
        self.block, self.norm, self.proj = Block(dim), nn.LayerNorm(dim), nn.Linear(dim, DIM)

    def forward(self, z: Tensor, masks_enc: Tensor, masks_pred: list[Tensor]) -> Tensor:
        pos = self.pos_embed.repeat(z.shape[0], 1, 1)
        x = self.predictor_embed(z) + gather_tokens(pos, masks_enc)
        asked = torch.cat([gather_tokens(pos, mask) for mask in masks_pred], dim=0)
        x = x.repeat(len(masks_pred), 1, 1)
        num_context = x.shape[1]
        x = torch.cat([x, self.mask_token + asked], dim=1)
        return self.proj(self.norm(self.block(x))[:, num_context:])


def multi_block_masks(num_samples: int) -> tuple[Tensor, list[Tensor]]:
    """Context [b, k] and two target blocks of 2 x 2 patches [b, 4], as I-JEPA's collator makes them."""
    contexts, targets = [], []
    for _ in range(num_samples):
        blocks = []
        for _ in range(2):
            top, left = torch.randint(0, 3, (2,)).tolist()
            mask = torch.zeros(4, 4, dtype=torch.bool)
            mask[top : top + 2, left : left + 2] = True
            blocks.append(mask.flatten())
        targets.append([block.nonzero().squeeze(1) for block in blocks])
        contexts.append((~(blocks[0] | blocks[1])).nonzero().squeeze(1))
    num_kept = min(len(context) for context in contexts)
    return torch.stack([c[:num_kept] for c in contexts]), [torch.stack(block) for block in zip(*targets, strict=True)]


@row(number=11, name="ijepa", verdict="JEPA-style", terms=[EMA])
def ijepa(generator: torch.Generator) -> Row:
    encoder, predictor = ViT(), Predictor()
    target_encoder = deepcopy(encoder)
    for p in target_encoder.parameters():
        p.requires_grad = False
    modules = {"encoder": encoder, "predictor": predictor, "target_encoder": target_encoder}
    optimizer = adamw(modules)

    def train_step(x: Tensor) -> Tensor:
        masks_enc, masks_pred = multi_block_masks(len(x))
        with torch.no_grad():
            h = target_encoder(x)
            h = F.layer_norm(h, (h.size(-1),))
            h = torch.cat([gather_tokens(h, mask) for mask in masks_pred], dim=0)
        z = predictor(encoder(x, masks_enc), masks_enc, masks_pred)
        loss = F.smooth_l1_loss(z, h)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            m = 0.996
            for param_q, param_k in zip(encoder.parameters(), target_encoder.parameters(), strict=True):
                param_k.data.mul_(m).add_((1.0 - m) * param_q.detach().data)
        return loss

    return Row(train_step, {"x": pictures(generator)}, modules, encoder, optimizer)


class VideoViT(nn.Module):
    """[b, 3, 4, 8, 8] -> 2 x 16 tubelets of 2 x 2 x 2"""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv3d(3, DIM, kernel_size=2, stride=2)
        self.pos_embed = nn.Parameter(torch.randn(1, 2 * NUM_PATCHES, DIM) * 0.2, requires_grad=False)
        self.blocks, self.norm = nn.ModuleList([Block(DIM)]), nn.LayerNorm(DIM)

    def forward(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        x = self.patch_embed(clips).flatten(2).transpose(1, 2) + self.pos_embed
        if masks is not None:
            x = gather_tokens(x, masks)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


@row(number=11, name="vjepa", verdict="JEPA-style", terms=[EMA])
def vjepa(generator: torch.Generator) -> Row:
    """Tubes: the same 9 of 16 places hidden at both times; the average follows in `after_step`."""
    encoder, predictor = VideoViT(), Predictor(num_tokens=2 * NUM_PATCHES)
    target_encoder = frozen(deepcopy(encoder))
    modules = {"encoder": encoder, "predictor": predictor, "target_encoder": target_encoder}

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        clips = batch["x"]
        order = torch.rand(len(clips), NUM_PATCHES).argsort(dim=1)
        places = torch.stack([order, order + NUM_PATCHES], dim=1)
        masks_enc, masks_pred = places[:, :, :7].flatten(1), places[:, :, 7:].flatten(1)
        with torch.no_grad():
            h = F.layer_norm(target_encoder(clips), (DIM,))
            h = gather_tokens(h, masks_pred)
        z = predictor(encoder(clips, masks_enc), masks_enc, [masks_pred])
        loss_jepa = torch.mean(torch.abs(z - h) ** 1.0) / 1.0
        return {"loss": loss_jepa, "target_std": h.std()}

    clips = torch.rand(NUM_SAMPLES, 3, 4, 8, 8, generator=generator)
    after_step = lambda: ema_update(target_encoder, encoder, 0.998)  # noqa: E731
    return Row(step, {"x": clips}, modules, encoder, adamw(modules), after_step)


class LayerwiseEncoder(nn.Module):
    """torch's own transformer layers; in evaluation mode without gradient they run as one fused operation."""

    def __init__(self) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.randn(1, NUM_PATCHES, DIM) * 0.2)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(DIM, 2, 20, dropout=0.1, batch_first=True) for _ in range(3)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x, outputs = x + self.pos, []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


@row(number=12, name="data2vec", verdict="JEPA-style", terms=[EMA])
def data2vec(generator: torch.Generator) -> Row:
    """Vision: the average is of all of the student, and the target is the mean of its last two layers."""
    student = nn.ModuleDict({"embed": nn.Linear(PATCH_DIM, DIM), "encoder": LayerwiseEncoder()})
    mask_emb, final_proj = nn.Embedding(1, DIM), nn.Linear(DIM, DIM)
    teacher = frozen(deepcopy(student))
    modules = {"student": student, "mask_emb": mask_emb, "final_proj": final_proj, "teacher": teacher}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        patches = patchify(x)
        mask_indices = random_mask(len(x), 7).bool()
        tokens = student["embed"](patches)
        tokens[mask_indices] = mask_emb.weight
        z = student["encoder"](tokens)[-1]
        with torch.no_grad():
            layers = teacher["encoder"](teacher["embed"](patches))[-2:]
            layers = [F.instance_norm(layer.transpose(1, 2)).transpose(1, 2) for layer in layers]
            y = sum(layers) / len(layers)
            y = y[mask_indices]
        x_pred = final_proj(z[mask_indices])
        loss = F.smooth_l1_loss(x_pred.float(), y.float(), reduction="none", beta=0.5).sum(dim=-1)
        loss = loss.sum() / loss.size(0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(teacher, student, 0.999)
        return loss

    return Row(step, {"x": pictures(generator)}, modules, student, optimizer)


@row(
    number=12,
    name="data2vec with shared features",
    verdict="JEPA-style",
    # Speech: only the transformer is averaged; what both read comes from the trained convolution.
    terms=[
        Expect(
            space=("ema-embedding", "own-embedding"),
            process="regress",
            target_learning=("ema", "joint"),
            stop_gradient=True,
            novelty="positive",
            family="JEPA-style",
            label=("EMBEDDING-PREDICTION (EMA)", "EMBEDDING-PREDICTION (self)"),
        )
    ],
)
def data2vec_speech(generator: torch.Generator) -> Row:
    feature_extractor = nn.Sequential(nn.Conv1d(1, DIM, 5, stride=4, padding=1), nn.GELU())
    encoder, final_proj = nn.ModuleList([Block(DIM), Block(DIM)]), nn.Linear(DIM, DIM)
    mask_emb = nn.Embedding(1, DIM)
    ema = frozen(deepcopy(encoder))
    modules = {"features": feature_extractor, "encoder": encoder, "mask": mask_emb, "proj": final_proj, "ema": ema}

    def transform(x: Tensor, layers: nn.ModuleList) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    def step(x: Tensor) -> Tensor:
        features = feature_extractor(x).transpose(1, 2)
        pre_encoder_features = features.clone()
        span_mask = torch.zeros(features.shape[:2], dtype=torch.bool)
        for sample, start in enumerate(torch.randint(0, 5, (len(x),)).tolist()):
            span_mask[sample, start : start + 4] = True
        masked = torch.where(span_mask.unsqueeze(-1), mask_emb.weight.view(1, 1, -1), features)
        with torch.no_grad():
            y = F.layer_norm(transform(pre_encoder_features, ema), (DIM,))
        z = final_proj(transform(masked, encoder))
        return F.mse_loss(z[span_mask], y[span_mask])

    encoders = nn.ModuleList([feature_extractor, encoder])
    wave = torch.randn(NUM_SAMPLES, 1, 36, generator=generator)
    after_step = lambda: ema_update(ema, encoder, 0.99)  # noqa: E731
    return Row(step, {"x": wave}, modules, encoders, adamw(modules), after_step)


@row(number=15, name="nepa", verdict="JEPA-style", terms=[SELF])
def nepa(generator: torch.Generator) -> Row:
    """Next-embedding prediction: causal attention over patch embeddings, the target is the next one."""
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
    """A recurrent state foretells the embedding of the observation it has not read yet."""
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


@row(number=16, name="dino-wm", verdict="JEPA-style", terms=[FROZEN_TARGET])
def dino_wm(generator: torch.Generator) -> Row:
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
    """One step with the true embedding, and two steps in a row on its own prediction; frames of a clip on axis 1."""
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
    """The student of a static teacher, which an earlier run trained on pixels; the step does not show that."""
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
    student, teacher, regressor = ConvNet(), frozen(ConvNet(11)), nn.Linear(DIM, 11)
    modules = {"student": student, "teacher": teacher, "regressor": regressor}

    def step(x: Tensor) -> Tensor:
        return F.mse_loss(regressor(student(x)), teacher(x))

    return Row(step, {"x": pictures(generator)}, modules, student, adamw(modules))


@row(number=18, name="eva", verdict="JEPA-style", terms=[FROZEN_TARGET])
def eva(generator: torch.Generator) -> Row:
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


@row(number=26, name="jepa with a decoder that only looks", verdict="JEPA-style", terms=[EMA])
def jepa_with_detached_decoder(generator: torch.Generator) -> Row:
    encoder, predictor, decoder = nn.Sequential(nn.Flatten(), mlp(192, 20, DIM)), mlp(DIM + 3, 20, DIM), mlp(DIM, 192)
    target_encoder = frozen(deepcopy(encoder))
    modules = {"encoder": encoder, "predictor": predictor, "decoder": decoder, "target": target_encoder}
    optimizer = adamw(modules)

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        z = encoder(batch["x"])
        with torch.no_grad():
            z_next = target_encoder(batch["x_next"])
        pred_loss = F.mse_loss(predictor(torch.cat([z, batch["action"]], dim=-1)), z_next)
        recon_loss = F.mse_loss(decoder(z.detach()), batch["x"].flatten(1))
        loss = pred_loss + recon_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(target_encoder, encoder)
        return {"loss": loss, "pred": pred_loss, "recon": recon_loss}

    action = torch.randn(NUM_SAMPLES, 3, generator=generator)
    inputs = {"x": pictures(generator), "x_next": pictures(generator), "action": action}
    return Row(step, inputs, modules, encoder, optimizer)


@row(number=26, name="masked jepa with a decoder that only looks", verdict="JEPA-style", terms=[EMA])
def masked_jepa_with_detached_decoder(generator: torch.Generator) -> Row:
    encoder, predictor, decoder = ViT(), Predictor(), nn.Linear(DIM, PATCH_DIM)
    target_encoder = frozen(deepcopy(encoder))
    modules = {"encoder": encoder, "predictor": predictor, "decoder": decoder, "target": target_encoder}

    def step(x: Tensor) -> Tensor:
        keep, ids_restore, _ = random_masking(len(x), 5)
        hidden = ids_restore.argsort(dim=1)[:, 5:]
        z = encoder(x, keep)
        with torch.no_grad():
            h = gather_tokens(target_encoder(x), hidden)
        loss = F.mse_loss(predictor(z, keep, [hidden]), h)
        return loss + 10 * F.mse_loss(decoder(z.detach()), gather_tokens(patchify(x), keep))

    after_step = lambda: ema_update(target_encoder, encoder)  # noqa: E731
    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules), after_step)


BOTH_LEARNED = Expect(space="own-embedding", process="regress", target_learning="joint", stop_gradient=False)


@row(number=29, name="naive latent prediction", verdict="collapse-prone", terms=[BOTH_LEARNED])
def naive_prediction(generator: torch.Generator) -> Row:
    encoder, predictor = nn.Sequential(nn.Flatten(), mlp(192, 20, DIM)), mlp(DIM, 20, DIM)
    modules = {"encoder": encoder, "predictor": predictor}

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return F.mse_loss(predictor(encoder(x)), encoder(x_next))

    inputs = {"x": pictures(generator), "x_next": pictures(generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


@row(number=29, name="naive agreement of two views", verdict="collapse-prone", terms=[BOTH_LEARNED])
def naive_views(generator: torch.Generator) -> Row:
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
