"""jepalab: does predicting embeddings beat predicting raw outputs, on your data, and why?

Importing the package imports nothing heavy; import what you use, for example
``from jepalab.objectives.vicreg_jepa import VICRegJEPA``. A trained encoder takes two lines:

    import jepalab
    encoder = jepalab.load("runs/ijepa-seed-0")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from jepalab.types import Encoder

__version__ = "0.1.0"


def load(path: str | Path, *, encoder: str | None = None) -> Encoder:
    """A trained encoder as a plain module, in evaluation mode and without gradients: see `jepalab.hub.runs.load`.

    path     the folder of a run, of one encoder, or of an I-JEPA or V-JEPA 2 in transformers' format.
    encoder  which encoder of a run: "student", "teacher"; None takes the one that is reported first.
    """
    from jepalab.hub import runs

    return runs.load(path, encoder=encoder)
