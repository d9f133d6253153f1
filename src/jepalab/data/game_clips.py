"""Clips of a game that chance plays, labelled by what was pressed half-way: for any console that can be put back.

Whatever is pressed is held for a random time, so that it shows in the motion. Actions that look the same on the screen
are one class: nobody could tell them apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from jepalab.data.image_cache import content_hash
from jepalab.data.made_clips import Chunk, Making
from jepalab.data.sprites import Split

CHUNK = 64
# Steps for which an action is held, at least and less than: the clips' frames are a step apart.
HOLD = (2, 9)
# Steps before an episode's first clip: every episode begins alike, and chance has to lead them apart.
WARM_UP = (30, 150)
CLIPS_PER_EPISODE = 100
MOST_EMPTY = 50
# Looked at to tell actions apart: states, and frames after each. Two actions are alike if they differ in less than
# this share of the states in which the two most different ones do: a button may matter once in a while.
NUM_STATES, NUM_SHOWN, ALIKE = 100, 8, 0.2


@runtime_checkable
class Console(Protocol):
    """A game that is played frame by frame, the same way each time."""

    @property
    def actions(self) -> Sequence[str]:
        """What can be pressed."""
        ...

    def act(self, action: int) -> None:
        """Plays one frame with the action of this number pressed."""
        ...

    def is_over(self) -> bool:
        """Whether the game has ended."""
        ...

    def screen(self) -> UInt8[np.ndarray, "h w c"]:
        """The last frame."""
        ...

    def memory(self) -> UInt8[np.ndarray, " s"]:
        """The state the game is in after the last frame."""
        ...

    def save(self) -> Any:
        """All that `restore` needs to go on from here."""
        ...

    def restore(self, saved: Any) -> None:
        """Puts the game back to where it was saved."""
        ...


class Press(NamedTuple):
    """What is pressed in a step: an action, and the number of the class that it belongs to."""

    action: int
    label: int


class Take(NamedTuple):
    """One clip, the class of what leads to its middle frame, and the state at its last."""

    frames: UInt8[np.ndarray, "t h w c"]
    label: int
    state: UInt8[np.ndarray, " s"]


@dataclass(frozen=True, kw_only=True)
class Filming:
    """How a game is played and filmed.

    num_frames  of a clip.
    size        of a frame in pixels: the whole screen, squeezed into a square by averaging areas.
    stride      frames of the game in a step, from one frame of a clip to the next; one action is pressed for all.
    seed        of what is pressed.
    """

    num_frames: int = 8
    size: int = 32
    stride: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_frames < 2 or self.size < 8 or self.stride < 1:
            raise ValueError(
                "Wanted at least 2 frames of at least 8 pixels, and a stride of at least 1, got "
                f"num_frames={self.num_frames}, size={self.size}, stride={self.stride}."
            )

    def make(self, console: Console, counts: Mapping[Split, int]) -> Making:
        """Clips with the rows "label" and "state"; the fact "names" has the labels'. Splits share no episode.

        All classes are pressed equally often, and no two clips are equal.

        Raises:
            ValueError: nothing that is pressed can be seen, or the game never lasts, or never moves, for as long as a
                clip.
        """
        classes = tell_apart(console, generator=self._generator("states"))
        if len(classes) < 2:
            raise ValueError(
                f"Nothing that is pressed shows on the screen ({', '.join(console.actions)} all look the same); take "
                "another game."
            )
        names = [" or ".join(console.actions[action] for action in members) for members in classes]
        return Making(self._chunks(console, classes, counts), facts={"names": names})

    def _chunks(
        self, console: Console, classes: Sequence[Sequence[int]], counts: Mapping[Split, int]
    ) -> Iterator[Chunk]:
        first, seen = console.save(), set[bytes]()
        for split, num in counts.items():
            takes = islice(self._takes(console, classes, split, first, seen), num)
            while part := list(islice(takes, CHUNK)):
                labels = np.array([take.label for take in part])
                states = np.stack([take.state for take in part])
                yield Chunk(np.stack([take.frames for take in part]), {"label": labels, "state": states})

    def _takes(
        self, console: Console, classes: Sequence[Sequence[int]], split: Split, first: Any, seen: set[bytes]
    ) -> Iterator[Take]:
        """Takes that were not seen before, of any number of episodes."""
        num_empty = 0
        for episode in count():
            if num_empty == MOST_EMPTY:
                raise ValueError(
                    f"{MOST_EMPTY} episodes in a row had no new clip of {self.num_frames} frames, {self.stride} apart: "
                    "the game ends before, or nothing moves; take shorter clips, fewer of them, or another game."
                )
            console.restore(first)
            generator = self._generator(f"{split} {episode}")
            num_empty += 1
            for take in islice(self._episode(console, classes, generator), CLIPS_PER_EPISODE):
                key = content_hash(take.frames)
                if key not in seen:
                    seen.add(key)
                    num_empty = 0
                    yield take

    def _episode(
        self, console: Console, classes: Sequence[Sequence[int]], generator: np.random.Generator
    ) -> Iterator[Take]:
        """Clips until the game is over, with random times between them."""
        presses = press(classes, generator)
        wait = generator.integers(*WARM_UP)
        while True:
            for pressed in islice(presses, int(wait)):
                for _ in range(self.stride):
                    console.act(pressed.action)
                if console.is_over():
                    return
            frames, taken = [], list(islice(presses, self.num_frames))
            for pressed in taken:
                frames.append(self._step(console, pressed.action))
                if console.is_over():
                    return
            yield Take(squeeze(np.stack(frames), size=self.size), taken[self.num_frames // 2].label, console.memory())
            wait = generator.integers(4 * self.num_frames)

    def _step(self, console: Console, action: int) -> UInt8[np.ndarray, "h w c"]:
        """The brighter of the last two frames at each place: things that flicker are drawn in every other frame only.

        As in Mnih et al. 2015 (doi 10.1038/nature14236).
        """
        for _ in range(self.stride - 1):
            console.act(action)
        before = console.screen()
        console.act(action)
        return np.maximum(before, console.screen())

    def _generator(self, purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{purpose} {self.seed}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def tell_apart(console: Console, *, generator: np.random.Generator) -> list[list[int]]:
    """Actions in classes that look the same on the screen: each was tried from states that chance leads to."""
    first, everything = console.save(), range(len(console.actions))
    differ = np.zeros((len(everything), len(everything)))
    presses = press([[action] for action in everything], generator)
    for _ in range(NUM_STATES):
        for pressed in islice(presses, 4 * HOLD[1]):
            console.act(pressed.action)
        if console.is_over():
            console.restore(first)
        saved, shown = console.save(), []
        for action in everything:
            console.restore(saved)
            shown.append(content_hash(b"".join(_look(console, action) for _ in range(NUM_SHOWN))))
        console.restore(saved)
        differ += np.array([[one != other for other in shown] for one in shown])
    console.restore(first)
    alike, classes = differ <= ALIKE * differ.max(), list[list[int]]()
    for action in everything:
        # Like the first of a class, not like all: of three in a row, the middle one may look like both.
        members = next((members for members in classes if alike[action, members[0]]), None)
        if members is None:
            classes.append([action])
        else:
            members.append(action)
    return classes


def squeeze(frames: UInt8[np.ndarray, "t h w c"], *, size: int) -> UInt8[np.ndarray, "t size size c"]:
    """Frames as smaller squares, each pixel the rounded mean of the area that it covers."""
    _, h, w, _ = frames.shape
    if size > min(h, w):
        raise ValueError(f"The screen has {h} x {w} pixels: wanted a size of at most {min(h, w)}, got {size}.")
    sums = _sum_parts(_sum_parts(frames, size).swapaxes(1, 2), size).swapaxes(1, 2)
    return ((sums + h * w // 2) // (h * w)).astype(np.uint8)


def _sum_parts(values: Integer[np.ndarray, "t n *rest"], num_parts: int) -> Int64[np.ndarray, "t p *rest"]:
    """Sums over equal parts of axis 1, times their number: whole numbers, so the same bytes on every machine."""
    length = values.shape[1]
    ends, share = np.divmod(length * np.arange(num_parts + 1), num_parts)
    sums = num_parts * np.add.reduceat(values, ends[:-1], axis=1, dtype=np.int64)
    # Where a part ends inside a value, it has a share of that one and the next part has the rest.
    cut = share.reshape(-1, *(1,) * (values.ndim - 2)) * values[:, ends.clip(max=length - 1)]
    return sums + np.diff(cut, axis=1)


def press(classes: Sequence[Sequence[int]], generator: np.random.Generator) -> Iterator[Press]:
    """What is pressed in each step, without end: a class and one of its actions, for a random number of steps."""
    while True:
        label = int(generator.integers(len(classes)))
        action = int(generator.choice(classes[label]))
        for _ in range(generator.integers(*HOLD)):
            yield Press(action, label)


def _look(console: Console, action: int) -> bytes:
    console.act(action)
    return console.screen().tobytes()
