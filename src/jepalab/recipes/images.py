"""The image lab: I-JEPA against MAE, autoregression and diffusion on your own pictures, one encoder under all of them.

Which kind of pretraining serves a task is asked of frozen features first, since that is what is handed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jepalab.compare.cells import Judging
from jepalab.compare.contrasts import Better, Contrast, Equivalent
from jepalab.compare.grid import Plan
from jepalab.compare.image_pictures import draw_image_cell
from jepalab.compare.metrics import OTHERS, RECOGNITION
from jepalab.compare.tune import Arm, Choice, Knob, Tunable
from jepalab.data.augmentation import Crop
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import NUM_SAMPLES, Split, labelled_subjects
from jepalab.instruments.layers import NUM_JOINED, layer_sweep
from jepalab.instruments.likelihood import NUM_JUDGED, bits_per_dimension
from jepalab.instruments.posthoc import posthoc
from jepalab.instruments.recognition import frozen_linear, recognition
from jepalab.instruments.robustness import robustness
from jepalab.instruments.sgd_probe import sgd_probe
from jepalab.recipes import image_generative, image_jepas
from jepalab.recipes.image_bench import ImageBench, Pictures
from jepalab.recipes.image_transfer import NOWHERE, OtherPictures, judged_there
from jepalab.recipes.lab import METRIC, Lab, ReadOuts, split_settings
from jepalab.recipes.lab_costs import Further
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.run import Run

BATCH, TRIAL_STEPS, NETWORK = 128, 200, Network()
TRIAL_IMAGES: Mapping[Split, int] = {"train": 5_000, "validation": 5_000, "test": 2}  # test plays no part
FEW_IMAGES: Mapping[Split, int] = {"train": 10_000, "validation": 2_000, "test": 4_000}
ASSRAN = "Assran et al. 2023, arXiv 2301.08243"
AIM = "El-Nouby et al. 2024, arXiv 2401.08541"
BALESTRIERO = "LeJEPA, arXiv 2511.08544"
JOINED = "linear_joined_levels"
METRICS = {METRIC: RECOGNITION[METRIC], JOINED: OTHERS[JOINED]} | RECOGNITION

PIXELS = Choice("target", ("norm-pixels", "pixels"))
MOMENTUM = Knob("momentum", 0.98, 0.9995, scale="one minus")
ARMS: dict[str, Arm] = {
    "J1": Arm("I-JEPA", image_jepas.ijepa, MOMENTUM),
    "J1r": Arm("I-JEPA, official masks", partial(image_jepas.ijepa, masks="reference"), MOMENTUM),
    "J1x": Arm("I-JEPA on MAE's masks", partial(image_jepas.ijepa, masks="random"), MOMENTUM),
    "J2": Arm("Masked JEPA + VICReg", image_jepas.ijepa_vicreg, Knob("spread", 0.01, 1.0)),
    "J3": Arm("Masked JEPA + SIGReg", image_jepas.ijepa_sigreg, Knob("sigreg", 0.001, 0.1)),
    "J4": Arm("SALT: JEPA on a pixel teacher", image_jepas.salt, Knob("teacher_share", 0.2, 1.0)),
    "J5": Arm("JEPA on hidden layers", image_jepas.hidden_jepa, Knob("num_levels", 1, 6, scale="whole")),
    "J6": Arm("I-JEPA + context loss", image_jepas.dense_jepa, Knob("context", 0.05, 1.0)),
    "V1": Arm("LeJEPA, 2 views", image_jepas.lejepa, Knob("sigreg", 0.005, 0.5)),
    "V2": Arm("VICReg (views)", image_jepas.vicreg, Knob("invariance", 5.0, 50.0)),
    "G1": Arm("MAE", image_generative.mae, PIXELS),
    "G1m": Arm("MAE on I-JEPA's masks", partial(image_generative.mae, masks="blocks"), PIXELS),
    "G2": Arm("Next patch (AIM)", image_generative.next_patch, PIXELS),
    "G3": Arm("Next token", image_generative.next_token, Knob("num_bins", 4, 32, scale="power of two")),
    "G4": Arm("Denoising", image_generative.denoise, Choice("predict", ("velocity", "noise", "clean"))),
    "G5": Arm("Masked tokens (BEiT)", image_generative.masked_token, Knob("num_codes", 64, 1024, scale="power of two")),
    "S": Arm("Supervised (ceiling)", image_generative.classifier, Knob("least_crop", 0.2, 0.8)),
    "R": Arm("Random encoder (floor)", image_generative.random_vit),
    "PCA": Arm("Pixel PCA (floor)", image_generative.image_pca),
    "PIX": Arm("Pooled pixels (floor)", image_generative.pooled_pixels),
}
MAIN = ("J1", "V1", "G1", "G1m", "G2", "G4", "S", "R", "PCA", "PIX")
CONDITION = "pictures"
# Judged by it only where one of them takes part: another judging is another comparison, and begins every cell anew.
WITH_LIKELIHOOD = {"G3"}


def judging(read_outs: ReadOuts) -> Judging:
    """How cells are judged: "trial" ranks settings; "quick" suits short runs; "full" reads out every way there is."""
    if read_outs == "trial":
        few = partial(labelled_subjects, num_samples=TRIAL_IMAGES)
        return Judging(instruments=(frozen_linear,), curve=(), curve_at=(), subjects=few)
    # The views of LiDAR are the same for every arm: the crops of those that train on one view.
    geometry = partial(image_geometry, crop=Crop(scale=(Schedule().crop, 1.0)))
    shallow = (recognition, layer_sweep, label_efficiency, geometry)
    deep = {"attentive": attentive, "linear_sgd": sgd_probe, "finetuned": finetuning}
    deep |= {"robust_mean": robustness, "posthoc_psnr": posthoc}
    is_quick = read_outs == "quick"
    taken = ("attentive",) if is_quick else tuple(deep)
    return Judging(
        instruments=shallow,
        of_the_first=[deep[metric] for metric in taken],
        skipped=[metric for metric in deep if metric not in taken],
        curve=(frozen_linear,),
        curve_at=(0.1, 0.25, 0.5),
        draw=partial(draw_image_cell, seed=0),
        subjects=partial(labelled_subjects, num_samples=FEW_IMAGES if is_quick else NUM_SAMPLES),
    )


def declare(arms: Sequence[str]) -> list[Contrast]:
    """The contrasts, with their directions; those that apply here.

    They were declared before any final seed ran; docs/LOG.md has what a review changed later. J1 and G1 have each its
    own masks, as published; G1m has those of J1.
    """
    published = f"{ASSRAN}, table 1: 72.9 against 68.0 with ViT-B/16, the better of the last level and the last four"
    swapped = f"{ASSRAN}, table 7: pixels in place of embeddings, linear with 1 % of the labels, 66.9 against 40.7"
    views = f"own hypothesis, after {BALESTRIERO}, which has more views and a larger projector"
    claims: list[Contrast] = [
        _better("J1 > G1 | linear", published, "Frozen features: I-JEPA beats MAE"),
        _better(f"J1 > G1 | {JOINED}", published, "Last four levels: I-JEPA beats MAE"),
        _better("J1 > G1m | linear", swapped, "Same masks: I-JEPA beats MAE"),
        _better("J1 > G1 | shot_10", swapped, "Few labels: I-JEPA beats MAE"),
        _better("G1 > J1 | finetuned", f"{ASSRAN}, table 15: 87.8 against 87.1", "Fine-tuned: MAE beats I-JEPA"),
        _better("V1 > J1 | linear", views, "Views: LeJEPA beats I-JEPA"),
        _better("J1 > R | linear", "what any pretraining has to do", "I-JEPA beats an untrained encoder"),
        _better("J1 > PCA | linear", "what any pretraining has to do", "I-JEPA beats the pixels' components"),
        Equivalent(
            "Generative camps: next patch equals MAE",
            better="G2",
            than="G1",
            metric="attentive",
            condition=CONDITION,
            margin=0.02,
            because="Both predict normalised pixels from part of the picture.",
            source=f"{AIM}, table 5, read by attention: 78.2 against 77.8",
        ),
    ]
    return [claim for claim in claims if {claim.better, claim.than} <= set(arms)]  # pyrefly: ignore[missing-attribute]


def explore(arms: Sequence[str]) -> list[Contrast]:
    """Contrasts that were not among the first ones declared: numbers, without p-value and verdict."""
    claims = [
        _better(
            "J1 > PIX | linear", "what any pretraining has to do: the floor of ridge on pooled pixels", ABOVE_PIXELS
        ),
        _better("J1 > J1r | linear", "facebookresearch/ijepa, issues 40, 60 and 68", WITHOUT_BIAS),
    ]
    return [claim for claim in claims if {claim.better, claim.than} <= set(arms)]


ABOVE_PIXELS, WITHOUT_BIAS = "I-JEPA beats pooled pixels", "I-JEPA: masks without bias beat the official ones"
BECAUSE = {
    "Frozen features: I-JEPA beats MAE": "Embeddings can drop what pixels must keep; a linear probe sees what is kept.",
    "Last four levels: I-JEPA beats MAE": "Read as the paper also reads: what the last level lost may lie before it.",
    "Same masks: I-JEPA beats MAE": "Only what is compared differs.",
    "Few labels: I-JEPA beats MAE": "With few labels, what is already linear counts for more.",
    "Fine-tuned: MAE beats I-JEPA": "Pixels hold details that fine-tuning can use and a frozen probe cannot.",
    "Views: LeJEPA beats I-JEPA": "Augmented views say which differences do not matter.",
    "I-JEPA beats an untrained encoder": "A floor that learns nothing is part of every honest table.",
    "I-JEPA beats the pixels' components": "A floor that learns nothing is part of every honest table.",
    ABOVE_PIXELS: "A floor that learns nothing is part of every honest table.",
    WITHOUT_BIAS: "The official sampler never hides the last row or column, and its context shrinks with the batch.",
}


def _shrunk(pictures: Pictures) -> list[str]:
    """That pictures lost most of their pixels, where they did or where that is not known."""
    size, side = pictures.size, pictures.open().side
    if side is not None and side <= 2 * size:
        return []
    was = "" if side is None else f" The shorter side of the median picture was {side:,.0f} pixels."
    return [
        f"All arms read squares of {size} x {size} pixels.{was} What cannot be seen at that size no arm can learn: "
        "--size takes more of it, with a larger --patch for the time."
    ]


def _better(claim: str, source: str, name: str) -> Better:
    """A contrast out of "better > than | metric"."""
    arms, metric = claim.split(" | ")
    better, than = arms.split(" > ")
    return Better(
        name, better=better, than=than, metric=metric, condition=CONDITION, because=BECAUSE[name], source=source
    )


def make_run(
    seed: int,
    *,
    arm: str,
    world: Pictures,
    settings: Mapping[str, Any],
    network: Network | None = None,
    steps: int = 1000,
) -> Run:
    """The run of one arm on these pictures with the given lr, weight_decay and private knob."""
    schedule, private = split_settings(settings, steps=steps, batch_size=BATCH)
    bench = ImageBench(pictures=world, network=network or NETWORK, schedule=schedule, seed=seed)
    return ARMS[arm].make(bench, **private)


LAB = Lab(
    name="images",
    condition=CONDITION,
    noun="pictures",
    rivals="predicting pixels",
    arms=ARMS,
    make_run=make_run,
    judging=judging,
    declare=declare,
    batch_size=BATCH,
    trial_steps=TRIAL_STEPS,
    full_from=200_000,
    metrics=METRICS,
    unrecorded={"network": asdict(NETWORK), "shape": [1, 3, 32, 32]},
)


def tunable(pictures: Pictures, *, network: Network = NETWORK) -> Tunable:
    """The search behind the image lab's settings, on your own pictures: every arm by linear accuracy on validation.

    Args:
        pictures: where they come from.
        network: the encoder that every arm trains; take the same as in the comparison.
    """
    return LAB.tunable(pictures, network=network)


def tuned(pictures: Pictures, file: Path | None = None) -> dict[str, Any]:
    """What the search on these chose or else the shipped one, or what the file says; and how it went."""
    return LAB.tuned(pictures, file)


def plan(
    pictures: Pictures,
    *,
    other: OtherPictures = NOWHERE,
    budget: str = "30m",
    samples: int = 0,
    num_seeds: int = 3,
    arms: tuple[str, ...] = MAIN,
    read_outs: Literal["auto", "quick", "full"] = "auto",
    network: Network,
    settings: Path | None = None,
    num_workers: int = 0,
) -> Plan:
    """I-JEPA, LeJEPA, MAE, autoregression and diffusion on your own pictures: whose frozen features serve you best?

    Same encoder, pictures, order of samples and number of samples for every arm, each with its own tuned settings.

    Args:
        pictures: where they come from.
        other: a second set, on which every arm is judged too.
        budget: wall-clock time for everything, such as 30m or 2h, split over arms and seeds.
        samples: pictures each arm sees; 0 lets the budget decide.
        num_seeds: at most; a short budget has fewer.
        arms: which take part, of J1 J1r J1x J2 J3 J4 J5 J6 V1 V2 G1 G1m G2 G3 G4 G5 S R PCA PIX; untuned are left out.
        read_outs: "quick" for short runs, "full" with every one there is; "auto" goes by the samples.
        network: the encoder that every arm trains.
        settings: a images.tuned.json to take; otherwise that of a search on these pictures, or the shipped one.
        num_workers: runs at a time; 0 takes one for each core, or one where there is a GPU.
    """
    there = other.pictures(pictures)

    def further(chosen: Sequence[str]) -> list[Further]:
        likely = [Further(bits_per_dimension, num_passed=NUM_JUDGED, arms=WITH_LIKELIHOOD)]
        found = likely if WITH_LIKELIHOOD & {*chosen} else []
        return found if there is None else [*found, judged_there(there, num_samples=FEW_IMAGES)]

    made = LAB.plan(
        pictures,
        tuned(pictures, settings),
        budget=budget,
        samples=samples,
        num_seeds=num_seeds,
        num_workers=num_workers,
        asked=arms,
        read_outs=read_outs,
        network=network,
        further=further,
    )
    notes, contrasts = [*made.notes, *_shrunk(pictures)], made.contrasts
    if network.depth < NUM_JOINED:
        contrasts = [claim for claim in contrasts if claim.metric != JOINED]
        notes.append(f"An encoder of {network.depth} blocks has no last {NUM_JOINED} levels: no contrast reads them.")
    if there is not None:
        notes.append(f"Transfer is judged on {there.open().describe()}")
    return replace(made, notes=notes, contrasts=contrasts, exploratory=explore([*made.arms]))
