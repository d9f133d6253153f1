"""A nuisance with every dial that decides who wins: how strong, how persistent, how coherent, where, and whose.

Sobal et al. 2022 (2211.10831) show that a JEPA drops a background that changes at every frame and encodes one that
stays. `Nuisance` covers both ends and what lies between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jepalab.data.sprites import Split
from jepalab.data.texture import RESIDUES, TURNS

Coherence = Literal["pixel", "patch", "texture", "image"]
Driver = Literal["chance", "action"]
PATCHES = 7


class Realisation(NamedTuple):
    """What the nuisance did in each frame.

    added       [b t h w] what it adds to the picture, strength included.
    parameters  [b t f] its own parameters: the cells' values (pixel, patch), orientation, frequency and phase as sine
                and cosine (texture), the image's index among its split's in [0, 1] (image).
    """

    added: Float[Tensor, "b t h w"]
    parameters: Float[Tensor, "b t f"]

    def summary(self) -> Float[Tensor, "b t f"]:
        """The field averaged in 7 x 7 cells: one target for probes, whatever the coherence."""
        return F.adaptive_avg_pool2d(self.added, PATCHES).flatten(2)


@dataclass(frozen=True)
class Nuisance:
    """Something in the picture that is not the state.

    strength     alpha: its values lie in [0, alpha]; 0 leaves the picture clean.
    persistence  rho in [0, 1]: 0 is new at every frame, 1 is fixed for the clip; between, its latent is an AR(1)
                 process with that correlation. The distribution of a single frame is the same for every rho.
    coherence    "pixel": each pixel on its own; "patch": 7 x 7 cells, bilinearly up-sampled; "texture": one grating
                 over the whole frame; "image": a picture out of `images`.
    share        of the frame's area that it covers, a square in the lower right corner when below 1.
    driver       what moves it between frames: "chance", or "action", which makes it controllable.
    images       [m h w] in [0, 1], for coherence "image"; of every five in a row three train, one validates, one tests.
    """

    strength: float = 1.0
    persistence: float = 0.0
    coherence: Coherence = "patch"
    share: float = 1.0
    driver: Driver = "chance"
    images: Float[Tensor, "m h w"] | None = None

    def __post_init__(self) -> None:
        if self.strength < 0 or not 0 <= self.persistence <= 1 or not 0 < self.share <= 1:
            raise ValueError(
                "A nuisance needs strength >= 0, persistence in [0, 1] and share in (0, 1], got "
                f"strength={self.strength}, persistence={self.persistence}, share={self.share}."
            )
        if self.coherence not in get_args(Coherence) or self.driver not in get_args(Driver):
            raise ValueError(
                f"Wanted coherence out of {get_args(Coherence)} and driver out of {get_args(Driver)}, got "
                f"coherence={self.coherence!r}, driver={self.driver!r}."
            )
        if (self.coherence == "image") != (self.images is not None):
            raise ValueError('Give `images` with coherence="image", and only then.')

    def realise(
        self,
        action: Float[Tensor, "b s a"],
        *,
        size: int,
        generator: torch.Generator,
        action_std: float = 1.0,
        split: Split = "train",
    ) -> Realisation:
        """The nuisance of b clips of s + 1 frames of size x size pixels; the action is measured in its own std.

        split  whose images are taken, where the nuisance is made of images; ValueError if they are fewer than five.
        """
        uniform = self._latent(action / action_std, size, generator)
        field = self._field(uniform, size, split) * self.strength
        if self.share < 1:
            side = round(math.sqrt(self.share) * size)
            area = torch.zeros(size, size)
            area[size - side :, size - side :] = 1
            field = field * area
        return Realisation(field, _readable(uniform) if self.coherence == "texture" else uniform)

    def _latent(self, action: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """AR(1) in Gaussian space, mapped to the uniform distribution, so that rho leaves each frame's law alone."""
        width = {"pixel": size**2, "patch": PATCHES**2, "texture": 3, "image": 1}[self.coherence]
        num_clips, num_steps = action.shape[:2]
        if self.driver == "action":
            mixing = torch.randn(action.shape[-1], width, generator=torch.Generator().manual_seed(0))
            push = action @ (mixing / mixing.norm(dim=0))
        else:
            push = torch.randn(num_clips, num_steps, width, generator=generator)
        states = [torch.randn(num_clips, width, generator=generator)]
        for i in range(num_steps):
            states.append(self.persistence * states[-1] + math.sqrt(1 - self.persistence**2) * push[:, i])
        return torch.special.ndtr(torch.stack(states, 1))

    def _field(self, uniform: Tensor, size: int, split: Split) -> Tensor:
        if self.coherence == "pixel":
            return uniform.unflatten(2, (size, size))
        if self.coherence == "patch":
            up = F.interpolate(torch.eye(PATCHES)[None], size=size, mode="linear", align_corners=False)[0]
            return up.T @ uniform.unflatten(2, (PATCHES, PATCHES)) @ up
        if self.coherence == "texture":
            angle, cycles, phase = _grating(uniform)
            axis = torch.linspace(-0.5, 0.5, size)
            across = angle.cos()[..., None, None] * axis + angle.sin()[..., None, None] * axis[:, None]
            return 0.5 + 0.5 * torch.sin(2 * math.pi * cycles[..., None, None] * across + phase[..., None, None])
        assert self.images is not None
        if self.images.shape[1:] != (size, size):
            raise ValueError(f"Background images must be {size} x {size}, got {list(self.images.shape[1:])}.")
        if len(self.images) < TURNS:
            raise ValueError(
                f"Wanted at least {TURNS} background images, so that each split has its own, got {len(self.images)}."
            )
        every = torch.arange(len(self.images))
        mine = every[torch.isin(every % TURNS, torch.tensor(RESIDUES[split]))]
        return self.images[mine[(uniform[..., 0] * len(mine)).long().clamp_max(len(mine) - 1)]]


def _grating(uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orientation in [0, pi), cycles over the frame in [1, 4], phase in [0, 2 pi)."""
    return math.pi * uniform[..., 0], 1 + 3 * uniform[..., 1], 2 * math.pi * uniform[..., 2]


def _readable(uniform: Tensor) -> Tensor:
    angle, cycles, phase = _grating(uniform)
    return torch.stack([(2 * angle).sin(), (2 * angle).cos(), cycles, phase.sin(), phase.cos()], -1)
