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
from jepalab.instruments.probes import RidgeClassifier, check_lengths, moments, standardise

NUM_NEIGHBOURS = 20
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
MAX_ITERATIONS = 100


class LogisticClassifier:
    """Multinomial logistic regression on standardised features, by L-BFGS from the strongest penalty to the weakest.

    strengths  candidate C: the loss is C x the summed cross-entropy + |weights|^2 / 2, the intercept free, as in
               sklearn.linear_model.LogisticRegression behind a StandardScaler. The most accurate on validation is
               kept; on a tie the smallest.

    After `fit`: classes_ [c], strength_, weights_ [d c], intercept_ [c] and moments_, in float64.
    """

    def __init__(self, strengths: Sequence[float] = STRENGTHS, *, max_iterations: int = MAX_ITERATIONS) -> None:
        if not strengths or min(strengths) <= 0 or max_iterations < 1:
            raise ValueError(
                f"wanted one or more positive strengths and max_iterations >= 1, got {tuple(strengths)} and "
                f"{max_iterations}"
            )
        self.strengths = tuple(sorted(strengths))
        self.max_iterations = max_iterations

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
        features = standardise(z, self.moments_)
        start = torch.zeros(features.shape[1] + 1, len(self.classes_), dtype=torch.float64)
        candidates, scores = [], []
        for strength in self.strengths:
            start = _descend(features, index, start, strength, self.max_iterations)
            self.weights_, self.intercept_ = start[:-1], start[-1]
            candidates.append(start)
            scores.append(self.score(z_validation, y_validation))
        best = scores.index(max(scores))
        self.strength_ = self.strengths[best]
        self.weights_, self.intercept_ = candidates[best][:-1], candidates[best][-1]
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
    `linear_lambda` the penalty chosen; `logistic...` likewise. `knn` has 20 neighbours and temperature 0.07.
    """
    train, validation, test = subject.train, subject.validation, subject.test
    logistic = LogisticClassifier().fit(train.z, train.labels, validation.z, validation.labels)
    return read_out(train, validation, test) | {
        "logistic": logistic.score(test.z, test.labels),
        "logistic_validation": logistic.score(validation.z, validation.labels),
        "logistic_strength": logistic.strength_,
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
        "knn": neighbours.score(test.z, test.labels),
    }


def _descend(features: Tensor, index: Tensor, start: Tensor, strength: float, max_iterations: int) -> Tensor:
    """Weights and, in the last row, intercepts that minimise mean cross-entropy + |weights|^2 / (2 C n)."""
    parameters = start.clone().requires_grad_()
    penalty = 0.5 / (strength * len(features))
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iterations,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(features @ parameters[:-1] + parameters[-1], index)
        value = value + penalty * (parameters[:-1] ** 2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # pyrefly: ignore[bad-argument-type]
    return parameters.detach()
