"""Two Rooms with two doors and a light (E5): what an objective throws away may be what decides.

The light changes by chance, with a probability of `flip` at each step, and says which door is open. At 0.5 it cannot be
foretold at all, and an embedding loss has no reason to keep it; a pixel loss keeps it because it is there.

Slowness drives such a light out as well, and harder. A dimension that is a for on and -a for off costs the prediction
4q(1 - q)a² at flip q, since the best guess is its mean, and slowness 4qa² times its weight w: at 0.5 that is 2w times
what prediction costs. So J1-S and G1-S do without, with the other settings of J1 and G1; what J1-S keeps less than G1-S
is the target's doing.

What is kept is read from embeddings at every flip. What it is good for is asked at 0.02, where the light stays for
about 50 steps, longer than the 28 pixels from door to door take. At 0.5 it is drawn anew at every step, so that it
decides nothing: to push at any door is best. Even at 0.02 an agent that knows nothing of the light passes, if it waits,
so that steps until the goal are counted too. Where each draw stays for eight steps ("held") it can be foretold within
them.

Beside the usual width of embeddings there is a quarter of it. G2 is the arm whose encoder was trained by auto-encoding
alone. Lights that the agent changes, by stepping onto them, can be foretold from what it does. J1 is also told the
rewards of some of the walks: nearness to the door that is open. A few should bring the light back, and not what changes
by chance beside it, which a television tests (arXiv 2606.30068).
"""

from __future__ import annotations

from typing import Literal

from jepalab.compare.cells import Unit
from jepalab.compare.contrasts import Better, Contrast, Equivalent
from jepalab.compare.courses import Course
from jepalab.compare.further_contrasts import Rises, StaysBelow
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.recipes.world_arms import ARMS, METRIC, METRICS, REWARDED
from jepalab.recipes.world_bench import Rooms, WorldNetwork
from jepalab.recipes.world_judging import Planning
from jepalab.recipes.world_lab import STEPS, WorldLab, claim, that_apply
from jepalab.recipes.world_tests import steps_taken, with_a_tenth

LIGHT, TAKEN = "light_accuracy", "cross_mean_steps"
ARMS_HERE = ("J1", "J1-S", *REWARDED, "J2", "A1", "G1", "G1-S", "G2", "R", "CHANCE", "SIM")
FLIPS = {"flip 0": 0.0, "flip 0.02": 0.02, "flip 0.1": 0.1, "flip 0.5": 0.5}
CONDITIONS = {name: Rooms(light="door", flip=flip) for name, flip in FLIPS.items()} | {
    "idle light": Rooms(light="idle", flip=0.5),
    "switch": Rooms(light="door-switch"),
    "idle switch": Rooms(light="idle-switch"),
    "flip 0.5, held": Rooms(light="door", flip=0.5, hold=8),
    "flip 0.5, narrow": Rooms(light="door", flip=0.5),
    "flip 0.5, television": Rooms(light="door", flip=0.5, television="noise", screen_share=0.05),
}
NARROW = WorldNetwork(dim=16)
WORDS = {
    name: f"a light decides which of two doors is open; it changes with probability {flip:g} at a step"
    for name, flip in FLIPS.items()
} | {
    "idle light": "both doors are open, and the light means nothing; it changes with probability 0.5 at a step",
    "switch": "a light decides which of two doors is open; the agent changes it by stepping onto it, and nothing else",
    "idle switch": "both doors are open; the agent changes a light that means nothing, by stepping onto it",
    "flip 0.5, held": "as flip 0.5, but the light is drawn every eighth step",
    "flip 0.5, television": "as flip 0.5, with a screen on a twentieth of the picture, new at every frame",
    "flip 0.5, narrow": f"as flip 0.5, with embeddings of {NARROW.dim} numbers",
}
COURSE = Course(
    "How often the light changes",
    "probability that the light changes at a step",
    FLIPS,
    metrics=(LIGHT, METRIC, TAKEN, "position_r2"),
    minor=("flip 0.02", "flip 0.1"),
)
SOURCE = "arXiv 2606.30068"


DROPPED = "What cannot be foretold earns an embedding loss nothing; pixels charge for it."
TOLD = "A reward that hangs on the light charges for it, and for nothing else that cannot be foretold."


