"""Small-sample statistics over training seeds (Agarwal et al., 2021, arXiv:2108.13264, and the textbooks).

The unit of replication is the training seed, never the test image. Every result is defined: values that do
not vary give an interval of zero width and a p-value of 0 or 1; one value gives NaN bounds and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float

Values = Sequence[float | int] | np.ndarray
Alternative = Literal["greater", "less", "two-sided"]
NO_INTERVAL = "1 seed, no interval"
LARGEST_N_FOR_T = 5  # up to here resampling has too few distinct resamples to be trusted
NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that contain the truth with probability `level`, in the units of the values."""

    estimate: float
    low: float
    high: float
    level: float
    method: str
    num_seeds: int


def student_t_cdf(t: float, df: int) -> float:
    """P(T <= t) for Student's t with `df` >= 1 degrees of freedom (Abramowitz & Stegun, 1964, 26.7.3-4)."""
    if df < 1:
        raise ValueError(f"wanted at least 1 degree of freedom, got {df}: use two values or more")
    return _cdf_of_angle(math.atan(t / math.sqrt(df)), df)


def student_t_quantile(p: float, df: int) -> float:
    """The t with P(T <= t) = p, for 0 < p < 1 and `df` >= 1."""
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"wanted 0 < p < 1 and df >= 1, got p = {p} and df = {df}")
    low, high = -math.pi / 2, math.pi / 2  # bisecting the angle keeps the search inside finite bounds
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if _cdf_of_angle(middle, df) < p else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def mean_interval(values: Values, *, level: float = 0.95, generator: np.random.Generator) -> Interval:
    """Interval of the mean of one value for each seed: Student's t up to 5 seeds, bootstrap-t above."""
    sample = _finite_sample(values)
    if len(sample) > LARGEST_N_FOR_T:
        return bootstrap_interval(sample, level=level, generator=generator)
    mean, error = _mean_and_error(sample)
    if len(sample) == 1:
        return Interval(mean, math.nan, math.nan, level, NO_INTERVAL, 1)
    half = student_t_quantile((1 + level) / 2, len(sample) - 1) * error
    return Interval(mean, mean - half, mean + half, level, "t", len(sample))


def paired_interval(a: Values, b: Values, *, level: float = 0.95, generator: np.random.Generator) -> Interval:
    """Interval of the mean of a - b, where a[i] and b[i] come from the same seed."""
    return mean_interval(_differences(a, b), level=level, generator=generator)


