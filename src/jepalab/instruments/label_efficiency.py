"""How many labels an encoder saves: k-shot curves, their area, and the labels needed for a target accuracy.

Draw number j of k labels a class is the same images for every arm. The penalty of a draw is the one that another draw
of the same size found best on validation, so no draw tunes for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.instruments.labelled import LabelledSubject, known_classes
from jepalab.instruments.probes import RidgeClassifier

SHOTS = (1, 2, 5, 10, 20, 50, 100)
NUM_DRAWS = 10
Curve = Mapping[int, float]  # number of labels -> accuracy


class Shot(NamedTuple):
    """One draw of labels: k a class, its number, the penalty used, and the accuracy on test."""

    num_shots: int
    draw: int
    lambda_: float
    accuracy: float


class Ratio(NamedTuple):
    """Labels that arm a needs over those that arm b needs, with bounds: below 1, a saves labels.

    0 where b never reaches the target, infinite where a never does, NaN where neither does.
    """

    estimate: float
    low: float
    high: float


def label_efficiency(
    subject: LabelledSubject, *, shots: Sequence[int] = SHOTS, num_draws: int = NUM_DRAWS
) -> dict[str, float]:
    """Accuracy with k labels a class (`shot_k`, the mean over draws), with all of them, and the area under the curve.

    `shot_all` uses every label of the training split, `shot_all_labels` of them. `shots_auc` lies in [0, 1]: the mean
    accuracy over the logarithm of the number of labels. A k that some class has not enough labels for is left out.
    """
    found = few_shots(subject, shots=shots, num_draws=num_draws)
    num_classes, num_labels = len(known_classes(subject.train)), len(subject.train.labels)
    sizes = sorted({shot.num_shots for shot in found})
    means = {k: float(np.mean([shot.accuracy for shot in found if shot.num_shots == k])) for k in sizes}
    train, validation, test = subject.train, subject.validation, subject.test
    everything = RidgeClassifier().fit(train.z, train.labels, validation.z, validation.labels)
    scores = {f"shot_{k}": mean for k, mean in means.items()}
    scores |= {"shot_all": everything.score(test.z, test.labels), "shot_all_labels": float(num_labels)}
    curve = {k * num_classes: mean for k, mean in means.items()} | {num_labels: scores["shot_all"]}
    if len(curve) > 1:
        scores["shots_auc"] = area_under(curve)
    return scores


def few_shots(subject: LabelledSubject, *, shots: Sequence[int] = SHOTS, num_draws: int = NUM_DRAWS) -> list[Shot]:
    """Every draw of every size that the training split has enough labels for."""
    if not shots or min(shots) < 1 or num_draws < 2:
        raise ValueError(
            f"wanted shots of at least 1 label a class and at least 2 draws, got {tuple(shots)} and {num_draws}; the "
            "penalty of a draw comes from another"
        )
    train, validation, test = subject.train, subject.validation, subject.test
    known_classes(train)
    smallest = int(train.labels.unique(return_counts=True)[1].min())
    found = []
    for k in sorted({k for k in shots if k <= smallest}):
        draws = [draw_labels(train.labels, k, draw) for draw in range(num_draws)]
        # Every penalty is chosen before one is used: draw j takes the penalty of draw j + 1.
        lambdas = [
            RidgeClassifier().fit(train.z[rows], train.labels[rows], validation.z, validation.labels).lambda_
            for rows in draws
        ]
        for draw, rows in enumerate(draws):
            borrowed = lambdas[(draw + 1) % num_draws]
            probe = RidgeClassifier((borrowed,))
            probe.fit(train.z[rows], train.labels[rows], validation.z, validation.labels)
            found.append(Shot(k, draw, borrowed, probe.score(test.z, test.labels)))
    return found


def draw_labels(labels: Int[Tensor, " n"], num_shots: int, draw: int) -> Int[Tensor, " m"]:
    """num_shots rows of each class: a function of the labels, num_shots and draw alone, hence equal for all arms."""
    generator = torch.Generator().manual_seed(1_000_003 * num_shots + draw)
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    return torch.cat([order[(shuffled == label).nonzero().flatten()[:num_shots]] for label in labels.unique()])


def area_under(curve: Curve) -> float:
    """Area under accuracy over log2(labels) by the trapezoid rule, divided by the range of log2(labels)."""
    labels = sorted(curve)
    if len(labels) < 2 or labels[0] < 1:
        raise ValueError(f"wanted a curve of at least 2 numbers of labels, each at least 1, got {labels}")
    x, y = np.log2(labels), np.array([curve[n] for n in labels])
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def labels_needed(curve: Curve, target: float) -> float:
    """The number of labels at which the curve reaches the target, infinite if it does not.

    The curve is made monotone by the best accuracy so far, and is straight between its points over log2(labels). A
    target that the first point already reaches gives the labels of that point: fewer were not tried.
    """
    labels = sorted(curve)
    if not labels or labels[0] < 1:
        raise ValueError(f"wanted a curve of one or more numbers of labels, each at least 1, got {labels}")
    return float(_needed(np.array(labels), np.array([[curve[n] for n in labels]]), target)[0])


def efficiency_ratio(
    curves_a: Sequence[Curve],
    curves_b: Sequence[Curve],
    target: float,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    generator: np.random.Generator,
) -> Ratio:
    """labels_needed of a over that of b, each on its mean curve, with a percentile bootstrap over the curves.

    curves_a, curves_b  curve i of both comes from the same seed (or the same draw), and they are resampled in pairs.
                        Any unit of labels will do that both share, labels a class or in all.
    """
    if len(curves_a) != len(curves_b) or not curves_a:
        raise ValueError(f"wanted one or more pairs of curves, got {len(curves_a)} and {len(curves_b)}")
    if any(curve.keys() != curves_a[0].keys() for curve in (*curves_a, *curves_b)):
        raise ValueError("wanted all curves at the same numbers of labels; leave out the points that not all have")
    labels = sorted(curves_a[0])
    if not labels or labels[0] < 1:
        raise ValueError(f"wanted curves of one or more numbers of labels, each at least 1, got {labels}")
    a, b = (np.array([[curve[n] for n in labels] for curve in curves]) for curves in (curves_a, curves_b))
    # The first row is every curve once, the others are drawn with replacement.
    picks = np.vstack([np.arange(len(a)), generator.integers(len(a), size=(num_resamples, len(a)))])
    needed_a, needed_b = (_needed(np.array(labels), arm[picks].mean(axis=1), target) for arm in (a, b))
    both_fail = np.isinf(needed_a) & np.isinf(needed_b)
    ratios = np.where(both_fail, np.nan, needed_a / np.where(both_fail, 1, needed_b))
    resampled = ratios[1:][~np.isnan(ratios[1:])]
    if len(a) == 1 or len(resampled) == 0:
        return Ratio(float(ratios[0]), math.nan, math.nan)
    # "inverted_cdf" picks an element: interpolating between infinities would give NaN.
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Ratio(float(ratios[0]), float(low), float(high))


def curve_of(scores: Mapping[str, float]) -> dict[int, float]:
    """The k-shot curve in an arm's recorded scores: labels a class -> accuracy, without `shot_all`."""
    names = (name.removeprefix("shot_") for name in scores if name.startswith("shot_"))
    return {int(k): scores[f"shot_{k}"] for k in names if k.isdecimal()}


def _needed(
    labels: Int[np.ndarray, " p"], accuracies: Float[np.ndarray, "r p"], target: float
) -> Float[np.ndarray, " r"]:
    """`labels_needed` of each row of accuracies."""
    reached = np.maximum.accumulate(accuracies, axis=1)
    after = (reached < target).sum(axis=1)
    right, left = after.clip(max=len(labels) - 1), (after - 1).clip(min=0)
    high, low = (np.take_along_axis(reached, i[:, None], axis=1)[:, 0] for i in (right, left))
    share = np.where(high > low, (target - low) / np.where(high > low, high - low, 1), 0.0)
    x = np.log2(labels)
    between = 2 ** (x[left] + share * (x[right] - x[left]))
    return np.where(after == 0, labels[0], np.where(after == len(labels), np.inf, between))
