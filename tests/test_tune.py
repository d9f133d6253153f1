"""Equal tuning: what is drawn, what is kept of it, and that the recorded search is what it says it is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepalab.compare.tune import SHARED, Knob, draw_trials, expected_best, summarise
from jepalab.recipes import distractor, tuning
from jepalab.recipes.distractor import ARMS, DEMO_ARMS, plan
from jepalab.recipes.tuning import TUNING_SEED, Search, tune

KNOBS = {arm: tuned.knob for arm, tuned in ARMS.items() if tuned.knob}
RECORDED = Path(str(files("jepalab.recipes").joinpath("distractor.tuned.json")))
FOUND = json.loads(RECORDED.read_text()) if RECORDED.exists() else {"conditions": {}}


def share_of_range(knob: Knob, value: float) -> float:
    """The inverse of `Knob.at` for the continuous scales."""
    ends = np.log([knob.low, knob.high, value] if knob.scale == "log" else 1 - np.array([knob.low, knob.high, value]))
    return float((ends[2] - ends[0]) / (ends[1] - ends[0]))


def test_knobs_span_their_ranges() -> None:
    assert [Knob("lr", 1e-4, 1e-2).at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([1e-4, 1e-3, 1e-2])
    momentum = Knob("momentum", 0.9, 0.999, scale="one minus")
    assert [momentum.at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.99, 0.999])
    widths = [Knob("width", 64, 256, scale="power of two").at(share) for share in (0.0, 0.3, 0.4, 0.6, 0.7, 1.0)]
    assert widths == [64, 64, 128, 128, 256, 256]
    assert all(isinstance(width, int) for width in widths)


@pytest.mark.parametrize("num_trials", [1, 12, 15])
@pytest.mark.parametrize("arm", KNOBS)
def test_each_part_of_each_range_is_visited_once(arm: str, num_trials: int) -> None:
    trials = draw_trials(KNOBS[arm], num_trials)
    assert len(trials) == num_trials
    for knob in (*SHARED, KNOBS[arm]):
        values = sorted(trial[knob.name] for trial in trials)
        if knob.scale == "power of two":
            counts = [values.count(width) for width in (knob.low, 2 * knob.low, 4 * knob.low)]
            assert sum(counts) == num_trials
            assert max(counts) - min(counts) <= 1
            continue
        for part, value in enumerate(values):
            slack = 0.0005 if knob.scale == "one minus" else 0.005 * value  # three digits are kept
            assert knob.at(part / num_trials) - slack <= value <= knob.at((part + 1) / num_trials) + slack


def test_log_knob_visits_each_part_at_random_and_apart_from_the_others() -> None:
    trials = draw_trials(Knob("spread", 0.1, 10.0), 12)
    orders = [[int(12 * share_of_range(k, t[k.name])) for t in trials] for k in (*SHARED, Knob("spread", 0.1, 10.0))]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_arms_share_the_draws_of_the_shared_knobs() -> None:
    drawn = {
        arm: [(trial["lr"], trial["weight_decay"]) for trial in draw_trials(knob, 12)] for arm, knob in KNOBS.items()
    }
    assert all(trials == drawn["J1"] for trials in drawn.values())
    assert draw_trials(KNOBS["J1"], 12) == draw_trials(KNOBS["J1"], 12)
    assert draw_trials(KNOBS["J1"], 12, seed=1) != draw_trials(KNOBS["J1"], 12)


def test_expected_best_is_the_mean_over_all_ways_to_draw() -> None:
    scores = [0.3, -0.2, 0.9, 0.3]
    wanted = [np.mean([max(drawn) for drawn in itertools.product(scores, repeat=num)]) for num in (1, 2, 3, 4)]
    assert expected_best(scores) == pytest.approx(wanted)


def test_summary_keeps_the_best_settings_and_how_hard_they_were_to_find() -> None:
    trials: list[dict[str, float | int]] = [
        {"lr": 0.1, "width": 64},
        {"lr": 0.2, "width": 128},
        {"lr": 0.3, "width": 64},
    ]
    found = summarise(trials, [0.2, 0.6, 0.4], floor=0.3)
    assert found["settings"] == {"lr": 0.2, "width": 128}
    assert (found["score"], found["scores"]) == (0.6, [0.2, 0.6, 0.4])
    assert found["share_above_random_encoder"] == pytest.approx(2 / 3)
    assert found["expected_best_of_n"] == expected_best([0.2, 0.6, 0.4])


def test_search_survives_a_trial_that_fails_and_keeps_what_it_did_not_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials' training is replaced: it is made of parts that other tests hold, and takes minutes."""

    def results(jobs: list[Any], **_: Any) -> Iterator[dict[str, Any]]:
        for cell, seed in jobs:
            assert seed == TUNING_SEED
            number = int(cell.condition.split()[-1])
            metrics = {"validation_state_r2": 0.5 if cell.arm == "R" else 0.2 * number}
            yield {"condition": cell.condition, "arm": cell.arm, "metrics": {} if number == 1 else metrics}

    monkeypatch.setattr(tuning, "run_grid", results)
    monkeypatch.setattr(tuning, "files", lambda package: tmp_path)
    target = tmp_path / "distractor.tuned.json"
    target.write_text(json.dumps({"conditions": {"none": {"J1": "kept"}}}))
    found = tune(distractor.tunable(), Search(arms=("J1", "G2"), conditions=("fixed",), num_trials=4))
    assert json.loads(target.read_text()) == found
    assert found["conditions"]["none"] == {"J1": "kept"}
    for arm in ("J1", "G2"):
        summary = found["conditions"]["fixed"][arm]
        assert summary["scores"] == pytest.approx([0.0, 0.0, 0.4, 0.6])
        assert summary["settings"] == draw_trials(KNOBS[arm], 4)[3]
        assert summary["share_above_random_encoder"] == 0.25
    assert (found["seed"], found["num_trials"]) == (TUNING_SEED, 4)


