"""Loss terms against closed forms: VICReg's equations in numpy, Epps-Pulley's integral, the distances by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, trapezoid
from torch import Tensor

from jepalab.losses.distances import layer_normed, mean_squared, smooth_l1
from jepalab.losses.sigreg import SIGReg, epps_pulley
from jepalab.losses.vicreg import across_clips, spread, within_clips

EPSILON = 1e-4


def vicreg_group(z: np.ndarray, target_std: float) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Variance and covariance terms of one group [n d], equations 1, 3 and 4 of the paper, and their gradients."""
    n, d = z.shape
    centred = z - z.mean(0)
    std = np.sqrt((centred**2).sum(0) / (n - 1) + EPSILON)
    variance = np.maximum(0, target_std - std).sum() / d
    variance_gradient = (std < target_std) * -centred / ((n - 1) * d * std)
    covariance = sum(np.outer(row, row) for row in centred) / (n - 1)
    off_diagonal = covariance - np.diag(np.diag(covariance))
    covariance_gradient = 4 / (d * (n - 1)) * centred @ off_diagonal
    return variance, (off_diagonal**2).sum() / d, variance_gradient, covariance_gradient


def epps_pulley_integrand(t: float, sample: np.ndarray) -> float:
    """|empirical characteristic function - that of N(0, 1)|^2 under the Gaussian window, times the sample size."""
    empirical = np.exp(1j * t * sample).mean()
    return len(sample) * abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)


def integral_to_infinity(sample: np.ndarray) -> float:
    """The statistic without a last knot: every integral in it is one of a Gaussian."""
    n, apart = len(sample), sample[:, None] - sample
    pairs = math.sqrt(2 * math.pi) * np.exp(-(apart**2) / 2).sum() / n**2
    cross = math.sqrt(math.pi) * np.exp(-(sample**2) / 4).sum() / n
    return n * (pairs - 2 * cross + math.sqrt(2 * math.pi / 3))


def statistic(sample: Tensor, **knots: float) -> float:
    return epps_pulley(sample[None, :, None].float(), **knots).item()


def white(num_samples: int, dim: int, std: float, generator: torch.Generator) -> Tensor:
    """A sample whose covariance is exactly std^2 times the identity."""
    z = torch.randn(num_samples, dim, generator=generator, dtype=torch.float64)
    orthonormal, _ = torch.linalg.qr(z - z.mean(0))
    return (orthonormal * std * math.sqrt(num_samples - 1)).float()


@pytest.mark.parametrize(("num_groups", "num_samples", "dim"), [(1, 2, 3), (3, 16, 5), (2, 7, 12), (1, 9, 1)])
@pytest.mark.parametrize("target_std", [1.0, 2.0])
def test_spread_is_the_published_one(
    num_groups: int, num_samples: int, dim: int, target_std: float, generator: torch.Generator
) -> None:
    scale = torch.linspace(0.2, 3, dim) if dim > 1 else torch.tensor([0.5])
    mixing = torch.eye(dim) + 0.3 * torch.randn(dim, dim, generator=generator)
    z = (torch.randn(num_groups, num_samples, dim, generator=generator) * scale @ mixing + 1).requires_grad_()
    groups = [vicreg_group(group, target_std) for group in z.detach().double().numpy()]
    variance, covariance = spread(z, target_std=target_std)
    assert variance.item() == pytest.approx(np.mean([g[0] for g in groups]), rel=1e-5, abs=1e-7)
    assert covariance.item() == pytest.approx(np.mean([g[1] for g in groups]), rel=1e-4, abs=1e-6)
    for term, column in ((variance, 2), (covariance, 3)):
        (gradient,) = torch.autograd.grad(term, z, retain_graph=True)
        wanted = torch.from_numpy(np.stack([g[column] for g in groups])).float() / num_groups
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("std", [1.0, 1.5])
def test_spread_asks_nothing_of_white_data(std: float, generator: torch.Generator) -> None:
    variance, covariance = spread(white(64, 6, std, generator)[None])
    assert variance.item() == 0
    assert covariance.item() == pytest.approx(0, abs=1e-5)


