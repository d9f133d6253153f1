"""The sensor lab: predicting embeddings or raw numbers of series, on your own or on people's activities (HAPT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from jepalab.compare.advice import advise
from jepalab.compare.cells import Budget, Cell, Judging
from jepalab.compare.contrasts import Better, Contrast
from jepalab.compare.grid import Plan
from jepalab.compare.metrics import IMAGES
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
from jepalab.recipes.entries import buy, caveats, choose, read_tuned
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.recipes.series_bench import SERIES_NETWORK, Recordings, SeriesBench
from jepalab.run import Run

METRIC, CONDITION, SEARCH = "linear", "windows", "jepalab tune sensors"
BATCH, TRIAL_STEPS = 128, 500
SHARED = (Knob("lr", 3e-4, 3e-3), Knob("weight_decay", 1e-3, 2e-1))
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
    "G2": Arm("Next step", series_arms.series_next_patch, NUMBERS),
    "S": Arm("Supervised (ceiling)", series_arms.series_classifier, Knob("warmup", 0.02, 0.3)),
    "R": Arm("Random encoder (floor)", series_arms.random_series_vit),
    "RAW": Arm("Raw window (floor)", series_arms.raw_window),
    "HAND": Arm("Hand-made features (floor)", series_arms.hand_made),
}
MAIN = tuple(ARMS)


def judging(read_outs: Literal["trial", "full"]) -> Judging:
    """How cells are judged: "trial" ranks settings; "full" reads out every way there is."""
    if read_outs == "trial":
        few = partial(labelled_subjects, num_samples=TRIAL_WINDOWS)
        return Judging(instruments=(frozen_linear,), curve=(), curve_at=(), subjects=few)
    return Judging(
        instruments=(recognition, layer_sweep, label_efficiency, sample_geometry),
        of_the_first=(attentive, finetuning, finetuning_shots),
        curve=(frozen_linear,),
        curve_at=(0.1, 0.25, 0.5),
        subjects=labelled_subjects,
    )


def declare(arms: Sequence[str]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    masked = "Both hide parts of the window; only what is compared differs."
    timely = "Both predict what comes; only what is compared differs."
    floor = "A floor that learns nothing is part of every honest table."
    claims = [
        _better("J4 > G1 | linear", masked, f"{ASSRAN}, table 1, carried over from pictures"),
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
    name = f"{ARMS[better].label} beats {ARMS[than].label}, {IMAGES.get(metric, 'fine-tuned with 5 labels a class')}"
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
    default = Schedule(steps=steps, batch_size=BATCH)
    shared = {name: settings[name] for name in ("lr", "weight_decay") if name in settings}
    private = {name: value for name, value in settings.items() if name not in shared}
    bench = SeriesBench(recordings=world, network=network, schedule=replace(default, **shared), seed=seed)
    return ARMS[arm].make(bench, **private)


def tunable(recordings: Recordings) -> Tunable:
    """The search behind the sensor lab's settings: every arm by linear accuracy on validation.

    Args:
        recordings: where the series come from.
    """
    recordings = recordings.named()
    return Tunable(
        name="sensors",
        knobs={name: arm.knob for name, arm in ARMS.items() if arm.knob},
        worlds={CONDITION: recordings},
        make=make_run,
        judging=judging("trial"),
        metric="linear_validation",
        conditions=(CONDITION,),
        trial_steps=TRIAL_STEPS,
        shared=SHARED,
        facts={"data": recordings.open().source},
    )


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
) -> Plan:
    """Masked and predictive JEPAs against reconstruction and prediction of raw series: whose features serve you best?

    Same encoder, windows, order of samples and number of samples for every arm, each with its own tuned settings. All
    windows train, those without a label too; no person (group) is in two splits.

    Args:
        recordings: where the series come from.
        budget: wall-clock time for everything, such as 30m or 2h, split over arms and seeds.
        samples: windows each arm sees; 0 lets the budget decide.
        num_seeds: at most; a short budget has fewer.
        arms: which take part, of J1 J2 J3 J4 G1 G2 S R RAW HAND; untuned ones are left out.
        patch: rows of a patch; it divides the window.
        width: of the encoder's tokens.
        depth: blocks of the encoder.
    """
    recordings, network = recordings.named(), replace(SERIES_NETWORK, patch=patch, width=width, depth=depth)
    series, found = recordings.open(), tuned()
    known = found["conditions"][CONDITION]
    chosen = choose(arms, ARMS, known, samples=series, search=SEARCH)
    settings = {arm: known[arm]["settings"] if arm in known else {} for arm in chosen}
    make = {
        arm: partial(make_run, arm=arm, world=recordings, settings=settings[arm], network=network) for arm in chosen
    }
    seeds, notes = num_seeds, caveats(found, arms, chosen, search=SEARCH, noun="windows")
    if not samples:
        allowance = buy(
            budget,
            make={arm: make[arm] for arm in chosen if ARMS[arm].knob},
            samples=series,
            most_seeds=num_seeds,
            key=f"{series.sample_shape} {network} {BATCH}",
            cache=recordings.cache,
            batch_size=BATCH,
            noun="windows",
        )
        samples, seeds, notes = allowance.samples, allowance.num_seeds, [*allowance.notes, *notes]
    labels = {arm: ARMS[arm].label for arm in chosen}
    return Plan(
        name="sensors",
        question=f"Frozen features of {series.source}: does predicting embeddings serve better than raw numbers?",
        cells=[Cell(arm, CONDITION, make[arm]) for arm in chosen],
        seeds=range(seeds),
        budget=Budget(samples, "samples"),
        judging=judging("full"),
        contrasts=declare(chosen),
        arms=labels,
        conditions={CONDITION: f"{len(series):,} windows of {series.num_times} rows, {series.num_classes} classes"},
        metrics=IMAGES,
        noun="windows",
        conclude=partial(advise, arms=labels, condition=CONDITION, metric=METRIC, name=IMAGES[METRIC]),
        notes=[*notes, series.describe()],
        settings={
            "tuning": {k: v for k, v in found.items() if k != "conditions"},
            "conditions": {CONDITION: {arm: known[arm] for arm in chosen if arm in known}},
        },
    )


def tuned() -> dict[str, Any]:
    """What the recorded search chose, and how it went."""
    return read_tuned("sensors", CONDITION)
