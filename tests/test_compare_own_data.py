"""From a folder of one's own to a report in one command: videos, pictures and series, both camps and the floors."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from jepalab.cli import main
from jepalab.compare.cells import fingerprint
from jepalab.compare.image_pictures import draw_image_cell
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.finetuning_shots import finetuning_shots
from jepalab.recipes import images, sensors, video
from jepalab.recipes.image_bench import Pictures
from jepalab.recipes.image_transfer import OtherPictures
from jepalab.recipes.patch_bench import Network

SETTINGS = {"lr": 1e-3, "weight_decay": 0.05}
SMALL = ["--patch", "4", "--width", "24", "--depth", "1", "--num-seeds", "1", "--num-workers", "1", "--out", "out"]
HEADS = ["--num-heads", "2", "--head-width", "24", "--head-depth", "1"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JEPALAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tune(patch: pytest.MonkeyPatch, lab: ModuleType, *arms: str) -> None:
    """The arms as if a search had ended."""
    searched = {"settings": SETTINGS, "score": 0.5, "scores": [0.5], "expected_best_of_n": [0.5]}
    searched |= {"share_above_random_encoder": 0.5}
    patch.setattr(lab, "tuned", lambda *_: {"conditions": {lab.CONDITION: dict.fromkeys(arms, searched)}})


def hurry(patch: pytest.MonkeyPatch, lab: ModuleType) -> None:
    """Read-outs that train, for a moment only, and pictures of one arm."""
    short = {"attentive": partial(attentive, num_epochs=2, rates=(1e-2,))}
    short["finetuning"] = partial(finetuning, num_steps=4, rates=(1e-3,))
    short["finetuning_shots"] = partial(finetuning_shots, shots=(5,), num_steps=2, rates=(1e-3,))
    short["draw_image_cell"] = partial(draw_image_cell, arms=("J1",))
    for name, read_out in short.items():
        if name in vars(lab):
            patch.setattr(lab, name, read_out)


def compared(*words: str) -> dict[str, dict[str, float]]:
    """Every arm's metrics, out of results.json; the report stands beside it and names each arm's accuracy."""
    assert main(["compare", *words]) == 0
    results = json.loads(Path("out/results.json").read_text())
    assert results["complete"]
    metrics = {cell["arm"]: cell["metrics"] for cell in results["cells"]}
    report = Path("out/report.html").read_text()
    for arm in metrics:
        assert results["arms"][arm] in report
    return metrics


def check_camps(metrics: dict[str, dict[str, float]], *arms: str, read_outs: tuple[str, ...]) -> None:
    assert metrics.keys() == {*arms}
    for arm in arms:
        for read_out in read_outs:
            assert 0 <= metrics[arm][read_out] <= 1
    assert min(metrics[arm]["linear"] for arm in arms) >= 0.75  # light and dark can be told by a mean


def lights(number: int, *shape: int) -> np.ndarray:
    """Bytes of either class: every other one is light."""
    low = 120 * (number % 2)
    return np.random.default_rng(number).integers(low, low + 100, shape, dtype=np.uint8)


def film(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_folder_of_labelled_videos_gives_both_camps_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    tune(monkeypatch, video, "J1", "G1")
    hurry(monkeypatch, video)
    for i in range(24):
        film(Path("videos") / ("dark", "light")[i % 2] / f"{i}.mp4", lights(i, 8, 32, 32, 3))
    clips = ["--size", "16", "--num-frames", "4", "--clips-per-video", "2", "--stride", "1"]
    words = ["video", "--data", "videos", *clips, "--samples", "128", "--arms", "J1", "G1", "R"]
    metrics = compared(*words, "--read-outs", "quick", *SMALL)
    check_camps(metrics, "J1", "G1", "R", read_outs=("linear", "logistic", "knn", "attentive"))


def draw_photos(folder: Path, num: int, *, channels: int = 3) -> Path:
    for i in range(num):
        place = folder / ("dark", "light")[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(lights(i, 16, 16, channels).squeeze()).save(place)
    return folder


def test_a_folder_of_labelled_pictures_gives_both_camps_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a second folder of another size and colour too, and with the likelihood of the arm that has one."""
    tune(monkeypatch, images, "J1", "G1", "G3")
    hurry(monkeypatch, images)
    draw_photos(Path("photos"), 48)
    draw_photos(Path("others"), 30, channels=1)
    for place in ("photos/dark/broken.png", "photos/light/raw.xyz"):
        Path(place).write_bytes(b"no picture")
    words = ["images", "--data", "photos", "--size", "16", "--samples", "128", "--arms", "J1", "G1", "G3", "R"]
    metrics = compared(*words, "--transfer", "others", "--read-outs", "quick", *SMALL, *HEADS)
    read_outs = ("linear", "logistic", "knn", "attentive", "transfer_linear", "transfer_knn")
    check_camps(metrics, "J1", "G1", "G3", "R", read_outs=read_outs)
    assert min(of["transfer_linear"] for of in metrics.values()) >= 0.75
    # Their pixels are drawn from a hundred intensities, and no code says 256 of them in fewer bits.
    assert np.log2(100) < metrics["G3"]["bits_per_dimension"] < 9
    assert not any("bits_per_dimension" in metrics[arm] for arm in ("J1", "G1", "R"))
    report = Path("out/report.html").read_text()
    for said in (
        "the first: dark/broken.png (",
        "1 file of kinds that are not read: .xyz 1",
        "Each run&#39;s skipped.txt",
    ):
        assert said in report
    for arm in metrics:
        lines = Path(f"out/cells/pictures/{arm}/seed-0/skipped.txt").read_text().splitlines()
        assert lines[0].startswith("dark/broken.png: ")
        assert lines[1:] == ["1 file .xyz: a kind that is not read"]
    assert "On other data" in report
    assert "Transfer is judged on 30 grey pictures of 16 x 16 pixels from folder others" in report
    assert "bits per dimension" in report


