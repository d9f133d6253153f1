"""jepalab: `MaskedJEPA` on clips as the recipe `vjepa` puts it together, stepped as `fit` steps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version

import torch

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT
from jepalab.losses.distances import mean_absolute
from jepalab.masks.tubes import Tubes
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.run import Run
from jepalab.types import Batch, Mask, MaskSampler
from peers import clip_step as sizes
from peers.clip_step import Given
from peers.timing import Work, serve


@dataclass(frozen=True)
class GivenMask:
    """The mask that both implementations get."""

    context: torch.Tensor
    target: torch.Tensor
    grid: tuple[int, ...] = sizes.GRID

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        return Mask(self.context, self.target.unsqueeze(1))


@dataclass(frozen=True)
class OneBatch:
    """A stream that has the one batch."""

    only: Batch
    clips_per_batch: int = field(default=sizes.BATCH)
    frames_per_batch: int = field(default=sizes.BATCH * sizes.FRAMES)

    def batch(self, step: int) -> Batch:
        return self.only

    def held_out(self, split: str, num_clips: int) -> Batch:
        return self.only


def build(given: Given) -> Work:
    samplers: list[MaskSampler] = [Tubes.short_range(sizes.GRID), Tubes.long_range(sizes.GRID)]
    if given.masks is not None:
        samplers = [GivenMask(context, target) for context, target in given.masks]
    objective = _make_objective(given, samplers)
    batch = Batch(x=given.clips)
    run = Run(objective, OneBatch(batch), steps=1, lr=sizes.LR, weight_decay=sizes.WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(0)

    def draw() -> list[Mask]:
        return [sampler(sizes.BATCH, generator) for sampler in samplers]

    return Work(
        package=f"jepalab {version('jepalab')}",
        modules=[objective],
        loss=lambda: objective(batch).total,
        optimizer=run.make_optimizer(),
        after_step=lambda: objective.after_step(0.0),
        draw_masks=draw if given.masks is None else None,
        clip=run.clip,
        tokens=lambda: _count_tokens([draw() for _ in range(sizes.NUM_DRAWN)]),
    )


def _make_objective(given: Given, samplers: list[MaskSampler]) -> MaskedJEPA:
    torch.manual_seed(0)
    encoder = ViT(
        sizes.GRID,
        patch=(sizes.TUBELET, sizes.PATCH, sizes.PATCH),
        channels=3,
        dim=sizes.DIM,
        depth=sizes.DEPTH,
        num_heads=sizes.HEADS,
        mean=sizes.MEAN,
        std=sizes.STD,
        positions=given.positions,
    )
    predictor = MaskedPredictor(
        sizes.DIM,
        sizes.DIM,
        grid=sizes.GRID,
        width=sizes.PREDICTOR_DIM,
        depth=sizes.PREDICTOR_DEPTH,
        num_heads=sizes.HEADS,
        positions=given.positions,
        num_mask_tokens=len(samplers),
    )
    teacher = EMATeacher(encoder, momentum=sizes.MOMENTUM)
    return MaskedJEPA(encoder, predictor=predictor, masks=samplers, teacher=teacher, distance=mean_absolute)


def _count_tokens(drawn: list[list[Mask]]) -> list[tuple[float, float, float]]:
    found = []
    for masks in zip(*drawn, strict=True):
        filled = masks[0].target.shape[-1]
        present = [filled if mask.present is None else mask.present.sum(-1).double().mean().item() for mask in masks]
        found.append((float(masks[0].context.shape[1]), sum(present) / len(present), float(filled)))
    return found


if __name__ == "__main__":
    serve(build, Given)
