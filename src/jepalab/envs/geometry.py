"""Points among axis-parallel boxes: how far they come before they touch one, all n at once and without a loop.

Boxes are [n k 4]: k boxes in each of n worlds, (left, top, right, bottom). NOWHERE is a box that is not there. The
arena is the square [low, high]^2 around them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

GAP = 0.01  # pixels kept free between a point and what has stopped it
NOWHERE = (1e6, 1e6, -1e6, -1e6)
Arena = tuple[float, float]


class Swept(NamedTuple):
    """Where a motion led.

    position  [n 2]
    share     [n] of the motion that was done, 1 unless something was in the way.
    stopped   [n 2] the axis along which it was stopped, if any.
    """

    position: Float[Tensor, "n 2"]
    share: Float[Tensor, " n"]
    stopped: Bool[Tensor, "n 2"]


def sweep(
    position: Float[Tensor, "n 2"], motion: Float[Tensor, "n 2"], boxes: Float[Tensor, "n k 4"], arena: Arena
) -> Swept:
    """Moves points along straight lines until GAP before the first box or the border, however long the line.

    A point that stands in a box, such as a door that has closed, may leave it; none enters. The point is put exactly on
    the face that stopped it, so that what is blocked stays blocked and moving away is free, whatever the rounding.
    """
    low, high = boxes[..., :2] - GAP, boxes[..., 2:] + GAP
    start, move = position[:, None], motion[:, None]
    enter, leave, near = _crossing(start, move, low, high)
    reached, axis = enter.max(-1)
    hits = (reached < leave.amin(-1)) & (reached >= 0) & (reached < 1)
    at_box = torch.where(hits, reached, math.inf)

    inner = arena[0] + GAP, arena[1] - GAP
    edge = torch.where(motion > 0, inner[1], inner[0]).to(motion)
    at_edge = torch.where(motion == 0, math.inf, (edge - position) / motion).clamp_min(0)
    at_edge = torch.where(at_edge < 1, at_edge, math.inf)

    # The box that is met first, then either border: along which axis, and where is the face?
    times = torch.cat([at_box, at_edge], 1)
    axes = torch.cat([axis, torch.tensor([[0, 1]], device=axis.device).expand(len(axis), 2)], 1)
    faces = torch.cat([near.gather(2, axis[..., None])[..., 0], edge], 1)
    time, first = times.min(1, keepdim=True)
    share = time.clamp_max(1.0)
    stopped = (axes.gather(1, first) == torch.arange(2, device=axis.device)) & (time < 1)
    end = torch.where(stopped, faces.gather(1, first), position + motion * share).clamp(*inner)

    entered = (_inside(end[:, None], low, high) & ~_inside(start, low, high)).any(1, keepdim=True)
    end, share = torch.where(entered, position, end), torch.where(entered, 0.0, share)
    return Swept(end, share[:, 0], stopped | entered)


def sees(
    start: Float[Tensor, "n p 2"], end: Float[Tensor, "n q 2"], boxes: Float[Tensor, "n k 4"]
) -> Bool[Tensor, "n p q"]:
    """Whether the straight line from each start to each end passes no box. To touch one, or to start in it, is free."""
    low, high = boxes[:, None, None, :, :2], boxes[:, None, None, :, 2:]
    here, there = start[:, :, None, None], end[:, None, :, None]
    enter, leave, _ = _crossing(here, there - here, low, high)
    passes = enter.amax(-1).clamp_min(0) < leave.amin(-1).clamp_max(1)
    return ~(passes & ~_inside(here, low, high) & ~_inside(there, low, high)).any(-1)


def shorten(vector: Float[Tensor, "n 2"], *, max_norm: float) -> Float[Tensor, "n 2"]:
    """The vector in its own direction, no longer than `max_norm`; the same to the last bit, whatever n."""
    largest = vector.abs().amax(1, keepdim=True).clamp_min(max_norm)
    scaled = vector / largest
    norm = (scaled[:, :1] ** 2 + scaled[:, 1:] ** 2).sqrt() * (largest / max_norm)
    return vector / norm.clamp_min(1.0)


def _crossing(start: Tensor, move: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """When a motion comes between low and high along each axis, when it leaves, and the coordinate where it comes in.

    In units of the motion; what does not move along an axis is between them always or never.
    """
    near, far = torch.where(move > 0, low, high), torch.where(move > 0, high, low)
    rests, between = move == 0, (low < start) & (start < high)
    ever, never = torch.where(between, -math.inf, math.inf), torch.where(between, math.inf, -math.inf)
    moving = torch.where(rests, 1.0, move)
    enter = torch.where(rests, ever.to(move), (near - start) / moving)
    return enter, torch.where(rests, never.to(move), (far - start) / moving), near


def _inside(point: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return ((low < point) & (point < high)).all(-1)
