"""Our transformer's blocks by the names that transformers gives theirs, whose queries, keys and values lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-6  # of our layer norms
KINDS = ("weight", "bias")


@dataclass(frozen=True)
class TrunkNames:
    """What a model of transformers calls the parts of `Transformer`, on disk.

    layer   where its i-th layer lies, "encoder.layer" for encoder.layer.0, ...; norm  its last norm.
    parts   their name for each layer of our block but qkv; qkv  theirs for queries, keys and values.
    """

    layer: str
    norm: str
    parts: Mapping[str, str]
    qkv: tuple[str, str, str]

    def theirs(self, ours: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
        """The weights of a trunk of ours, transformer.* in a state dict, under their names."""
        theirs = {}
        for kind in KINDS:
            theirs[f"{self.norm}.{kind}"] = ours[f"transformer.norm.{kind}"]
            for i in range(depth):
                block, layer = f"transformer.blocks.{i}", f"{self.layer}.{i}"
                theirs |= {
                    f"{layer}.{name}.{kind}": ours[f"{block}.{part}.{kind}"] for part, name in self.parts.items()
                }
                split = ours[f"{block}.qkv.{kind}"].chunk(3)
                theirs |= {f"{layer}.{name}.{kind}": part for name, part in zip(self.qkv, split, strict=True)}
        return theirs

    def ours(self, theirs: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
        """The inverse of `theirs`."""
        ours = {}
        for kind in KINDS:
            ours[f"transformer.norm.{kind}"] = theirs[f"{self.norm}.{kind}"]
            for i in range(depth):
                block, layer = f"transformer.blocks.{i}", f"{self.layer}.{i}"
                ours |= {
                    f"{block}.{part}.{kind}": theirs[f"{layer}.{name}.{kind}"] for part, name in self.parts.items()
                }
                ours[f"{block}.qkv.{kind}"] = torch.cat([theirs[f"{layer}.{name}.{kind}"] for name in self.qkv])
        return ours

    def without_bias(self, depth: int, width: int) -> dict[str, Tensor]:
        """Biases of queries, keys and values for models that have none: they add nothing."""
        return {f"{self.layer}.{i}.{name}.bias": torch.zeros(width) for i in range(depth) for name in self.qkv}
