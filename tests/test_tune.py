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

from jepalab.compare.caveats import search_edges
from jepalab.compare.tables import tuning_table
from jepalab.compare.tune import SHARED, Choice, Knob, draw_trials, edges, expected_best, finalists, summarise
from jepalab.recipes import distractor, tuning
from jepalab.recipes import settings as tuned_settings
from jepalab.recipes.distractor import ARMS, DEMO_ARMS, plan
from jepalab.recipes.settings import SHIPPED, entries, read_settings, say_trials, say_where
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
    assert summarise(trials, [None, -0.2, -0.6], floor=-0.3)["settings"] == trials[1]
    with pytest.raises(ValueError, match="All 2 trials failed"):
        summarise(trials[:2], [None, None], floor=0.3)


def test_finalists_are_the_best_that_ended() -> None:
    assert finalists([0.2, None, 0.6, 0.4], 2) == [2, 3]
    assert finalists([0.2, None, 0.6, 0.4], 9) == [2, 3, 0]
    assert finalists([None, 0.3, None], 3) == [], "there is nobody to choose from"
    assert finalists([0.2, 0.6], 0) == []


def test_the_best_on_average_over_seeds_is_chosen_not_the_luckiest() -> None:
    trials: list[dict[str, float | int]] = [{"width": 8}, {"width": 4}, {"width": 16}]
    found = summarise(trials, [0.46, 0.49, 0.2], floor=0.0, repeats={1: [0.29, 0.3], 0: [0.5, 0.48]})
    assert found["settings"] == {"width": 8}
    assert found["score"] == pytest.approx(0.48)
    assert found["finalists"] == {"1": [0.49, 0.29, 0.3], "0": [0.46, 0.5, 0.48]}
    assert found["expected_best_of_n"] == expected_best([0.46, 0.49, 0.2])
    once = summarise(trials, [0.46, 0.49, 0.2], floor=0.0, repeats={1: [0.29, 0.3], 0: [None, 0.9]})
    assert once["settings"] == {"width": 4}, "one that failed on a seed is no choice"
    nobody = summarise(trials, [0.46, 0.49, 0.2], floor=0.0, repeats={1: [None, 0.3], 0: [None, 0.9]})
    assert (nobody["settings"], nobody["score"]) == ({"width": 4}, 0.49)


@pytest.mark.parametrize("arm", KNOBS)
def test_share_is_the_inverse_of_at(arm: str) -> None:
    for knob in (*SHARED, KNOBS[arm], Knob("depth", 2, 6, scale="whole")):
        assert (knob.share(knob.low), knob.share(knob.high)) == pytest.approx((0, 1))
        if knob.scale in ("log", "one minus"):
            assert [knob.share(knob.at(share)) for share in (0.1, 0.5, 0.8)] == pytest.approx([0.1, 0.5, 0.8])


def test_best_settings_at_an_end_of_what_was_searched_are_named() -> None:
    knobs = (Knob("lr", 1e-4, 1e-2), Knob("momentum", 0.9, 0.999, scale="one minus"))
    width, target = Knob("width", 8, 32, scale="power of two"), Choice("target", ("pixels", "tokens"))
    inside = {"lr": 1e-3, "momentum": 0.99, "width": 16, "target": "pixels"}
    every = (*knobs, width, target)
    assert edges(inside, every, num_trials=12) == {}
    # A twelfth of two decades ends at 10^(1/6) times the lower end.
    assert edges(inside | {"lr": 1.46e-4}, every, num_trials=12) == {"lr": "lower"}
    assert edges(inside | {"lr": 1.48e-4}, every, num_trials=12) == {}
    assert edges(inside | {"momentum": 0.9986, "width": 8}, every, num_trials=12) == {
        "momentum": "upper",
        "width": "lower",
    }
    assert edges(inside | {"lr": 0.0}, every, num_trials=12) == {"lr": "lower"}
    assert edges(inside | {"lr": 1e-4}, every, num_trials=2) == {}
    best = summarise([{"lr": 1e-4}, {"lr": 1e-3}, {"lr": 9e-3}], [0.1, 0.2, 0.3], floor=0.0, knobs=knobs)
    assert best["edges"] == {"lr": "upper"}


def entry(num_trials: int = 12, **more: Any) -> dict[str, Any]:
    scores = [0.1] * num_trials
    found = {"settings": {"lr": 3.1e-4, "spread": 1.0}, "score": 0.123, "scores": scores}
    return found | {"expected_best_of_n": scores, "share_above_random_encoder": 0.5} | more


