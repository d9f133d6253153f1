"""What moves over the canvas: real handwriting, a Gaussian dot, or the images of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Sprites:
    """Small pictures in [0, 1] with a class each, in disjoint splits.

    images  [m s s]; classes [m]; split [m] with 0 train, 1 validation, 2 test.
    scale   canvas pixels for one sprite pixel.
    """

    images: Float[Tensor, "m s s"]
    classes: Int[Tensor, " m"]
    split: Int[Tensor, " m"]
    scale: float = 1.0

    @property
    def num_classes(self) -> int:
        return int(self.classes.max()) + 1

    @property
    def extent(self) -> float:
        """Width of a sprite on the canvas, in pixels."""
        return self.images.shape[-1] * self.scale

    def choose(self, split: Split, num: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices of `num` sprites of a split, drawn with replacement."""
        members = (self.split == SPLITS.index(split)).nonzero().flatten()
        return members[torch.randint(len(members), (num,), generator=generator)]

    def draw(
        self, indices: Int[Tensor, " n"], centre: Float[Tensor, "n t 2"], size: int
    ) -> Float[Tensor, "n t size size"]:
        """Each sprite at its centres (x, y in pixels), sampled bilinearly.

        A bilinear picture is separable: rows @ image @ columns, two small products instead of a resampling grid.
        """
        side = self.images.shape[-1]
        canvas, cells = torch.arange(size), torch.arange(side)
        place = (canvas - centre.unsqueeze(-1)) / self.scale + (side - 1) / 2
        weights = torch.relu(1 - (place.unsqueeze(-1) - cells).abs())
        columns, rows = weights.unbind(2)
        return rows @ self.images[indices].unsqueeze(1) @ columns.transpose(-1, -2)


def digits(*, scale: float = 1.25) -> Sprites:
    """The 1,797 handwritten 8 x 8 digits of UCI optdigits (CC BY 4.0, see ATTRIBUTION.md), split by image."""
    with files("jepalab.data").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as packed:
        images, labels, split = packed["images"], packed["labels"], packed["split"]
    return Sprites(
        torch.from_numpy(images / 16).float(), torch.from_numpy(labels).long(), torch.from_numpy(split).long(), scale
    )


def dot(*, sigma: float = 1.5) -> Sprites:
    """A Gaussian dot of `sigma` pixels, the object of Sobal et al. 2022 (2211.10831): one class, in every split."""
    side = 2 * round(4 * sigma) + 1
    profile = torch.exp(-((torch.arange(side) - side // 2) / sigma).square() / 2)
    images = torch.outer(profile, profile).expand(len(SPLITS), -1, -1)
    return Sprites(images.contiguous(), torch.zeros(len(SPLITS), dtype=torch.long), torch.arange(len(SPLITS)))
