"""lightly: its I-JEPA parts over a timm ViT, put together as its documentation does."""

from __future__ import annotations

import copy
from importlib.metadata import version

import torch
import torch.nn.functional as F

from peers import timing
from peers.timing import Given, Work, serve
from peers.torchvision import import_torchvision


def build(given: Given) -> Work:
    import_torchvision()
    from lightly.data.ijepa_collate import IJEPAMaskCollator
    from lightly.models import utils
    from lightly.models.modules import IJEPAPredictorTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    shape = {
        "img_size": timing.IMAGE,
        "patch_size": timing.PATCH,
        "embed_dim": timing.DIM,
        "depth": timing.DEPTH,
        "num_heads": timing.HEADS,
    }
    # No class token: the context has as many tokens as everybody's.
    vit = VisionTransformer(**shape, num_classes=0, class_token=False, global_pool="")
    encoder = MaskedVisionTransformerTIMM(vit)
    predictor = IJEPAPredictorTIMM(
        num_patches=timing.GRID**2,
        depth=timing.PREDICTOR_DEPTH,
        mlp_dim=timing.DIM,
        predictor_embed_dim=timing.PREDICTOR_DIM,
        num_heads=timing.HEADS,
    )
    teacher = copy.deepcopy(encoder).requires_grad_(False)
    trained = [p for module in (encoder, predictor) for p in module.parameters() if p.requires_grad]
    x, context, targets = given.normalised(), given.context, list(given.target.unbind(1))

    def loss() -> torch.Tensor:
        with torch.no_grad():
            h = teacher.encode(x)
            h = utils.apply_masks(F.layer_norm(h, (h.size(-1),)), targets)
        return F.smooth_l1_loss(predictor(encoder.encode(x, idx_keep=context), [context], targets), h)

    # Its defaults are not the paper's; these are.
    sampler = IJEPAMaskCollator(
        input_size=timing.IMAGE,
        patch_size=timing.PATCH,
        enc_mask_scale=(0.85, 1.0),
        pred_mask_scale=(0.15, 0.2),
        aspect_ratio=(0.75, 1.5),
        nenc=1,
        npred=4,
    )
    return Work(
        package=f"lightly {version('lightly')}",
        modules=[encoder, predictor, teacher],
        loss=loss,
        optimizer=torch.optim.AdamW(trained, lr=timing.LR, weight_decay=timing.WEIGHT_DECAY),
        after_step=lambda: utils.update_momentum(encoder, teacher, m=timing.MOMENTUM),
        draw_masks=lambda: sampler([0] * timing.BATCH),
    )


if __name__ == "__main__":
    serve(build)
