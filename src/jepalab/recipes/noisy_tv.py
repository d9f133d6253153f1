"""Two Rooms with a television in the corner (E4): what it shows decides whose world model still plans.

A screen that is new at every frame costs a pixel loss and earns an embedding loss nothing; one that stays for the
episode is the slowest thing in the picture. The goal's picture shows a screen of its own.
"""

from __future__ import annotations

from typing import Literal

from jepalab.compare.cells import Unit
from jepalab.compare.contrasts import Contrast
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.recipes.world_bench import Rooms
from jepalab.recipes.world_judging import Planning
from jepalab.recipes.world_lab import METRIC, STEPS, WorldLab, claim, that_apply, tie_of_camps

ARMS_HERE = ("J1", "J2", "A1", "G1", "G3", "R", "CHANCE", "SIM")
CONDITIONS = {
    "clean": Rooms(),
    "noise 5 %": Rooms(television="noise", screen_share=0.05),
    "noise 10 %": Rooms(television="noise", screen_share=0.1),
    "noise 25 %": Rooms(television="noise", screen_share=0.25),
    "video": Rooms(television="video"),
    "episode": Rooms(television="episode"),
    "data set": Rooms(television="dataset"),
}
WORDS = {
    "clean": "no television",
    "noise 5 %": "a screen on a twentieth of the picture, new at every frame",
    "noise 10 %": "a screen on a tenth of the picture, new at every frame",
    "noise 25 %": "a screen on a quarter of the picture, new at every frame",
    "video": "a screen on a tenth of the picture, each frame goes on from the last",
    "episode": "a screen on a tenth of the picture that stays for the episode",
    "data set": "the same screen always: a harmless control",
}
SHARE = Course(
    "Size of the television",
    "share of the picture that changes by chance",
    {"clean": 0.0, "noise 5 %": 0.05, "noise 10 %": 0.1, "noise 25 %": 0.25},
    metrics=(METRIC, "position_r2", "geodesic_rank"),
    minor=("noise 5 %",),
)
SOBAL = "Sobal et al. 2022, arXiv 2211.10831"
TUNED_ON = {"noise 5 %": "noise 10 %", "noise 25 %": "noise 10 %", "video": "noise 10 %", "data set": "clean"}


def declare(competing: set[tuple[str, str]]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    noise = "What cannot be foretold is most of a pixel error and none of an embedding's."
    slow = "What stays is the slowest thing there is, and slowness is what these embeddings are asked for."
    told = "The action says nothing of a screen."
    claims = [
        tie_of_camps("clean"),
        claim("J1 > G1 | noise 10 %", because=noise, source=SOBAL),
        claim("J1 > G1 | noise 25 %", because=noise, source=SOBAL),
        claim("G1 > J1 | episode", because=slow, source=SOBAL),
        claim("A1 > J1 | episode", because=told, source=f"{SOBAL}; PLDM, 2502.14819"),
    ]
    return that_apply(claims, competing)


LAB = WorldLab(
    name="noisy-tv",
    question="With a television in the room, whose world model still finds the door: embeddings, or pixels?",
    conditions=CONDITIONS,
    words=WORDS,
    declare=declare,
    tuned_on=TUNED_ON,
    courses=[SHARE],
    notes=["The picture of a goal shows a screen of its own: what it showed when the goal was photographed."],
)


def plan(
    planning: Planning,
    *,
    preset: Literal["demo", "full"] = "demo",
    num_seeds: int = 3,
    budget: float = float(STEPS),
    unit: Unit = "steps",
) -> Plan:
    """With a television in the room, whose world model still finds the door: embeddings, or pixels?

    Args:
        planning: how every agent plans, and on which episodes.
        preset: "demo" takes a clean room, a noisy screen and one that stays; "full" every screen.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
    """
    return LAB.plan(
        arms=ARMS_HERE,
        conditions=("clean", "noise 10 %", "episode") if preset == "demo" else tuple(CONDITIONS),
        num_seeds=num_seeds,
        budget=budget,
        unit=unit,
        planning=planning,
    )


def tunable() -> Tunable:
    """The search behind the settings: every arm by the goals in the other room that it reaches, in 60 episodes."""
    return LAB.tunable(("clean", "noise 10 %", "episode"))
