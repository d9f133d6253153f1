"""Still images of plain shapes under four kinds of nuisance: every factor known, generated on the fly.

What a texture costs depends on who predicts it. Noise that is new at every pixel cannot be predicted by anybody; a
grating that covers the whole image follows from any part of it. So each kind has a dial of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.data.sprites import SPLITS, Split
from jepalab.types import Batch

SHAPES = ("disc", "square", "triangle", "cross", "ring")
FOLDS = (0, 4, 3, 4, 0)  # a turn by 1 / fold of a circle leaves the shape as it was; 0 for any turn at all
STRENGTHS = (0.0, 0.1, 0.25, 0.5, 1.0)
KINDS = ("noise", "coherent", "local", "light", "image")
CELL = 4  # pixels: a realisation is told as its average in 4 x 4 cells
PLACES, TURNS = 10, 5  # parts of each axis and of a shape's turn, of which the splits get different combinations
TRIES = 48

Draw = Callable[[str], torch.Generator]


@dataclass(frozen=True)
class Textures:
    """How strong each nuisance is: the standard deviation of the pixels it adds, 0 for none. They add up.

    noise     independent Gaussian pixels: unpredictable.
    coherent  one grating over the image, of any orientation and phase and 2 to 6 cycles: predictable from any part.
    local     a Gaussian field of correlation length 1 to 6 px (where the correlation falls to 1 / e).
    light     a ramp of brightness, in any direction.
    image     a crop out of `images` [m h w], floats in [0, 1], each brought to mean 0 and deviation 1.
    """

    noise: float = 0.0
    coherent: float = 0.0
    local: float = 0.0
    light: float = 0.0
    image: float = 0.0
    images: Float[Tensor, "m h w"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        strengths = {kind: getattr(self, kind) for kind in KINDS}
        if not all(0 <= strength < math.inf for strength in strengths.values()):
            raise ValueError(f"Strengths are 0 or more (the experiments take {STRENGTHS}), got {strengths}.")
        if (self.image > 0) != (self.images is not None):
            raise ValueError("Give `images` [m h w] together with image=STRENGTH above 0, and only then.")

    def realise(self, num: int, *, size: int, split: Split, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to `num` images [b h w], and the factors [b f] of the kinds that are switched on.

        draw  the generator of a kind, so that no kind's draws depend on which others are switched on.
        """
        added, factors = torch.zeros(num, size, size), {}
        for kind in KINDS:
            strength = getattr(self, kind)
            if strength == 0:
                continue
            made = self._crops(num, size, split, draw(kind)) if kind == "image" else MADE[kind](num, size, draw(kind))
            unit, found = made
            added += strength * unit
            factors |= found
        return added, factors

    def _crops(self, num: int, size: int, split: Split, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.images is not None
        num_images, height, width = self.images.shape
        if num_images < TURNS or min(height, width) < size:
            wanted = f"at least {TURNS} images of {size} x {size} or more as texture"
            raise ValueError(f"Wanted {wanted}, got {num_images} of {height} x {width}.")
        mine = torch.arange(num_images)
        mine = mine[torch.isin(mine % TURNS, torch.tensor(RESIDUES[split]))]
        index = mine[torch.randint(len(mine), (num,), generator=generator)]
        top, left = (
            (torch.rand(num, generator=generator) * (side - size + 1)).long()[:, None] + torch.arange(size)
            for side in (height, width)
        )
        crop = self.images[index[:, None, None], top[:, :, None], left[:, None, :]].float()
        crop = crop - crop.mean((1, 2), keepdim=True)
        unit = crop / crop.std((1, 2), correction=0, keepdim=True).clamp_min(0.02)  # an even wall stays one
        return unit, {"image": cells(unit)}


# Of the five residues of a combination, see `TexturedShapes`.
RESIDUES: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}


def cells(picture: Float[Tensor, "b h w"]) -> Float[Tensor, "b f"]:
    """Its averages in cells of 4 x 4 pixels: 64 numbers of 32 x 32 pixels, 36 of 24 x 24."""
    return F.avg_pool2d(picture.unsqueeze(1), CELL).flatten(1)