def test_borrowed_settings_are_printed_as_borrowed_and_without_the_score() -> None:
    found = {"conditions": {"fixed": {"J1": entry(), "J9": entry()}}}
    assert entries(found, "fixed", ARMS) == {"J1": entry(edges={"lr": "lower"})}
    lent = entries(found, "rho 0", ARMS, tuned_on="fixed")
    assert lent == {"J1": entry(edges={"lr": "lower"}, tuned_on="fixed")}
    assert entries(found, "gone", ARMS) == {}
    settings = {"conditions": {"fixed": entries(found, "fixed", ARMS), "rho 0": lent}}
    table = tuning_table(settings)
    assert table is not None
    assert [row[2:6] for row in table.rows] == [
        ["lr 0.00031 (lower end), spread 1", "fixed", "12", "0.123"],
        ["lr 0.00031 (lower end), spread 1", "fixed", "12", "–"],
    ]
    assert table.rows[1][6:] == ["–", "–"]
    assert "with the same number of trials" in table.note
    assert "no search ran under this one" in table.note
    assert "the best one may lie outside" in table.note
    assert search_edges(settings) == [
        "At an end of what was searched, so the best setting may lie outside it: J1, fixed: lr (lower end)."
    ]
    plain = {"conditions": {"fixed": {"J1": entry()}}}
    assert search_edges(plain) == []
    assert "may lie outside" not in getattr(tuning_table(plain), "note", "may lie outside")


def test_searches_of_other_lengths_are_not_called_the_same() -> None:
    def note(**arms: dict[str, Any]) -> str:
        table = tuning_table({"conditions": {"fixed": arms}})
        assert table is not None
        return table.note

    assert "Arms were not searched alike. 12 trials: J1 (fixed). 6 trials: J2, J3 (fixed)." in note(
        J1=entry(), J2=entry(6), J3=entry(6)
    )
    assert "12 trials of 200 steps: J1 (fixed). 12 trials, steps not recorded: G2 (fixed)." in note(
        J1=entry(steps=200), G2=entry()
    )
    assert "same number of trials" in note(J1=entry(steps=200), G2=entry(steps=200))
    again = {"finalists": {"3": [0.5, 0.4, 0.6], "1": [0.4, 0.4, 0.4]}}
    assert "on average over 3 seeds was chosen" in note(J1=entry() | again, G2=entry() | again)
    assert "12 trials, finalists on 3 seeds: J1 (fixed). 12 trials, on one seed: G2 (fixed)." in note(
        J1=entry() | again, G2=entry()
    )
    assert say_trials([entry(), entry(6), {"settings": {}}]) == "6 to 12"
    assert (say_trials([entry(6)]), say_trials([])) == ("6", "some")


def test_search_survives_a_trial_that_fails_and_keeps_what_it_did_not_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials' training is replaced: it is made of parts that other tests hold, and takes minutes."""

    def results(jobs: list[Any], **_: Any) -> Iterator[dict[str, Any]]:
        for cell, seed in jobs:
            number = int(cell.condition.split()[-1])
            asked.append((cell.arm, number, seed - TUNING_SEED))
            lucky = 0.5 * (number == 3 and cell.arm == "G2" and seed > TUNING_SEED)
            metrics = {"validation_state_r2": 0.5 if cell.arm == "R" else 0.2 * number - lucky}
            dead = number == 1 or cell.arm == "A1"
            facts = {"condition": cell.condition, "arm": cell.arm, "seed": seed}
            yield facts | {"metrics": {} if dead else metrics, "error": "lost"}

    asked: list[tuple[str, int, int]] = []

    monkeypatch.setattr(tuning, "run_grid", results)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuned_settings, "files", lambda package: shipped)
    target = tmp_path / "runs/tune-distractor/distractor.tuned.json"
    (shipped / "distractor.tuned.json").write_text(json.dumps({"conditions": {"none": {"J1": "kept"}}}))
    with pytest.raises(ValueError, match=r"these got no settings: A1, fixed: lost\. Others did, in "):
        tune(
            distractor.tunable(), Search(arms=("J1", "A1", "G2"), conditions=("fixed",), num_trials=4, num_finalists=2)
        )
    assert sorted(job for job in asked if job[2]) == sorted(
        (arm, number, repeat) for arm in ("J1", "G2") for number in (2, 3) for repeat in (1, 2)
    )
    found = json.loads(target.read_text())
    assert found["conditions"]["fixed"].keys() == {"J1", "G2"}
    assert found["conditions"]["none"] == {"J1": "kept"}
    for arm in ("J1", "G2"):
        summary = found["conditions"]["fixed"][arm]
        assert summary["scores"] == pytest.approx([0.0, None, 0.4, 0.6])
        assert summary["expected_best_of_n"] == pytest.approx(expected_best([0.0, 0.4, 0.6]))
        assert summary["settings"] == draw_trials(KNOBS[arm], 4)[3 if arm == "J1" else 2], "G2's third had luck"
        assert summary["finalists"].keys() == {"2", "3"}
        assert summary["share_above_random_encoder"] == 0.25
        assert summary["edges"] == edges(summary["settings"], (*SHARED, KNOBS[arm]), num_trials=4)
        assert "steps" not in summary  # as many as the comparison
    assert (found["seed"], found["num_trials"]) == (TUNING_SEED, 4)
    assert read_settings("distractor") == found | {"from": "runs/tune-distractor/distractor.tuned.json"}
    assert "fixed" not in json.loads((shipped / "distractor.tuned.json").read_text())["conditions"]
    tune(distractor.tunable(), Search(arms=("J1",), conditions=("fixed",), num_trials=4, ship=True))
    assert json.loads((shipped / "distractor.tuned.json").read_text()) == json.loads(target.read_text())
    assert json.loads(target.read_text())["conditions"].keys() == {"none", "fixed"}
    again = tune(distractor.tunable(), Search(arms=("J1",), conditions=("fixed",), num_trials=4, steps=50))
    assert again["conditions"]["fixed"]["J1"]["steps"] == 50
    assert "steps" not in again["conditions"]["fixed"]["G2"]


