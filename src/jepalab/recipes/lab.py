"""What experiments on one's own labelled samples have in common, be they pictures, clips or series.

Which arms take part (those with tuned settings), for how long (what a budget buys), what has to be said about it, and
the search that tunes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
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
from jepalab.recipes.allowance import allot, conclusions, measured_costs, time_pass
from jepalab.recipes.lab_costs import Further, cell_seconds, num_read
from jepalab.recipes.lab_notes import how_ranked, tuning_caveats
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.recipes.settings import entries, read_settings
from jepalab.run import Run

METRIC = "linear"
PREFER = "linear_validation"  # by which the last weights or their average stand for an arm
SHARED = (Knob("lr", 3e-4, 3e-3), Knob("weight_decay", 1e-3, 2e-1))
ReadOuts = Literal["trial", "quick", "full"]


@runtime_checkable
class World(Protocol):
    """Where samples come from, as flags say it."""

    @property
    def cache(self) -> Path | None: ...

    def open(self) -> Samples: ...

    @property
    def digest(self) -> str: ...

    def named(self) -> World:
        """The same, known by its content, of which this is the digest."""
        ...


@dataclass(frozen=True)
class Lab:
    """One kind of samples, and the arms that learn from them.

    name         of the experiment: `jepalab tune NAME` searches its settings, `read_settings` finds them.
    condition    the one condition that there is, and `noun`, what its samples are called.
    rivals       what predicting embeddings is held against, in the question.
    arms         by name.
    make_run     (seed, *, arm, world, settings, network, steps) -> Run.
    judging      how cells are judged, by the depth of the read-outs.
    declare      the contrasts that apply to these arms.
    batch_size   of every arm; `trial_steps` of a trial of the search.
    full_from    samples from which on "auto" reads out in full.
    metrics      the chief ones and how they are printed, the primary one first.
    unrecorded   network and shape of a sample in searches that did not write them down.
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
    metrics: Mapping[str, str] = field(default_factory=lambda: RECOGNITION)
    unrecorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def search(self) -> str:
        """The command that tunes the arms."""
        return f"jepalab tune {self.name}"

    def tuned(self, world: World, file: Path | None = None) -> dict[str, Any]:
        """What a search chose, on these samples if there was one, and how it went; see `read_settings`."""
        found = read_settings(self.name, file=file, digest=world.named().digest)
        return found | {"conditions": {self.condition: {}} | found["conditions"]}

    def tunable(self, world: World, *, network: Network | None = None) -> Tunable:
        """The search: every arm by linear accuracy on validation, of last or averaged weights as in comparisons.

        network  another than the one that `make_run` has of itself.
        """
        world = world.named()
        data = world.open()
        return Tunable(
            name=self.name,
            knobs={name: arm.knob for name, arm in self.arms.items() if arm.knob},
            worlds={self.condition: world},
            make=self.make_run if network is None else partial(self.make_run, network=network),
            judging=replace(self.judging("trial"), prefer=PREFER),
            metric="linear_validation",
            conditions=(self.condition,),
            trial_steps=self.trial_steps,
            shared=SHARED,
            facts={"data": data.source, "digest": world.digest},
            of_each={"prefer": PREFER} | ({} if network is None else _place(network, data)),
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
        num_workers: int = 0,
        further: Callable[[Sequence[str]], Sequence[Further]] = lambda chosen: (),
    ) -> Plan:
        """The comparison on these samples, with the settings that were found.

        budget     wall-clock time for everything; it counts where `samples` is 0.
        num_seeds  at most, where the budget counts; num_workers likewise, runs at a time.
        asked      the arms that should take part; untuned ones are left out, and that is said.
        further    read-outs beside the lab's own, given the arms that take part; the budget pays for them too.

        Raises:
            ValueError: an arm that does not exist, nothing tuned, samples of fewer than two classes, or a budget that
                teaches nobody anything.
        """
        world = world.named()
        data, known = world.open(), found["conditions"][self.condition]
        chosen = self._choose(asked, known, data)
        more = further(chosen)
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
        notes = tuning_caveats(
            found,
            known,
            asked=asked,
            chosen=chosen,
            search=self.search,
            noun=self.noun,
            here=_place(network, data),
            unrecorded=self.unrecorded,
        )
        if not samples:
            costs = self._costs(make, world, data, network)

            def bought(read_outs: Literal["quick", "full"]) -> tuple[int, int]:
                return allot(
                    budget,
                    seconds_per_sample={arm: costs[arm] for arm in chosen if arm in costs},
                    judging_seconds=cell_seconds(costs, chosen, data, self.judging(read_outs), more),
                    most_seeds=num_seeds,
                    num_workers=num_workers,
                    noun=self.noun,
                )

            if read_outs == "auto":
                # Reading out in full has its price: it has to leave enough to train on.
                can_be_full = bought("quick")[0] >= self.full_from and bought("full")[0] >= self.full_from
                read_outs = "full" if can_be_full else "quick"
            samples, num_seeds = bought(read_outs)
        elif read_outs == "auto":
            read_outs = "full" if samples >= self.full_from else "quick"
        judging = replace(self.judging(read_outs), prefer=PREFER).with_more(*(each.instrument for each in more))
        told = conclusions(
            samples,
            num_seeds,
            num_train=len(data.indices("train")),
            num_classes=data.num_classes,
            num_test=num_read(data, judging)["test"],
            num_labelled=int((data.labels[data.indices("train")] >= 0).sum()),
            noun=self.noun,
        )
        declared = self.declare(chosen)
        # One that cannot be tested would count in Holm's correction, as a p-value of 1.
        contrasts = [claim for claim in declared if claim.metric not in judging.skipped]
        if left := [claim.name for claim in declared if claim not in contrasts]:
            notes.append(f"Contrasts left out, as only --read-outs full has their metric: {'; '.join(left)}.")
        labels = {arm: self.arms[arm].label for arm in chosen}
        return Plan(
            name=self.name,
            question=f"Frozen features of {data.source}: does predicting embeddings serve better than {self.rivals}?",
            cells=[Cell(arm, self.condition, make[arm]) for arm in chosen],
            seeds=range(num_seeds),
            budget=Budget(samples, "samples"),
            judging=judging,
            contrasts=contrasts,
            arms=labels,
            conditions={self.condition: f"{len(data):,} {self.noun}, {data.num_classes} classes"},
            metrics=self.metrics,
            noun=self.noun,
            conclude=partial(advise, arms=labels, condition=self.condition, metric=METRIC, name=RECOGNITION[METRIC]),
            notes=[
                *told,
                *notes,
                data.describe() + (" Each run's skipped.txt names what is left out." if data.left_out() else ""),
            ],
            settings={
                "tuning": {k: v for k, v in found.items() if k != "conditions"}
                | {"note": how_ranked(known, chosen, prefer=PREFER)},
                "conditions": {
                    self.condition: entries(
                        found, self.condition, {arm: self.arms[arm] for arm in chosen}, shared=SHARED
                    )
                },
            },
        )

    def _costs(
        self, make: Mapping[str, Callable[[int], Run]], world: World, data: Samples, network: Network
    ) -> dict[str, float]:
        """On one core: seconds a sample of each trained arm, its number of encoders, and seconds a pass through one."""
        trained = {arm: made for arm, made in make.items() if self.arms[arm].knob}

        def step(arm: str) -> float:
            return trained[arm](0).mean_step(Run.time_step) / self.batch_size

        def encoders(arm: str) -> float:
            return float(len(trained[arm](0).objective.probed_encoders()))

        measures = {arm: partial(step, arm) for arm in trained}
        measures |= {f"encoders of {arm}": partial(encoders, arm) for arm in trained}
        measures["pass"] = lambda: time_pass(next(iter(trained.values()))(0))
        memory = (world.cache or default_cache()) / "costs.json"
        return measured_costs(measures, key=f"{data.sample_shape} {network} {self.batch_size} averaged", memory=memory)

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


def _place(network: Network, data: Samples) -> dict[str, Any]:
    """Network and shape of a sample, as JSON holds them."""
    return {"network": asdict(network), "shape": [*data.sample_shape]}


def split_settings(settings: Mapping[str, Any], *, steps: int, batch_size: int) -> tuple[Schedule, dict[str, Any]]:
    """The schedule with the tuned lr and weight_decay, and the private knob that is left."""
    shared = {name: settings[name] for name in ("lr", "weight_decay") if name in settings}
    private = {name: value for name, value in settings.items() if name not in shared}
    return replace(Schedule(steps=steps, batch_size=batch_size), **shared), private
