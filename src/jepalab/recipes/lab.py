"""What experiments on one's own labelled samples have in common, be they pictures, clips or series.

Which arms take part (those with tuned settings), for how long (what a budget buys), what has to be said about it, and
the search that tunes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from jepalab.compare.advice import advise
from jepalab.compare.cells import Budget, Cell, Judging
from jepalab.compare.contrasts import Contrast
from jepalab.compare.grid import Plan
from jepalab.compare.metrics import RECOGNITION
from jepalab.compare.tune import Arm, Knob, Tunable
from jepalab.data.image_cache import default_cache
from jepalab.data.samples import Samples
from jepalab.recipes.allowance import allot, measured_costs
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.run import Run

METRIC = "linear"
SHARED = (Knob("lr", 3e-4, 3e-3), Knob("weight_decay", 1e-3, 2e-1))
ReadOuts = Literal["trial", "quick", "full"]


@runtime_checkable
class World(Protocol):
    """Where samples come from, as flags say it."""

    @property
    def cache(self) -> Path | None: ...

    def open(self) -> Samples: ...

    def named(self) -> World:
        """The same, known by its content."""
        ...


@dataclass(frozen=True)
class Lab:
    """One kind of samples, and the arms that learn from them.

    name         of the experiment: `jepalab tune NAME` searches its settings, NAME.tuned.json holds them.
    condition    the one condition that there is, and `noun`, what its samples are called.
    rivals       what predicting embeddings is held against, in the question.
    arms         by name.
    make_run     (seed, *, arm, world, settings, network, steps) -> Run.
    judging      how cells are judged, by the depth of the read-outs.
    declare      the contrasts that apply to these arms.
    batch_size   of every arm; `trial_steps` of a trial of the search.
    full_from    samples from which on "auto" reads out in full.
    """

    name: str
    condition: str
    noun: str
    rivals: str
    arms: Mapping[str, Arm]
    make_run: Callable[..., Run]
    judging: Callable[[ReadOuts], Judging]
    declare: Callable[[Sequence[str]], Sequence[Contrast]]
    batch_size: int
    trial_steps: int
    full_from: int

    @property
    def search(self) -> str:
        """The command that tunes the arms."""
        return f"jepalab tune {self.name}"

    def tuned(self) -> dict[str, Any]:
        """What the recorded search chose, and how it went; no settings where there was none."""
        file = files("jepalab.recipes").joinpath(f"{self.name}.tuned.json")
        return json.loads(file.read_text()) if file.is_file() else {"conditions": {self.condition: {}}}

    def tunable(self, world: World) -> Tunable:
        """The search: every arm by linear accuracy on validation."""
        world = world.named()
        return Tunable(
            name=self.name,
            knobs={name: arm.knob for name, arm in self.arms.items() if arm.knob},
            worlds={self.condition: world},
            make=self.make_run,
            judging=self.judging("trial"),
            metric="linear_validation",
            conditions=(self.condition,),
            trial_steps=self.trial_steps,
            shared=SHARED,
            facts={"data": world.open().source},
        )

    def plan(
        self,
        world: World,
        found: Mapping[str, Any],
        *,
        budget: str,
        samples: int,
        num_seeds: int,
        asked: Sequence[str],
        read_outs: Literal["auto", "quick", "full"],
        network: Network,
    ) -> Plan:
        """The comparison on these samples, with the settings that were found.

        budget     wall-clock time for everything; it counts where `samples` is 0.
        num_seeds  at most, where the budget counts.
        asked      the arms that should take part; untuned ones are left out, and that is said.

        Raises:
            ValueError: an arm that does not exist, nothing tuned, samples of fewer than two classes, or a budget that
                teaches nobody anything.
        """
        world = world.named()
        data, known = world.open(), found["conditions"][self.condition]
        chosen = self._choose(asked, known, data)
        make = {
            arm: partial(
                self.make_run,
                arm=arm,
                world=world,
                settings=known[arm]["settings"] if arm in known else {},
                network=network,
            )
            for arm in chosen
        }
        notes = self._caveats(found, asked, chosen)
        if not samples:
            trained = {arm: made for arm, made in make.items() if self.arms[arm].knob}
            memory = (world.cache or default_cache()) / "costs.json"
            allowance = allot(
                budget,
                seconds_per_sample=measured_costs(
                    list(trained),
                    lambda arm: trained[arm](0),
                    key=f"{data.sample_shape} {network} {self.batch_size}",
                    memory=memory,
                    batch_size=self.batch_size,
                ),
                num_train=len(data.indices("train")),
                num_classes=data.num_classes,
                num_test=len(data.indices("test")),
                most_seeds=num_seeds,
                noun=self.noun,
            )
            samples, num_seeds, notes = allowance.samples, allowance.num_seeds, [*allowance.notes, *notes]
        if read_outs == "auto":
            read_outs = "full" if samples >= self.full_from else "quick"
        labels = {arm: self.arms[arm].label for arm in chosen}
        return Plan(
            name=self.name,
            question=f"Frozen features of {data.source}: does predicting embeddings serve better than {self.rivals}?",
            cells=[Cell(arm, self.condition, make[arm]) for arm in chosen],
            seeds=range(num_seeds),
            budget=Budget(samples, "samples"),
            judging=self.judging(read_outs),
            contrasts=self.declare(chosen),
            arms=labels,
            conditions={self.condition: f"{len(data):,} {self.noun}, {data.num_classes} classes"},
            metrics=RECOGNITION,
            noun=self.noun,
            conclude=partial(advise, arms=labels, condition=self.condition, metric=METRIC, name=RECOGNITION[METRIC]),
            notes=[*notes, data.describe()],
            settings={
                "tuning": {k: v for k, v in found.items() if k != "conditions"},
                "conditions": {self.condition: {arm: known[arm] for arm in chosen if arm in known}},
            },
        )

    def _choose(self, asked: Sequence[str], known: Mapping[str, Any], data: Samples) -> list[str]:
        """Those of the arms asked for which are tuned, or need no tuning."""
        if unknown := [arm for arm in asked if arm not in self.arms]:
            raise ValueError(f"Unknown arms: {', '.join(unknown)}. There are {', '.join(self.arms)}.")
        if data.num_classes < 2:
            raise ValueError(
                f"There are labels of {data.num_classes} class(es) in {data.source}, and without two nothing can be "
                "judged. A few labels do: put files into a sub-folder for each class, or name them in --labels "
                "FILE.csv; of series, name their column."
            )
        chosen = [arm for arm in asked if self.arms[arm].knob is None or arm in known]
        if not any(self.arms[arm].knob for arm in chosen):
            raise ValueError(f"No arm has tuned settings, and untuned arms do not compete: run `{self.search}` first.")
        return chosen

    def _caveats(self, found: Mapping[str, Any], asked: Sequence[str], chosen: Sequence[str]) -> list[str]:
        notes = [
            f"Settings were tuned on {found.get('data', 'nothing yet')}, {found.get('num_trials', 'some')} short "
            f"trials an arm; `{self.search}` repeats the search on your {self.noun}."
        ]
        if left := [arm for arm in asked if arm not in chosen]:
            notes.append(f"Left out, for want of tuned settings: {', '.join(left)}.")
        return notes


def split_settings(settings: Mapping[str, Any], *, steps: int, batch_size: int) -> tuple[Schedule, dict[str, Any]]:
    """The schedule with the tuned lr and weight_decay, and the private knob that is left."""
    shared = {name: settings[name] for name in ("lr", "weight_decay") if name in settings}
    private = {name: value for name, value in settings.items() if name not in shared}
    return replace(Schedule(steps=steps, batch_size=batch_size), **shared), private
