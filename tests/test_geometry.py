"""Geometry instruments against golden values, closed forms and independent numpy implementations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepalab.instruments import geometry

TWO_PERCENT = 0.02
ON_ROWS = [
    geometry.rankme,
    geometry.rankme_centred,
    geometry.effective_rank,
    geometry.participation_ratio,
    geometry.alpha_req,
    geometry.uniformity,
    geometry.collapse_meters,
]
seeds = st.integers(0, 10_000)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(n: int, d: int, *, seed: int = 0) -> Tensor:
    """n x d with orthonormal columns that each have mean zero."""
    z = randn(n, d, seed=seed).double()
    return torch.linalg.qr(z - z.mean(dim=0)).Q


def rotation(d: int, *, seed: int = 0) -> Tensor:
    return torch.linalg.qr(randn(d, d, seed=seed).double()).Q


def with_spectrum(values: Tensor, *, n: int = 1000) -> Tensor:
    """Rows whose covariance has exactly these eigenvalues, up to a common factor."""
    return orthonormal(n, len(values)) * values.double().sqrt()


def states_with_views(n: int, q: int, *, signal: Tensor, noise: float) -> Tensor:
    return randn(n, 1, len(signal), seed=1) * signal + noise * randn(n, q, len(signal), seed=2)


@pytest.fixture
def _as_for_a_user() -> Iterator[None]:
    """Shape checks off, as they are outside the tests, so that our own messages are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Golden(NamedTuple):
    name: str
    compute: Callable[[], float]
    value: float


ONE_OVER_I = 1 / torch.arange(1, 257)
NOISY_SIGNAL = states_with_views(1000, 10, signal=10.0 * (torch.arange(64) < 8), noise=1.0)
GOLDEN = [
    Golden("RankMe, orthonormal", lambda: geometry.rankme(orthonormal(1000, 64)), 64.0),
    Golden("RankMe, rank 1", lambda: geometry.rankme(randn(1000, 1) @ randn(1, 64, seed=1)), 1.0),
    Golden("RankMe, iid", lambda: geometry.rankme(randn(1000, 64)), 63.4),
    Golden("RankMe, iid, paper's n", lambda: geometry.rankme(randn(25_600, 256)), 255.7),
    Golden("RankMe, near-constant", lambda: geometry.rankme(1 + 1e-3 * randn(1000, 64)), 1.08),
    Golden("centred RankMe, near-constant", lambda: geometry.rankme_centred(1 + 1e-3 * randn(1000, 64)), 63.5),
    Golden("RankMe, 1/i", lambda: geometry.rankme(with_spectrum(ONE_OVER_I)), 208.8),
    Golden("effective rank, 1/i", lambda: geometry.effective_rank(with_spectrum(ONE_OVER_I)), 74.7),
    Golden("participation ratio, 1/i", lambda: geometry.participation_ratio(with_spectrum(ONE_OVER_I)), 23.1),
    Golden("alpha, 1/i", lambda: geometry.alpha_req(randn(25_600, 256) * ONE_OVER_I.sqrt()).slope, 1.008),
    Golden("alpha, i^-2", lambda: geometry.alpha_req(randn(25_600, 256) * ONE_OVER_I).slope, 2.006),
    Golden("alpha, i^-1/2", lambda: geometry.alpha_req(randn(25_600, 256) * ONE_OVER_I**0.25).slope, 0.516),
    Golden(
        "LiDAR, all signal",
        lambda: geometry.lidar(states_with_views(1000, 10, signal=torch.ones(64), noise=0.1)),
        61.5,
    ),
    Golden("LiDAR, 8 signal dimensions", lambda: geometry.lidar(NOISY_SIGNAL), 8.4),
    Golden("RankMe of the same", lambda: geometry.rankme(NOISY_SIGNAL.flatten(0, 1)), 34.8),
    Golden("uniformity, circle", lambda: geometry.uniformity(randn(4000, 2)), -1.575),
    Golden("uniformity, d = 16", lambda: geometry.uniformity(randn(4000, 16)), -3.513),
    Golden("uniformity, d = 64", lambda: geometry.uniformity(randn(4000, 64)), -3.875),
    Golden("CKA, independent, n = 1000", lambda: geometry.cka(randn(1000, 64), randn(1000, 64, seed=1)), 0.061),
    Golden("CKA, independent, n = 200", lambda: geometry.cka(randn(200, 64), randn(200, 64, seed=1)), 0.25),
    Golden("straightness, line", lambda: geometry.straightness(torch.arange(50.0)[None, :, None] * randn(4, 1, 8)), 1),
    Golden("straightness, white noise", lambda: geometry.straightness(randn(20, 200, 128)), -0.5),
]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_value(golden: Golden) -> None:
    assert golden.compute() == pytest.approx(golden.value, rel=TWO_PERCENT)


