"""LeRobot datasets of version 3 (github.com/huggingface/lerobot), read: names, files, and how they become episodes.

    meta/info.json                        frames a second, features (columns), templates of the paths below
    meta/tasks.parquet                    what the agent was told to do, by task_index
    meta/episodes/chunk-000/file-000.parquet   where each episode lies
    data/chunk-000/file-000.parquet       a row for each frame, many episodes a file; pictures as PNG, where no video is
    videos/KEY/chunk-000/file-000.mp4     the frames of one camera, many episodes a file
    meta/jepalab.json                     what jepalab writes beside: exact shapes, and what JSON holds of each episode

The `action` of a row is taken at its frame and leads to the next; that of an episode's last row leads nowhere.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from jepalab.data.clip_files import pyav
from jepalab.data.episode_shards import ACTION, COLUMN_NAME, DTYPES, Column, whole_folder
from jepalab.data.episode_videos import read_frames
from jepalab.data.episode_writer import EpisodeWriter
from jepalab.data.episodes import VECTORS, Episode, Episodes, is_pictures
from jepalab.data.image_files import UNREADABLE, opened, strict_about_bombs

INFO, TASKS, EPISODES, OURS = "meta/info.json", "meta/tasks.parquet", "meta/episodes", "meta/jepalab.json"
PATH = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{PATH}.parquet", f"videos/{{video_key}}/{PATH}.mp4"
# Columns that every dataset has, and that are of no episode's own.
INDEX = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
KEYS = {
    "pixels": "observation.image",
    "proprio": "observation.state",
    "state": "observation.environment_state",
    ACTION: "action",
}
CAMERA = "observation.images."
CHANNELS = ("c", "channel", "channels")
# What reading damaged files raises; pyarrow's errors are among them.
DAMAGED = (OSError, ValueError, LookupError, ArithmeticError, MemoryError)


class Feature(NamedTuple):
    """A column of the dataset: LeRobot's key, our name, where its numbers are, their type and what shape a row has."""

    key: str
    name: str
    kind: Literal["numbers", "words", "image", "video"]
    dtype: str
    shape: tuple[int, ...]


def key_of(name: str) -> str:
    """LeRobot's name of one of our columns."""
    return KEYS.get(name) or (CAMERA + name.removeprefix("pixels_") if is_pictures(name) else name)


def import_lerobot(path: Path, *, folder: Path, camera: str | None = None) -> Episodes:
    """Reads a LeRobot dataset of version 3 into a new folder, one episode at a time, and opens that.

    `observation.state` becomes `proprio`, `observation.environment_state` `state`, a camera `pixels`, other cameras
    `pixels_NAME`; other columns keep their names. Of a column of words the first of each episode goes into its
    metadata, and so do `task` and `fps`. Episodes that cannot be read are left out and named in `skipped`.

    camera  the key of the camera that becomes `pixels`; needed where there are several and none is observation.image.

    Raises:
        ValueError: no such dataset, one of another version, several cameras; a folder with something in it; pyarrow
            or, where there are videos, PyAV is missing.
        OSError: the folder cannot be written; nothing is left of it.
    """
    pyarrow()
    info = _info(path)
    with whole_folder(folder) as partial, EpisodeWriter(partial) as writer:
        try:
            ours = json.loads((path / OURS).read_text(encoding="utf-8")) if (path / OURS).exists() else {}
            exact = {
                name: Column(known["dtype"], tuple(known["shape"])) for name, known in ours.get("columns", {}).items()
            }
            own = dict(enumerate(map(dict, ours.get("metadata", []))))
            features = _features(info, camera, exact, writer)
            source = _Source(path, info, features)
        except (*DAMAGED, TypeError, AttributeError) as error:
            raise ValueError(f"The LeRobot dataset {path} cannot be read: {error}") from error
        if any(feature.kind == "video" for feature in features):
            pyav()
        for number, where in sorted(source.episodes.items()):
            try:
                episode = source.read(where, own.get(number))
                writer.check(episode)
            except DAMAGED as error:
                writer.skip(f"episode {number} of {path.name}", why=f"{type(error).__name__}: {error}")
                continue
            writer.add(episode)
        if not len(writer):
            some = "; ".join(f"{name}: {why}" for name, why in list(writer.skipped.items())[:3]) or "it has none"
            raise ValueError(f"Wanted a LeRobot dataset, and no episode of {path} can be read ({some}).")
    return Episodes.open(folder)


