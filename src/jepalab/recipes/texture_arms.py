"""Every way to train a small ViT on textured shapes: what all arms share, and one function an arm.

All arms of one seed start from the same encoder weights and see the same pictures in the same order. Predictor,
decoder and head have the same width and depth, so no arm has a larger one than another.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.patch_heads import PatchHead, build_of_size
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.teachers import EMATeacher, OwnTeacher, Teacher
from jepalab.backbones.vit import ViT
from jepalab.data.folder import background_images
from jepalab.data.texture import SHAPES, TexturedShapes, Textures
from jepalab.dist import Precision, seeded
from jepalab.losses.denoising import PredictClean, Prediction, PredictNoise, PredictVelocity
from jepalab.losses.pixels import PixelTarget, norm_pixels, plain_pixels
from jepalab.losses.regularisers import Gaussianity, Regulariser, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.masks.blocks import Blocks
from jepalab.masks.causal import Prefix
from jepalab.masks.random import RandomMask
from jepalab.objectives.denoise import Denoise
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_patch import NextPatch
from jepalab.objectives.supervised import Supervised
from jepalab.objectives.untrained import Untrained
from jepalab.recipes.remembered import once_here
from jepalab.run import Run, count_parameters
from jepalab.types import Objective

SIZE, PATCH = 32, 4
GRID = (SIZE // PATCH, SIZE // PATCH)
DIM, DEPTH, NUM_HEADS = 64, 3, 4
HEAD_WIDTH, HEAD_DEPTH = 48, 2

TARGETS: dict[str, PixelTarget] = {"normalised": norm_pixels, "plain": plain_pixels}
PREDICTIONS: dict[str, Prediction] = {
    "noise": PredictNoise(),
    "velocity": PredictVelocity(),
    "clean": PredictClean(),
}


@dataclass(frozen=True)
class TexturedWorld:
    """One texture at one strength, over shapes.

    Args:
        kind: which texture; "image" takes pictures out of `background`.
        strength: standard deviation of the pixels it adds, to shapes of brightness 1 on 0.
        background: a folder of images for kind "image".
    """

    kind: Literal["none", "noise", "coherent", "local", "light", "image"] = "none"
    strength: float = 0.0
    background: Path | None = None

    def stream(self, seed: int, *, batch_size: int = 64) -> TexturedShapes:
        """Pictures of this world, a pure function of the seed."""
        images = _backgrounds(self.background) if self.kind == "image" and self.background else None
        strengths = {} if self.kind == "none" else {self.kind: self.strength}
        return TexturedShapes(
            textures=Textures(**strengths, images=images), seed=seed, size=SIZE, clips_per_batch=batch_size
        )


@once_here
def _backgrounds(folder: Path) -> Float[Tensor, "m h w"]:
    return background_images(folder, size=SIZE)


@dataclass(frozen=True)
class TextureTraining:
    """How long and how fast; the same fields for every arm.

    Args:
        steps: optimizer steps.
        batch_size: pictures in a step.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        precision: of matrix products; "auto" is bf16 where the device multiplies it, else fp32.
    """

    steps: int = 3000
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    precision: Precision = "auto"


@dataclass(frozen=True)
class TextureBench:
    """What every arm of a seed shares: the data, the encoder's first weights, the heads' budget, the schedule."""

    world: TexturedWorld = field(default_factory=TexturedWorld)
    training: TextureTraining = field(default_factory=TextureTraining)
    seed: int = 0

    def stream(self) -> TexturedShapes:
        return self.world.stream(self.seed, batch_size=self.training.batch_size)

    def encoder(self) -> ViT:
        """The same first weights for every arm of this seed, normalised by this world's pixels."""
        mean, std = self.stream().statistics()
        with seeded(self.seed):
            return ViT(GRID, patch=(PATCH, PATCH), dim=DIM, depth=DEPTH, num_heads=NUM_HEADS, mean=mean, std=std)

    def predictor(self, out_dim: int) -> MaskedPredictor:
        """I-JEPA's predictor, or MAE's decoder: what it answers is up to `out_dim`."""
        with seeded(self.seed + 1):
            return MaskedPredictor(DIM, out_dim, grid=GRID, width=HEAD_WIDTH, depth=HEAD_DEPTH, num_heads=NUM_HEADS)

    def run(self, objective: Objective) -> Run:
        """The run of this objective, which keeps an average of its weights."""
        t = self.training
        objective.keep_average()
        return Run(
            objective=objective,
            stream=self.stream(),
            steps=t.steps,
            lr=t.lr,
            weight_decay=t.weight_decay,
            warmup=0.1,
            precision=t.precision,
            seed=self.seed,
        )


