"""Linear read-outs of frozen embeddings in closed form: ridge regression and ridge classification.

Features are standardised with the statistics of the training split alone, which removes the scale of an embedding
from the comparison (Lee et al., arXiv 2304.03456). The penalty is chosen on a validation split. All is computed in
float64 on the CPU, is deterministic, and agrees with scikit-learn's Ridge and RidgeClassifier at equal alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from jepalab.instruments.geometry import finite_float64, varies

LAMBDAS = tuple(10.0**power for power in range(-4, 7))
LARGEST_R2 = 1 - 1e-6


class Moments(NamedTuple):
    """Mean and standard deviation of each column of a training split; std is 1 where a column is constant."""

    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]


def moments(train: Float[Tensor, "n d"]) -> Moments:
    """What `standardise` needs to know of the training split (n >= 2)."""
    if len(train) < 2:
        raise ValueError(f"Standardising needs at least 2 training rows, got {tuple(train.shape)}.")
    train = finite_float64(train)
    return Moments(train.mean(dim=0), torch.where(varies(train), train.std(dim=0, correction=0), 1.0))


def standardise(z: Float[Tensor, "n d"], by: Moments) -> Float[Tensor, "n d"]:
    """z in units of the training split: mean 0 and variance 1 there, and about that elsewhere. float64."""
    if z.shape[1] != len(by.mean):
        raise ValueError(f"Fitted on {len(by.mean)} dimensions, got z {tuple(z.shape)}; use the same encoder for both.")
    return (finite_float64(z) - by.mean) / by.std


def information_budget(r2_per_dimension: Float[Tensor, " f"]) -> float:
    """Nats about f factors in an embedding: -1/2 sum log(1 - R2), R2 clipped to [0, 1 - 1e-6].

    A lower bound on the mutual information if factors and embedding are jointly Gaussian and the factors independent.
    Spent on the state or on the nuisance, it is the nearest measurable thing to capacity.
    """
    r2 = finite_float64(r2_per_dimension, name="r2_per_dimension").clamp(0, LARGEST_R2)
    return -0.5 * float(torch.log1p(-r2).sum())


def check_lengths(z: Float[Tensor, "n d"], y: Shaped[Tensor, "m ..."]) -> None:
    """Raises ValueError unless there is exactly one target for each row, and at least one row."""
    if len(z) != len(y) or len(z) == 0:
        raise ValueError(f"Wanted one target for each of one or more rows, got {len(z)} rows and {len(y)} targets.")


def edge_of(chosen: float, candidates: Sequence[float]) -> float:
    """-1 if the lowest candidate was chosen, 1 if the highest, else 0: at an edge, what lies beyond was not tried.

    There is no edge among fewer than three candidates, nor is there anything to choose from one.
    """
    if len(candidates) < 3:
        return 0.0
    return float(chosen == max(candidates)) - float(chosen == min(candidates))


class Ridge:
    """Ridge regression of f targets on d features; the penalty is the one with the best R2 on validation.

    lambdas  candidate penalties on |weights|^2 against the summed squared error, in standardised units: the alpha of
             sklearn.linear_model.Ridge behind a StandardScaler. On a tie the first wins.

    After `fit`: lambda_ (chosen), weights_ [d f] in standardised units, feature_moments_, target_moments_, kept_ [f]
    (targets that vary in training and in validation; the others have no R2 and are not scored) and
    num_constant_targets_.
    """

    def __init__(self, lambdas: Sequence[float] = LAMBDAS) -> None:
        self.lambdas = _checked_lambdas(lambdas)

    def fit(
        self,
        z: Float[Tensor, "n d"],
        y: Float[Tensor, "n f"],
        z_validation: Float[Tensor, "m d"],
        y_validation: Float[Tensor, "m f"],
    ) -> Ridge:
        """Solves every candidate from one eigendecomposition and keeps the best."""
        y, y_validation = _checked_targets(z, y), _checked_targets(z_validation, y_validation)
        self.feature_moments_, self.target_moments_ = moments(z), moments(y)
        self.kept_ = varies(y) & varies(y_validation)
        self.num_constant_targets_ = int((~self.kept_).sum())
        if not self.kept_.any():
            raise ValueError(
                f"None of the {y.shape[1]} targets varies in both the training split ({len(y)} rows) and the "
                f"validation split ({len(y_validation)} rows); there is nothing to read out."
            )
        standard_y = standardise(y, self.target_moments_)
        candidates = _solve(standardise(z, self.feature_moments_), standard_y, self.lambdas)
        standard_z = standardise(z_validation, self.feature_moments_)
        truth = standardise(y_validation, self.target_moments_)[:, self.kept_]
        scores = [_r2(standard_z @ weights[:, self.kept_], truth).mean() for weights in candidates]
        self.lambda_, self.weights_ = _best(self.lambdas, candidates, scores)
        return self

    def predict(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """The targets in their own units; a target that is constant in training is predicted by its mean."""
        mean, std = self.target_moments_
        return standardise(z, self.feature_moments_) @ self.weights_ * std + mean

    def score_each(self, z: Float[Tensor, "n d"], y: Float[Tensor, "n f"]) -> Float[Tensor, " kept"]:
        """R2 = 1 - SSE / SST of each kept target, in order; SST is around the mean of the y given here."""
        truth = _checked_targets(z, y)[:, self.kept_]
        constant = (~varies(truth)).nonzero().flatten().tolist()
        if constant:
            raise ValueError(
                f"R2 is undefined: kept target(s) {constant} are constant on these {len(y)} rows; use more."
            )
        return _r2(self.predict(z)[:, self.kept_], truth)

    def score(self, z: Float[Tensor, "n d"], y: Float[Tensor, "n f"]) -> float:
        """R2 averaged over the kept targets: 1 is exact, 0 is the mean, below 0 is worse than the mean."""
        return float(self.score_each(z, y).mean())


class RidgeClassifier:
    """Ridge regression on one-hot targets of +-1; the class with the largest output wins.

    lambdas  as in `Ridge`; the penalty is the one with the best accuracy on validation. On a tie the first wins.

    After `fit`: classes_ [c] (sorted labels seen in training), lambda_, weights_ [d c] in standardised units,
    intercept_ [c] and feature_moments_.
    """

    def __init__(self, lambdas: Sequence[float] = LAMBDAS) -> None:
        self.lambdas = _checked_lambdas(lambdas)

    def fit(
        self,
        z: Float[Tensor, "n d"],
        y: Int[Tensor, " n"],
        z_validation: Float[Tensor, "m d"],
        y_validation: Int[Tensor, " m"],
    ) -> RidgeClassifier:
        """Solves every candidate from one eigendecomposition and keeps the best."""
        check_lengths(z, y)
        check_lengths(z_validation, y_validation)
        self.feature_moments_ = moments(z)
        self.classes_, index = y.cpu().unique(return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Wanted at least 2 classes in the training labels, got {self.classes_.tolist()}.")
        targets = 2 * one_hot(index).double() - 1
        self.intercept_ = targets.mean(dim=0)
        # Standardised features have mean zero, so the targets need no centring.
        candidates = _solve(standardise(z, self.feature_moments_), targets, self.lambdas)
        standard_z = standardise(z_validation, self.feature_moments_)
        scores = [_accuracy(self._vote(standard_z @ weights), y_validation) for weights in candidates]
        self.lambda_, self.weights_ = _best(self.lambdas, candidates, scores)
        return self

    def predict(self, z: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """One label of classes_ for each row."""
        return self._vote(standardise(z, self.feature_moments_) @ self.weights_)

    def score(self, z: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> float:
        """Accuracy: the share of rows whose label is predicted exactly."""
        check_lengths(z, y)
        return float(_accuracy(self.predict(z), y))

    def _vote(self, outputs: Tensor) -> Tensor:
        return self.classes_[(outputs + self.intercept_).argmax(dim=1)]


def _solve(z: Tensor, y: Tensor, lambdas: Sequence[float]) -> list[Tensor]:
    """(z'z + lambda I)^-1 z'y for each lambda."""
    values, vectors = torch.linalg.eigh(z.T @ z)
    rotated = vectors.T @ (z.T @ y)
    return [vectors @ (rotated / (values.clamp_min(0) + penalty)[:, None]) for penalty in lambdas]


def _best(lambdas: Sequence[float], candidates: Sequence[Tensor], scores: Sequence[Tensor]) -> tuple[float, Tensor]:
    best = int(torch.stack(list(scores)).argmax())
    return lambdas[best], candidates[best]


def _r2(predicted: Tensor, truth: Tensor) -> Tensor:
    error = ((truth - predicted) ** 2).sum(dim=0)
    return 1 - error / ((truth - truth.mean(dim=0)) ** 2).sum(dim=0)


def _accuracy(predicted: Tensor, truth: Tensor) -> Tensor:
    return (predicted == truth.cpu()).double().mean()


def _checked_lambdas(lambdas: Sequence[float]) -> tuple[float, ...]:
    if not lambdas or not all(0 < penalty < float("inf") for penalty in lambdas):
        raise ValueError(f"Wanted one or more positive, finite lambdas, got {tuple(lambdas)}.")
    return tuple(lambdas)


def _checked_targets(z: Tensor, y: Tensor) -> Tensor:
    check_lengths(z, y)
    if len(y) < 2:
        raise ValueError(f"R2 needs at least 2 rows, got targets {tuple(y.shape)}.")
    return finite_float64(y, name="targets")