def _info(path: Path) -> dict[str, Any]:
    wanted = f"Wanted the folder of a LeRobot dataset, with a {INFO} in it"
    try:
        info = json.loads((path / INFO).read_text(encoding="utf-8"))
        version, fps = str(info["codebase_version"]), info["fps"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{wanted}; {path} has none that can be read ({type(error).__name__}: {error}).") from error
    if not version.startswith("v3"):
        raise ValueError(f"{wanted}, of version 3; {path} is of {version}. LeRobot converts older ones.")
    if not isinstance(fps, int | float) or not fps > 0:
        raise ValueError(f"{path / INFO} is damaged: {fps!r} frames a second.")
    return info


def _features(
    info: dict[str, Any], camera: str | None, exact: Mapping[str, Column], writer: EpisodeWriter
) -> list[Feature]:
    known = {key: known for key, known in info["features"].items() if key not in INDEX}
    cameras = [key for key, feature in known.items() if feature["dtype"] in ("image", "video")]
    camera = camera or (cameras[0] if len(cameras) == 1 else KEYS["pixels"])
    if cameras and camera not in cameras:
        raise ValueError(f"Wanted the camera that becomes `pixels`, got {camera}; name one of {', '.join(cameras)}.")
    names = {key: name for name, key in KEYS.items() if name != "pixels"} | {camera: "pixels"}
    features = []
    for key, feature in known.items():
        name = names.get(key) or key
        if key in cameras and key != camera:
            name = "pixels_" + key.removeprefix(CAMERA).removeprefix("observation.")
        dtype, facts = feature["dtype"], feature.get("info") or {}
        kind = dtype if key in cameras else "words" if dtype == "string" else "numbers"
        taken = [feature.name for feature in features]
        if name in taken or not COLUMN_NAME.fullmatch(name) or (kind == "numbers" and dtype not in DTYPES):
            writer.skip(f"column {key}", why=f"its rows are {dtype}, or no column may have its name")
        elif facts.get("is_depth_map") or facts.get("video.is_depth_map"):
            writer.skip(f"column {key}", why="depth maps are not read")
        else:
            shape: tuple[int, ...] = tuple(map(int, feature["shape"]))
            if kind == "numbers":
                shape = (int(np.prod(shape)),) if name in VECTORS else shape if shape != (1,) else ()
            if key in cameras:
                names_of = [str(axis).lower() for axis in feature.get("names") or ()]
                places = [i for i, axis in enumerate(names_of) if axis in CHANNELS and len(names_of) == len(shape)]
                shape = (shape[places[0]] if places else shape[-1] if shape[-1] in (1, 3) else shape[0],)
            shape = exact[name].shape if name in exact else shape
            features.append(Feature(key, name, kind, "uint8" if key in cameras else dtype, shape))
    if ACTION not in {feature.name for feature in features}:
        raise ValueError(f"it has no column `action` of numbers, but {', '.join(known)}")
    return features


class _Source:
    """The files of a dataset, of which one table is kept at a time."""

    def __init__(self, path: Path, info: dict[str, Any], features: list[Feature]) -> None:
        self.path, self.features, self.fps = path, features, float(info["fps"])
        self.data_path, self.video_path = info.get("data_path", DATA_PATH), info.get("video_path", VIDEO_PATH)
        self.episodes: dict[int, dict[str, Any]] = {}
        pq = pyarrow().parquet
        for file in sorted((path / EPISODES).glob("*/*.parquet")):
            with pq.ParquetFile(file) as table:
                columns = [name for name in table.schema_arrow.names if not name.startswith("stats/")]
                self.episodes |= {_whole(row, "episode_index"): row for row in table.read(columns).to_pylist()}
        tasks = pq.read_table(path / TASKS).to_pydict() if (path / TASKS).exists() else {"task_index": []}
        texts = next((column for name, column in tasks.items() if name != "task_index"), [])
        self.tasks = dict(zip(tasks["task_index"], texts, strict=False))
        self._file, self._table = Path(), None

    def read(self, where: Mapping[str, Any], own: dict[str, Any] | None) -> Episode:
        length = _whole(where, "length")
        if not length:
            raise ValueError("it has no frame")
        rows = self._rows(where, length)
        metadata: dict[str, Any] = {"task": self.tasks.get(rows["task_index"][0].as_py()), "fps": self.fps}
        columns = {}
        for feature in self.features:
            if feature.kind == "words":
                metadata[feature.key] = rows[feature.key][0].as_py()
            elif feature.kind == "video":
                columns[feature.name] = self._frames(feature, where, length)
            else:
                read = _pictures if feature.kind == "image" else _numbers
                values = read(rows[feature.key], feature)
                columns[feature.name] = values[:-1] if feature.name == ACTION else values
        return Episode(columns, metadata if own is None else own)

    def _rows(self, where: Mapping[str, Any], length: int) -> Any:
        file = self._inside(self.data_path, where, "data")
        if file != self._file:
            # The old one goes before the new one comes.
            self._file, self._table = Path(), None
            wanted = [feature.key for feature in self.features if feature.kind != "video"]
            columns = ["episode_index", "frame_index", "task_index", *wanted]
            self._table = pyarrow().parquet.read_table(file, columns=columns)
            self._file = file
        assert self._table is not None, "it was just read"
        found = np.flatnonzero(self._table["episode_index"].to_numpy() == where["episode_index"])
        rows = self._table.slice(found[0], len(found)) if len(found) else self._table.slice(0, 0)
        if len(found) != length or rows["frame_index"].to_pylist() != list(range(length)):
            raise ValueError(f"{file.name} does not hold its {length} frames in order, but {len(found)}")
        return rows

    def _frames(self, feature: Feature, where: Mapping[str, Any], length: int) -> UInt8[np.ndarray, "t c h w"]:
        at = f"videos/{feature.key}"
        file, start = self._inside(self.video_path, where, at, feature.key), where[f"{at}/from_timestamp"]
        if not isinstance(start, float) or not start >= 0:
            raise ValueError(f"its frames begin at second {start}")
        frames = read_frames(file, start=start, num=length, fps=self.fps)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2)[:, : feature.shape[0]])

    def _inside(self, template: str, where: Mapping[str, Any], at: str, key: str = "") -> Path:
        """A path that a template gives; ValueError where that leads out of the dataset."""
        chunk, file = _whole(where, f"{at}/chunk_index"), _whole(where, f"{at}/file_index")
        name = template.format(chunk_index=chunk, file_index=file, video_key=key)
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
            raise ValueError(f"{INFO} names the file {name!r}, which is not in the dataset")
        return self.path / name