def bootstrap_interval(
    values: Values, *, level: float = 0.95, num_resamples: int = NUM_RESAMPLES, generator: np.random.Generator
) -> Interval:
    """Bootstrap-t interval of the mean (Efron & Tibshirani, 1993, chapter 12), for any number of seeds.

    In small samples it covers the truth far more often than percentile and BCa intervals do. Its bounds stay
    within the range of the values; that range is itself too narrow for a 95 % interval below 6 seeds.
    """
    sample = _finite_sample(values)
    mean, error = _mean_and_error(sample)
    if len(sample) == 1:
        return Interval(mean, math.nan, math.nan, level, NO_INTERVAL, 1)
    if error == 0:
        return Interval(mean, mean, mean, level, "bootstrap", len(sample))
    resamples = sample[generator.integers(len(sample), size=(num_resamples, len(sample)))]
    rounding = 1e-12 * np.ptp(sample)
    shifts = resamples.mean(axis=1) - mean
    shifts[np.abs(shifts) < rounding] = 0.0
    errors = resamples.std(axis=1, ddof=1) / math.sqrt(len(sample))
    # A resample of one repeated value is infinitely many of its own standard errors away from the mean.
    t = np.where(shifts == 0, 0.0, np.copysign(np.inf, shifts))
    np.divide(shifts, errors, out=t, where=errors > rounding)
    # "inverted_cdf" picks an element: interpolating between infinities would give NaN.
    low_t, high_t = np.quantile(t, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    low = max(float(mean - high_t * error), float(sample.min()))
    high = min(float(mean - low_t * error), float(sample.max()))
    return Interval(mean, low, high, level, "bootstrap", len(sample))


def mean_p_value(values: Values, *, null: float = 0.0, alternative: Alternative = "greater") -> float:
    """p-value of the one-sample t-test that the mean lies on the `alternative` side of `null`; NaN for one value."""
    sample = _finite_sample(values)
    if len(sample) == 1:
        return math.nan
    mean, error = _mean_and_error(sample)
    if error == 0 and mean == null:
        return 1.0
    t = (mean - null) / error if error > 0 else math.copysign(math.inf, mean - null)
    df = len(sample) - 1
    if alternative == "two-sided":
        return min(1.0, 2 * student_t_cdf(-abs(t), df))
    return student_t_cdf(-t if alternative == "greater" else t, df)


def paired_p_value(a: Values, b: Values, *, alternative: Alternative = "greater") -> float:
    """p-value of the paired t-test that mean(a - b) is `alternative` than 0; NaN for one pair."""
    return mean_p_value(_differences(a, b), alternative=alternative)


def tost_p_value(a: Values, b: Values, *, margin: float) -> float:
    """p-value of the claim |mean(a - b)| < margin: two one-sided paired t-tests (Schuirmann, 1987)."""
    if margin <= 0:
        raise ValueError(f"wanted a margin above 0, got {margin}: say how large a difference still counts as equal")
    differences = _differences(a, b)
    above = mean_p_value(differences, null=-margin, alternative="greater")
    below = mean_p_value(differences, null=margin, alternative="less")
    return max(above, below)


def holm(p_values: Sequence[float | int]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given: compare each with the family-wise level."""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"wanted p-values between 0 and 1, got {list(p_values)}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def iqm(values: Float[np.ndarray, "*tasks seeds"]) -> float:
    """Interquartile mean: the mean of the values, all tasks together, without the lowest and highest 25 %."""
    if values.shape[-1] < 3:
        raise ValueError(f"wanted at least 3 seeds for an interquartile mean, got {values.shape[-1]}: show the values")
    return float(_trimmed_mean(values.reshape(1, -1))[0])


def stratified_bootstrap_iqm(
    scores: Float[np.ndarray, "tasks seeds"],
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    generator: np.random.Generator,
) -> Interval:
    """Percentile-bootstrap interval of the interquartile mean; seeds are resampled within each task."""
    estimate = iqm(scores)
    picks = generator.integers(scores.shape[1], size=(num_resamples, *scores.shape))
    resamples = np.take_along_axis(scores[None], picks, axis=2).reshape(num_resamples, -1)
    low, high = np.quantile(_trimmed_mean(resamples), [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, "stratified bootstrap", scores.shape[1])


def probability_of_improvement(x: Float[np.ndarray, "*tasks n"], y: Float[np.ndarray, "*tasks m"]) -> float:
    """P(X > Y) + P(X = Y) / 2 over all pairs of seeds, averaged over tasks (Mann-Whitney's U / nm)."""
    gaps = x[..., :, None] - y[..., None, :]
    return float(np.mean((np.sign(gaps) + 1) / 2))


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) score interval (low, high) of a success rate."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"wanted 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, shrink = successes / trials, 1 + z**2 / trials
    center = (rate + z**2 / (2 * trials)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2)) / shrink
    return max(0.0, center - half), min(1.0, center + half)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p-value of McNemar's test (1947), from the two counts of episodes that only one arm solved."""
    if b < 0 or c < 0:
        raise ValueError(f"wanted two counts of at least 0, got {b} and {c}")
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2 ** (b + c))


def spearman(a: Values, b: Values) -> float:
    """Spearman's rank correlation, ties given their average rank; 0 where a side is constant: it orders nothing."""
    ranks_a, ranks_b = (_average_ranks(_finite_sample(side)) for side in (a, b))
    if len(ranks_a) != len(ranks_b) or len(ranks_a) < 2:
        raise ValueError(f"wanted two equally long lists of 2 values or more, got {len(ranks_a)} and {len(ranks_b)}")
    centred_a, centred_b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    scale = math.sqrt(float(centred_a @ centred_a) * float(centred_b @ centred_b))
    return float(np.clip(centred_a @ centred_b / scale, -1, 1)) if scale > 0 else 0.0


def _cdf_of_angle(theta: float, df: int) -> float:
    """Student's cdf at t = sqrt(df) tan(theta): a finite sum of powers of cos(theta)."""
    sine, cosine = math.sin(theta), math.cos(theta)
    term = total = 0.0
    if df > 1:
        term = total = sine * cosine if df % 2 else sine
    for k in range(3 if df % 2 else 2, df, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    central = 2 / math.pi * (theta + total) if df % 2 else total
    return min(1.0, max(0.0, (1 + central) / 2))


def _finite_sample(values: Values) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError(f"wanted one finite number for each seed, got {values}: leave failed runs out first")
    return sample


def _differences(a: Values, b: Values) -> np.ndarray:
    first, second = _finite_sample(a), _finite_sample(b)
    if len(first) != len(second):
        raise ValueError(f"wanted pairs, got {len(first)} and {len(second)} values: keep the seeds that both have")
    return first - second


def _mean_and_error(sample: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error, exactly 0 where the values do not vary (rounding would leave 1e-17)."""
    if np.ptp(sample) == 0:
        return float(sample[0]), 0.0
    return float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(len(sample))


def _trimmed_mean(rows: np.ndarray) -> np.ndarray:
    """The mean of each row without its lowest and highest quarter, rounded down."""
    cut = rows.shape[1] // 4
    return np.sort(rows, axis=1)[:, cut : rows.shape[1] - cut].mean(axis=1)


def _average_ranks(sample: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(sample, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
