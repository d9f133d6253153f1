"""Clips of Atari games, labelled by the action taken, with the game's memory as ground truth: through ale-py.

The Arcade Learning Environment: Bellemare et al. 2013, arXiv 1207.4708. Memory as what an encoder should know: Anand et
al. 2019, arXiv 1906.08226. ale-py is under the GPL-2.0 and brings the games; it comes with the extra jepalab[atari].
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from jepalab.data.clips import Clips
from jepalab.data.game_clips import Filming
from jepalab.data.image_cache import Progress, default_cache
from jepalab.data.made_clips import Making, made_clips
from jepalab.data.sprites import SPLITS

# Part of every key: raise it when clips come out differently.
VERSION = 1
FRAMES_PER_SECOND = 60


class Atari:
    """A game on the emulator, played without the random repeats of actions that agents are tested with.

    channels  1 for grey screens, 3 for colour.
    """

    def __init__(self, game: str, *, channels: Literal[1, 3] = 1) -> None:
        from ale_py import ALEInterface, LoggerMode, roms  # pyrefly: ignore[missing-import]

        self._channels = channels
        path = roms.get_rom_path(game) if game in roms.get_all_rom_ids() else None
        # What it does not support, for one games for two players only, ends the process when loaded.
        if path is None or ALEInterface.isSupportedROM(path) is None:
            near = get_close_matches(game, roms.get_all_rom_ids()) or ["pong", "breakout", "ms_pacman"]
            raise ValueError(f"ale-py has no game {game!r} for one player. Names are like {', '.join(near)}.")
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._emulator = ALEInterface()
        self._emulator.setInt("random_seed", 0)
        self._emulator.setFloat("repeat_action_probability", 0.0)
        self._emulator.loadROM(path)

    @cached_property
    def _minimal(self) -> list[Any]:
        return self._emulator.getMinimalActionSet()

    @property
    def actions(self) -> Sequence[str]:
        """The buttons that the game knows, as ale-py names them."""
        return [action.name for action in self._minimal]

    def act(self, action: int) -> None:
        self._emulator.act(self._minimal[action])

    def is_over(self) -> bool:
        return self._emulator.game_over()

    def screen(self) -> UInt8[np.ndarray, "h w c"]:
        if self._channels == 3:
            return self._emulator.getScreenRGB()
        return self._emulator.getScreenGrayscale()[:, :, None]

    def memory(self) -> UInt8[np.ndarray, " s"]:
        return self._emulator.getRAM()

    def save(self) -> Any:
        return self._emulator.cloneState()

    # Not reset_game(): some games go on from what the last one left behind.
    def restore(self, saved: Any) -> None:
        self._emulator.restoreState(saved)


def atari_clips(
    game: str,
    *,
    num_train: int = 6000,
    num_validation: int = 1000,
    num_test: int = 2000,
    num_frames: int = 8,
    size: int = 32,
    stride: int = 2,
    channels: Literal[1, 3] = 1,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Clips:
    """Clips of an Atari game that chance plays: played once, then read from a memory map. Splits share no episode.

    game        as ale-py names it: pong, breakout, ms_pacman, ...
    num_train   clips of the train split.
    num_frames  of a clip.
    size        of a frame in pixels: the whole screen, squeezed into a square. Balls and bullets are small: 64 shows
                more of them than 32.
    stride      frames of the game, 60 a second, from one frame of a clip to the next.
    channels    1 for grey, 3 for colour.
    seed        of what is pressed.
    cache       where clips are kept; by default $JEPALAB_CACHE or .cache/jepalab in your home.
    progress    called with the number of clips made and the total.

    A clip's class is the action that leads to its middle frame, frame num_frames // 2; actions that look the same on
    the screen are one class (see `game_clips`). `states` are the game's 128 bytes of memory at the last frame.
    Train without flips: mirrored, LEFT is RIGHT.

    Raises:
        ValueError: ale-py is missing, there is no such game, nothing that is pressed can be seen, or a setting is out
            of range.
        OSError: the cache cannot be written, or the disk is full; nothing half-written stays behind.
    """
    counts = dict(zip(SPLITS, (num_train, num_validation, num_test), strict=True))
    if min(counts.values()) < 1 or channels not in {1, 3}:
        raise ValueError(f"Wanted at least 1 clip in every split, of 1 or 3 channels, got {counts} and {channels}.")
    filming = Filming(num_frames=num_frames, size=size, stride=stride, seed=seed)

    def make() -> Making:
        return filming.make(Atari(game, channels=channels), counts)

    num = sum(counts.values())
    made = made_clips(
        f"atari {VERSION} ale-py {_version()} {game} {channels} {filming} {counts}",
        shape=(num, num_frames, size, size, channels),
        make=make,
        cache=cache or default_cache(),
        progress=progress,
    )
    labels, states = made.rows["label"], made.rows["state"]
    known = made.sha256.encode() + labels.astype("<i8").tobytes() + states.tobytes()
    return Clips(
        pixels=made.pixels,
        labels=torch.from_numpy(labels.astype(np.int64)),
        names=made.facts["names"],
        splits=torch.arange(3, dtype=torch.int8).repeat_interleave(torch.tensor(list(counts.values()))),
        skipped={},
        digest=hashlib.sha256(known).hexdigest(),
        source=f"{game} on the Atari, played at random",
        fps=FRAMES_PER_SECOND / stride,
        states=states,
    )


def _version() -> str:
    try:
        return version("ale-py")
    except PackageNotFoundError as error:
        raise ValueError(
            "Atari games need ale-py, which is under the GPL-2.0 and therefore optional: pip install 'jepalab[atari]'."
        ) from error
