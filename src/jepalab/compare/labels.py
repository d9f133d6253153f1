"""Where names go beside what they name: without overlap as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
DISTANCES = (9.0, 16.0, 26.0, 38.0)
NUM_SWEEPS = 3
WEIGHT_OF_LABELS, WEIGHT_OUTSIDE, WEIGHT_OF_DISTANCE = 8.0, 50.0, 1.5


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Positions as near as possible to the wanted ones, in their order, `gap` apart and between low and high.

    Least squares by pooling adjacent violators. Where there is no room for the gap it shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = np.argsort(wanted, kind="stable")
    pools: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        total, size = wanted[index] - gap * rank, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / size:
            total, size = total + pools[-1][0], size + pools[-1][1]
            pools.pop()
        pools.append((total, size))
    starts = np.repeat([total / size for total, size in pools], [size for _, size in pools])
    starts = np.clip(starts, low, max(low, high - gap * (len(wanted) - 1)))
    placed = np.empty(len(wanted))
    placed[order] = starts + gap * np.arange(len(wanted))
    return placed.tolist()


def place(
    anchors: Float[np.ndarray, "n 2"],
    sizes: Float[np.ndarray, "n 2"],
    *,
    bounds: tuple[float, float, float, float],
    obstacles: Float[np.ndarray, "m 4"],
    weights: Float[np.ndarray, " m"],
) -> Float[np.ndarray, "n 4"]:
    """A box (x0, y0, x1, y1) for the label of each anchor, tried around it at several distances.

    The cheapest place wins, where cost is the area covered of other labels, of obstacles (each with its weight) and
    of what lies outside the bounds, and the distance. Later sweeps place each label anew among all others.
    """
    choices = np.stack([_around(anchor, size) for anchor, size in zip(anchors, sizes, strict=True)])
    distance = np.repeat(DISTANCES, len(ANGLES)) * WEIGHT_OF_DISTANCE
    own = np.array([_overlap(boxes, obstacles) @ weights + _outside(boxes, bounds) + distance for boxes in choices])
    chosen = choices[np.arange(len(choices)), own.argmin(1)]
    for _ in range(NUM_SWEEPS):
        for i, boxes in enumerate(choices):
            others = np.delete(chosen, i, axis=0)
            chosen[i] = boxes[(own[i] + WEIGHT_OF_LABELS * _overlap(boxes, others).sum(1)).argmin()]
    return chosen


def _around(anchor: np.ndarray, size: np.ndarray) -> np.ndarray:
    directions = np.tile(np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1), (len(DISTANCES), 1))
    reach = np.repeat(DISTANCES, len(ANGLES))[:, None] * directions
    # The box touches the end of the reach with its nearest side or corner, not with its centre.
    centres = anchor + reach + directions * size / 2
    return np.concatenate([centres - size / 2, centres + size / 2], 1)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def _outside(boxes: np.ndarray, bounds: tuple[float, float, float, float]) -> np.ndarray:
    low, high = np.array(bounds[:2]), np.array(bounds[2:])
    beyond = np.clip(low - boxes[:, :2], 0, None) + np.clip(boxes[:, 2:] - high, 0, None)
    return WEIGHT_OUTSIDE * beyond.sum(1)
