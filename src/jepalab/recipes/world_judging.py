"""How world models are judged: by the same planner, on the same episodes, beside a floor and a ceiling."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.data.trajectories import TrajectoryStream
from jepalab.dist import Precision
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Agent, Imagination, PlanningAgent, Played, RandomAgent, Simulation
from jepalab.instruments.bystanders import bystanders
from jepalab.instruments.imagining import (
    Looks,
    WorldSubject,
    energy_landscape,
    geodesics,
    imagination,
    input_statistics,
    teleport_surprise,
    world_state,
    world_subject,
)
from jepalab.instruments.manifests import draw_manifest
from jepalab.instruments.planning import Trial, diagnose_searches, success
from jepalab.planners.costs import OverTime, at_the_end
from jepalab.planners.mppi import MPPI
from jepalab.planners.planner import Planner
from jepalab.recipes.world_bench import Walks, WorldBench
from jepalab.recipes.world_grounds import Ground, TooFewStatesError, ground_of, rooms_ground
from jepalab.run import Run
from jepalab.types import Batch, Objective, Space, WorldModel

FloorName = Literal["random", "oracle"]


@dataclass(frozen=True)
class Planning:
    """How every agent plans, and on which episodes it is tested.

    Args:
        cross_room: episodes whose goal lies in the other room; all episodes where there are no rooms.
        same_room: episodes whose goal lies in the same room.
        num_steps: of every episode.
        episode_seed: of starts and goals.
        planning_seed: of the planner's candidates.
        horizon: steps that are imagined ahead.
        num_executed: actions that are taken before the next search.
        num_samples: candidates in an iteration of the search.
        num_iterations: of the search.
        precision: of what is imagined; "bf16" is faster on most machines.
    """

    cross_room: int = 200
    same_room: int = 100
    num_steps: int = 200
    episode_seed: int = 7
    planning_seed: int = 0
    horizon: int = 12
    num_executed: int = 2
    num_samples: int = 100
    num_iterations: int = 5
    precision: Precision = "bf16"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"An episode has at least one step, got num_steps={self.num_steps}.")

    def of_seed(self, seed: int) -> Planning:
        """The same episodes with candidates of their own for each run, whose luck is no other's."""
        return replace(self, planning_seed=self.planning_seed + 1_000_003 * (seed + 1))

    def through_frames(self) -> Planning:
        """What a model can afford that encodes and decodes a frame at every imagined step: a tenth of the candidates
        and of the episodes.
        """
        return replace(
            self,
            cross_room=min(self.cross_room, max(8, self.cross_room // 10)),
            same_room=min(self.same_room, max(4, self.same_room // 10)),
            num_samples=max(10, self.num_samples // 10),
        )

    def planner(self) -> Planner:
        """The low-compute planner of the newer EB-JEPA (arXiv 2602.03604), its temperature in units of the elites'."""
        return MPPI(
            self.num_samples,
            num_elites=max(2, self.num_samples // 10),
            num_iterations=self.num_iterations,
            std=1.0,
            max_std=2.0,
        )

    def trial(self, where: TwoRooms | Ground) -> Trial:
        """The episodes, and within which radii a goal counts as reached."""
        ground = _ground(where)
        counts = {"all": self.cross_room, "cross": self.cross_room, "same": self.same_room}
        num, radius = {group: counts[group] for group in ground.groups}, max(ground.radii.values())
        manifest = draw_manifest(ground.env, ground.groups, num=num, seed=self.episode_seed, radius=radius)
        return Trial(ground.env, manifest, ground.radii, num_steps=self.num_steps, seed=self.planning_seed)

    def agent(self, model: WorldModel, where: TwoRooms | Ground, *, over_time: OverTime = at_the_end) -> PlanningAgent:
        """The agent of a world model, which considers no longer actions than the model was shown."""
        ground = _ground(where)
        foresight = Imagination(model, over_time=over_time, frameskip=ground.frameskip, precision=self.precision)
        return PlanningAgent(foresight, self.planner(), self.horizon, self.num_executed, ground.max_norm)

    def stand_in(self, name: FloorName, where: TwoRooms | Ground) -> Agent:
        """The floor, which acts by chance, or the ceiling, which plans in the environment itself.

        ValueError for a ceiling in an environment that takes too long for that.
        """
        ground = _ground(where)
        if name == "random":
            return RandomAgent(ground.max_norm)
        if not ground.is_fast:
            raise ValueError(f"To plan in {ground.name} itself would take days; there is no ceiling here.")
        foresight = Simulation(frameskip=ground.frameskip)
        return PlanningAgent(foresight, self.planner(), self.horizon, self.num_executed, ground.max_norm)


class Floor(Objective):
    """Holds the name of an agent that learned nothing; it has no terms and cannot be trained."""

    compares: ClassVar[Mapping[str, Space]] = {}

    def __init__(self, name: FloorName) -> None:
        super().__init__()
        self.name = name
        self.encoder = ConvEncoder(8, dim=4).requires_grad_(False)
        self.weights = {}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        raise ValueError("Nothing is learned here; give the run steps=0.")

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        return cls("random"), Batch(x=torch.rand(4, 3, 1, 8, 8))


def make_floor(shared: WorldBench, *, name: FloorName) -> Run:
    """A floor or ceiling, as a run of no steps."""
    return replace(shared.run(Floor(name)), steps=0)


@dataclass(frozen=True)
class ActingSubject:
    """What is judged: an objective, where it acts, how, and what it makes of held-out clips if it is a world model.

    ground  None where the episodes it learned from name no environment that can be made here.
    share   of the episodes to play.
    """

    objective: Objective
    ground: Ground | None
    planning: Planning
    world: WorldSubject | None
    share: float


def acting_subjects(
    objective: Objective, stream: TrajectoryStream, *, planning: Planning, share: float = 1.0
) -> dict[str, ActingSubject]:
    """The one thing that is judged of a world model, or of a floor. It is moved to the CPU and put in evaluation."""
    objective.eval().cpu()
    ground, model = _ground_or_none(stream, planning), _world_model(objective)
    world = None if model is None or ground is None else world_subject(model, ground.env, stream, share=share)
    return {"model": ActingSubject(objective, ground, planning.of_seed(stream.seed), world, share)}


def _ground_or_none(stream: TrajectoryStream, planning: Planning) -> Ground | None:
    """Training must not end in an error because the world, of which there are recordings, is not installed."""
    try:
        return ground_of(stream, num_at_once=planning.cross_room + planning.same_room)
    except ValueError as error:
        _unjudged(error)
        return None


def _unjudged(error: ValueError) -> dict[str, float]:
    """No scores, and why."""
    print(f"not judged by acting: {error}", file=sys.stderr)
    return {}


def _ground(where: TwoRooms | Ground) -> Ground:
    return where if isinstance(where, Ground) else rooms_ground(where)


def environment_of(stream: TrajectoryStream) -> TwoRooms:
    """The rooms in which a stream's walks were simulated."""
    walks = stream.recorded["test"]
    assert isinstance(walks, Walks)
    return walks.rooms


def understanding(subject: ActingSubject) -> dict[str, float]:
    """Everything that the instruments of world models say; nothing of a floor, nor without an environment.

    Distances are surveyed in our own environments only, and actions told where each step has its frame.
    """
    if subject.world is None or subject.ground is None:
        return {}
    surveyed = (geodesics,) if subject.ground.is_fast else ()
    told = (energy_landscape,) if subject.ground.is_fast and subject.ground.frameskip == 1 else ()
    instruments = (
        *(world_state, imagination, *surveyed, *told, teleport_surprise),
        *(input_statistics, bystanders),
    )
    return {name: value for instrument in instruments for name, value in instrument(subject.world).items()}


def acting(subject: ActingSubject) -> dict[str, float]:
    """Success by planning, and what it took; nothing where there is no environment, or too little held out, to act.

    The episodes are played anew: the objective may have learned since. Whoever draws them afterwards sees these.
    """
    if subject.ground is None:
        return {}
    _PLAYED.pop(subject.objective, None)
    try:
        trial, played = episodes(subject.objective, subject.ground, _shortened(subject.planning, subject.share))
    except TooFewStatesError as error:
        return _unjudged(error)
    return success(trial, played) | diagnose_searches(played)


_PLAYED: WeakKeyDictionary[Objective, tuple[Planning, Trial, Played]] = WeakKeyDictionary()


def episodes(objective: Objective, where: TwoRooms | Ground, planning: Planning) -> tuple[Trial, Played]:
    """The test and what happened in it, played once for all who look at it while the objective lives.

    Models that imagine frames plan as `Planning.through_frames` has it.
    """
    imagines: object = objective
    planning = planning.through_frames() if isinstance(imagines, Looks) else planning
    known = _PLAYED.get(objective)
    if known is None or known[0] != planning:
        trial, model = planning.trial(where), _world_model(objective)
        if model is not None:
            agent: Agent = planning.agent(model, where)
        elif isinstance(objective, Floor):
            agent = planning.stand_in(objective.name, where)
        else:
            raise ValueError(f"{type(objective).__name__} neither imagines nor stands in for an agent; it cannot act.")
        known = _PLAYED[objective] = planning, trial, trial.play(agent)
    return known[1:]


def _world_model(objective: Objective) -> WorldModel | None:
    model: object = objective
    return model if isinstance(model, WorldModel) else None


def _shortened(planning: Planning, share: float) -> Planning:
    if share == 1:
        return planning
    return replace(
        planning,
        cross_room=min(planning.cross_room, max(8, round(share * planning.cross_room))),
        same_room=max(0, round(share * planning.same_room)),
    )
