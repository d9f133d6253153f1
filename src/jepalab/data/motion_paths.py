"""Sixteen ways in which two objects move, of which no single frame tells one from another.

An object has four coordinates, and each is a circle: x and y in frame widths (who leaves on the right comes back on the
left), its angle in turns, and its size on a scale whose largest passes into its smallest. It starts anywhere with equal
probability, and a motion adds to that start a path drawn without looking at it. A uniform start plus anything
independent of it, modulo 1, is uniform again: so at every frame both objects are spread alike in all classes, and
pictures of single frames have one distribution. Only two frames and more tell classes apart.

Six pairs are each other's reversal in time, in distribution: to tell the two of a pair, the order of frames is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

X, Y, ANGLE, SIZE = range(4)
MOVER, OTHER = range(2)

# What is drawn for a clip whatever its class: over the clip, unless something else is said.
DISTANCE = (0.35, 0.7)  # frame widths
MOMENT = (0.35, 0.65)  # when a bounce or a relay happens, as a share of the clip
BEND = (-0.125, 0.125)  # turns off the way back, in a bounce
RADIUS = (0.12, 0.22)  # of an orbit, frame widths
TURN = (0.25, 0.6)  # turns
GROWTH = (0.4, 0.7)  # shares of the scale of sizes
SMALLEST, LARGEST = 0.25, 0.7  # diameters of an object, frame widths

NUM_UNIFORMS = 16


@dataclass(frozen=True)
class Dice:
    """What is drawn for m clips, all of it independent.

    start      [m k 4] coordinates of the two objects in the first frame, uniform in [0, 1).
    swap       [m] whether the mover is the upper object, which covers the other.
    direction  [m 1] turns, clockwise from "right"; the others in the units of the ranges above.
    """

    start: Float[Tensor, "m 2 4"]
    swap: Bool[Tensor, " m"]
    direction: Float[Tensor, "m 1"]
    distance: Float[Tensor, "m 1"]
    moment: Float[Tensor, "m 1"]
    bend: Float[Tensor, "m 1"]
    radius: Float[Tensor, "m 1"]
    turn: Float[Tensor, "m 1"]
    growth: Float[Tensor, "m 1"]

    @classmethod
    def cast(cls, uniforms: Float[Tensor, "m 16"]) -> Dice:
        """Dice out of independent uniform numbers in [0, 1)."""
        start, (swap, direction, *rest) = uniforms[:, :8].unflatten(1, (2, 4)), uniforms[:, 8:].split(1, dim=1)
        ranges = (DISTANCE, MOMENT, BEND, RADIUS, TURN, GROWTH)
        drawn = [low + (high - low) * one for one, (low, high) in zip(rest, ranges, strict=True)]
        return cls(start, swap[:, 0] < 0.5, direction, *drawn)


Times = Float[Tensor, " t"]
Motion = Callable[[Dice, Times], Float[Tensor, "m t 2 4"]]


@dataclass(frozen=True)
class Tracks:
    """Where the two objects of m clips are in each frame: the truth behind the pixels.

    labels  [m] indices into `MOTIONS`.
    path    [m t k 4] coordinates before they are wrapped, so that differences of frames are velocities; object 1 covers
            object 0 where they meet.
    """

    labels: Int[Tensor, " m"]
    path: Float[Tensor, "m t 2 4"]

    @property
    def position(self) -> Float[Tensor, "m t 2 2"]:
        """Centres (x, y) in frame widths from the upper left corner, in [0, 1)."""
        return self.path[..., :ANGLE] % 1

    @property
    def angle(self) -> Float[Tensor, "m t 2"]:
        """How far each picture is turned clockwise, in radians in [0, 2 pi)."""
        return 2 * math.pi * (self.path[..., ANGLE] % 1)

    @property
    def diameter(self) -> Float[Tensor, "m t 2"]:
        """In frame widths."""
        return SMALLEST * (LARGEST / SMALLEST) ** (self.path[..., SIZE] % 1)

    @property
    def velocity(self) -> Float[Tensor, "m s 2 4"]:
        """From each frame to the next: x and y in frame widths, angle in turns, size in shares of its scale."""
        return self.path.diff(dim=1)


def follow(labels: Int[Tensor, " m"], dice: Dice, *, num_frames: int) -> Tracks:
    """The tracks of m clips, each of its class."""
    times = torch.linspace(0, 1, num_frames, dtype=dice.start.dtype)
    # Every motion of every clip is computed and one is taken: a few numbers, against a loop over classes.
    change = torch.stack([motion(dice, times) for motion in MOTIONS.values()])[labels, torch.arange(len(labels))]
    change = torch.where(dice.swap[:, None, None, None], change.flip(2), change)
    return Tracks(labels, dice.start.unsqueeze(1) + change)


def _rest(dice: Dice, times: Times) -> Float[Tensor, "m t 2 4"]:
    return times.new_zeros(len(dice.start), len(times), 2, 4)


def _along(direction: Tensor, distance: Float[Tensor, "m t"]) -> Float[Tensor, "m t 2"]:
    """Shifts of x and y, y downwards."""
    angle = 2 * math.pi * direction
    return torch.stack([angle.cos() * distance, angle.sin() * distance], -1)


def _go(direction: float) -> Motion:
    def motion(dice: Dice, times: Times) -> Tensor:
        change = _rest(dice, times)
        change[:, :, MOVER, :ANGLE] = _along(dice.distance.new_tensor(direction), dice.distance * times)
        return change

    return motion


def _go_anywhere(covered: Callable[[Times], Times]) -> Motion:
    """In any direction, having covered this share of the distance at each time."""

    def motion(dice: Dice, times: Times) -> Tensor:
        change = _rest(dice, times)
        change[:, :, MOVER, :ANGLE] = _along(dice.direction, dice.distance * covered(times))
        return change

    return motion


def _spin(sign: int) -> Motion:
    def motion(dice: Dice, times: Times) -> Tensor:
        change = _rest(dice, times)
        change[:, :, MOVER, ANGLE] = sign * dice.turn * times
        return change

    return motion


def _grow(sign: int) -> Motion:
    def motion(dice: Dice, times: Times) -> Tensor:
        change = _rest(dice, times)
        change[:, :, MOVER, SIZE] = sign * dice.growth * times
        return change

    return motion


def _orbit(sign: int) -> Motion:
    """Around a point, as fast as the others go straight."""

    def motion(dice: Dice, times: Times) -> Tensor:
        change = _rest(dice, times)
        turned = sign * dice.distance * times / (2 * math.pi * dice.radius)
        radius = dice.radius.expand_as(turned)
        change[:, :, MOVER, :ANGLE] = _along(dice.direction + turned, radius) - _along(dice.direction, radius)
        return change

    return motion


def _bounce(dice: Dice, times: Times) -> Tensor:
    """Thrown back by something that is not seen."""
    change, back = _rest(dice, times), dice.direction + 0.5 + dice.bend
    there = _along(dice.direction, dice.distance * times.minimum(dice.moment))
    change[:, :, MOVER, :ANGLE] = there + _along(back, dice.distance * (times - dice.moment).clamp_min(0))
    return change


def _both(sign: int) -> Motion:
    """Both objects, in one direction or in opposite ones."""

    def motion(dice: Dice, times: Times) -> Tensor:
        change = _rest(dice, times)
        change[:, :, MOVER, :ANGLE] = _along(dice.direction, dice.distance * times)
        change[:, :, OTHER, :ANGLE] = sign * change[:, :, MOVER, :ANGLE]
        return change

    return motion


def _relay(dice: Dice, times: Times) -> Tensor:
    """One object moves and stops, and the other goes on as it did."""
    change = _rest(dice, times)
    change[:, :, MOVER, :ANGLE] = _along(dice.direction, dice.distance * times.minimum(dice.moment))
    change[:, :, OTHER, :ANGLE] = _along(dice.direction, dice.distance * (times - dice.moment).clamp_min(0))
    return change


MOTIONS: dict[str, Motion] = {
    "right": _go(0.0),
    "left": _go(0.5),
    "down": _go(0.25),
    "up": _go(0.75),
    "spin clockwise": _spin(1),
    "spin anticlockwise": _spin(-1),
    "grow": _grow(1),
    "shrink": _grow(-1),
    "orbit clockwise": _orbit(1),
    "orbit anticlockwise": _orbit(-1),
    "accelerate": _go_anywhere(lambda times: times**2),
    "decelerate": _go_anywhere(lambda times: times * (2 - times)),
    "bounce": _bounce,
    "together": _both(1),
    "opposite": _both(-1),
    "relay": _relay,
}
# Each other's reversal in time.
REVERSALS = tuple(zip(tuple(MOTIONS)[:12:2], tuple(MOTIONS)[1:12:2], strict=True))
