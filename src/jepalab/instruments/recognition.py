"""Which class an image shows, read from frozen pooled embeddings: ridge, logistic regression, nearest neighbours.

Penalties are chosen on the validation split; the test split is only scored. Accuracies lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from jepalab.instruments.knn import KNNClassifier
from jepalab.instruments.labelled import FrozenSamples, LabelledSubject, known_classes
from jepalab.instruments.probes import RidgeClassifier, check_lengths, edge_of, moments, standardise

NUM_NEIGHBOURS = 20
STRENGTHS = tuple(10.0**power for power in range(-4, 6))
MAX_ITERATIONS = 500
LARGEST_GRADIENT = 1e-5


class LogisticClassifier:
    """Multinomial logistic regression on standardised features, by L-BFGS from the strongest penalty to the weakest.

    strengths         candidate C: the loss is C x the summed cross-entropy + |weights|^2 / 2, the intercept free, as
                      in sklearn.linear_model.LogisticRegression behind a StandardScaler. The most accurate on
                      validation is kept; on a tie the smallest.
    max_iterations    of L-BFGS for each C; it ends before where the gradient is small.
    largest_gradient  of the mean loss in nats, in the coordinates of `_Descent`, at which it ends.

    After `fit`: classes_ [c], strength_, weights_ [d c], intercept_ [c] and moments_, in float64, and is_converged_,
    whether the gradient was small enough at every C.
    """

    def __init__(
        self,
        strengths: Sequence[float] = STRENGTHS,
        *,
        max_iterations: int = MAX_ITERATIONS,
        largest_gradient: float = LARGEST_GRADIENT,
    ) -> None:
        if not strengths or min(strengths) <= 0 or max_iterations < 1 or largest_gradient <= 0:
            raise ValueError(
                f"wanted one or more positive strengths, max_iterations >= 1 and largest_gradient > 0, got "
                f"{tuple(strengths)}, {max_iterations} and {largest_gradient}"
            )
        self.strengths = tuple(sorted(strengths))
        self.max_iterations = max_iterations
        self.largest_gradient = largest_gradient

    def fit(
        self,
        z: Float[Tensor, "n d"],
        y: Int[Tensor, " n"],
        z_validation: Float[Tensor, "m d"],
        y_validation: Int[Tensor, " m"],
    ) -> LogisticClassifier:
        """Solves every candidate, each from the one before, and keeps the best."""
        check_lengths(z, y)
        check_lengths(z_validation, y_validation)
        self.classes_, index = y.cpu().unique(return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"wanted at least 2 classes in the training labels, got {self.classes_.tolist()}")
        self.moments_ = moments(z)
        descent = _Descent(standardise(z, self.moments_), index)
        candidates, scores = [], []
        for strength in self.strengths:
            candidates.append(descent.run(strength, self.max_iterations, self.largest_gradient))
            self.weights_, self.intercept_ = candidates[-1]
            scores.append(self.score(z_validation, y_validation))
        self.is_converged_ = descent.is_converged
        best = scores.index(max(scores))
        self.strength_ = self.strengths[best]
        self.weights_, self.intercept_ = candidates[best]
        return self

    def predict(self, z: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """One label of classes_ for each row."""
        return self.classes_[(standardise(z, self.moments_) @ self.weights_ + self.intercept_).argmax(dim=1)]

    def score(self, z: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> float:
        """Accuracy: the share of rows whose label is predicted exactly."""
        check_lengths(z, y)
        return float((self.predict(z) == y.cpu()).double().mean())


def recognition(subject: LabelledSubject) -> dict[str, float]:
    """Class accuracy on the encoder's output: closed-form linear, logistic regression, and kNN by DINO's protocol.

    `linear` is ridge classification, `linear_train` and `linear_validation` what it scores on those splits,
    `linear_lambda` the penalty chosen, `linear_lambda_edge` whether that lies at an edge of the grid (`edge_of`) and
    `linear_labels` how many labels it learned from; `logistic...` likewise. `knn` has 20 neighbours and temperature
    0.07.
    """
    train, validation, test = subject.train, subject.validation, subject.test
    logistic = LogisticClassifier().fit(train.z, train.labels, validation.z, validation.labels)
    return read_out(train, validation, test) | {
        "logistic": logistic.score(test.z, test.labels),
        "logistic_validation": logistic.score(validation.z, validation.labels),
        "logistic_strength": logistic.strength_,
        "logistic_strength_edge": edge_of(logistic.strength_, logistic.strengths),
        "logistic_labels": float(len(train.labels)),
    }


def frozen_linear(subject: LabelledSubject) -> dict[str, float]:
    """Closed-form linear accuracy alone, on test and on validation: cheap enough for learning curves and tuning."""
    train, validation, test = subject.train, subject.validation, subject.test
    linear = RidgeClassifier().fit(train.z, train.labels, validation.z, validation.labels)
    return {
        "linear": linear.score(test.z, test.labels),
        "linear_validation": linear.score(validation.z, validation.labels),
    }


def read_out(train: FrozenSamples, validation: FrozenSamples, test: FrozenSamples) -> dict[str, float]:
    """Closed-form linear and kNN accuracy on the encoder's output: `linear`, `linear_...` and `knn`."""
    known_classes(train)
    linear = RidgeClassifier().fit(train.z, train.labels, validation.z, validation.labels)
    # A sixth of the default rows at once: beside 50,000 training rows the default's distances would take 400 MB.
    neighbours = KNNClassifier(min(NUM_NEIGHBOURS, len(train.z)), rows_at_once=160).fit(train.z, train.labels)
    return {
        "linear": linear.score(test.z, test.labels),
        "linear_validation": linear.score(validation.z, validation.labels),
        "linear_train": linear.score(train.z, train.labels),
        "linear_lambda": linear.lambda_,
        "linear_lambda_edge": edge_of(linear.lambda_, linear.lambdas),
        "linear_labels": float(len(train.labels)),
        "knn": neighbours.score(test.z, test.labels),
        "knn_labels": float(len(train.labels)),
    }


