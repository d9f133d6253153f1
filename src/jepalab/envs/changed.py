"""An environment whose pictures are not those that a model was trained on: noise, another brightness, a blot.

What happens is the same; only what is seen is changed. Whoever plans well there does not hang on the picture's looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.envs.chance import Purpose, normals, uniforms
from jepalab.envs.drawing import draw_dots
from jepalab.envs.environment import Environment, PointState, State
from jepalab.planners.planner import Bounds

S = TypeVar("S", bound=State)


@dataclass(frozen=True)
class Changed(Generic[S]):
    """`env` as before, seen otherwise.

    noise       deviation of normal noise on every pixel, new at every step; where states bear no key, another for
                every state.
    brightness  by which every pixel is multiplied.
    tint        share of the moving point that goes over from the first channel to the next, which gives it another
                colour and leaves all else; in worlds of others, where nobody says where it is, added to the first.
    """

    env: Environment[S]
    noise: float = 0.0
    brightness: float = 1.0
    tint: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tint <= 1:
            raise ValueError(f"Wanted a tint from 0 to 1, got {self.tint}.")
        if self.noise < 0 or self.brightness < 0:
            raise ValueError(f"Wanted noise and brightness of at least 0, got {self.noise} and {self.brightness}.")

    @property
    def bounds(self) -> Bounds:
        return self.env.bounds

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        return self.env.picture_shape

    def reset(self, num: int, generator: torch.Generator) -> S:
        return self.env.reset(num, generator)

    def random_pairs(self, num: int, generator: torch.Generator, *, min_distance: float) -> tuple[S, S]:
        return self.env.random_pairs(num, generator, min_distance=min_distance)

    def step(self, state: S, action: Float[Tensor, "n a"]) -> S:
        return self.env.step(state, action)

    def render(self, state: S) -> Float[Tensor, "n c h w"]:
        """The pictures, changed and cut to [0, 1]."""
        x = self.env.render(state) * self.brightness
        if self.tint:
            x = self._tinted(state, x)
        if self.noise:
            x = x + self.noise * self._noise(state, x)
        return x.clamp(0, 1)

    def proprioception(self, state: S) -> Float[Tensor, "n p"]:
        return self.env.proprioception(state)

    def factors(self, state: S) -> dict[str, Tensor]:
        return self.env.factors(state)

    def distance(self, state: S, goal: S) -> Float[Tensor, " n"]:
        return self.env.distance(state, goal)

    def success(self, state: S, goal: S, *, radius: float) -> Bool[Tensor, " n"]:
        return self.env.success(state, goal, radius=radius)

    def _tinted(self, state: S, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        first, others = x[:, :1], x[:, 1:]
        if not isinstance(state, PointState) or not others.shape[1]:
            return torch.cat([first + self.tint, others], 1)
        moved = self.tint * self.brightness * draw_dots(state.position, size=x.shape[-1])[:, None]
        return torch.cat([first - moved, others[:, :1] + moved, others[:, 1:]], 1)

    def _noise(self, state: S, x: Tensor) -> Tensor:
        num = x[0].numel()
        if isinstance(state, PointState):
            return normals(uniforms(state.key, Purpose.SENSOR, state.clock, num=num)).view_as(x)
        parts = [
            value.double().flatten(1) if value.dim() > 1 else value.double()[:, None]
            for value in state.tensors().values()
        ]
        flat = torch.cat(parts, 1)
        primes = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=torch.float64).sqrt()
        key = ((flat * 1e3).round() @ primes).mul(1e6).round().long().abs()
        return normals(uniforms(key, Purpose.SENSOR, num=num)).view_as(x)
