"""stable-pretraining: its IJEPA class, which predicts all target tokens in one pass in which they see each other."""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import nn

from peers import timing
from peers.timing import Given, Work, serve
from peers.torchvision import import_torchvision


def build(given: Given) -> Work:
    import_torchvision()
    from stable_pretraining.backbone import FlexibleTransformer, IJEPAMasking, IJEPAMaskOutput
    from stable_pretraining.methods.ijepa import IJEPA
    from timm.models.vision_transformer import VisionTransformer

    class GivenMasks(nn.Module):
        def forward(self, patches: torch.Tensor, grid_h: int, grid_w: int) -> IJEPAMaskOutput:
            return IJEPAMaskOutput(context_idx=given.context, target_idx=given.target.flatten(1))

    shape = {
        "img_size": timing.IMAGE,
        "patch_size": timing.PATCH,
        "embed_dim": timing.DIM,
        "depth": timing.DEPTH,
        "num_heads": timing.HEADS,
    }
    vit = VisionTransformer(**shape, num_classes=0, class_token=False, global_pool="")
    model = IJEPA(
        vit,
        predictor_embed_dim=timing.PREDICTOR_DIM,
        predictor_depth=timing.PREDICTOR_DEPTH,
        ema_decay_start=timing.MOMENTUM,
    )
    own_sampler = model.masking
    assert isinstance(own_sampler, IJEPAMasking)
    model.masking = GivenMasks()
    # As its constructor makes it, but for the heads, of which it would take one at this width.
    model.predictor = FlexibleTransformer(
        input_dim=timing.DIM,
        hidden_dim=timing.PREDICTOR_DIM,
        output_dim=timing.DIM,
        num_patches=timing.GRID**2,
        depth=timing.PREDICTOR_DEPTH,
        num_heads=timing.HEADS,
        self_attn=True,
        cross_attn=False,
        add_mask_token=True,
        use_adaln=False,
        num_prefix_tokens=0,
        zero_init_output=False,
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    x, patches = given.normalised(), torch.zeros(timing.BATCH, timing.GRID**2, timing.DIM)
    return Work(
        package=f"stable-pretraining {version('stable-pretraining')}",
        modules=[model],
        loss=lambda: model(x).loss,
        optimizer=torch.optim.AdamW(trained, lr=timing.LR, weight_decay=timing.WEIGHT_DECAY),
        after_step=model.encoder.update_teacher,
        draw_masks=lambda: own_sampler(patches, timing.GRID, timing.GRID),
    )


if __name__ == "__main__":
    serve(build)