@dataclass(frozen=True)
class TexturedShapes:
    """A stream of images [b 1 1 size size]: one to four equal shapes of brightness 1 on 0, and textures added to that.

    Nothing is clipped, so the added picture can be told exactly. All shapes have the same area at equal scale, so
    brightness does not tell the class. The factors of a batch:

    "class" [b 1]       index into SHAPES.
    "position" [b 1 2]  (x, y) in [-1, 1]; the mean over the shapes where there are several.
    "count" [b 1]       1 to `max_count`.
    "scale" [b 1 1]     radius of the disc of equal area, in pixels at size 32.
    "angle" [b 1 2]     sine and cosine of the turn, times the shape's symmetry; zero for discs and rings.
    "nuisance" [b 1 f]  all that was added, in cells of 4 x 4 pixels.

    and of each texture that is switched on: "noise" [b 1 f], "local" [b 1 f] and "image" [b 1 f], its realisation in
    the same cells at strength 1; "local_length" [b 1 1], log of its correlation length in pixels; "coherent" [b 1 3],
    sine and cosine of twice the orientation, log of the cycles over the image; "coherent_phase" [b 1 2], sine and
    cosine; "light" [b 1 2], slope times (cosine, sine) of its direction.

    The splits differ in combination of class, place of the first shape (10 x 10 places) and turn (5 parts; discs and
    rings have one): of x + 2 y + 2 class + turn modulo 5, training has 0, 1 and 2, validation 3 and test 4. So every
    class, place and turn occurs in each split equally often, and no combination in two.

    seed  of the data; with a split and a step it determines a batch, so a run can resume anywhere.
    """

    textures: Textures = field(default_factory=Textures)
    seed: int = 0
    split: Split = "train"
    clips_per_batch: int = 128
    size: int = 32
    max_count: int = 4

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % CELL:
            raise ValueError(f"Images are a multiple of {CELL} and at least 16 pixels wide, got size={self.size}.")
        if not 1 <= self.max_count <= 4:
            raise ValueError(f"One to four shapes fit an image, got max_count={self.max_count}.")

    @property
    def frames_per_batch(self) -> int:
        return self.clips_per_batch

    @property
    def num_classes(self) -> int:
        return len(SHAPES)

    def batch(self, step: int) -> Batch:
        """The batch of this step, a pure function of (seed, split, step)."""
        return self._images(self.clips_per_batch, "step", step)

    def held_out(self, split: Split, num_clips: int) -> Batch:
        """The same world on another split: other combinations of factors, other draws of every texture."""
        return replace(self, split=split)._images(num_clips, "held out", num_clips)

    def statistics(self, num_clips: int = 1024) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, from images that no step trains on."""
        x = replace(self, split="train")._images(num_clips, "statistics", num_clips).x
        return float(x.mean()), float(x.std())

    def _images(self, num: int, purpose: str, number: int) -> Batch:
        def draw(what: str) -> torch.Generator:
            key = f"{what} {purpose} {number} {self.seed} {SPLITS.index(self.split)}".encode()
            return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))

        x, factors = self._shapes(num, draw("shapes"))
        added, nuisances = self.textures.realise(num, size=self.size, split=self.split, draw=draw)
        factors |= nuisances | {"nuisance": cells(added)}
        return Batch(x=(x + added)[:, None, None], factors={name: value[:, None] for name, value in factors.items()})

    def _shapes(self, num: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        kind = torch.randint(len(SHAPES), (num,), generator=generator)
        count = torch.randint(1, self.max_count + 1, (num,), generator=generator)
        radius = 2.2 + torch.rand(num, generator=generator)  # pixels at size 32
        first, turn = self._combination(kind, generator)
        unit = self.size / 32
        reach = (32 - 1) / 2 - 1.56 * 3.2  # a triangle of the largest scale stays on the canvas
        # Nearer than this, two triangles of the same turn could meet; the other shapes are rounder.
        position = _scatter(first, self.max_count, (2.7 * radius + 1) / reach, generator)
        exists = torch.arange(self.max_count) < count[:, None]
        image, _ = exists.nonzero(as_tuple=True)
        fold = torch.tensor(FOLDS)[kind]
        angle = 2 * math.pi * turn / fold.clamp_min(1)
        centre = (self.size - 1) / 2 + position[exists] * reach * unit
        covered = _cover(kind[image], centre, angle[image], radius[image] * unit, self.size)
        x = torch.zeros(num, self.size, self.size).index_add_(0, image, covered).clamp_(max=1)
        told = torch.stack([(2 * math.pi * turn).sin(), (2 * math.pi * turn).cos()], 1).where(fold[:, None] > 0, 0.0)
        mean = (position * exists[..., None]).sum(1) / count[:, None]
        return x, {"class": kind, "position": mean, "count": count, "scale": radius[:, None], "angle": told}

    def _combination(self, kind: Int[Tensor, " b"], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [b 2] in [-1, 1] and turns [b] in [0, 1), uniform over the combinations of this split."""
        num, residues = len(kind), torch.tensor(RESIDUES[self.split])
        turn = torch.randint(TURNS, (num,), generator=generator)
        row = torch.randint(PLACES, (num,), generator=generator)
        residue = residues[torch.randint(len(residues), (num,), generator=generator)]
        counted = turn * (torch.tensor(FOLDS)[kind] > 0)
        column = (residue - 2 * row - 2 * kind - counted) % TURNS
        column += TURNS * torch.randint(PLACES // TURNS, (num,), generator=generator)
        place = (torch.stack([column, row], 1) + torch.rand(num, 2, generator=generator)) / PLACES
        return 2 * place - 1, (turn + torch.rand(num, generator=generator)) / TURNS


def _scatter(
    first: Float[Tensor, "b 2"], num: int, apart: Float[Tensor, " b"], generator: torch.Generator
) -> Float[Tensor, "b k 2"]:
    """`num` places in [-1, 1]: the first as given, each further one the first of its tries that is `apart` from all.

    Where none is, the try that is farthest from its nearest neighbour.
    """
    placed = first[:, None]
    for _ in range(num - 1):
        tries = torch.rand(len(first), TRIES, 2, generator=generator) * 2 - 1
        distance = (tries[:, :, None] - placed[:, None]).square().sum(-1).amin(-1)
        best = distance.minimum(apart.square()[:, None]).argmax(1)  # argmax takes the first of equals
        placed = torch.cat([placed, tries[torch.arange(len(first)), best][:, None]], 1)
    return placed


def _cover(
    kind: Int[Tensor, " n"],
    centre: Float[Tensor, "n 2"],
    angle: Float[Tensor, " n"],
    radius: Float[Tensor, " n"],
    size: int,
) -> Float[Tensor, "n size size"]:
    """How much of each pixel a shape covers, by its signed distance to the shape's edge; each has area pi radius^2."""
    canvas = torch.arange(size)
    covered = torch.empty(len(kind), size, size)
    for number, name in enumerate(SHAPES):
        chosen = (kind == number).nonzero().flatten()
        x, y = (canvas - centre[chosen, 0, None])[:, None, :], (canvas - centre[chosen, 1, None])[:, :, None]
        cos, sin = angle[chosen].cos()[:, None, None], angle[chosen].sin()[:, None, None]
        r = radius[chosen][:, None, None]
        u, v = cos * x + sin * y, cos * y - sin * x
        if name == "disc":
            inside = r - (u.square() + v.square()).sqrt_()
        elif name == "ring":  # twice as wide as its hole
            outer = r * math.sqrt(4 / 3)
            inside = outer / 4 - ((u.square() + v.square()).sqrt_() - 0.75 * outer).abs_()
        elif name == "square":
            inside = r * math.sqrt(math.pi) / 2 - torch.maximum(u.abs_(), v.abs_())
        elif name == "cross":  # of bars three times as long as wide
            arm = r * math.sqrt(9 * math.pi / 5) / 2
            u, v = u.abs_(), v.abs_()
            inside = torch.minimum(arm - torch.maximum(u, v), arm / 3 - torch.minimum(u, v))
        else:
            flat = r * math.sqrt(math.pi / math.sqrt(27))  # from the centre to a side
            slant = math.sqrt(0.75) * v.abs_() - u / 2
            inside = flat - torch.maximum(u, slant)
        covered[chosen] = inside.add_(0.5).clamp_(0, 1)
    return covered


def _noise(num: int, size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    unit = torch.randn(num, size, size, generator=generator)
    return unit, {"noise": cells(unit)}


def _grating(num: int, size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    share = torch.rand(num, 3, generator=generator)
    angle = math.pi * (share[:, 0] - 0.5)
    log_cycles = math.log(2) + math.log(3) * share[:, 1]
    phase = 2 * math.pi * share[:, 2]
    wave = 2 * math.pi * log_cycles.exp()
    axis = (torch.arange(size) - (size - 1) / 2) / size
    along_x, along_y = (wave * angle.cos())[:, None, None] * axis, (wave * angle.sin())[:, None, None] * axis[:, None]
    unit = math.sqrt(2) * (along_x + (along_y + phase[:, None, None])).sin_()
    told = {
        "coherent": torch.stack([(2 * angle).sin(), (2 * angle).cos(), log_cycles], 1),
        "coherent_phase": torch.stack([phase.sin(), phase.cos()], 1),
    }
    return unit, told


def _local(num: int, size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Of covariance exp(-d^2 / length^2) at distance d, made separably: L z L' with L L' the covariance of a row."""
    length = torch.exp(math.log(6) * torch.rand(num, generator=generator))
    white = torch.randn(num, size, size, generator=generator)
    apart = (torch.arange(size) - torch.arange(size)[:, None]).double()
    covariance = torch.exp(-(apart / length[:, None, None].double()).square())
    covariance = (covariance + 1e-6 * torch.eye(size)) / (1 + 1e-6)  # a long smooth field is near singular
    factor = torch.linalg.cholesky(covariance).float()
    unit = factor @ white @ factor.mT
    return unit, {"local": cells(unit), "local_length": length.log()[:, None]}


def _ramp(num: int, size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    share = torch.rand(num, 2, generator=generator)
    slope, angle = (0.5 + share[:, 0]) * math.sqrt(12 / 13), 2 * math.pi * share[:, 1]  # mean square 1
    axis = torch.arange(size) - (size - 1) / 2
    axis = axis / axis.std(correction=0)
    push = torch.stack([slope * angle.cos(), slope * angle.sin()], 1)
    return push[:, 0, None, None] * axis + push[:, 1, None, None] * axis[:, None], {"light": push}


MADE = {"noise": _noise, "coherent": _grating, "local": _local, "light": _ramp}
