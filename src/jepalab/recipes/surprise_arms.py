"""Models that expect what comes next behind occluders: one function an arm, each returning a `Run`.

The frame models (J1, J2, J3, G2) share one convolutional encoder and one predictor; the clip models (J4, G1) share one
ViT, to which the past is shown and the future hidden. All arms of one seed see the same clips in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.predictor import SequencePredictor
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT
from jepalab.compare.cells import Judging
from jepalab.data.nuisance import Nuisance
from jepalab.data.occluder_scenes import SIZE
from jepalab.data.occluders import OccludedShapes
from jepalab.dist import Precision, seeded
from jepalab.instruments.surprise import surprise, surprise_subjects
from jepalab.losses.distances import mean_absolute
from jepalab.losses.pixels import norm_pixels, plain_pixels
from jepalab.losses.sigreg import SIGReg
from jepalab.masks.causal import DrawnPast
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.sigreg_jepa import SIGRegJEPA
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.run import Run
from jepalab.types import Objective

__all__ = [
    "JUDGING",
    "expect_embedding_ema",
    "expect_embedding_sigreg",
    "expect_embedding_vicreg",
    "expect_hidden_embedding",
    "expect_hidden_pixels",
    "expect_pixels",
]

JUDGING = Judging(instruments=(surprise,), subjects=surprise_subjects)
DIM, TUBELET, PATCH = 64, 2, 8
WIDTH, DEPTH, NUM_HEADS, HEAD_WIDTH, HEAD_DEPTH = 96, 4, 4, 64, 2


@dataclass(frozen=True)
class OccludedWorld:
    """What is in the way beside the occluders.

    Args:
        strength: of a nuisance over the background, 7 x 7 cells: a television that nobody can foretell.
        persistence: of the nuisance: 0, new at every frame; 1, fixed for the clip.
        share: of the frame's area that it covers.
        gravity: in pixels a frame squared; 0 for none.
    """

    strength: float = 0.0
    persistence: float = 0.0
    share: float = 1.0
    gravity: float = 0.25

    def stream(self, seed: int) -> OccludedShapes:
        """Clips of this world, a pure function of the seed."""
        nuisance = Nuisance(strength=self.strength, persistence=self.persistence, share=self.share)
        return OccludedShapes(nuisance=nuisance, gravity=self.gravity, seed=seed)


@dataclass(frozen=True)
class ExpectationTraining:
    """How long and how fast; the same fields for every arm.

    Args:
        steps: optimizer steps of 48 clips x 16 frames.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        precision: of matrix products; "auto" is bf16 where the device multiplies it, else fp32.
    """

    steps: int = 1500
    lr: float = 1e-3
    weight_decay: float = 1e-4
    precision: Precision = "auto"


@dataclass(frozen=True)
class ExpectationBench:
    """What every arm of a seed shares.

    Args:
        world: what is in the way.
        training: how long and how fast.
        seed: of the data and of the weights.
    """

    world: OccludedWorld = field(default_factory=OccludedWorld)
    training: ExpectationTraining = field(default_factory=ExpectationTraining)
    seed: int = 0

    def stream(self) -> OccludedShapes:
        return self.world.stream(self.seed)

    def encoder(self) -> ConvEncoder:
        """The frame models' first weights, the same for every arm of this seed."""
        mean, std = self.stream().statistics()
        with seeded(self.seed):
            return ConvEncoder(SIZE, dim=DIM, mean=mean, std=std)

    def predictor(self) -> SequencePredictor:
        with seeded(self.seed + 1):
            return SequencePredictor(DIM)

    def decoder(self, width: int) -> PixelDecoder:
        with seeded(self.seed + 2):
            return PixelDecoder(DIM, size=SIZE, width=width)

    def vit(self) -> ViT:
        """The clip models' first weights, the same for every arm of this seed."""
        stream = self.stream()
        mean, std = stream.statistics()
        grid = (stream.num_frames // TUBELET, SIZE // PATCH, SIZE // PATCH)
        with seeded(self.seed):
            return ViT(
                grid,
                patch=(TUBELET, PATCH, PATCH),
                dim=WIDTH,
                depth=DEPTH,
                num_heads=NUM_HEADS,
                mean=mean,
                std=std,
            )

    def head(self, encoder: ViT, out_dim: int) -> MaskedPredictor:
        """The clip models' predictor or decoder: what it answers is up to `out_dim`."""
        with seeded(self.seed + 1):
            return MaskedPredictor(
                encoder.dim, out_dim, grid=encoder.grid, width=HEAD_WIDTH, depth=HEAD_DEPTH, num_heads=NUM_HEADS
            )

    def run(self, objective: Objective) -> Run:
        t = self.training
        return Run(
            objective=objective,
            stream=self.stream(),
            steps=t.steps,
            lr=t.lr,
            weight_decay=t.weight_decay,
            precision=t.precision,
            seed=self.seed,
        )


def expect_embedding_vicreg(bench: ExpectationBench, *, spread: float = 1.0) -> Run:
    """Expects the next frame's embedding; VICReg's terms keep embeddings apart (as Sobal et al. 2022).

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
    """
    weights = {"predict": 1.0, "variance": spread, "covariance": spread}
    return bench.run(VICRegJEPA(bench.encoder(), predictor=bench.predictor(), weights=weights))


def expect_embedding_sigreg(bench: ExpectationBench, *, sigreg: float = 0.1) -> Run:
    """Expects the next frame's embedding; SIGReg keeps embeddings apart (LeWorldModel, arXiv 2603.19312).

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
    """
    objective = SIGRegJEPA(
        bench.encoder(),
        predictor=bench.predictor(),
        weights={"predict": 1.0, "sigreg": sigreg},
        sigreg=SIGReg(seed=bench.seed),
    )
    return bench.run(objective)


def expect_embedding_ema(bench: ExpectationBench, *, momentum: float = 0.99) -> Run:
    """Expects the next frame's embedding of a slowly moving teacher (as I-JEPA, arXiv 2301.08243).

    Args:
        bench: what every arm shares.
        momentum: of the teacher after the first step; it rises to .9999.
    """
    return bench.run(EMAJEPA(bench.encoder(), predictor=bench.predictor(), momentum=momentum))


def expect_pixels(bench: ExpectationBench, *, width: int = 32) -> Run:
    """Expects the next frame's pixels, decoded from the predicted embedding.

    Args:
        bench: what every arm shares.
        width: channels of the decoder's cells.
    """
    return bench.run(NextFrame(bench.encoder(), predictor=bench.predictor(), decoder=bench.decoder(width)))


def expect_hidden_embedding(bench: ExpectationBench, *, momentum: float = 0.996) -> Run:
    """V-JEPA shown the past and asked for the future: embeddings of a teacher that sees the whole clip (2404.08471).

    Args:
        bench: what every arm shares.
        momentum: of the teacher after the first step; it rises to .9999.
    """
    encoder = bench.vit()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.head(encoder, encoder.dim),
        masks=DrawnPast(encoder.grid),
        teacher=EMATeacher(encoder, momentum=momentum),
        distance=mean_absolute,
        seed=bench.seed,
    )
    return bench.run(objective)


def expect_hidden_pixels(bench: ExpectationBench, *, target: Literal["pixels", "norm-pixels"] = "pixels") -> Run:
    """A masked auto-encoder shown the past and asked for the future's pixels (as VideoMAE, arXiv 2203.12602).

    Args:
        bench: what every arm shares.
        target: pixels as they are, or normalised patch by patch.
    """
    encoder = bench.vit()
    objective = MAE(
        encoder,
        decoder=bench.head(encoder, encoder.patch_dim),
        masks=DrawnPast(encoder.grid),
        target={"pixels": plain_pixels, "norm-pixels": norm_pixels}[target],
        seed=bench.seed,
    )
    return bench.run(objective)
