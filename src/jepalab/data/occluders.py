"""Clips of shapes that move as physics has it, behind occluders: what happens while nothing is seen must be known.

A miniature of IntPhys (Riochet et al. 2018, arXiv 1803.07616). It trains on what is possible alone; for tests there are
matched clips that are impossible, and others that are merely unusual.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.data.nuisance import Nuisance, Realisation
from jepalab.data.occluder_draws import LAST, MARGINS, Draws
from jepalab.data.occluder_pairs import CONCEPTS, LEGAL, quartets
from jepalab.data.occluder_scenes import MAX_SPEED, NUM_TEXTURES, RADII, SHAPES, SIZE, SOLID, Scenes, bounce, fall
from jepalab.data.sprites import SPLITS, Split
from jepalab.types import Batch

SPARE, LEAST_SPARE = 10, 100  # candidates for each clip, of which a fifth belongs to the smallest split
QUARTET_SPARE, LEAST_QUARTET_SPARE = 400, 4000  # likewise for each quartet, of which few fit into the frames
FRAMES = range(12, 17)  # in fewer, nothing comes out whole again; in more, shapes come back too soon


class Pairs(NamedTuple):
    """n pairs of clips that are the same up to a frame. Pairs 2 i and 2 i + 1 are one quartet, see `occluder_pairs`.

    possible    as physics has it.
    impossible  or unusual, if it is a legal change.
    frame       the first that differs, in the second half of the clip.
    lawful      what physics foretells: `possible`, but without a flicker of the light.
    inertial    what follows if everything moves on at constant velocity, through walls and without weight.
    """

    possible: Float[Tensor, "n t c h w"]
    impossible: Float[Tensor, "n t c h w"]
    frame: Int[Tensor, " n"]
    lawful: Float[Tensor, "n t c h w"]
    inertial: Float[Tensor, "n t c h w"]


@dataclass(frozen=True)
class OccludedShapes:
    """A stream of clips [b t 1 32 32] in [0, 1], nuisance on top: one or two shapes, black or white on grey.

    Shapes keep their velocity, and are thrown back by borders and by walls. Where a clip has a floor, at its lower or
    its upper edge, they have weight towards it. Nine clips of ten have a bar in front of everything, at rest or moving.
    A quarter has a background of stripes or checks. Two shapes never meet. A few clips of `batch` are without any.
    The factors of a batch, of the first shape:

    "position" [b t 2]  (x, y) in [-1, 1]; "velocity" [b t 2], its change to the next frame.
    "visible" [b t 1]   share of it that the bar leaves to be seen.
    "class" [b t]       index into SHAPES; "count" [b t], how many shapes there are.
    "nuisance" [b t 49] what was added, in 7 x 7 cells.

    There is no action. The splits differ in the columns in which the first shape starts: see `occluder_draws.owns`.

    gravity  of clips with a floor, in pixels a frame^2; 0 for none, anywhere.
    seed     of the data; with a split and a step it determines a batch, so a run can resume anywhere.
    """

    nuisance: Nuisance = field(default_factory=lambda: Nuisance(strength=0.0))
    gravity: float = 0.25
    seed: int = 0
    split: Split = "train"
    num_frames: int = 16
    clips_per_batch: int = 48

    def __post_init__(self) -> None:
        if self.num_frames not in FRAMES:
            raise ValueError(f"Wanted {FRAMES[0]} to {FRAMES[-1]} frames, got num_frames={self.num_frames}.")
        if not 0 <= self.gravity <= 1:
            raise ValueError(f"Gravity lies between 0 and 1 pixel a frame^2, got gravity={self.gravity}.")

    @property
    def frames_per_batch(self) -> int:
        return self.clips_per_batch * self.num_frames

    @property
    def num_classes(self) -> int:
        return len(SHAPES)

    @property
    def concepts(self) -> tuple[str, ...]:
        """What `pairs` can violate: all of CONCEPTS, gravity only if there is any."""
        return CONCEPTS if self.gravity else tuple(concept for concept in CONCEPTS if concept != "gravity")

    def batch(self, step: int) -> Batch:
        """The batch of this step, a pure function of (seed, split, step)."""
        return self._clips(self.clips_per_batch, "clips", step, empty_share=0.1)

    def held_out(self, split: Split, num_clips: int) -> Batch:
        """Another split's clips, with a shape in each."""
        return replace(self, split=split)._clips(num_clips, "held out", num_clips)

    def statistics(self, num_clips: int = 256) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, from clips that no step trains on."""
        x = replace(self, split="train")._clips(num_clips, "statistics", num_clips).x
        return float(x.mean()), float(x.std())

    def pairs(self, concept: str, split: Split, num: int) -> Pairs:
        """Possible and impossible clips, `num` of each, an even number, of a concept out of `concepts`.

        Both clips of a pair cost the same squared change from frame to frame, exactly as far as nothing is added; over
        a quartet the same holds under any nuisance, which is drawn once for all four. In "solidity" and "gravity" what
        is impossible depends on whether there is a wall, or where the floor is.
        """
        if concept not in self.concepts:
            raise ValueError(f"Wanted a concept out of {self.concepts}, got {concept!r} (gravity={self.gravity}).")
        return self._pairs(concept, split, num)

    def legal(self, kind: str, split: Split, num: int) -> Pairs:
        """Clips, and the same with a change that no law forbids: `kind` out of LEGAL.

        "background"  the texture of a strip changes while the bar is over it: costs nothing.
        "look"        a white shape comes out black from behind the bar, or the reverse: costs nothing.
        "flicker"     a band of light for one frame: costs as much as if the shape vanished for one frame.
        """
        if kind not in LEGAL:
            raise ValueError(f"Wanted a legal change out of {LEGAL}, got {kind!r}.")
        return self._pairs(kind, split, num)

    def blinks(self, split: Split, num: int) -> Pairs:
        """A flicker of the light, possible, against a shape that is gone for one frame: the same change in energy."""
        return self._pairs("blink", split, num)

    def _pairs(self, what: str, split: Split, num: int) -> Pairs:
        if num < 2 or num % 2:
            raise ValueError(f"Pairs come in twos, so give an even number of at least 2, got {num}.")
        stream = replace(self, split=split)
        found = quartets(what, stream._draws(num // 2, what, num, QUARTET_SPARE, LEAST_QUARTET_SPARE), self.gravity)
        frame = (found.plain != found.changed).flatten(3).any(3).flatten(0, 1).int().argmax(1)
        added = stream._realise(num // 2, stream._generator(f"nuisance of {what}", num)).added[:, None]
        plain, changed, lawful, inertial = ((part + added).flatten(0, 1).unsqueeze(2) for part in found)
        return Pairs(plain, changed, frame, lawful, inertial)

    def _clips(self, num_clips: int, purpose: str, number: int, *, empty_share: float = 0.0) -> Batch:
        draws = self._draws(num_clips, purpose, number, SPARE, LEAST_SPARE)
        # One frame more than is shown, for the last velocity.
        whole = _scenes(replace(draws, num_frames=self.num_frames + 1), self.gravity, empty_share)
        scenes = replace(whole, centre=whole.centre[:, :, :-1], bar=whole.bar[:, :-1])
        frames, visible = scenes.show()
        realised = self._realise(num_clips, self._generator(f"nuisance of {purpose}", number))
        place = whole.centre[:, 0] / (LAST / 2) - 1

        def each_frame(value: Tensor) -> Tensor:
            return value[:, None].expand(-1, self.num_frames).contiguous()

        factors = {
            "position": place[:, :-1],
            "velocity": place.diff(dim=1),
            "visible": visible.unsqueeze(-1),
            "class": each_frame(scenes.kind[:, 0]),
            "count": each_frame(scenes.present.sum(1)),
            "nuisance": realised.summary(),
        }
        return Batch(x=(frames + realised.added).unsqueeze(2), factors=factors)

    def _draws(self, num: int, purpose: str, number: int, spare: int, least: int) -> Draws:
        return Draws(
            num=num,
            num_candidates=spare * num + least,
            num_frames=self.num_frames,
            split=self.split,
            generator=self._generator(purpose, number),
        )

    def _realise(self, num: int, generator: torch.Generator) -> Realisation:
        return self.nuisance.realise(torch.zeros(num, self.num_frames - 1, 1), size=SIZE, generator=generator)

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        key = f"{purpose} {number} {self.seed} {SPLITS.index(self.split)}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))


def _scenes(draws: Draws, gravity: float, empty_share: float) -> Scenes:
    """Possible clips of every kind."""
    floor = draws.one_of(0, 0, 0, 0, 1, -1) * (gravity > 0)
    wall = torch.where(draws.chance(0.3), draws.ints(10, 20), draws.scenes().wall)
    speed = torch.where(draws.chance(0.5), draws.ints(-MAX_SPEED, MAX_SPEED), 0)
    bar_moves = speed != 0  # something does in almost every clip
    shapes = (_moving_shape(draws, wall, floor, gravity, bar_moves & draws.chance(0.4)) for _ in range(2))
    kind, radius, centre = zip(*shapes, strict=True)
    place = torch.stack(centre, 1)
    apart = (place[:, 0] - place[:, 1]).abs().amax(-1).amin(1)
    second = draws.chance(0.5) & (apart > radius[0] + radius[1] + MAX_SPEED)
    some = ~(bar_moves & draws.chance(empty_share))
    patterned = draws.chance(0.25)
    scenes = Scenes(
        centre=place,
        kind=torch.stack(kind, 1),
        radius=torch.stack(radius, 1),
        tone=torch.stack([draws.one_of(0.0, 1.0), draws.one_of(0.0, 1.0)], 1),
        present=torch.stack([some, second & some], 1),
        bar=draws.ints(6, LAST - 6)[:, None] + speed[:, None] * draws.time(draws.ints(3, draws.num_frames - 4)),
        bar_half=torch.where(draws.chance(0.9), draws.ints(5, 7), -1),
        bar_margin=draws.one_of(*MARGINS),
        bar_tone=draws.one_of(0.25, 0.75),
        wall=wall,
        floor=floor,
        solid_tone=draws.one_of(0.125, 0.875),
        texture=torch.where(patterned, draws.ints(1, NUM_TEXTURES - 1), 0),
        strip=draws.ints(4, LAST - 4),
        strip_half=torch.where(patterned & draws.chance(0.5), draws.ints(2, 4), -1),
        strip_texture=draws.ints(1, NUM_TEXTURES - 1),
    )
    _, (chosen,) = draws.choose(torch.ones_like(some), "a batch", scenes)
    return chosen


def _moving_shape(
    draws: Draws, wall: Tensor, floor: Tensor, gravity: float, rests: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Kind, radius, and column and row [m t 2], between the borders and on one side of the wall."""
    radius = draws.ints(RADII[0], RADII[-1])
    left, right = torch.zeros_like(wall), torch.full_like(wall, LAST)
    beyond, walled = draws.chance(0.5), wall >= 0
    left = torch.where(walled & beyond, wall + SOLID, left) + radius
    right = torch.where(walled & ~beyond, wall - 1, right) - radius
    top, bottom = radius, LAST - radius
    across, along = (torch.where(rests & (floor == 0), 0, draws.ints(-most, most)) for most in (MAX_SPEED, 2))
    time = draws.time(torch.zeros_like(wall))
    column = bounce(draws.ints(left, right), across, left, right, time)
    row = bounce(draws.ints(top, bottom), along, top, bottom, time)
    if gravity > 0:
        ground = bottom - SOLID
        fallen = fall(draws.ints(top, ground - 3), ground, draws.time(draws.ints(0, draws.num_frames - 1)), gravity)
        weighty = torch.where(floor[:, None] > 0, fallen, LAST - fallen)
        row = torch.where(floor[:, None] != 0, weighty, row)
    return draws.ints(0, len(SHAPES) - 1), radius, torch.stack([column, row], -1)
