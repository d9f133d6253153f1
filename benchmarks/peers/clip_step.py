"""The V-JEPA step that vjepa_step.py measures: its sizes, and what both implementations are given. Imports torch alone.

Positions "rope" are what V-JEPA 2 trains with, "sincos" what V-JEPA did. Its two masks a step hide the union of eight
small blocks and of two large ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

FRAMES, SIDE, TUBELET, PATCH, BATCH = 8, 64, 2, 8, 32
GRID = (FRAMES // TUBELET, SIDE // PATCH, SIDE // PATCH)
DIM, DEPTH, HEADS = 192, 6, 3
PREDICTOR_DIM, PREDICTOR_DEPTH = 96, 3
BLOCKS = ((8, 0.15), (2, 0.7))  # how many, and the share of the plane that one of them covers
ASPECT = (0.75, 1.5)
MOMENTUM, LR, WEIGHT_DECAY = 0.99925, 5.25e-4, 0.04
MEAN, STD = 0.5, 0.25
NUM_DRAWN = 100  # batches of masks whose tokens are counted


@dataclass(frozen=True)
class Given:
    """clips [b t c h w] in [0, 1].

    masks      context [b k] and target [b m] for each mask of a step; None lets an implementation draw its own.
    positions  how a token knows its place.
    is_fused   whether vjepa2's encoder attends through PyTorch's fused kernel (its `use_sdpa`).
    vjepa2     folder of a checkout.
    """

    clips: Tensor
    masks: list[tuple[Tensor, Tensor]] | None
    positions: Literal["rope", "sincos"]
    is_fused: bool
    vjepa2: str | None