def test_spread_of_a_collapsed_code_is_finite_and_pulls_nowhere() -> None:
    z = torch.full((2, 8, 4), 3.0, requires_grad=True)
    variance, covariance = spread(z)
    (variance + covariance).backward()
    assert variance.item() == pytest.approx(1 - math.sqrt(EPSILON), rel=1e-6)
    assert covariance.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_spread_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        spread(torch.zeros(3, 1, 4))


@given(seed=st.integers(0, 2**32 - 1), num_clips=st.integers(2, 6), offset=st.integers(-64, 64))
@settings(max_examples=20, deadline=None)
def test_within_clips_is_blind_to_what_is_constant_in_a_clip(seed: int, num_clips: int, offset: int) -> None:
    # Small integers and four frames keep every mean and difference exact, so equal means equal to the bit.
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(-8, 8, (num_clips, 4, 3), generator=generator).float()
    constant = torch.randint(-64, 64, (num_clips, 1, 3), generator=generator).float() + offset
    assert torch.equal(within_clips(z + constant), within_clips(z))
    assert torch.equal(across_clips(z + constant), across_clips(z) + constant.transpose(0, 1))


def test_a_code_that_is_constant_in_a_clip_satisfies_across_clips_alone(generator: torch.Generator) -> None:
    z = white(64, 3, 1.5, generator)[:, None].expand(-1, 4, -1)
    assert sum(spread(across_clips(z))).item() == pytest.approx(0, abs=1e-5)
    assert spread(within_clips(z)).variance.item() == pytest.approx(1 - math.sqrt(EPSILON), rel=1e-4)


def test_groupings_keep_each_time_and_each_clip_apart(generator: torch.Generator) -> None:
    z = torch.randn(5, 4, 3, generator=generator)
    assert torch.equal(across_clips(z)[2], z[:, 2])
    deviations = within_clips(z)
    assert deviations.shape == (1, 20, 3)
    torch.testing.assert_close(deviations[0, 4:8], z[1] - z[1].mean(0))


