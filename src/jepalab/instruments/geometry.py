"""Label-free geometry of embeddings: RankMe, LiDAR, alpha-ReQ, uniformity, CKA, straightness (papers cited below).

Rank is a diagnosis, never a score across objectives. Every rank here counts directions with variance, and noise has
variance: an encoder that keeps every distractor outranks one that keeps the state alone. Read a rank beside what can
be decoded from the embedding.

All functions compute in float64 on the CPU, without gradient, and are deterministic. NaN or infinity in the input is
a ValueError. A dimension whose spread lies below float32 resolution counts as constant, so rounding has no rank.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

FLOAT32_RESOLUTION = torch.finfo(torch.float32).eps
FLOAT64_RESOLUTION = torch.finfo(torch.float64).eps
SMALLEST_LENGTH = torch.finfo(torch.float32).tiny
RANKME_EPSILON = 1e-7


class PowerLaw(NamedTuple):
    """A spectrum that decays like index^-slope, and the share of log-variance (R2) that this line explains."""

    slope: float
    r2: float


def rankme(z: Float[Tensor, "n d"]) -> float:
    """RankMe: exp of the entropy of p = sigma / sum(sigma) + 1e-7, sigma the singular values of z, uncentred.

    It runs from 1 to min(n, d); zero embeddings give 0. A common offset of all rows counts as one large direction, so
    this number sees the mean collapse; `rankme_centred` sees the shape around the mean. The paper takes n >= 25 600.
    Source: Garrido et al., ICML 2023, arXiv 2210.02885.
    """
    return _rankme(_finite_rows(z, at_least=1))


def rankme_centred(z: Float[Tensor, "n d"]) -> float:
    """RankMe of z minus its mean row; 0 if all rows are equal."""
    return _rankme(_centre(_finite_rows(z, at_least=2)))


def effective_rank(z: Float[Tensor, "n d"]) -> float:
    """exp of the entropy of l / sum(l), l the eigenvalues of the covariance of z; 0 if all rows are equal.

    This is the effective rank of the covariance matrix (Roy & Vetterli, EUSIPCO 2007). RankMe weighs by singular
    values of z, the square roots of these, and is therefore larger; never compare one with the other.
    """
    return _entropy_rank(_spectrum(_centre(_finite_rows(z, at_least=2))))


def participation_ratio(z: Float[Tensor, "n d"]) -> float:
    """(sum l)^2 / sum(l^2), l the eigenvalues of the covariance of z; 0 if all rows are equal."""
    values = _spectrum(_centre(_finite_rows(z, at_least=2)))
    return float(values.sum() ** 2 / (values**2).sum()) if values.any() else 0.0


def alpha_req(z: Float[Tensor, "n d"]) -> PowerLaw:
    """alpha-ReQ: the slope alpha of l_i ~ i^-alpha, by least squares in log-log, l the eigenvalues of the covariance.

    The fit leaves out the largest eigenvalue and those that are numerically zero. Trust alpha only where R2 is near
    1; of a rank-deficient or two-scale spectrum it says nothing. The tail needs n >> d: at n = 4 d it is clearly too
    steep. Raises ValueError below four non-zero eigenvalues. Source: Agrawal et al., NeurIPS 2022.
    """
    values = _spectrum(_centre(_finite_rows(z, at_least=2)))
    num_directions = int(values.count_nonzero())
    if num_directions < 4:
        raise ValueError(
            f"alpha-ReQ needs at least 4 directions with variance, but z {tuple(z.shape)} has {num_directions}; "
            "the embedding has collapsed or n is too small."
        )
    x = torch.arange(2, num_directions + 1, dtype=torch.float64).log()
    y = values[1:num_directions].log()
    x, y = x - x.mean(), y - y.mean()
    slope = x @ y / (x @ x)
    if y @ y < 1e-20:  # a flat spectrum: the line fits exactly, and R2 would be rounding over rounding
        return PowerLaw(0.0, 1.0)
    return PowerLaw(-float(slope), float(slope * (x @ y) / (y @ y)))


def lidar(views: Float[Tensor, "n q d"], *, delta: float = 1e-4) -> float:
    """LiDAR: the rank of what differs between n states, measured in units of what differs between q views of one.

    views[i] holds q embeddings of the same state with the nuisance drawn anew. With Sb the covariance of the class
    means, Sw the mean covariance within a class + delta I, and p = eig(Sw^-1/2 Sb Sw^-1/2) / sum + 1e-7, LiDAR is
    exp of the entropy of p; 0 if all class means are equal. delta is in squared units of z. The paper takes n = 1000
    and q = 50; small n biases it down, small q biases it up.
    Source: Thilak et al., ICLR 2024, arXiv 2312.04000.
    """
    num_states, num_views, dim = views.shape
    if num_states < 2 or num_views < 2:
        raise ValueError(f"LiDAR needs at least 2 states of at least 2 views, got {num_states} of {num_views}.")
    views = finite_float64(views)
    means = views.mean(dim=1)
    rows = (views - means[:, None]).flatten(0, 1)
    within = rows.T @ rows / (num_states * (num_views - 1)) + delta * torch.eye(dim, dtype=torch.float64)
    # L^-1 Sb L^-T with L L^T = Sw has the eigenvalues of Sw^-1/2 Sb Sw^-1/2; the factor 1 / (n - 1) cancels in p.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), _centre(means).T, upper=False).T
    return _entropy_rank(_spectrum(whitened), epsilon=RANKME_EPSILON)


def uniformity(z: Float[Tensor, "n d"], *, rows_at_once: int = 2048) -> float:
    """log of the mean over pairs i != j of exp(-2 ||u_i - u_j||^2), u the rows of z at length 1.

    0 when all rows are equal, about -4 when they fill a high-dimensional sphere. A zero row stays zero. Memory is
    rows_at_once x n. Source: Wang & Isola, ICML 2020, arXiv 2005.10242 (t = 2).
    """
    z = _finite_rows(z, at_least=2)
    u = normalize(z, dim=1, eps=SMALLEST_LENGTH)
    squared = (u**2).sum(dim=1)
    # Adding up exp - 1 instead of exp makes the self-pairs vanish by themselves.
    total = sum(
        float(torch.expm1(-2 * (squared[rows, None] + squared - 2 * u[rows] @ u.T).clamp_min(0)).sum())
        for rows in torch.arange(len(u)).split(rows_at_once)
    )
    return math.log1p(total / (len(u) * (len(u) - 1)))


def cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """Linear CKA, ||X'Y||^2 / (||X'X|| ||Y'Y||) of centred X and Y: 1 for a rotated and scaled copy.

    Biased: independent isotropic x and y of width d score about d / (n + d); use `debiased_cka` unless n >> d.
    Source: Kornblith et al., ICML 2019, arXiv 1905.00414.
    """
    x, y = _paired(x, y, at_least=2)
    return _cosine(_squared_norm(x.T @ y), _squared_norm(x.T @ x), _squared_norm(y.T @ y))


def debiased_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """Linear CKA from the unbiased HSIC: 1 for a rotated and scaled copy, 0 on average for independent x and y.

    It can be slightly negative. Memory is d x e: no n x n matrix is formed. n must be at least 4.
    Source: Nguyen et al., ICLR 2021, arXiv 2010.15327, with the estimator of Song et al., JMLR 2012.
    """
    x, y = _paired(x, y, at_least=4)
    return _cosine(_unbiased_hsic(x, y), _unbiased_hsic(x, x), _unbiased_hsic(y, y))


def straightness(z: Float[Tensor, "b t d"], *, floor: float = 1e-6) -> float:
    """Mean cosine between consecutive steps of z: a line 1, a random walk 0, white noise about -1/2.

    Steps are divided by at least floor x the root-mean-square length of z, so a path that stands still scores 0
    instead of the direction of its rounding. Compare at equal frame rate only.
    Source: Henaff et al., Nature Neuroscience 2019.
    """
    if len(z) == 0 or z.shape[1] < 3:
        raise ValueError(f"Straightness needs paths of at least 3 frames, got z {tuple(z.shape)} (paths, frames, d).")
    z = finite_float64(z)
    step = z.diff(dim=1)
    shortest = max(floor * float((z**2).sum(dim=2).mean().sqrt()), SMALLEST_LENGTH)
    direction = step / step.norm(dim=2, keepdim=True).clamp_min(shortest)
    return float((direction[:, 1:] * direction[:, :-1]).sum(dim=2).mean())


def collapse_meters(z: Float[Tensor, "n d"]) -> dict[str, float]:
    """Five cheap gauges of collapse, to be watched live. Stop a run on its probe, never on these.

    std             mean standard deviation per dimension of the rows at length 1, x sqrt(d); 1 if isotropic, 0 if
                    all rows point one way.
    dead_dims       share of dimensions where that number is below 1e-3.
    rankme          see `rankme`.
    rankme_centred  see `rankme_centred`.
    mean_cosine     mean cosine over pairs of different rows; 1 if all point one way.
    """
    z = _finite_rows(z, at_least=2)
    num_rows, dim = z.shape
    u = normalize(z, dim=1, eps=SMALLEST_LENGTH)
    std = u.std(dim=0) * math.sqrt(dim)
    # Over all ordered pairs the cosines add up to |sum u|^2; the self-pairs are taken out.
    cosines = _squared_norm(u.sum(dim=0)) - _squared_norm(u)
    return {
        "std": float(std.mean()),
        "dead_dims": float((std < 1e-3).double().mean()),
        "rankme": _rankme(z),
        "rankme_centred": _rankme(_centre(z)),
        "mean_cosine": float(cosines / (num_rows * (num_rows - 1))),
    }


def std_over_samples(z: Float[Tensor, "b n d"]) -> float:
    """Mean over places and dimensions of the standard deviation across samples, of rows at length 1, x sqrt(d).

    As `std` of `collapse_meters`, at one place at a time: 0 if tokens say where they are and nothing of the sample.
    """
    if len(z) < 2 or z.shape[1] == 0:
        raise ValueError(f"Wanted at least 2 samples of 1 token or more, got {tuple(z.shape)}.")
    u = normalize(finite_float64(z), dim=2, eps=SMALLEST_LENGTH)
    return float(u.std(dim=0).mean()) * math.sqrt(z.shape[2])


def finite_float64(z: Float[Tensor, "*shape"], *, name: str = "z") -> Float[Tensor, "*shape"]:
    """z in float64 on the CPU, without gradient. Raises ValueError if any entry is NaN or infinite."""
    z = z.detach().to("cpu", torch.float64)
    if not z.isfinite().all():
        num_nan, num_infinite = int(z.isnan().sum()), int(z.isinf().sum())
        raise ValueError(
            f"{name} {tuple(z.shape)} must be finite, but {num_nan} of its entries are NaN and {num_infinite} are "
            "infinite; find the step where the training diverged."
        )
    return z


def varies(z: Float[Tensor, "n d"]) -> Bool[Tensor, " d"]:
    """Which columns have a spread above float32 resolution. The others are constant up to rounding."""
    return (z - z.mean(dim=0)).norm(dim=0) > FLOAT32_RESOLUTION * z.norm(dim=0)


def _finite_rows(z: Tensor, *, at_least: int) -> Tensor:
    if len(z) < at_least or z.shape[1] == 0:
        raise ValueError(f"Wanted at least {at_least} row(s) of embeddings of width 1 or more, got {tuple(z.shape)}.")
    return finite_float64(z)


def _centre(z: Tensor) -> Tensor:
    return torch.where(varies(z), z - z.mean(dim=0), 0.0)


def _spectrum(z: Tensor) -> Tensor:
    """Squared singular values of z, largest first; those within rounding of zero are zero."""
    gram = z.T @ z if z.shape[0] >= z.shape[1] else z @ z.T
    values = torch.linalg.eigvalsh(gram).flip(0)
    return torch.where(values > values[0] * FLOAT64_RESOLUTION * max(z.shape), values, 0.0)


def _rankme(z: Tensor) -> float:
    return _entropy_rank(_spectrum(z).sqrt(), epsilon=RANKME_EPSILON)


def _entropy_rank(weights: Tensor, *, epsilon: float = 0.0) -> float:
    if not weights.any():
        return 0.0
    return float(torch.special.entr(weights / weights.sum() + epsilon).sum().exp())


def _paired(x: Tensor, y: Tensor, *, at_least: int) -> tuple[Tensor, Tensor]:
    if len(x) != len(y):
        raise ValueError(f"CKA compares two embeddings of the same rows, got {len(x)} and {len(y)} rows.")
    return _centre(_finite_rows(x, at_least=at_least)), _centre(_finite_rows(y, at_least=at_least))


def _squared_norm(matrix: Tensor) -> Tensor:
    return (matrix**2).sum()


def _unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """n (n - 3) x the unbiased linear HSIC of centred x and y; centring turns three sums over pairs into one."""
    n = len(x)
    a, b = (x**2).sum(dim=1), (y**2).sum(dim=1)
    return _squared_norm(x.T @ y) - n / (n - 2) * (a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2))


def _cosine(xy: Tensor, xx: Tensor, yy: Tensor) -> float:
    if xx <= 0 or yy <= 0:
        raise ValueError("CKA is undefined because all rows of one embedding are equal; check it with collapse_meters.")
    return float(xy / (xx.sqrt() * yy.sqrt()))
