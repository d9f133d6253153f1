"""What experiments with world models have in common: the arms, the episodes, the plan and the search behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from jepalab.compare.cells import Budget, Cell, Judging, Unit
from jepalab.compare.contrasts import Better, Contrast, Equivalent
from jepalab.compare.courses import Course
from jepalab.compare.further_contrasts import Exceeds, ManyTimes, Rises, StaysBelow, Widens
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Tunable
from jepalab.data.trajectories import TrajectoryStream
from jepalab.recipes.settings import entries, read_settings, say_where
from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_arms import ARMS, LIKE, METRIC, METRICS
from jepalab.recipes.world_bench import DynamicsName, Rooms, WorldBench, WorldNetwork, WorldTraining
from jepalab.recipes.world_films import draw_world
from jepalab.recipes.world_judging import (
    ActingSubject,
    Planning,
    acting,
    acting_subjects,
    keep_outcomes,
    understanding,
)
from jepalab.recipes.world_notes import describe_test, describe_trials, describe_untuned
from jepalab.recipes.world_tests import with_a_tenth
from jepalab.run import Run
from jepalab.types import Objective

STEPS, TRIAL_STEPS = 2_000, 500
TIED = {"J1": "embeddings", "J1-A1": "embeddings without inverse dynamics"}
GOALS = (0.5, 0.9)  # of the goals reached: what it cost to get there is told
TRIAL_EPISODES = Planning(cross_room=60, same_room=0, num_steps=100, episode_seed=1_007)


class Memory(NamedTuple):
    """The dynamics of every arm, and how many frames they are given."""

    dynamics: DynamicsName
    history: int


@dataclass(frozen=True)
class WorldLab:
    """One experiment with world models.

    conditions  worlds by name; the arms of a condition that is not in `tuned_on` were tuned under that condition.
    tuned_on    under which other condition the arms of a condition were tuned.
    declare     the contrasts between competing (arm, condition), declared before any final seed ran; Holm's correction
                is over these alone, so they are few.
    explore     further ones, of which the report gives numbers and no verdict.
    metrics     how the chief metrics are printed; by the first of them trials are ranked.
    trials      on which episodes, which no comparison plays.
    tests       instruments beside those of every experiment.
    networks    of conditions whose networks are not the usual ones.
    equal_compute  conditions in which every arm has as many steps as J1's training FLOPs pay for.
    """

    name: str
    question: str
    conditions: Mapping[str, Rooms | Stored]
    words: Mapping[str, str]
    declare: Callable[[set[tuple[str, str]]], list[Contrast]]
    explore: Callable[[set[tuple[str, str]]], list[Contrast]] = lambda _: []
    tuned_on: Mapping[str, str] = field(default_factory=dict)
    courses: Sequence[Course] = ()
    notes: Sequence[str] = ()
    metrics: Mapping[str, str] = field(default_factory=lambda: METRICS)
    trials: Planning = TRIAL_EPISODES
    tests: Sequence[Callable[[ActingSubject], dict[str, float]]] = (with_a_tenth,)
    networks: Mapping[str, WorldNetwork] = field(default_factory=dict)
    equal_compute: Collection[str] = ()

    def plan(
        self,
        *,
        arms: Sequence[str],
        conditions: Sequence[str],
        num_seeds: int,
        budget: float,
        unit: Unit,
        planning: Planning,
        given: Mapping[str, Mapping[str, Any]] | None = None,
        dynamics: DynamicsName = "residual",
    ) -> Plan:
        """Every tuned arm and the floors under those conditions.

        given     what else an arm's recipe is told, by arm.
        dynamics  of every arm; those with memory are trained on as many frames as `planning` gives them.
        """
        found = self.read_tuned()
        known = {name: entries(found, name, ARMS, tuned_on=self.tuned_on.get(name)) for name in conditions}
        if unknown := [arm for arm in arms if arm not in ARMS]:
            raise ValueError(f"Unknown arms: {', '.join(unknown)}. There are {', '.join(ARMS)}.")
        if unit not in ("steps", "samples") and {*self.equal_compute} & {*conditions}:
            raise ValueError(f"A budget in {unit} gives each arm other steps already; give it in steps or samples.")
        memory, told = Memory(dynamics, planning.history), given or {}
        cells = [
            Cell(arm, name, self._maker(name, arm, {**_settings(known[name], arm), **told.get(arm, {})}, memory))
            for name in conditions
            for arm in arms
            if arm in known[name] or (ARMS[arm].knob is None and (arm not in LIKE or LIKE[arm] in known[name]))
        ]
        if not any(ARMS[cell.arm].knob for cell in cells):
            raise ValueError(
                f"No arm has tuned settings, and untuned arms do not compete: run `jepalab tune {self.name}` first."
            )
        untuned = [arm for arm in arms if ARMS[arm].knob and any(arm not in there for there in known.values())]
        chosen = [there[arm] for there in known.values() for arm in arms if arm in there]
        competing = {(cell.arm, cell.condition) for cell in cells}
        return Plan(
            name=self.name,
            question=self.question,
            cells=cells,
            seeds=range(num_seeds),
            budget=Budget(budget, unit),
            judging=Judging(
                instruments=(understanding, acting, *self.tests),
                curve=(acting,),
                curve_at=(0.25, 0.5),
                draw=partial(draw_world, seed=0, planning=planning),
                keep=keep_outcomes,
                subjects=partial(acting_subjects, planning=planning),
            ),
            contrasts=self.declare(competing),
            exploratory=self.explore(competing),
            arms={arm: ARMS[arm].label for arm in arms if any(arm == each for each, _ in competing)},
            conditions={name: self.words[name] for name in conditions},
            metrics=self.metrics,
            goals=GOALS,
            courses=[course for course in self.courses if len({*course.places} & {*conditions}) > 1],
            notes=[
                *describe_test(planning, {name: self.conditions[name] for name in conditions}, arms),
                *describe_untuned(self.name, untuned),
                *(
                    []
                    if dynamics == "residual"
                    else [f"Every arm's dynamics are '{dynamics}'; settings were chosen with 'residual'."]
                ),
                f"Settings were chosen by {describe_trials(chosen, usual=found.get('steps', TRIAL_STEPS))}; here every "
                f"arm may spend {budget:,.0f} {unit}.",
                *self.notes,
                *say_where(found),
            ],
            settings={
                "tuning": {k: v for k, v in found.items() if k != "conditions"},
                "conditions": {name: {arm: known[name][arm] for arm in arms if arm in known[name]} for name in known},
            },
        )

    def _maker(self, condition: str, arm: str, settings: Mapping[str, Any], memory: Memory) -> Callable[[int], Run]:
        """The run of an arm under a condition, by its seed. What is usual is not said: it tells no cells apart."""
        make = make_equal_compute_run if condition in self.equal_compute else make_world_run
        network = replace(self.networks.get(condition, WorldNetwork()), dynamics=memory.dynamics)
        other: dict[str, Any] = {} if network == WorldNetwork() else {"network": network}
        if memory.dynamics == "causal" and memory.history > 1:
            other["history"] = memory.history
        return partial(make, arm=arm, world=self.conditions[condition], settings=settings, **other)

    def tunable(self, conditions: Sequence[str]) -> Tunable:
        """The search behind this experiment's settings: every arm by the goals it reaches, of episodes that no
        comparison plays.
        """
        return Tunable(
            name=self.name,
            knobs={name: arm.knob for name, arm in ARMS.items() if arm.knob},
            worlds=self.conditions,
            make=make_world_run,
            judging=Judging(
                instruments=(acting,), curve=(), curve_at=(), subjects=partial(trial_subjects, planning=self.trials)
            ),
            metric=next(iter(self.metrics)),
            conditions=conditions,
            trial_steps=TRIAL_STEPS,
        )

    def read_tuned(self) -> dict[str, Any]:
        """What the recorded search chose, and how it went; no settings where there was none."""
        return read_settings(self.name)


def trial_subjects(
    objective: Objective, stream: TrajectoryStream, *, planning: Planning, share: float = 1.0
) -> dict[str, ActingSubject]:
    """What a search judges: as `acting_subjects`, on the validation split, so that no setting is chosen on the test."""
    return acting_subjects(objective, stream.judged_on("validation"), planning=planning, share=share)


def claim(text: str, *, because: str, source: str, metric: str = METRIC) -> Better:
    """A contrast out of "better > than | condition"."""
    arms, condition = text.split(" | ")
    better, than = arms.split(" > ")
    what = "arrives more often than" if "_ever_" in metric else f"is ahead in '{METRICS[metric]}' of"
    return Better(
        f"{ARMS[better].label} {what} {ARMS[than].label}, {condition}",
        better=better,
        than=than,
        metric=metric,
        condition=condition,
        because=because,
        source=source,
    )


def tie_of_camps(condition: str, *, where: str = "Clean rooms", embeddings: str = "J1") -> Equivalent:
    """In clean rooms embeddings and pixels do alike. "J1-A1" is what differs from G1 in the objective alone: J1 is told
    the actions as well.
    """
    return Equivalent(
        f"{where}: no difference between {TIED[embeddings]} and pixels",
        better=embeddings,
        than="G1",
        metric=METRIC,
        condition=condition,
        margin=0.05,
        floor="CHANCE",
        because="Without distractors both targets hold the position, and the same planner uses it.",
        source="DINO-WM, arXiv 2411.04983, table 1: DreamerV3 1.00, DINO-WM .96 on the wall",
    )


Claim = Better | Equivalent | Widens | Rises | Exceeds | StaysBelow | ManyTimes


def that_apply(claims: Sequence[Claim], competing: set[tuple[str, str]]) -> list[Contrast]:
    """Those whose arms compete under the condition, or under both where there are two."""

    def named(contrast: Claim) -> set[tuple[str, str]]:
        if isinstance(contrast, Better | Equivalent):
            return {(arm, contrast.condition) for arm in (contrast.better, contrast.than)}
        return contrast.places

    return [contrast for contrast in claims if named(contrast) <= competing]


def make_world_run(
    seed: int,
    *,
    arm: str,
    world: Rooms | Stored,
    settings: Mapping[str, Any],
    network: WorldNetwork | None = None,
    history: int = 1,
    steps: int = STEPS,
) -> Run:
    """The run of one arm in one world with the given lr, weight_decay and private knob."""
    shared = {name: value for name, value in settings.items() if name in ("lr", "weight_decay")}
    private = {name: value for name, value in settings.items() if name not in shared}
    training = replace(WorldTraining(steps=steps, history=history), **shared)
    bench = WorldBench(network=network or WorldNetwork(), training=training, seed=seed)
    bench = replace(bench, stored=world) if isinstance(world, Stored) else replace(bench, world=world)
    return ARMS[arm].make(bench, **private)


def make_equal_compute_run(
    seed: int,
    *,
    arm: str,
    world: Rooms | Stored,
    settings: Mapping[str, Any],
    network: WorldNetwork | None = None,
    history: int = 1,
    steps: int = STEPS,
) -> Run:
    """As `make_world_run`, on as many steps as cost what those would cost J1: what is prepared counts too."""
    run, like = (
        make_world_run(seed, arm=each, world=world, settings=chosen, network=network, history=history, steps=steps)
        for each, chosen in ((arm, settings), ("J1", {}))
    )
    if not run.steps:
        return run
    dearer = run.total(Run.count_flops) / like.total(Run.count_flops)

    def on(steps: int) -> Run:
        return run.on_steps(max(2, round(steps / dearer)))

    return replace(on(steps), remake=on)


def _settings(known: Mapping[str, Any], arm: str) -> Mapping[str, Any]:
    """An arm's tuned settings. What differs from another arm in one thing has that arm's but for what makes it differ,
    and dynamics on an encoder that does not learn have J1's learning rate and decay.
    """
    is_frozen = arm in ("R", "F")
    found = known.get("J1" if is_frozen else LIKE.get(arm, arm), {}).get("settings", {})
    if is_frozen:
        return {name: value for name, value in found.items() if name in ("lr", "weight_decay")}
    make = ARMS[arm].make
    is_set = make.keywords if isinstance(make, partial) else {}
    return {name: value for name, value in found.items() if name not in is_set}
