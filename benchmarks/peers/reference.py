"""facebookresearch/ijepa from a checkout that the user has: its modules in the order of its train.py."""

from __future__ import annotations

import copy
import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from peers import timing
from peers.timing import Given, Work, serve


def build(given: Given) -> Work:
    if given.ijepa is None:
        raise ImportError("give a checkout of facebookresearch/ijepa as --ijepa")
    sys.path.insert(0, given.ijepa)
    from src.masks.multiblock import MaskCollator
    from src.masks.utils import apply_masks
    from src.models.vision_transformer import VisionTransformer, vit_predictor

    norm = partial(nn.LayerNorm, eps=1e-6)
    shape = {
        "img_size": [timing.IMAGE],
        "patch_size": timing.PATCH,
        "embed_dim": timing.DIM,
        "depth": timing.DEPTH,
        "num_heads": timing.HEADS,
    }
    encoder = VisionTransformer(**shape, mlp_ratio=4, qkv_bias=True, norm_layer=norm)
    predictor = vit_predictor(
        num_patches=timing.GRID**2,
        embed_dim=timing.DIM,
        predictor_embed_dim=timing.PREDICTOR_DIM,
        depth=timing.PREDICTOR_DEPTH,
        num_heads=timing.HEADS,
    )
    teacher = copy.deepcopy(encoder).requires_grad_(False)
    trained = [p for module in (encoder, predictor) for p in module.parameters() if p.requires_grad]
    x, context, targets = given.normalised(), [given.context], list(given.target.unbind(1))

    def loss() -> torch.Tensor:
        with torch.no_grad():
            h = teacher(x)
            h = apply_masks(F.layer_norm(h, (h.size(-1),)), targets)
        return F.smooth_l1_loss(predictor(encoder(x, context), context, targets), h)

    @torch.no_grad()
    def follow() -> None:
        for fast, slow in zip(encoder.parameters(), teacher.parameters(), strict=True):
            slow.data.mul_(timing.MOMENTUM).add_((1.0 - timing.MOMENTUM) * fast.detach().data)

    sampler = MaskCollator(
        input_size=(timing.IMAGE, timing.IMAGE),
        patch_size=timing.PATCH,
        enc_mask_scale=(0.85, 1.0),
        pred_mask_scale=(0.15, 0.2),
        aspect_ratio=(0.75, 1.5),
        nenc=1,
        npred=4,
        min_keep=4,
    )
    return Work(
        package="facebookresearch/ijepa",
        modules=[encoder, predictor, teacher],
        loss=loss,
        optimizer=torch.optim.AdamW(trained, lr=timing.LR, weight_decay=timing.WEIGHT_DECAY),
        after_step=follow,
        draw_masks=lambda: sampler([0] * timing.BATCH),
    )


if __name__ == "__main__":
    serve(build)
