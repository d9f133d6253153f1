"""The main job: a JEPA and its generative twins on real handwriting behind a distractor that changes, or stays.

After Sobal et al. 2022 (arXiv 2211.10831): with a background that is new at every frame, embedding prediction keeps
the state and pixel prediction drowns; with one that is fixed for the clip, the order reverses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from typing import Any

from jepalab.compare.cells import Cell
from jepalab.compare.contrasts import Better, Contrast, Equivalent, Unordered
from jepalab.compare.tune import Knob
from jepalab.recipes import sequences
from jepalab.recipes.sequences import Bench, Training, World
from jepalab.run import Run

STEPS = 500


@dataclass(frozen=True)
class Arm:
    """One way to train, and its one private knob (every trained arm has one; the shared ones are lr and decay)."""

    label: str
    recipe: Callable[..., Run]
    knob: Knob | None = None


ARMS: dict[str, Arm] = {
    "J1": Arm("JEPA + VICReg", sequences.vicreg_jepa, Knob("spread", 0.1, 10.0)),
    "J2": Arm("JEPA + SIGReg", sequences.sigreg_jepa, Knob("sigreg", 0.01, 10.0)),
    "J3": Arm("JEPA + EMA teacher", sequences.ema_jepa, Knob("momentum", 0.9, 0.999, scale="one minus")),
    "J4": Arm("JEPA + frozen random teacher", sequences.frozen_jepa, Knob("width", 64, 256, scale="power of two")),
    "J4p": Arm("JEPA + frozen pixel teacher (SALT)", sequences.salt_jepa, Knob("teacher_share", 0.1, 1.0)),
    "J1w": Arm("JEPA + VICReg within clips", sequences.within_clip_jepa, Knob("spread", 0.1, 10.0)),
    "J1+A1": Arm("JEPA + VICReg + inverse dynamics", sequences.inverse_jepa, Knob("inverse", 0.1, 100.0)),
    "A1": Arm("Inverse dynamics", sequences.inverse_dynamics, Knob("width", 64, 256, scale="power of two")),
    "G2": Arm("Next-frame pixels", sequences.next_frame, Knob("width", 16, 64, scale="power of two")),
    "G1": Arm("Auto-encoder (control)", sequences.autoencoder, Knob("width", 16, 64, scale="power of two")),
    "S": Arm("Supervised (ceiling)", sequences.supervised, Knob("label", 0.01, 1.0)),
    "R": Arm("Random encoder (floor)", sequences.random_encoder),
    "PCA": Arm("Pixel PCA (floor)", sequences.pixel_pca),
}

# Strengths calibrated on the pixel arm alone, before any JEPA was tuned: docs/LOG.md tells how.
CHANGING_STRENGTH, FIXED_STRENGTH = 2.0, 1.0

CONDITIONS: dict[str, World] = {
    "none": World(strength=0.0),
    "changing": World(strength=CHANGING_STRENGTH, persistence=0.0),
    "fixed": World(strength=FIXED_STRENGTH, persistence=1.0),
    "rho 0": World(strength=FIXED_STRENGTH, persistence=0.0),
    "rho 0.5": World(strength=FIXED_STRENGTH, persistence=0.5),
    "rho 0.9": World(strength=FIXED_STRENGTH, persistence=0.9),
    "rho 0.99": World(strength=FIXED_STRENGTH, persistence=0.99),
}
# At the sweep's strength rho = 1 is the fixed condition itself; the sweep borrows that condition's tuned settings.
TUNED_ON = {"none": "none", "changing": "changing"}


def tuned_settings(arm: str, condition: str) -> dict[str, float]:
    """The settings that the recorded tuning chose for this arm under this condition; the floors have none."""
    if ARMS[arm].knob is None:
        return {}
    file = files("jepalab.recipes").joinpath("distractor.tuned.json")
    return json.loads(file.read_text())["conditions"][TUNED_ON.get(condition, "fixed")][arm]["settings"]


def make_run(seed: int, *, arm: str, world: World, settings: dict[str, float], steps: int = STEPS) -> Run:
    """The run of one arm in one world with the given lr, weight_decay and private knob."""
    shared = {name: value for name, value in settings.items() if name in ("lr", "weight_decay")}
    private: dict[str, Any] = {name: value for name, value in settings.items() if name not in shared}
    training = replace(Training(steps=steps), **shared)
    return ARMS[arm].recipe(Bench(world=world, training=training, seed=seed), **private)