def declare(competing: set[tuple[str, str]]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    slow = "What changes at every second step is what slowness charges most for."
    claims = [
        claim("G1 > J1 | flip 0.5", metric=LIGHT, because=DROPPED, source=SOURCE),
        claim("G1-S > J1-S | flip 0.5", metric=LIGHT, because=f"{DROPPED} Neither has slowness.", source=SOURCE),
        claim("J1-S > J1 | flip 0.5", metric=LIGHT, because=slow, source="at the head of this recipe"),
        StaysBelow(
            "J1 does not know a light that cannot be foretold: below 0.9, flip 0.5",
            arm="J1",
            metric=LIGHT,
            condition="flip 0.5",
            threshold=0.9,
            because=f"{DROPPED} Above it, the hypothesis falls.",
            source=SOURCE,
        ),
        Rises(
            "J1 knows a light that never changes better than one that cannot be foretold",
            arm="J1",
            metric=LIGHT,
            condition="flip 0",
            other="flip 0.5",
            because="What stays can be foretold, so it is kept.",
            source=SOURCE,
        ),
        claim("J1+2% > J1 | flip 0.5", metric=LIGHT, because=TOLD, source=SOURCE),
        Equivalent(
            f"{ARMS['J1+2%'].label}: no more of a television, flip 0.5, television",
            better="J1+2%",
            than="J1",
            metric="television_r2",
            condition="flip 0.5, television",
            margin=0.05,
            because=TOLD,
            source=SOURCE,
        ),
        claim("G1 > J1 | flip 0.02", because=DROPPED, source=SOURCE),
        claim("J1+2% > J1 | flip 0.02", because=TOLD, source=SOURCE),
    ]
    return that_apply(claims, competing)


def explore(competing: set[tuple[str, str]]) -> list[Contrast]:
    """Further contrasts, whose numbers are told without a verdict; those that apply here."""
    claims = [
        claim("G1 > A1 | flip 0.5", metric=LIGHT, because="No action tells the light.", source=SOURCE),
        claim("G2 > J1 | flip 0.5", metric=LIGHT, because="It is there, so it is encoded.", source=SOURCE),
        claim("G1 > J1 | flip 0.5, narrow", metric=LIGHT, because=DROPPED, source=SOURCE),
        claim("G1 > J1 | idle light", metric=LIGHT, because=f"{DROPPED} It means nothing here.", source=SOURCE),
        claim("J1+2% > J1 | flip 0.5, television", metric=LIGHT, because=TOLD, source=SOURCE),
        Better(
            "Who does not see the light takes longer, flip 0.02",
            better="J1",
            than="G1",
            metric=TAKEN,
            condition="flip 0.02",
            because="It has to wait at a door that is closed.",
            source=SOURCE,
        ),
    ]
    return that_apply(claims, competing)


LAB = WorldLab(
    name="exogenous",
    question="A light that cannot be foretold decides which door is open: which world model keeps it?",
    conditions=CONDITIONS,
    words=WORDS,
    declare=declare,
    explore=explore,
    tuned_on=dict.fromkeys({*CONDITIONS} - {"flip 0.1"}, "flip 0.1"),
    metrics={METRIC: METRICS[METRIC], LIGHT: METRICS[LIGHT], TAKEN: "mean steps, other room"} | METRICS,
    tests=(with_a_tenth, steps_taken),
    networks={"flip 0.5, narrow": NARROW},
    courses=[COURSE],
    notes=[
        "Doors are drawn alike whether open or closed: nothing but the light tells.",
        "The picture of a goal shows the light of another moment where chance changes it, otherwise that of the start.",
        "J1+2%, J1+10% and J1+100% have J1's settings and a reward weight of 1, J1-S and G1-S those of J1 and G1 but "
        "for the slowness: nothing was searched for them.",
        "At flip 0.5 the light says nothing of the next step; what it is good for is asked at flip 0.02.",
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
        preset: "demo" takes lights that never change, that stay for about 50 steps and that cannot be foretold; "full"
            every probability, lights that are held, that the agent changes or that mean nothing, a television beside
            the light, and narrow embeddings.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
    """
    return LAB.plan(
        arms=ARMS_HERE,
        conditions=("flip 0", "flip 0.02", "flip 0.5") if preset == "demo" else tuple(CONDITIONS),
        num_seeds=num_seeds,
        budget=budget,
        unit=unit,
        planning=planning,
    )


def tunable() -> Tunable:
    """The search behind the settings: every arm by the goals in the other room that it reaches, in 60 episodes."""
    return LAB.tunable(("flip 0.1",))
