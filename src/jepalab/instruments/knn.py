"""k-nearest-neighbour classification of frozen embeddings, DINO's protocol (Caron et al., ICCV 2021, arXiv 2104.14294).

Nothing is trained, so the score shows which embeddings already lie together, and cannot be rescued by a read-out.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from jepalab.instruments.geometry import SMALLEST_LENGTH, finite_float64
from jepalab.instruments.probes import check_lengths


class KNNClassifier:
    """Each of the nearest training rows by cosine similarity votes for its class with weight exp(sim / temperature).

    num_neighbours  how many vote; DINO reports 20, and 10, 100 and 200 beside it.
    temperature     small lets the nearest decide, large counts heads.
    rows_at_once    queries compared at a time; memory is rows_at_once x training rows.

    After `fit`: classes_ (sorted labels seen in training).
    """

    def __init__(self, num_neighbours: int = 20, *, temperature: float = 0.07, rows_at_once: int = 1024) -> None:
        if num_neighbours < 1 or temperature <= 0 or rows_at_once < 1:
            raise ValueError(
                "Wanted num_neighbours >= 1, temperature > 0 and rows_at_once >= 1, "
                f"got {num_neighbours}, {temperature} and {rows_at_once}."
            )
        self.num_neighbours = num_neighbours
        self.temperature = temperature
        self.rows_at_once = rows_at_once

    def fit(self, z: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> KNNClassifier:
        """Remembers the training rows. n must be at least num_neighbours."""
        check_lengths(z, y)
        if len(z) < self.num_neighbours:
            raise ValueError(f"Wanted at least num_neighbours = {self.num_neighbours} training rows, got {len(z)}.")
        self._rows = _normalised(z)
        self.classes_, self._class_index = y.cpu().unique(return_inverse=True)
        return self

    def predict(self, z: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """One label of classes_ for each row."""
        if z.shape[1] != self._rows.shape[1]:
            raise ValueError(f"Fitted on {self._rows.shape[1]} dimensions, got z {tuple(z.shape)}.")
        return torch.cat([self._vote(rows) for rows in _normalised(z).split(self.rows_at_once)])

    def score(self, z: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> float:
        """Accuracy: the share of rows whose label is predicted exactly."""
        check_lengths(z, y)
        return float((self.predict(z) == y.cpu()).double().mean())

    def _vote(self, rows: Tensor) -> Tensor:
        similarity, neighbour = (rows @ self._rows.T).topk(self.num_neighbours, dim=1)
        # Relative to the nearest neighbour, or exp overflows at low temperature.
        weight = ((similarity - similarity[:, :1]) / self.temperature).exp()
        votes = torch.zeros(len(rows), len(self.classes_), dtype=weight.dtype)
        return self.classes_[votes.scatter_add(1, self._class_index[neighbour], weight).argmax(dim=1)]


def _normalised(z: Tensor) -> Tensor:
    # In float32 the products take half the time, and weights move by 1e-6.
    return normalize(finite_float64(z), dim=1, eps=SMALLEST_LENGTH).float()
