"""Tests of jepalab.compare.stats: against SciPy, published golden values, hand computation and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from jepalab.compare.stats import (
    NO_INTERVAL,
    Alternative,
    bootstrap_interval,
    holm,
    iqm,
    mcnemar_exact,
    mean_interval,
    mean_p_value,
    paired_interval,
    paired_p_value,
    probability_of_improvement,
    spearman,
    stratified_bootstrap_iqm,
    student_t_cdf,
    student_t_quantile,
    tost_p_value,
    wilson_interval,
)

GOLDEN_SCORES = np.array([[0.9, 0.92, 0.1, 0.88, 0.91], [0.5, 0.55, 0.52, 0.6, 0.48]])


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("df", [*range(1, 13), 29, 30, 99])
def test_student_t_agrees_with_scipy(df: int) -> None:
    for t in (-60.0, -3.1, -1.0, -0.01, 0.0, 0.4, 2.0, 12.7):
        assert student_t_cdf(t, df) == pytest.approx(scipy_stats.t.cdf(t, df), abs=1e-14)
    for p in (0.001, 0.025, 0.2, 0.5, 0.6, 0.95, 0.975, 0.9995):
        assert student_t_quantile(p, df) == pytest.approx(scipy_stats.t.ppf(p, df), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("df", range(1, 60))
def test_student_t_is_exactly_0_and_1_at_infinity(df: int) -> None:
    assert student_t_cdf(-math.inf, df) == 0.0
    assert student_t_cdf(math.inf, df) == 1.0


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1])
def test_student_t_quantile_wants_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match="0 < p < 1"):
        student_t_quantile(p, 4)


@pytest.mark.parametrize("values", [[0.2, 0.5], [0.31, 0.36, 0.29], [1, 2, 4, 3, 9]])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_up_to_5_seeds_the_interval_is_students_t(values: list[float], level: float) -> None:
    interval = mean_interval(values, level=level, generator=generator())
    low, high = scipy_stats.t.interval(level, len(values) - 1, np.mean(values), scipy_stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)
    assert interval.estimate == pytest.approx(np.mean(values))
    assert (interval.method, interval.num_seeds, interval.level) == ("t", len(values), level)


def test_bootstrap_agrees_with_the_enumeration_of_every_resample() -> None:
    values = [0.1, 0.15, 0.2, 0.3, 0.6, 1.4]
    mean, error = np.mean(values), scipy_stats.sem(values)
    statistics = []
    for resample in itertools.product(values, repeat=6):
        shift, spread = sum(resample) / 6 - mean, np.std(resample) / math.sqrt(5)
        varies = len(set(resample)) > 1
        statistics.append(shift / spread if varies else math.copysign(math.inf, shift))
    statistics.sort()
    low = mean - statistics[round(0.9 * len(statistics))] * error
    high = mean - statistics[round(0.1 * len(statistics))] * error
    interval = bootstrap_interval(values, level=0.8, num_resamples=100_000, generator=generator())
    assert min(values) < low < high < max(values)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)
    assert interval.method == "bootstrap"


def test_above_5_seeds_the_interval_is_the_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=6)
    assert mean_interval(values, generator=generator()) == bootstrap_interval(values, generator=generator())


def coverage(num_seeds: int, num_trials: int, *, skewed: bool) -> float:
    rng = np.random.default_rng(num_seeds)
    hits = 0
    for _ in range(num_trials):
        sample = rng.exponential(size=num_seeds) - 1 if skewed else rng.normal(size=num_seeds)
        interval = mean_interval(sample, generator=rng)
        hits += interval.low <= 0 <= interval.high
    return hits / num_trials


@pytest.mark.parametrize("num_seeds", [2, 5])
def test_t_interval_covers_the_mean(num_seeds: int) -> None:
    assert coverage(num_seeds, 2000, skewed=False) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(("num_seeds", "skewed", "lowest"), [(6, False, 0.92), (10, False, 0.92), (10, True, 0.91)])
def test_bootstrap_interval_covers_the_mean(num_seeds: int, skewed: bool, lowest: float) -> None:
    # A percentile or BCa interval reaches only .87 to .90 here.
    assert lowest < coverage(num_seeds, 400, skewed=skewed) < 0.98


def test_bootstrap_bounds_stay_within_the_values() -> None:
    for values in ([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5001, 0.5, 0.9], [-0.1, 0.0, 0.1], [0.0, 1.0]):
        interval = bootstrap_interval(values, generator=generator())
        assert min(values) <= interval.low <= interval.estimate <= interval.high <= max(values)
        assert interval.high > interval.estimate


@pytest.mark.parametrize(("center", "num_ties"), [(0.2, 6), (0.7, 5), (0.55, 7)])
def test_bootstrap_of_symmetric_ties_is_symmetric(center: float, num_ties: int) -> None:
    # A tenth of these resamples is the center repeated: 0 / 0, or rounding noise over rounding noise.
    interval = bootstrap_interval([center - 0.1] + [center] * num_ties + [center + 0.1], generator=generator())
    assert interval.high - center == pytest.approx(center - interval.low, abs=0.005)


def test_one_seed_has_no_interval() -> None:
    for interval_of in (mean_interval, bootstrap_interval):
        interval = interval_of([0.7], generator=generator())
        assert (interval.estimate, interval.method, interval.num_seeds) == (0.7, NO_INTERVAL, 1)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    assert math.isnan(paired_p_value([0.7], [0.1]))
    assert math.isnan(tost_p_value([0.7], [0.1], margin=0.5))


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 6, 10])
@pytest.mark.parametrize("value", [0.1, 0.0, -0.3])
def test_values_that_do_not_vary_have_defined_results(num_seeds: int, value: float) -> None:
    values = [value] * num_seeds
    for interval_of in (mean_interval, bootstrap_interval):
        interval = interval_of(values, generator=generator())
        assert interval.low == interval.estimate == interval.high == value
    assert mean_p_value(values, alternative="greater") == (0.0 if value > 0 else 1.0)
    assert mean_p_value(values, alternative="less") == (0.0 if value < 0 else 1.0)
    assert mean_p_value(values, alternative="two-sided") == (0.0 if value != 0 else 1.0)
    assert tost_p_value(values, [0.0] * num_seeds, margin=0.2) == (1.0 if value == -0.3 else 0.0)


A, B = [0.81, 0.74, 0.93, 0.66, 0.78], [0.79, 0.70, 0.88, 0.67, 0.71]


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_paired_p_value_agrees_with_scipy(alternative: Alternative) -> None:
    expected = scipy_stats.ttest_rel(A, B, alternative=alternative).pvalue
    assert paired_p_value(A, B, alternative=alternative) == pytest.approx(expected, abs=1e-12)


def test_p_value_of_another_null_agrees_with_scipy() -> None:
    expected = scipy_stats.ttest_1samp(A, 0.75, alternative="less").pvalue
    assert mean_p_value(A, null=0.75, alternative="less") == pytest.approx(expected, abs=1e-12)


def test_tost_agrees_with_two_scipy_tests() -> None:
    for margin in (0.01, 0.05, 0.2):
        differences = np.subtract(A, B)
        above = scipy_stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        below = scipy_stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert tost_p_value(A, B, margin=margin) == pytest.approx(max(above, below), abs=1e-12)
    with pytest.raises(ValueError, match="margin above 0"):
        tost_p_value(A, B, margin=0.0)


def test_pairing_removes_what_a_seed_does_to_both_arms() -> None:
    seed_effect = np.array([0.0, 10.0, -5.0, 3.0, 8.0])
    a, b = np.array(A) + seed_effect, np.array(B) + seed_effect
    paired = paired_interval(a, b, generator=generator())
    assert (paired.low, paired.high) == pytest.approx(
        (paired_interval(A, B, generator=generator()).low, paired_interval(A, B, generator=generator()).high)
    )
    assert paired_p_value(a, b) < 0.05 < scipy_stats.ttest_ind(a, b, alternative="greater").pvalue
    with pytest.raises(ValueError, match="wanted pairs"):
        paired_interval(a, b[:4], generator=generator())


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [0.1, math.inf], [[0.1, 0.2]]])
def test_samples_must_be_finite_and_one_for_each_seed(values: list) -> None:
    with pytest.raises(ValueError, match="one finite number for each seed"):
        mean_interval(np.array(values), generator=generator())


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and .06 carries over to the last.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-15)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, math.nan])


def test_holm_keeps_the_family_wise_error_rate() -> None:
    rng = generator()
    families = rng.normal(size=(2000, 5, 4))
    errors = [min(holm([mean_p_value(values) for values in family])) < 0.05 for family in families]
    assert 0.03 < np.mean(errors) < 0.06


def test_iqm_golden() -> None:
    assert iqm(GOLDEN_SCORES) == pytest.approx(0.658, abs=5e-4)
    for values in (GOLDEN_SCORES, np.array([0.3, 0.1, 0.9]), np.arange(7.0) ** 2):
        assert iqm(values) == pytest.approx(scipy_stats.trim_mean(values.ravel(), 0.25))
    with pytest.raises(ValueError, match="at least 3 seeds"):
        iqm(GOLDEN_SCORES[:, :2])


def test_stratified_bootstrap_resamples_within_a_task() -> None:
    levels = np.repeat([[0.1], [0.5], [0.9], [0.2]], 5, axis=1)
    constant = stratified_bootstrap_iqm(levels, generator=generator())
    assert constant.low == constant.high == pytest.approx(0.35)  # seeds of one task are never mixed with another's

    opposed = stratified_bootstrap_iqm(np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]), generator=generator())
    assert opposed.low < 0.3 < 0.7 < opposed.high  # the seeds of two tasks are drawn independently

    interval = stratified_bootstrap_iqm(GOLDEN_SCORES, generator=generator())
    rng = np.random.default_rng(9)
    draws = [
        scipy_stats.trim_mean(np.concatenate([rng.choice(task, size=5) for task in GOLDEN_SCORES]), 0.25)
        for _ in range(4000)
    ]
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.015)
    assert interval.estimate == iqm(GOLDEN_SCORES)
    assert (interval.method, interval.num_seeds) == ("stratified bootstrap", 5)


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    rng = generator()
    x, y = rng.integers(0, 5, size=7).astype(float), rng.integers(0, 5, size=9).astype(float)
    assert probability_of_improvement(x, y) == pytest.approx(scipy_stats.mannwhitneyu(x, y).statistic / 63)
    assert probability_of_improvement(x, x) == 0.5
    assert probability_of_improvement(np.array([2.0]), np.array([1.0, 2.0, 3.0, 0.0])) == 0.625
    tasks = np.array([[1.0, 1.0], [0.0, 0.0]])
    assert probability_of_improvement(tasks, tasks[::-1].copy()) == 0.5


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 50, 0.0, 0.071),
        (25, 50, 0.366, 0.634),
        (43, 50, 0.738, 0.930),
        (48, 50, 0.865, 0.989),
        (50, 50, 0.929, 1.0),
        (430, 500, 0.827, 0.888),
    ],
)
def test_wilson_golden(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-4)
    exact = scipy_stats.binomtest(successes, trials).proportion_ci(0.8, method="wilson")
    assert wilson_interval(successes, trials, level=0.8) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (1, 9), (9, 1), (6, 6), (7, 15), (700, 600)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    expected = scipy_stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar_exact(-1, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_spearman_agrees_with_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = zip(*pairs, strict=True)
    orders = len(set(a)) > 1 and len(set(b)) > 1
    expected = scipy_stats.spearmanr(a, b).statistic if orders else 0.0
    assert spearman(a, b) == pytest.approx(expected, abs=1e-12)


def test_spearman_wants_pairs() -> None:
    for a, b in (([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="equally long"):
            spearman(a, b)
