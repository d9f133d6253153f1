"""Episodes of an agent: what it saw, what it did and what else is known; one in memory, or many in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped
from safetensors import SafetensorError, safe_open

from jepalab.data.episode_shards import (
    ACTION,
    COLUMN_NAME,
    DTYPES,
    Column,
    Verify,
    damage,
    num_rows,
    read_listing,
    read_rows,
)

VECTORS = (ACTION, "proprio", "state")
# Shards that are kept open at a time.
MAX_OPEN = 128


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode of t frames, or a window of one; columns by name, time first.

    columns   `action` [t-1 a], finite: action[i] leads from frame i to frame i + 1. Every other column has a row for
              each frame: `pixels` [t c h w], uint8 or floats, further cameras `pixels_NAME` like it; `proprio` [t p],
              what the agent feels; `state` [t f], what is true of the world; and any others, [t *shape].
    metadata  what JSON can hold: by custom `environment`, `policy` and `seed`.

    Raises:
        ValueError: columns of other shapes, types or names.
    """

    columns: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if ACTION not in self.columns:
            raise ValueError(f"An episode needs a column `action` [t-1 a], got the columns {sorted(self.columns)}.")
        for name, values in self.columns.items():
            _check(name, values, len(self))

    def __len__(self) -> int:
        """Frames, t."""
        return len(self.columns[ACTION]) + 1

    def __getitem__(self, name: str) -> np.ndarray:
        """The column of this name; ValueError if there is none."""
        if name not in self.columns:
            raise ValueError(f"This episode has no column {name!r}; it has {', '.join(sorted(self.columns))}.")
        return self.columns[name]

    @property
    def pixels(self) -> Shaped[np.ndarray, "t c h w"]:
        return self["pixels"]

    @property
    def action(self) -> Shaped[np.ndarray, "s a"]:
        """[t-1 a]; action[i] leads from frame i to frame i + 1."""
        return self[ACTION]

    @property
    def proprio(self) -> Shaped[np.ndarray, "t p"]:
        return self["proprio"]

    @property
    def state(self) -> Shaped[np.ndarray, "t f"]:
        return self["state"]

    @property
    def layout(self) -> dict[str, Column]:
        """Type and row shape of each column."""
        return {name: Column(values.dtype.name, values.shape[1:]) for name, values in self.columns.items()}

    def window(self, start: int, *, length: int) -> Episode:
        """`length` frames from `start` on with the actions between them, as views; ValueError past the end."""
        _check_window(start, length, len(self))
        cut = {name: v[start : start + num_rows(name, length)] for name, v in self.columns.items()}
        return Episode(cut, self.metadata)


def is_pictures(name: str) -> bool:
    """Whether a column of this name holds what a camera saw, [t c h w]."""
    return name == "pixels" or name.startswith("pixels_")


def _check(name: str, values: np.ndarray, length: int) -> None:
    if not COLUMN_NAME.fullmatch(name):
        raise ValueError(f"Columns have names of letters, digits, dots, dashes and underscores, got {name!r}.")
    rows, num_axes = num_rows(name, length), 2 if name in VECTORS else 4 if is_pictures(name) else max(1, values.ndim)
    if values.ndim != num_axes or len(values) != rows or 0 in values.shape[1:]:
        wanted = {2: f"[{rows} n]", 4: f"[{rows} c h w]"}.get(num_axes, f"[{rows} ...]")
        raise ValueError(
            f"Wanted column {name!r} as {wanted}, for {length} frames and an action between each two, got "
            f"{list(values.shape)}."
        )
    if values.dtype.name not in DTYPES or not values.dtype.isnative:
        raise ValueError(f"Wanted column {name!r} as numbers that numpy has ({', '.join(DTYPES)}), got {values.dtype}.")
    if is_pictures(name) and values.dtype != np.uint8 and values.dtype.kind != "f":
        raise ValueError(f"Wanted column {name!r} as uint8 or floats, got {values.dtype}.")
    if name == ACTION and values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("Wanted actions that are finite; some are NaN or infinite.")


def _check_window(start: int, length: int, num: int) -> None:
    if length < 1 or start < 0 or start + length > num:
        raise ValueError(
            f"Wanted frames {start} to {start + length - 1} of an episode, which has frames 0 to {num - 1}."
        )


class _Place(NamedTuple):
    """Where an episode lies: its shard, and its first row there of frames and of actions."""

    file: str
    frame: int
    step: int
    length: int
    metadata: dict[str, Any]


