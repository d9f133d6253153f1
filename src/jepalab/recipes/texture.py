"""The texture budget: does predicting embeddings keep the shape where predicting pixels keeps the texture?

Still pictures of plain shapes under one of four textures. Noise that nobody can predict should cost a JEPA nothing
(Van Assel et al. 2025, arXiv 2505.12477); a grating that any part of the picture foretells should be all it keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jepalab.compare.cells import Budget, Cell, Judging, Unit, picture_folder
from jepalab.compare.contrasts import Better, Contrast
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Arm, Choice, Knob, Tunable
from jepalab.data.texture import STRENGTHS, Textures
from jepalab.instruments import features
from jepalab.instruments.capacity import nuisance_capacity
from jepalab.instruments.texture import pooled_geometry, texture_budget
from jepalab.recipes import texture_arms
from jepalab.recipes.settings import entries, read_settings, say_where
from jepalab.recipes.texture_arms import TextureBench, TexturedWorld, TextureTraining
from jepalab.run import Run
from jepalab.types import Objective, Stream, Subject

STEPS, TRIAL_STEPS = 3000, 1000
JUDGED = 2.0  # times the usual number of held-out pictures: 1,536 to learn from, 768 to score
MARGIN = 0.02  # by which an arm that is claimed to be no worse may be worse


KINDS = ("noise", "coherent", "local", "light")
TUNED_STRENGTH = 0.5
PIXELS = Choice("target", ("normalised", "plain"))
ARMS: dict[str, Arm] = {
    "J1": Arm("Masked JEPA + VICReg", texture_arms.variance, Knob("spread", 0.1, 10.0)),
    "J2": Arm("Masked JEPA + SIGReg", texture_arms.gaussian, Knob("sigreg", 0.001, 1.0)),
    "J3": Arm("I-JEPA (EMA teacher)", texture_arms.ema, Knob("momentum", 0.9, 0.999, scale="one minus")),
    "G2": Arm("MAE", texture_arms.mae, PIXELS),
    "G2m": Arm("MAE on I-JEPA's masks", partial(texture_arms.mae, masks="blocks"), PIXELS),
    "G3": Arm("Denoising", texture_arms.denoise, Choice("predict", tuple(texture_arms.PREDICTIONS))),
    "G4": Arm("Next patch", texture_arms.next_patch, PIXELS),
    "S": Arm("Supervised (ceiling)", texture_arms.supervised, Knob("label", 0.1, 10.0)),
    "R": Arm("Random encoder (floor)", texture_arms.random_vit),
    "PCA": Arm("Pixel PCA (floor)", texture_arms.pixel_pca),
}
CONDITIONS: dict[str, TexturedWorld] = {"clean": TexturedWorld()} | {
    f"{kind} {strength:g}": TexturedWorld(kind, strength) for kind in KINDS for strength in STRENGTHS[1:]
}
COURSES = [
    Course(
        f"Strength of the {kind} texture",
        "standard deviation",
        {"clean": 0.0} | {name: world.strength for name, world in CONDITIONS.items() if world.kind == kind},
        metrics=("semantic", "nuisance_r2"),
        minor=tuple(n for n, world in CONDITIONS.items() if world.kind == kind and world.strength != TUNED_STRENGTH),
    )
    for kind in KINDS
]
DEMO_CONDITIONS = ("clean", "noise 0.5", "coherent 0.5")
OWN_IMAGES, THEIR_SETTINGS = "image 0.5", "local 0.5"

METRICS = {
    "semantic": "class, count and position",
    "nuisance_r2": "nuisance R²",
    "class_linear": "class, linear",
    "class_knn": "class, kNN",
    "count_linear": "count, linear",
    "position_r2": "position R²",
    "selectivity": "selectivity",
    "capacity_linear_r2": "added picture R², linear",
    "capacity_mlp_r2": "added picture R², MLP",
    "capacity_conv_r2": "added picture R², decoder",
    "rankme": "RankMe",
    "rankme_centred": "RankMe, centred",
}
VAN_ASSEL = "Van Assel et al. 2025, arXiv 2505.12477"
NOISE = f"{VAN_ASSEL}; Balestriero & LeCun 2024, arXiv 2402.11337; Littwin et al. 2024, arXiv 2407.03475"
COUNTING = "Assran et al. 2023, arXiv 2301.08243: of Clevr's counts MAE tells 90.5 %, I-JEPA 86.7 %"
PLACING = "own hypothesis; of Clevr's distances both tell 72.4 % (Assran et al. 2023)"
SLOW = "Sobal et al. 2022, arXiv 2211.10831, carried over from slow features in time to coherent ones in space"


def declare(arms: Sequence[str], conditions: Sequence[str]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any seed ran; those that apply here.

    I-JEPA stands for embedding prediction and MAE for pixel prediction, each on its own masks, as published; the others
    are shown beside them, MAE on I-JEPA's masks (G2m) among them, from which I-JEPA differs in what is compared alone.
    """
    if not {"J3", "G2"} <= set(arms):
        return []
    unpredictable = "Noise cannot be predicted: pixels pay for it, embeddings drop it."
    predictable = "A grating is told by any part of it, so its code predicts itself."
    weak = "Where the nuisance is weak, most of what pixels hold is what matters."
    low = "Pixels tell where and how many things are; a code may leave that out and be predicted all the same."
    claims = [
        *(_better(f"H1a: J3 > G2 | semantic | noise {alpha}", unpredictable, NOISE) for alpha in ("0.5", "1")),
        # Read token by token: the mean over the tokens blurs where a pixel was bright in every encoder alike.
        *(_better(f"H1a: G2 > J3 | capacity_conv_r2 | noise {alpha}", unpredictable, NOISE) for alpha in ("0.5", "1")),
        *(
            _better(f"H1b: G2 > J3 | semantic | {where}", weak, VAN_ASSEL, threshold=-MARGIN)
            for where in ("clean", "noise 0.1", "local 0.1", "light 0.1")
        ),
        *(_better(f"H1c: G2 > J3 | semantic | coherent {alpha}", predictable, SLOW) for alpha in ("0.5", "1")),
        *(_better(f"H1c: J3 > G2 | coherent_r2 | coherent {alpha}", predictable, SLOW) for alpha in ("0.5", "1")),
        *(
            _better(f"H1d: G2 > J3 | {metric} | {where}", low, source)
            for where in CONDITIONS
            for metric, source in (("count_linear", COUNTING), ("position_r2", PLACING))
        ),
    ]
    return [claim for claim in claims if claim.condition in conditions]


