"""An encoder of pictures that was trained elsewhere, named on the command line, as what a world model sees with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.frozen_frames import FrozenFrames, Tokens
from jepalab.hub.runs import find_encoders, load
from jepalab.instruments.matching import read_shape


@dataclass(frozen=True)
class StoredEncoder:
    """Which encoder, and what is kept of its tokens.

    Args:
        encoder: the folder of a run of the image lab, of one encoder, or of an I-JEPA in transformers' format.
        tokens: "flatten" keeps all patch tokens of a frame, and so where things are; "mean" pools them.
    """

    # What is not in the repr does not tell settings apart: a comparison goes on where the encoder was moved to.
    encoder: Path | None = field(default=None, repr=False)
    tokens: Tokens = "flatten"
    digest: Annotated[str, tyro.conf.Suppress] = ""

    def named(self) -> StoredEncoder:
        """The same, known by its weights: settings with another encoder are other settings."""
        return replace(self, digest=self._digest())

    def open(self, frames: Float[Tensor, "b t c h w"], *, dim: int) -> FrozenFrames:
        """The encoder, projected onto the `dim` principal components that it has on these frames.

        Raises:
            ValueError: none was named, there is none, it reads clips or series, or it is not that which was named.
        """
        if self.encoder is None:
            raise ValueError("Dynamics on a frozen encoder need one; name its folder with --encoder.")
        if self.digest and self._digest() != self.digest:
            raise ValueError(f"{self.encoder} holds another encoder than that this began with; start anew (--out).")
        found = load(self.encoder)
        shape = read_shape(found)
        if len(shape) != 4 or shape[0] != 1:
            raise ValueError(f"Wanted an encoder of still pictures, and {self.encoder} reads {list(shape)}.")
        return FrozenFrames.fitted(found, frames, size=shape[-1], channels=shape[1], dim=dim, tokens=self.tokens)

    def _digest(self) -> str:
        if self.encoder is None:
            return ""
        place = next(iter(find_encoders(self.encoder).values()), self.encoder)
        summary = hashlib.sha256()
        for file in sorted(place.glob("*.safetensors")):
            summary.update(file.read_bytes())
        return summary.hexdigest()


def fit_frames(frames: Float[Tensor, "b t c h w"], num: int) -> Float[Tensor, "m 1 c h w"]:
    """So many of the frames, evenly spread over clips and times."""
    flat = frames.flatten(0, 1)
    return flat[torch.linspace(0, len(flat) - 1, min(num, len(flat))).round().long()][:, None]