def masked_jepa(
    of: TextureBench, *, teacher: Teacher | None, regulariser: Regulariser | None, weights: dict[str, float]
) -> Run:
    """I-JEPA's masks and predictor with these parts; without a teacher the targets are the encoder's own."""
    encoder = of.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=of.predictor(DIM),
        masks=Blocks(GRID),
        teacher=teacher or OwnTeacher(),
        regulariser=regulariser,
        weights=weights,
        seed=of.seed,
    )
    return of.run(objective)


def ema(of: TextureBench, *, momentum: float = 0.996) -> Run:
    """I-JEPA: embeddings of hidden blocks, of a slowly moving teacher that sees the whole picture (2301.08243)."""
    return masked_jepa(of, teacher=EMATeacher(of.encoder(), momentum=momentum), regulariser=None, weights={"ema": 1.0})


def variance(of: TextureBench, *, spread: float = 1.0) -> Run:
    """The same with VICReg's terms at each place instead of the teacher (2105.04906)."""
    weights = {"own": 1.0, "variance": spread, "covariance": spread}
    return masked_jepa(of, teacher=None, regulariser=VarianceCovariance(), weights=weights)


def gaussian(of: TextureBench, *, sigreg: float = 0.02) -> Run:
    """The same with SIGReg at each place instead of the teacher (2511.08544)."""
    regulariser = Gaussianity(SIGReg(num_directions=32, seed=of.seed))  # at each of 64 places
    return masked_jepa(of, teacher=None, regulariser=regulariser, weights={"own": 1.0, "sigreg": sigreg})


def mae(of: TextureBench, *, target: str = "normalised", masks: Literal["random", "blocks"] = "random") -> Run:
    """MAE: pixels of three hidden patches in four, by the head that predicts embeddings elsewhere (2111.06377).

    masks  random patches as published, or the blocks that `masked_jepa` hides.
    """
    encoder = of.encoder()
    decoder = of.predictor(encoder.patch_dim)
    sampler = RandomMask(GRID) if masks == "random" else Blocks(GRID)
    return of.run(MAE(encoder, decoder=decoder, masks=sampler, target=TARGETS[target], seed=of.seed))


def next_patch(of: TextureBench, *, target: str = "normalised") -> Run:
    """Autoregression: the pixels of the next patch, in raster order after a prefix (AIM, 2401.08541)."""
    encoder, budget = of.encoder(), count_parameters(of.predictor(DIM))
    with seeded(of.seed + 1):
        head = build_of_size(budget, lambda width: PatchHead(DIM, encoder.patch_dim, width=width, depth=HEAD_DEPTH))
    return of.run(NextPatch(encoder, head=head, prefix=Prefix(GRID), target=TARGETS[target], seed=of.seed))


def denoise(of: TextureBench, *, predict: str = "velocity") -> Run:
    """Denoising of the whole picture at every level of noise (2006.11239, 2209.03003)."""
    encoder = of.encoder()
    with seeded(of.seed + 1):
        decoder = DenoisingDecoder(
            DIM, encoder.patch_dim, grid=GRID, width=HEAD_WIDTH, depth=HEAD_DEPTH, num_heads=NUM_HEADS
        )
    return of.run(Denoise(encoder, decoder=decoder, predict=PREDICTIONS[predict], seed=of.seed))


def supervised(of: TextureBench, *, label: float = 1.0) -> Run:
    """Ceiling: class, number and position from labels; `label` weighs the first two against the position."""
    num_outputs = {"class": len(SHAPES), "count": 5, "position": 2}  # counts run from 1 to 4
    weights = {"class": label, "count": label, "position": 1.0}
    with seeded(of.seed + 1):
        return of.run(Supervised(of.encoder(), num_outputs=num_outputs, weights=weights))


def random_vit(of: TextureBench) -> Run:
    """Floor: the encoder as it was initialised."""
    return replace(of.run(Untrained(of.encoder())), steps=0)


def pixel_pca(of: TextureBench) -> Run:
    """Floor: the first principal components of raw pixels, as many as the encoder is wide."""
    stream, pca = of.stream(), PixelPCA(SIZE**2, dim=DIM)

    def prepare() -> None:
        pca.fit(stream.held_out("train", 2048).x)

    return replace(of.run(Untrained(pca)), steps=0, prepare=prepare)
