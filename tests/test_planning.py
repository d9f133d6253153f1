"""Planning: every planner, cost and space that can be asked for does what its name says, and a flag reaches it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.test_acting import TrueWorld
from torch import Tensor

from jepalab.compare.acting_tables import show_acting
from jepalab.comparing import ComparePlace
from jepalab.envs.two_rooms import TwoRooms
from jepalab.flags import call_with_flags
from jepalab.instruments.acting import Imagination
from jepalab.instruments.first_plans import first_plans
from jepalab.instruments.imagining import world_subject
from jepalab.instruments.planning import success
from jepalab.planners.cem import CEM
from jepalab.planners.costs import Discounted, Late, at_the_end, summed
from jepalab.planners.gradient import Gradient
from jepalab.planners.icem import ICEM
from jepalab.planners.mppi import MPPI
from jepalab.planners.random_shooting import RandomShooting
from jepalab.recipes import pusht, two_rooms
from jepalab.recipes.world_bench import Rooms, WorldBench
from jepalab.recipes.world_judging import acting, acting_subjects
from jepalab.recipes.world_lab import WorldLab
from jepalab.recipes.world_planning import TOWARDS_RECORDED, PlannerName, Planning, UnreadableError, usual_planning
from jepalab.recipes.worlds import vicreg_world

ENV = TwoRooms()
TINY = Planning(cross_room=0, same_room=8, num_steps=20, horizon=6, num_samples=30, num_iterations=2, precision="fp32")
PLANNERS: dict[PlannerName, type] = {
    "mppi": MPPI,
    "cem": CEM,
    "icem": ICEM,
    "gradient": Gradient,
    "random-shooting": RandomShooting,
}


class Painted(TrueWorld):
    """Draws the dot that it knows of, as wide as the environment draws it."""

    def draw(self, z: Tensor) -> Tensor:
        place = torch.arange(65.0)
        x, y = (torch.exp(-((place - z[..., i, None]) ** 2) / (2 * 1.3**2)) for i in (0, 1))
        return (y[..., :, None] * x[..., None, :]).unsqueeze(-3)


@cache
def chance() -> float:
    trial = TINY.trial(ENV)
    return success(trial, trial.play(TINY.stand_in("random", ENV)))["same_ever_tight"]


@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_reaches_goals_in_the_environment_itself(name: PlannerName) -> None:
    planning = replace(TINY, planner=name, num_iterations=1 if name == "gradient" else 2)
    assert isinstance(planning.searching(), PLANNERS[name])
    trial = planning.trial(ENV)
    found = success(trial, trial.play(planning.stand_in("oracle", ENV)))
    assert found["same_ever_tight"] > chance() + 0.4
    whole = 30 * 6 * planning.num_iterations / 2
    assert found["imagined_per_action"] == pytest.approx(whole, rel=0.2 if name == "icem" else 0.06)


def test_the_usual_planner_is_the_one_it_was() -> None:
    assert Planning().searching() == MPPI(100, num_elites=10, num_iterations=5, std=1.0, max_std=2.0)
    assert Planning().over_time() == Late(8.0)
    assert TOWARDS_RECORDED.over_time() is at_the_end
    assert Planning(cost="last", discount=0.0).over_time() is at_the_end, "a rate that is not used refuses nothing"


def test_costs_count_the_steps_they_name() -> None:
    assert Planning(cost="sum").over_time() is summed
    assert Planning(cost="discounted", discount=0.5).over_time() == Discounted(0.5)
    ways = torch.tensor([[[1.0, 2.0, 4.0]]])
    assert float(Planning(cost="discounted", discount=0.5).over_time()(ways)) == 3.0


def foresight(planning: Planning) -> Imagination:
    found = planning.agent(TrueWorld(), ENV).foresight
    assert isinstance(found, Imagination)
    return found


def test_what_is_asked_for_reaches_the_foresight() -> None:
    asked = foresight(Planning(history=3, penalty=0.25, cost="sum"))
    assert (asked.history, asked.penalty, asked.over_time) == (3, 0.25, summed)


def test_a_penalty_shortens_the_actions() -> None:
    trial = TINY.trial(ENV)
    lengths = [
        float(trial.play(replace(TINY, penalty=penalty).agent(TrueWorld(), ENV)).actions.norm(dim=-1).mean())
        for penalty in (0.0, 1e4)
    ]
    assert lengths[1] < 0.5 * lengths[0]


@pytest.mark.parametrize("space", ["state", "pixels"])
@pytest.mark.parametrize("planner", ["mppi", "gradient"])
def test_states_and_pixels_that_are_read_can_be_planned_with(space: str, planner: PlannerName) -> None:
    bench, model = WorldBench(world=Rooms(num_walks=60)), Painted()
    # Pixels tell the way only where the two dots overlap: the goals of this test are a few steps off.
    planning = replace(TINY, space=space, planner=planner, num_samples=20, same_room=6)
    trial = planning.trial(ENV)
    goal = trial.manifest.goal
    near = ENV.place((trial.manifest.start.position + torch.tensor([2.5, 2.5])), goal.layout, goal.key)
    trial = replace(trial, manifest=replace(trial.manifest, goal=near), num_steps=8)
    world = world_subject(model, ENV, bench.stream(), share=0.2)
    agent = planning.agent(model, ENV, world=world)
    played = trial.play(agent)
    left = ENV.distance(played.states[-1], near)
    assert float(left.median()) < 2.0 < float(ENV.distance(trial.manifest.start, near).min())


def test_pixels_of_a_model_that_does_not_draw_are_refused_and_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    planning = replace(TINY, space="pixels")
    with pytest.raises(UnreadableError, match="does not draw"):
        planning.agent(TrueWorld(), ENV)
    run = vicreg_world(WorldBench(world=Rooms(num_walks=60)))
    (subject,) = acting_subjects(run.objective, run.stream, planning=planning, share=0.1).values()
    assert acting(subject) == {}
    assert "does not draw" in capsys.readouterr().err


def test_where_pixels_are_compared_a_tenth_is_planned() -> None:
    assert replace(TINY, space="pixels").affordable(Painted()) == replace(TINY, space="pixels").through_frames()
    assert TINY.affordable(Painted()) == TINY


def test_what_cannot_be_planned_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="num_elites"):
        Planning(num_samples=1)
    with pytest.raises(ValueError, match="rate above 0"):
        Planning(cost="discounted", discount=0.0)
    with pytest.raises(ValueError, match="history=0"):
        Planning(history=0)
    with pytest.raises(ValueError, match="penalty"):
        Planning(penalty=-1.0)


def test_flags_of_a_comparison_reach_its_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"settings": {"lr": 1e-3, "weight_decay": 1e-5}}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"fixed": {"J1": settings}}})
    words = ["--planner", "icem", "--cost", "discounted", "--discount", "0.8", "--penalty", "0.1", "--history", "2"]
    asked = [*words, "--space", "state"]
    plan = call_with_flags(two_rooms.plan, ComparePlace(), program="compare", words=asked).made
    planning = plan.judging.subjects.keywords["planning"]
    assert planning == Planning(planner="icem", cost="discounted", discount=0.8, penalty=0.1, history=2, space="state")


def test_first_plans_are_told_from_what_they_do() -> None:
    """Where no wall is in the way, what TrueWorld imagines is what happens; through walls it goes in thought alone."""
    planning = replace(TINY, cross_room=12, same_room=6, num_steps=1, horizon=30, num_samples=60, num_iterations=4)
    trial, bench = planning.trial(ENV), WorldBench(world=Rooms(num_walks=60))
    world = world_subject(TrueWorld(), ENV, bench.stream(), share=0.3)
    found = first_plans(world, trial, trial.play(planning.agent(TrueWorld(), ENV)))
    assert found["first_plan_crosses"] > found["first_plan_really_crosses"] + 0.3
    same = replace(planning, cross_room=0).trial(ENV)
    free = first_plans(world, same, same.play(planning.agent(TrueWorld(), ENV)))
    assert free.keys() == {"plan_end_px", "plan_way_px"}
    assert free["plan_end_px"] < 2 < found["plan_end_px"]
    assert free["plan_way_px"] > 3
    assert first_plans(world, same, same.play(planning.stand_in("random", ENV))) == {}


def test_towards_recorded_goals_plans_are_those_of_pusht() -> None:
    assert usual_planning("two-rooms") == usual_planning("point-maze") == Planning()
    assert usual_planning("pusht") == replace(pusht.PLANNING, cross_room=200, same_room=100)
    assert vars(usual_planning("pusht")).items() >= {"horizon": 5, "num_executed": 1, "num_steps": 50}.items()


def test_kinds_of_goals_are_named_and_what_p_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    planning = replace(TINY, cross_room=2, same_room=1, num_steps=1)
    trial = planning.trial(TwoRooms())
    played = {name: trial.play(planning.stand_in("random", TwoRooms())) for name in ("model", "floor")}
    kinds = {"block": ["block moved"], "agent": ["agent alone"], "cross": ["other room"], "same": ["same room"]}
    for groups in (("block", "block", "agent"), ("cross", "cross", "same"), ("all", "all", "all")):
        of = replace(trial, manifest=replace(trial.manifest, groups=groups))
        show_acting(of, {name: success(of, each) for name, each in played.items()}, played, "model")
        shown = capsys.readouterr().out
        assert all((words[0] in shown) == (group in groups) for group, words in kinds.items())
        assert " room" not in shown.replace("other room", "").replace("same room", "")
        assert ("all goals" in shown) == (groups[0] != "all")
