"""The first plan of every episode: does it lead where it is imagined to lead, and into the other room (PLDM's
init_plan_cross_wall_rate, arXiv 2502.14819)?"""

from __future__ import annotations

import torch

from jepalab.envs.environment import PointState
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.instruments.acting import Played
from jepalab.instruments.imagining import WorldSubject
from jepalab.instruments.planning import Trial


@torch.no_grad()
def first_plans(subject: WorldSubject, trial: Trial, played: Played) -> dict[str, float]:
    """What was planned at the start, as the probe reads it from what is imagined, beside what it does if it is carried
    out to its end.

    "plan_end_px" the mean distance between the two ends and "plan_way_px" how far the carried out plan leads;
    "first_plan_crosses" the share of episodes with a goal in the other room whose plan is imagined to get there, and
    "first_plan_really_crosses" of those where it does. Nothing where nothing was searched, or where there is no point.
    """
    env, start, goal = trial.env, trial.manifest.start, trial.manifest.goal
    if not played.effort.searches or not isinstance(start, PointState):
        return {}
    plan, felt = played.effort.searches[0].action, env.proprioception(start)
    z = subject.model.encode(env.render(start)[:, None], felt[:, None] if felt.shape[-1] else None).float()
    path = subject.model.rollout(z, plan[:, :0], plan[:, None])[:, 0].float()
    imagined = subject.probe().predict(subject.look(path).flatten(0, 1)).unflatten(0, path.shape[:2])[..., :2].float()
    state, width = start, len(env.bounds.low)
    really = [state]
    for action in plan.unflatten(-1, (-1, width)).flatten(1, 2).unbind(1):
        state = env.step(state, action)
        really.append(state)
    scores = {
        "plan_end_px": float((imagined[:, -1] - state.position).norm(dim=1).mean()),
        "plan_way_px": float((state.position - start.position).norm(dim=1).mean()),
    }
    others = torch.tensor([group == "cross" for group in trial.manifest.groups])
    if isinstance(env, TwoRooms) and isinstance(start, RoomState) and bool(others.any()):
        places = [env.place(each, start.layout, start.key) for each in imagined.unbind(1)]
        for name, states in (("first_plan_crosses", places), ("first_plan_really_crosses", really)):
            there = torch.stack([env.same_room(each, goal) for each in states if isinstance(each, RoomState)]).any(0)
            scores[name] = float(there[others].float().mean())
    return scores