def _better(claim: str, because: str, source: str, *, threshold: float = 0.0) -> Better:
    """A contrast out of "hypothesis: better > than | metric | condition"."""
    hypothesis, rest = claim.split(": ")
    arms, metric, condition = rest.split(" | ")
    better, than = arms.split(" > ")
    camp = {"J3": "embeddings", "G2": "pixels"}[better]
    what = {"semantic": "what matters", "capacity_conv_r2": "the noise", "coherent_r2": "the grating"}.get(metric)
    what = what or {"count_linear": "the count", "position_r2": "the position"}[metric]
    verb = "keep no less of" if threshold < 0 else "keep more of"
    return Better(
        f"{hypothesis}, {condition}: {camp} {verb} {what}",
        better=better,
        than=than,
        metric=metric,
        condition=condition,
        because=because,
        source=source,
        threshold=threshold,
    )


def tunable() -> Tunable:
    """The search behind the texture budget's settings: every arm by class, count and position on validation."""
    return Tunable(
        name="texture",
        knobs={name: arm.knob for name, arm in ARMS.items() if arm.knob},
        worlds=CONDITIONS,
        make=make_run,
        judging=Judging(instruments=(texture_budget,), curve=(), curve_at=(), subjects=subjects),
        metric="validation_semantic",
        conditions=DEMO_CONDITIONS,
        trial_steps=TRIAL_STEPS,
    )


