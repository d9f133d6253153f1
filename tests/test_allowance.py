"""A budget of time, split over arms and seeds: the arithmetic, and honest words about what it buys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepalab.recipes import allowance
from jepalab.recipes.allowance import Allowance, allot, measured_costs, seconds_of

COSTS = {"J1": 0.008, "G1": 0.004, "S": 0.008}  # 20 ms a picture for all three


def split(duration: str, **changes: Any) -> Allowance:
    settings = {"num_train": 40_000, "num_classes": 10, "num_test": 10_000, "num_workers": 2} | changes
    return allot(duration, seconds_per_sample=COSTS, **settings)


def test_durations_are_read_as_people_write_them() -> None:
    assert [seconds_of(text) for text in ("90s", "30m", "2h", "1.5 h", "10")] == [90, 1800, 7200, 5400, 600]
    for wrong in ("", "soon", "-3m", "0m", "3 days"):
        with pytest.raises(ValueError, match=r"Wanted a duration such as"):
            seconds_of(wrong)


def test_every_arm_gets_the_same_pictures_and_the_budget_is_kept() -> None:
    bought = split("2h")
    training = bought.samples * sum(COSTS.values()) * bought.num_seeds
    kept_back = 1 - allowance.JUDGING_SHARE
    assert 0.9 * kept_back < training / (7200 * 2) <= kept_back
    assert bought.num_seeds == 3
    assert split("2h", most_seeds=1).samples == pytest.approx(3 * bought.samples, rel=0.1)
    assert split("4h").samples == pytest.approx(2 * bought.samples, rel=0.1)


def test_a_short_budget_has_fewer_seeds_before_it_has_too_few_pictures() -> None:
    bought = split("10m")
    assert bought.num_seeds == 2
    assert bought.samples >= allowance.FEWEST
    assert split("5m").num_seeds == 1
    with pytest.raises(ValueError, match=r"buys each of 3 arms \d+ pictures.* Take at least \d+m"):
        split("2s")


def test_the_advice_of_a_refusal_is_enough() -> None:
    with pytest.raises(ValueError, match="Take at least") as refusal:
        split("2s")
    advice = str(refusal.value).split("at least ")[1].split(",")[0]
    assert split(advice).samples >= 1_000


def test_notes_say_what_can_and_cannot_be_concluded() -> None:
    one, three = " ".join(split("5m").notes), " ".join(split("2h").notes)
    assert "One seed gives no interval" in one
    assert "no contrast can be held" in one
    assert "cannot be told from none" in three
    assert "± 1.0%" in three  # 1.96 sqrt(.25 / 10,000)
    assert "short budget" in one
    assert "short budget" not in " ".join(split("200h").notes)


def test_costs_are_measured_once(tmp_path: Path) -> None:
    measured: list[str] = []

    class Timed:
        def __init__(self, arm: str) -> None:
            self.arm = arm

        def time_step(self) -> float:
            measured.append(self.arm)
            return 0.5

    memory = tmp_path / "costs.json"
    for _ in range(2):
        costs = measured_costs(["J1", "G1"], Timed, key="32", memory=memory, batch_size=100)  # type: ignore[arg-type]
        assert costs == {"J1": 0.005, "G1": 0.005}
    assert measured == ["J1", "G1"]
    measured_costs(["J1"], Timed, key="64", memory=memory, batch_size=100)  # type: ignore[arg-type]
    assert measured == ["J1", "G1", "J1"]
