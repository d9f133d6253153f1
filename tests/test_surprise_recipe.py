"""The surprise experiment: arms alike where they should be, floors that learned nothing, surprise under the frames."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from jepalab.compare import grid
from jepalab.compare.contrasts import Better
from jepalab.compare.drawing import Look
from jepalab.compare.readings import Arm, Readings
from jepalab.compare.report import write_report
from jepalab.compare.surprise_pictures import _around
from jepalab.compare.surprise_strips import draw_aligned
from jepalab.compare.surprise_tables import concept_table, learning_table
from jepalab.fit import fit
from jepalab.instruments.surprise import NUM_PAIRS
from jepalab.losses.distances import mean_absolute
from jepalab.masks.causal import DrawnPast
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.recipes import surprise, surprise_floors
from jepalab.recipes.surprise import ARMS, CONDITIONS
from jepalab.recipes.surprise_arms import OccludedWorld
from jepalab.recipes.surprise_floors import expectation, expecting_subjects

TRAINED = [name for name, arm in ARMS.items() if arm.knob]
SEARCHED = {
    "settings": {"lr": 1e-3, "weight_decay": 1e-4},
    "score": 0.5,
    "scores": [0.4, 0.5],
    "expected_best_of_n": [0.45, 0.475],
    "share_above_random_encoder": 0.5,
}
TUNED = {"conditions": {"clean": dict.fromkeys(("J1", "G2"), SEARCHED), "tv 1": {"J1": SEARCHED}}}
CLIP_MODELS = {"J4", "G1", "G3", "G4"}
FEW = 4 / NUM_PAIRS["test"]


@pytest.mark.parametrize("arm", TRAINED)
def test_every_arm_trains_on_the_same_clips_and_can_be_judged(arm: str) -> None:
    run = surprise.make_run(0, arm=arm, world=CONDITIONS["tv 1"], settings={}, steps=1)
    other = surprise.make_run(0, arm="J1", world=CONDITIONS["tv 1"], settings={}, steps=1)
    assert torch.equal(run.stream.batch(0).x, other.stream.batch(0).x)
    family = [name for name in TRAINED if (name in CLIP_MODELS) == (arm in CLIP_MODELS)]
    firsts = [
        surprise.make_run(0, arm=name, world=CONDITIONS["tv 1"], settings={}).objective.encoder.state_dict()
        for name in family
    ]
    assert all(torch.equal(first[key], firsts[0][key]) for first in firsts for key in firsts[0])
    fit(run, device="cpu")
    scores = expectation(expecting_subjects(run.objective, run.stream, share=FEW)["model"])
    assert {"surprise_accuracy", "validation_surprise_accuracy", "alarm"} <= scores.keys()
    assert ("latent_surprise_accuracy" in scores) == (arm in {"G1", "G2"})


def test_floors_are_what_they_are_called() -> None:
    found = {}
    for arm in ("COPY", "VEL", "INERT", "PHYS"):
        run = surprise.make_run(0, arm=arm, world=CONDITIONS["clean"], settings={})
        assert run.steps == 0
        found[arm] = expectation(expecting_subjects(run.objective, run.stream, share=0.1)["model"])
    assert found["PHYS"]["surprise_accuracy"] == 1
    assert found["COPY"]["surprise_accuracy"] == 0.5
    assert found["INERT"]["permanence_accuracy"] == 1
    assert found["INERT"]["solidity_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("arm", "kind"), [("R", VICRegJEPA), ("Rg", NextFrame), ("Rv", MaskedJEPA), ("Rvg", MAE)], ids=str
)
def test_untrained_networks_are_many_of_their_world(arm: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprise_floors, "NUM_UNTRAINED", 3)
    seen = []

    def one_network(make, **_):
        seen.extend(make(number) for number in range(3))
        return {"surprise_accuracy": [0.4, 0.6, 0.5], "alarm": [0.5, 0.5, 0.8]}

    monkeypatch.setattr(surprise_floors, "untrained", one_network)
    run = surprise.make_run(0, arm=arm, world=CONDITIONS["tv 2"], settings={})
    scores = expectation(expecting_subjects(run.objective, run.stream, share=FEW)["model"])
    assert scores == pytest.approx(
        {
            "surprise_accuracy": 0.5,
            "alarm": 0.6,
            "best_of_untrained": 0.6,
            "untrained_95": np.quantile([0.4, 0.5, 0.6], 0.95),
            "untrained_sd": 0.1,
        }
    )
    mean, std = run.stream.statistics()
    assert {type(objective) for objective in seen} == {kind}
    for objective in seen:
        assert float(objective.encoder.mean) == pytest.approx(mean, abs=0.05)
        assert float(objective.encoder.std) == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize("arm", ["R", "Rg"])
def test_untrained_networks_are_judged(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprise_floors, "NUM_UNTRAINED", 2)
    run = surprise.make_run(0, arm=arm, world=CONDITIONS["clean"], settings={})
    scores = expectation(expecting_subjects(run.objective, run.stream, share=FEW)["model"])
    assert 0 <= scores["surprise_accuracy"] <= scores["untrained_95"] <= scores["best_of_untrained"] <= 1


def test_arms_of_clips_see_pasts_of_every_length_and_the_jepa_compares_by_l1() -> None:
    jepa, pixels = (
        surprise.make_run(0, arm=arm, world=CONDITIONS["clean"], settings={}).objective for arm in ("J4", "G1")
    )
    assert isinstance(jepa, MaskedJEPA)
    assert isinstance(pixels, MAE)
    assert jepa.distance is mean_absolute
    assert jepa.masks.sampler == pixels.masks.sampler == DrawnPast((8, 4, 4))


def test_the_full_preset_has_every_strength_and_draws_a_line_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = {name: dict.fromkeys(TRAINED, SEARCHED) for name in surprise.DEMO_CONDITIONS}
    monkeypatch.setattr(surprise, "read_tuned", lambda: {"conditions": searched})
    demo, full = surprise.plan(), surprise.plan(preset="full")
    assert ([*demo.conditions], demo.courses) == (["clean", "tv 1"], [])
    assert ([*full.conditions], full.courses) == ([*CONDITIONS], [surprise.COURSE])
    assert {cell.arm for cell in full.cells if cell.condition == "wallpaper 1"} == {*ARMS}, "settings are those of tv 1"
    for condition, strength in surprise.COURSE.places.items():
        assert CONDITIONS[condition] == OccludedWorld(strength=strength), "they differ in nothing else"


def test_both_camps_have_an_untrained_floor_of_their_own_kind_to_beat() -> None:
    declared = surprise.declare([(arm, "clean") for arm in ARMS])
    pairs = {(c.better, c.than) for c in declared if isinstance(c, Better) and c.than_metric == "untrained_95"}
    assert pairs == {("J1", "R"), ("J4", "Rv"), ("G2", "Rg"), ("G1", "Rvg")}


def test_an_arm_has_to_beat_the_spread_of_untrained_networks() -> None:
    """Above their mean is not enough: a random network is there half of the time."""
    contrasts = surprise.declare([("J1", "clean"), ("R", "clean")])
    (beyond,) = contrasts
    cells = [
        {"arm": arm, "condition": "clean", "seed": seed, "status": "done", "metrics": metrics}
        for seed in range(3)
        for arm, metrics in (
            ("J1", {"surprise_accuracy": 0.55 + 0.001 * seed}),
            ("R", {"surprise_accuracy": 0.5, "untrained_95": 0.56}),
        )
    ]
    judged = beyond.judge(cells)
    assert judged.difference == pytest.approx(-0.009)
    assert "untrained_95" in judged.claim


def test_untuned_arms_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprise, "read_tuned", lambda: TUNED)
    plan = surprise.plan()
    assert {cell.arm for cell in plan.cells if cell.condition == "tv 1"} & {*TRAINED} == {"J1"}
    declared = {(c.better, c.than) for c in plan.contrasts}
    floors = {("J1", "R"), ("G2", "Rg"), ("J1", "COPY"), ("G2", "COPY")}
    assert declared == {("J1", "G2"), *floors}, "G2 is not tuned on tv 1"
    assert (next(iter(plan.metrics)), plan.goals) == (surprise.METRIC, (0.75,))
    monkeypatch.setattr(surprise, "read_tuned", lambda: {"conditions": {}})
    with pytest.raises(ValueError, match="untuned arms do not compete"):
        surprise.plan()


def test_the_report_shows_surprise_under_the_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(surprise, "read_tuned", lambda: TUNED)
    plan = surprise.plan(num_seeds=1, budget=1.0)
    cells = [cell for cell in plan.cells if (cell.arm, cell.condition) in {("J1", "clean"), ("PHYS", "clean")}]
    brief = replace(plan, cells=cells, judging=replace(plan.judging, instruments=(), curve=()), contrasts=())
    grid.compare(brief, out=tmp_path, num_workers=1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert {cell["status"] for cell in results["cells"]} == {"done"}, results["cells"]
    page = write_report(tmp_path).read_text()
    assert "Surprise under the frames" in page
    assert page.count("Surprise over time, ") >= 5
    assert page.count("Surprise under the frames of one pair, ") >= 5
    assert page.count("data:image/webp;base64,") == 2 * 5 * len(plan.conditions), "both clips of a pair play"
    for concept in ("permanence", "continuity", "solidity", "shape", "gravity"):
        assert f"surprise-{concept}-clean.csv" in page


def test_violations_fall_together_in_the_curve() -> None:
    frames = np.array([8, 8, 10, 10])
    possible = np.ones((4, 12))
    impossible = possible.copy()
    impossible[[0, 1], 8 - 4] += 2.0
    impossible[[2, 3], 10 - 4] += 2.0
    after, excess = _around(possible, impossible, frames, context=4, num_frames=16)
    assert dict(zip(after, excess, strict=True))[0.0] == pytest.approx(2.0)
    assert all(value == 0 for at, value in zip(after, excess, strict=True) if at)


def test_tables_say_each_concept_and_when_it_was_learned() -> None:
    curve = [
        {"step": at, "seconds": at, "flops": at, "metrics": {"surprise_accuracy": score}}
        for at, score in ((10, 0.5), (20, 0.7), (40, 0.8))
    ]
    metrics = {"surprise_accuracy": 0.8, "shape_accuracy": 0.8, "shape_auroc": 0.6}
    cells = [
        {
            "arm": "J1",
            "condition": "clean",
            "seed": seed,
            "status": "done",
            "metrics": metrics | {"shape_sign_p": 0.01 * (seed + 1), "latent_shape_sign_p": 1.0},
            "curve": curve,
            "compute": {"steps": 40, "samples": 400},
        }
        for seed in range(2)
    ]
    readings = Readings(
        {
            "cells": cells,
            "seeds": [0, 1],
            "arms": {"J1": "JEPA"},
            "conditions": {"clean": ""},
            "metrics": surprise.METRICS,
        }
    )
    concepts, learned = concept_table(readings, "clean"), learning_table(readings, "clean")
    assert concepts is not None
    assert learned is not None
    assert list(concepts.sheet.rows[0]) == ["clean", "J1", "shape", pytest.approx(0.8), 0.6, 0.02]
    assert len(concepts.rows) == 1
    assert learned.sheet.rows[0][2] == pytest.approx(300), "half way from 200 clips to 400"


def test_each_value_lies_under_the_frame_that_it_is_about() -> None:
    dice = np.random.default_rng(0)
    pair = {name: dice.random((16, 32, 32)) for name in ("possible", "impossible")}
    arms = [Arm(name, name, "", Look("blue")) for name in ("J1", "J4")]
    excess = {arms[0]: np.zeros(12), arms[1]: np.zeros(4)}
    root = ElementTree.fromstring(draw_aligned(pair, excess, {arms[0]: 4, arms[1]: 8}, frame=9, title="one"))
    strips, lines = root.findall("image"), root.findall("polyline[@class='line blue']")
    assert len(strips) == len(lines) == 2
    start, width = (float(strips[0].get(name, "")) for name in ("x", "width"))
    one = width / (16 * 34 - 2)  # of the strip's pixels
    frame_by_frame, two_by_two = (
        [float(point.split(",")[0]) for point in line.get("points", "").split()] for line in lines
    )
    for i, x in enumerate(frame_by_frame, 4):
        assert x == pytest.approx(start + one * (34 * i + 16), abs=0.2), "the middle of its frame"
    for i, x in enumerate(two_by_two):
        assert x == pytest.approx(start + one * (34 * (8 + 2 * i) + 33), abs=0.2), "between its two frames"
    shown = Image.open(io.BytesIO(base64.b64decode(strips[1].get("href", "").split(",")[1])))
    assert shown.size == (16 * 34 - 2, 32)
