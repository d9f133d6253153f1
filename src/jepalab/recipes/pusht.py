"""World models that plan on recorded episodes: PushT by default, or whatever `jepalab collect` and `convert` write.

An arm pushes a T-shaped block (Chi et al. 2023, arXiv 2303.04137, through gym-pusht). Goals are states that held-out
episodes came to 25 steps after the start, as DINO-WM takes them (arXiv 2411.04983): agent and block near theirs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from jepalab.compare.cells import Unit
from jepalab.compare.contrasts import Contrast, Equivalent
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_bench import DynamicsName
from jepalab.recipes.world_judging import Planning
from jepalab.recipes.world_lab import STEPS, WorldLab, claim, that_apply
from jepalab.recipes.world_notes import groups_in
from jepalab.recipes.world_planning import TOWARDS_RECORDED

NAME = "pusht"
ARMS_HERE = ("J1", "J2", "J3", "A1", "G1", "G2", "R", "CHANCE", "REPLAY")
FRAMESKIP = 5  # as DINO-WM and LeWorldModel
GROUPS = {"block": ", block moved", "cross": ", other room", "all": "", "agent": ", agent alone", "same": ", same room"}
PLANNING = replace(TOWARDS_RECORDED, cross_room=50, same_room=25)
TRIALS = replace(PLANNING, cross_room=40, same_room=0, episode_seed=1_007)


def name_metrics(groups: tuple[str, ...]) -> dict[str, str]:
    """How the chief metrics are printed, success in the hardest group first: by that trials are ranked."""
    found = {}
    for group in groups:
        found |= {
            f"{group}_ever_wide": f"arrived{GROUPS[group]}",
            f"{group}_end_wide": f"there at the end{GROUPS[group]}",
            f"{group}_ever_tight": f"arrived within the tight radius{GROUPS[group]}",
        }
    return found | {
        f"{groups[0]}_steps_wide": "median steps",
        "ms_per_action": "ms an action",
        "position_r2": "position R²",
        "ahead_12": "error 12 ahead over persistence",
        "teleport_auroc": "surprised by a jump",
        "straightness": "straightness",
        "rankme": "RankMe",
    }


def declare(competing: set[tuple[str, str]], *, metric: str) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    claims = [
        Equivalent(
            "No difference between embeddings and pixels",
            better="J1",
            than="G1",
            metric=metric,
            condition=NAME,
            margin=0.05,
            floor="CHANCE",
            because="Nothing in these pictures changes by chance, so both targets can hold the state.",
            source="LeWorldModel against DINO-WM and Dreamer, arXiv 2603.19312; no matched comparison is known",
        ),
        *(
            claim(
                f"{who} | {NAME}",
                because="What learned nothing should not arrive.",
                source="every honest table",
                metric=metric,
            )
            for who in ("J1 > CHANCE", "G1 > CHANCE", "J1 > R")
        ),
    ]
    return that_apply(claims, competing)


def lab(data: Path, frameskip: int) -> WorldLab:
    """The experiment on the episodes of a folder."""
    stored = Stored(data=data, frameskip=frameskip).named()
    metrics = name_metrics(groups_in(stored))
    return WorldLab(
        name=NAME,
        question="On recorded episodes, whose world model plans its way: one that predicts embeddings, or pixels?",
        conditions={NAME: stored},
        words={NAME: f"episodes in {data.name}, a frame every {frameskip} steps"},
        declare=partial(declare, metric=next(iter(metrics))),
        metrics=metrics,
        trials=TRIALS,
        notes=[
            "Starts in the same episode lie at least as far apart as a start and its goal. Settings were chosen on "
            "goals of the validation episodes, and are judged here on those of the test episodes."
        ],
    )


def plan(
    planning: Planning = PLANNING,
    *,
    data: Path = Path("data/pusht"),
    frameskip: int = FRAMESKIP,
    num_seeds: int = 3,
    budget: float = float(STEPS),
    unit: Unit = "steps",
    arms: tuple[str, ...] = ARMS_HERE,
    dynamics: DynamicsName = "residual",
) -> Plan:
    """On recorded episodes of PushT, or of your own: whose world model plans its way, embeddings' or pixels'?

    Args:
        planning: how every agent plans, and on which episodes.
        data: folder of episodes, as `jepalab collect pusht` and `jepalab convert` write it.
        frameskip: steps from one frame to the next; the actions between two frames become one block.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
        arms: which take part. Ceilings are REPLAY, which does what was recorded (left out where goals are drawn
            anywhere), and SIM where the world is fast enough to plan in.
        dynamics: of every arm: "residual" (a perceptron), "gru" or "causal" (a transformer, trained on as many frames
            as --history gives it); settings were chosen with "residual".
    """
    experiment = lab(data, frameskip)
    scene = Stored(data=data, frameskip=frameskip).scene()
    is_recorded = scene is not None and scene.kind.ahead > 0
    return experiment.plan(
        arms=[arm for arm in arms if arm != "REPLAY" or is_recorded],
        conditions=(NAME,),
        num_seeds=num_seeds,
        budget=budget,
        unit=unit,
        planning=planning,
        dynamics=dynamics,
    )


def tunable(*, data: Path = Path("data/pusht"), frameskip: int = FRAMESKIP) -> Tunable:
    """The search behind the settings, on your episodes: every arm by the goals that it reaches, in 40 of the validation
    episodes'.

    Args:
        data: folder of episodes, as `jepalab collect pusht` and `jepalab convert` write it.
        frameskip: steps from one frame to the next; the actions between two frames become one block.
    """
    return lab(data, frameskip).tunable((NAME,))
