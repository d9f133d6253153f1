"""The video lab: V-JEPA against pixel prediction, masked or in time, on your own clips or on motion classes.

The motion classes can be told by motion alone: an encoder that sees single frames well scores at chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jepalab.backbones.positions import Positions
from jepalab.compare.cells import Judging
from jepalab.compare.clip_pictures import draw_clip_cell
from jepalab.compare.contrasts import Better, Contrast, Equivalent
from jepalab.compare.grid import Plan
from jepalab.compare.metrics import RECOGNITION
from jepalab.compare.tune import Arm, Choice, Knob, Tunable
from jepalab.data.sprites import Split
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.forecasting import forecast
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import NUM_SAMPLES, labelled_subjects
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.likelihood import bits_per_dimension
from jepalab.instruments.ram import ram_state
from jepalab.instruments.recognition import frozen_linear, recognition
from jepalab.instruments.sample_geometry import sample_geometry
from jepalab.recipes import clip_arms
from jepalab.recipes.clip_bench import CLIP_NETWORK, ClipBench, Footage
from jepalab.recipes.lab import Lab, ReadOuts, split_settings
from jepalab.recipes.patch_bench import Network
from jepalab.run import Run

CONDITION = "clips"
BATCH, TRIAL_STEPS = 64, 300
TRIAL_CLIPS: Mapping[Split, int] = {"train": 3_000, "validation": 1_000, "test": 2}  # test plays no part
FEW_CLIPS: Mapping[Split, int] = {"train": 10_000, "validation": 2_000, "test": 4_000}
BARDES = "Bardes et al. 2024, arXiv 2404.08471"

MOMENTUM = Knob("momentum", 0.98, 0.9995, scale="one minus")
PIXELS = Choice("target", ("norm-pixels", "pixels"))
ARMS: dict[str, Arm] = {
    "J1": Arm("V-JEPA", clip_arms.vjepa, MOMENTUM),
    "J1c": Arm("V-JEPA, past to future", partial(clip_arms.vjepa, masks="causal-multi-block"), MOMENTUM),
    "J1p": Arm("V-JEPA, whole past to future", partial(clip_arms.vjepa, masks="causal"), MOMENTUM),
    "J1x": Arm("V-JEPA on VideoMAE's masks", partial(clip_arms.vjepa, masks="random"), MOMENTUM),
    "J2": Arm("Masked JEPA + VICReg", clip_arms.vjepa_vicreg, Knob("spread", 0.01, 1.0)),
    "J3": Arm("Masked JEPA + SIGReg", clip_arms.vjepa_sigreg, Knob("sigreg", 0.001, 0.1)),
    "J4": Arm("V-JEPA 2.1", clip_arms.vjepa_dense, Knob("context", 0.05, 1.0)),
    "G1": Arm("VideoMAE", clip_arms.videomae, PIXELS),
    "G1m": Arm("VideoMAE on V-JEPA's masks", partial(clip_arms.videomae, masks="multi-block"), PIXELS),
    "G2": Arm("Later frames, pixels", clip_arms.frame_pixels, PIXELS),
    "G3": Arm("Later frames, denoised", clip_arms.frame_denoiser, Choice("predict", ("velocity", "noise", "clean"))),
    "G4": Arm("Next token", clip_arms.frame_tokens, Knob("num_bins", 4, 32, scale="power of two")),
    "S": Arm("Supervised (ceiling)", clip_arms.clip_classifier, Knob("least_crop", 0.2, 0.8)),
    "R": Arm("Random encoder (floor)", clip_arms.random_clip_vit),
    "PCA": Arm("Single frames, PCA (floor)", clip_arms.clip_pca),
}
MAIN = ("J1", "J1c", "J1p", "J2", "G1", "G1m", "G2", "G3", "S", "R", "PCA")


def judging(read_outs: ReadOuts) -> Judging:
    """How cells are judged: "trial" ranks settings; "full" reads out every way there is."""
    if read_outs == "trial":
        few = partial(labelled_subjects, num_samples=TRIAL_CLIPS)
        return Judging(instruments=(frozen_linear,), curve=(), curve_at=(), subjects=few)
    return Judging(
        instruments=(recognition, layer_sweep, label_efficiency, sample_geometry, ram_state),
        of_the_first=(forecast, attentive) if read_outs == "quick" else (forecast, attentive, finetuning),
        skipped=("finetuned",) if read_outs == "quick" else (),
        curve=(frozen_linear,),
        curve_at=(0.1, 0.25, 0.5),
        draw=partial(draw_clip_cell, seed=0),
        subjects=partial(labelled_subjects, num_samples=FEW_CLIPS if read_outs == "quick" else NUM_SAMPLES),
    )


def declare(arms: Sequence[str]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    attentively = "read there by an attentive probe"
    pixels = f"{BARDES}, table 1: Kinetics 73.7 against 68.6 of pixels"
    table = f"{pixels}, same masks"
    published = f"{BARDES}, each as published: 80.8 on Kinetics for V-JEPA"
    masks = f"{BARDES}, table 4: multi-block 72.9, causal 61.3 to 71.9, {attentively}"
    claims: list[Better | Equivalent] = [
        _better("J1 > G1m | attentive", "Embeddings can leave out what no frame foretells.", table),
        _better("J1 > G1m | linear", "Embeddings can leave out what no frame foretells.", f"{table}, {attentively}"),
        _better("J1 > G1 | attentive", "What is compared, and larger blocks to be predicted, both differ.", published),
        _better(
            "J1p > G2 | linear",
            "Frames to come hold appearance, which a code of motion may leave out; masks are the same.",
            f"{pixels}, same masks, which are tubes there, {attentively}",
        ),
        _better("J1 > J1c | linear", "Tubes hide places at all times, so that nothing can be copied.", masks),
        _better("J1 > R | linear", "A floor that learns nothing is part of every honest table.", "any pretraining"),
        _better("G1 > R | linear", "A floor that learns nothing is part of every honest table.", "any pretraining"),
        Equivalent(
            f"{ARMS['J1'].label} equals {ARMS['G1m'].label}, {RECOGNITION['finetuned']}",
            better="J1",
            than="G1m",
            metric="finetuned",
            condition=CONDITION,
            margin=0.02,
            because="Whoever may change all weights finds what a frozen read-out misses.",
            source=f"{BARDES}, table 1: fine-tuned, 85.6 against 85.4 of pixels, same masks",
        ),
    ]
    return [claim for claim in claims if {claim.better, claim.than} <= set(arms)]


def _better(claim: str, because: str, source: str) -> Better:
    """A contrast out of "better > than | metric"."""
    arms, metric = claim.split(" | ")
    better, than = arms.split(" > ")
    name = f"{ARMS[better].label} beats {ARMS[than].label}, {RECOGNITION[metric]}"
    return Better(name, better=better, than=than, metric=metric, condition=CONDITION, because=because, source=source)


def make_run(
    seed: int,
    *,
    arm: str,
    world: Footage,
    settings: Mapping[str, Any],
    network: Network = CLIP_NETWORK,
    steps: int = 1000,
) -> Run:
    """The run of one arm on these clips with the given lr, weight_decay and private knob."""
    schedule, private = split_settings(settings, steps=steps, batch_size=BATCH)
    return ARMS[arm].make(ClipBench(footage=world, network=network, schedule=schedule, seed=seed), **private)


LAB = Lab(
    name="video",
    condition=CONDITION,
    noun="clips",
    rivals="predicting pixels",
    arms=ARMS,
    make_run=make_run,
    judging=judging,
    declare=declare,
    batch_size=BATCH,
    trial_steps=TRIAL_STEPS,
    full_from=50_000,
)


def tunable(footage: Footage) -> Tunable:
    """The search behind the video lab's settings: every arm by linear accuracy on validation.

    Args:
        footage: where the clips come from.
    """
    return LAB.tunable(footage)


def tuned(footage: Footage, file: Path | None = None) -> dict[str, Any]:
    """What the search on these chose or else the shipped one, or what the file says; and how it went."""
    return LAB.tuned(footage, file)


def plan(
    footage: Footage,
    *,
    budget: str = "30m",
    samples: int = 0,
    num_seeds: int = 3,
    arms: tuple[str, ...] = MAIN,
    read_outs: Literal["auto", "quick", "full"] = "auto",
    patch: int = CLIP_NETWORK.patch,
    width: int = CLIP_NETWORK.width,
    depth: int = CLIP_NETWORK.depth,
    settings: Path | None = None,
    positions: Positions = CLIP_NETWORK.positions,
    num_workers: int = 0,
) -> Plan:
    """V-JEPA against masked, later and denoised pixels on your own clips: whose frozen features tell what happens?

    Same encoder, clips, order of samples and number of samples for every arm, each with its own tuned settings.

    Args:
        footage: where the clips come from.
        budget: wall-clock time for everything, such as 30m or 2h, split over arms and seeds.
        samples: clips each arm sees; 0 lets the budget decide.
        num_seeds: at most; a short budget has fewer.
        arms: which take part, of J1 J1c J1p J1x J2 J3 J4 G1 G1m G2 G3 G4 S R PCA; untuned ones are left out.
        read_outs: "quick" for short runs, "full" with every one there is; "auto" goes by the samples.
        patch: side of a patch in pixels; it divides the size of the frames.
        width: of the encoder's tokens.
        depth: blocks of the encoder.
        settings: a video.tuned.json to take; otherwise that of a search on these clips, or the shipped one.
        positions: how tokens know their places: "sincos" codes, "rope", or "rope-tiled" as V-JEPA 2 released it.
        num_workers: runs at a time; 0 takes one for each core, or one where there is a GPU.
    """
    made = LAB.plan(
        footage,
        tuned(footage, settings),
        budget=budget,
        samples=samples,
        num_seeds=num_seeds,
        num_workers=num_workers,
        asked=arms,
        read_outs=read_outs,
        network=replace(CLIP_NETWORK, patch=patch, width=width, depth=depth, positions=positions),
    )
    return replace(made, judging=made.judging.with_more(bits_per_dimension)) if "G4" in made.arms else made
