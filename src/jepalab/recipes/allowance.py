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
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from jepalab.dist import autocast, num_cores
from jepalab.records import write_json
from jepalab.run import Run

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
SEED_SD = 0.01  # of an accuracy between seeds: assumed, to say beforehand what can be told apart
READ_OUT_SECONDS = 45 / 65_000  # of one core for each sample read: ridge at every level, logistic, kNN, few labels
FEWEST = 20_000  # samples an arm has to see before a second seed is worth its price


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
    judging_seconds: Mapping[str, float],
    most_seeds: int = 3,
    num_workers: int = 0,
    noun: str = "pictures",
) -> tuple[int, int]:
    """Splits a budget of wall-clock time over arms and seeds: samples for each trained arm and seed, and seeds.

    seconds_per_sample  of each trained arm, on one core.
    judging_seconds     of a cell of each arm, trained or not, on one core.
    num_workers         runs at a time, each on one core; 0 as in `compare`. None can take longer than the budget.
    noun                what the samples are.
    """
    seconds = seconds_of(duration)
    # Runs on one GPU share it, however many there are at a time.
    at_once = num_workers or (1 if torch.cuda.is_available() else num_cores())
    core_seconds, judging = seconds * at_once, sum(judging_seconds.values())
    of_one_seed = sum(seconds_per_sample.values())
    num_seeds = max(1, min(most_seeds, int(core_seconds / (of_one_seed * FEWEST + judging))))
    longest = min((seconds - judging_seconds.get(arm, 0.0)) / cost for arm, cost in seconds_per_sample.items())
    samples = _rounded_down(min((core_seconds / num_seeds - judging) / of_one_seed, longest))
    if samples < 1_000:
        alone = max(1_000 * cost + judging_seconds.get(arm, 0.0) for arm, cost in seconds_per_sample.items())
        needed = math.ceil(max((1_000 * of_one_seed + judging) / at_once, alone) / 60)
        raise ValueError(
            f"A budget of {duration} buys each of {len(seconds_per_sample)} arms {samples} {noun}, which teaches "
            f"none of them anything. Take at least {needed}m, fewer arms (--arms J1 G1), or smaller {noun}."
        )
    return samples, num_seeds


def conclusions(
    samples: int,
    num_seeds: int,
    *,
    num_train: int,
    num_classes: int,
    num_test: int,
    num_labelled: int | None = None,
    noun: str = "pictures",
) -> list[str]:
    """Sentences about what such a comparison can show.

    num_train     samples in the training split: those beyond it are further epochs.
    num_test      labelled samples of the test split that the read-outs score.
    num_labelled  of those in the training split, which are all that a supervised arm learns from.
    """
    epochs = samples / num_train
    notes = [f"Each trained arm saw {samples:,} {noun} ({epochs:.1f} epochs of {num_train:,}), {num_seeds} seed(s)."]
    if num_labelled is not None and num_labelled < num_train:
        epochs_of_labelled = samples / max(num_labelled, 1)
        notes.append(
            f"A supervised arm saw as many, all of them labelled ({epochs_of_labelled:.1f} epochs of {num_labelled:,})."
        )
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
        notes.append(f"Accuracies are on {num_test:,} labelled {noun} of the test split: ± {noise:.1%} on any one.")
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


def judging_seconds(
    seconds_per_pass: float,
    *,
    num_read: int,
    num_encoders: int,
    num_tuned: int,
    num_further: int = 0,
    num_passed: int = 0,
) -> float:
    """Of one cell on one core, modelled: how often samples pass the encoder, and what the read-outs themselves take.

    Each encoder reads `num_read` samples at the end and about as many again for the learning curve. `num_tuned` are
    passes of training under fine-tuning, a pass backward being two forward. Read-outs of their embeddings take about
    as long as 45 s for 65,000 samples (of width 192, measured), or as those of the default encoder at other sizes.
    `num_further` samples are read at the end by the encoder that stands for the arm alone, read-outs included;
    `num_passed` go through encoder and head, taken for two passes, and no read-out.

    seconds_per_pass  one sample through the encoder, on one core.
    """
    passes = 2 * num_read * num_encoders + 3 * num_tuned + num_further + 2 * num_passed
    return seconds_per_pass * passes + READ_OUT_SECONDS * (num_read * num_encoders + num_further)


def measured_costs(measures: Mapping[str, Callable[[], float]], *, key: str, memory: Path) -> dict[str, float]:
    """What each of these measures says with one thread, by name; once measured, it is remembered in `memory`."""
    known = json.loads(memory.read_text()) if memory.exists() else {}
    here = f"{platform.node()} {num_cores()} {torch.__version__} {torch.cuda.is_available()} {key}"
    costs = known.setdefault(here, {})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, measure in measures.items():
            if name not in costs:
                costs[name] = measure()
                write_json(memory, known)
    finally:
        torch.set_num_threads(threads)
    return {name: costs[name] for name in measures}


def time_pass(run: Run, *, num_samples: int = 128) -> float:
    """Seconds of one core for one sample through the encoder that is read out, as the read-outs make it."""
    run.objective.eval()
    encoder = next(iter(run.objective.probed_encoders().values()))
    x = run.stream.held_out("train", num_samples).x
    times = []
    with torch.no_grad(), autocast(torch.device("cpu")):
        for _ in range(3):
            began = time.perf_counter()
            encoder(x)
            times.append(time.perf_counter() - began)
    return statistics.median(times) / len(x)
