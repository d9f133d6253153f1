"""Violation of expectation: who is surprised by what cannot happen, and who by any change? (E6, IntPhys in miniature).

A pixel model notices that something vanished because pixels change; pairs here change their pixels alike. A nuisance
that nobody can foretell costs pixels. Legal changes break no law and should alarm nobody who knows the laws; but no
training clip has them either, so that an alarm may be about what is new as well as about what is impossible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from jepalab.compare.cells import Budget, Cell, Judging, Unit
from jepalab.compare.contrasts import Better, Contrast
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.surprise_pictures import draw_surprise, draw_trials
from jepalab.compare.tune import Arm, Choice, Knob, Tunable
from jepalab.recipes import surprise_arms, surprise_generative
from jepalab.recipes.settings import entries, read_settings, say_where
from jepalab.recipes.surprise_arms import ExpectationBench, ExpectationTraining, OccludedWorld
from jepalab.recipes.surprise_floors import expectation, expecting_subjects, make_floor
from jepalab.run import Run

STEPS, TRIAL_STEPS = 1500, 500
METRIC = "surprise_accuracy"
GOALS = (0.75,)  # of the pairs: what it cost to get there is told
ARMS: dict[str, Arm] = {
    "J1": Arm("JEPA + VICReg", surprise_arms.expect_embedding_vicreg, Knob("spread", 0.1, 10.0)),
    "J2": Arm("JEPA + SIGReg", surprise_arms.expect_embedding_sigreg, Knob("sigreg", 0.01, 1.0)),
    "J3": Arm(
        "JEPA + EMA teacher", surprise_arms.expect_embedding_ema, Knob("momentum", 0.9, 0.999, scale="one minus")
    ),
    "J4": Arm(
        "V-JEPA, past to future",
        surprise_arms.expect_hidden_embedding,
        Knob("momentum", 0.98, 0.9995, scale="one minus"),
    ),
    "G1": Arm("Masked future pixels", surprise_arms.expect_hidden_pixels, Choice("target", ("pixels", "norm-pixels"))),
    "G2": Arm("Next-frame pixels", surprise_arms.expect_pixels, Knob("width", 8, 32, scale="power of two")),
    "G3": Arm(
        "Next frames, denoised",
        surprise_generative.expect_noise,
        Choice("predict", ("velocity", "noise", "clean")),
    ),
    "G4": Arm("Next token", surprise_generative.expect_tokens, Knob("num_bins", 4, 32, scale="power of two")),
    "COPY": Arm("Copy last frame (floor)", partial(make_floor, name="copy last frame")),
    "VEL": Arm("Pixel velocity (floor)", partial(make_floor, name="pixel velocity")),
    "R": Arm("20 untrained frame models (floor)", partial(make_floor, name="untrained frames")),
    "Rg": Arm("20 untrained frame models, pixels (floor)", partial(make_floor, name="untrained frames, pixels")),
    "Rv": Arm("20 untrained clip models (floor)", partial(make_floor, name="untrained clips")),
    "Rvg": Arm("20 untrained clip models, pixels (floor)", partial(make_floor, name="untrained clips, pixels")),
    "INERT": Arm("Constant velocity, told (floor)", partial(make_floor, name="constant velocity")),
    "PHYS": Arm("Physics, told (ceiling)", partial(make_floor, name="physics")),
}
CONDITIONS: dict[str, OccludedWorld] = {
    "clean": OccludedWorld(),
    "tv 0.5": OccludedWorld(strength=0.5),
    "tv 1": OccludedWorld(strength=1.0),
    "tv 2": OccludedWorld(strength=2.0),
    "wallpaper 1": OccludedWorld(strength=1.0, persistence=1.0),
}
TUNED_ON = {"tv 0.5": "tv 1", "tv 2": "tv 1", "wallpaper 1": "tv 1"}
DEMO_CONDITIONS = ("clean", "tv 1")
COURSE = Course(
    "Strength of the television",
    "strength of what nobody can foretell",
    {"clean": 0.0, "tv 0.5": 0.5, "tv 1": 1.0, "tv 2": 2.0},
    metrics=(METRIC, "permanence_accuracy", "alarm"),
    minor=("tv 0.5", "tv 2"),
)
METRICS = {
    METRIC: "pairs told apart",
    "permanence_accuracy": "permanence",
    "continuity_accuracy": "continuity",
    "solidity_accuracy": "solidity",
    "shape_accuracy": "shape",
    "gravity_accuracy": "gravity",
    "best_of_untrained": "best of 20 untrained",
    "untrained_95": "95th percentile of 20 untrained",
    "alarm": "false alarms (0.5 is chance)",
    "flicker_alarm": "alarmed by a flicker (copying: 1)",
    "look_auroc": "AUROC, shape over look",
    "background_auroc": "AUROC, vanished over background",
    "blink_accuracy": "blink over flicker",
    "latent_surprise_accuracy": "pairs told apart, in its own latent",
    "straightness": "straightness",
}
GARRIDO = "Garrido et al. 2025, arXiv 2502.11831: on IntPhys V-JEPA 98 %, pixel prediction near chance"


def declare(competing: Sequence[tuple[str, str]]) -> list[Contrast]:
    """The contrasts that were declared before any final seed ran, where both their arms compete under the condition."""
    latent = "What is hidden is carried by a state, and a JEPA is trained to keep a state that foretells."
    noisy = "What nobody can foretell is most of a pixel error, and none of an embedding's."
    change = "Pixels are surprised by any change of pixels; a code need not hold them."
    slow = "A code that holds what stays is alarmed when it changes."
    hope = "What learned nothing should not tell them apart."
    beyond = f"{hope} Untrained networks spread: 19 of 20 stay below what is to be beaten."
    claims: list[Better] = [
        _better("J1 > G2 | surprise_accuracy | clean", latent, GARRIDO),
        _better("J4 > G1 | surprise_accuracy | clean", latent, GARRIDO),
        _better("J1 > G2 | permanence_accuracy | tv 1", noisy, f"{GARRIDO}; arXiv 2505.12477"),
        _better("J4 > G1 | permanence_accuracy | tv 1", noisy, f"{GARRIDO}; arXiv 2505.12477"),
        _better("G2 > J1 | alarm | tv 1", change, "arXiv 2505.12477"),
        _better("J1 > G2 | alarm | wallpaper 1", slow, "Sobal et al. 2022, arXiv 2211.10831"),
        _better("J1 > R | surprise_accuracy | clean", beyond, GARRIDO, than_metric="untrained_95"),
        _better("J4 > Rv | surprise_accuracy | clean", beyond, GARRIDO, than_metric="untrained_95"),
        _better("G2 > Rg | surprise_accuracy | clean", beyond, "every honest table", than_metric="untrained_95"),
        _better("G1 > Rvg | surprise_accuracy | clean", beyond, "every honest table", than_metric="untrained_95"),
        _better("J1 > COPY | surprise_accuracy | clean", hope, "every honest table"),
        _better("G2 > COPY | surprise_accuracy | clean", hope, "every honest table"),
    ]
    pairs = {*competing}
    return [c for c in claims if {(c.better, c.condition), (c.than, c.condition)} <= pairs]


def _better(claim: str, because: str, source: str, *, than_metric: str = "") -> Better:
    """A contrast out of "better > than | metric | condition"."""
    arms, metric, condition = claim.split(" | ")
    better, than = arms.split(" > ")
    what = "is alarmed more than" if metric == "alarm" else "tells more pairs apart than"
    where = condition if metric in ("alarm", METRIC) else f"{METRICS[metric]}, {condition}"
    return Better(
        f"{ARMS[better].label} {what} {ARMS[than].label}, {where}",
        better=better,
        than=than,
        metric=metric,
        condition=condition,
        because=because,
        source=source,
        than_metric=than_metric,
    )


def make_run(seed: int, *, arm: str, world: OccludedWorld, settings: Mapping[str, Any], steps: int = STEPS) -> Run:
    """The run of one arm in one world with the given lr, weight_decay and private knob."""
    shared = {name: value for name, value in settings.items() if name in ("lr", "weight_decay")}
    private = {name: value for name, value in settings.items() if name not in shared}
    training = replace(ExpectationTraining(steps=steps), **shared)
    return ARMS[arm].make(ExpectationBench(world=world, training=training, seed=seed), **private)


def tunable() -> Tunable:
    """The search behind the surprise experiment's settings: every arm by pairs told apart on validation."""
    return Tunable(
        name="surprise",
        knobs={name: arm.knob for name, arm in ARMS.items() if arm.knob},
        worlds=CONDITIONS,
        make=make_run,
        judging=Judging(instruments=(expectation,), curve=(), curve_at=(), subjects=expecting_subjects),
        metric="validation_surprise_accuracy",
        conditions=DEMO_CONDITIONS,
        trial_steps=TRIAL_STEPS,
    )