class Episodes:
    """Episodes in a folder, read from disk when they are asked for; made by `Episodes.open`.

    columns   type and row shape of each column.
    metadata  what all episodes share.
    lengths   [n] frames of each episode.
    numbers   [n] of each episode in the order in which they were written; those of skipped ones are missing.
    skipped   what is left out, and why.
    """

    def __init__(
        self,
        folder: Path,
        *,
        columns: Mapping[str, Column],
        metadata: Mapping[str, Any],
        places: Mapping[int, _Place],
        skipped: Mapping[str, str],
    ) -> None:
        self.folder, self.columns, self.metadata, self.skipped = folder, dict(columns), dict(metadata), dict(skipped)
        self._places = list(places.values())
        self.numbers = np.array(list(places), dtype=np.int64)
        self.lengths = np.array([place.length for place in self._places], dtype=np.int64)
        self._opened: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path, *, verify: Verify = "sha256") -> Episodes:
        """The episodes of a folder that EpisodeWriter wrote, also of one that it was killed in, or still writes into.

        Nothing is kept in memory but where each episode lies. Damaged shards and episodes are left out and named in
        `skipped`.

        verify  "sha256" reads all bytes once, some hundred MB a second, and finds any damage; "size" looks at sizes
                and headers only.

        Raises:
            ValueError: no folder of episodes, or one of which none can be read.
        """
        listing = read_listing(folder)
        places: dict[int, _Place] = {}
        skipped, number = dict(listing.skipped), 0
        for shard in listing.shards:
            broken, frame = damage(folder, shard, listing.columns, verify=verify), 0
            for i, stored in enumerate(shard.episodes):
                if i in broken:
                    skipped[f"episode {number}"] = broken[i]
                else:
                    metadata = listing.metadata | stored.metadata
                    places[number] = _Place(shard.file, frame, frame - i, stored.length, metadata)
                number, frame = number + 1, frame + stored.length
        if not places:
            some = "; ".join(f"{name}: {why}" for name, why in islice(skipped.items(), 3)) or "none was written"
            raise ValueError(f"Wanted a folder of episodes, and none of {folder} can be read ({some}).")
        return cls(folder, columns=listing.columns, metadata=listing.metadata, places=places, skipped=skipped)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Episode:
        """A whole episode; IndexError past the last."""
        return self._read(self._places[i], 0, self._places[i].length)

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    def window(self, i: int, *, start: int, length: int) -> Episode:
        """`length` frames of episode i from `start` on, with the actions between them; reads nothing else.

        Raises:
            IndexError: no such episode.
            ValueError: no such frames.
        """
        _check_window(start, length, self._places[i].length)
        return self._read(self._places[i], start, length)

    def windows(self, length: int, *, hop: int = 1) -> Int[np.ndarray, "n 2"]:
        """Episode and first frame of every window of so many frames, beginning every `hop` frames of each episode.

        Raises:
            ValueError: no episode is as long.
        """
        if length < 1 or hop < 1:
            raise ValueError(f"Wanted windows of at least one frame, at least one frame apart, got {length} and {hop}.")
        nums = np.maximum(0, (self.lengths - length) // hop + 1)
        if not nums.any():
            raise ValueError(f"Wanted windows of {length} frames, and the longest episode has {self.lengths.max()}.")
        starts = hop * (np.arange(nums.sum()) - np.repeat(np.cumsum(nums) - nums, nums))
        return np.stack([np.repeat(np.arange(len(nums)), nums), starts], axis=1)

    def describe(self) -> str:
        """A line that says what is here and what is not."""
        frames = f"{len(self):,} episodes, {self.lengths.sum():,} frames in {self.folder}"
        if not self.skipped:
            return frames
        name, why = next(iter(self.skipped.items()))
        return f"{frames}; {len(self.skipped)} left out, the first: {name} ({why})"

    def _read(self, place: _Place, start: int, length: int) -> Episode:
        try:
            shard, frame, step = self._shard(place.file), place.frame + start, place.step + start
            return Episode(read_rows(shard, self.columns, frame=frame, step=step, length=length), place.metadata)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{self.folder / place.file} is not what it was; open its folder anew ({error})."
            ) from error

    def _shard(self, file: str) -> Any:
        if file not in self._opened:
            if len(self._opened) >= MAX_OPEN:
                self._opened.pop(next(iter(self._opened)))
            self._opened[file] = safe_open(self.folder / file, "numpy")
        return self._opened[file]
