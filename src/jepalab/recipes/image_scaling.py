"""How far apart the two camps are at growing budgets: I-JEPA and MAE on the same pictures, longer and longer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from jepalab.compare.cells import Cell
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.metrics import RECOGNITION
from jepalab.recipes.image_bench import Pictures
from jepalab.recipes.images import ARMS, BATCH, CONDITION, judging, make_run, tuned
from jepalab.recipes.lab import PREFER
from jepalab.recipes.patch_bench import Network

FLOORS = ("R", "PCA", "PIX")
SCALED = ("linear", "knn", "attentive", "finetuned")


def plan(
    pictures: Pictures,
    *,
    samples: tuple[int, ...] = (200_000, 600_000, 1_200_000),
    arms: tuple[str, ...] = ("J1", "G1"),
    num_seeds: int = 1,
    network: Network,
) -> Plan:
    """Do the curves of I-JEPA and MAE cross, and where? The same arms at growing numbers of pictures.

    Each budget is a run of its own with its own learning-rate schedule, at the settings tuned for short runs.

    Args:
        pictures: where they come from.
        samples: pictures each arm sees, one number for each budget.
        arms: which arms of `jepalab compare images` take part; those without tuned settings are left out.
        num_seeds: independent repetitions; one gives no interval and no verdict.
        network: the encoder that every arm trains.
    """
    pictures, known = pictures.named(), tuned(pictures)["conditions"][CONDITION]
    chosen = [arm for arm in arms if arm in known]
    if not chosen:
        raise ValueError(f"None of {', '.join(arms)} has tuned settings; run `jepalab tune images` first.")
    budgets = {f"{count:,} pictures": count for count in sorted(samples)}

    def cell(arm: str, name: str, count: int) -> Cell:
        settings = known[arm]["settings"] if arm in known else {}
        steps = max(1, count // BATCH)
        return Cell(
            arm, name, partial(make_run, arm=arm, world=pictures, settings=settings, network=network, steps=steps)
        )

    smallest = next(iter(budgets))
    return Plan(
        name="image-scaling",
        question="Does predicting embeddings overtake predicting pixels when both train longer?",
        cells=[
            *(cell(arm, name, count) for name, count in budgets.items() for arm in chosen),
            *(cell(arm, smallest, 1) for arm in FLOORS),
        ],
        seeds=range(num_seeds),
        judging=replace(judging("full"), prefer=PREFER),
        contrasts=[],
        arms={arm: ARMS[arm].label for arm in (*chosen, *FLOORS)},
        conditions={name: f"{count // BATCH:,} steps of {BATCH}" for name, count in budgets.items()},
        metrics=RECOGNITION,
        noun="pictures",
        courses=[Course("Longer training", "pictures seen", budgets, metrics=SCALED, is_budget=True)],
        notes=[f"{num_seeds} seed(s). One seed gives no interval: differences are for orientation."],
    )