def plan(
    *,
    preset: Literal["demo", "full"] = "demo",
    background: Path | None = None,
    num_seeds: int | None = None,
    budget: float = float(STEPS),
    unit: Unit = "steps",
) -> Plan:
    """I-JEPA and its generative twins on shapes under textures: who keeps the shape, who keeps the texture?

    Same small ViT, data, order of samples and budget for every arm, each with its own tuned settings.

    Args:
        preset: "demo" takes no texture, noise and a grating, 3 seeds; "full" four textures at four strengths, 5 seeds.
        background: a folder of your images as one texture more.
        num_seeds: independent repetitions; 3 for the demo, 5 for the full comparison.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (pictures seen), flops (of training) or seconds (on this machine).
    """
    tuned = read_tuned()
    names = DEMO_CONDITIONS if preset == "demo" else tuple(CONDITIONS)
    worlds = {name: CONDITIONS[name] for name in names}
    if background is not None:
        worlds[OWN_IMAGES] = TexturedWorld("image", 0.5, background)
    settings = {name: entries(tuned, name, ARMS, tuned_on=tuned_on(name)) for name in worlds}
    trained = [arm for arm, made in ARMS.items() if made.knob]
    worlds = {name: world for name, world in worlds.items() if settings[name]}
    if not worlds:
        raise ValueError(
            f"No arm has been tuned for {', '.join(settings)}, and untuned arms never compete; run `jepalab tune "
            "texture --conditions ...` with the conditions whose settings these take, at strength 0.5."
        )
    left_out = ", ".join(f"{arm} ({name})" for name in settings for arm in trained if arm not in settings[name])
    notes = [f"Not tuned, so not compared: {left_out}. `jepalab tune texture` tunes them."] if left_out else []
    cells = [
        Cell(
            arm, name, partial(make_run, arm=arm, world=world, settings=settings[name].get(arm, {}).get("settings", {}))
        )
        for name, world in worlds.items()
        for arm in ARMS
        if arm in settings[name] or arm not in trained
    ]
    competing = [arm for arm in ARMS if any(cell.arm == arm for cell in cells)]
    decided = [name for name in worlds if {"J3", "G2"} <= settings[name].keys()]
    return Plan(
        name=f"texture-{preset}",
        question="Under which texture does predicting embeddings keep what matters better than predicting pixels?",
        cells=cells,
        seeds=range(num_seeds or {"demo": 3, "full": 5}[preset]),
        budget=Budget(budget, unit),
        judging=Judging(
            instruments=(texture_budget, nuisance_capacity, pooled_geometry),
            curve=(texture_budget,),
            subjects=subjects,
            prefer="validation_semantic",
        ),
        illustrate=partial(_draw_data, worlds),
        contrasts=declare(competing, decided),
        arms={arm: ARMS[arm].label for arm in competing},
        conditions={name: _describe(world) for name, world in worlds.items()},
        settings={
            "tuning": {k: v for k, v in tuned.items() if k != "conditions"},
            "conditions": {name: settings[name] for name in worlds},
        },
        metrics=METRICS,
        noun="pictures",
        courses=COURSES,
        notes=[*notes, *say_where(tuned)],
    )


def read_tuned() -> dict[str, Any]:
    """What the recorded search found; ValueError where none has been made."""
    found = read_settings("texture")
    if not found["conditions"]:
        raise ValueError(
            "No arm of the texture experiment has been tuned yet, and untuned arms never compete; "
            "run `jepalab tune texture` first (hours; it goes on where it was stopped)."
        )
    return found


def tuned_on(condition: str) -> str:
    """The condition whose settings this one takes: its texture at strength .5."""
    if condition == OWN_IMAGES:
        return THEIR_SETTINGS
    kind = CONDITIONS[condition].kind
    return "clean" if kind == "none" else f"{kind} 0.5"


def make_run(seed: int, *, arm: str, world: TexturedWorld, settings: Mapping[str, Any], steps: int = STEPS) -> Run:
    """The run of one arm in one world with the given lr, weight_decay and private knob."""
    shared = {name: value for name, value in settings.items() if name in ("lr", "weight_decay")}
    private = {name: value for name, value in settings.items() if name not in shared}
    training = replace(TextureTraining(steps=steps), **shared)
    return ARMS[arm].make(TextureBench(world=world, training=training, seed=seed), **private)


def subjects(objective: Objective, stream: Stream, *, share: float = 1.0) -> dict[str, Subject]:
    """Twice the usual number of held-out pictures, as each is a single frame."""
    return features.subjects(objective, stream, share=JUDGED * share)


def _describe(world: TexturedWorld) -> str:
    if world.kind == "none":
        return "no texture"
    what = {
        "noise": "independent pixel noise",
        "coherent": "one grating over the picture",
        "local": "texture of correlation length 1 to 6 px",
        "light": "a ramp of brightness",
        "image": f"images of {world.background}",
    }
    return f"{what[world.kind]}, standard deviation {world.strength:g}"


def _draw_data(worlds: Mapping[str, TexturedWorld], pictures: Path) -> None:
    for name, world in worlds.items():
        stream = world.stream(0)
        clean = replace(stream, textures=Textures())
        rows = [source.held_out("test", 24).x[:, 0, 0].unflatten(0, (4, 6)).numpy() for source in (stream, clean)]
        np.savez(picture_folder(pictures, name) / "data.npz", with_nuisance=rows[0], without=rows[1])