def read_tuned() -> dict[str, Any]:
    """What the recorded search chose, and how it went; no settings where there was none."""
    return read_settings("surprise")


def plan(
    *,
    preset: Literal["demo", "full"] = "demo",
    num_seeds: int = 3,
    budget: float = float(STEPS),
    unit: Unit = "steps",
) -> Plan:
    """Who is surprised by the impossible: models that expect embeddings, or models that expect pixels?

    Matched pairs of possible and impossible clips of five concepts, and legal changes, which no model saw in training.

    Args:
        preset: "demo" takes clean clips and a television; "full" also its strengths and a wallpaper.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (clips seen), flops (of training) or seconds (on this machine).
    """
    found = read_tuned()
    names = DEMO_CONDITIONS if preset == "demo" else tuple(CONDITIONS)
    known = {name: entries(found, name, ARMS, tuned_on=TUNED_ON.get(name)) for name in names}
    cells = [
        Cell(
            arm,
            name,
            partial(make_run, arm=arm, world=CONDITIONS[name], settings=known[name].get(arm, {}).get("settings", {})),
        )
        for name in names
        for arm, made in ARMS.items()
        if made.knob is None or arm in known[name]
    ]
    competing = [arm for arm in ARMS if any(cell.arm == arm for cell in cells)]
    if not any(ARMS[arm].knob for arm in competing):
        raise ValueError(
            "No arm has tuned settings, and untuned arms do not compete: run `jepalab tune surprise` first."
        )
    return Plan(
        name=f"surprise-{preset}",
        question="Who is surprised by the impossible: models that expect embeddings, or models that expect pixels?",
        cells=cells,
        seeds=range(num_seeds),
        budget=Budget(budget, unit),
        judging=Judging(
            instruments=(expectation,),
            curve=(expectation,),
            draw=partial(draw_surprise, seed=0),
            subjects=expecting_subjects,
        ),
        illustrate=partial(draw_trials, {name: CONDITIONS[name].stream(0) for name in names}),
        contrasts=declare([(cell.arm, cell.condition) for cell in cells]),
        arms={arm: ARMS[arm].label for arm in competing},
        conditions={name: _describe(CONDITIONS[name]) for name in names},
        metrics=METRICS,
        goals=GOALS,
        courses=[COURSE] if preset == "full" else [],
        notes=[
            "Pairs share everything before the violation and change their pixels alike, so that copying the last frame "
            "tells none of them apart. 0.5 is chance.",
            "False alarms are about legal changes (of the background, a shape's colour, the light). They break no law, "
            "but no training clip has them: an alarm there is about what is new, and nothing here tells that from a "
            "wrong law. Read them beside the same number of other arms, not against an ideal.",
            *say_where(found),
        ],
        settings={
            "tuning": {k: v for k, v in found.items() if k != "conditions"},
            "conditions": known,
        },
    )


def _describe(world: OccludedWorld) -> str:
    if not world.strength:
        return "shapes behind occluders, nothing else"
    kind = "a wallpaper that stays for the clip" if world.persistence == 1 else "a television new at every frame"
    return f"{kind}, strength {world.strength:g}"
