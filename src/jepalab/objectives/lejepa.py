"""LeJEPA: views of one picture predict each other's embedding, and SIGReg alone keeps it alive (arXiv 2511.08544)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.projector import Projector
from jepalab.backbones.vit import ViT
from jepalab.losses.sigreg import SIGReg
from jepalab.types import Batch, Encoder, Objective, Space


class LeJEPA(Objective):
    """Each view's projected mean embedding against the mean over all views; no teacher, no stop-gradient.

    Views are `batch.x` and `batch.views`: at least two, augmented each on its own. That makes it another treatment of
    the data than a masked objective gets. SIGReg is taken over the batch, view by view.
    weights: "predict" and "sigreg"; the paper's lambda makes them 1 - lambda and lambda.
    """

    compares: ClassVar[Mapping[str, Space]] = {"predict": Space.OWN_EMBEDDING, "sigreg": Space.STATISTIC}

    def __init__(self, encoder: Encoder, *, projector: Projector, sigreg: SIGReg, weights: dict[str, float]) -> None:
        super().__init__()
        self.encoder, self.projector, self.sigreg, self.weights = encoder, projector, sigreg, weights

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        views = [batch.x, *batch.views]
        if len(views) < 2:
            raise ValueError("LeJEPA compares views of one picture, got 1; use a stream with num_views of 2 or more.")
        z = self.projector(self.encoder(torch.cat(views)).mean(1)).unflatten(0, (len(views), -1))
        return {"predict": (z.mean(0) - z).square().mean(), "sigreg": self.sigreg(z)}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((2, 2), patch=(4, 4), dim=8, depth=1, num_heads=2)
        projector = Projector(8, widths=(8,), out_dim=4)
        sigreg = SIGReg(num_directions=8, num_knots=5)
        objective = cls(encoder, projector=projector, sigreg=sigreg, weights={"predict": 0.95, "sigreg": 0.05})
        return objective, Batch(x=torch.rand(6, 1, 1, 8, 8), views=(torch.rand(6, 1, 1, 8, 8),))
