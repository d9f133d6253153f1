"""The improved cross-entropy method, iCEM (Pinneri et al. 2020, arXiv 2008.06389)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.planners.planner import Bounds, Cost, Planned
from jepalab.planners.search import (
    Elites,
    Trace,
    around,
    check_above_zero,
    check_at_least,
    check_elites,
    check_shares,
    choose_elites,
    draw,
    evaluate,
    prepare,
)


@dataclass(frozen=True)
class ICEM:
    """CEM with noise that is correlated in time, elites that stay candidates, and fewer samples each iteration.

    As published: the standard deviation of the elites is the biased one, kept elites are not evaluated again, the
    mean takes the place of a sample in the last iteration, and the answer is the best candidate, not the mean.

    Left out: elites carried from one plan to the next. A planner here has no memory; of the last plan it gets what
    the caller hands it as the start, which is a candidate of the first iteration. The authors carry the mean over
    instead of the best plan, and measure std in half widths of the box; here it has the action's units.

    num_samples, num_elites, num_iterations  candidates of the first iteration, how many are kept, calls of the cost.
    std            of the first iteration's noise at each time, in the action's own units.
    min_std        below which the standard deviation never falls.
    exponent       of the noise's power spectrum, 1 / frequency^exponent over the horizon; 0 is white noise.
    sample_decay   each iteration has so many times fewer samples than the one before, but 2 * num_elites or more.
    kept_share     of the elites that stay candidates of the next iteration.
    momentum       share of the old mean and standard deviation in the new ones.
    """

    num_samples: int = 300
    _: KW_ONLY
    num_elites: int = 30
    num_iterations: int = 10
    std: float = 1.0
    min_std: float = 0.0
    exponent: float = 2.0
    sample_decay: float = 1.25
    kept_share: float = 0.3
    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_elites(self.num_elites, self.num_samples, fewest=2)
        check_at_least(1, num_iterations=self.num_iterations, sample_decay=self.sample_decay)
        check_at_least(0, min_std=self.min_std, exponent=self.exponent)
        check_above_zero(std=self.std)
        check_shares(kept_share=self.kept_share, momentum=self.momentum)

    @torch.no_grad()
    def __call__(
        self, cost: Cost, start: Float[Tensor, "e h a"], bounds: Bounds, generator: torch.Generator
    ) -> Planned:
        """The best candidate of the last iteration. ValueError as `prepare` and `evaluate` raise it."""
        mean, bounds = prepare(start, bounds)
        std = torch.full_like(mean, self.std)
        kept = Elites(mean.unsqueeze(1)[:, :0], mean[:, :0, 0])  # none yet
        trace = Trace()
        for iteration in range(self.num_iterations):
            noise = coloured(draw(self._num_samples(iteration), mean, generator), self.exponent)
            if iteration in (0, self.num_iterations - 1):
                noise[:, 0] = 0  # the start, and the last mean
            drawn = around(mean, std, noise, bounds)
            costs = torch.cat([evaluate(cost, drawn), kept.cost], 1)
            candidates = torch.cat([drawn, kept.action], 1)
            elites = choose_elites(candidates, costs, self.num_elites).without_gaps()
            mean = self.momentum * mean + (1 - self.momentum) * elites.action.mean(1)
            std = self.momentum * std + (1 - self.momentum) * elites.action.std(1, correction=0)
            std = std.clamp_min(self.min_std)
            num_kept = round(self.kept_share * self.num_elites)
            kept = Elites(elites.action[:, :num_kept], elites.cost[:, :num_kept])
            trace.note(elites.cost.mean(1), candidates)
        return trace.planned(elites.action[:, 0])

    def _num_samples(self, iteration: int) -> int:
        fewest = min(2 * self.num_elites, self.num_samples)
        return max(fewest, int(self.num_samples / self.sample_decay**iteration))


def coloured(noise: Float[Tensor, "*lead h a"], exponent: float) -> Float[Tensor, "*lead h a"]:
    """White noise filtered along h to a power spectrum of 1 / frequency^exponent (Timmer and Koenig 1995).

    Each entry keeps its variance of 1. The constant part has the power of the lowest frequency, 1 / h, as in the
    package `colorednoise`, which scales the rest to a variance of 1 and comes out a little larger.
    """
    horizon = noise.shape[-2]
    frequency = torch.fft.fftfreq(horizon, dtype=noise.dtype).abs().clamp_min(1 / horizon)
    gain = frequency ** (-exponent / 2)
    gain = gain / gain.square().mean().sqrt()
    spectrum = torch.fft.rfft(noise, dim=-2) * gain[: horizon // 2 + 1, None]
    return torch.fft.irfft(spectrum, n=horizon, dim=-2)
