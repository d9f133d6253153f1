"""World models that plan on recorded episodes: PushT by default, or whatever `jepalab collect` and `convert` write.

An arm pushes a T-shaped block (Chi et al. 2023, arXiv 2303.04137, through gym-pusht). Goals are states that held-out
episodes came to 25 steps after the start, as DINO-WM takes them (arXiv 2411.04983): agent and block near theirs.
"""

from __future__ import annotations

from pathlib import Path

from jepalab.compare.cells import Unit
from jepalab.compare.contrasts import Contrast, Equivalent
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_judging import Planning
from jepalab.recipes.world_lab import STEPS, WorldLab, claim, that_apply

NAME, METRIC = "pusht", "all_ever_wide"
ARMS_HERE = ("J1", "J2", "J3", "A1", "G1", "G2", "R", "CHANCE")
FRAMESKIP = 5  # as DINO-WM and LeWorldModel
METRICS = {
    METRIC: "arrived",
    "all_end_wide": "there at the end",
    "all_steps_wide": "median steps",
    "ms_per_action": "ms an action",
    "position_r2": "position R²",
    "ahead_12": "error 12 ahead over persistence",
    "teleport_auroc": "surprised by a jump",
    "dimmed_auroc": "alarmed by dimming",
    "straightness": "straightness",
    "rankme": "RankMe",
}
# Blocks of actions, and episodes twice as long as those in which the goals were reached.
PLANNING = Planning(cross_room=50, same_room=0, num_steps=50, horizon=5, num_executed=1)
TRIALS = Planning(cross_room=40, same_room=0, num_steps=50, horizon=5, num_executed=1, episode_seed=1_007)


def declare(competing: set[tuple[str, str]]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran; those that apply here."""
    claims = [
        Equivalent(
            "No difference between embeddings and pixels",
            better="J1",
            than="G1",
            metric=METRIC,
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
                metric=METRIC,
            )
            for who in ("J1 > CHANCE", "G1 > CHANCE", "J1 > R")
        ),
    ]
    return that_apply(claims, competing)


def lab(data: Path, frameskip: int) -> WorldLab:
    """The experiment on the episodes of a folder."""
    return WorldLab(
        name=NAME,
        question="On recorded episodes, whose world model plans its way: one that predicts embeddings, or pixels?",
        conditions={NAME: Stored(data=data, frameskip=frameskip)},
        words={NAME: f"episodes in {data.name}, a frame every {frameskip} steps"},
        declare=declare,
        metrics=METRICS,
        trials=TRIALS,
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
) -> Plan:
    """On recorded episodes of PushT, or of your own: whose world model plans its way, embeddings' or pixels'?

    Args:
        planning: how every agent plans, and on which episodes.
        data: folder of episodes, as `jepalab collect pusht` and `jepalab convert` write it.
        frameskip: steps from one frame to the next; the actions between two frames become one block.
        num_seeds: independent repetitions of every arm.
        budget: what each arm may spend, in `unit`.
        unit: steps, samples (windows seen), flops (of training) or seconds (on this machine).
        arms: which take part; there is a ceiling (SIM) only where the world is fast enough to plan in.
    """
    return lab(data, frameskip).plan(
        arms=arms, conditions=(NAME,), num_seeds=num_seeds, budget=budget, unit=unit, planning=planning
    )


def tunable(*, data: Path = Path("data/pusht"), frameskip: int = FRAMESKIP) -> Tunable:
    """The search behind the settings, on your episodes: every arm by the goals that it reaches, in 40 of them.

    Args:
        data: folder of episodes, as `jepalab collect pusht` and `jepalab convert` write it.
        frameskip: steps from one frame to the next; the actions between two frames become one block.
    """
    return lab(data, frameskip).tunable((NAME,))
