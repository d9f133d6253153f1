"""Read-outs against scikit-learn at equal settings, closed forms and their invariances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepalab.instruments.knn import KNNClassifier
from jepalab.instruments.probes import Ridge, RidgeClassifier, edge_of, information_budget, moments, standardise


class Split(NamedTuple):
    z: Tensor
    y: Tensor
    label: Tensor


def draw(n: int, *, seed: int, noise: float = 0.5) -> Split:
    """Ten features of unequal scale and offset, three targets linear in them but for noise, four classes."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 10, generator=generator)
    weights = torch.randn(10, 3, generator=torch.Generator().manual_seed(99))
    y = hidden @ weights + noise * torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 5.0, -100.0])
    return Split(hidden * torch.logspace(-2, 2, 10) + torch.arange(10), y, 2 * (y[:, 0] > 0) + (y[:, 1] > 5) + 3)


TRAIN, VALIDATION, TEST = draw(120, seed=0), draw(60, seed=1), draw(80, seed=2)


@pytest.fixture
def _as_for_a_user() -> Iterator[None]:
    """Shape checks off, as they are outside the tests, so that our own messages are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def array(x: Tensor) -> Any:
    """For scikit-learn, whose stubs do not take numpy's own arrays."""
    return x.double().numpy()


def fit_ridge(*lambdas: float) -> Ridge:
    return Ridge(lambdas).fit(TRAIN.z, TRAIN.y, VALIDATION.z, VALIDATION.y)


def fit_classifier(*lambdas: float) -> RidgeClassifier:
    return RidgeClassifier(lambdas).fit(TRAIN.z, TRAIN.label, VALIDATION.z, VALIDATION.label)