def test_settings_are_those_of_the_file_or_of_the_same_data_or_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuned_settings, "files", lambda package: tmp_path)
    assert read_settings("images") == {"conditions": {}}
    shipped, own, other = Path("images.tuned.json"), Path("runs/tune-images/images.tuned.json"), Path("other.json")
    own.parent.mkdir(parents=True)
    for file, digest in ((shipped, "a"), (own, "b"), (other, "c")):
        file.write_text(json.dumps({"conditions": {"pictures": {}}, "digest": digest}))
    for digest, wanted in (("a", SHIPPED), ("b", str(own)), ("c", SHIPPED)):
        found = read_settings("images", digest=digest)
        assert found["from"] == wanted
        assert bool(say_where(found)) == (wanted != SHIPPED)
    assert read_settings("images", file=other, digest="b")["digest"] == "c"
    with pytest.raises(ValueError, match=r"no settings in gone\.json; `jepalab tune images` writes"):
        read_settings("images", file=Path("gone.json"))


def test_unknown_arm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown: J9\. Arms: J1, .*conditions: none, changing"):
        tune(distractor.tunable(), Search(arms=("J9",)))


@pytest.mark.parametrize(("condition", "arm"), [(c, arm) for c, arms in FOUND["conditions"].items() for arm in arms])
def test_recorded_search_gave_every_arm_its_trials(condition: str, arm: str) -> None:
    summary, knobs = FOUND["conditions"][condition][arm], (*SHARED, KNOBS[arm])
    assert len(summary["scores"]) == FOUND["num_trials"] >= 12
    means = [np.mean(scores) for scores in summary.get("finalists", {}).values()]
    assert summary["score"] == pytest.approx(max(means or summary["scores"]))
    assert summary["settings"].keys() == {knob.name for knob in knobs}
    assert all(knob.low <= summary["settings"][knob.name] <= knob.high for knob in knobs)
    best = int([*summary["finalists"]][np.argmax(means)]) if means else np.argmax(summary["scores"])
    assert summary["settings"] == draw_trials(KNOBS[arm], FOUND["num_trials"])[best]
    assert summary["expected_best_of_n"] == pytest.approx(expected_best(summary["scores"]))


@pytest.mark.skipif(not RECORDED.exists(), reason="no search has been recorded yet")
@pytest.mark.parametrize("preset", ["demo", "full"])
def test_comparison_takes_the_arms_that_were_tuned_on_seeds_that_tuned_none(
    preset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # away from what was tuned here
    planned = plan(preset=preset)
    assert FOUND["seed"] == TUNING_SEED
    assert TUNING_SEED not in planned.seeds
    competing = {(cell.arm, cell.condition) for cell in planned.cells}
    for condition, arms in planned.settings["conditions"].items():
        found = FOUND["conditions"][condition if condition in distractor.tunable().conditions else "fixed"]
        beside = {"edges", "tuned_on"}
        told, wanted = (
            {arm: {k: v for k, v in each.items() if k not in beside} for arm, each in either.items()}
            for either in (arms, found)
        )
        assert told == {arm: wanted[arm] for arm in planned.arms if arm in wanted}
        borrowed = {each.get("tuned_on", condition) for each in arms.values()}
        assert borrowed == {"fixed" if condition.startswith("rho") else condition}
        floors = planned.arms.keys() - KNOBS.keys()
        assert {arm for arm, where in competing if where == condition} == {*arms, *floors}
    assert {(arm, condition) for arm in DEMO_ARMS for condition in ("changing", "fixed")} <= competing
    assert len({contrast.name for contrast in planned.contrasts}) == len(planned.contrasts) >= 2
