"""Where world models learn: the protocol that a bench asks for, and stored episodes as such a world."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import tyro
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.felt import Standardised
from jepalab.data.episode_shards import META
from jepalab.data.episode_windows import EpisodeWindows, measure, split_of
from jepalab.data.episodes import Episodes
from jepalab.data.trajectories import Split, Trajectories
from jepalab.envs.scenes import Scene


@runtime_checkable
class World(Protocol):
    """What trajectories are recorded of, and how large things are in it."""

    def picture_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        ...

    def num_actions(self) -> int:
        """Width of what leads from one frame to the next."""
        ...

    def walks(self, split: Split, seed: int) -> Trajectories:
        """The trajectories of a split; splits share none."""
        ...

    def felt(self) -> Standardised | None:
        """What brings what is felt into units of one, where models are to be given it."""
        ...


@dataclass(frozen=True)
class Stored:
    """Stored episodes, split into training, validation and test by their numbers, 80, 10 and 10 in a hundred.

    Args:
        data: folder of episodes, as `jepalab collect` and `jepalab convert` write it; without it, walks in Two Rooms
            are simulated.
        frameskip: of the episodes in `data`: steps from one frame to the next; the actions between two frames become
            one block.
        proprio: also give what the agent feels, where the episodes in `data` have it; JEPA world models take it.
    """

    # What is not in the repr does not tell settings apart: a comparison goes on where its data was moved to.
    data: Path | None = field(default=None, repr=False)
    frameskip: int = 1
    proprio: bool = False
    digest: Annotated[str, tyro.conf.Suppress] = ""

    def __post_init__(self) -> None:
        if self.frameskip < 1:
            raise ValueError(f"Wanted a frameskip of at least 1, got {self.frameskip}.")
        if self.data is None and (self.frameskip > 1 or self.proprio):
            raise ValueError("frameskip and proprio are of stored episodes; name their folder with --data as well.")

    def episodes(self) -> Episodes:
        """The episodes; what is damaged among them is left out, and said on standard error when they are opened.

        Raises:
            ValueError: they are not those that these settings were named after.
        """
        assert self.data is not None, "a bench asks only a world that was named"
        found = _digest(self.data)
        if self.digest and found != self.digest:
            raise ValueError(
                f"{self.data} holds other episodes (digest {found[:12]}) than those this began with "
                f"({self.digest[:12]}). Start anew in another folder (--out)."
            )
        return _opened(self.data.absolute(), found)

    def named(self) -> Stored:
        """The same, known by their content: settings on other episodes are other settings."""
        return self if self.data is None else replace(self, digest=_digest(self.data))

    def scene(self) -> Scene | None:
        """Where they were recorded, if it is an environment that jepalab knows."""
        return Scene.of(self._metadata())

    def picture_shape(self) -> tuple[int, int, int]:
        """Raises ValueError where there are no pictures, or none that are square."""
        columns = self.episodes().columns
        shape = columns["pixels"].shape if "pixels" in columns else ()
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(
                f"Wanted episodes with a column `pixels` of square pictures; {self.data} has "
                f"{f'pixels {list(shape)}' if shape else ', '.join(columns)}."
            )
        return shape[0], shape[1], shape[2]

    def num_actions(self) -> int:
        return self.frameskip * self.episodes().columns["action"].shape[0]

    def walks(self, split: Split, seed: int) -> EpisodeWindows:
        """The windows of a split. They are recorded once: no seed changes them.

        Raises:
            ValueError: too few episodes for one of each split, or none with what is asked for.
        """
        episodes, metadata, rows = self.episodes(), self._metadata(), self._rows(split)
        if not rows:
            raise ValueError(
                f"None of the {len(episodes)} episodes in {self.data} is of the {split} split; record ten or more."
            )
        middle, unit = self._units()
        return EpisodeWindows(
            episodes,
            rows,
            frameskip=self.frameskip,
            middle=middle,
            unit=unit,
            feels=self.proprio,
            parts=metadata.get("state", {}),
            position=metadata.get("position", ()),
        )

    def felt(self) -> Standardised | None:
        """Raises ValueError where the episodes hold nothing that is felt."""
        if not self.proprio:
            return None
        if "proprio" not in self.episodes().columns:
            raise ValueError(f"The episodes in {self.data} hold nothing that is felt; leave out --proprio.")
        return Standardised(*measure(self.episodes(), self._rows("train"), "proprio"))

    def _rows(self, split: Split) -> list[int]:
        return [row for row, number in enumerate(self.episodes().numbers.tolist()) if split_of(number) == split]

    def _units(self) -> tuple[float | Float[Tensor, " a"], float | Float[Tensor, " a"]]:
        """In which actions are given: those of the environment, so that plans are told in the same ones; where it is
        not known, their own mean and deviation.
        """
        scene = self.scene()
        return (0.0, scene.kind.unit) if scene else _measured(self.episodes(), tuple(self._rows("train")))

    def _metadata(self) -> dict[str, Any]:
        return dict(self.episodes().window(0, start=0, length=1).metadata)


def _digest(folder: Path) -> str:
    """The SHA-256 of what says which episodes lie there, theirs included; empty where nothing says so."""
    meta = folder / META
    return hashlib.sha256(meta.read_bytes()).hexdigest() if meta.is_file() else ""


@cache
def _opened(folder: Path, digest: str) -> Episodes:
    """Opened once as long as nothing is added, and described by the first of a comparison's processes."""
    episodes = Episodes.open(folder)
    if multiprocessing.parent_process() is None:
        print(episodes.describe(), file=sys.stderr)
    return episodes


@cache
def _measured(episodes: Episodes, rows: tuple[int, ...]) -> tuple[Float[Tensor, " a"], Float[Tensor, " a"]]:
    mean, std = measure(episodes, rows, "action")
    return mean, std