class _Descent:
    """Minimises mean cross-entropy + |weights|^2 / (2 C n), each C from where the last one ended.

    In the features' own coordinates the curvature spans as many decades as their covariance, and L-BFGS creeps. Here it
    walks along the principal axes, each in units that make the curvature about 1: with eigenvalue v of the covariance
    and s the mean of p (1 - p) over the classes, 1 / sqrt(s v + 1 / (C n)). The minimum is the same.
    """

    def __init__(self, features: Float[Tensor, "n d"], index: Int[Tensor, " n"]) -> None:
        values, self.axes = torch.linalg.eigh(features.T @ features / len(features))
        self.rotated, self.index, self.values = features @ self.axes, index, values.clamp_min(0)
        shares = index.bincount().double() / len(index)
        self.curvature = (shares * (1 - shares)).mean()
        self.weights = features.new_zeros(features.shape[1], len(shares))  # along the axes
        self.intercept = shares.log()
        self.is_converged = True

    def run(
        self, strength: float, max_iterations: int, largest_gradient: float
    ) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
        """Weights in the features' own coordinates, and intercepts."""
        penalty = 1 / (strength * len(self.index))
        units = (self.curvature * self.values + penalty).rsqrt()[:, None]
        bias_unit = self.curvature.rsqrt()
        parameters = torch.cat([self.weights / units, self.intercept[None] / bias_unit]).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [parameters],
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            tolerance_grad=largest_gradient,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            weights, intercept = parameters[:-1] * units, parameters[-1] * bias_unit
            value = cross_entropy(self.rotated @ weights + intercept, self.index)
            value = value + penalty / 2 * (weights**2).sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # pyrefly: ignore[bad-argument-type]
            loss()
        assert parameters.grad is not None
        self.is_converged &= bool(parameters.grad.abs().max() <= largest_gradient)
        self.weights, self.intercept = parameters.detach()[:-1] * units, parameters.detach()[-1] * bias_unit
        return self.axes @ self.weights, self.intercept
