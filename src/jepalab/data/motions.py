"""A benchmark of motion classes: real pictures move over real pictures, and only their motion tells the class.

The sixteen classes, and why single frames say nothing about them, are in `motion_paths`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from jepalab.data.clips import Clips
from jepalab.data.image_cache import Progress, default_cache
from jepalab.data.images import Images
from jepalab.data.made_clips import Chunk, Making, made_clips
from jepalab.data.motion_drawing import draw_backgrounds, draw_objects, shrink_to_discs
from jepalab.data.motion_paths import MOTIONS, NUM_UNIFORMS, Dice, Tracks, follow
from jepalab.data.nuisance import Nuisance
from jepalab.data.sprites import SPLITS, Split, digits

# Part of every key: raise it when clips come out differently.
VERSION = 1
CHUNK = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Motions:
    """A world in which clips of sixteen classes are made, each a pure function of the settings, its split and index.

    Every clip shows two objects, soft discs cut out of pictures, over a third picture. Clip i of a split is of class
    i modulo 16. A mirror image of "right" is "left", and so with spins and orbits: train without flips.

    images       what the objects are cut out of: each split's out of that split's pictures, so none is in two.
    backgrounds  what they move over; None takes `images`.
    nuisance     added to every frame, which is then divided by 1 + strength, so that nothing is clipped: flicker of
                 any persistence, alike for all classes.
    drift        the farthest that the background moves in a clip along an axis, in frame widths, independently of the
                 objects; 0 holds it still.
    num_frames   of a clip. More of them are finer in time; the whole motion stays as long.
    size         of a frame, in pixels.
    seed         of motions, of what is shown, and of the nuisance.
    """

    images: Images
    backgrounds: Images | None = None
    nuisance: Nuisance = field(default_factory=lambda: Nuisance(strength=0.0))
    drift: float = 0.0
    num_frames: int = 8
    size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_frames < 4 or self.size < 16:
            raise ValueError(
                "Wanted at least 4 frames, else a bounce or an acceleration cannot be seen, of at least 16 pixels, got "
                f"num_frames={self.num_frames}, size={self.size}."
            )
        if not 0 <= self.drift <= 1:
            raise ValueError(f"The background drifts by 0 to 1 frame widths in a clip, got drift={self.drift}.")
        if self.nuisance.coherence == "image" or self.nuisance.driver == "action":
            raise ValueError(
                'Backgrounds are pictures already, and there are no actions: take a nuisance of coherence "pixel", '
                f'"patch" or "texture" and driver "chance", got {self.nuisance.coherence!r} and '
                f"{self.nuisance.driver!r}."
            )

    @property
    def scenes(self) -> Images:
        """What objects move over."""
        return self.backgrounds or self.images

    @property
    def channels(self) -> int:
        """1 where objects and backgrounds are all grey, else 3."""
        return max(self.images.channels, self.scenes.channels)

    @property
    def key(self) -> str:
        """Every setting and the pictures' content, as words: equal for worlds that make equal clips."""
        pictures = [(found.digest, _sha256(found.splits.numpy().tobytes())) for found in (self.images, self.scenes)]
        settings = (self.nuisance, self.drift, self.num_frames, self.size, self.seed, tuple(MOTIONS))
        return f"motions {VERSION} {settings} {pictures}"

    def labels(self, index: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
        """The class of each clip."""
        return index % len(MOTIONS)

    def tracks(self, split: Split, index: Int[Tensor, " m"]) -> Tracks:
        """Where the objects of these clips are in each frame."""
        uniforms = self._uniforms(split, index)[:, :NUM_UNIFORMS]
        return follow(self.labels(index), Dice.cast(uniforms), num_frames=self.num_frames)

    def shown(self, split: Split, index: Int[Tensor, " m"]) -> tuple[Int[Tensor, "m 2"], Int[Tensor, " m"]]:
        """Which of `images` the two objects are, the upper one last, and which of `backgrounds` is behind them."""
        places = self._uniforms(split, index)[:, NUM_UNIFORMS : NUM_UNIFORMS + 3]
        objects, scenes = self._members[split]
        return objects[(places[:, :2] * len(objects)).long()], scenes[(places[:, 2] * len(scenes)).long()]

    def clips(self, split: Split, index: Int[Tensor, " m"]) -> UInt8[Tensor, "m t h w c"]:
        """These clips of a split, as bytes."""
        objects, scenes = self.shown(split, index)
        cut = _in_channels(self.images, objects.flatten(), self.channels).unflatten(0, (-1, 2))
        behind = draw_backgrounds(
            _in_channels(self.scenes, scenes, self.channels),
            self._uniforms(split, index)[:, -4:],
            num_frames=self.num_frames,
            size=self.size,
            drift=self.drift,
        )
        frames = draw_objects(behind, shrink_to_discs(cut, size=self.size), self.tracks(split, index))
        if self.nuisance.strength:
            frames = (frames + self._flicker(split, index).unsqueeze(1)) / (1 + self.nuisance.strength)
        return (frames * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1)

    @cached_property
    def _members(self) -> Mapping[Split, tuple[Int[Tensor, " n"], Int[Tensor, " k"]]]:
        members = {split: (self.images.indices(split), self.scenes.indices(split)) for split in SPLITS}
        empty = [split for split in SPLITS if not all(len(found) for found in members[split])]
        if empty:
            raise ValueError(
                f"Wanted pictures in the train, validation and test split of {self.images.source} and "
                f"{self.scenes.source}, got none in {', '.join(empty)}; use more pictures."
            )
        return members

    def _uniforms(self, split: Split, index: Int[Tensor, " m"]) -> Float[Tensor, "m f"]:
        """A clip's numbers come from a generator of its own, so it does not depend on which others are made."""
        num = NUM_UNIFORMS + 3 + 4
        # In double precision, a uniform number times a count of pictures is never the count itself.
        rows = [torch.rand(num, dtype=torch.float64, generator=self._generator("clip", split, i)) for i in index]
        return torch.stack(rows)

    def _flicker(self, split: Split, index: Int[Tensor, " m"]) -> Float[Tensor, "m t h w"]:
        still = torch.zeros(1, self.num_frames - 1, 1)
        generators = [self._generator("nuisance", split, i) for i in index]
        return torch.cat([self.nuisance.realise(still, size=self.size, generator=one).added for one in generators])

    def _generator(self, purpose: str, split: Split, index: Tensor) -> torch.Generator:
        key = f"{purpose} {int(index)} {split} {self.seed}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))


def motion_clips(
    images: Images | None = None,
    *,
    backgrounds: Images | None = None,
    nuisance: Nuisance | None = None,
    drift: float = 0.0,
    num_train: int = 6000,
    num_validation: int = 1008,
    num_test: int = 2000,
    num_frames: int = 8,
    size: int = 32,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Clips:
    """The motion benchmark as clips with classes and splits: made once, then read from a memory map.

    images       what objects are cut out of; by default the handwriting that the library brings.
    num_train    clips of the train split; multiples of 16 give every class equally many, other counts differ by one.
    cache        where made clips are kept; by default $JEPALAB_CACHE or .cache/jepalab in your home.
    progress     called with the number of clips made and the total.

    The other arguments are those of `Motions`. Train on it without flips: `SampleStream(clips, augmentation=None)` or
    `augmentation=Crop(flip=0.0)`.

    Raises:
        ValueError: a setting out of range, or a split without pictures.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    counts = (num_train, num_validation, num_test)
    if min(counts) < 1:
        raise ValueError(f"Wanted at least 1 clip in every split, got {dict(zip(SPLITS, counts, strict=True))}.")
    world = Motions(
        images=images or handwriting(),
        backgrounds=backgrounds,
        nuisance=nuisance or Nuisance(strength=0.0),
        drift=drift,
        num_frames=num_frames,
        size=size,
        seed=seed,
    )
    labels = torch.cat([world.labels(torch.arange(num)) for num in counts])
    made = made_clips(
        f"{counts} {world.key}",
        shape=(sum(counts), num_frames, size, size, world.channels),
        make=partial(_making, world, counts),
        cache=cache or default_cache(),
        progress=progress,
    )
    named = world.images.source if backgrounds is None else f"{world.images.source} over {backgrounds.source}"
    return Clips(
        pixels=made.pixels,
        labels=labels,
        names=list(MOTIONS),
        splits=torch.arange(3, dtype=torch.int8).repeat_interleave(torch.tensor(counts)),
        skipped={},
        digest=_sha256(made.sha256.encode() + labels.numpy().astype("<i8").tobytes()),
        source=f"motions of {named}",
    )


def handwriting() -> Images:
    """The 1,797 handwritten digits that the library brings (see `sprites.digits`), as pictures of 8 x 8 pixels."""
    sprites = digits()
    pixels = (sprites.images * 255).round().to(torch.uint8).unsqueeze(-1).numpy()
    return Images(
        pixels=pixels,
        labels=sprites.classes,
        names=[str(digit) for digit in range(sprites.num_classes)],
        splits=sprites.split.to(torch.int8),
        skipped={},
        digest=_sha256(pixels.tobytes() + sprites.classes.numpy().astype("<i8").tobytes()),
        source="handwritten digits",
    )


def _in_channels(images: Images, index: Int[Tensor, " m"], channels: int) -> Float[Tensor, "m c h w"]:
    return images.as_floats(images.read(index))[:, 0].expand(-1, channels, -1, -1)


def _making(world: Motions, counts: tuple[int, ...]) -> Making:
    rows = zip(SPLITS, counts, strict=True)
    parts = ((split, index) for split, num in rows for index in torch.arange(num).split(CHUNK))
    return Making((Chunk(world.clips(split, index).numpy()) for split, index in parts), facts={})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
