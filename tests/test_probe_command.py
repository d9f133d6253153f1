"""`jepalab train`, `probe`, `embed` and `load` as a user meets them: a folder of pictures, a run, numbers to keep."""

from __future__ import annotations

import csv
import json
import re
import resource
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import jepalab
from jepalab import probing
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.cli import main
from jepalab.data.clips import open_clips
from jepalab.data.images import Images, open_images
from jepalab.data.series import open_series
from jepalab.hub.encoders import fresh_encoder, read_config, save_encoder
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.matching import match_channels, read_shape
from jepalab.instruments.posthoc import posthoc
from jepalab.probing import pixel_components
from jepalab.types import PatchEncoder

SIZE, WIDTH = 16, 24
SMALL = ["--size", "16", "--width", str(WIDTH), "--depth", "2", "--num-heads", "2", "--head-width", "12"]
SMALL += ["--head-depth", "1", "--steps", "3", "--batch-size", "16", "--device", "cpu", "--json"]
CLASSES = ("bright", "dark", "middling")  # as folders are sorted


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """photos/CLASS/I.png in colour, grey/I.png in no class folder with grey.csv beside it, and a run on the photos."""
    folder = tmp_path_factory.mktemp("lab")
    dice = np.random.default_rng(0)
    rows = ["file,label"]
    (folder / "grey").mkdir()
    for kind, light in zip(CLASSES, (160, 90, 125), strict=True):
        (folder / "photos" / kind).mkdir(parents=True)
        for i in range(40):
            pixels = (light + dice.normal(0, 30) + dice.normal(0, 40, (SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / kind / f"{i}.png")
            Image.fromarray(pixels[:, :, 0]).save(folder / "grey" / f"{kind}{i}.png")
            rows.append(f"{kind}{i}.png,{kind}")
    (folder / "grey.csv").write_text("\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEPALAB_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main(["train", "ijepa", "--data", "photos", "--out", "run", *SMALL]) == 0
        yield folder


def photo_files(lab: Path) -> list[Path]:
    return sorted((lab / "photos").glob("*/*.png"))


def open_by_hand(files: list[Path]) -> Tensor:
    """[n 1 c h w] in [0, 1], by Pillow alone."""
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    pixels = pixels if pixels.ndim == 4 else pixels[..., None]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)[:, None].float() / 255


def whose(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as lines:
        return list(csv.DictReader(lines))


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------- train and load


def test_training_leaves_its_encoders_to_be_loaded(lab: Path) -> None:
    checkpoint = safetensors.torch.load_file(lab / "run" / "checkpoints" / "step-000003" / "model.safetensors")
    for name, prefix in {"student": "encoder.", "teacher": "teacher.encoder."}.items():
        state = jepalab.load("run", encoder=name).state_dict()
        assert state.keys() == {key.removeprefix(prefix) for key in checkpoint if key.startswith(prefix)}
        assert all(torch.equal(value, checkpoint[prefix + key]) for key, value in state.items())
    assert torch.equal(jepalab.load("run").embed.weight, checkpoint["teacher.encoder.embed.weight"])
    facts = read_config(lab / "run" / "encoders" / "teacher")["facts"]
    images = open_images(lab / "photos", size=SIZE)
    assert facts == {
        "name": "teacher",
        "recipe": "ijepa",
        "data": {"digest": images.digest, "source": images.source, "names": [*CLASSES]},
    }


# ---------------------------------------------------------------- probe


def test_probe_scores_are_those_of_scikit_learn(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "probe", "run", "--data", "photos")
    assert found["encoder"] == "teacher"
    assert (found["num"], found["num_classes"]) == ({"train": 66, "validation": 27, "test": 27}, 3)
    assert found["chance"] == pytest.approx(1 / 3)
    assert main(["embed", "run", "--data", "photos", "--out", "teacher.npy"]) == 0
    rows = whose(lab / "teacher.csv")
    labels, splits = (np.array([row[column] for row in rows]) for column in ("label", "split"))
    teacher = jepalab.load("run")
    x = open_by_hand(photo_files(lab))
    flat = x.flatten(1).numpy()
    embeddings = {
        "teacher": np.load(lab / "teacher.npy"),
        "random init": fresh_encoder(teacher)(x).mean(1).numpy(),
        "pixel PCA": PCA(WIDTH, svd_solver="full").fit(flat[splits == "train"]).transform(flat),
    }
    assert found["scores"].keys() == embeddings.keys()
    for arm, z in embeddings.items():
        voting = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
        voting.fit(z[splits == "train"], labels[splits == "train"])
        assert found["scores"][arm]["knn"] == pytest.approx(voting.score(z[splits == "test"], labels[splits == "test"]))


def test_floor_of_pixels_is_fitted_to_training_pictures_alone(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PixelPCA] = []

    def note(images: Images, train: Tensor, *, dim: int) -> PixelPCA:
        made.append(pixel_components(images, train, dim=dim))
        return made[-1]

    monkeypatch.setattr(probing, "pixel_components", note)
    told(capsys, "probe", "run", "--data", "photos")
    x = open_by_hand(photo_files(lab))
    flat = x.flatten(1).double().numpy()
    theirs = PCA(WIDTH, svd_solver="full").fit(flat[open_photos(lab, "photos").splits.numpy() == 0]).transform(flat)
    (pca,) = made
    np.testing.assert_allclose(pca(x)[:, 0].abs(), np.abs(theirs), atol=1e-3)


def test_probe_says_what_its_numbers_mean(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "run", "--data", "photos"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in (
        "Test accuracy in %",
        "teacher",
        "random init",
        "pixel PCA",
        "27 test samples of 3 classes",
        "most common one gives 33.3 %",
        "learned from 66 labelled samples",
        "points from the better floor",
        "trained on the train split of these samples",
    ):
        assert said in shown
    assert "attentive" not in shown
    assert main(["probe", "run", "--data", "grey", "--labels", "grey.csv"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "trained on other samples, or with other labels" in shown
    assert "built for pictures in colour: grey was repeated" in shown


def test_probe_reads_what_it_is_asked_to(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "attentive", partial(attentive, num_epochs=1, rates=(1e-3,)))
    monkeypatch.setattr(probing, "finetuning", partial(finetuning, num_steps=2, rates=(1e-3,)))
    flags = ("--attentive", "--finetune", "--shots", "--layers")
    student, teacher = (
        told(capsys, "probe", "run", "--data", "photos", "--encoder", e, *flags) for e in ("student", "teacher")
    )
    assert teacher["encoder"] == "teacher"
    wanted = {"linear", "logistic", "knn", "attentive", "finetuned", "shot_1", "shot_all", "linear_level_1"}
    for found in (student, teacher):
        name, *floors = found["scores"]
        assert wanted <= found["scores"][name].keys() == found["scores"]["random init"].keys()
        assert {"linear", "shot_1"} <= found["scores"]["pixel PCA"].keys()
        assert floors == ["random init", "pixel PCA"]
    assert student["scores"]["random init"] == teacher["scores"]["random init"]
    assert student["scores"]["student"] != teacher["scores"]["teacher"]
    assert main(["probe", "run", "--data", "photos", *flags]) == 0
    shown = capsys.readouterr().out
    assert "By labels a class" in shown
    assert "By layer, linear" in shown
    assert re.search(r"pixel PCA [^\n]* - [^\n]* - ", shown)


def test_full_read_outs_are_those_of_the_image_lab(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "attentive", partial(attentive, num_epochs=1, rates=(1e-3,)))
    monkeypatch.setattr(probing, "finetuning", partial(finetuning, num_steps=2, rates=(1e-3,)))
    monkeypatch.setattr(probing, "posthoc", partial(posthoc, num_steps=2))
    full = ["probe", "run", "--data", "photos", "--read-outs", "full"]
    scores = told(capsys, *full)["scores"]
    name, *_ = scores
    wanted = {
        "linear",
        "linear_sgd",
        "attentive",
        "finetuned",
        "shot_1",
        "linear_level_1",
        "robust_noise",
        "robust_mean",
    }
    wanted |= {"lidar", "cka_with_pixels", "rankme", "posthoc_psnr", "posthoc_pooled_psnr"}
    assert wanted <= scores[name].keys() == scores["random init"].keys()
    assert {"linear_sgd", "shot_1"} <= scores["pixel PCA"].keys()
    assert scores[name]["robust_clean"] == pytest.approx(scores[name]["linear"])
    assert not {"linear_sgd", "rankme", "robust_mean"} & told(capsys, *full[:-2])["scores"][name].keys()
    assert main(full) == 0
    shown = capsys.readouterr().out
    for title in ("BN + SGD", "Corrupted pictures, linear in %", "Geometry: a diagnosis", "PSNR in dB"):
        assert title in shown


def test_certainty_counts_videos_and_groups_once() -> None:
    found = {"num": {"train": 80, "validation": 20, "test": 100}, "chance": 0.5, "num_classes": 2}
    found |= {"scores": {"student": {"linear": 0.8}}, "test_units": [100, "picture"]}
    assert "So many tell an accuracy to about ± 7.8 points" in " ".join(probing.in_words(found))
    words = " ".join(probing.in_words(found | {"test_units": [25, "video"]}))
    assert "They come from 25 video(s), and what comes from one goes together" in words
    assert "tell an accuracy to about ± 15.7 points" in words


def test_clips_of_one_video_and_windows_of_one_person_are_one_unit(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    videos = dice.integers(0, 256, (40, 12, 8, 8), dtype=np.uint8)
    clips = open_clips(videos, num_frames=4, size=8, clips_per_video=3, labels=np.arange(40) % 2, cache=tmp_path)
    test = clips.indices("test")
    assert (len(test), clips.num_units(test), clips.unit) == (24, 8, "video")
    values = dice.normal(size=(400, 2))
    people, kinds = np.arange(400) // 40, np.arange(400) // 20 % 2
    series = open_series(values, window=8, hop=4, labels=kinds, groups=people)
    assert series.num_units(series.indices("test")) == 2
    assert len(series.indices("test")) == 18


def test_floor_of_pixels_has_no_floor_under_it(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "image-pca", "--data", "photos", "--out", "components", *SMALL]
    assert main(run) == 0
    assert told(capsys, "probe", "components", "--data", "photos")["scores"].keys() == {"student"}


# ---------------------------------------------------------------- pictures that do not fit


def open_photos(lab: Path, name: str) -> Images:
    return open_images(lab / name, size=SIZE)


def test_colour_meets_grey_and_grey_colour(lab: Path, generator: torch.Generator) -> None:
    colour = ViT((4, 4), patch=(4, 4), channels=3, dim=8, depth=2, num_heads=2)
    grey = ViT((4, 4), patch=(4, 4), channels=1, dim=8, depth=2, num_heads=2)
    x = torch.rand(2, 1, 3, SIZE, SIZE, generator=generator)
    luma = (0.299 * x[:, :, 0] + 0.587 * x[:, :, 1] + 0.114 * x[:, :, 2])[:, :, None]
    photos, greys = open_photos(lab, "photos"), open_photos(lab, "grey")
    assert match_channels(colour, photos) is colour
    assert match_channels(grey, greys) is grey
    keep = torch.tensor([[3, 1], [0, 15]])
    for encoder, images, given, wanted in (
        (grey, photos, x, luma),
        (colour, greys, luma, luma.expand(-1, -1, 3, -1, -1)),
    ):
        matched = match_channels(encoder, images)
        assert isinstance(matched, PatchEncoder)
        assert (matched.dim, matched.grid, matched.patch_dim) == (8, (4, 4), encoder.patch_dim)
        torch.testing.assert_close(matched(given), encoder(wanted))
        torch.testing.assert_close(matched(given, keep, True), encoder(wanted, keep, True))
        torch.testing.assert_close(matched.patches(given), encoder.patches(wanted))
        torch.testing.assert_close(matched.levels(given), encoder.levels(wanted))
    network = ResNet(SIZE, channels=1, widths=(8,), num_blocks=(1,))
    matched = match_channels(network, photos)
    assert not isinstance(matched, PatchEncoder)
    torch.testing.assert_close(matched(x), network(luma))


def test_encoder_tells_what_samples_it_takes() -> None:
    assert read_shape(ViT((4,), patch=(3,), channels=6, dim=8, num_heads=2)) == (12, 6)
    assert read_shape(ViT((2, 4, 4), patch=(2, 3, 3), dim=8, num_heads=2)) == (4, 1, 12, 12)
    assert read_shape(ViT((4, 4), patch=(3, 3), channels=3, dim=8, num_heads=2)) == (1, 3, 12, 12)
    assert read_shape(ViT((1, 4, 4), patch=(1, 3, 3), channels=1, dim=8, num_heads=2)) == (1, 1, 12, 12)
    assert read_shape(ResNet(8, channels=1, widths=(8,), num_blocks=(1,))) == (1, 1, 8, 8)
    for encoder, said in (
        (ViT((4, 2), patch=(3, 3), dim=8, num_heads=2), "reads 12 x 6 pixels"),
        (ViT((4, 4), patch=(3, 3), channels=2, dim=8, num_heads=2), "and this ViT reads 2"),
    ):
        with pytest.raises(ValueError, match=said):
            read_shape(encoder)


# ---------------------------------------------------------------- embed


def test_embeddings_are_the_mean_tokens_in_the_order_of_the_files(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepalab.embedding.SAMPLES_AT_ONCE", 17)
    monkeypatch.setattr("jepalab.feature_files.ROWS_OF_A_GROUP", 50)
    files = photo_files(lab)
    with torch.no_grad():
        z = jepalab.load("run", encoder="teacher")(open_by_hand(files))
    names = [file.relative_to(lab / "photos").as_posix() for file in files]
    embed = ["embed", "run", "--data", "photos", "--encoder", "teacher", "--out"]

    assert main([*embed, "deep/features.npy"]) == 0
    array = np.load(lab / "deep" / "features.npy", mmap_mode="r")
    assert (array.dtype, array.shape) == (np.float32, (120, WIDTH))
    np.testing.assert_allclose(array, z.mean(1), atol=1e-5)
    rows = whose(lab / "deep" / "features.csv")
    assert [row["file"] for row in rows] == names
    assert [row["label"] for row in rows] == [name.split("/")[0] for name in names]
    splits = open_images(lab / "photos", size=SIZE).splits.tolist()
    assert [row["split"] for row in rows] == [("train", "validation", "test")[split] for split in splits]

    assert main([*embed, "all.npy", "--tokens"]) == 0
    np.testing.assert_allclose(np.load(lab / "all.npy"), z, atol=1e-5)

    assert main([*embed, "features.parquet"]) == 0
    table = pq.read_table(lab / "features.parquet")
    assert pq.ParquetFile(lab / "features.parquet").num_row_groups == 3
    assert str(table.schema.field("embedding").type) == f"fixed_size_list<element: float>[{WIDTH}]"
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), array)
    assert [{k: v for k, v in row.items() if k != "embedding"} for row in table.to_pylist()] == rows

    assert main([*embed, "features.csv"]) == 0
    read = whose(lab / "features.csv")
    np.testing.assert_array_equal(np.array([[row[f"z{i}"] for i in range(WIDTH)] for row in read], np.float32), array)
    assert [{k: v for k, v in row.items() if k[0] != "z"} for row in read] == rows
    assert not [*lab.rglob("*.partial-*")]


def test_unlabelled_grey_pictures_are_embedded_by_an_encoder_of_colour(lab: Path) -> None:
    assert main(["embed", "run", "--data", "grey", "--out", "grey.parquet"]) == 0
    table = pq.read_table(lab / "grey.parquet")
    x = open_by_hand(sorted((lab / "grey").glob("*.png"))).expand(-1, -1, 3, -1, -1)
    with torch.no_grad():
        z = jepalab.load("run")(x).mean(1)
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), z, atol=1e-5)
    assert table["label"].null_count == 120


def test_ordinary_folders_are_embedded_and_trained_on(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One picture; albums of 30 and of 2; albums that are no classes at all."""
    sizes = {"one": {"": 1}, "albums": {"holiday": 30, "zoo": 2}}
    for name, albums in sizes.items():
        for number, (album, num) in enumerate(albums.items()):
            (lab / name / album).mkdir(parents=True, exist_ok=True)
            for i, file in enumerate(photo_files(lab)[40 * number :][:num]):
                (lab / name / album / f"{i:02}.png").write_bytes(file.read_bytes())
    assert main(["embed", "run", "--data", "one", "--out", "one.npy"]) == 0
    assert np.load(lab / "one.npy").shape == (1, WIDTH)
    assert whose(lab / "one.csv") == [{"file": "00.png", "label": "", "split": ""}]
    assert main(["embed", "run", "--data", "albums", "--out", "albums.npy"]) == 0
    assert [row["label"] for row in whose(lab / "albums.csv")] == ["holiday"] * 30 + ["zoo"] * 2
    capsys.readouterr()
    assert main(["train", "ijepa", "--data", "albums", "--out", "on-albums", *SMALL]) == 0
    said = capsys.readouterr().err
    assert "2 of them in 1 class(es) too small to be split, so that they train without their label: zoo 2" in said
    assert main(["train", "ijepa", "--data", "photos", "--labels", "none", "--out", "unlabelled", *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {}
    assert main(["embed", "run", "--data", "photos", "--labels", "none", "--out", "unlabelled.npy"]) == 0
    assert {row["label"] for row in whose(lab / "unlabelled.csv")} == {""}


def test_full_disk_leaves_nothing_behind(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in ("full.npy", "full.csv", "full.parquet"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))
        try:
            assert main(["embed", "run", "--data", "photos", "--out", name]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said = capsys.readouterr().err
        assert re.search(rf"error: .*Could not write the features \(.*\); about 0 MB are needed: '{name}'", said)
    assert not [*lab.glob("*full*")]


def test_missing_pyarrow_is_named(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert main(["embed", "run", "--data", "photos", "--out", "features.parquet"]) == 1
    assert 'pip install "jepalab[parquet]"' in capsys.readouterr().err


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("probe nowhere --data photos", "There is no nowhere; wanted the folder of a run"),
        ("probe photos --data photos", "photos is neither the folder of a run nor of an encoder"),
        ("probe unfinished --data photos", "unfinished holds a run without encoders"),
        ("probe run --data photos --encoder tutor", "run has no encoder 'tutor'; it has: teacher, student."),
        ("probe run --data nothing", "there is no nothing"),
        ("probe run --data run", "run holds no picture"),
        ("probe run --data grey", "The samples in grey have no labels, and a probe reads classes"),
        ("probe run --data grey --labels none.csv", "none.csv cannot be read"),
        ("probe run --data photos --share 0", "A share of the samples is above 0 and at most 1, got 0.0."),
        ("probe run --data photos --device gpu", "No device 'gpu' here"),
        ("probe series --data photos", "Wanted CSV, parquet or .npy files of series"),
        ("embed nowhere --data photos --out z.npy", "There is no nowhere"),
        ("embed run --data nothing --out z.npy", "there is no nothing"),
        ("embed run --data photos --out z.pt", "ends in .parquet, .npy, .csv, got 'z.pt'"),
        ("embed run --data photos --out z", "ends in .parquet, .npy, .csv, got 'z'"),
        ("embed run --data photos --out z.csv --tokens", "All tokens of a picture fit into a .npy file only"),
        ("embed run --data photos --out folder.npy", "folder.npy is a folder"),
        ("embed run --data photos --out grey.npy", "goes into grey.csv, where another file lies"),
        ("embed run --data photos --out grey.csv/z.npy", "grey.csv"),
    ],
)
def test_mistake_ends_in_a_sentence(words: str, said: str, lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "folder.npy").mkdir(exist_ok=True)
    (lab / "unfinished").mkdir(exist_ok=True)
    (lab / "unfinished" / "run.json").write_text("{}")
    save_encoder(ViT((4,), patch=(3,), dim=8, depth=1, num_heads=2), lab / "series")
    assert main(words.split()) == 1
    told = capsys.readouterr().err
    assert said in told
    assert [line for line in told.splitlines() if line.startswith("error: ")] == [told.splitlines()[-1]]
    assert (lab / "grey.csv").read_text().startswith("file,label\n")
    assert not [*lab.glob("z*")]


def test_read_only_folder_is_refused_before_anything_is_computed(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # who runs as root may write everywhere
    assert main(["embed", "run", "--data", "photos", "--out", "z.npy"]) == 1
    assert "May not write into" in capsys.readouterr().err


def test_run_that_was_moved_still_works(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(lab / "run" / "encoders", tmp_path / "elsewhere" / "encoders")
    here = told(capsys, "probe", "run", "--data", "photos")
    there = told(capsys, "probe", tmp_path / "elsewhere", "--data", "photos")
    assert here["scores"] == there["scores"]
