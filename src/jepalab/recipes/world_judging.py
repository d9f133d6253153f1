"""How world models are judged: by the same planner, on the same episodes, beside a floor and a ceiling."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Agent, Played
from jepalab.instruments.bystanders import bystanders
from jepalab.instruments.first_plans import first_plans
from jepalab.instruments.imagining import (
    WorldSubject,
    energy_landscape,
    geodesics,
    imagination,
    input_statistics,
    teleport_surprise,
    world_state,
    world_subject,
)
from jepalab.instruments.planning import Trial, diagnose_searches, outcomes, success
from jepalab.recipes.world_bench import Walks, WorldBench
from jepalab.recipes.world_grounds import Ground, TooFewStatesError, ground_of
from jepalab.recipes.world_planning import FloorName, Planning, UnreadableError, usual_planning
from jepalab.run import Run
from jepalab.types import Batch, Objective, Space, WorldModel


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


SMALL = Planning(cross_room=40, same_room=20, num_steps=100)


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
    objective: Objective, stream: TrajectoryStream, *, planning: Planning | None = None, share: float = 1.0
) -> dict[str, ActingSubject]:
    """The one thing that is judged of a world model, or of a floor. It is moved to the CPU and put in evaluation.

    planning  None takes a small test, planned as is usual where the model learned.
    """
    objective.eval().cpu()
    ground, model = _ground_or_none(stream, planning or SMALL), _world_model(objective)
    if planning is None:
        usual = SMALL if ground is None else usual_planning(ground.name)
        few = {"cross_room": SMALL.cross_room, "same_room": SMALL.same_room}
        planning = replace(usual, num_steps=min(usual.num_steps, SMALL.num_steps), **few)
    world = None if model is None or ground is None else world_subject(model, ground.env, stream, share=share)
    return {"model": ActingSubject(objective, ground, planning.of_seed(stream.seed), world, share)}


def _ground_or_none(stream: TrajectoryStream, planning: Planning) -> Ground | None:
    """Training must not end in an error because the world, of which there are recordings, is not installed."""
    try:
        return ground_of(stream, num_at_once=planning.cross_room + planning.same_room)
    except ValueError as error:
        unjudged(error)
        return None


def unjudged(error: ValueError) -> dict[str, float]:
    """No scores, and why."""
    print(f"not judged by acting: {error}", file=sys.stderr)
    return {}


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
        planning = _shortened(subject.planning, subject.share)
        trial, played = episodes(subject.objective, subject.ground, planning, world=subject.world)
    except (TooFewStatesError, UnreadableError) as error:
        return unjudged(error)
    planned = {} if subject.world is None else first_plans(subject.world, trial, played)
    return success(trial, played) | diagnose_searches(played) | planned


def keep_outcomes(run: Run) -> dict[str, Any]:
    """ "outcomes" of the episodes that a run was judged by, and "tenth_outcomes" of those that it played with a tenth
    of the search; nothing where none was played.
    """
    known, tenth = _PLAYED.get(run.objective), _TENTH.get(run.objective)
    found = {} if known is None else {"outcomes": outcomes(*known[1:])}
    return found if tenth is None else found | {"tenth_outcomes": tenth}


def remember_tenth(objective: Objective, trial: Trial, played: Played) -> None:
    """Keeps the outcomes of a test with a tenth of the search, until there are others."""
    _TENTH[objective] = outcomes(trial, played)


_PLAYED: WeakKeyDictionary[Objective, tuple[Planning, Trial, Played]] = WeakKeyDictionary()
_TENTH: WeakKeyDictionary[Objective, dict[str, Any]] = WeakKeyDictionary()


def episodes(
    objective: Objective, where: TwoRooms | Ground, planning: Planning, *, world: WorldSubject | None = None
) -> tuple[Trial, Played]:
    """The test and what happened in it, played once for all who look at it while the objective lives.

    world  clips that the model embedded, for planning that reads states from embeddings.

    It is planned as `Planning.affordable` has it.
    """
    planning = planning.affordable(objective)
    known = _PLAYED.get(objective)
    if known is None or known[0] != planning:
        trial, agent = planning.trial(where), agent_of(objective, where, planning, world=world)
        known = _PLAYED[objective] = planning, trial, trial.play(agent)
    return known[1:]


def agent_of(
    objective: Objective, where: TwoRooms | Ground, planning: Planning, *, world: WorldSubject | None = None
) -> Agent:
    """Who acts: a world model's agent, or whom a floor stands for. ValueError for what is neither."""
    model = _world_model(objective)
    if model is not None:
        return planning.agent(model, where, world=world)
    if isinstance(objective, Floor):
        return planning.stand_in(objective.name, where)
    raise ValueError(f"{type(objective).__name__} neither imagines nor stands in for an agent; it cannot act.")


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