def test_values_that_are_zero_in_expectation() -> None:
    assert geometry.debiased_cka(randn(1000, 64), randn(1000, 64, seed=1)) == pytest.approx(0, abs=0.01)
    assert geometry.debiased_cka(randn(200, 64), randn(200, 64, seed=1)) == pytest.approx(0, abs=0.03)
    assert geometry.straightness(randn(20, 500, 64).cumsum(dim=1)) == pytest.approx(0, abs=0.01)


def test_ranks_against_numpy() -> None:
    z = (randn(300, 40) * torch.linspace(0.1, 2, 40) + 0.3).numpy()

    def rankme(z: np.ndarray) -> float:
        sigma = np.linalg.svd(z.astype(np.float64), compute_uv=False)
        p = sigma / sigma.sum() + 1e-7
        return float(np.exp(-(p * np.log(p)).sum()))

    values = np.linalg.eigvalsh(np.cov(z.astype(np.float64).T))
    p = values / values.sum()
    tensor = torch.from_numpy(z)
    assert geometry.rankme(tensor) == pytest.approx(rankme(z), rel=1e-9)
    assert geometry.rankme(tensor.T.contiguous()) == pytest.approx(rankme(z.T), rel=1e-9)
    assert geometry.rankme_centred(tensor) == pytest.approx(rankme(z - z.astype(np.float64).mean(axis=0)), rel=1e-9)
    assert geometry.effective_rank(tensor) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert geometry.participation_ratio(tensor) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_reads_an_exact_power_law(alpha: float) -> None:
    slope, r2 = geometry.alpha_req(with_spectrum(torch.arange(1, 65).double() ** -alpha))
    assert slope == pytest.approx(alpha, rel=1e-9)
    assert r2 == pytest.approx(1, rel=1e-9)


def test_alpha_req_of_other_spectra() -> None:
    assert geometry.alpha_req(orthonormal(500, 32)) == pytest.approx((0.0, 1.0))
    two_scales = geometry.alpha_req(with_spectrum(torch.where(torch.arange(64) < 32, 1.0, 1e-6)))
    assert two_scales.r2 < 0.8
    rank_five = with_spectrum(torch.arange(1, 6).double() ** -1) @ orthonormal(64, 5).T
    assert geometry.alpha_req(rank_five).slope == pytest.approx(1, rel=1e-6)


def test_lidar_against_numpy() -> None:
    views = states_with_views(60, 5, signal=torch.linspace(0.2, 3, 12), noise=0.7)
    x = views.double().numpy()
    means = x.mean(axis=1)
    within = np.mean([np.cov(one.T) for one in x], axis=0) + 1e-4 * np.eye(12)
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    ratio = np.linalg.eigvalsh(root @ np.cov(means.T) @ root)
    p = ratio / ratio.sum() + 1e-7
    assert geometry.lidar(views) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


@pytest.mark.parametrize("rows_at_once", [7, 100, 1000])
def test_uniformity_against_all_pairs(rows_at_once: int) -> None:
    z = randn(100, 8)
    u = torch.nn.functional.normalize(z.double())
    expected = torch.pdist(u).pow(2).mul(-2).exp().mean().log()
    assert geometry.uniformity(z, rows_at_once=rows_at_once) == pytest.approx(float(expected), rel=1e-9)


def test_debiased_cka_against_the_kernel_formula() -> None:
    x = randn(50, 6) + 3
    y = x[:, :4] ** 2 + randn(50, 4, seed=1) - 5

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        third = 2 / (n - 2) * (one @ k @ m @ one)
        return float(np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - third)

    kx, ky = ((z.double() @ z.double().T).numpy() for z in (x, y))
    expected = hsic(kx, ky) / math.sqrt(hsic(kx, kx) * hsic(ky, ky))
    assert abs(expected) > 0.1
    assert geometry.debiased_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_straightness_of_a_known_turn() -> None:
    right_angles = torch.tensor([[[0.0, 0], [1, 0], [1, 2], [4, 2]]])
    there_and_back = torch.tensor([[[0.0, 0], [1, 1], [0, 0], [1, 1]]])
    assert geometry.straightness(right_angles) == pytest.approx(0, abs=1e-12)
    assert geometry.straightness(there_and_back) == pytest.approx(-1)
    assert geometry.straightness(torch.cat([right_angles, there_and_back])) == pytest.approx(-0.5)


def test_straightness_does_not_read_the_direction_of_rounding() -> None:
    constant_code = torch.cat([torch.full((4, 100, 1), 1000.0), 1e-5 * randn(4, 100, 8)], dim=2)
    assert geometry.straightness(constant_code) == pytest.approx(0, abs=1e-3)
    assert geometry.straightness(torch.zeros(2, 5, 3)) == 0


def test_collapse_meters_of_isotropic_embeddings() -> None:
    meters = geometry.collapse_meters(randn(4000, 64))
    assert meters["std"] == pytest.approx(1, rel=TWO_PERCENT)
    assert meters["dead_dims"] == 0
    assert meters["mean_cosine"] == pytest.approx(0, abs=1e-3)


