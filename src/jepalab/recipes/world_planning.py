"""How agents plan in a world, and on which episodes they are tested: the planner, what it pays, what it compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.predictor import MarkovPredictor
from jepalab.backbones.unrolling import FromEvery
from jepalab.dist import Precision
from jepalab.envs.scenes import KINDS, SceneName
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Agent, Imagination, PlanningAgent, RandomAgent, Simulation
from jepalab.instruments.imagining import Looks, WorldSubject
from jepalab.instruments.manifests import draw_manifest
from jepalab.instruments.plan_films import Draws
from jepalab.instruments.planning import Trial
from jepalab.planners.cem import CEM
from jepalab.planners.costs import Discounted, Late, OverTime, Read, at_the_end, summed
from jepalab.planners.gradient import Gradient
from jepalab.planners.icem import ICEM
from jepalab.planners.mppi import MPPI
from jepalab.planners.planner import Planner
from jepalab.planners.random_shooting import RandomShooting
from jepalab.recipes.world_grounds import Ground, rooms_ground
from jepalab.types import WorldModel

FEWEST = 60  # episodes by which a model is ranked, where the test has so many: of 8, one more or less is an eighth
FloorName = Literal["random", "oracle", "replay"]
PlannerName = Literal["mppi", "cem", "icem", "gradient", "random-shooting"]
CostName = Literal["late", "last", "sum", "discounted"]
SpaceName = Literal["latent", "state", "pixels"]


class UnreadableError(ValueError):
    """A model whose embeddings cannot be read as it was asked."""


@dataclass(frozen=True)
class Planning:
    """How every agent plans, and on which episodes it is tested.

    Args:
        cross_room: episodes whose goal lies in the other room, or in which a block has to be moved; all episodes where
            there is neither.
        same_room: episodes whose goal lies in the same room, or in which the agent alone has to move.
        num_steps: of every episode.
        episode_seed: of starts and goals.
        planning_seed: of the planner's candidates.
        horizon: steps that are imagined ahead.
        num_executed: actions that are taken before the next search.
        num_samples: candidates in an iteration of the search.
        num_iterations: of the search.
        planner: what searches. Each imagines as many steps as "mppi" does, "icem" fewer in later iterations;
            "random-shooting" imagines all at once, "gradient" a tenth as many plans for ten times as many iterations,
            each with a backward pass as well.
        cost: which imagined steps' distances to the goal count: the "late" ones', each 8 times as much as the one
            before, so that the end decides, and of plans that end alike the earlier one; the "last" one's alone; the
            "sum", which shuns detours; or the "discounted" sum.
        discount: what a step counts in "discounted" as a share of what the one before counts.
        penalty: on actions, as a weight of their squares summed over the plan; the ceiling, whose cost is in pixels of
            way, does without.
        history: frames that a model is given, no more than it read in training; models without memory use the last
            one only.
        space: what of imagined and goal states is compared: their "latent"; the "state" that a linear probe, fitted on
            recorded clips, reads from it; or the "pixels" that a model which draws makes of it.
        precision: of what is imagined; "auto" is bf16 where the device multiplies it, else fp32.
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
    planner: PlannerName = "mppi"
    cost: CostName = "late"
    discount: float = 0.9
    penalty: float = 0.0
    history: int = 1
    space: SpaceName = "latent"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.history < 1:
            raise ValueError(
                f"An episode has at least one step and a model sees at least one frame, got num_steps={self.num_steps} "
                f"and history={self.history}."
            )
        if self.penalty < 0:
            raise ValueError(f"Wanted a penalty of at least 0, got penalty={self.penalty}.")
        self.searching(), self.over_time()  # they refuse what cannot be

    def of_seed(self, seed: int) -> Planning:
        """The same episodes with candidates of their own for each run, whose luck is no other's."""
        return replace(self, planning_seed=self.planning_seed + 1_000_003 * (seed + 1))

    def through_frames(self) -> Planning:
        """What a model can afford that encodes or decodes a frame at every imagined step: a tenth of the candidates,
        and of the episodes a tenth, but no fewer than FEWEST of those by which models are ranked, or all there are.
        """
        return replace(
            self,
            cross_room=min(self.cross_room, max(FEWEST, self.cross_room // 10)),
            same_room=min(self.same_room, max(4, self.same_room // 10)),
            num_samples=max(10, self.num_samples // 10),
        )

    def affordable(self, model: object) -> Planning:
        """As it is, or `through_frames` for a model whose state is the frame, and where pixels are compared."""
        return self.through_frames() if isinstance(model, Looks) or self.space == "pixels" else self

    def searching(self) -> Planner:
        """The planner. "mppi" is the low-compute planner of the newer EB-JEPA (arXiv 2602.03604) but for six things:
        its temperature is in units of the elites', it begins with a deviation of 1 where theirs is 2, its answer is the
        elites' weighted mean where theirs is one elite drawn by the weights, actions are no longer than those of the
        training walks (1.8 pixels in Two Rooms) where their code shortens none, and, as `cost` and `num_executed` say,
        earlier distances count a little where theirs do not and it plans anew after 2 actions where they do after each.
        The others have what they share with it.
        """
        num, rounds, elites = self.num_samples, self.num_iterations, max(2, self.num_samples // 10)
        makers: dict[PlannerName, Callable[[], Planner]] = {
            "mppi": lambda: MPPI(num, num_elites=elites, num_iterations=rounds, std=1.0, max_std=2.0),
            "cem": lambda: CEM(num, num_elites=elites, num_iterations=rounds, std=1.0),
            "icem": lambda: ICEM(num, num_elites=elites, num_iterations=rounds, std=1.0),
            "gradient": lambda: Gradient(max(1, num // 10), num_iterations=10 * rounds),
            "random-shooting": lambda: RandomShooting(num * rounds),
        }
        return makers[self.planner]()

    def in_words(self, frameskip: int = 1) -> str:
        """The planner, and what it compares."""
        away = f"{self.horizon} steps ahead" + (f" of {frameskip} actions each" if frameskip > 1 else "")
        return (
            f"planner: {self.planner}, {self.num_samples} candidates, {self.num_iterations} iterations, {away}, "
            f"{self.num_executed} taken; cost: {self.cost} of {self.space}, history {self.history}"
        )

    def over_time(self) -> OverTime:
        """How the distances of the imagined steps become one cost."""
        if self.cost == "discounted":
            return Discounted(self.discount)
        plain: dict[CostName, OverTime] = {"late": Late(), "last": at_the_end, "sum": summed}
        return plain[self.cost]

    def trial(self, where: TwoRooms | Ground) -> Trial:
        """The episodes, and within which radii a goal counts as reached."""
        ground = _ground(where)
        counts = dict.fromkeys(("all", "cross", "block"), self.cross_room)
        counts |= dict.fromkeys(("same", "agent"), self.same_room)
        num, radius = {group: counts[group] for group in ground.groups}, max(ground.radii.values())
        manifest = draw_manifest(ground.env, ground.groups, num=num, seed=self.episode_seed, radius=radius)
        return Trial(ground.env, manifest, ground.radii, num_steps=self.num_steps, seed=self.planning_seed)

    def agent(self, model: WorldModel, where: TwoRooms | Ground, *, world: WorldSubject | None = None) -> PlanningAgent:
        """The agent of a world model, which considers no longer actions than the model was shown.

        world  clips that the model embedded, on which the probe of "state" is fitted.

        Raises:
            UnreadableError: the model does not draw, and pixels are to be compared.
            ValueError: the model was trained on fewer frames than it is to be given.
        """
        ground = _ground(where)
        known = frames_read(model)
        if known is not None and self.history > known:
            raise ValueError(
                f"This model read {known} frame(s) at a time in training and is to be given {self.history}, which it "
                f"never saw: plan with --history {known}, or train it with --history {self.history}."
            )
        foresight = Imagination(
            model,
            over_time=self.over_time(),
            read=reader(self.space, model, world),
            penalty=self.penalty,
            history=self.history,
            frameskip=ground.frameskip,
            precision=self.precision,
        )
        return self._acting(foresight, ground)

    def stand_in(self, name: FloorName, where: TwoRooms | Ground) -> Agent:
        """The floor, which acts by chance, or a ceiling: it plans in the environment itself, or does what was recorded.

        ValueError for planning in an environment that takes too long for that, and where nothing was recorded.
        """
        ground = _ground(where)
        if name == "random":
            return RandomAgent(ground.max_norm)
        if name == "replay":
            if ground.replay is None:
                raise ValueError(f"Starts and goals in {ground.name} come from no recording that could be replayed.")
            return ground.replay
        if not ground.is_fast:
            raise ValueError(f"To plan in {ground.name} itself would take days; there is no ceiling here.")
        return self._acting(Simulation(over_time=self.over_time(), frameskip=ground.frameskip), ground)

    def _acting(self, foresight: Imagination | Simulation, ground: Ground) -> PlanningAgent:
        return PlanningAgent(foresight, self.searching(), self.horizon, self.num_executed, ground.max_norm)


# As DINO-WM has it with goals 25 steps ahead and 5 actions in a block: 25 steps are imagined, and twice as many gone.
TOWARDS_RECORDED = Planning(num_steps=50, horizon=5, num_executed=1, cost="last")


def usual_planning(name: SceneName) -> Planning:
    """How it is planned in an environment unless one says otherwise: shorter where goals are taken from recordings."""
    return TOWARDS_RECORDED if KINDS[name].ahead else Planning()


def frames_read(model: WorldModel) -> int | None:
    """How many real frames a model read in training before it went on by its own predictions: what it was made with
    says so, that of stored runs too. None where it does not matter or is not known: without memory, or for all frames.
    """
    unroll = getattr(model, "unroll", None)
    if isinstance(getattr(model, "predictor", None), MarkovPredictor):
        return None
    return unroll.history if isinstance(unroll, FromEvery) else None


def reader(space: SpaceName, model: WorldModel, world: WorldSubject | None) -> Read | None:
    """What turns states [e s h d] into what is compared [e s h f]; None for the states themselves.

    Raises:
        UnreadableError: pixels, of a model that does not draw.
    """
    if space == "latent":
        return None
    if space == "pixels":
        if not isinstance(model, Draws):
            raise UnreadableError(
                f"{type(model).__name__} does not draw what it imagines; compare its latent, or the state read from it."
            )
        return partial(_drawn, model)
    assert world is not None, "a probe is fitted on clips"
    probe, width = world.probe(), world.seen["train"].shape[-1]
    # The probe itself lets no gradient through; it is affine, so that these rows say all of it.
    zero = probe.predict(torch.zeros(1, width))
    weight, bias = (probe.predict(torch.eye(width)) - zero).float(), zero.float()

    def read(z: Float[Tensor, "e s h d"]) -> Float[Tensor, "e s h f"]:
        return (world.look(z.flatten(0, 1).float()) @ weight + bias).unflatten(0, z.shape[:2])

    return read


def _drawn(model: Draws, z: Float[Tensor, "e s h d"]) -> Float[Tensor, "e s h f"]:
    pictures = torch.cat([model.draw(part) for part in z.flatten(0, 1).float().split(64)])
    return pictures.flatten(2).unflatten(0, z.shape[:2])


def _ground(where: TwoRooms | Ground) -> Ground:
    return where if isinstance(where, Ground) else rooms_ground(where)
