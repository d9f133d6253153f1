"""A world model that predicts embeddings: LeWorldModel (arXiv 2603.19312), PLDM (2502.14819), eb_jepa (2602.03604), an
EMA teacher's, and by parts dynamics on a frozen encoder (DINO-WM, 2411.04983) or on inverse dynamics alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.inverse import InverseHead
from jepalab.backbones.predictor import Predictor, ResidualDynamics
from jepalab.backbones.reward import RewardHead
from jepalab.backbones.teachers import EMATeacher, Teacher
from jepalab.backbones.unrolling import FromEvery, Unroll, latest, mean_over
from jepalab.losses.distances import Distance, mean_squared
from jepalab.losses.reconstruction import Reconstruction
from jepalab.losses.regularisers import Regulariser
from jepalab.types import Batch, Encoder, Objective, Space


class JEPAWorld(Objective):
    """Predicted embeddings, one step ahead or many, against those of the frames that came.

    teacher       `OwnTeacher` (published; gradient on both sides), `EMATeacher`, or `FrozenStudent` for an encoder that
                  does not learn.
    unroll        how the predictor is run over a clip: `FromEvery(k)`, `FromFirst()`; one step ahead if not
                  said.
    regularisers  terms of the student's embeddings, normalised as those that the predictor reads and plans compare:
                  `Gaussianity`, `VarianceCovariance`, `Slowness`.
    inverse       a head that must tell the action from two consecutive embeddings, as the encoder gives them.
    normalise     applied to what the predictor reads and to what it predicts; nothing, or `layer_normed`.
    reconstruct   a decoder loss of the frames' embeddings (LeWorldModel's control); the term is INPUT's, not a JEPA's.
    reward        a head that must tell the reward of those frames whose reward is known (arXiv 2606.30068).
    proprio       embeds what the agent feels, [b t q] to [b t r]; it stands beside the frame's embedding.
    weights       the teacher's name, those of the regularisers, "inverse", "reconstruct" and "reward".
    """

    compares: ClassVar[Mapping[str, Space]] = {
        "own": Space.OWN_EMBEDDING,
        "ema": Space.EMA_EMBEDDING,
        "frozen": Space.FROZEN_EMBEDDING,
        "variance": Space.STATISTIC,
        "covariance": Space.STATISTIC,
        "sigreg": Space.STATISTIC,
        "slowness": Space.STATISTIC,
        "inverse": Space.ACTION,
        "reconstruct": Space.INPUT,
        "reward": Space.REWARD,
    }

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: Predictor,
        teacher: Teacher,
        unroll: Unroll | None = None,
        regularisers: Sequence[Regulariser] = (),
        inverse: InverseHead | None = None,
        normalise: Callable[[Tensor], Tensor] | None = None,
        reconstruct: Reconstruction | None = None,
        reward: RewardHead | None = None,
        proprio: nn.Module | None = None,
        distance: Distance = mean_squared,
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        if teacher.space is Space.OWN_EMBEDDING and not regularisers and inverse is None:
            raise ValueError(
                "A world model that is its own teacher collapses with nothing against it; give it a regulariser or an "
                "inverse head."
            )
        if teacher.space is Space.FROZEN_EMBEDDING and any(p.requires_grad for p in encoder.parameters()):
            raise ValueError("Dynamics on a frozen encoder need one that does not learn: use FrozenStudent(encoder).")
        self.encoder, self.predictor, self.teacher = encoder, predictor, teacher
        self.unroll = unroll or FromEvery()
        self.regularisers = nn.ModuleList([part for part in regularisers if isinstance(part, nn.Module)])
        self.inverse, self.normalise, self.proprio, self.distance = inverse, normalise, proprio, distance
        self.reconstruct, self.reward = reconstruct, reward
        names = [teacher.name, *(name for part in regularisers for name in part.names)]
        names += [] if inverse is None else ["inverse"]
        names += [] if reconstruct is None else ["reconstruct"]
        names += [] if reward is None else ["reward"]
        self.weights = dict.fromkeys(names, 1.0) if weights is None else weights
        if {*self.weights} != {*names}:
            raise ValueError(
                f"These parts have the terms {', '.join(names)}, got weights for {', '.join(self.weights)}."
            )

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        if batch.action is None:
            raise ValueError("A world model learns what actions do, got clips without any.")
        raw = self.encoder(batch.x)
        z = self._beside(raw, batch.proprio)
        z_target = self._beside(self.teacher.embed(batch.x, raw), batch.proprio)
        foreseen = [*self.unroll(self.predictor, z, batch.action)]
        terms = {self.teacher.name: mean_over([self.distance(f.z_pred, latest(f, z_target)) for f in foreseen])}
        for regulariser in self.regularisers:
            terms |= regulariser(self._normalised(raw))
        if self.inverse is not None:
            terms["inverse"] = mean_squared(self.inverse(raw), batch.action)
        if self.reconstruct is not None:
            terms["reconstruct"] = self.reconstruct(raw, batch.x)
        if self.reward is not None:
            terms["reward"] = self.reward.loss(raw, batch.factors)
        return terms

    def _beside(self, z: Tensor, proprio: Tensor | None) -> Tensor:
        """What the predictor works on: the frame's embedding, normalised, and what is felt beside it."""
        z = self._normalised(z)
        if self.proprio is None:
            return z
        if proprio is None:
            raise ValueError("This world model was built for an agent that feels itself; give it `proprio` as well.")
        return torch.cat([z, self.proprio(proprio)], -1)

    def _normalised(self, z: Tensor) -> Tensor:
        return z if self.normalise is None else self.normalise(z)

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, progress)

    def probed_encoders(self) -> dict[str, Encoder]:
        """The student, and the teacher where it follows the student."""
        network = self.teacher.network()
        return {"student": self.encoder} | ({} if network is None else {"teacher": network})

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return self._beside(self.encoder(x), proprio)

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]:
        return self.predictor.rollout(z, past, action)

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ConvEncoder(8, dim=4)
        predictor = ResidualDynamics(4, num_actions=2, width=8)
        inverse = InverseHead(4, num_actions=2, width=8)
        objective = cls(encoder, predictor=predictor, teacher=EMATeacher(encoder), inverse=inverse)
        return objective, Batch(x=torch.rand(4, 3, 1, 8, 8), action=torch.rand(4, 2, 2))
