"""What cells kept for the report as arrays, and a figure drawn from it for one condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jepalab.compare.cells import slug
from jepalab.compare.readings import Arm, Readings
from jepalab.compare.sheets import Entry, Figure, Sheet

Arrays = Mapping[str, np.ndarray]


def kept_arrays(folder: Path, readings: Readings, suffix: str) -> dict[str, dict[Arm, dict[str, np.ndarray]]]:
    """By condition and arm, what lies below `folder`/pictures as ARM + suffix; conditions with nothing are left out."""
    found: dict[str, dict[Arm, dict[str, np.ndarray]]] = {}
    for condition in readings.conditions:
        for arm in readings.arms_in(condition):
            file = folder / "pictures" / slug(condition) / f"{slug(arm.name)}{suffix}"
            if file.exists():
                with np.load(file, allow_pickle=False) as arrays:
                    found.setdefault(condition, {})[arm] = dict(arrays)
    return found


def condition_figure(
    readings: Readings,
    condition: str,
    panels: Sequence[str],
    caption: str,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Entry]],
) -> Figure | None:
    """The panels under one condition, with their numbers as NAME CONDITION; None without panels."""
    if not panels:
        return None
    sheet = Sheet(f"{name} {condition}", columns, rows)
    return Figure(condition, panels, caption, sheet, subtitle=readings.conditions[condition])
