"""The sensor lab's arms and plan: alike where they should be, tuned or absent, with floors that need no network."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from jepalab.backbones.vit import ViT
from jepalab.cli import main
from jepalab.compare.cells import judge_run
from jepalab.compare.grid import compare
from jepalab.compare.report import write_report
from jepalab.compare.series_pictures import hidden_rows
from jepalab.fit import fit
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.finetuning_shots import finetuning_shots
from jepalab.instruments.hand_features import hand_features
from jepalab.instruments.series_pictures import draw_series
from jepalab.masks.causal import PastFuture
from jepalab.masks.random import RandomMask
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_patch import NextPatch
from jepalab.recipes import sensors
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.recipes.sensors import ARMS, CONDITION
from jepalab.recipes.series_bench import Recordings, SeriesBench

SMALL = Network(patch=4, width=32, depth=2, num_heads=2, head_width=32, head_depth=2)
BRIEF = Schedule(steps=2, batch_size=8)
TRAINED = [name for name, arm in ARMS.items() if arm.knob]
SEARCHED = {
    "settings": {"lr": 1e-3, "weight_decay": 0.05},
    "score": 0.5,
    "scores": [0.4, 0.5],
    "expected_best_of_n": [0.45, 0.475],
    "share_above_random_encoder": 0.5,
}
TUNED = {"conditions": {CONDITION: dict.fromkeys(("J4", "G1"), SEARCHED)}}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Six people who swing at one of three speeds, 8 windows of 32 rows and 2 channels each, in one table."""
    place = tmp_path_factory.mktemp("recordings")
    dice, lines = np.random.default_rng(0), ["a,b,label,subject"]
    for subject in range(6):
        for label, speed in (("slow", 0.2), ("middling", 0.6), ("fast", 1.5)):
            phase = dice.uniform(0, 6.28)
            for row in range(8 * 32):
                swing = np.sin(speed * row + phase + np.array([0.0, 1.0])) + dice.normal(0, 0.1, 2)
                lines.append(f"{swing[0]:.4f},{swing[1]:.4f},{label},{subject}")
    (place / "swings.csv").write_text("\n".join(lines))
    return Recordings(data=place / "swings.csv", window=32, hop=32, cache=place / "cache")


@pytest.fixture
def bench(recordings: Recordings) -> SeriesBench:
    return SeriesBench(recordings=recordings, network=SMALL, schedule=BRIEF)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_from_the_same_first_weights_and_can_be_judged(arm: str, bench: SeriesBench) -> None:
    run = ARMS[arm].make(bench)
    if isinstance(run.objective.encoder, ViT):
        first = bench.encoder().state_dict()
        assert all(torch.equal(value, first[key]) for key, value in run.objective.encoder.state_dict().items())
        assert run.objective.encoder.grid == (8,)
    assert (run.steps > 0) == (arm in TRAINED)
    fit(run, device="cpu")
    scores = judge_run(run, sensors.judging("trial"))
    assert {"linear", "linear_validation"} <= scores.keys()
    assert ("student/linear" in scores) == (arm in {"J3", "J4"})
    assert ("average/linear" in scores) == (arm in {*TRAINED} - {"J3", "J4"})


@pytest.mark.parametrize("arm", [arm for arm in TRAINED if arm[0] in "JG"])
def test_heads_have_the_same_budget_within_a_tenth(arm: str, recordings: Recordings) -> None:
    bench = SeriesBench(recordings=recordings, schedule=BRIEF)
    counts, wanted = (ARMS[name].make(bench).count_parameters() for name in (arm, "J4"))
    head, budget = (each["trained"] - each["encoder"] for each in (counts, wanted))
    assert head == pytest.approx(budget, rel=0.1)


def test_the_first_three_jepas_see_the_past_and_predict_the_future(bench: SeriesBench) -> None:
    for arm in ("J1", "J2", "J3"):
        objective = ARMS[arm].make(bench).objective
        assert isinstance(objective, MaskedJEPA)
        assert objective.masks.sampler == PastFuture((8,), num_context=4)


