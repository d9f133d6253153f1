"""A budget of time, split over arms and seeds: the arithmetic, and honest words about what it buys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jepalab.recipes import allowance
from jepalab.recipes.allowance import allot, conclusions, judging_seconds, measured_costs, seconds_of

COSTS = {"J1": 0.008, "G1": 0.004, "S": 0.008}  # 20 ms a picture for all three


JUDGING = {"J1": 60.0, "G1": 30.0, "S": 30.0, "R": 30.0}  # 150 s for one seed


def split(duration: str, **changes: Any) -> tuple[int, int]:
    settings = {"judging_seconds": JUDGING, "num_workers": 2} | changes
    return allot(duration, seconds_per_sample=COSTS, **settings)


def test_durations_are_read_as_people_write_them() -> None:
    assert [seconds_of(text) for text in ("90s", "30m", "2h", "1.5 h", "10")] == [90, 1800, 7200, 5400, 600]
    for wrong in ("", "soon", "-3m", "0m", "3 days"):
        with pytest.raises(ValueError, match=r"Wanted a duration such as"):
            seconds_of(wrong)


def test_every_arm_gets_the_same_pictures_and_the_budget_is_kept() -> None:
    samples, num_seeds = split("2h")
    spent = num_seeds * (samples * sum(COSTS.values()) + sum(JUDGING.values()))
    assert 0.9 < spent / (7200 * 2) <= 1
    assert num_seeds == 3
    assert split("2h", most_seeds=1)[0] == pytest.approx(3 * samples, rel=0.1)
    assert split("4h", judging_seconds={})[0] == pytest.approx(2 * split("2h", judging_seconds={})[0], rel=0.1)


def test_no_run_takes_longer_than_the_budget_however_many_go_on_at_once() -> None:
    samples, _ = split("2h", num_workers=64)
    longest = 0.008 * samples + JUDGING["J1"]
    assert 0.9 * 7200 < longest <= 7200


def test_a_short_budget_has_fewer_seeds_before_it_has_too_few_pictures() -> None:
    samples, num_seeds = split("10m")
    assert num_seeds == 2
    assert samples >= allowance.FEWEST
    assert split("5m")[1] == 1
    for hopeless in ("2s", "1m"):  # less than judging alone takes
        with pytest.raises(ValueError, match=r"buys each of 3 arms 0 pictures.* Take at least \d+m"):
            split(hopeless)


def test_judging_costs_passes_and_read_outs_for_each_encoder() -> None:
    one = judging_seconds(0.001, num_read=65_000, num_encoders=1, num_tuned=38_400)
    assert one == pytest.approx(2 * 65 + 3 * 38.4 + 45)
    assert judging_seconds(0.001, num_read=65_000, num_encoders=2, num_tuned=0) == pytest.approx(2 * (2 * 65 + 45))


def test_the_advice_of_a_refusal_is_enough() -> None:
    with pytest.raises(ValueError, match="Take at least") as refusal:
        split("2s")
    advice = str(refusal.value).split("at least ")[1].split(",")[0]
    assert split(advice)[0] >= 1_000


def test_notes_say_what_can_and_cannot_be_concluded() -> None:
    def told(duration: str) -> str:
        return " ".join(conclusions(*split(duration), num_train=40_000, num_classes=10, num_test=10_000))

    one, three = told("5m"), told("2h")
    assert "One seed gives no interval" in one
    assert "no contrast can be held" in one
    assert "cannot be told from none" in three
    assert "± 1.0%" in three  # 1.96 sqrt(.25 / 10,000)
    assert "short budget" in one
    assert "short budget" not in told("200h")


def test_what_a_supervised_arm_learned_from_is_told_where_it_is_less() -> None:
    told = [
        " ".join(conclusions(1_000, 1, num_train=500, num_classes=2, num_test=50, num_labelled=num))
        for num in (40, 500)
    ]
    assert "saw as many, all of them labelled (25.0 epochs of 40)" in told[0]
    assert "labelled (" not in told[1]


def test_costs_are_measured_once(tmp_path: Path) -> None:
    measured: list[str] = []

    def measures(*arms: str) -> dict[str, Callable[[], float]]:
        return {arm: lambda arm=arm: measured.append(arm) or 0.005 for arm in arms}

    memory = tmp_path / "costs.json"
    for _ in range(2):
        assert measured_costs(measures("J1", "G1"), key="32", memory=memory) == {"J1": 0.005, "G1": 0.005}
    assert measured == ["J1", "G1"]
    measured_costs(measures("J1"), key="64", memory=memory)
    assert measured == ["J1", "G1", "J1"]
