"""What every arm on clips of a moving object shares: the world, the training settings, the first weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.frames import FrameDifferences, FramesAsPatches
from jepalab.backbones.inverse import InverseHead
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.patch_heads import build_of_size
from jepalab.backbones.predictor import SequencePredictor
from jepalab.data.folder import background_images, folder_sprites
from jepalab.data.moving import MovingObject
from jepalab.data.nuisance import Coherence, Nuisance
from jepalab.data.sprites import Sprites, digits, dot
from jepalab.dist import Precision, seeded
from jepalab.recipes.remembered import once_here
from jepalab.run import Run, count_parameters
from jepalab.types import Objective

# Less room than the nuisance's 49 cells need: an encoder has to choose what it keeps.
DIM = 16
SIZE = 28
NUM_ACTIONS = 2
NUM_FOR_STATISTICS = 256


@dataclass(frozen=True)
class World:
    """What moves, and what is in the way.

    Args:
        thing: "digits" (1,797 real handwritten digits), "dot" (a Gaussian), or a folder of images.
        strength: of the nuisance: it adds values in [0, strength] to pixels in [0, 1]; 0 for none.
        persistence: 0: new at every frame; 1: fixed for the clip.
        coherence: each pixel on its own, 7 x 7 cells, one grating, or a picture out of `background`.
        share: of the frame's area that the nuisance covers.
        driver: what moves the nuisance between frames.
        background: a folder of at least five images for coherence "image"; no two splits share one.
    """

    thing: str = "digits"
    strength: float = 1.0
    persistence: float = 0.0
    coherence: Coherence = "patch"
    share: float = 1.0
    driver: Literal["chance", "action"] = "chance"
    background: Path | None = None

    def stream(self, seed: int) -> MovingObject:
        """Clips of this world, a pure function of the seed."""
        nuisance = Nuisance(
            strength=self.strength,
            persistence=self.persistence,
            coherence="image" if self.background else self.coherence,
            share=self.share,
            driver=self.driver,
            images=_backgrounds(self.background) if self.background else None,
        )
        return MovingObject(sprites=_sprites(self.thing), nuisance=nuisance, seed=seed)


@once_here
def _sprites(thing: str) -> Sprites:
    known = {"digits": digits, "dot": dot}
    return known[thing]() if thing in known else folder_sprites(Path(thing))


@once_here
def _backgrounds(folder: Path) -> Float[Tensor, "m h w"]:
    return background_images(folder, size=SIZE)


@dataclass(frozen=True)
class Training:
    """How long and how fast; the same fields for every arm.

    Args:
        steps: optimizer steps of 48 clips x 6 frames.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        precision: of matrix products; "auto" is bf16 where the device multiplies it, else fp32.
    """

    steps: int = 500
    lr: float = 2e-3
    weight_decay: float = 1e-4
    precision: Precision = "auto"


@dataclass(frozen=True)
class Bench:
    """What every arm of a seed shares: the data, the encoder's first weights, the training settings.

    Args:
        world: what moves, and what is in the way.
        training: how long and how fast.
        seed: of the data and of the weights.
    """

    world: World = field(default_factory=World)
    training: Training = field(default_factory=Training)
    seed: int = 0

    def stream(self) -> MovingObject:
        return self.world.stream(self.seed)

    def encoder(self) -> ConvEncoder:
        """The same first weights for every arm of this seed, normalised by this world's pixels."""
        mean, std = self.stream().statistics()
        with seeded(self.seed):
            return ConvEncoder(dim=DIM, mean=mean, std=std)

    def frames(self) -> FramesAsPatches:
        """The same first weights once more, in an encoder whose frames can be hidden."""
        stream = self.stream()
        mean, std = stream.statistics()
        with seeded(self.seed):
            return FramesAsPatches(stream.num_frames, dim=DIM, mean=mean, std=std)

    def differences(self) -> FrameDifferences:
        """The same first weights once more, in an encoder of frame differences, normalised by those."""
        change = self.stream().held_out("train", NUM_FOR_STATISTICS).x.diff(dim=1)
        with seeded(self.seed):
            return FrameDifferences(dim=DIM, std=float(change.std()))

    def masked_predictor(self) -> MaskedPredictor:
        """For hidden frames, with about as many parameters as `predictor`."""
        budget, frames = count_parameters(self.predictor()), self.frames()
        with seeded(self.seed + 1):
            return build_of_size(
                budget,
                lambda width: MaskedPredictor(DIM, DIM, grid=frames.grid, width=width, depth=2, num_heads=2),
            )

    def predictor(self, width: int = 128) -> SequencePredictor:
        with seeded(self.seed + 1):
            return SequencePredictor(DIM, num_actions=NUM_ACTIONS, width=width)

    def decoder(self, width: int = 32) -> PixelDecoder:
        with seeded(self.seed + 2):
            return PixelDecoder(DIM, width=width)

    def inverse(self, width: int = 128) -> InverseHead:
        with seeded(self.seed + 3):
            return InverseHead(DIM, num_actions=NUM_ACTIONS, width=width)

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