def test_collapse_meters_agree_with_their_slow_versions() -> None:
    z = randn(300, 64) + 0.5
    z[:, :16] = 0
    meters = geometry.collapse_meters(z)
    u = torch.nn.functional.normalize(z.double())
    cosines = (u @ u.T)[~torch.eye(300, dtype=torch.bool)]
    assert meters["mean_cosine"] == pytest.approx(float(cosines.mean()), rel=1e-9)
    assert meters["std"] == pytest.approx(float(u.std(dim=0).mean()) * 8, rel=1e-9)
    assert meters["dead_dims"] == 0.25
    assert meters["rankme"] == geometry.rankme(z)
    assert meters["rankme_centred"] == geometry.rankme_centred(z)


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_rotation_and_scale_change_no_rank(seed: int, scale: float) -> None:
    z = randn(80, 12, seed=seed) * torch.linspace(0.1, 1, 12) + 0.2
    moved = scale * z.double() @ rotation(12, seed=seed)
    for rank in (geometry.rankme, geometry.rankme_centred, geometry.effective_rank, geometry.participation_ratio):
        assert rank(moved) == pytest.approx(rank(z), rel=1e-9)


@given(seeds, st.floats(0.01, 100), st.sampled_from([geometry.cka, geometry.debiased_cka]))
@settings(max_examples=20, deadline=None)
def test_cka_ignores_rotation_scale_and_offset(seed: int, scale: float, cka: Callable[[Tensor, Tensor], float]) -> None:
    x, y = randn(40, 6, seed=seed), randn(40, 9, seed=seed + 1)
    moved = scale * x.double() @ rotation(6, seed=seed + 2) + 7
    assert cka(x, moved) == pytest.approx(1, rel=1e-9)
    assert cka(moved, y) == pytest.approx(cka(x, y), rel=1e-6, abs=1e-9)
    assert cka(x, y) == pytest.approx(cka(y, x), rel=1e-9)


@pytest.mark.parametrize("constant", [torch.full((50, 8), 0.1), torch.zeros(50, 8)], ids=["constant", "zero"])
def test_total_collapse_has_defined_values(constant: Tensor) -> None:
    assert geometry.rankme(constant) == pytest.approx(float(constant.any()), rel=1e-3)
    assert geometry.rankme_centred(constant) == 0
    assert geometry.effective_rank(constant) == 0
    assert geometry.participation_ratio(constant) == 0
    assert geometry.uniformity(constant) == pytest.approx(0, abs=1e-9)
    assert geometry.lidar(constant.reshape(10, 5, 8)) == 0
    assert all(math.isfinite(value) for value in geometry.collapse_meters(constant).values())
    with pytest.raises(ValueError, match="collapsed"):
        geometry.alpha_req(constant)
    with pytest.raises(ValueError, match="undefined"):
        geometry.cka(constant, randn(50, 8))


def test_float32_rounding_has_no_rank() -> None:
    rounding = torch.where(randn(200, 16) > 0, 1.0, 1.0 + torch.finfo(torch.float32).eps / 2)
    jitter = torch.full((200, 16), 3.0) * (1 + 5e-8 * randn(200, 16))
    assert geometry.rankme_centred(rounding) == 0
    assert geometry.rankme_centred(jitter) == 0
    assert geometry.rankme_centred(1 + 1e-5 * randn(200, 16)) > 15


@pytest.mark.parametrize("instrument", ON_ROWS, ids=lambda instrument: instrument.__name__)
def test_bad_rows_are_refused(instrument: Callable[[Tensor], object]) -> None:
    z = randn(20, 6)
    z[3, 2] = math.nan
    z[4, 1] = math.inf
    with pytest.raises(ValueError, match=r"z \(20, 6\) .* 1 of its entries are NaN and 1 are infinite"):
        instrument(z)
    with pytest.raises(ValueError, match="at least"):
        instrument(torch.empty(0, 6))


def test_bad_views_paths_and_pairs_are_refused() -> None:
    nan = torch.full((5, 5, 4), math.nan)
    with pytest.raises(ValueError, match="NaN"):
        geometry.lidar(nan)
    with pytest.raises(ValueError, match="NaN"):
        geometry.straightness(nan)
    with pytest.raises(ValueError, match="NaN"):
        geometry.debiased_cka(nan[0], randn(5, 4))
    with pytest.raises(ValueError, match="2 views, got 20 of 1"):
        geometry.lidar(randn(20, 1, 4))
    with pytest.raises(ValueError, match="3 frames"):
        geometry.straightness(randn(20, 2, 4))
    with pytest.raises(ValueError, match="at least 4"):
        geometry.debiased_cka(randn(3, 4), randn(3, 4))


@pytest.mark.usefixtures("_as_for_a_user")
def test_cka_of_different_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="10 and 11 rows"):
        geometry.cka(randn(10, 4), randn(11, 4))


def test_inputs_are_left_alone() -> None:
    z = randn(30, 5).requires_grad_()
    before = z.detach().clone()
    for instrument in ON_ROWS:
        instrument(z)
    assert torch.equal(z.detach(), before)
    assert z.grad is None
