"""The main job: a JEPA and its generative twins on real handwriting behind a distractor that changes, or stays.

After Sobal et al. 2022 (arXiv 2211.10831): with a background that is new at every frame, embedding prediction keeps
the state and pixel prediction drowns; with one that is fixed for the clip, the order reverses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jepalab.compare.cells import Budget, Cell, Judging, Unit, picture_folder, slug
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Arm, Knob, Tunable
from jepalab.instruments.diagnosis import geometry
from jepalab.instruments.pictures import expect_frames
from jepalab.instruments.state import motion, rollout, state
from jepalab.recipes import sequences
from jepalab.recipes.bench import Bench, Training, World
from jepalab.recipes.distractor_claims import declare, explore
from jepalab.recipes.settings import entries, read_settings, say_where
from jepalab.run import Run

STEPS = 500

ARMS: dict[str, Arm] = {
    "J1": Arm("JEPA + VICReg", sequences.vicreg_jepa, Knob("spread", 0.1, 10.0)),
    "J2": Arm("JEPA + SIGReg", sequences.sigreg_jepa, Knob("sigreg", 0.01, 10.0)),
    "J3": Arm("JEPA + EMA teacher", sequences.ema_jepa, Knob("momentum", 0.9, 0.999, scale="one minus")),
    "J4": Arm("JEPA + frozen random teacher", sequences.frozen_jepa, Knob("width", 64, 256, scale="power of two")),
    "J4p": Arm("JEPA + frozen pixel teacher (SALT)", sequences.salt_jepa, Knob("teacher_share", 0.1, 1.0)),
    "J1w": Arm("JEPA + VICReg within clips", sequences.within_clip_jepa, Knob("spread", 0.1, 10.0)),
    "J1d": Arm("JEPA + VICReg on frame differences", sequences.difference_jepa, Knob("spread", 0.1, 10.0)),
    "J5": Arm("Masked JEPA of frames + VICReg", sequences.masked_frame_jepa, Knob("spread", 0.1, 10.0)),
    "J1+A1": Arm("JEPA + VICReg + inverse dynamics", sequences.inverse_jepa, Knob("inverse", 0.1, 100.0)),
    "A1": Arm("Inverse dynamics", sequences.inverse_dynamics, Knob("width", 64, 256, scale="power of two")),
    "G2": Arm("Next-frame pixels", sequences.next_frame, Knob("width", 8, 32, scale="power of two")),
    "G1": Arm("Auto-encoder (control)", sequences.autoencoder, Knob("width", 8, 32, scale="power of two")),
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
SWEEP = {
    name: world.persistence
    for name, world in CONDITIONS.items()
    if world.strength == FIXED_STRENGTH  # one strength, so that they differ in nothing else
}
PERSISTENCE = Course(
    "Persistence of the nuisance",
    "persistence ρ of the nuisance",
    SWEEP,
    minor=tuple(name for name in SWEEP if name != "fixed"),
    words="ρ = 0: the nuisance is new at every frame; ρ = 1: it stays for the clip. Every arm was tuned at ρ = 1 "
    "alone and has those settings everywhere.",
)
# At the sweep's strength rho = 1 is the fixed condition itself; the sweep borrows that condition's tuned settings.
TUNED_ON = {"none": "none", "changing": "changing"}

NOTES = (
    "State R² reads position and velocity together. It was made the primary metric after a first look at seed 0: "
    "behind the fixed distractor the order of J1 and G2 reverses in it, and did not in position R² alone, which is "
    "among the exploratory contrasts.",
    'Width, strengths and primary metric were chosen on seed 0 (docs/LOG.md), so that "declared beforehand" holds in '
    "full for the other seeds.",
    "J3 stands by its student, from which its predictor and its rollouts start: after so few steps the teacher lags.",
)
UNTOLD = (
    "J5 is told no actions, while G2 and the other models of the next frame are: where G2 beats J5, the actions may be "
    "why."
)
GOALS = (0.5, 0.75)  # of the primary metric: what it cost to get there is told

DEMO_ARMS = ("J1", "J2", "J3", "G2", "A1", "S", "R", "PCA")
DRAWN_ARMS = ("J1", "G2")


def plan(
    *,
    preset: Literal["demo", "full"] = "demo",
    thing: str = "digits",
    background: Path | None = None,
    num_seeds: int | None = None,
    budget: float = float(STEPS),
    unit: Unit = "steps",
) -> Plan:
    """A JEPA and its generative twins behind a distractor that changes, or stays: who keeps the state?

    Same encoder, data, order of samples and budget for every arm, each with its own tuned settings.

    Args:
        preset: "demo" takes two conditions, eight arms and 3 seeds (minutes); "full" all of them and 5 seeds (an hour).
        thing: "digits", "dot", or a folder of your images: what moves.
        background: a folder of at least five of your images as the distractor; no two splits share one.
        num_seeds: independent repetitions; 3 for the demo, 5 for the full comparison.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (clips seen), flops (of training) or seconds (on this machine).
    """
    arms = DEMO_ARMS if preset == "demo" else tuple(ARMS)
    conditions = ("changing", "fixed") if preset == "demo" else tuple(CONDITIONS)
    seeds = range(num_seeds or {"demo": 3, "full": 5}[preset])
    worlds = {name: replace(CONDITIONS[name], thing=thing, background=background) for name in conditions}
    cells = [
        Cell(arm, name, partial(make_run, arm=arm, world=worlds[name], settings=tuned_settings(arm, name)))
        for name in conditions
        for arm in arms
        if ARMS[arm].knob is None or arm in _tuned()["conditions"][_tuned_on(name)]  # untuned arms never compete
    ]
    competing = [(cell.arm, cell.condition) for cell in cells]
    return Plan(
        name=f"distractor-{preset}",
        question="Behind a distractor, which keeps the state: predicting embeddings or predicting pixels?",
        cells=cells,
        seeds=seeds,
        budget=Budget(budget, unit),
        judging=Judging(
            instruments=(state, rollout, geometry),
            curve=(motion,),
            draw=partial(_draw_cell, seed=seeds[0]),
        ),
        illustrate=partial(_draw_data, worlds),
        contrasts=declare(competing),
        exploratory=explore(competing),
        arms={arm: ARMS[arm].label for arm in arms},
        conditions={name: _describe(world) for name, world in worlds.items()},
        courses=[PERSISTENCE],
        goals=GOALS,
        notes=[*NOTES, *([UNTOLD] if "J5" in arms else []), *say_where(_tuned())],
        settings={
            "tuning": {k: v for k, v in _tuned().items() if k != "conditions"},
            "conditions": {
                name: entries(_tuned(), name, {arm: ARMS[arm] for arm in arms}, tuned_on=_tuned_on(name))
                for name in conditions
            },
        },
    )


def tunable() -> Tunable:
    """The search behind the distractor's shipped settings: every arm by the state R2 on validation."""
    return Tunable(
        name="distractor",
        knobs={name: arm.knob for name, arm in ARMS.items() if arm.knob},
        worlds=CONDITIONS,
        make=make_run,
        judging=Judging(instruments=(motion,), curve=(), curve_at=()),
        metric="validation_state_r2",
        conditions=("none", "changing", "fixed"),
    )


