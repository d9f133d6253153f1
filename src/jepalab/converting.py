"""The command `jepalab convert`: folders of episodes into files that other libraries read, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jepalab.data.episode_hdf5 import export_hdf5, import_hdf5
from jepalab.data.episode_lerobot import import_lerobot
from jepalab.data.episode_lerobot_export import Pictures, export_lerobot
from jepalab.data.episodes import Episode, Episodes, is_pictures
from jepalab.progress import count_items

Format = Literal["hdf5", "lerobot"]


@dataclass(frozen=True)
class ConvertCommand:
    """Turns a folder of episodes into a file or folder that other libraries read, or the other way round.

    What cannot be read is left out, counted and named. Pictures of two channels, as two-rooms and point-maze have them,
    are painted for LeRobot and come back with three.

    Args:
        source: folder of episodes with --to; HDF5 file or folder of a LeRobot dataset with --from.
        out: file or folder to write.
        to: hdf5 is one file as stable-worldmodel has it, lerobot a folder as LeRobot 3 has it.
        from_: the same formats, read into a folder of episodes.
        fps: frames a second that LeRobot is to be told.
        pictures: of LeRobot: videos that keep every bit, smaller ones that do not, or PNG.
        camera: which camera of a LeRobot dataset becomes the pixels, where there are several.
    """

    source: Annotated[Path, tyro.conf.Positional]
    out: Path
    to: Format | None = None
    from_: Annotated[Format | None, tyro.conf.arg(name="from")] = None
    fps: int = 10
    pictures: Pictures = "h264-lossless"
    camera: str | None = None


def run(words: list[str]) -> int:
    """jepalab convert SOURCE --to FORMAT --out PATH, or --from FORMAT"""
    asked = tyro.cli(ConvertCommand, prog="jepalab convert", args=words)
    if (asked.to is None) == (asked.from_ is None):
        raise ValueError("Wanted either --to or --from, with hdf5 or lerobot: which way is it to go?")
    if asked.from_ is not None:
        read = import_hdf5 if asked.from_ == "hdf5" else import_lerobot
        found = read(asked.source, folder=asked.out) if asked.camera is None else _with_camera(asked)
        print(found.describe())
        return 0
    episodes = Episodes.open(asked.source)
    if asked.to == "hdf5":
        export_hdf5(_counted(episodes), path=asked.out)
    else:
        coloured = (_in_colour(episode) for episode in _counted(episodes))
        export_lerobot(coloured, folder=asked.out, fps=asked.fps, pictures=asked.pictures)
    print(f"{episodes.describe()}\nwritten: {asked.out}")
    return 0


def _with_camera(asked: ConvertCommand) -> Episodes:
    if asked.from_ != "lerobot":
        raise ValueError("Only LeRobot datasets have cameras to choose from; leave out --camera.")
    return import_lerobot(asked.source, folder=asked.out, camera=asked.camera)


def _counted(episodes: Episodes) -> Iterator[Episode]:
    with count_items("converting") as count:
        for number, episode in enumerate(episodes):
            yield episode
            count(number + 1, len(episodes))


def _in_colour(episode: Episode) -> Episode:
    """Of two channels, which LeRobot does not have, what moves in yellow and what stands in blue."""
    coloured = {
        name: np.ascontiguousarray(values[:, [0, 0, 1]])
        for name, values in episode.columns.items()
        if is_pictures(name) and values.shape[1] == 2
    }
    return replace(episode, columns={**episode.columns, **coloured}) if coloured else episode
