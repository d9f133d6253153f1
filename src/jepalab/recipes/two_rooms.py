"""The controlled comparison that nobody published: a JEPA world model and a generative one that plan, all else equal.

Same encoder, dynamics, walks, planner and episodes; only the objective changes. J1, J2 and J3 are also asked for the
action between two embeddings (inverse dynamics), which no pixel arm is: J1-A1 is J1 without, so that it and G1 differ
in what they predict alone. G3 and G4, whose state is the frame, are trained one step ahead and compare pictures when
they plan. On a clean task expect a tie: DINO-WM's own table has DreamerV3 at 1.00 on its wall, itself at .96 (arXiv
2411.04983).
"""

from __future__ import annotations

from typing import Literal

from jepalab.compare.cells import Unit
from jepalab.compare.contrasts import Contrast
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.recipes.stored_encoder import StoredEncoder
from jepalab.recipes.world_arms import ARMS, LOST, MAIN, METRIC, METRICS, REWARDED
from jepalab.recipes.world_bench import DynamicsName, Rooms
from jepalab.recipes.world_judging import Planning
from jepalab.recipes.world_lab import STEPS, WorldLab, claim, that_apply, tie_of_camps
from jepalab.recipes.world_tests import unseen, with_a_tenth

EQUAL = "fixed, equal compute"
CONDITIONS = {
    "fixed": Rooms(),
    "5,000 walks": Rooms(num_walks=5_000),
    "1,000 walks": Rooms(num_walks=1_000),
    "random door": Rooms(layout="random-door"),
    "narrow door": Rooms(layout="narrow-door"),
    "random wall": Rooms(layout="random-wall-narrow-door"),
    EQUAL: Rooms(),
}
WORDS = {
    "fixed": "one wall and one door for all episodes, 20,000 walks",
    "5,000 walks": "as fixed, a quarter of the walks",
    "1,000 walks": "as fixed, a twentieth of the walks",
    "random door": "the door elsewhere in every episode, 20,000 walks",
    "narrow door": "as fixed, the door as narrow as in the papers: 9 pixels",
    "random wall": "wall and door elsewhere in every episode, the door as narrow as in the papers: 9 pixels",
    EQUAL: "as fixed, each arm on as many steps as cost what J1's cost: equal training FLOPs in place of equal steps",
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
    told = "Where walls stand elsewhere each time, slowness keeps the walls; the action tells what acts."
    claims = [
        tie_of_camps("fixed"),
        tie_of_camps("fixed", embeddings="J1-A1"),
        tie_of_camps(EQUAL, where="Clean rooms, equal compute"),
        tie_of_camps(EQUAL, where="Clean rooms, equal compute", embeddings="J1-A1"),
        claim("J1 > G2 | fixed", because=shaped, source="PLDM, arXiv 2502.14819"),
        claim("J2 > J1 | random wall", because=small, source="EB-JEPA, arXiv 2602.03604"),
        claim(
            "J1 > J1-A1 | random wall",
            because=told,
            source="EB-JEPA, arXiv 2602.03604: without, from 97 to 1 % on random walls, 98 and 98 % on fixed ones",
        ),
        claim(
            "J1 > G1 | 1,000 walks", because="Less to learn of what does not matter.", source="LeWM, arXiv 2603.19312"
        ),
    ]
    return that_apply(claims, competing)


def explore(competing: set[tuple[str, str]]) -> list[Contrast]:
    """Against the floors: numbers that every honest table has, without a verdict; those that apply here."""
    floors = ("J1 > R", "G1 > R", "J1 > J1m", "J1 > CHANCE", "G1 > CHANCE")
    return that_apply(
        [
            claim(
                f"{who} | fixed",
                because="What learned nothing, or nothing of actions, should not arrive.",
                source="every honest table",
            )
            for who in floors
        ],
        competing,
    )


LAB = WorldLab(
    name="two-rooms",
    question="Which world model plans its way into the other room: one that predicts embeddings, or pixels?",
    conditions=CONDITIONS,
    words=WORDS,
    declare=declare,
    explore=explore,
    tuned_on=dict.fromkeys(("5,000 walks", "1,000 walks", "random door", "narrow door", "random wall", EQUAL), "fixed"),
    courses=[WALKS],
    equal_compute=(EQUAL,),
    metrics=METRICS | LOST,
    tests=(with_a_tenth, unseen),
)


NONE_GIVEN = StoredEncoder()
SHOWN = {
    "main": ("fixed",),
    "all": ("fixed",),
    "walks": ("fixed", "5,000 walks", "1,000 walks", "random door", "narrow door", "random wall"),
    "compute": ("fixed", EQUAL),
}
SEEDS = {"main": 3, "all": 1, "walks": 3, "compute": 3}


def plan(
    planning: Planning,
    *,
    given: StoredEncoder = NONE_GIVEN,
    preset: Literal["main", "all", "walks", "compute"] = "main",
    num_seeds: int | None = None,
    budget: float = float(STEPS),
    unit: Unit = "steps",
    dynamics: DynamicsName = "residual",
) -> Plan:
    """Two rooms and a door: which world model plans its way, one that predicts embeddings or one that predicts pixels?

    Same encoder, dynamics, recorded walks, planner and episodes for every arm, each with its own tuned settings. J1-A1
    and G1 differ in what they predict alone; the other JEPA arms have inverse dynamics as well.

    Args:
        planning: how every agent plans, and on which episodes.
        given: an encoder of yours, on which dynamics compete as well (arm F).
        preset: "main" takes the main arms and fixed rooms; "all" every arm; "walks" the main arms on fewer recorded
            walks too, with doors or walls that move and with narrow doors; "compute" the main arms under equal steps
            and, beside that, under equal training FLOPs.
        num_seeds: independent repetitions of every arm; unless told, 3, and 1 of every arm of "all".
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
        dynamics: of every arm: "residual" (a perceptron), "gru" or "causal" (a transformer, trained on as many frames
            as --history gives it); settings were chosen with "residual".
    """
    arms = tuple(arm for arm in ARMS if arm not in ("F", "REPLAY", *REWARDED)) if preset == "all" else MAIN
    return LAB.plan(
        arms=arms if given.encoder is None else (*arms, "F"),
        conditions=SHOWN[preset],
        num_seeds=num_seeds or SEEDS[preset],
        budget=budget,
        unit=unit,
        planning=planning,
        dynamics=dynamics,
        given={} if given.encoder is None else {"F": {"given": given.named()}},
    )


def tunable() -> Tunable:
    """The search behind the settings: every arm by the goals in the other room that it reaches, in 60 episodes."""
    return LAB.tunable(("fixed",))