def test_the_twin_of_the_masked_jepa_in_numbers_hides_what_it_hides(bench: SeriesBench) -> None:
    jepa, mae, usual = (ARMS[arm].make(bench).objective for arm in ("J4", "G1m", "G1"))
    assert isinstance(jepa, MaskedJEPA)
    assert isinstance(mae, MAE)
    assert isinstance(usual, MAE)
    assert isinstance(usual.masks.sampler, RandomMask)
    one, other = jepa.masks(8), mae.masks(8)
    assert torch.equal(one.context, other.context)
    assert torch.equal(one.target, other.target)


def test_contrasts_of_sensors_name_arms_that_take_part() -> None:
    declared = sensors.declare([*ARMS])
    assert {(c.better, c.than, c.metric) for c in declared} == {
        ("J4", "G1", "linear"),
        ("J4", "G1m", "linear"),
        ("J1", "G2", "linear"),
        ("G1", "J4", "finetuned"),
        ("J4", "R", "linear"),
        ("J4", "RAW", "linear"),
        ("J4", "HAND", "linear"),
        ("J4", "R", "finetuned_shot_5"),
    }
    assert len({c.name for c in declared}) == len(declared)
    alone = {(c.better, c.than) for c in declared if "only what is compared differs" in c.because}
    assert alone == {("J4", "G1m")}, "the others differ in masks too"
    assert {(c.better, c.than) for c in sensors.declare(["J4", "R"])} == {("J4", "R")}
    assert sensors.declare(["J4"]) == []


def test_floors_are_the_window_itself_and_what_engineers_made_of_it(bench: SeriesBench) -> None:
    x = bench.stream().held_out("test", 5).x
    raw, hand = (ARMS[arm].make(bench).objective.encoder for arm in ("RAW", "HAND"))
    torch.testing.assert_close(raw(x), x.flatten(1)[:, None])
    torch.testing.assert_close(hand(x), hand_features(x)[:, None])
    assert (raw.dim, hand.dim) == (64, hand_features(x).shape[1])


def test_patches_that_do_not_fit_are_refused(recordings: Recordings) -> None:
    for patch in (5, 16):
        network = Network(patch=patch, width=32, depth=2, num_heads=2)
        with pytest.raises(ValueError, match="cannot be cut into at least 4 patches"):
            SeriesBench(recordings=recordings, network=network).encoder()


def test_a_comparison_of_series_is_reported(recordings: Recordings, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensors, "tuned", lambda *_: TUNED)
        plan = sensors.plan(recordings, samples=256, num_seeds=1, patch=4, width=32, depth=2)
        brief = (attentive, partial(finetuning, num_steps=5), partial(finetuning_shots, num_steps=5))
        plan = replace(plan, judging=replace(plan.judging, of_the_first=brief))
        compare(plan, out=tmp_path, num_workers=1)
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert {cell["status"] for cell in cells} == {"done"}, [cell.get("error") for cell in cells]
    assert {cell["arm"] for cell in cells} == {"J4", "G1", "R", "RAW", "HAND"}
    page = write_report(tmp_path).read_text()
    for words in (
        "windows seen",
        "Left out, for want of tuned settings: J1, J2, J3, G1m, G2, S.",
        "6 groups, none of them in",
        "What is hidden of a window, and what is predicted",
        "What the probe confuses",
        "G1, a",
        "windows-windows.csv",
    ):
        assert words in page
    assert page.count("confusion-") >= 5, "of every arm"


