"""Clips of one object moving over a canvas under a nuisance: every factor known, generated on the fly."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.data.nuisance import Nuisance, Realisation
from jepalab.data.sprites import SPLITS, Split, Sprites, digits
from jepalab.types import Batch


@dataclass(frozen=True)
class MovingObject:
    """A stream of clips [b t 1 size size]: the object's centre moves by the action, within the canvas.

    The factors of a batch: "position" [b t 2] in [-1, 1] (x, y), "class" [b t], "nuisance" [b t 49] (what was added,
    in 7 x 7 cells) and "nuisance_parameters" [b t f]. The action [b t-1 2] is the displacement of the position.

    seed            of the data; with a split and a step it determines a batch, so a run can resume anywhere.
    max_step        largest displacement along an axis, in units of position.
    """

    sprites: Sprites = field(default_factory=digits)
    nuisance: Nuisance = field(default_factory=lambda: Nuisance(strength=0.0))
    seed: int = 0
    split: Split = "train"
    num_frames: int = 6
    clips_per_batch: int = 48
    size: int = 28
    max_step: float = 0.2

    def __post_init__(self) -> None:
        if self.sprites.extent >= self.size:
            raise ValueError(f"An object {self.sprites.extent:.0f} pixels wide cannot move on {self.size} pixels.")
        if self.num_frames < 2:
            raise ValueError(f"A clip that moves has at least 2 frames, got num_frames={self.num_frames}.")
        if not 0 < self.max_step <= 2:
            raise ValueError(f"Positions lie in [-1, 1], so max_step lies in (0, 2], got max_step={self.max_step}.")

    @property
    def frames_per_batch(self) -> int:
        return self.clips_per_batch * self.num_frames

    @property
    def num_classes(self) -> int:
        return self.sprites.num_classes

    def batch(self, step: int) -> Batch:
        """The batch of this step, a pure function of (seed, split, step)."""
        return self._clips(self.clips_per_batch, self._generator("clips", step))

    def held_out(self, split: Split, num_clips: int) -> Batch:
        """The same world on another split: other images, other motions, other nuisances."""
        stream = replace(self, split=split)
        return stream._clips(num_clips, stream._generator("held out", num_clips))

    def views(self, split: Split, num_states: int, num_views: int) -> Float[Tensor, "n q 1 h w"]:
        """Frames that show the same state under `num_views` draws of the nuisance: LiDAR's surrogate classes."""
        stream = replace(self, split=split, num_frames=2)
        generator = stream._generator("views", num_states)
        clean = replace(stream, nuisance=Nuisance(strength=0.0))._clips(num_states, generator)
        many = clean.map(lambda tensor: tensor.repeat_interleave(num_views, 0))
        assert many.action is not None
        added = stream._realise(many.action, generator).added
        return (many.x[:, 0, 0] + added[:, 0]).unflatten(0, (num_states, num_views)).unsqueeze(2)

    def statistics(self, num_clips: int = 256) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, from clips that no step trains on."""
        stream = replace(self, split="train")
        x = stream._clips(num_clips, stream._generator("statistics", num_clips)).x
        return float(x.mean()), float(x.std())

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        key = f"{purpose} {number} {self.seed} {SPLITS.index(self.split)}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))

    def _clips(self, num_clips: int, generator: torch.Generator) -> Batch:
        chosen = self.sprites.choose(self.split, num_clips, generator)
        position = self._walk(num_clips, generator)
        action = position[:, 1:] - position[:, :-1]
        reach = (self.size - self.sprites.extent) / 2
        centre = (self.size - 1) / 2 + position * reach
        realised = self._realise(action, generator)
        frames = self.sprites.draw(chosen, centre, self.size) + realised.added
        factors = {
            "position": position,
            "class": self.sprites.classes[chosen][:, None].expand(-1, self.num_frames).contiguous(),
            "nuisance": realised.summary(),
            "nuisance_parameters": realised.parameters,
        }
        return Batch(x=frames.unsqueeze(2), action=action, factors=factors)

    def _realise(self, action: Float[Tensor, "b s a"], generator: torch.Generator) -> Realisation:
        std = self.max_step / math.sqrt(3)
        return self.nuisance.realise(action, size=self.size, generator=generator, action_std=std, split=self.split)

    def _walk(self, num_clips: int, generator: torch.Generator) -> Float[Tensor, "b t 2"]:
        """A random walk reflected at the borders, so that every position stays as likely as any other."""
        position = torch.rand(num_clips, 2, generator=generator) * 2 - 1
        walk = [position]
        for _ in range(self.num_frames - 1):
            step = (torch.rand(num_clips, 2, generator=generator) * 2 - 1) * self.max_step
            position = position + step
            position = torch.where(position.abs() > 1, 2 * position.sign() - position, position)
            walk.append(position)
        return torch.stack(walk, 1)
