"""Reading a finished comparison: its arms, its conditions, and each metric as an estimate over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepalab.compare.caveats import label_counts
from jepalab.compare.drawing import Look, shorten
from jepalab.compare.metrics import FALLBACK, MOTION, digits_of, name_metric
from jepalab.compare.stats import NO_INTERVAL, mean_interval

REQUIRED = ("question", "answer", "arms", "conditions", "seeds", "cells", "contrasts")
# Okabe & Ito's palette, which colour-blind readers tell apart, dealt out so that the families do not share colours.
PALETTES = {
    "J": ("blue", "green", "purple", "sky"),
    "V": ("teal", "indigo", "sky"),
    "G": ("vermillion", "orange", "wine", "olive", "rose"),
    "A": ("ink",),
    "other": ("green", "purple", "orange", "sky", "blue", "vermillion", "ink"),
}
SHAPES = {"J": "circle", "V": "wedge", "G": "square", "A": "triangle", "other": "cross"}
FAMILIES = {
    "J": "circles predict embeddings (J)",
    "V": "triangles on their tip match views (V)",
    "G": "squares generate the input (G)",
    "A": "triangles read actions (A)",
    "other": "crosses do something else",
}


@dataclass(frozen=True)
class Arm:
    """One arm as the report shows it. role: "floor", "ceiling", or empty for an arm that competes."""

    name: str
    label: str
    role: str
    look: Look

    @property
    def is_reference(self) -> bool:
        return bool(self.role)


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds with its 95 % interval; NaN bounds where one seed gives none. digits: decimals to print."""

    mean: float
    low: float
    high: float
    by_seed: Mapping[int, float]
    digits: int = 2

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low)

    def in_words(self) -> str:
        """As a caption says it: 0.61 (0.55 to 0.67)."""
        low, high = (number(bound, self.digits) for bound in (self.low, self.high))
        return f"{self.printed} ({f'{low} to {high}' if self.has_interval else '1 seed'})"

    @property
    def printed(self) -> str:
        """The mean alone."""
        return number(self.mean, self.digits)


def number(value: float | int | None, digits: int = 2) -> str:
    """A number as it is printed: fixed decimals up to 100, none above, a real minus sign; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.0f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]])) if parts else ""


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of a comparison's folder.

    Raises:
        ValueError: it is not there, is not JSON, or is not what `compare` writes.
    """
    file = folder / "results.json"
    advice = f"Write it with `jepalab compare distractor --out {folder}`, then ask for the report again."
    if not file.exists():
        raise ValueError(f"A report needs {file}, which does not exist. {advice}")
    try:
        results = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}. {advice}") from error
    missing = [key for key in REQUIRED if not isinstance(results, dict) or key not in results]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}. {advice}")
    facts = ("arm", "condition", "seed", "status", "metrics")
    broken = [cell for cell in results["cells"] if not isinstance(cell, dict) or any(key not in cell for key in facts)]
    if broken:
        raise ValueError(f"{file} has a cell without one of {', '.join(facts)}: {str(broken[0])[:200]}. {advice}")
    return results