def test_a_run_on_series_is_trained_probed_and_embedded(
    recordings: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place = ["--data", str(recordings.data), "--cache", str(recordings.cache)]
    words = ["--window", "32", "--hop", "32", "--patch", "4", "--width", "32", "--depth", "2", "--num-heads", "2"]
    small = [*words, "--head-width", "16", "--head-depth", "1", "--steps", "2", "--batch-size", "8", "--device", "cpu"]
    assert main(["train", "series-jepa", *place, "--out", "run", *small]) == 0
    capsys.readouterr()
    assert main(["probe", "run", *place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["scores"]) == {"teacher", "random init"}
    assert main(["embed", "run", *place, "--out", "z.npy"]) == 0
    assert np.load("z.npy").shape == (144, 32)
    lines = recordings.data.read_text().splitlines()
    Path("one.csv").write_text("\n".join([lines[0], *lines[1:257]]))  # one window after another, of one person
    few = ["--data", "one.csv", "--cache", str(recordings.cache)]
    assert main(["train", "series-jepa", *few, "--out", "on-few", *small]) == 1
    assert "class 'slow'" in capsys.readouterr().err
    assert main(["embed", "run", *few, "--out", "few.csv"]) == 0
    with Path("few.csv").open(newline="") as written:
        rows = list(csv.DictReader(written))
    assert [(row["label"], row["split"]) for row in rows] == [("slow", "")] * 8


def test_pictures_of_series_say_what_the_model_says(bench: SeriesBench) -> None:
    masked, stepwise, raw = (ARMS[arm].make(bench) for arm in ("G1", "G2", "RAW"))
    found = draw_series(masked.objective, masked.stream)
    windows, predicted, context = found["windows"], found["predicted"], found["context"]
    assert windows.shape == predicted.shape == (3, 32, 2)
    seen = context.repeat(4, axis=1)
    assert np.allclose(predicted[seen], windows[seen], atol=1e-5)
    assert (predicted[~seen] != windows[~seen]).all()
    assert list(found["channels"]) == ["a", "b"]
    test = bench.samples().labels[bench.samples().indices("test")]
    assert found["confusion"].sum() == len(test)
    assert found["confusion"].sum(1).tolist() == test.bincount(minlength=3).tolist()

    later = draw_series(stepwise.objective, stepwise.stream)["predicted"]
    assert np.allclose(later[:, :4], windows[:, :4], atol=1e-5)
    x = torch.tensor(windows)
    changed = x.clone()
    changed[:, 16:] += 1.0
    objective = stepwise.objective
    assert isinstance(objective, NextPatch)
    told = [objective.eval().predict(each, torch.ones(3, dtype=torch.long)) for each in (x, changed)]
    assert torch.equal(told[0][:, :3], told[1][:, :3]), "patches before the change"
    wanted = told[0] * objective.vit.std.repeat_interleave(4) + objective.vit.mean.repeat_interleave(4)
    drawn = torch.tensor(later[:, 4:]).unflatten(1, (7, 4)).transpose(2, 3).flatten(2)
    torch.testing.assert_close(drawn, wanted.detach(), atol=1e-4, rtol=1e-4)
    assert draw_series(raw.objective, raw.stream).keys() == {"windows", "channels", "confusion", "names"}


def test_pictures_of_series_are_those_of_the_encoder_that_stands_for_the_arm(bench: SeriesBench) -> None:
    run = ARMS["G1"].make(bench)
    average = run.objective.average
    assert average is not None
    for parameter in average.parameters():
        parameter.data.zero_()
    last, blind = (draw_series(run.objective, run.stream, encoder=name) for name in ("student", "average"))
    assert (last["confusion"] > 0).any(0).sum() > 1
    assert (blind["confusion"] > 0).any(0).sum() == 1, "a code of nothing is called one class"
    assert np.array_equal(last["predicted"], blind["predicted"]), "the decoder goes with the weights as trained"


def test_hidden_rows_are_those_of_hidden_patches() -> None:
    context = np.array([[True, False, False, True, False]])
    assert hidden_rows({"context": context}, 20) == [(4, 12), (16, 19)]
    assert hidden_rows({}, 20) == []