SAMPLES = {
    "normal": np.random.default_rng(0).standard_normal(24),
    "constant": np.full(6, 0.7),
    "two points": np.array([-1.0, 1.0] * 8),
    "skewed": np.random.default_rng(1).exponential(2.0, 11),
    "single": np.array([2.5]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_epps_pulley_is_the_integral_of_its_definition(name: str) -> None:
    sample = SAMPLES[name]
    wanted, _ = quad(epps_pulley_integrand, -3, 3, args=(sample,), epsabs=1e-10)
    assert statistic(torch.from_numpy(sample), num_knots=2001) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    unbounded = statistic(torch.from_numpy(sample), num_knots=4001, max_knot=8.0)
    assert unbounded == pytest.approx(integral_to_infinity(sample), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("num_knots", [2, 5, 17])
def test_epps_pulley_is_the_trapezoid_rule_at_any_number_of_knots(num_knots: int) -> None:
    sample, knots = SAMPLES["skewed"], np.linspace(0, 3, num_knots)
    wanted = 2 * trapezoid([epps_pulley_integrand(t, sample) for t in knots], knots)
    assert statistic(torch.from_numpy(sample), num_knots=num_knots) == pytest.approx(wanted, rel=1e-5)


def test_epps_pulley_of_normal_samples_has_its_expected_value(generator: torch.Generator) -> None:
    """E|ecf - cf|^2 = (1 - exp(-t^2)) / N, so the expectation is free of N: about 1.05."""
    expected, _ = quad(lambda t: (1 - math.exp(-(t**2))) * math.exp(-(t**2) / 2), -3, 3)
    for num_samples in (8, 64):
        values = epps_pulley(torch.randn(40, num_samples, 50, generator=generator)).flatten()
        standard_error = values.std().item() / math.sqrt(len(values))
        assert values.mean().item() == pytest.approx(expected, abs=4 * standard_error)
        assert standard_error < 0.05


def test_epps_pulley_is_large_where_the_sample_is_not_normal(generator: torch.Generator) -> None:
    # A collapsed sample scores N times the integral of (1 - exp(-t^2/2))^2 exp(-t^2/2), known to be 103 at N = 256.
    assert statistic(torch.zeros(256)) == pytest.approx(103, rel=0.01)
    signs = torch.tensor([-1.0, 1.0]).repeat(128)
    normal = statistic(torch.randn(256, generator=generator))
    assert statistic(signs) > 5 * max(normal, 1.05)
    assert statistic(signs * 10) > statistic(signs)


@pytest.mark.parametrize("name", SAMPLES)
def test_epps_pulley_doubles_with_the_sample(name: str) -> None:
    sample = torch.from_numpy(SAMPLES[name])
    assert statistic(torch.cat([sample, sample])) == pytest.approx(2 * statistic(sample), rel=1e-4)


def test_epps_pulley_keeps_groups_and_directions_apart(generator: torch.Generator) -> None:
    projections = torch.randn(3, 8, 4, generator=generator)
    each = epps_pulley(projections)
    assert each.shape == (3, 4)
    assert each[2, 1].item() == pytest.approx(statistic(projections[2, :, 1]), rel=1e-5)


def test_sigreg_in_one_dimension_is_epps_pulley(generator: torch.Generator) -> None:
    """A unit direction in one dimension is +1 or -1, and the statistic does not know left from right."""
    z = torch.randn(2, 16, 1, generator=generator)
    assert SIGReg(num_directions=7)(z).item() == pytest.approx(epps_pulley(z, num_knots=9).mean().item(), rel=1e-5)


def test_sigreg_draws_unit_directions_fresh_at_each_training_step(generator: torch.Generator) -> None:
    z = torch.randn(1, 16, 6, generator=generator) ** 3
    regulariser = SIGReg(num_directions=3)
    values = [regulariser(z).item() for _ in range(3)]
    assert len(set(values)) == 3
    assert regulariser.step.item() == 3
    regulariser.step.fill_(1)
    assert regulariser(z).item() == values[1]
    again = SIGReg(num_directions=3)
    assert [again(z).item() for _ in range(3)] == values
    assert SIGReg(num_directions=3, seed=1)(z).item() not in values


def test_sigreg_stands_still_in_evaluation(generator: torch.Generator) -> None:
    z = torch.randn(1, 16, 6, generator=generator) ** 3
    regulariser = SIGReg(num_directions=3).eval()
    assert regulariser(z).item() == regulariser(z).item()
    assert regulariser.step.item() == 0


def test_sigreg_takes_the_mean_over_groups(generator: torch.Generator) -> None:
    z = torch.randn(3, 16, 5, generator=generator)
    regulariser = SIGReg(num_directions=4).eval()
    each = [regulariser(group[None]).item() for group in z]
    assert regulariser(z).item() == pytest.approx(np.mean(each), rel=1e-5)


def test_sigreg_pulls_a_wide_code_in_and_a_narrow_one_out(generator: torch.Generator) -> None:
    for scale, outwards in ((0.3, True), (3.0, False)):
        z = (white(64, 4, scale, generator)[None]).requires_grad_()
        (gradient,) = torch.autograd.grad(SIGReg()(z), z)
        assert ((gradient * z).sum().item() < 0) == outwards


def test_distances_by_hand() -> None:
    error, zero = torch.tensor([0.0, 0.5, -0.5, 1.0, -3.0]), torch.zeros(5)
    assert mean_squared(error, zero).item() == pytest.approx((0.25 + 0.25 + 1 + 9) / 5)
    assert smooth_l1(error, zero).item() == pytest.approx((0.125 + 0.125 + 0.5 + 2.5) / 5)
    half = torch.full((4,), 1 / 3, dtype=torch.bfloat16)
    assert mean_squared(half, torch.zeros(4)).dtype == smooth_l1(half, half).dtype == torch.float32
    assert mean_squared(half, torch.zeros(4)).item() == pytest.approx(half[0].item() ** 2, rel=1e-6)


def test_layer_normed_by_hand() -> None:
    rows = torch.tensor([[1.0, 3.0], [-5.0, 7.0], [100.0, -100.0]])
    torch.testing.assert_close(layer_normed(rows), torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]))
    z = layer_normed(torch.arange(24.0).view(2, 3, 4).square())
    torch.testing.assert_close(z.mean(-1), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.var(-1, correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)
    assert not layer_normed(torch.full((2, 4), 7.0)).any()
