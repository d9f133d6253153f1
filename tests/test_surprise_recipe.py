"""The surprise experiment: arms alike where they should be, floors that learned nothing, surprise under the frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepalab.compare import grid
from jepalab.compare.report import write_report
from jepalab.compare.surprise_pictures import _around
from jepalab.fit import fit
from jepalab.instruments.surprise import NUM_PAIRS
from jepalab.recipes import surprise, surprise_floors
from jepalab.recipes.surprise import ARMS, CONDITIONS
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
FEW = 4 / NUM_PAIRS["test"]


@pytest.mark.parametrize("arm", TRAINED)
def test_every_arm_trains_on_the_same_clips_and_can_be_judged(arm: str) -> None:
    run = surprise.make_run(0, arm=arm, world=CONDITIONS["tv 1"], settings={}, steps=1)
    other = surprise.make_run(0, arm="J1", world=CONDITIONS["tv 1"], settings={}, steps=1)
    assert torch.equal(run.stream.batch(0).x, other.stream.batch(0).x)
    family = [name for name in TRAINED if (name in {"J4", "G1"}) == (arm in {"J4", "G1"})]
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


def test_untrained_networks_are_many_and_their_mean_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprise_floors, "NUM_UNTRAINED", 3)
    run = surprise.make_run(0, arm="R", world=CONDITIONS["clean"], settings={})
    scores = expectation(expecting_subjects(run.objective, run.stream, share=FEW)["model"])
    assert 0 <= scores["surprise_accuracy"] <= scores["best_of_untrained"] <= 1


def test_untuned_arms_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprise, "read_tuned", lambda: TUNED)
    plan = surprise.plan()
    assert {cell.arm for cell in plan.cells if cell.condition == "tv 1"} & {*TRAINED} == {"J1"}
    declared = {(c.better, c.than) for c in plan.contrasts}
    assert declared == {("J1", "G2"), ("J1", "R"), ("J1", "COPY"), ("G2", "COPY")}, "G2 is not tuned on tv 1"
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
    for concept in ("permanence", "continuity", "solidity", "shape", "gravity"):
        assert f"surprise-{concept}-clean.csv" in page


def test_violations_fall_together_in_the_curve() -> None:
    frames = np.array([8, 8, 10, 10])
    possible = np.ones((4, 12))
    impossible = possible.copy()
    impossible[[0, 1], 8 - 4] += 2.0
    impossible[[2, 3], 10 - 4] += 2.0
    after, excess = _around(possible, impossible, frames, 16)
    assert dict(zip(after, excess, strict=True))[0.0] == pytest.approx(2.0)
    assert all(value == 0 for at, value in zip(after, excess, strict=True) if at)
