"""Clips of a moving object under any nuisance, and what frozen encoders and floors hold of its state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.pca import PixelPCA
from jepalab.data.moving import MovingObject
from jepalab.data.sprites import Split
from jepalab.dist import seeded
from jepalab.hub.encoders import CONFIG, WEIGHTS, load_encoder
from jepalab.hub.runs import FOLDER, NAMES
from jepalab.instruments.features import features
from jepalab.instruments.state import state
from jepalab.objectives.untrained import Untrained
from jepalab.recipes.bench import DIM, SIZE
from jepalab.types import Batch, Encoder, Subject
from jepalab.web.opening_runs import below, in_words
from jepalab.web.shelf import read_json

NUM_CLIPS: dict[Split, int] = {"train": 256, "validation": 96, "test": 160}  # few, since a dial is to answer soon
NUM_FITTED = 128  # clips that the floor of principal components is fitted to
MOST_LOADED = 128
RANDOM, PCA = "random encoder", "pixel PCA"
_LOADED: OrderedDict[tuple[str, int], Encoder] = OrderedDict()


@dataclass(frozen=True)
class Reading:
    """What can be read from an encoder's embeddings of these clips; R2 on test clips.

    nuisance  None where nothing is added to the picture.
    """

    state: float
    position: float
    velocity: float
    nuisance: float | None
    classes: float | None


@dataclass(frozen=True)
class Clips:
    """Held-out clips of one world, drawn once for every encoder."""

    stream: MovingObject
    batches: dict[Split, Batch]

    @classmethod
    def of(cls, stream: MovingObject) -> Clips:
        return cls(stream, {split: stream.held_out(split, num) for split, num in NUM_CLIPS.items()})

    def read(self, encoder: Encoder) -> Reading:
        """Fits the read-outs anew on this world's training clips; the encoder stays as it is."""
        parts = {split: features(encoder, batch) for split, batch in self.batches.items()}
        scores = state(Subject(Untrained(encoder), parts["train"], parts["validation"], parts["test"]))
        return Reading(
            state=scores["state_r2"],
            position=scores["position_r2"],
            velocity=scores["velocity_r2"],
            nuisance=scores.get("nuisance_r2"),
            classes=scores.get("class_linear"),
        )

    def floors(self) -> Iterator[tuple[str, Encoder]]:
        """What needs no training: an encoder as it is initialised, and principal components of this world's pixels."""
        mean, std = self.stream.statistics()
        with seeded(0):
            yield RANDOM, ConvEncoder(dim=DIM, mean=mean, std=std).eval().requires_grad_(False)
        components = PixelPCA(SIZE**2, dim=DIM)
        components.fit(self.batches["train"].x[:NUM_FITTED])
        yield PCA, components


def load_moving(root: Path, name: str) -> Encoder:
    """The first saved encoder of the run that the page calls `name`, if it reads grey frames of a moving object.

    ValueError where it is none of those, or lies elsewhere.
    """
    with in_words(name):
        folder = _first_encoder(root, name)
        key = (str(folder), (folder / WEIGHTS).stat().st_mtime_ns)
        if key not in _LOADED:
            try:
                encoder = load_encoder(folder)
            except ValueError as problem:  # is told without its place on this machine
                raise ValueError(str(problem).replace(str(folder), f"{name}/{FOLDER}/{folder.name}")) from problem
            except (TypeError, ArithmeticError, LookupError, AttributeError, AssertionError, RuntimeError) as problem:
                raise ValueError(f"The saved encoder of {name} is damaged; train it again.") from problem
            _check_reads_frames(encoder, name)
            _LOADED[key] = encoder
            while len(_LOADED) > MOST_LOADED:
                _LOADED.popitem(last=False)
    _LOADED.move_to_end(key)
    return _LOADED[key]


def _first_encoder(root: Path, name: str) -> Path:
    """The folder of the encoder that the run reports first; it and its files lie in the run's own folder."""
    listing = below(root, name, FOLDER, NAMES)
    if not listing.is_file():
        raise ValueError(f"{name[:80]} holds no saved encoder; they are written when training ends.")
    names = read_json(listing).get("names")
    first = names[0] if isinstance(names, list) and names else None
    if not isinstance(first, str) or below(root, name, FOLDER, first).parent != listing.parent:
        raise ValueError(f"{name} does not say by name which encoders it holds; train it again.")
    for file in (CONFIG, WEIGHTS):
        if not below(root, name, FOLDER, first, file).is_file():
            raise ValueError(f"The saved encoder of {name} has lost its {file}.")
    return listing.parent / first


def preview(stream: MovingObject, num_frames: int) -> Batch:
    """One clip of this world that goes on for longer than those that encoders are judged on."""
    return replace(stream, num_frames=num_frames).held_out("test", 1)


def _check_reads_frames(encoder: Encoder, name: str) -> None:
    try:
        z = encoder(torch.zeros(2, 3, 1, SIZE, SIZE))
    except (ValueError, RuntimeError) as problem:
        raise ValueError(
            f"{name} does not read grey frames of {SIZE} x {SIZE} pixels; wanted a run on a moving object."
        ) from problem
    if z.shape[:2] != (2, 3):
        raise ValueError(f"{name} does not give one embedding a frame; wanted a run on a moving object.")
