"""LeRobot datasets of version 3, written: the layout that `episode_lerobot` describes, with statistics."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jepalab.data.episode_lerobot import (
    DATA_PATH,
    EPISODES,
    INDEX,
    INFO,
    OURS,
    PATH,
    TASKS,
    VIDEO_PATH,
    key_of,
    pyarrow,
)
from jepalab.data.episode_shards import ACTION, Column, plain_json, whole_folder
from jepalab.data.episode_statistics import Statistics
from jepalab.data.episode_videos import VideoFile, check_encoder, video_facts
from jepalab.data.episodes import Episode, is_pictures

Pictures = Literal["h264-lossless", "h264", "png"]
# LeRobot's own limits of a file's bytes and of a folder's files.
DATA_BYTES, VIDEO_BYTES, CHUNK_FILES = 100 * 2**20, 200 * 2**20, 1000


def export_lerobot(
    episodes: Iterable[Episode], *, folder: Path, fps: int = 10, pictures: Pictures = "h264-lossless"
) -> None:
    """Writes episodes as a LeRobot dataset, one at a time, into a new folder.

    An episode's last row repeats its last action, since LeRobot wants one for each frame. Its task is its metadata's
    `task`, else its `environment`.

    fps       frames a second: what the timestamps say.
    pictures  "h264-lossless" videos keep every bit, "h264" ones are smaller and do not, "png" puts lossless pictures
              into the tables and needs no PyAV. Pictures of one channel are grey, as RGB in videos.

    Raises:
        ValueError: no episodes, different columns, names that LeRobot uses itself, pictures that are not uint8 with one
            or three channels, odd sizes for "h264"; a folder with something in it; pyarrow or PyAV is missing.
        OSError: the folder cannot be written; nothing is left of it.
    """
    pyarrow()
    if fps < 1:
        raise ValueError(f"Wanted at least one frame a second, got {fps}.")
    with whole_folder(folder) as partial:
        dataset = None
        try:
            for number, episode in enumerate(episodes):
                dataset = dataset or _Dataset(partial, episode.layout, fps, pictures)
                if episode.layout != dataset.layout:
                    wanted = f"those before it {dataset.layout}"
                    raise ValueError(f"Episode {number} has the columns {episode.layout}, and {wanted}.")
                dataset.add(episode)
            if dataset is None:
                raise ValueError("Wanted at least one episode to write, got none.")
            dataset.finish()
        finally:
            if dataset is not None:
                dataset.abandon()


class _Dataset:
    """A dataset that grows episode by episode."""

    def __init__(self, folder: Path, layout: dict[str, Column], fps: int, pictures: Pictures) -> None:
        self.folder, self.layout, self.fps, self.pictures = folder, layout, fps, pictures
        if taken := layout.keys() & INDEX.keys():
            raise ValueError(f"LeRobot has columns of its own called {', '.join(sorted(taken))}; rename them.")
        for name in filter(is_pictures, layout):
            dtype, (channels, height, width) = layout[name]
            if dtype != "uint8" or channels not in (1, 3):
                raise ValueError(f"LeRobot has pictures of bytes, grey or RGB; {name} is {dtype} [{channels} h w].")
            if pictures != "png":
                check_encoder(pictures, height=height, width=width)
        self.tasks: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.statistics = {key_of(name): Statistics(is_of_pictures=is_pictures(name)) for name in layout}
        self.facts: dict[str, dict[str, Any]] = {}
        self.videos: dict[str, VideoFile] = {}
        self.video_numbers: dict[str, int] = {}
        self.table: Any = None
        self.table_number, self.table_bytes = -1, 0

    def add(self, episode: Episode) -> None:
        length, number = len(episode), len(self.rows)
        first = self.rows[-1]["dataset_to_index"] if self.rows else 0
        task = str(episode.metadata.get("task") or episode.metadata.get("environment") or "unknown")
        row = {"episode_index": number, "tasks": [task], "length": length}
        row |= {"dataset_from_index": first, "dataset_to_index": first + length}
        frames = np.arange(length)
        columns: dict[str, Any] = {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, number),
            "index": first + frames,
            "task_index": np.full(length, self.tasks.setdefault(task, len(self.tasks))),
        }
        for name in self.layout:
            key, values = key_of(name), episode[name]
            # An episode of one frame has no action to repeat.
            last = values[-1:] if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
            values = np.concatenate([values, last]) if name == ACTION else values
            self.statistics[key].add(values)
            if is_pictures(name) and self.pictures != "png":
                row |= self._add_video(key, values)
            else:
                columns[key] = _as_pngs(values) if is_pictures(name) else values
        row |= self._add_rows({name: _as_arrow(values) for name, values in columns.items()})
        self.rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.metadata.append(plain_json(f"episode {number}'s", episode.metadata))

    def _add_rows(self, columns: dict[str, Any]) -> dict[str, int]:
        pa = pyarrow()
        table = pa.table(columns)
        if self.table is None or self.table_bytes + table.nbytes > DATA_BYTES:
            if self.table is not None:
                self.table.close()
            self.table_number, self.table_bytes = self.table_number + 1, 0
            path = self.folder / DATA_PATH.format(**_numbers_of(self.table_number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self.table = pa.parquet.ParquetWriter(path, table.schema)
        self.table.write_table(table)
        self.table_bytes += table.nbytes
        return {f"data/{name}": value for name, value in _numbers_of(self.table_number).items()}

    def _add_video(self, key: str, values: UInt8[np.ndarray, "t c h w"]) -> dict[str, Any]:
        video = self.videos.get(key)
        if video is not None and video.num_bytes > VIDEO_BYTES:
            self.videos.pop(key).close(is_whole=True)
            video = None
        if video is None:
            number = self.video_numbers[key] = self.video_numbers.get(key, -1) + 1
            path = self.folder / VIDEO_PATH.format(video_key=key, **_numbers_of(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            video = VideoFile(path, encoder=self.pictures, fps=self.fps, height=values.shape[2], width=values.shape[3])
            self.videos[key] = video
        start = video.num_frames / self.fps
        video.add(np.broadcast_to(values, (len(values), 3, *values.shape[2:])))
        self.facts[key] = video_facts(video)
        found = {**_numbers_of(self.video_numbers[key]), "from_timestamp": start}
        found["to_timestamp"] = video.num_frames / self.fps
        return {f"videos/{key}/{name}": value for name, value in found.items()}

    def finish(self) -> None:
        """Ends the files and writes what describes them."""
        pa = pyarrow()
        self.table.close()
        for video in self.videos.values():
            video.close(is_whole=True)
        self.table, self.videos = None, {}
        episodes = self.folder / EPISODES / f"{PATH.format(chunk_index=0, file_index=0)}.parquet"
        episodes.parent.mkdir(parents=True)
        pa.parquet.write_table(pa.Table.from_pylist(self.rows), episodes)
        pa.parquet.write_table(_tasks_table(self.tasks), self.folder / TASKS)
        has_videos = bool(self.facts)
        info = {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self.rows),
            "total_frames": self.rows[-1]["dataset_to_index"],
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_BYTES // 2**20,
            "video_files_size_in_mb": VIDEO_BYTES // 2**20,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if has_videos else None,
            "features": {key_of(name): self._feature(name) for name in self.layout}
            | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX.items()},
        }
        columns = {name: column._asdict() for name, column in self.layout.items()}
        statistics = {key: found.as_json() for key, found in self.statistics.items()}
        for name, content in (
            (INFO, info),
            ("meta/stats.json", statistics),
            (OURS, {"columns": columns, "metadata": self.metadata}),
        ):
            (self.folder / name).write_text(json.dumps(content, indent=4, allow_nan=False), encoding="utf-8")

    def abandon(self) -> None:
        """Closes what an error left open; its files go with their folder."""
        for video in self.videos.values():
            with suppress(OSError):
                video.close(is_whole=False)
        if self.table is not None:
            with suppress(OSError):
                self.table.close()

    def _feature(self, name: str) -> dict[str, Any]:
        dtype, shape = self.layout[name]
        if not is_pictures(name):
            return {"dtype": dtype, "shape": list(shape) or [1], "names": None}
        channels, height, width = shape
        names = ["height", "width", "channels"]
        if self.pictures == "png":
            return {"dtype": "image", "shape": [height, width, channels], "names": names}
        return {"dtype": "video", "shape": [height, width, 3], "names": names, "info": self.facts[key_of(name)]}


def _numbers_of(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}


def _as_arrow(values: Any) -> Any:
    """An array as a column: numbers, or lists of one length, or lists of lists."""
    pa = pyarrow()
    if not isinstance(values, np.ndarray):
        return values
    # LeRobot has no vectors of one number.
    shape = () if values.shape[1:] == (1,) else values.shape[1:]
    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(column, *shape)
    for size in reversed(shape):
        column = pa.ListArray.from_arrays(np.arange(0, len(column) + 1, size, dtype=np.int32), column)
    return column


def _as_pngs(frames: UInt8[np.ndarray, "t c h w"]) -> Any:
    """Encoded pictures as Hugging Face has them: structs of bytes and a name."""
    encoded = []
    for number, frame in enumerate(frames):
        file = io.BytesIO()
        Image.fromarray(frame[0] if len(frame) == 1 else frame.transpose(1, 2, 0)).save(file, format="PNG")
        encoded.append({"bytes": file.getvalue(), "path": f"frame-{number:06d}.png"})
    pa = pyarrow()
    return pa.array(encoded, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _tasks_table(tasks: dict[str, int]) -> Any:
    """A table as pandas writes it, where the tasks are the index: LeRobot looks them up there."""
    pa = pyarrow()
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, kind, numpy_type in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    facts = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks.keys(), pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(facts)})