def test_unknown_arm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown: J9\. Arms: J1, .*conditions: none, changing"):
        tune(distractor.tunable(), Search(arms=("J9",)))


@pytest.mark.parametrize(("condition", "arm"), [(c, arm) for c, arms in FOUND["conditions"].items() for arm in arms])
def test_recorded_search_gave_every_arm_its_trials(condition: str, arm: str) -> None:
    summary, knobs = FOUND["conditions"][condition][arm], (*SHARED, KNOBS[arm])
    assert len(summary["scores"]) == FOUND["num_trials"] >= 12
    assert summary["score"] == max(summary["scores"])
    assert summary["settings"].keys() == {knob.name for knob in knobs}
    assert all(knob.low <= summary["settings"][knob.name] <= knob.high for knob in knobs)
    assert summary["settings"] == draw_trials(KNOBS[arm], FOUND["num_trials"])[np.argmax(summary["scores"])]
    assert summary["expected_best_of_n"] == pytest.approx(expected_best(summary["scores"]))


@pytest.mark.skipif(not RECORDED.exists(), reason="no search has been recorded yet")
@pytest.mark.parametrize("preset", ["demo", "full"])
def test_comparison_takes_the_arms_that_were_tuned_on_seeds_that_tuned_none(preset: Any) -> None:
    planned = plan(preset=preset)
    assert FOUND["seed"] == TUNING_SEED
    assert TUNING_SEED not in planned.seeds
    competing = {(cell.arm, cell.condition) for cell in planned.cells}
    for condition, arms in planned.settings["conditions"].items():
        found = FOUND["conditions"][condition if condition in distractor.tunable().conditions else "fixed"]
        assert arms == {arm: found[arm] for arm in planned.arms if arm in found}
        floors = planned.arms.keys() - KNOBS.keys()
        assert {arm for arm, where in competing if where == condition} == {*arms, *floors}
    assert {(arm, condition) for arm in DEMO_ARMS for condition in ("changing", "fixed")} <= competing
    assert len({contrast.name for contrast in planned.contrasts}) == len(planned.contrasts) >= 2
