"""A world model that predicts pixels through a latent: a deterministic recurrent state-space model without rewards
(PlaNet, arXiv 1811.04551; Dreamer, 1912.01603). The generative twin of `JEPAWorld`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.predictor import Predictor, ResidualDynamics
from jepalab.backbones.unrolling import FromEvery, Unroll, latest, mean_over
from jepalab.dist import StepSeeded
from jepalab.losses.distances import Distance, mean_squared
from jepalab.losses.regularisers import Regulariser
from jepalab.types import Batch, Encoder, Objective, Space


class PixelWorld(Objective):
    """Frames decoded from their own embedding, and from predicted ones, against the frames.

    Encoder, predictor and the way the predictor is run are those of `JEPAWorld`; only what the loss compares differs.

    scale        of each channel, such as its standard deviation: pixels are compared in these units, so that a small
                 object counts beside a large wall. The decoder answers in them.
    num_decoded  frames of a clip, and predictions of it, that are decoded in a training step, drawn anew at each;
                 decoding all costs more than all else.
    regularisers terms of the embeddings beside the pixels: `Slowness`, which JEPA world models have too.
    weights      "reconstruct" and "predict"; with "own" also the predicted embeddings against the encoder's; and the
                 regularisers' terms.
    """

    compares: ClassVar[Mapping[str, Space]] = {
        "reconstruct": Space.INPUT,
        "predict": Space.INPUT,
        "own": Space.OWN_EMBEDDING,
        "slowness": Space.STATISTIC,
    }
    scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: Predictor,
        decoder: nn.Module,
        scale: Sequence[float],
        unroll: Unroll | None = None,
        num_decoded: int = 4,
        distance: Distance = mean_squared,
        regularisers: Sequence[Regulariser] = (),
        weights: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.decoder, self.distance = encoder, predictor, decoder, distance
        self.unroll, self.num_decoded = unroll or FromEvery(), num_decoded
        self.regularisers = nn.ModuleList([part for part in regularisers if isinstance(part, nn.Module)])
        names = ["reconstruct", "predict", *(name for part in regularisers for name in part.names)]
        self.weights = dict.fromkeys(names, 1.0) if weights is None else weights
        if not {*names} <= {*self.weights} <= {*names, "own"}:
            raise ValueError(
                f"The terms are {', '.join(names)} and, if wanted, own; got weights for {', '.join(self.weights)}."
            )
        self.pick = StepSeeded(seed)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).reshape(-1, 1, 1))

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        if batch.action is None:
            raise ValueError("A world model learns what actions do, got clips without any.")
        z, x = self.encoder(batch.x), batch.x / self.scale
        foreseen = [*self.unroll(self.predictor, z, batch.action)]
        z_pred = torch.cat([f.z_pred for f in foreseen], 1)
        frame = torch.cat([torch.arange(f.first, f.first + f.z_pred.shape[1]) for f in foreseen])
        # As in `JEPAWorld`, every number of steps ahead counts alike, however many places it can be told at.
        ahead = torch.cat([torch.full((f.z_pred.shape[1],), 1 / f.z_pred.shape[1]) for f in foreseen])
        shown, told = self._draw(torch.ones(z.shape[1])), self._draw(ahead)
        terms = {
            "reconstruct": self.distance(self.decoder(z[:, shown]), x[:, shown]),
            "predict": self.distance(self.decoder(z_pred[:, told]), x[:, frame[told]]),
        }
        if "own" in self.weights:
            terms["own"] = mean_over([self.distance(f.z_pred, latest(f, z)) for f in foreseen])
        for regulariser in self.regularisers:
            terms |= regulariser(z)
        return terms

    def _draw(self, often: Float[Tensor, " n"]) -> Tensor:
        """Which frames are decoded now, drawn in these proportions."""
        num = min(self.num_decoded, len(often))
        return torch.multinomial(often, num, generator=self.pick.draw()).sort().values

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return self.encoder(x)

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        return self.predictor.rollout(z, past, action)

    def draw(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"]:
        """The frames that the decoder sees in embeddings, in pixel units."""
        return self.decoder(z) * self.scale

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        predictor, decoder = ResidualDynamics(4, num_actions=2, width=8), PixelDecoder(4, size=8, width=2)
        objective = cls(ConvEncoder(8, dim=4), predictor=predictor, decoder=decoder, scale=[0.5])
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
