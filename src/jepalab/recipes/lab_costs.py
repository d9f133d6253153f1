"""What judging a cell of a lab costs, so that a budget of time can pay for it beforehand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jepalab.compare.cells import Judging
from jepalab.data.samples import Samples
from jepalab.data.sprites import SPLITS, Split
from jepalab.instruments.finetuning import BATCH, NUM_STEPS, RATES, TRIAL_STEPS, finetuning
from jepalab.instruments.labelled import NUM_SAMPLES
from jepalab.recipes.allowance import judging_seconds


@dataclass(frozen=True)
class Further:
    """A read-out beside the lab's own, of the encoder that stands for its arm, and what it costs.

    num_read    samples that it embeds and fits read-outs to.
    num_passed  samples that it sends through encoder and head.
    arms        for which it does anything; all, if None.
    """

    instrument: Callable[[Any], dict[str, float]]
    num_read: int = 0
    num_passed: int = 0
    arms: Collection[str] | None = None


def cell_seconds(
    costs: Mapping[str, float], chosen: Sequence[str], data: Samples, judging: Judging, more: Sequence[Further] = ()
) -> dict[str, float]:
    """Seconds that judging a cell of each chosen arm takes on one core, with what is read beside the lab's own.

    costs  as measured: seconds a "pass" through the encoder, and "encoders of ARM" where an arm has several.
    """
    num_steps = NUM_STEPS + len(RATES) * TRIAL_STEPS if finetuning in judging.of_the_first else 0
    of_data = sum(num_read(data, judging).values())

    def seconds(arm: str) -> float:
        here = [each for each in more if each.arms is None or arm in each.arms]
        return judging_seconds(
            costs["pass"],
            num_read=of_data,
            num_encoders=round(costs.get(f"encoders of {arm}", 1)),
            num_tuned=num_steps * BATCH,
            num_further=sum(each.num_read for each in here),
            num_passed=sum(each.num_passed for each in here),
        )

    return {arm: seconds(arm) for arm in chosen}


def num_read(data: Samples, judging: Judging) -> dict[Split, int]:
    """Labelled samples of each split that the read-outs see."""
    most = judging.subjects.keywords["num_samples"] if isinstance(judging.subjects, partial) else NUM_SAMPLES
    return num_labelled(data, most)


def num_labelled(data: Samples, most: Mapping[Split, int]) -> dict[Split, int]:
    """Labelled samples of each split, or as many as there are at most."""
    return {split: min(most[split], int((data.labels[data.indices(split)] >= 0).sum())) for split in SPLITS}
