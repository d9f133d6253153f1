"""Whether a difference between two arms keeps its sign where both had spent the same: a budget is one axis of several.

Arms that trained for as many steps spent unequal FLOPs. The curves of both are read where the cheaper one ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .judgement import Judgement

SAME, REVERSED = "at equal FLOPs: same sign", "reverses at equal FLOPs"
EQUAL = 0.01  # FLOPs that differ by less were equal anyway


def note_equal_flops(judgement: Judgement, cells: Sequence[Mapping[str, Any]], *, threshold: float) -> Judgement:
    """The judgement of one arm against another, its note with SAME or REVERSED; as it was where curves do not tell.

    Both differences, at the end and at equal FLOPs, are held against the threshold. Means over the seeds of which both
    arms have a curve; between readings it is taken as straight. Arms that spent the same anyway have nothing said.
    """
    found = {
        (cell["arm"], cell["seed"]): points
        for cell in cells
        if cell["condition"] == judgement.condition and (points := _curve(cell, judgement.metric))
    }
    gaps = []
    for mine, other in [
        (points, found[judgement.than, seed])
        for (arm, seed), points in found.items()
        if arm == judgement.better and (judgement.than, seed) in found
    ]:
        cheaper, dearer = sorted((mine[-1][0], other[-1][0]))
        if dearer <= (1 + EQUAL) * cheaper or cheaper < max(mine[0][0], other[0][0]):
            return judgement
        gaps.append(_at(mine, cheaper) - _at(other, cheaper))
    at_the_end = judgement.difference - threshold
    if not gaps or not judgement.num_seeds or not at_the_end:
        return judgement
    told = SAME if (np.mean(gaps) - threshold) * at_the_end > 0 else REVERSED
    return replace(judgement, note="; ".join(filter(None, [judgement.note, told])))


def _curve(cell: Mapping[str, Any], metric: str) -> list[tuple[float, float]]:
    """(training FLOPs, metric) of every reading of a cell that ended; empty where it was not trained."""
    if cell["status"] != "done":
        return []
    moments = [each for each in cell.get("curve", ()) if "flops" in each and metric in each["metrics"]]
    return [(each["flops"], each["metrics"][metric]) for each in moments if each["flops"] > 0]


def _at(points: Sequence[tuple[float, float]], flops: float) -> float:
    return float(np.interp(flops, [x for x, _ in points], [y for _, y in points]))
