"""What engineers computed of sensor windows before networks did.

The statistics are those of Anguita et al. (ESANN 2013), who classified activities by them, but for their angles and
their separation of gravity by a filter; the entropy is that of the spectrum, and bands are octaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.instruments.labelled import full_precision

ORDER = 4  # of the autoregression
SMALLEST = 1e-8  # added where a silent signal would divide by zero
ROWS_AT_ONCE = 1024
SHORTEST = 8
STATISTICS = ("mean", "std", "mad", "min", "max", "energy", "iqr")
SPECTRAL = ("entropy", "centroid", "peak", "spread")


def hand_features(x: Float[Tensor, "n t c"], *, magnitudes: Sequence[Sequence[int]] = ()) -> Float[Tensor, "n f"]:
    """Statistics of each signal in windows of t >= 8 samples; `feature_names` says which, in order.

    magnitudes  channels that are the components of one vector, such as (0, 1, 2): its length is a signal too.

    Signals are the channels and magnitudes of x, then those of its differences from sample to sample (of an
    acceleration the jerk). Of each: mean, standard deviation, median absolute deviation, smallest, largest, mean square
    and interquartile range; the 4 coefficients of an autoregression (Yule-Walker, with 1e-3 on the diagonal); of its
    power spectrum without the mean, the entropy (nats), the centroid, peak and spread (cycles a sample), and the
    logarithm of the mean square in each octave. Then the correlations of each two channels of x.
    """
    _check(x, magnitudes)
    parts = []
    with full_precision(x.device):
        for rows in x.float().split(ROWS_AT_ONCE):
            found = [_statistics(_signals(signal, magnitudes)) for signal in (rows, rows.diff(dim=1))]
            parts.append(torch.cat([*found, _correlations(rows)], dim=1))
    return torch.cat(parts)


def feature_names(channels: Sequence[str], *, num_times: int, magnitudes: Sequence[Sequence[int]] = ()) -> list[str]:
    """What each column of `hand_features` is, as in "acc-x mean" or "change of |acc-x acc-y acc-z| octave 1"."""
    signals = [*channels, *("|" + " ".join(channels[i] for i in group) + "|" for group in magnitudes)]
    found = []
    for prefix, length in (("", num_times), ("change of ", num_times - 1)):
        octaves = [f"octave {i + 1}" for i in range(_num_octaves(length // 2))]
        kinds = [*STATISTICS, *(f"ar{i + 1}" for i in range(ORDER)), *SPECTRAL, *octaves]
        found += [f"{prefix}{signal} {kind}" for kind in kinds for signal in signals]
    pairs = torch.triu_indices(len(channels), len(channels), offset=1).T.tolist()
    return found + [f"{channels[i]} {channels[j]} correlation" for i, j in pairs]


def _check(x: Tensor, magnitudes: Sequence[Sequence[int]]) -> None:
    if x.shape[1] < SHORTEST:
        raise ValueError(f"Wanted windows of at least {SHORTEST} samples, got x {tuple(x.shape)}.")
    if wrong := [tuple(group) for group in magnitudes if not group or not set(group) <= set(range(x.shape[2]))]:
        raise ValueError(f"Wanted magnitudes of some of the {x.shape[2]} channels 0, 1, ..., got {wrong}.")


def _signals(x: Float[Tensor, "n t c"], magnitudes: Sequence[Sequence[int]]) -> Float[Tensor, "n s t"]:
    lengths = [x[..., list(group)].norm(dim=-1) for group in magnitudes]
    return torch.stack([*x.unbind(-1), *lengths], dim=1)


def _statistics(x: Float[Tensor, "n s t"]) -> Float[Tensor, "n f"]:
    """Every statistic of every signal, statistic by statistic."""
    mean = x.mean(-1)
    centred = x - mean[..., None]
    std = centred.square().mean(-1).sqrt()
    low, median, high = x.quantile(x.new_tensor([0.25, 0.5, 0.75]), dim=-1)
    mad = (x - median[..., None]).abs().median(dim=-1).values
    found = [mean, std, mad, x.amin(-1), x.amax(-1), x.square().mean(-1), high - low]
    return torch.cat([*found, *_autoregression(centred).unbind(-1), *_spectrum(centred)], dim=1)


def _autoregression(x: Float[Tensor, "n s t"]) -> Float[Tensor, "n s 4"]:
    num = x.shape[-1]
    lags = torch.stack([(x[..., : num - k] * x[..., k:]).mean(-1) for k in range(ORDER + 1)], dim=-1)
    lags = lags / (lags[..., :1] + SMALLEST)
    order = torch.arange(ORDER, device=x.device)
    system = lags[..., (order[:, None] - order).abs()] + 1e-3 * torch.eye(ORDER, device=x.device)
    return torch.linalg.solve(system, lags[..., 1:, None])[..., 0]


def _spectrum(x: Float[Tensor, "n s t"]) -> list[Float[Tensor, "n s"]]:
    num = x.shape[-1]
    power = torch.fft.rfft(x).abs().square()[..., 1:] / num**2
    bins = torch.arange(1, power.shape[-1] + 1, device=x.device)
    share, frequency = power / (power.sum(-1, keepdim=True) + SMALLEST), bins / num
    centroid = (share * frequency).sum(-1)
    spread = (share * (frequency - centroid[..., None]).square()).sum(-1).sqrt()
    entropy = -(share * (share + SMALLEST).log()).sum(-1)
    num_octaves = _num_octaves(len(bins))
    # The last bin of a power of two opens no octave of its own.
    octave = bins.log2().floor().long().clamp_max(num_octaves - 1)
    octaves = power.new_zeros(*power.shape[:-1], num_octaves).index_add(-1, octave, power)
    peak = frequency[power.argmax(-1)]
    return [entropy, centroid, peak, spread, *(octaves + SMALLEST).log().unbind(-1)]


def _num_octaves(num_bins: int) -> int:
    return math.ceil(math.log2(num_bins))


def _correlations(x: Float[Tensor, "n t c"]) -> Float[Tensor, "n p"]:
    centred = x - x.mean(1, keepdim=True)
    standard = centred / (centred.norm(dim=1, keepdim=True) + SMALLEST)
    first, second = torch.triu_indices(x.shape[2], x.shape[2], offset=1, device=x.device)
    return (standard.transpose(1, 2) @ standard)[:, first, second]
