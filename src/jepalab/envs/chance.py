"""Random numbers as a pure function of (key, purpose, clock), so that no environment's luck depends on another's.

A generator draws the keys, once; all else follows from them by hashing a counter, as in Salmon et al. 2011 ("Parallel
random numbers: as easy as 1, 2, 3"). Environments may then be dropped, copied or replayed, and two models judged on the
same episodes meet the same television and the same light.
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORD = 0xFFFFFFFF


class Purpose(IntEnum):
    """What a number is for. Numbers for different purposes have nothing to do with each other."""

    LAYOUT = 1
    START = 2
    GOAL = 3
    TELEVISION = 4
    LIGHT = 5
    WALK = 6
    CROSSING = 7
    SENSOR = 8


def draw_keys(num: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """A key for each of `num` environments; the first are the same, however many are drawn."""
    return torch.randint(2**62, (num,), generator=generator)


def uniforms(
    key: Int[Tensor, " n"], purpose: Purpose, clock: Int[Tensor, " n"] | int = 0, *, num: int
) -> Float[Tensor, "n m"]:
    """`num` numbers for each key, uniform in (0, 1), both ends excluded, in steps of 2^-23."""
    streams = []
    for salt in (0x243F6A88, 0x13198A2E):
        word = _mix((key & _WORD) ^ salt)
        word = _mix(word ^ (key >> 32))
        word = _mix(word ^ (int(purpose) * salt & _WORD))
        streams.append(_mix(word ^ (clock & _WORD))[:, None])
    index = torch.arange(num, device=key.device) * 0x9E3779B1
    words = _mix(_mix((streams[0] + index) & _WORD) ^ streams[1])
    return ((words >> 9).float() + 0.5) * 2.0**-23


def normals(uniform: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Standard normal numbers out of uniform ones."""
    return torch.special.ndtri(uniform)


def truncated_normals(
    uniform: Float[Tensor, "*any"], *, mean: float, std: float, low: float, high: float
) -> Float[Tensor, "*any"]:
    """Normal numbers that lie between low and high, out of uniform ones: the others are as if drawn again."""
    below, above = (0.5 * (1 + math.erf((end - mean) / (std * math.sqrt(2)))) for end in (low, high))
    inside = torch.special.ndtri(below + (above - below) * uniform.double()) * std + mean
    return inside.clamp(low, high).to(uniform.dtype)


def von_mises(uniform: Float[Tensor, "*any"], *, concentration: float) -> Float[Tensor, "*any"]:
    """Angles in radians around 0 with the density exp(concentration cos(angle)), out of uniform numbers."""
    angles = torch.linspace(-math.pi, math.pi, 8193, dtype=torch.float64)
    density = (concentration * (angles.cos() - 1)).exp()
    mass = torch.cat([torch.zeros(1, dtype=torch.float64), (density[1:] + density[:-1]).cumsum(0)])
    mass, wanted = mass / mass[-1], uniform.double().contiguous()
    right = torch.searchsorted(mass, wanted.cpu()).clamp(1, len(mass) - 1)
    share = (wanted.cpu() - mass[right - 1]) / (mass[right] - mass[right - 1])
    return (angles[right - 1] + share * (angles[right] - angles[right - 1])).to(uniform)


def _mix(word: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """A bijection of 32-bit words in which every bit depends on every bit (hash-prospector's lowbias32, 2nd edition).

    Both factors are below 2^31, so that no product passes 63 bits.
    """
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & _WORD
    word = ((word ^ (word >> 15)) * 0x735A2D97) & _WORD
    return word ^ (word >> 15)
