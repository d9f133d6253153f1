"""A wall-clock budget, split fairly over arms and seeds, and what can be concluded with what it buys.

Every trained arm gets the same number of samples, since that is the budget the comparison is primarily equal in; how
many, is set by what all arms together cost on this machine. Costs are measured once and remembered, so that the same
command plans the same comparison again.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jepalab.dist import num_cores
from jepalab.records import write_json
from jepalab.run import Run

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
SEED_SD = 0.01  # of an accuracy between seeds: assumed, to say beforehand what can be told apart
JUDGING_SHARE = 0.25  # of the budget, kept back for read-outs and pictures
FEWEST = 20_000  # samples an arm has to see before a second seed is worth its price


@dataclass(frozen=True)
class Allowance:
    """What a budget buys: samples for each trained arm and seed, and sentences about what that can show."""

    samples: int
    num_seeds: int
    notes: tuple[str, ...]


def seconds_of(duration: str) -> float:
    """ "90s", "30m" or "2h" in seconds; a bare number is minutes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", duration)
    if not found or float(found[1]) <= 0:
        raise ValueError(f'Wanted a duration such as "90s", "30m" or "2h", got {duration!r}.')
    return float(found[1]) * UNITS[found[2] or "m"]


def allot(
    duration: str,
    *,
    seconds_per_sample: Mapping[str, float],
    num_train: int,
    num_classes: int,
    num_test: int,
    most_seeds: int = 3,
    num_workers: int = 0,
    noun: str = "pictures",
) -> Allowance:
    """Splits a budget of wall-clock time over arms and seeds.

    seconds_per_sample  of each trained arm, on one core.
    num_train           samples in the training split: those beyond it are further epochs.
    noun                what the samples are.
    """
    seconds = seconds_of(duration)
    # Runs on one GPU share it, however many there are at a time.
    at_once = num_workers or (1 if torch.cuda.is_available() else num_cores())
    core_seconds = seconds * at_once * (1 - JUDGING_SHARE)
    of_one_seed = sum(seconds_per_sample.values())
    num_seeds = max(1, min(most_seeds, int(core_seconds / of_one_seed / FEWEST)))
    samples = _rounded_down(core_seconds / of_one_seed / num_seeds)
    if samples < 1_000:
        needed = math.ceil(1_000 * of_one_seed / (core_seconds / seconds) / 60)
        raise ValueError(
            f"A budget of {duration} buys each of {len(seconds_per_sample)} arms {samples} {noun}, which teaches "
            f"none of them anything. Take at least {needed}m, fewer arms (--arms J1 G1), or smaller {noun}."
        )
    return Allowance(
        samples, num_seeds, tuple(_conclusions(samples, num_seeds, num_train, num_classes, num_test, noun))
    )


def _conclusions(samples: int, num_seeds: int, num_train: int, num_classes: int, num_test: int, noun: str) -> list[str]:
    epochs = samples / num_train
    notes = [f"Each trained arm saw {samples:,} {noun} ({epochs:.1f} epochs of {num_train:,}), {num_seeds} seed(s)."]
    if num_seeds == 1:
        notes.append(
            "One seed gives no interval: differences between arms are for orientation, and no contrast can be held."
        )
    else:
        # Paired t interval over seeds: half its width is what a difference has to exceed.
        half = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(num_seeds, 2.6) * SEED_SD * math.sqrt(2 / num_seeds)
        notes.append(
            f"If seeds scatter by {SEED_SD:.0%} (an assumption), a difference below about {half:.1%} cannot be told "
            "from none with this many seeds."
        )
    if num_classes > 1:
        noise = 1.96 * math.sqrt(0.25 / max(num_test, 1))
        notes.append(f"The test split has {num_test:,} labelled {noun}: ± {noise:.1%} on any single accuracy.")
    if epochs < 30:
        notes.append(
            "This is a short budget. Arms differ in how fast they start (a teacher has to become worth following), so "
            "the order may change with longer training: the learning curves show whether they still rise or cross."
        )
    return notes


def _rounded_down(samples: float) -> int:
    """Two leading digits: a plan should not hang on a percent of measured speed."""
    if samples < 1:
        return 0
    unit = 10 ** max(0, int(math.log10(samples)) - 1)
    return int(samples // unit * unit)


def measured_costs(
    arms: Sequence[str], make: Callable[[str], Run], *, key: str, memory: Path, batch_size: int
) -> dict[str, float]:
    """Seconds of one core for each sample of each arm, from a few steps of a copy; remembered in `memory`."""
    known = json.loads(memory.read_text()) if memory.exists() else {}
    here = f"{platform.node()} {num_cores()} {torch.__version__} {torch.cuda.is_available()} {key}"
    costs = known.setdefault(here, {})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for arm in arms:
            if arm not in costs:
                costs[arm] = make(arm).time_step() / batch_size
                write_json(memory, known)
    finally:
        torch.set_num_threads(threads)
    return {arm: costs[arm] for arm in arms}