@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0, 1000.0])
def test_ridge_agrees_with_sklearn(alpha: float) -> None:
    theirs = make_pipeline(StandardScaler(), linear_model.Ridge(alpha=alpha, solver="svd"))
    expected: Any = theirs.fit(array(TRAIN.z), array(TRAIN.y)).predict(array(TEST.z))
    ours = fit_ridge(alpha)
    np.testing.assert_allclose(ours.predict(TEST.z).numpy(), expected, rtol=1e-9, atol=1e-9)
    each: Any = r2_score(array(TEST.y), expected, multioutput="raw_values")
    np.testing.assert_allclose(ours.score_each(TEST.z, TEST.y).numpy(), each, rtol=1e-9)
    assert ours.score(TEST.z, TEST.y) == pytest.approx(each.mean(), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_ridge_classifier_agrees_with_sklearn(alpha: float, num_classes: int) -> None:
    label, validation_label = ((split.label - 3) % num_classes + 3 for split in (TRAIN, VALIDATION))
    theirs = make_pipeline(StandardScaler(), linear_model.RidgeClassifier(alpha=alpha, solver="svd"))
    theirs.fit(array(TRAIN.z), label.numpy())
    ours = RidgeClassifier((alpha,)).fit(TRAIN.z, label, VALIDATION.z, validation_label)
    np.testing.assert_array_equal(ours.predict(TEST.z).numpy(), theirs.predict(array(TEST.z)))
    coefficients = np.atleast_2d(theirs[-1].coef_).T  # scikit-learn keeps one column for two classes
    np.testing.assert_allclose(ours.weights_[:, -coefficients.shape[1] :].numpy(), coefficients, rtol=1e-8, atol=1e-10)


def test_ridge_chooses_the_penalty_that_validates_best() -> None:
    lambdas = (1e-2, 1.0, 1e2, 1e4)
    noisy_train, noisy_validation = draw(14, seed=3, noise=3.0), draw(500, seed=4, noise=3.0)
    data = (noisy_train.z, noisy_train.y, noisy_validation.z, noisy_validation.y)
    alone = {one: Ridge((one,)).fit(*data).score(noisy_validation.z, noisy_validation.y) for one in lambdas}
    best = max(alone, key=alone.__getitem__)
    assert best not in (lambdas[0], lambdas[-1])
    for order in (lambdas, lambdas[::-1]):
        chosen = Ridge(order).fit(*data)
        assert chosen.lambda_ == best
        assert chosen.score(noisy_validation.z, noisy_validation.y) == alone[best]


def test_classifier_chooses_the_penalty_that_validates_best() -> None:
    lambdas = (1e-6, 1e1, 1e7)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(300) % 3
    z = torch.randn(300, 40, generator=generator) + 1.5 * torch.nn.functional.one_hot(label, 40)
    data = (z[:45], label[:45], z[45:], label[45:])
    alone = {one: RidgeClassifier((one,)).fit(*data).score(z[45:], label[45:]) for one in lambdas}
    assert len(set(alone.values())) == 3
    best = max(alone, key=alone.__getitem__)
    for order in (lambdas, lambdas[::-1]):
        assert RidgeClassifier(order).fit(*data).lambda_ == best


def test_what_is_chosen_at_an_edge_of_its_grid_is_told() -> None:
    grid = (1e-2, 1.0, 1e2)
    assert [edge_of(chosen, grid) for chosen in grid] == [-1, 0, 1]
    assert [edge_of(chosen, grid[::-1]) for chosen in grid] == [-1, 0, 1]
    assert edge_of(1.0, (1.0,)) == edge_of(1.0, (1.0, 2.0)) == 0


def test_exact_linear_targets_are_read_exactly() -> None:
    exact = draw(100, seed=5, noise=0.0)
    assert Ridge((1e-9,)).fit(exact.z, exact.y, exact.z, exact.y).score(exact.z, exact.y) == pytest.approx(1, abs=1e-6)


def test_a_mean_predictor_scores_zero_and_a_worse_one_below() -> None:
    shrunk = fit_ridge(1e15)
    at_train_mean = TEST.y - TEST.y.mean(dim=0) + TRAIN.y.mean(dim=0)
    assert shrunk.score(TEST.z, at_train_mean) == pytest.approx(0, abs=1e-6)
    assert shrunk.score(TEST.z, at_train_mean + 10) < -1


@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(-10, 10))
@settings(max_examples=15, deadline=None)
def test_affine_rescaling_of_each_feature_changes_nothing(seed: int, log_scale: float, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** (log_scale * torch.rand(10, generator=generator).double()) * torch.tensor([1.0, -1.0]).repeat(5)

    def moved(z: Tensor) -> Tensor:
        return z.double() * scale + offset

    ridge = Ridge().fit(moved(TRAIN.z), TRAIN.y, moved(VALIDATION.z), VALIDATION.y)
    torch.testing.assert_close(ridge.predict(moved(TEST.z)), Ridge().fit(*_fit_data()).predict(TEST.z))
    classifier = RidgeClassifier().fit(moved(TRAIN.z), TRAIN.label, moved(VALIDATION.z), VALIDATION.label)
    assert torch.equal(classifier.predict(moved(TEST.z)), fit_classifier(*classifier.lambdas).predict(TEST.z))


@given(st.floats(0.01, 100), st.floats(-10, 10))
@settings(max_examples=15, deadline=None)
def test_r2_ignores_the_units_of_the_target(scale: float, offset: float) -> None:
    in_other_units = Ridge().fit(TRAIN.z, TRAIN.y * scale + offset, VALIDATION.z, VALIDATION.y * scale + offset)
    expected = Ridge().fit(*_fit_data()).score(TEST.z, TEST.y)
    assert in_other_units.score(TEST.z, TEST.y * scale + offset) == pytest.approx(expected, rel=1e-3)


def _fit_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return TRAIN.z, TRAIN.y, VALIDATION.z, VALIDATION.y


def test_standardise_uses_the_training_split_alone() -> None:
    by = moments(TRAIN.z)
    own = standardise(TRAIN.z, by)
    torch.testing.assert_close(own.mean(dim=0), torch.zeros(10, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(own.std(dim=0, correction=0), torch.ones(10, dtype=torch.float64))
    expected = StandardScaler().fit(array(TRAIN.z)).transform(array(TEST.z))
    np.testing.assert_allclose(standardise(TEST.z, by).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_constant_and_duplicate_features_are_harmless() -> None:
    def padded(z: Tensor) -> Tensor:
        return torch.cat([z, torch.full((len(z), 2), 0.1)], dim=1)

    ridge = Ridge((1.0,)).fit(padded(TRAIN.z), TRAIN.y, padded(VALIDATION.z), VALIDATION.y)
    torch.testing.assert_close(ridge.predict(padded(TEST.z)), fit_ridge(1.0).predict(TEST.z))
    twice = Ridge((2.0,)).fit(TRAIN.z.repeat(1, 2), TRAIN.y, VALIDATION.z.repeat(1, 2), VALIDATION.y)
    torch.testing.assert_close(twice.predict(TEST.z.repeat(1, 2)), fit_ridge(1.0).predict(TEST.z))


def test_constant_targets_are_counted_and_not_scored() -> None:
    def with_constant(y: Tensor) -> Tensor:
        return torch.cat([y[:, :1], torch.full((len(y), 1), 0.7), y[:, 1:]], dim=1)

    ridge = Ridge().fit(TRAIN.z, with_constant(TRAIN.y), VALIDATION.z, with_constant(VALIDATION.y))
    plain = Ridge().fit(*_fit_data())
    assert ridge.num_constant_targets_ == 1
    assert ridge.kept_.tolist() == [True, False, True, True]
    assert ridge.lambda_ == plain.lambda_
    assert ridge.score(TEST.z, with_constant(TEST.y)) == pytest.approx(plain.score(TEST.z, TEST.y))
    assert ridge.score_each(TEST.z, with_constant(TEST.y)).shape == (3,)
    torch.testing.assert_close(ridge.predict(TEST.z)[:, 1], torch.full((80,), 0.7).double())


def test_targets_without_any_variation_are_refused() -> None:
    with pytest.raises(ValueError, match="None of the 3 targets varies"):
        Ridge().fit(TRAIN.z, torch.full_like(TRAIN.y, 0.1), VALIDATION.z, VALIDATION.y)
    with pytest.raises(ValueError, match=r"target\(s\) \[1\] are constant on these 80 rows"):
        fit_ridge(1.0).score(TEST.z, TEST.y * torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match=r"2 classes in the training labels, got \[3\]"):
        RidgeClassifier().fit(TRAIN.z, torch.full((120,), 3), VALIDATION.z, VALIDATION.label)


def test_information_budget_in_nats() -> None:
    assert information_budget(torch.tensor([0.0, -5.0])) == 0
    assert information_budget(torch.tensor([0.75])) == pytest.approx(math.log(2))
    assert information_budget(torch.tensor([0.75, 0.75, -1.0])) == pytest.approx(2 * math.log(2))
    assert information_budget(torch.ones(2)) == pytest.approx(-math.log(1e-6))
    with pytest.raises(ValueError, match="NaN"):
        information_budget(torch.tensor([0.5, math.nan]))


def test_information_budget_of_a_gaussian_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(20_000, 2, generator=generator)
    z = state + torch.tensor([0.5, 2.0]) * torch.randn(20_000, 2, generator=generator)
    ridge = Ridge().fit(z[:8000], state[:8000], z[8000:10_000], state[8000:10_000])
    capacity = 0.5 * math.log(1 + 1 / 0.25) + 0.5 * math.log(1 + 1 / 4)
    assert information_budget(ridge.score_each(z[10_000:], state[10_000:])) == pytest.approx(capacity, rel=0.02)


@pytest.mark.parametrize("num_neighbours", [1, 20, 100])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("rows_at_once", [7, 1024])
def test_knn_agrees_with_sklearn(num_neighbours: int, temperature: float, rows_at_once: int) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 8, generator=generator) + 0.3
    y = torch.randint(3, 8, (500,), generator=generator)
    theirs = KNeighborsClassifier(
        num_neighbours,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(array(z[:300]), array(y[:300]))
    ours = KNNClassifier(num_neighbours, temperature=temperature, rows_at_once=rows_at_once).fit(z[:300], y[:300])
    expected = theirs.predict(array(z[300:]))
    np.testing.assert_array_equal(ours.predict(z[300:]).numpy(), expected)
    assert ours.score(z[300:], y[300:]) == pytest.approx((expected == y[300:].numpy()).mean())


def test_knn_temperature_decides_between_nearest_and_most() -> None:
    train, label = torch.tensor([[1.0, 0], [1, 1], [1, 1.1]]), torch.tensor([7, 2, 2])
    query = torch.tensor([[10.0, 1.0]])
    assert KNNClassifier(3, temperature=1e-4).fit(train, label).predict(query).item() == 7
    assert KNNClassifier(3, temperature=10.0).fit(train, label).predict(query).item() == 2


def test_nan_features_and_bad_settings_are_refused() -> None:
    nan = TRAIN.z.clone()
    nan[0, 0] = math.nan
    with pytest.raises(ValueError, match="1 of its entries are NaN"):
        Ridge().fit(nan, TRAIN.y, VALIDATION.z, VALIDATION.y)
    with pytest.raises(ValueError, match="1 of its entries are NaN"):
        RidgeClassifier().fit(nan, TRAIN.label, VALIDATION.z, VALIDATION.label)
    with pytest.raises(ValueError, match="1 of its entries are NaN"):
        KNNClassifier().fit(nan, TRAIN.label)
    with pytest.raises(ValueError, match="1 of its entries are NaN"):
        fit_ridge(1.0).predict(nan)
    with pytest.raises(ValueError, match=r"targets \(120, 3\) must be finite"):
        Ridge().fit(TRAIN.z, TRAIN.y * math.inf, VALIDATION.z, VALIDATION.y)
    with pytest.raises(ValueError, match="positive, finite lambdas"):
        Ridge((1.0, 0.0))
    with pytest.raises(ValueError, match="positive, finite lambdas"):
        RidgeClassifier(())
    with pytest.raises(ValueError, match="temperature > 0"):
        KNNClassifier(temperature=0.0)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="Fitted on 10 dimensions"):
        fit_ridge(1.0).predict(TEST.z[:, :1])
    with pytest.raises(ValueError, match="Fitted on 10 dimensions"):
        KNNClassifier().fit(TRAIN.z, TRAIN.label).predict(TEST.z[:, :1])


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        Ridge().fit(TRAIN.z[:1], TRAIN.y[:1], VALIDATION.z, VALIDATION.y)
    with pytest.raises(ValueError, match="at least 2 training rows"):
        RidgeClassifier().fit(TRAIN.z[:1], TRAIN.label[:1], VALIDATION.z, VALIDATION.label)
    with pytest.raises(ValueError, match="num_neighbours = 20 training rows, got 19"):
        KNNClassifier().fit(TRAIN.z[:19], TRAIN.label[:19])
    with pytest.raises(ValueError, match="0 rows"):
        fit_classifier(1.0).score(TEST.z[:0], TEST.label[:0])


@pytest.mark.usefixtures("_as_for_a_user")
def test_mismatched_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="120 rows and 60 targets"):
        Ridge().fit(TRAIN.z, VALIDATION.y, VALIDATION.z, VALIDATION.y)
    with pytest.raises(ValueError, match="60 rows and 120 targets"):
        RidgeClassifier().fit(TRAIN.z, TRAIN.label, VALIDATION.z, TRAIN.label)
    with pytest.raises(ValueError, match="120 rows and 80 targets"):
        KNNClassifier().fit(TRAIN.z, TEST.label)
    with pytest.raises(ValueError, match="80 rows and 60 targets"):
        fit_ridge(1.0).score(TEST.z, VALIDATION.y)
