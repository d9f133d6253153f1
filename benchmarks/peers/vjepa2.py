"""facebookresearch/vjepa2 (MIT): its networks, mask collator and optimizer in the step of its app/vjepa/train.py.

Read at commit c2963a4. What that step has for GPUs is left out: DistributedDataParallel, the scaler of gradients, and
the checkpointing of activations, which is a flag and off unless asked for.
"""

from __future__ import annotations

import copy
import itertools
import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from peers import clip_step as sizes
from peers.clip_step import Given
from peers.timing import Work, serve
from peers.torchvision import import_torchvision

Masks = tuple[list[torch.Tensor], list[torch.Tensor]]  # contexts and targets, one for each mask generator


def build(given: Given) -> Work:
    assert given.vjepa2 is not None
    import_torchvision()  # timm asks for it
    sys.path.insert(0, given.vjepa2)
    from app.vjepa.utils import init_opt
    from src.masks.multiseq_multiblock3d import MaskCollator
    from src.masks.utils import apply_masks
    from src.models.predictor import VisionTransformerPredictor
    from src.models.vision_transformer import VisionTransformer
    from src.utils.wrappers import MultiSeqWrapper, PredictorMultiSeqWrapper

    shape = {
        "img_size": sizes.SIDE,
        "patch_size": sizes.PATCH,
        "num_frames": sizes.FRAMES,
        "tubelet_size": sizes.TUBELET,
        "num_heads": sizes.HEADS,
        "uniform_power": True,
        "use_rope": given.positions == "rope",
        "use_sdpa": given.is_fused,  # its predictor takes and ignores this: there it is always on
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }
    encoder = MultiSeqWrapper(VisionTransformer(embed_dim=sizes.DIM, depth=sizes.DEPTH, **shape))
    predictor = PredictorMultiSeqWrapper(
        VisionTransformerPredictor(
            embed_dim=sizes.DIM,
            predictor_embed_dim=sizes.PREDICTOR_DIM,
            depth=sizes.PREDICTOR_DEPTH,
            use_mask_tokens=True,
            num_mask_tokens=len(sizes.BLOCKS),
            **shape,
        )
    )
    teacher = copy.deepcopy(encoder).requires_grad_(False)
    constant = {"start_lr": sizes.LR, "ref_lr": sizes.LR, "final_lr": sizes.LR, "warmup": 1}
    optimizer, *_ = init_opt(
        is_anneal=False,
        encoder=encoder,
        predictor=predictor,
        iterations_per_epoch=1,
        num_epochs=1,
        wd=sizes.WEIGHT_DECAY,
        final_wd=sizes.WEIGHT_DECAY,
        **constant,
    )
    for group in optimizer.param_groups:
        group["lr"] = sizes.LR
        group["weight_decay"] = 0.0 if group.get("WD_exclude") else sizes.WEIGHT_DECAY
    collator = MaskCollator(
        cfgs_mask=[
            {
                "num_blocks": num,
                "spatial_scale": (scale, scale),
                "temporal_scale": (1.0, 1.0),
                "aspect_ratio": sizes.ASPECT,
            }
            for num, scale in sizes.BLOCKS
        ],
        dataset_fpcs=[sizes.FRAMES],
        crop_size=sizes.SIDE,
        patch_size=sizes.PATCH,
        tubelet_size=sizes.TUBELET,
    )
    samples = [(torch.zeros(1), 0, [torch.zeros(sizes.FRAMES)])] * sizes.BATCH

    def draw() -> Masks:
        ((_, contexts, targets),) = collator(samples)
        return contexts, targets

    if given.masks is None:
        # Its masks come from the workers of its loader, beside the step: they are drawn before the clock starts.
        drawn = [draw() for _ in range(sizes.NUM_DRAWN)]
    else:
        drawn = [([context for context, _ in given.masks], [target for _, target in given.masks])]
    next_masks = itertools.cycle(drawn)
    x = [((given.clips - sizes.MEAN) / sizes.STD).transpose(1, 2).contiguous()]

    def loss() -> torch.Tensor:
        contexts, targets = next(next_masks)
        with torch.no_grad():
            (h,) = [F.layer_norm(h, (h.size(-1),)) for h in teacher(x)]
        (z,) = predictor(encoder(x, [contexts]), [contexts], [targets])
        h = apply_masks(h, targets, concat=False)
        return sum(torch.mean(torch.abs(a - b)) for a, b in zip(z, h, strict=True)) / len(z)

    @torch.no_grad()
    def follow() -> None:
        slow, fast = list(teacher.parameters()), list(encoder.parameters())
        torch._foreach_mul_(slow, sizes.MOMENTUM)
        torch._foreach_add_(slow, fast, alpha=1 - sizes.MOMENTUM)

    return Work(
        package="facebookresearch/vjepa2",
        modules=[encoder, predictor, teacher],
        loss=loss,
        optimizer=optimizer,
        after_step=follow,
        draw_masks=draw if given.masks is None else None,
        num_draws=min(len(drawn), 10),
        tokens=lambda: _count_tokens(drawn),
    )


def _count_tokens(drawn: list[Masks]) -> list[tuple[float, float, float]]:
    found = []
    for which in range(len(sizes.BLOCKS)):
        context = sum(contexts[which].shape[1] for contexts, _ in drawn) / len(drawn)
        target = sum(targets[which].shape[1] for _, targets in drawn) / len(drawn)
        found.append((context, target, target))
    return found


if __name__ == "__main__":
    serve(build, Given)
