"""The video lab: arms alike where they should be, tuned or absent, and clips that play without a script."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jepalab.backbones.positions import Positions
from jepalab.backbones.vit import ViT
from jepalab.cli import main
from jepalab.compare.cells import judge_run
from jepalab.compare.contrasts import Equivalent
from jepalab.compare.grid import compare
from jepalab.compare.movies import encode_movies, on_pixels
from jepalab.compare.report import write_report
from jepalab.data import clips as clips_module
from jepalab.data.motion_paths import MOTIONS
from jepalab.data.sprites import Split
from jepalab.fit import fit
from jepalab.instruments.clip_pictures import draw_clips
from jepalab.instruments.forecasting import forecaster
from jepalab.losses.distances import mean_absolute
from jepalab.losses.pixels import NormChannels
from jepalab.losses.targets import SeveralLevels
from jepalab.masks.causal import DrawnPast
from jepalab.masks.random import RandomTubes
from jepalab.masks.tubes import Tubes
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.recipes import clip_arms, clip_bench, video
from jepalab.recipes.clip_bench import ClipBench, Footage
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.recipes.video import ARMS, CONDITION, MAIN

SMALL = Network(patch=4, width=32, depth=2, num_heads=2, head_width=32, head_depth=2)
BRIEF = Schedule(steps=2, batch_size=8)
TRAINED = [name for name, arm in ARMS.items() if arm.knob]
EMA_TAUGHT = {"J1", "J1c", "J1p", "J1x", "J4"}
SEARCHED = {
    "settings": {"lr": 1e-3, "weight_decay": 0.05},
    "score": 0.5,
    "scores": [0.4, 0.5],
    "expected_best_of_n": [0.45, 0.475],
    "share_above_random_encoder": 0.5,
}
TUNED = {"conditions": {CONDITION: dict.fromkeys(("J1", "G2", "G3"), SEARCHED)}}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    """Ninety clips of 4 frames of 16 pixels in three classes, by how light they are, in folders of frames."""
    place = tmp_path_factory.mktemp("footage")
    generator = np.random.default_rng(0)
    for label in range(3):
        for number in range(30):
            folder = place / f"data/class {label}/{number}"
            folder.mkdir(parents=True)
            light = generator.integers(60 * label, 60 * label + 100, (16, 16, 3))
            for frame in range(4):
                Image.fromarray((light + 3 * frame).astype(np.uint8)).save(folder / f"{frame}.png")
    return Footage(data=place / "data", size=16, num_frames=4, stride=1, cache=place / "cache")


@pytest.fixture
def bench(footage: Footage) -> ClipBench:
    return ClipBench(footage=footage, network=SMALL, schedule=BRIEF)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_from_the_same_first_weights_and_can_be_judged(arm: str, bench: ClipBench) -> None:
    run = ARMS[arm].make(bench)
    if isinstance(run.objective.encoder, ViT):
        first = bench.encoder().state_dict()
        assert all(torch.equal(value, first[key]) for key, value in run.objective.encoder.state_dict().items())
        assert run.objective.encoder.grid == (2, 4, 4)
    assert (run.steps > 0) == (arm in TRAINED)
    fit(run, device="cpu")
    scores = judge_run(run, video.judging("trial"))
    assert {"linear", "linear_validation"} <= scores.keys()
    assert ("student/linear" in scores) == (arm in EMA_TAUGHT)
    assert ("average/linear" in scores) == (arm in {*TRAINED} - EMA_TAUGHT)


@pytest.mark.parametrize("arm", [arm for arm in TRAINED if arm[0] in "JG"])
def test_heads_have_the_same_budget_within_a_tenth(arm: str, footage: Footage) -> None:
    bench = ClipBench(footage=footage, schedule=BRIEF)
    counts, wanted = (ARMS[name].make(bench).count_parameters() for name in (arm, "J1"))
    head, budget = (each["trained"] - each["encoder"] for each in (counts, wanted))
    assert head == pytest.approx(budget, rel=0.1)


def test_vjepa_hides_two_kinds_of_tubes_each_with_its_mask_token(bench: ClipBench) -> None:
    objective = ARMS["J1"].make(bench).objective
    assert isinstance(objective, MaskedJEPA)
    assert len(objective.further_masks) == 1
    assert objective.predictor.num_mask_tokens == 2


def test_videomae_hides_what_it_is_told(bench: ClipBench) -> None:
    """Nine tubes in ten as published, and each channel normalised on its own."""
    shares = []
    for options in ({}, {"hidden": 0.5}, {"masks": "multi-block"}):
        objective = clip_arms.videomae(bench, **options).objective
        assert isinstance(objective, MAE)
        shares.append(objective.masks(4).context.shape[1] / prod(bench.grid))
        assert objective.target == NormChannels(bench.samples().channels)
    assert shares[:2] == pytest.approx([0.1, 0.5], abs=0.5 / prod(bench.grid[1:]))
    assert isinstance(objective.masks.sampler, Tubes)


def test_the_twin_of_vjepa_in_pixels_hides_what_vjepa_hides(bench: ClipBench) -> None:
    jepa, mae = (ARMS[arm].make(bench).objective for arm in ("J1", "G1m"))
    assert isinstance(jepa, MaskedJEPA)
    assert isinstance(mae, MAE)
    drawn = [
        [draw(8) for draw in (objective.masks, *objective.further_masks)]  # type: ignore[attr-defined]
        for objective in (jepa, mae)
    ]
    assert len(drawn[0]) == len(drawn[1]) == 2
    for ours, theirs in zip(*drawn, strict=True):
        assert torch.equal(ours.context, theirs.context)
        assert torch.equal(ours.target, theirs.target)
    published, crossed = (ARMS[arm].make(bench).objective for arm in ("G1", "J1x"))
    assert isinstance(published, MAE)
    assert isinstance(crossed, MaskedJEPA)
    assert published.masks.sampler == crossed.masks.sampler == RandomTubes(bench.grid, share=0.9)
    assert not crossed.further_masks
    assert "J1x" not in MAIN
    half = clip_arms.vjepa(bench, masks="random", hidden=0.5).objective
    assert isinstance(half, MaskedJEPA)
    assert half.masks.sampler == RandomTubes(bench.grid, share=0.5)


@pytest.mark.parametrize("arm", ["J1", "J1c", "J1x", "J2", "J3", "J4"])
def test_embeddings_are_compared_by_l1_as_published(arm: str, bench: ClipBench) -> None:
    objective = ARMS[arm].make(bench).objective
    assert isinstance(objective, MaskedJEPA)
    assert objective.distance is mean_absolute


@pytest.mark.parametrize(("depth", "levels"), [(2, (0, 1)), (4, (0, 1, 2, 3)), (12, (2, 5, 8, 11))])
def test_the_dense_arm_reads_and_predicts_four_levels_and_weighs_the_context(
    depth: int, levels: tuple[int, ...], footage: Footage
) -> None:
    bench = ClipBench(footage=footage, network=replace(SMALL, depth=depth), schedule=BRIEF)
    objective = ARMS["J4"].make(bench, context=0.3).objective
    assert isinstance(objective, MaskedJEPA)
    assert objective.targets == objective.reads == SeveralLevels(levels)
    assert objective.weights == {"ema": 1.0, "ema_context": 0.3}


def test_causal_tubes_show_part_of_the_first_half_alone(bench: ClipBench) -> None:
    objective = ARMS["J1c"].make(bench).objective
    assert isinstance(objective, MaskedJEPA)
    assert objective.predictor.num_mask_tokens == 2
    for drawer in (objective.masks, *objective.further_masks):
        mask = drawer(64)
        assert int(mask.context.max()) < 16, "of two times of 4 x 4 patches"
        assert mask.context.shape[1] < 16, "places are hidden in the first half too"
        for target in mask.target[:, 0]:
            assert set(range(16, 32)) < set(target.tolist()), "all of the second half and more"


def test_arms_of_the_past_see_pasts_of_every_length_and_the_same_ones(footage: Footage) -> None:
    """Encoders are read on whole clips: whoever only ever saw first halves would be judged on strange input."""
    bench = ClipBench(footage=footage, network=SMALL, schedule=BRIEF, tubelet=1)
    jepa, pixels, noise = (ARMS[arm].make(bench).objective for arm in ("J1p", "G2", "G3"))
    assert isinstance(jepa, MaskedJEPA)
    assert jepa.distance is mean_absolute
    assert isinstance(pixels, MAE)
    assert isinstance(noise, DenoiseHidden)
    drawers = [jepa.masks, pixels.masks, noise.masks]
    assert {drawer.sampler for drawer in drawers} == {DrawnPast((4, 4, 4))}
    drawn = [[int(drawer(2).context.shape[1]) for _ in range(40)] for drawer in drawers]
    assert set(drawn[0]) == {16, 32, 48}
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_jepa_of_the_past_takes_part_in_forecasts(bench: ClipBench) -> None:
    def clips(split: Split, num: int) -> torch.Tensor:
        return torch.rand(num, *(4, 3, 16, 16))

    told = {arm: forecaster(ARMS[arm].make(bench).objective.eval(), clips) for arm in ("J1", "J1c", "J1p", "G3")}
    assert {arm for arm, each in told.items() if each} == {"J1p", "G3"}


def test_contrasts_name_arms_whose_masks_are_those_of_the_source() -> None:
    declared = {(c.better, c.than, c.metric): c for c in video.declare([*ARMS])}
    pairs = [pair for pair in declared if pair[:2] == ("J1", "G1m")]
    assert {metric for *_, metric in pairs} == {"attentive", "linear", "finetuned"}
    tie = declared["J1", "G1m", "finetuned"]
    assert isinstance(tie, Equivalent)
    assert tie.margin == 0.02
    assert "85.6 against 85.4" in tie.source
    assert all("table 1" in declared[pair].source for pair in pairs)
    assert "table 1" not in declared["J1", "G1", "attentive"].source, "which has the same masks for both"
    assert "table 4" in declared["J1", "J1c", "linear"].source
    assert "same masks" in declared["J1p", "G2", "linear"].source
    assert ("J1", "G2", "linear") not in declared, "whose masks differ"
    pretrained = [c for c in declared.values() if c.metric == "linear" and "Bardes" in c.source]
    assert len(pretrained) == 3
    assert all("read there by an attentive probe" in c.source for c in pretrained)
    assert not any("77.8" in c.source for c in declared.values()), "a number that nobody checked"
    names = [contrast.name for contrast in declared.values()]
    assert len({*names}) == len(names)
    assert [(c.better, c.than) for c in video.declare(["G1", "R"])] == [("G1", "R")]
    assert video.declare(["J1"]) == []


def test_all_arms_see_the_same_clips_and_crops(bench: ClipBench) -> None:
    batches = [ARMS[arm].make(bench).stream.batch(3).x for arm in ("J1", "J2", "G1", "G3")]
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert batches[0].shape == (8, 4, 3, 16, 16)


def test_frames_of_a_clip_are_cropped_alike(footage: Footage) -> None:
    """The frames of these clips differ by a constant, and so they must after any crop."""
    x = ClipBench(footage=replace(footage, flip=0.5), network=SMALL, schedule=BRIEF).stream().batch(0).x
    change = x.diff(dim=1)
    torch.testing.assert_close(change, torch.full_like(change, 3 / 255), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("changes", "said"), [({"patch": 5}, "cannot be cut"), ({"patch": 8}, "cannot be cut")])
def test_patches_that_do_not_fit_are_refused(footage: Footage, changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ClipBench(footage=footage, network=replace(SMALL, **changes)).encoder()
    with pytest.raises(ValueError, match=said):
        ClipBench(footage=footage, network=SMALL, tubelet=3).encoder()


def test_without_data_the_motion_classes_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def drawn(images: object, **settings: Any) -> clips_module.Clips:
        asked.update(settings)
        return clip_bench_motions(images, **settings | {"num_train": 48, "num_validation": 16, "num_test": 16})

    clip_bench_motions = clip_bench.motion_clips
    monkeypatch.setattr(clip_bench, "motion_clips", drawn)
    clips = Footage(cache=tmp_path, strength=0.5, persistence=1.0, drift=0.1).open()
    assert clips.names == list(MOTIONS)
    assert (asked["nuisance"].strength, asked["nuisance"].persistence, asked["drift"]) == (0.5, 1.0, 0.1)


def test_main_arms_cover_both_camps_floors_and_ceiling() -> None:
    assert {"J1", "J1p", "G1", "G2", "G3", "S", "R", "PCA"} <= {*MAIN}
    assert all(ARMS[arm].knob for arm in MAIN if arm not in {"R", "PCA"})


@pytest.fixture(scope="module")
def report(footage: Footage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a comparison of three arms and their floors, with two steps each."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "tuned", lambda *_: TUNED)
        patch.setattr(video, "CLIP_NETWORK", SMALL)
        plan = video.plan(footage, samples=128, num_seeds=1, patch=4, width=32, depth=2, read_outs="quick")
        compare(plan, out=folder, num_workers=1)
    cells = json.loads((folder / "results.json").read_text())["cells"]
    assert {cell["status"] for cell in cells} == {"done"}, [cell.get("error") for cell in cells]
    return write_report(folder).read_text()


def test_untuned_arms_do_not_compete_and_the_report_says_so(report: str) -> None:
    assert "Left out, for want of tuned settings: J1c, J1p, J2, G1, G1m, S." in report


def test_report_counts_clips_and_plays_them(report: str) -> None:
    for heading in (
        "What is hidden over time, and what is predicted",
        "Prediction against truth",
        "The second half, foretold from the first",
        "Mean squared error of foretold pixels",
        "last frame repeated",
        "What the encoders see over time",
        "Which clips lie near",
        "How few labels are enough?",
    ):
        assert heading in report
    assert "clips seen" in report
    assert "J1, mask 2: " in report, "the long-range tubes are shown too"
    assert "<script" not in report
    addresses = re.findall(r'src="data:image/webp;base64,([^"]+)"', report)
    assert len(addresses) >= 10
    for address in addresses[:3]:
        movie = Image.open(io.BytesIO(base64.b64decode(address)))
        assert getattr(movie, "n_frames", 1) == 4


def test_pictures_of_clips_are_those_of_the_encoder_that_stands_for_the_arm(bench: ClipBench) -> None:
    run = ARMS["G1"].make(bench)
    average = run.objective.average
    assert average is not None
    for parameter in average.parameters():
        parameter.data.normal_()
    last, other = (draw_clips(run.objective, run.stream, encoder=name) for name in ("student", "average"))
    assert not np.array_equal(last["features"], other["features"])
    assert np.array_equal(last["predicted"], other["predicted"]), "the decoder goes with the weights as trained"


def test_movies_keep_every_frame_and_pixel() -> None:
    dice = np.random.default_rng(0)
    movies = dice.integers(0, 255, (2, 5, 6, 7, 3), dtype=np.uint8)
    address, width, height = encode_movies(movies)
    movie = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    assert (width, height) == movie.size == (7 + 2 + 7, 6)
    assert movie.n_frames == 5  # type: ignore[attr-defined]
    for t in range(5):
        movie.seek(t)
        frame = np.asarray(movie.convert("RGB"))
        assert (frame[:, :7] == movies[0, t]).all()
        assert (frame[:, 9:] == movies[1, t]).all()


def test_patches_cover_their_pixels_at_their_times() -> None:
    numbers = np.arange(2 * 2 * 3).reshape(1, 12)
    shown = on_pixels(numbers, (2, 2, 3), (4, 4, 6))
    assert shown.shape == (1, 4, 4, 6)
    assert (shown[0, :2, :2, :2] == 0).all()
    assert (shown[0, 2:, 2:, 4:] == 11).all()


def test_a_run_on_clips_is_trained_probed_and_embedded(
    footage: Footage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ["--cache", str(footage.cache)]
    words = ["--size", "16", "--num-frames", "4", "--stride", "1", "--width", "32", "--depth", "2", "--num-heads", "2"]
    small = [*words, "--head-width", "16", "--head-depth", "1", "--steps", "2", "--batch-size", "8", "--device", "cpu"]
    assert main(["train", "vjepa", "--data", str(footage.data), "--out", "run", *small, *cache]) == 0
    capsys.readouterr()
    assert main(["probe", "run", "--data", str(footage.data), "--stride", "1", *cache, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_classes"] == 3
    assert set(found["scores"]) == {"teacher", "random init", "pixel PCA"}
    assert main(["embed", "run", "--data", str(footage.data), "--stride", "1", *cache, "--out", "z.npy"]) == 0
    assert np.load("z.npy").shape == (90, 32)
    few = tmp_path / "few"
    for label in range(2):
        for each in (0, 1):
            shutil.copytree(footage.data / f"class {label}/{each}", few / f"class {label}/{each}")
    assert main(["train", "vjepa", "--data", str(few), "--out", "on-few", *small, *cache]) == 1
    assert "class 'class 0'" in capsys.readouterr().err
    assert main(["embed", "run", "--data", str(few), "--stride", "1", *cache, "--out", "few.csv"]) == 0
    with Path("few.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["label"], row["split"]) for row in rows] == [("class 0", "")] * 2 + [("class 1", "")] * 2


@pytest.mark.parametrize("positions", ["rope", "rope-tiled"])
def test_positions_reach_encoder_and_predictor(positions: Positions, footage: Footage) -> None:
    network = replace(SMALL, head_width=16, positions=positions)
    objective = ClipBench(footage=footage, network=network, schedule=BRIEF)
    run = ARMS["J1"].make(objective)
    jepa = run.objective
    assert isinstance(jepa, MaskedJEPA)
    assert isinstance(jepa.encoder, ViT)
    assert (jepa.encoder.position_kind, jepa.predictor.position_kind) == (positions, positions)
    fit(run, device="cpu")


def test_the_usual_network_is_called_as_before_there_were_other_positions() -> None:
    """Fingerprints of results hold the repr: a default that says nothing new must not say it differently."""
    said = "Network(patch=4, width=32, depth=2, num_heads=2, head_width=32, head_depth=2)"
    assert repr(SMALL) == said
    assert repr(replace(SMALL, positions="rope")) == f"{said[:-1]}, positions='rope')"
