"""A run on still pictures, opened for a look: what its encoders say of its own pictures, and decoders of that."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.data.sample_stream import SampleStream
from jepalab.data.samples import Samples
from jepalab.data.sprites import Split
from jepalab.dist import autocast
from jepalab.instruments.image_pictures import NUM_KNOWN, NUM_VALIDATION, places
from jepalab.instruments.labelled import device_of, evaluating, read
from jepalab.instruments.posthoc import TokenDecoder, fit_decoder, pool, read_pixels, shrink
from jepalab.masks.drawing import MaskDrawer
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.types import Encoder, Mask, Objective
from jepalab.web.looking import Opened, open_run
from jepalab.web.looking_arguments import LARGEST_SIDE, one_of
from jepalab.web.tasks import Arguments, wanted

MOST_LOOKED_AT = 4
MOST_KNOWN_TOKENS = 65_536
TARGETS = "targets"  # what a masked JEPA predicts, beside the encoders that it hands over
_LOOKED_AT: OrderedDict[int, PictureRun] = OrderedDict()


class Known(NamedTuple):
    """What an encoder says of pictures of the run's own data, and those pictures.

    index  [m] places among the samples; z [m n d] tokens; x [m c h w] pixels in [0, 1].
    """

    index: Int[Tensor, " m"]
    z: Float[Tensor, "m n d"]
    x: Float[Tensor, "m c h w"]


@dataclass(eq=False)
class PictureRun:
    """A run on still pictures, and what was computed about it so far.

    side  of the pictures that it takes, in pixels.
    """

    opened: Opened
    samples: Samples
    side: int
    encoders: dict[str, Encoder]
    known: dict[tuple[str, Split], Known] = field(default_factory=dict)
    decoders: dict[tuple[str, bool], TokenDecoder] = field(default_factory=dict)

    @property
    def objective(self) -> Objective:
        return self.opened.run.objective

    @property
    def channels(self) -> int:
        return self.samples.channels

    def embed(self, which: str, x: Float[Tensor, "b 1 c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of pictures, by an encoder or as a masked JEPA's targets."""
        with evaluating(self.objective), torch.no_grad(), autocast(device_of(self.objective)):
            return self._function(which, x).float()

    def knows(self, which: str, split: Split) -> Known:
        """What this encoder says of pictures of a split, computed once."""
        if (which, split) not in self.known:
            num = NUM_VALIDATION if split == "validation" else NUM_KNOWN
            num_tokens = self.embed(which, torch.zeros(1, 1, self.channels, self.side, self.side)).shape[1]
            index = places(self.samples, split, max(2, min(num, MOST_KNOWN_TOKENS // num_tokens)))
            z = read(self.objective, self.samples, index, lambda x: self._function(which, x), size=self.side)
            self.known[which, split] = Known(index, z, read_pixels(self.samples, index, self.side))
        return self.known[which, split]

    def decoder(self, which: str, *, pooled: bool = False) -> TokenDecoder:
        """The decoder that draws pictures from these tokens, or from their mean, trained once on the run's own data."""
        if (which, pooled) not in self.decoders:
            train, checked = self.knows(which, "train"), self.knows(which, "validation")
            z, x, z_checked, x_checked = train.z, train.x, checked.z, checked.x
            if pooled:
                z, x, z_checked, x_checked = pool(z), shrink(x), pool(z_checked), shrink(x_checked)
            with torch.enable_grad():
                self.decoders[which, pooled] = fit_decoder(z, x, z_checked, x_checked)
        return self.decoders[which, pooled]

    def draw_mask(self, seed: int) -> Mask | None:
        """A mask for one picture as training draws it; None where nothing is hidden."""
        drawer = next((part for part in self.objective.children() if isinstance(part, MaskDrawer)), None)
        return None if drawer is None else drawer.sampler(1, torch.Generator().manual_seed(seed))

    def _function(self, which: str, x: Float[Tensor, "b 1 c h w"]) -> Float[Tensor, "b n d"]:
        objective = self.objective
        if which == TARGETS:
            assert isinstance(objective, MaskedJEPA)
            return objective.targets(objective.teacher(objective.patch_encoder, x))
        return self.encoders[which](x)


def picture_run(root: Path, name: str) -> PictureRun:
    """The run that the page calls `name`. ValueError if it is none, or one on something other than still pictures."""
    opened = open_run(root, name)
    if id(opened) in _LOOKED_AT and _LOOKED_AT[id(opened)].opened is opened:
        _LOOKED_AT.move_to_end(id(opened))
        return _LOOKED_AT[id(opened)]
    stream: object = opened.run.stream
    if not isinstance(stream, SampleStream) or len(stream.samples.sample_shape) != 4 or stream.samples.num_times != 1:
        raise ValueError(f"{name} was trained on {type(stream).__name__}, not on still pictures; choose another run.")
    samples, side = stream.samples, stream.size or stream.samples.sample_shape[-1]
    if side > LARGEST_SIDE or samples.channels not in {1, 3}:
        raise ValueError(f"This page shows pictures of {LARGEST_SIDE} pixels at most, grey or in colour, not {name}'s.")
    found = PictureRun(opened, samples, side, opened.run.objective.probed_encoders())
    _LOOKED_AT[id(opened)] = found
    while len(_LOOKED_AT) > MOST_LOOKED_AT:
        _LOOKED_AT.popitem(last=False)
    return found


def asked_run(arguments: Arguments, root: Path) -> tuple[PictureRun, str]:
    """The run that the arguments name, and which of its encoders; the first where they name none."""
    shown = picture_run(root, wanted(arguments, "run", str))
    return shown, one_of(arguments, "encoder", [*shown.encoders], default=next(iter(shown.encoders)))


def square(num_tokens: int) -> int | None:
    """Tokens along each side of a square grid; None where they make none, or there is one alone."""
    side = math.isqrt(num_tokens)
    return side if side > 1 and side**2 == num_tokens else None
