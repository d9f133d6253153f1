"""torch-world: its IJEPA class as it is."""

from __future__ import annotations

from importlib.metadata import version

import torch

from peers import timing
from peers.timing import Given, Work, serve


def build(given: Given) -> Work:
    from torch_world.masks import MultiBlockMask
    from torch_world.models.jepa import IJEPA
    from torch_world.nn.predictor import MaskedPredictor
    from torch_world.nn.vision_transformer import VisionTransformer

    encoder = VisionTransformer(
        img_size=timing.IMAGE, patch_size=timing.PATCH, embed_dim=timing.DIM, depth=timing.DEPTH, num_heads=timing.HEADS
    )
    model = IJEPA(
        encoder,
        MaskedPredictor(
            encoder.grid, timing.DIM, timing.PREDICTOR_DIM, depth=timing.PREDICTOR_DEPTH, num_heads=timing.HEADS
        ),
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    x, context, targets = given.normalised(), [given.context], list(given.target.unbind(1))
    sampler = MultiBlockMask(encoder.grid, min_keep=4)
    return Work(
        package=f"torch-world {version('torch-world')}",
        modules=[model],
        loss=lambda: model(x, context, targets)["loss"],
        optimizer=torch.optim.AdamW(trained, lr=timing.LR, weight_decay=timing.WEIGHT_DECAY),
        after_step=lambda: model.update_target(timing.MOMENTUM),
        draw_masks=lambda: sampler(timing.BATCH),
    )


if __name__ == "__main__":
    serve(build)
