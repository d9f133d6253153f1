"""Smallest, largest, mean and standard deviation of columns that are never in memory as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Shaped

# Numbers that are looked at at a time.
BLOCK = 2**20


class Statistics:
    """Of a column's rows, for each of their numbers; of pictures [t c h w], bytes as 0 to 1, for each channel.

    NaN and infinities do not count; what has no finite number is 0.
    """

    def __init__(self, *, is_of_pictures: bool) -> None:
        self.axes, self.unit = ((0, 2, 3), 255) if is_of_pictures else ((0,), 1)
        self.num_rows = 0
        # Numbers, their sum, the sum of their squares, the smallest and the largest.
        self.found: list[Any] = [0, 0.0, 0.0, np.inf, -np.inf]

    def add(self, values: Shaped[np.ndarray, "t ..."]) -> None:
        self.num_rows += len(values)
        step = max(1, BLOCK // max(1, values[:1].size))
        for start in range(0, len(values), step):
            block = values[start : start + step].astype(np.float64) / self.unit
            counts = np.isfinite(block)
            zeroed = np.where(counts, block, 0.0)
            num, total, squares, low, high = self.found
            self.found = [
                num + counts.sum(self.axes),
                total + zeroed.sum(self.axes),
                squares + (zeroed**2).sum(self.axes),
                np.minimum(low, np.where(counts, block, np.inf).min(self.axes)),
                np.maximum(high, np.where(counts, block, -np.inf).max(self.axes)),
            ]

    def as_json(self) -> dict[str, Any]:
        """min, max, mean and std as nested lists of a row's shape, [c 1 1] for pictures, and count [1] of rows."""
        num, total, squares, low, high = self.found
        mean = total / np.maximum(num, 1)
        deviation = np.sqrt(np.maximum(squares / np.maximum(num, 1) - mean**2, 0.0))
        shape = (-1, 1, 1) if len(self.axes) > 1 else np.shape(num) or (1,)
        found = {"min": low, "max": high, "mean": mean, "std": deviation}
        lists = {name: np.where(num > 0, value, 0.0).reshape(shape).tolist() for name, value in found.items()}
        return lists | {"count": [self.num_rows]}
