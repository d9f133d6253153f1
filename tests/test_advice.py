"""What a report advises: the best arm, what it cannot be told from, and never one that is no better than a floor."""

from __future__ import annotations

from typing import Any

from jepalab.compare.advice import advise

ARMS = {"J1": "I-JEPA", "G1": "MAE", "S": "Supervised (ceiling)", "R": "Random encoder (floor)"}


def cells(**scores: list[float]) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "condition": "pictures", "seed": seed, "metrics": {"linear": value}}
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]


def said(**scores: list[float]) -> str:
    return " ".join(advise(cells(**scores), arms=ARMS, condition="pictures", metric="linear", name="linear accuracy"))


def test_best_arm_that_is_told_apart_from_the_others() -> None:
    text = said(J1=[0.60, 0.61, 0.62], G1=[0.50, 0.51, 0.52], S=[0.9, 0.9, 0.9], R=[0.4, 0.4, 0.4])
    assert "Highest linear accuracy: I-JEPA (J1), 0.610 over 3 seed(s)." in text
    assert "told apart from every other trained arm" in text
    assert "Random encoder (floor), has 0.400" in text
    assert "Supervised" not in text


def test_arms_within_the_scatter_of_seeds_are_named_beside_it() -> None:
    assert "cannot be told apart from MAE (0.597)" in said(J1=[0.60, 0.66, 0.58], G1=[0.62, 0.57, 0.60], R=[0.4] * 3)
    assert "cannot be told apart from MAE (0.500)" in said(J1=[0.60], G1=[0.50], R=[0.4])


def test_an_arm_at_the_floor_is_not_recommended() -> None:
    text = said(J1=[0.44, 0.45], G1=[0.40, 0.41], R=[0.45, 0.46])
    assert "not above Random encoder (floor) (0.455): at this budget no training has paid" in text
    assert "told apart" not in text


def test_arms_are_ranked_on_validation_and_quoted_on_test() -> None:
    """Otherwise the score that is quoted is the luckiest of several."""
    scores = {"J1": (0.50, 0.60), "G1": (0.56, 0.55), "R": (0.4, 0.4)}
    found = [
        {"arm": arm, "condition": "pictures", "seed": 0, "metrics": {"linear": test, "linear_validation": validation}}
        for arm, (validation, test) in scores.items()
    ]
    text = " ".join(advise(found, arms=ARMS, condition="pictures", metric="linear", name="linear accuracy"))
    assert "Highest linear accuracy on validation: MAE (G1), 0.550 on test over 1 seed(s)." in text
    assert "cannot be told apart from I-JEPA (0.600)" in text


def test_nothing_has_ended_yet() -> None:
    assert said(R=[0.4]) == "No trained arm has a linear accuracy yet."
    failed = [{"arm": "J1", "condition": "pictures", "seed": 0, "metrics": {}}]
    assert advise(failed, arms=ARMS, condition="pictures", metric="linear", name="x") == ["No trained arm has a x yet."]
