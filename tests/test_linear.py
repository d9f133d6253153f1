"""Our objectives on deep linear networks against the closed theory of Littwin et al. 2024 (arXiv 2407.03475)."""

from __future__ import annotations

import pytest
import torch

from jepalab.recipes.linear import EXPECTED, LAMBDA, RHO, fixed_points, gradient_flow, learn, two_features


@pytest.fixture(scope="module")
def lessons():
    return {key: learn(key[0], depth=key[1]) for key in EXPECTED}


@pytest.mark.parametrize("key", EXPECTED, ids=lambda key: f"{key[0]} depth {key[1]}")
def test_order_of_learning(lessons, key):
    """JEPA inverts the order at depth 5 and not at depth 1; reconstruction never does."""
    assert lessons[key].first == EXPECTED[key]


@pytest.mark.parametrize("key", EXPECTED, ids=lambda key: f"{key[0]} depth {key[1]}")
def test_whole_path_follows_the_gradient_flow(lessons, key):
    """Not the order alone: at each time every strength lies where the differential equation puts it."""
    lesson = lessons[key]
    theory = gradient_flow(*key[:1], depth=key[1], times=lesson.times)
    # Compared in time, not in height: a finite step size only shifts a steep rise.
    for ours, theirs, end in zip(lesson.strengths.unbind(1), theory.unbind(1), fixed_points(*key), strict=True):
        for level in (0.25, 0.5, 0.75):
            ours_at, theirs_at = ((path >= level * end).int().argmax() for path in (ours, theirs))
            assert lesson.times[ours_at].item() == pytest.approx(lesson.times[theirs_at].item(), rel=0.05, abs=0.25)


@pytest.mark.parametrize("key", [("JEPA", 1), ("reconstruction", 1), ("reconstruction", 5)])
def test_fixed_points(lessons, key):
    assert lessons[key].strengths[-1].tolist() == pytest.approx(fixed_points(*key), abs=1e-3)


def test_features_have_exactly_the_stated_moments(generator):
    x, y = two_features(generator).x.unbind(1)
    assert torch.allclose((x * y).mean(0), torch.tensor(LAMBDA), atol=1e-5)
    assert torch.allclose((x * y).mean(0) / x.square().mean(0), torch.tensor(RHO), atol=1e-5)
    assert abs((x[:, 0] * x[:, 1]).mean()) < 1e-5