def test_what_is_judged_elsewhere_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(monkeypatch, images, "J1", "G3")
    pictures = Pictures(draw_photos(tmp_path / "photos", 40), size=16)
    others = draw_photos(tmp_path / "others", 40)

    def key(arms: tuple[str, ...] = ("J1", "R"), **other: Path) -> str:
        there = OtherPictures(**other)
        made = images.plan(pictures, other=there, samples=64, arms=arms, network=Network())
        return fingerprint(made.cells[0], 0, made.judging, made.budget)

    table = tmp_path / "labels.csv"
    table.write_text("\n".join(f"{path.name},{i % 3}" for i, path in enumerate(sorted(others.glob("*/*.png")))))
    moved = shutil.copytree(others, tmp_path / "moved")
    assert key() != key(transfer=others)
    assert key(transfer=others) == key(transfer=moved)
    assert key(transfer=others) != key(transfer=others, transfer_labels=table)
    assert key() == key(("J1",)) != key(("J1", "G3"))
    with pytest.raises(ValueError, match=r"--transfer-labels has no effect here: without --transfer"):
        key(transfer_labels=table)
    with pytest.raises(ValueError, match=r"labels of 0 class\(es\) in .*--transfer-labels"):
        key(transfer=others / "dark")


def test_a_table_of_labelled_series_gives_both_camps_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    tune(monkeypatch, sensors, "J4", "G1")
    hurry(monkeypatch, sensors)
    rows = ["x,y,activity,person"]
    for person in range(10):
        for row in range(192):
            activity = row // 96
            x, y = np.random.default_rng(1000 * person + row).normal(3 * activity, 1, 2)
            rows.append(f"{x:.3f},{y:.3f},{('sits', 'walks')[activity]},p{person}")
    Path("sensors.csv").write_text("\n".join(rows))
    words = ["sensors", "--data", "sensors.csv", "--window", "16", "--hop", "16", "--samples", "256"]
    metrics = compared(*words, "--arms", "J4", "G1", "R", *SMALL)
    check_camps(metrics, "J4", "G1", "R", read_outs=("linear", "logistic", "knn", "attentive", "finetuned"))
