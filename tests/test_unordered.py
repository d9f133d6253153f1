"""Tests of the contrast that a metric does not order the arms by their usefulness."""

from __future__ import annotations

import json

import pytest

from jepalab.compare.contrasts import Unordered

ARMS = ("a", "b", "c", "d", "e")


def unordered(conditions: tuple[str, ...] = ("clean",), threshold: float = 0.8) -> Unordered:
    return Unordered(
        "rank",
        metric="rankme",
        usefulness="r2",
        conditions=conditions,
        arms=ARMS,
        threshold=threshold,
        because="noise has rank too",
        source="pilot",
    )


def arms_with(order: list[list[float]], condition: str = "clean") -> list[dict]:
    """Cells whose usefulness is 0, 1, 2, ... over the arms and whose RankMe is order[seed][arm]."""
    return [
        {
            "arm": arm,
            "condition": condition,
            "seed": seed,
            "metrics": {"r2": float(i), "rankme": float(row[i])},
            "status": "done",
        }
        for seed, row in enumerate(order)
        for i, arm in enumerate(ARMS)
    ]


@pytest.mark.parametrize(
    ("order", "correlation", "verdict"),
    [
        ([[0, 1, 2, 3, 4]] * 3, 1.0, "refuted"),
        ([[4, 3, 2, 1, 0]] * 3, -1.0, "held"),
        ([[7, 7, 7, 7, 7]] * 3, 0.0, "held"),
        ([[2, 4, 0, 1, 3], [3, 0, 2, 4, 1], [1, 4, 0, 3, 2]], 0.0, "held"),
        ([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]], 0.0, "not shown"),
    ],
)
def test_unordered_reaches_each_verdict(order: list[list[float]], correlation: float, verdict: str) -> None:
    judgement = unordered().judge(arms_with(order))
    assert judgement.difference == pytest.approx(correlation, abs=0.11)
    assert judgement.verdict == verdict
    assert (judgement.kind, judgement.better, judgement.than) == ("unordered", None, None)


def test_unordered_averages_over_conditions_within_a_seed() -> None:
    cells = arms_with([[0, 1, 2, 3, 4]] * 4) + arms_with([[4, 3, 2, 1, 0]] * 4, condition="tv")
    judgement = unordered(("clean", "tv")).judge(cells)
    assert (judgement.difference, judgement.interval, judgement.num_seeds) == (0.0, (0.0, 0.0), 4)
    assert judgement.condition == "clean, tv"


def test_unordered_wants_four_arms() -> None:
    cells = arms_with([[0, 1, 2, 3, 4]] * 3)
    without_one = [cell for cell in cells if cell["arm"] != "a"]
    assert unordered().judge(without_one).verdict == "refuted"
    without_two = [cell for cell in without_one if cell["arm"] != "b"]
    judgement = unordered().judge(without_two)
    assert (judgement.verdict, judgement.note) == ("not shown", "needs 4 arms measured in one seed, found 3")
    one_short = [cell for cell in cells if cell["seed"] != 1 or cell["arm"] in "abc"]
    judgement = unordered().judge(one_short)
    assert (judgement.num_seeds, judgement.note) == (2, "1 of 3 seeds missing")
    elsewhere = [{**cell, "condition": "tv"} for cell in without_two]
    assert unordered(("clean", "tv")).judge(cells + elsewhere).note == "needs 4 arms measured in one seed, found 3"


def test_unordered_wants_conditions() -> None:
    with pytest.raises(ValueError, match="one condition or more"):
        unordered(conditions=())


def test_judgement_is_json() -> None:
    record = json.loads(json.dumps(unordered().judge(arms_with([[4, 3, 2, 1, 0]] * 3)).as_dict(), allow_nan=False))
    assert (record["better"], record["than"], record["metric"]) == (None, None, "rankme")
    assert record["claim"] == "rankme does not order the arms by r2 (clean)"
