"""The sensor lab: predicting embeddings or raw numbers of series, on your own or on people's activities (HAPT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jepalab.backbones.positions import Positions
from jepalab.compare.cells import Judging
from jepalab.compare.contrasts import Better, Contrast
from jepalab.compare.grid import Plan
from jepalab.compare.metrics import RECOGNITION
from jepalab.compare.series_pictures import draw_series_cell
from jepalab.compare.tune import Arm, Choice, Knob, Tunable
from jepalab.data.sprites import Split
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.finetuning_shots import finetuning_shots
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import labelled_subjects
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.recognition import frozen_linear, recognition
from jepalab.instruments.sample_geometry import sample_geometry
from jepalab.recipes import series_arms
from jepalab.recipes.lab import Lab, ReadOuts, split_settings
from jepalab.recipes.patch_bench import Network
from jepalab.recipes.series_bench import SERIES_NETWORK, Recordings, SeriesBench
from jepalab.run import Run

CONDITION = "windows"
BATCH, TRIAL_STEPS = 128, 500
TRIAL_WINDOWS: Mapping[Split, int] = {"train": 50_000, "validation": 10_000, "test": 2}  # test plays no part
SOBAL = "Sobal et al. 2022, arXiv 2211.10831"
ASSRAN = "Assran et al. 2023, arXiv 2301.08243"

NUMBERS = Choice("target", ("pixels", "norm-pixels"))
ARMS: dict[str, Arm] = {
    "J1": Arm("JEPA to the future + VICReg", series_arms.series_vicreg, Knob("spread", 0.01, 1.0)),
    "J2": Arm("JEPA to the future + SIGReg", series_arms.series_sigreg, Knob("sigreg", 0.001, 0.1)),
    "J3": Arm(
        "JEPA to the future, EMA",
        partial(series_arms.series_jepa, masks="causal"),
        Knob("momentum", 0.98, 0.9995, scale="one minus"),
    ),
    "J4": Arm("Masked JEPA", series_arms.series_jepa, Knob("momentum", 0.98, 0.9995, scale="one minus")),
    "G1": Arm("Masked reconstruction", series_arms.series_mae, Knob("hidden", 0.25, 0.75)),
    "G1m": Arm("Reconstruction of the JEPA's spans", partial(series_arms.series_mae, masks="blocks"), NUMBERS),
    "G2": Arm("Next step", series_arms.series_next_patch, NUMBERS),
    "S": Arm("Supervised (ceiling)", series_arms.series_classifier, Knob("rising", 0.02, 0.3)),
    "R": Arm("Random encoder (floor)", series_arms.random_series_vit),
    "RAW": Arm("Raw window (floor)", series_arms.raw_window),
    "HAND": Arm("Hand-made features (floor)", series_arms.hand_made),
}
MAIN = tuple(ARMS)


def judging(read_outs: ReadOuts) -> Judging:
    """How cells are judged: "trial" ranks settings; "full" reads out every way there is."""
    if read_outs == "trial":
        few = partial(labelled_subjects, num_samples=TRIAL_WINDOWS)
        return Judging(instruments=(frozen_linear,), curve=(), curve_at=(), subjects=few)
    return Judging(
        instruments=(recognition, layer_sweep, label_efficiency, sample_geometry),
        of_the_first=(attentive, finetuning, finetuning_shots),
        curve=(frozen_linear,),
        curve_at=(0.1, 0.25, 0.5),
        draw=partial(draw_series_cell, seed=0),
        subjects=labelled_subjects,
    )


def declare(arms: Sequence[str]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    twins = "Both hide the same spans of the window; only what is compared differs."
    masked = "Both hide parts of the window; what is compared and what is hidden (spans or random patches) differ."
    timely = "Both predict what comes; what is compared, what is seen, how far ahead, and the head differ."
    floor = "A floor that learns nothing is part of every honest table."
    claims = [
        _better("J4 > G1 | linear", masked, f"{ASSRAN}, table 1, carried over from pictures"),
        _better("J4 > G1m | linear", twins, f"{ASSRAN}, table 7, carried over from pictures"),
        _better("J1 > G2 | linear", timely, f"{SOBAL}, carried over from video"),
        _better("G1 > J4 | finetuned", masked, f"{ASSRAN}, table 15, carried over from pictures"),
        _better("J4 > R | linear", floor, "what any pretraining has to do"),
        _better("J4 > RAW | linear", floor, "what any pretraining has to do"),
        _better("J4 > HAND | linear", "What a network finds should beat what was thought of.", "what one hopes for"),
        _better("J4 > R | finetuned_shot_5", "Unlabelled windows help where labels are few.", f"{ASSRAN}, table 2"),
    ]
    return [claim for claim in claims if {claim.better, claim.than} <= set(arms)]


def _better(claim: str, because: str, source: str) -> Better:
    """A contrast out of "better > than | metric"."""
    arms, metric = claim.split(" | ")
    better, than = arms.split(" > ")
    name = (
        f"{ARMS[better].label} beats {ARMS[than].label}, {RECOGNITION.get(metric, 'fine-tuned with 5 labels a class')}"
    )
    return Better(name, better=better, than=than, metric=metric, condition=CONDITION, because=because, source=source)


def make_run(
    seed: int,
    *,
    arm: str,
    world: Recordings,
    settings: Mapping[str, Any],
    network: Network = SERIES_NETWORK,
    steps: int = 1000,
) -> Run:
    """The run of one arm on these windows with the given lr, weight_decay and private knob."""
    schedule, private = split_settings(settings, steps=steps, batch_size=BATCH)
    return ARMS[arm].make(SeriesBench(recordings=world, network=network, schedule=schedule, seed=seed), **private)


LAB = Lab(
    name="sensors",
    condition=CONDITION,
    noun="windows",
    rivals="predicting raw numbers",
    arms=ARMS,
    make_run=make_run,
    judging=judging,
    declare=declare,
    batch_size=BATCH,
    trial_steps=TRIAL_STEPS,
    full_from=0,
)


def tunable(recordings: Recordings) -> Tunable:
    """The search behind the sensor lab's settings: every arm by linear accuracy on validation.

    Args:
        recordings: where the series come from.
    """
    return LAB.tunable(recordings)


def tuned(recordings: Recordings, file: Path | None = None) -> dict[str, Any]:
    """What the search on these chose or else the shipped one, or what the file says; and how it went."""
    return LAB.tuned(recordings, file)


def plan(
    recordings: Recordings,
    *,
    budget: str = "30m",
    samples: int = 0,
    num_seeds: int = 3,
    arms: tuple[str, ...] = MAIN,
    patch: int = SERIES_NETWORK.patch,
    width: int = SERIES_NETWORK.width,
    depth: int = SERIES_NETWORK.depth,
    settings: Path | None = None,
    positions: Positions = SERIES_NETWORK.positions,
    num_workers: int = 0,
) -> Plan:
    """Masked and predictive JEPAs against reconstruction and prediction of raw series: whose features serve you best?

    Same encoder, windows, order of samples and number of samples for every arm, each with its own tuned settings. All
    windows train, those without a label too; no person (group) is in two splits.

    Args:
        recordings: where the series come from.
        budget: wall-clock time for everything, such as 30m or 2h, split over arms and seeds.
        samples: windows each arm sees; 0 lets the budget decide.
        num_seeds: at most; a short budget has fewer.
        arms: which take part, of J1 J2 J3 J4 G1 G1m G2 S R RAW HAND; untuned ones are left out.
        patch: rows of a patch; it divides the window.
        width: of the encoder's tokens.
        depth: blocks of the encoder.
        settings: a sensors.tuned.json to take; otherwise that of a search on these series, or the shipped one.
        positions: how tokens know their places: "sincos" codes, "rope", or "rope-tiled" as V-JEPA 2 released it.
        num_workers: runs at a time; 0 takes one for each core, or one where there is a GPU.
    """
    return LAB.plan(
        recordings,
        tuned(recordings, settings),
        budget=budget,
        samples=samples,
        num_seeds=num_seeds,
        num_workers=num_workers,
        asked=arms,
        read_outs="full",
        network=replace(SERIES_NETWORK, patch=patch, width=width, depth=depth, positions=positions),
    )
