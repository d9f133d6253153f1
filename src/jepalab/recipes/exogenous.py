"""Two Rooms with two doors and a light (E5): what an objective throws away may be what decides.

The light changes by chance, with a probability of `flip` at each step, and says which door is open. At 0.5 it cannot be
foretold at all, and an embedding loss has no reason to keep it; a pixel loss keeps it because it is there.
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
from jepalab.recipes.world_lab import METRIC, STEPS, WorldLab, claim, that_apply

LIGHT = "light_accuracy"
ARMS_HERE = ("J1", "J2", "A1", "G1", "G2", "R", "CHANCE", "SIM")
FLIPS = {"flip 0": 0.0, "flip 0.02": 0.02, "flip 0.1": 0.1, "flip 0.5": 0.5}
CONDITIONS = {name: Rooms(light="door", flip=flip) for name, flip in FLIPS.items()} | {
    "idle light": Rooms(light="idle", flip=0.1)
}
WORDS = {
    name: f"a light decides which of two doors is open; it changes with probability {flip:g} at a step"
    for name, flip in FLIPS.items()
} | {"idle light": "both doors are open, and the light means nothing; it changes with probability 0.1 at a step"}
COURSE = Course(
    "How often the light changes",
    "probability that the light changes at a step",
    FLIPS,
    metrics=(LIGHT, METRIC, "position_r2"),
    minor=("flip 0.02", "flip 0.1"),
)
SOURCE = "arXiv 2606.30068"


def declare(competing: set[tuple[str, str]]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    lost = "What cannot be foretold earns an embedding loss nothing; pixels charge for it."
    claims = [
        claim("G1 > J1 | flip 0.5", metric=LIGHT, because=lost, source=SOURCE),
        claim("G1 > A1 | flip 0.5", metric=LIGHT, because="No action tells the light.", source=SOURCE),
        claim("G1 > J1 | flip 0.5", because=lost, source=SOURCE),
        claim(
            "J1 > R | flip 0", metric=LIGHT, because="A light that stays can be foretold, so it is kept.", source=SOURCE
        ),
    ]
    return that_apply(claims, competing)


LAB = WorldLab(
    name="exogenous",
    question="A light that cannot be foretold decides which door is open: which world model keeps it?",
    conditions=CONDITIONS,
    words=WORDS,
    declare=declare,
    tuned_on=dict.fromkeys(("flip 0.02", "flip 0.5", "idle light"), "flip 0.1") | {"flip 0": "flip 0.1"},
    courses=[COURSE],
    notes=[
        "Doors are drawn alike whether open or closed: nothing but the light tells.",
        "The picture of a goal shows the light of another moment, but for a light that never changes.",
    ],
)


def plan(
    planning: Planning,
    *,
    preset: Literal["demo", "full"] = "demo",
    num_seeds: int = 3,
    budget: float = float(STEPS),
    unit: Unit = "steps",
) -> Plan:
    """A light that cannot be foretold decides which door is open: which world model keeps it?

    Args:
        planning: how every agent plans, and on which episodes.
        preset: "demo" takes a light that never changes and one that cannot be foretold; "full" every probability.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
    """
    return LAB.plan(
        arms=ARMS_HERE,
        conditions=("flip 0", "flip 0.5") if preset == "demo" else tuple(CONDITIONS),
        num_seeds=num_seeds,
        budget=budget,
        unit=unit,
        planning=planning,
    )


def tunable() -> Tunable:
    """The search behind the settings: every arm by the goals in the other room that it reaches, in 60 episodes."""
    return LAB.tunable(("flip 0.1",))