def tuned_settings(arm: str, condition: str) -> dict[str, float | int]:
    """The settings that the recorded tuning chose for this arm under this condition; the floors have none."""
    return {} if ARMS[arm].knob is None else _tuned()["conditions"][_tuned_on(condition)][arm]["settings"]


def make_run(seed: int, *, arm: str, world: World, settings: dict[str, float | int], steps: int = STEPS) -> Run:
    """The run of one arm in one world with the given lr, weight_decay and private knob."""
    default = Training(steps=steps)
    lr, weight_decay = settings.get("lr", default.lr), settings.get("weight_decay", default.weight_decay)
    private: dict[str, Any] = {name: value for name, value in settings.items() if name not in ("lr", "weight_decay")}
    training = replace(default, lr=lr, weight_decay=weight_decay)
    return ARMS[arm].make(Bench(world=world, training=training, seed=seed), **private)


def _tuned() -> dict[str, Any]:
    return read_settings("distractor")


def _tuned_on(condition: str) -> str:
    return TUNED_ON.get(condition, "fixed")


def _describe(world: World) -> str:
    if world.strength == 0:
        return "no distractor"
    kind = f"images of {world.background}" if world.background else f"{world.coherence} distractor"
    return f"{kind}, strength {world.strength:g}, persistence rho {world.persistence:g}"


def _draw_data(worlds: Mapping[str, World], pictures: Path) -> None:
    for name, world in worlds.items():
        stream = world.stream(0)
        clean = replace(stream, nuisance=replace(stream.nuisance, strength=0.0))
        frames, without = (source.held_out("test", 4).x[:, :, 0].numpy() for source in (stream, clean))
        np.savez(picture_folder(pictures, name) / "data.npz", with_nuisance=frames, without=without)


def _draw_cell(cell: Cell, run: Run, pictures: Path, *, seed: int) -> None:
    if cell.arm not in DRAWN_ARMS or run.seed != seed:
        return
    if expectation := expect_frames(run.objective, run.stream):
        file = picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}.npz"
        truth, predicted, how = expectation
        np.savez(file, truth=truth.numpy(), predicted=predicted.numpy(), how=np.array(how))
