"""What surprises whom, in numbers: each concept by pairs and unpaired, its sign test, and how soon it was learned."""

from __future__ import annotations

import re

from jepalab.compare.curves import training_lines
from jepalab.compare.milestones import reached
from jepalab.compare.readings import Arm, Readings, number
from jepalab.compare.sheets import Entry, Sheet, Table
from jepalab.compare.tables import amount

GOAL = 0.75  # of pairs told apart, between chance and certainty


def concept_table(readings: Readings, condition: str) -> Table | None:
    """A row for each arm and concept; None where nobody was shown pairs."""
    concepts = [m[1] for name in readings.metrics_in(condition) if (m := re.fullmatch(r"(\w+)_sign_p", name))]
    concepts = [concept for concept in concepts if not concept.startswith("latent_")]
    printed, rows = [], []
    for arm in readings.arms_in(condition):
        for concept in concepts:
            paired, unpaired = (
                readings.estimate(condition, arm, f"{concept}_{what}") for what in ("accuracy", "auroc")
            )
            if paired is None or unpaired is None:
                continue
            p_value = _largest(readings, condition, arm, f"{concept}_sign_p")
            values = [paired.mean, unpaired.mean, p_value]
            printed.append([arm.name, concept, *(number(value, 3) for value in values)])
            rows.append([condition, arm.name, concept, *values])
    if not rows:
        return None
    note = (
        "Pairs told apart: the impossible clip of a pair surprises more. AUROC: any impossible clip against any "
        "possible one. p: two-sided sign test against no preference, the two pairs of a quartet as one observation; "
        "of several seeds, the largest; of untrained networks, the mean."
    )
    sheet = Sheet(f"concepts {condition}", ["condition", "arm", "concept", "accuracy", "auroc", "sign_test_p"], rows)
    columns = ["arm", "concept", "pairs told apart", "AUROC, unpaired", "p of sign test"]
    return Table(f"Concept by concept, {condition}", columns, printed, sheet, note=note, num_names=2)


def learning_table(readings: Readings, condition: str) -> Table | None:
    """Clips that each trained arm had seen when its mean curve reached GOAL; None where nobody was read on the way."""
    printed: list[list[str]] = []
    rows: list[list[Entry]] = []
    for line in training_lines(readings, condition, "samples"):
        clips = reached(line.points, GOAL)
        printed.append([line.arm.name, "never" if clips is None else amount(clips), number(line.points[-1][1], 3)])
        rows.append([condition, line.arm.name, clips, line.points[-1][1]])
    if not rows:
        return None
    note = (
        f"Training clips seen when {GOAL:.0%} of the pairs are told apart. Between readings the curve is taken as "
        "straight, and one that starts above counts as there at its first reading; readings are few, so this is rough."
    )
    sheet = Sheet(f"clips to {GOAL:g} {condition}", ["condition", "arm", "clips", "at the end"], rows)
    columns = ["arm", f"clips to {GOAL:.0%}", "at the end"]
    return Table(f"Clips needed, {condition}", columns, printed, sheet, note=note)


def _largest(readings: Readings, condition: str, arm: Arm, metric: str) -> float:
    return max(
        float(cell["metrics"][metric]) for cell in readings.finished(condition, arm) if metric in cell["metrics"]
    )
