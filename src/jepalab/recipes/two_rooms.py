"""The controlled comparison that nobody published: a JEPA world model and a generative one that plan, all else equal.

Same encoder, dynamics, walks, planner and episodes; only the objective changes (G3 and G4, whose state is the frame,
are trained one step ahead and compare pictures when they plan). On a clean task expect a tie: DINO-WM's own table has
DreamerV3 at 1.00 on its wall, itself at .96 (arXiv 2411.04983).
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
from jepalab.recipes.world_lab import ARMS, MAIN, METRIC, STEPS, WorldLab, claim, that_apply, tie_of_camps

CONDITIONS = {
    "fixed": Rooms(),
    "5,000 walks": Rooms(num_walks=5_000),
    "1,000 walks": Rooms(num_walks=1_000),
    "random door": Rooms(layout="random-door"),
}
WORDS = {
    "fixed": "one wall and one door for all episodes, 20,000 walks",
    "5,000 walks": "as fixed, a quarter of the walks",
    "1,000 walks": "as fixed, a twentieth of the walks",
    "random door": "the door elsewhere in every episode, 20,000 walks",
}
WALKS = Course(
    "Recorded walks",
    "recorded walks to learn from",
    {"1,000 walks": 1_000.0, "5,000 walks": 5_000.0, "fixed": 20_000.0},
    metrics=(METRIC, "cross_end_wide", "geodesic_rank"),
    minor=("1,000 walks", "5,000 walks"),
)


def declare(competing: set[tuple[str, str]]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    shaped = "Its latent is shaped by what follows, not by pixels alone."
    small = "With a small planner EB-JEPA reports 98 % for SIGReg and 81 % for VICReg, walls and doors moving."
    floors = ("J1 > R", "G1 > R", "J1 > J1m", "J1 > CHANCE", "G1 > CHANCE")
    claims = [
        tie_of_camps("fixed"),
        claim("J1 > G2 | fixed", because=shaped, source="PLDM, arXiv 2502.14819"),
        claim("J2 > J1 | random door", because=small, source="EB-JEPA, arXiv 2602.03604"),
        claim(
            "J1 > G1 | 1,000 walks", because="Less to learn of what does not matter.", source="LeWM, arXiv 2603.19312"
        ),
        *(
            claim(
                f"{who} | fixed",
                because="What learned nothing, or nothing of actions, should not arrive.",
                source="every honest table",
            )
            for who in floors
        ),
    ]
    return that_apply(claims, competing)


LAB = WorldLab(
    name="two-rooms",
    question="Which world model plans its way into the other room: one that predicts embeddings, or pixels?",
    conditions=CONDITIONS,
    words=WORDS,
    declare=declare,
    tuned_on=dict.fromkeys(("5,000 walks", "1,000 walks", "random door"), "fixed"),
    courses=[WALKS],
)


def plan(
    planning: Planning,
    *,
    preset: Literal["main", "all", "walks"] = "main",
    num_seeds: int = 3,
    budget: float = float(STEPS),
    unit: Unit = "steps",
) -> Plan:
    """Two rooms and a door: which world model plans its way, one that predicts embeddings or one that predicts pixels?

    Same encoder, dynamics, recorded walks, planner and episodes for every arm, each with its own tuned settings.

    Args:
        planning: how every agent plans, and on which episodes.
        preset: "main" takes the main arms and fixed rooms; "all" every arm, one seed unless told otherwise; "walks"
            fewer recorded walks too, and doors that move.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
    """
    return LAB.plan(
        arms=tuple(ARMS) if preset == "all" else MAIN,
        conditions=tuple(CONDITIONS) if preset == "walks" else ("fixed",),
        num_seeds=num_seeds,
        budget=budget,
        unit=unit,
        planning=planning,
    )


def tunable() -> Tunable:
    """The search behind the settings: every arm by the goals in the other room that it reaches, in 60 episodes."""
    return LAB.tunable(("fixed",))
