"""Tests of jepalab.compare.contrasts: simulated seeds with known effects, and what is missing from them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from jepalab.compare.contrasts import Better, Equivalent, Judgement, answer, judge_all
from jepalab.compare.stats import bootstrap_interval, mean_interval, mean_p_value, paired_p_value, tost_p_value

NAN = math.nan


def cells_of(metric: str, values: dict[str, list[float]], condition: str = "clean") -> list[dict]:
    return [
        {"arm": arm, "condition": condition, "seed": seed, "metrics": {metric: value}, "status": "done"}
        for arm, column in values.items()
        for seed, value in enumerate(column)
    ]


def better(name: str = "claim", threshold: float = 0.0) -> Better:
    return Better(
        name,
        better="jepa",
        than="mae",
        metric="r2",
        condition="clean",
        because="it ignores what cannot be predicted",
        source="arXiv:2301.08243",
        threshold=threshold,
    )


def equivalent(margin: float = 0.02, name: str = "tie") -> Equivalent:
    return Equivalent(
        name,
        better="jepa",
        than="mae",
        metric="r2",
        condition="clean",
        margin=margin,
        because="nothing distracts",
        source="pilot",
    )


def test_two_failures_are_no_tie() -> None:
    claim = replace(equivalent(), floor="chance")
    values = {"jepa": [0.10, 0.11, 0.10, 0.11], "mae": [0.10, 0.11, 0.11, 0.10]}
    (failed,) = judge_all([claim], cells_of("r2", values | {"chance": [0.10, 0.10, 0.10, 0.10]}))
    assert failed.verdict == "not shown"
    assert "no tie to speak of" in failed.note
    (tied,) = judge_all([claim], cells_of("r2", values | {"chance": [0.02, 0.02, 0.02, 0.02]}))
    assert tied.verdict == "held"
    (unknown,) = judge_all([claim], cells_of("r2", values))
    assert unknown.verdict == "not shown"


def two_arms(effect: float, *, num_seeds: int = 5, sd: float = 0.01, random_seed: int = 1) -> list[dict]:
    rng = np.random.default_rng(random_seed)
    shared = rng.normal(0.5, 0.3, size=num_seeds)  # seeds differ far more than arms do: only pairing sees the effect
    jepa = shared + effect + rng.normal(0, sd, size=num_seeds)
    return cells_of("r2", {"jepa": jepa.tolist(), "mae": shared.tolist()})


def column(cells: list[dict], arm: str) -> list[float]:
    return [cell["metrics"]["r2"] for cell in cells if cell["arm"] == arm]


@pytest.mark.parametrize("num_seeds", [5, 8])
@pytest.mark.parametrize(("effect", "verdict"), [(0.1, "held"), (-0.1, "refuted"), (0.0, "not shown")])
def test_better_reaches_each_verdict(effect: float, verdict: str, num_seeds: int) -> None:
    cells = two_arms(effect, num_seeds=num_seeds)
    judgement = better().judge(cells)
    assert judgement.verdict == verdict
    assert judgement.num_seeds == num_seeds
    assert judgement.note == ""
    assert judgement.p_value == pytest.approx(paired_p_value(column(cells, "jepa"), column(cells, "mae")))
    assert judgement.opposite_p_value == pytest.approx(1 - judgement.p_value)
    assert judgement.adjusted_p_value == judgement.p_value


def test_the_numbers_are_those_of_the_paired_differences() -> None:
    cells = two_arms(0.1, num_seeds=7)
    judgement = better().judge(cells)
    differences = np.subtract(column(cells, "jepa"), column(cells, "mae"))
    expected = mean_interval(differences, generator=np.random.default_rng(5))
    assert judgement.difference == pytest.approx(differences.mean())
    assert judgement.interval == pytest.approx((expected.low, expected.high), abs=2e-3)
    few = better().judge(two_arms(0.1, num_seeds=5))
    beside = bootstrap_interval(
        np.subtract(column(two_arms(0.1), "jepa"), column(two_arms(0.1), "mae")), generator=np.random.default_rng(5)
    )
    assert few.bootstrap_interval == pytest.approx((beside.low, beside.high), abs=2e-3)
    assert few.interval != few.bootstrap_interval


def test_judging_again_gives_the_same_numbers() -> None:
    cells = two_arms(0.02, num_seeds=9)
    assert better().judge(cells) == better().judge(cells[::-1])


def test_threshold_is_part_of_the_claim() -> None:
    cells = two_arms(0.1)
    assert better(threshold=0.05).judge(cells).verdict == "held"
    assert better(threshold=0.1).judge(cells).verdict == "not shown"
    assert better(threshold=0.2).judge(cells).verdict == "refuted"
    assert "by more than 0.05" in better(threshold=0.05).judge(cells).claim


def test_pairing_matters() -> None:
    cells = two_arms(0.1)
    assert better().judge(cells).verdict == "held"
    shifted = [{**cell, "seed": (cell["seed"] + (cell["arm"] == "mae")) % 5} for cell in cells]
    assert better().judge(shifted).verdict == "not shown"


@pytest.mark.parametrize(
    ("effect", "sd", "verdict"),
    [(0.0, 0.005, "held"), (0.1, 0.005, "refuted"), (-0.1, 0.005, "refuted"), (0.0, 0.2, "not shown")],
)
def test_equivalent_reaches_each_verdict(effect: float, sd: float, verdict: str) -> None:
    cells = two_arms(effect, sd=sd)
    judgement = equivalent().judge(cells)
    assert judgement.verdict == verdict
    expected = tost_p_value(column(cells, "jepa"), column(cells, "mae"), margin=0.02)
    assert judgement.p_value == pytest.approx(expected, abs=1e-12)


def test_equivalent_is_refuted_where_the_interval_lies_outside_the_margin() -> None:
    verdicts = set()
    for effect in np.linspace(0.0, 0.06, 25):
        cells = two_arms(float(effect))
        judgement = equivalent().judge(cells)
        verdicts.add(judgement.verdict)
        assert (judgement.verdict == "refuted") == (judgement.interval[0] > 0.02)
        differences = np.subtract(column(cells, "jepa"), column(cells, "mae"))
        either_side = 2 * mean_p_value(differences, null=0.02, alternative="greater")
        assert judgement.opposite_p_value == pytest.approx(min(1.0, either_side))
    assert verdicts == {"held", "not shown", "refuted"}


def test_equivalent_holds_by_two_one_sided_tests_and_not_by_the_95_interval() -> None:
    differences = [0.006, -0.006, 0.012, -0.012, 0.0]
    cells = cells_of("r2", {"jepa": differences, "mae": [0.0] * 5})
    judgement = equivalent(margin=0.01).judge(cells)
    assert judgement.p_value < 0.05
    assert judgement.interval[1] > 0.01
    assert judgement.verdict == "held"


def test_failed_and_missing_cells_leave_their_seed_out() -> None:
    cells = two_arms(0.1, num_seeds=6)
    cells[0] = {**cells[0], "status": "failed"}
    cells[1] = {**cells[1], "metrics": {"r2": NAN}}
    cells[2] = {**cells[2], "metrics": {"r2": None}}
    cells[-1] = {"arm": "mae", "condition": "clean", "seed": 5, "status": "failed"}
    judgement = better().judge(cells)
    kept = better().judge([cell for cell in cells if cell["seed"] in (3, 4)])
    assert (judgement.num_seeds, judgement.note) == (2, "4 of 6 pairs missing")
    assert judgement.interval == kept.interval


def test_a_collapsed_run_counts() -> None:
    cells = two_arms(0.1)
    cells[0] = {**cells[0], "metrics": {"r2": 0.0}}
    judgement = better().judge(cells)
    assert (judgement.num_seeds, judgement.note, judgement.verdict) == (5, "", "not shown")


def test_no_pair_at_all() -> None:
    cells = two_arms(0.1)
    for present in ([], [cell for cell in cells if cell["arm"] == "jepa"], [{**c, "condition": "tv"} for c in cells]):
        judgement = better().judge(present)
        assert (judgement.verdict, judgement.note, judgement.num_seeds) == ("not shown", "no paired seeds", 0)
        assert math.isnan(judgement.difference)
        assert judge_all([better()], present)[0].note == "no paired seeds"


def test_one_seed_has_a_difference_and_no_verdict() -> None:
    judgement = judge_all([better()], two_arms(0.1, num_seeds=1))[0]
    assert (judgement.verdict, judgement.note, judgement.num_seeds) == ("not shown", "1 seed, no interval", 1)
    assert judgement.difference == pytest.approx(0.1, abs=0.05)
    assert math.isnan(judgement.interval[0])
    assert math.isnan(judgement.adjusted_p_value)
    one_left = [cell for cell in two_arms(0.1, num_seeds=2) if (cell["arm"], cell["seed"]) != ("mae", 1)]
    assert better().judge(one_left).note == "1 of 2 pairs missing; 1 seed, no interval"


@pytest.mark.parametrize(
    ("jepa", "verdicts"),
    [(0.7, ("held", "refuted")), (0.5, ("not shown", "held")), (0.3, ("refuted", "refuted"))],
)
@pytest.mark.parametrize("num_seeds", [3, 6])
def test_differences_that_do_not_vary_are_judged(jepa: float, verdicts: tuple[str, str], num_seeds: int) -> None:
    cells = cells_of("r2", {"jepa": [jepa] * num_seeds, "mae": [0.5] * num_seeds})
    for contrast, verdict in zip((better(), equivalent()), verdicts, strict=True):
        judgement = contrast.judge(cells)
        assert judgement.verdict == verdict
        assert judgement.interval == (jepa - 0.5, jepa - 0.5)


def test_judge_all_corrects_over_what_was_declared() -> None:
    # t = 2.83 with 4 degrees of freedom: the interval excludes 0 and p = .024, alone enough, of three not.
    cells = cells_of("r2", {"jepa": [0.01, 0.02, 0.03, 0.04, 0.00], "mae": [0.0] * 5})
    alone = judge_all([better("a")], cells)[0]
    assert alone.verdict == "held"
    three = judge_all([better("a"), better("b", threshold=0.01), better("c", threshold=0.02)], cells)
    p_values = [judgement.p_value for judgement in three]
    assert p_values[0] == alone.p_value
    assert three[0].adjusted_p_value == pytest.approx(3 * p_values[0])
    assert three[1].adjusted_p_value == pytest.approx(2 * p_values[1])
    assert three[2].adjusted_p_value == pytest.approx(p_values[2])
    assert three[0].interval == alone.interval
    assert three[0].interval[0] > 0
    assert three[0].verdict == "not shown"


def test_a_refutation_is_corrected_too() -> None:
    cells = cells_of("r2", {"jepa": [-0.01, -0.02, -0.03, -0.04, 0.00], "mae": [0.0] * 5})
    assert judge_all([better("a")], cells)[0].verdict == "refuted"
    three = judge_all([better("a"), better("b", threshold=-0.01), better("c", threshold=-0.02)], cells)
    assert three[0].adjusted_opposite_p_value == pytest.approx(3 * three[0].opposite_p_value)
    assert three[0].verdict == "not shown"


def test_an_untested_contrast_still_counts_in_the_correction() -> None:
    cells = two_arms(0.1)
    absent = Better("z", better="jepa", than="gone", metric="r2", condition="clean", because="", source="")
    tested, untested = judge_all([better(), absent], cells)
    assert tested.adjusted_p_value == pytest.approx(2 * tested.p_value)
    assert math.isnan(untested.adjusted_p_value)


def with_curves(cells: list[dict], curves: dict[str, list[tuple[float, float]]]) -> list[dict]:
    """The cells with (FLOPs, r2) on the way; all seeds of an arm share the curve."""
    return [
        cell | {"curve": [{"flops": at, "metrics": {"r2": value}} for at, value in curves.get(cell["arm"], ())]}
        for cell in cells
    ]


def test_a_contrast_says_whether_it_keeps_its_sign_at_equal_flops() -> None:
    cells = two_arms(0.1)

    def note(jepa: list[tuple[float, float]], mae: list[tuple[float, float]], **more: float) -> str:
        (judged,) = judge_all([better(**more)], with_curves(cells, {"jepa": jepa, "mae": mae}))
        return judged.note

    dear = [(100.0, 0.1), (200.0, 0.3), (400.0, 0.9)]
    # At 300 FLOPs, half way from 200 to 400, the dear arm reads 0.6.
    assert note(dear, [(150.0, 0.5), (300.0, 0.59)]) == "at equal FLOPs: same sign"
    assert note(dear, [(150.0, 0.5), (300.0, 0.61)]) == "reverses at equal FLOPs"
    assert note(dear, [(150.0, 0.5), (300.0, 0.59)], threshold=0.05) == "reverses at equal FLOPs"
    assert note(dear, [(100.0, 0.5), (402.0, 0.8)]) == "", "both spent the same"
    assert note(dear, [(50.0, 0.05), (90.0, 0.07)]) == "", "nothing was read of the dear arm so early"
    assert note(dear, []) == ""
    (named,) = judge_all([better()], with_curves(cells, {"jepa": dear, "mae": [(300.0, 0.7)]}), primary=[])
    assert named.note == "exploratory, no p-value"


def test_exploratory_contrasts_have_numbers_but_no_verdict() -> None:
    primary, exploratory = judge_all([better("a"), better("b")], two_arms(0.1), primary=["a"])
    assert (primary.verdict, primary.adjusted_p_value) == ("held", primary.p_value)
    assert (exploratory.verdict, exploratory.note) == ("not shown", "exploratory, no p-value")
    assert exploratory.interval == primary.interval
    assert math.isnan(exploratory.p_value)
    assert answer([primary, exploratory]).startswith("1 of 1 declared contrasts held: a (+0.")


@pytest.mark.parametrize("num_seeds", [5, 8])
def test_rate_of_false_verdicts(num_seeds: int) -> None:
    rng = np.random.default_rng(num_seeds)
    verdicts = []
    for _ in range(1000):
        shared = rng.normal(size=num_seeds)
        arms = shared + rng.normal(0, 0.1, size=(2, num_seeds))
        verdicts.append(better().judge(cells_of("r2", {"jepa": arms[0].tolist(), "mae": arms[1].tolist()})).verdict)
    assert 0.005 < verdicts.count("held") / 1000 <= 0.05
    assert 0.005 < verdicts.count("refuted") / 1000 <= 0.05


def test_answer_is_one_line_of_english() -> None:
    held = better("a").judge(two_arms(0.1))
    refuted = equivalent().judge(two_arms(0.1))
    unclear = better("c").judge(two_arms(0.0))
    line = answer([held, refuted, unclear])
    low, high = held.interval
    numbers = f"({held.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, 5 seeds)"
    assert line == (f"1 of 3 declared contrasts held: a {numbers}. 1 refuted: {refuted.name} {numbers}. 1 not shown.")
    assert answer([unclear]) == "0 of 1 declared contrasts held. 1 not shown."
    assert answer([]) == "No contrast was declared."


def test_judgement_is_json() -> None:
    judged = [*judge_all([better(), equivalent()], two_arms(0.1)), better("z").judge([])]
    for judgement in judged:
        record = json.loads(json.dumps(judgement.as_dict(), allow_nan=False))
        assert record.keys() == Judgement.__dataclass_fields__.keys()
        assert record.keys() >= {"name", "better", "than", "metric", "condition", "difference", "interval", "verdict"}
    assert judged[0].as_dict()["interval"] == list(judged[0].interval)
    assert judged[-1].as_dict()["interval"] == [None, None]
    assert judged[-1].as_dict()["p_value"] is None


def test_declarations_are_checked() -> None:
    with pytest.raises(ValueError, match="two different arms"):
        Better("x", better="a", than="a", metric="r2", condition="clean", because="", source="")
    with pytest.raises(ValueError, match="margin above 0"):
        equivalent(margin=0.0)
    with pytest.raises(ValueError, match="distinct names"):
        judge_all([better("a"), better("a")], [])
    with pytest.raises(ValueError, match="distinct names that include the primary"):
        judge_all([better("a")], [], primary=["b"])


def test_two_cells_for_one_seed_are_refused() -> None:
    cells = two_arms(0.1)
    with pytest.raises(ValueError, match="got two for"):
        better().judge([*cells, cells[0]])
