"""jepalab: the `MaskedJEPA` objective with its EMA teacher, stepped as `fit` steps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version

import torch

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT
from jepalab.masks.blocks import Blocks
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.run import Run
from jepalab.types import Batch, Mask
from peers import timing
from peers.timing import Given, Work, draw_masks, serve


@dataclass(frozen=True)
class GivenMasks:
    """The masks that every implementation gets."""

    context: torch.Tensor
    target: torch.Tensor
    grid: tuple[int, ...] = (timing.GRID, timing.GRID)

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        return Mask(self.context, self.target)


@dataclass(frozen=True)
class FreshMasks:
    """Masks of the same sizes, drawn anew at each step."""

    grid: tuple[int, ...] = (timing.GRID, timing.GRID)

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        return Mask(*draw_masks(num_samples, generator))


@dataclass(frozen=True)
class Pictures:
    """Batches of [n 3 64 64] uint8 images, drawn with replacement by the step alone."""

    pixels: torch.Tensor
    clips_per_batch: int = field(default=timing.BATCH)
    frames_per_batch: int = field(default=timing.BATCH)

    def batch(self, step: int) -> Batch:
        chosen = torch.randint(len(self.pixels), (timing.BATCH,), generator=torch.Generator().manual_seed(step))
        return Batch(x=self.pixels[chosen].float().div_(255).unsqueeze(1))

    def held_out(self, split: str, num_clips: int) -> Batch:
        return self.batch(0)


def make_objective(masks: GivenMasks | FreshMasks) -> MaskedJEPA:
    """The network of this benchmark from the same weights at each call."""
    torch.manual_seed(0)
    shape = {"dim": timing.DIM, "depth": timing.DEPTH, "num_heads": timing.HEADS}
    encoder = ViT(
        (timing.GRID, timing.GRID), patch=(timing.PATCH, timing.PATCH), channels=3, mean=0.5, std=0.25, **shape
    )
    predictor = MaskedPredictor(
        timing.DIM,
        timing.DIM,
        grid=(timing.GRID, timing.GRID),
        width=timing.PREDICTOR_DIM,
        depth=timing.PREDICTOR_DEPTH,
        num_heads=timing.HEADS,
    )
    teacher = EMATeacher(encoder, momentum=timing.MOMENTUM)
    return MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=teacher)


def build(given: Given) -> Work:
    objective = make_objective(GivenMasks(given.context, given.target))
    batch = Batch(x=given.images.unsqueeze(1))
    run = Run(objective, Pictures(given.images), steps=1, lr=timing.LR, weight_decay=timing.WEIGHT_DECAY)
    sampler, generator = Blocks((timing.GRID, timing.GRID)), torch.Generator().manual_seed(0)
    return Work(
        package=f"jepalab {version('jepalab')}",
        modules=[objective],
        loss=lambda: objective(batch).total,
        optimizer=run.make_optimizer(),
        after_step=lambda: objective.after_step(0.0),
        draw_masks=lambda: sampler(timing.BATCH, generator),
        clip=run.clip,
    )


if __name__ == "__main__":
    serve(build)