class Readings:
    """The cells of a comparison, by condition, arm and metric.

    names    of the chief metrics as they are printed, in the order of the tables.
    primary  the metric that the report follows: the first of them, or position R2 where the state was not read.
    noun     what labelled samples are called; empty where arms are not judged by classes.
    clock    "cpu_seconds" where every cell recorded them, which other work on the machine does not lengthen; otherwise
             "seconds", by the clock on the wall.
    labels   how many labels each read-out learned from, as a sentence; empty where that was not recorded.
    goals    values of the primary metric that were declared as goals.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.cells: list[dict[str, Any]] = results["cells"]
        self.seeds: list[int] = sorted({*results["seeds"], *(cell["seed"] for cell in self.cells)})
        labels = {cell["arm"]: cell["arm"] for cell in self.cells} | results["arms"]
        ordered = [*results["arms"], *(name for name in labels if name not in results["arms"])]
        self.arms = _as_arms({name: labels[name] for name in ordered})
        found = {cell["condition"]: "" for cell in self.cells}
        self.conditions: dict[str, str] = dict(results["conditions"]) | {
            name: text for name, text in found.items() if name not in results["conditions"]
        }
        measured = {metric for cell in self.cells for metric in cell["metrics"]}
        self.names: dict[str, str] = results.get("metrics") or MOTION
        self.noun: str = results.get("noun", "")
        self.goals: list[float] = results.get("goals", [])
        first = next(iter(self.names))
        self.primary = next((metric for metric in (first, FALLBACK) if metric in measured), first)
        computes = [cell["compute"] for cell in self.cells if "compute" in cell]
        has_cpu = bool(computes) and all("cpu_seconds" in compute for compute in computes)
        self.clock = "cpu_seconds" if has_cpu else "seconds"
        self.labels = label_counts(self.cells, self.names)
        self._estimates: dict[tuple[str, str, str], Estimate | None] = {}

    def name(self, metric: str) -> str:
        """How the metric is printed."""
        return name_metric(metric, self.names)

    def cells_of(self, condition: str, arm: Arm) -> list[dict[str, Any]]:
        return [cell for cell in self.cells if cell["condition"] == condition and cell["arm"] == arm.name]

    def finished(self, condition: str, arm: Arm) -> list[dict[str, Any]]:
        return [cell for cell in self.cells_of(condition, arm) if cell["status"] == "done"]

    def arms_in(self, condition: str) -> list[Arm]:
        """The arms that were tried under this condition, whatever came of it."""
        return [arm for arm in self.arms if self.cells_of(condition, arm)]

    def metrics_in(self, condition: str) -> list[str]:
        """The metrics that any finished cell of the condition has, in the order they were measured."""
        cells = [cell for arm in self.arms for cell in self.finished(condition, arm)]
        return list(dict.fromkeys(metric for cell in cells for metric in cell["metrics"]))

    def estimate(self, condition: str, arm: Arm, metric: str) -> Estimate | None:
        """Over the seeds that have a finite value; None where no seed has."""
        key = condition, arm.name, metric
        if key not in self._estimates:
            values = {cell["seed"]: cell["metrics"].get(metric) for cell in self.finished(condition, arm)}
            self._estimates[key] = estimate_of(
                {seed: float(value) for seed, value in values.items() if value is not None and math.isfinite(value)},
                digits=digits_of(metric),
            )
        return self._estimates[key]

    def estimates(self, metric: str) -> list[Estimate]:
        """The metric of every arm under every condition: what a shared axis has to cover."""
        every = [self.estimate(condition, arm, metric) for condition in self.conditions for arm in self.arms]
        return [value for value in every if value]

    def failures(self) -> list[dict[str, Any]]:
        return [cell for cell in self.cells if cell["status"] != "done"]

    def seeds_of(self, condition: str, arm: Arm) -> tuple[str, str]:
        """How many seeds count, "5" or "2 of 3", and what became of the others: "failed: seed 1"."""
        cells, done = self.cells_of(condition, arm), self.finished(condition, arm)
        fates: dict[str, list[str]] = {}
        for seed in self.seeds:
            fate = next((cell["status"] for cell in cells if cell["seed"] == seed), "not run")
            fates.setdefault(fate, []).append(str(seed))
        remarks = [f"{fate}: seed {listed(seeds)}" for fate, seeds in fates.items() if fate != "done"]
        count = f"{len(done)}" if len(done) == len(self.seeds) else f"{len(done)} of {len(self.seeds)}"
        return count, "; ".join(remarks + [NO_INTERVAL] * (len(done) == 1))

    def silences(self, condition: str, *metrics: str) -> str:
        """Who has no value of these metrics and why, as a sentence; empty where everybody has one."""
        silent = [a for a in self.arms_in(condition) if any(not self.estimate(condition, a, m) for m in metrics)]
        reasons = [f"{arm.name} ({self.reason(condition, arm)})" for arm in silent]
        return f" No value: {listed(reasons)}." if reasons else ""

    def reason(self, condition: str, arm: Arm) -> str:
        """Why an arm has no value: its first error, or that the metric was not measured."""
        errors = [cell.get("error", "no reason recorded") for cell in self.cells_of(condition, arm)]
        return "not measured" if self.finished(condition, arm) else f"failed: {shorten(errors[0], 80)}"


def estimate_of(by_seed: Mapping[int, float], *, digits: int = 2) -> Estimate | None:
    """The estimate of these values, or None where there is none."""
    if not by_seed:
        return None
    interval = mean_interval(list(by_seed.values()), generator=np.random.default_rng(0))
    return Estimate(interval.estimate, interval.low, interval.high, by_seed, digits)


def family_of(name: str) -> str:
    """The family that an arm's name begins with: the key of `FAMILIES`."""
    return name[:1] if name[:1] in PALETTES else "other"


def _as_arms(labels: Mapping[str, str]) -> list[Arm]:
    arms, counts = [], dict.fromkeys(PALETTES, 0)
    for name, label in labels.items():
        role = next((role for role in ("floor", "ceiling") if f"({role})" in label), "")
        if role:
            arms.append(Arm(name, label, role, Look("grey", "diamond")))
            continue
        family = family_of(name)
        turn, colour = divmod(counts[family], len(PALETTES[family]))
        counts[family] += 1
        arms.append(Arm(name, label, role, Look(PALETTES[family][colour], SHAPES[family], turn % 2 == 1)))
    return arms
