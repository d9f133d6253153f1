"""What experiments with world models have in common: the arms, the episodes, the plan and the search behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from typing import Any

from jepalab.compare.cells import Budget, Cell, Judging, Unit
from jepalab.compare.contrasts import Better, Contrast, Equivalent
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan
from jepalab.compare.tune import Arm, Knob, Tunable
from jepalab.recipes import worlds
from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_bench import Rooms, WorldBench, WorldTraining
from jepalab.recipes.world_films import draw_world
from jepalab.recipes.world_judging import Planning, acting, acting_subjects, make_floor, understanding
from jepalab.run import Run

METRIC = "cross_ever_wide"
STEPS, TRIAL_STEPS = 3_000, 500
SLOWNESS = Knob("slowness", 1.0, 1_000.0)
ARMS: dict[str, Arm] = {
    "J1": Arm("JEPA + VICReg + slowness + inverse dynamics", worlds.vicreg_world, SLOWNESS),
    "J2": Arm("JEPA + SIGReg + slowness + inverse dynamics", worlds.sigreg_world, SLOWNESS),
    "J3": Arm("JEPA + EMA teacher + inverse dynamics", worlds.ema_world, Knob("inverse", 0.1, 100.0)),
    "A1": Arm("JEPA kept up by inverse dynamics alone", worlds.inverse_world, Knob("inverse", 0.1, 100.0)),
    "G1": Arm("Pixels of rollouts, slowness", worlds.pixel_world, Knob("slowness", 0.001, 100.0)),
    "G1+J": Arm("Pixels of rollouts, latent loss", worlds.pixel_latent_world, Knob("latent", 0.01, 10.0)),
    "G2": Arm("Auto-encoder first, dynamics after", worlds.frozen_autoencoder_world, Knob("decoder_share", 0.2, 0.8)),
    "G3": Arm(
        "Next frame in pixels, pixel cost", worlds.frame_world, Knob("decoder_width", 8, 32, scale="power of two")
    ),
    "G4": Arm(
        "Next frame by diffusion, pixel cost",
        worlds.diffusion_world,
        Knob("decoder_width", 8, 32, scale="power of two"),
    ),
    "J1m": Arm("J1 with shuffled actions (floor)", worlds.shuffled_world),
    "R": Arm("Dynamics on a random encoder (floor)", worlds.random_encoder_world),
    "CHANCE": Arm("Random actions (floor)", partial(make_floor, name="random")),
    "SIM": Arm("The environment itself (ceiling)", partial(make_floor, name="oracle")),
}
FRAMES = (
    "G3 and G4 imagine frame by frame, with an encoder and a decoder at every step: they plan with a tenth of the "
    "candidates and are tested on a tenth of the episodes."
)
MAIN = ("J1", "J2", "J3", "G1", "G2", "R", "CHANCE", "SIM")
TRIAL_EPISODES = Planning(cross_room=60, same_room=0, num_steps=100, episode_seed=1_007)
METRICS = {
    METRIC: "arrived, other room",
    "cross_end_wide": "there at the end, other room",
    "cross_ever_tight": "arrived within 1.4 px, other room",
    "cross_end_tight": "at the end within 1.4 px, other room",
    "same_ever_wide": "arrived, same room",
    "same_end_wide": "there at the end, same room",
    "cross_steps_wide": "median steps",
    "ms_per_action": "ms an action",
    "geodesic_rank": "latent distance, by the way",
    "euclidean_rank": "latent distance, by the line",
    "position_r2": "position R²",
    "ahead_12": "error 12 ahead over persistence",
    "ahead_12_px": "pixels off, 12 ahead",
    "action_error": "action told, pixels off",
    "teleport_auroc": "surprised by a jump",
    "dimmed_auroc": "alarmed by dimming",
    "light_accuracy": "light told (0.5 is chance)",
    "television_r2": "television R²",
    "straightness": "straightness",
    "rankme": "RankMe",
}


@dataclass(frozen=True)
class WorldLab:
    """One experiment with world models.

    conditions  worlds by name; the arms of a condition that is not in `tuned_on` were tuned under that condition.
    tuned_on    under which other condition the arms of a condition were tuned.
    declare     the contrasts between competing (arm, condition), declared before any final seed ran.
    metrics     how the chief metrics are printed; by the first of them trials are ranked.
    trials      on which episodes, which no comparison plays.
    """

    name: str
    question: str
    conditions: Mapping[str, Rooms | Stored]
    words: Mapping[str, str]
    declare: Callable[[set[tuple[str, str]]], list[Contrast]]
    tuned_on: Mapping[str, str] = field(default_factory=dict)
    courses: Sequence[Course] = ()
    notes: Sequence[str] = ()
    metrics: Mapping[str, str] = field(default_factory=lambda: METRICS)
    trials: Planning = TRIAL_EPISODES

    def plan(
        self,
        *,
        arms: Sequence[str],
        conditions: Sequence[str],
        num_seeds: int,
        budget: float,
        unit: Unit,
        planning: Planning,
    ) -> Plan:
        """Every tuned arm and the floors under those conditions."""
        found = self.read_tuned()
        known = {name: found["conditions"].get(self.tuned_on.get(name, name), {}) for name in conditions}
        if unknown := [arm for arm in arms if arm not in ARMS]:
            raise ValueError(f"Unknown arms: {', '.join(unknown)}. There are {', '.join(ARMS)}.")
        cells = [
            Cell(
                arm,
                name,
                partial(make_world_run, arm=arm, world=self.conditions[name], settings=_settings(known[name], arm)),
            )
            for name in conditions
            for arm in arms
            if arm in known[name] or (ARMS[arm].knob is None and (arm != "J1m" or "J1" in known[name]))
        ]
        if not any(ARMS[cell.arm].knob for cell in cells):
            raise ValueError(
                f"No arm has tuned settings, and untuned arms do not compete: run `jepalab tune {self.name}` first."
            )
        competing = {(cell.arm, cell.condition) for cell in cells}
        return Plan(
            name=self.name,
            question=self.question,
            cells=cells,
            seeds=range(num_seeds),
            budget=Budget(budget, unit),
            judging=Judging(
                instruments=(understanding, acting),
                curve=(acting,),
                curve_at=(0.25, 0.5),
                draw=partial(draw_world, seed=0, planning=planning),
                subjects=partial(acting_subjects, planning=planning),
            ),
            contrasts=self.declare(competing),
            arms={arm: ARMS[arm].label for arm in arms if any(arm == each for each, _ in competing)},
            conditions={name: self.words[name] for name in conditions},
            metrics=self.metrics,
            courses=[course for course in self.courses if len({*course.places} & {*conditions}) > 1],
            notes=[
                _describe(planning, is_rooms=all(isinstance(self.conditions[name], Rooms) for name in conditions)),
                *([FRAMES] if {"G3", "G4"} & {*arms} else []),
                *self.notes,
            ],
            settings={
                "tuning": {k: v for k, v in found.items() if k != "conditions"},
                "conditions": {name: {arm: known[name][arm] for arm in arms if arm in known[name]} for name in known},
            },
        )

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
                instruments=(acting,), curve=(), curve_at=(), subjects=partial(acting_subjects, planning=self.trials)
            ),
            metric=next(iter(self.metrics)),
            conditions=conditions,
            trial_steps=TRIAL_STEPS,
        )

    def read_tuned(self) -> dict[str, Any]:
        """What the recorded search chose, and how it went; no settings where there was none."""
        file = files("jepalab.recipes").joinpath(f"{self.name}.tuned.json")
        return json.loads(file.read_text()) if file.is_file() else {"conditions": {}}


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


def tie_of_camps(condition: str) -> Equivalent:
    """In clean rooms embeddings and pixels do alike."""
    return Equivalent(
        "Clean rooms: no difference between embeddings and pixels",
        better="J1",
        than="G1",
        metric=METRIC,
        condition=condition,
        margin=0.05,
        floor="CHANCE",
        because="Without distractors both targets hold the position, and the same planner uses it.",
        source="DINO-WM, arXiv 2411.04983, table 1: DreamerV3 1.00, DINO-WM .96 on the wall",
    )


def that_apply(claims: Sequence[Better | Equivalent], competing: set[tuple[str, str]]) -> list[Contrast]:
    """Those whose arms both compete under the condition."""
    return [c for c in claims if {(c.better, c.condition), (c.than, c.condition)} <= competing]


def make_world_run(
    seed: int, *, arm: str, world: Rooms | Stored, settings: Mapping[str, Any], steps: int = STEPS
) -> Run:
    """The run of one arm in one world with the given lr, weight_decay and private knob."""
    shared = {name: value for name, value in settings.items() if name in ("lr", "weight_decay")}
    private = {name: value for name, value in settings.items() if name not in shared}
    training = replace(WorldTraining(steps=steps), **shared)
    if isinstance(world, Stored):
        return ARMS[arm].make(WorldBench(stored=world, training=training, seed=seed), **private)
    return ARMS[arm].make(WorldBench(world=world, training=training, seed=seed), **private)


def _describe(planning: Planning, *, is_rooms: bool) -> str:
    """Which episodes are played, for the head of the report."""
    if not is_rooms:
        return (
            f"{planning.cross_room} episodes of {planning.num_steps} steps, the same for every arm and seed (seed "
            f"{planning.episode_seed}): starts and goals are states of held-out episodes, none solved at the start."
        )
    return (
        f"{planning.cross_room} episodes into the other room and {planning.same_room} within one, {planning.num_steps} "
        f"steps each, the same for every arm and seed (seed {planning.episode_seed}); none is solved at the start. A "
        "goal counts as reached within 4.5 px (EB-JEPA) or 1.4 px (PLDM)."
    )


def _settings(known: Mapping[str, Any], arm: str) -> Mapping[str, Any]:
    """An arm's tuned settings. The control with shuffled actions has those of the arm that it controls, and dynamics on
    a random encoder have its learning rate and decay.
    """
    found = known.get("J1" if arm in ("J1m", "R") else arm, {}).get("settings", {})
    return {name: value for name, value in found.items() if name in ("lr", "weight_decay")} if arm == "R" else found