def _whole(where: Mapping[str, Any], key: str) -> int:
    if type(where[key]) is not int or where[key] < 0:
        raise ValueError(f"its {key} is {where[key]!r}")
    return where[key]


def _numbers(column: Any, feature: Feature) -> Shaped[np.ndarray, "t ..."]:
    values, types = column.combine_chunks(), pyarrow().types
    if isinstance(values, pyarrow().ExtensionArray):
        values = values.storage
    while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        values = values.flatten()
    if not (types.is_floating(values.type) or types.is_integer(values.type) or types.is_boolean(values.type)):
        raise ValueError(f"{feature.key} holds {values.type}, no numbers")
    if values.null_count:
        raise ValueError(f"{feature.key} lacks {values.null_count} of its numbers")
    found = values.to_numpy(zero_copy_only=False).astype(feature.dtype)
    return found.reshape(len(column), *feature.shape)


def _pictures(column: Any, feature: Feature) -> UInt8[np.ndarray, "t c h w"]:
    frames = []
    with strict_about_bombs():
        for picture in column.to_pylist():
            content = picture.get("bytes") if isinstance(picture, dict) else None
            if content is None:
                raise ValueError(f"a picture of {feature.key} lies elsewhere, not in the table")
            try:
                with opened(io.BytesIO(content)) as image:
                    frames.append(np.asarray(image.convert("L" if feature.shape[0] == 1 else "RGB")))
            except UNREADABLE as error:
                raise ValueError(f"frame {len(frames)} of {feature.key} is damaged ({error})") from error
    stacked = np.stack(frames)
    return np.ascontiguousarray(stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2))


def pyarrow() -> Any:
    """pyarrow with its parquet; ValueError where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError('Parquet files are read and written by pyarrow: pip install "jepalab[parquet]".') from error
    return pyarrow
