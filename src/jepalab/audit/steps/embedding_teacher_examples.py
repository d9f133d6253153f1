"""Rows 11, 12 and 26: a predicted embedding against that of a teacher, the moving average of the encoder."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import NUM_SAMPLES, pictures
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import (
    DIM,
    NUM_PATCHES,
    PATCH_DIM,
    Block,
    Predictor,
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

EMA = Expect(
    space="ema-embedding",
    process="regress",
    target_learning="ema",
    stop_gradient=True,
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (EMA)",
)


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
    """The embeddings of hidden blocks from the rest of a picture, held against a slow copy's: I-JEPA."""
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
    """The embeddings of hidden tubes from the rest of a clip, held against a slow copy's: V-JEPA.

    Tubes: the same 9 of 16 places hidden at both times; the average follows in `after_step`.
    """
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
    """The embeddings of masked patches from the others, held against a slow copy's last layers: data2vec.

    Vision: the average is of all of the student, and the target is the mean of its last two layers.
    """
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
            y = y[mask_indices]  # pyrefly: ignore[bad-index]
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
    """The embeddings of masked spans of sound, held against a slow copy's on shared features: data2vec for speech."""
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


@row(number=26, name="jepa with a decoder that only looks", verdict="JEPA-style", terms=[EMA])
def jepa_with_detached_decoder(generator: torch.Generator) -> Row:
    """The embedding of the next picture, held against a slow copy's: JEPA with a decoder behind a detach."""
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
    """The embeddings of hidden patches, held against a slow copy's: masked JEPA with a decoder behind a detach."""
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
