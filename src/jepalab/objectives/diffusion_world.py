"""A world model that draws the next frame out of noise (DIAMOND, arXiv 2405.12399), small: it answers with the clean
frame, given the present one and the action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.frame_units import FrameUnits
from jepalab.backbones.noise_level import NoiseLevel
from jepalab.backbones.predictor import Predictor, ResidualDynamics
from jepalab.losses.denoising import MAX_LEVEL, Levels, NoiseDrawer, logit_normal_levels
from jepalab.losses.distances import mean_squared
from jepalab.types import Batch, Encoder, Objective, Space


class DiffusionWorld(Objective):
    """The next frame, told from a noised version of it, the present frame and the action, against the next frame.

    Encoder, predictor and decoder are those of the other world models; `noisy_encoder` reads the noised frame, and
    its embedding and that of the noise level are added to the predicted one. The state is the frame itself.

    scale         of each channel: noise is standard normal in these units.
    num_sampling  steps from noise to a frame while it imagines.
    weights       "clean".
    """

    compares: ClassVar[Mapping[str, Space]] = {"clean": Space.INPUT}

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: Predictor,
        noisy_encoder: Encoder,
        decoder: nn.Module,
        scale: Sequence[float],
        levels: Levels = logit_normal_levels,
        num_sampling: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.decoder = encoder, predictor, decoder
        self.noisy_encoder, self.level = noisy_encoder, NoiseLevel(noisy_encoder.dim)
        self.noise, self.num_sampling, self.seed = NoiseDrawer(levels, seed=seed), num_sampling, seed
        self.weights = {"clean": 1.0}
        self.units = FrameUnits(scale)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        if batch.action is None:
            raise ValueError("A world model learns what actions do, got clips without any.")
        now, clean = (part.flatten(0, 1)[:, None] for part in (batch.x[:, :-1], batch.x[:, 1:] / self.units.scale))
        level, noise = self.noise(clean.flatten(1, 2).flatten(2))
        noise, t = noise.view_as(clean), level[:, None, None, None, None]
        predicted = self.predictor(self.encoder(now), batch.action.flatten(0, 1)[:, None])
        return {"clean": mean_squared(self._answer(predicted, (1 - t) * clean + t * noise, level), clean)}

    def _answer(
        self, predicted: Float[Tensor, "b 1 d"], noisy: Float[Tensor, "b 1 c h w"], level: Float[Tensor, " b"]
    ) -> Float[Tensor, "b 1 c h w"]:
        return self.decoder(predicted + self.noisy_encoder(noisy * self.units.scale) + self.level(level)[:, None])

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """The frames themselves, laid out as rows, in units of `scale`."""
        return self.units.rows(x)

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        """Each frame is drawn in `num_sampling` steps from noise that is the same for all candidates and calls."""
        x = self.units.squares(z[:, -1]).repeat_interleave(action.shape[1], 0)[:, None]
        generator, steps = torch.Generator().manual_seed(self.seed), []
        path = torch.linspace(MAX_LEVEL, 0, self.num_sampling + 1).tolist()
        for each in action.flatten(0, 1).unbind(1):
            predicted = self.predictor(self.encoder(x * self.units.scale), each[:, None])
            noisy = torch.randn(1, *x.shape[1:], generator=generator).to(x.device).expand_as(x)
            for t, t_next in pairwise(path):
                clean = self._answer(predicted, noisy, x.new_full((len(x),), t))
                noisy = clean + t_next / t * (noisy - clean)
            x = noisy
            steps.append(x.flatten(1))
        return torch.stack(steps, 1).unflatten(0, action.shape[:2])

    def draw(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"]:
        """The frames again, in pixel units."""
        return self.units.pictures(z)

    def look(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
        """The encoder's embedding of the frames that z is."""
        return self.encoder(self.draw(z))

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        predictor, decoder = ResidualDynamics(4, num_actions=2, width=8), PixelDecoder(4, size=8, width=2)
        objective = cls(
            ConvEncoder(8, dim=4),
            predictor=predictor,
            noisy_encoder=ConvEncoder(8, dim=4),
            decoder=decoder,
            scale=[0.5],
        )
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
