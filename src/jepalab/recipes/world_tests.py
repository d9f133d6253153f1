"""Further tests of acting: with a tenth of the search, in pictures that no training showed, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from jepalab.envs.changed import Changed
from jepalab.envs.environment import Environment
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Played
from jepalab.instruments.imagining import Looks, WorldSubject
from jepalab.instruments.planning import Trial, steps_to_success, success
from jepalab.objectives.pixel_world import PixelWorld
from jepalab.recipes.world_grounds import Ground, TooFewStatesError, rooms_ground
from jepalab.recipes.world_judging import ActingSubject, Planning, agent_of, episodes, remember_tenth, unjudged
from jepalab.recipes.world_planning import UnreadableError
from jepalab.types import WorldModel

NUM_UNSEEN = 60  # episodes under each change


def with_a_tenth(subject: ActingSubject) -> dict[str, float]:
    """What `acting` says, of everybody as those plan that imagine frames: "tenth_GROUP_ever_RADIUS" and the like.

    Costs of pictures and costs of embeddings are compared under the same search and on the same episodes, which the
    floors and the ceiling play as well. Outcomes are kept for `keep_outcomes`.

    A model that decodes its embeddings plans once more, by the distance of what it decodes: "lost_to_pixel_cost" is how
    much less often it arrives, "pixel_cost_ms_per_action" what that takes.
    """
    objective, planning = subject.objective, replace(subject.planning.through_frames(), space="latent")
    if subject.ground is None:
        return {}
    frames: object = objective
    try:
        if isinstance(frames, Looks):
            trial, played = _episodes(subject)  # as they did already
        else:
            trial = planning.trial(subject.ground)
            played = trial.play(agent_of(objective, subject.ground, planning))
    except (TooFewStatesError, UnreadableError):
        return {}  # `acting` said so
    remember_tenth(objective, trial, played)
    scores = success(trial, played)
    found = {f"tenth_{name}": value for name, value in scores.items()}
    if isinstance(objective, PixelWorld):
        by_pixels = success(trial, trial.play(agent_of(objective, subject.ground, replace(planning, space="pixels"))))
        chief = next(iter(by_pixels))
        found["lost_to_pixel_cost"] = scores[chief] - by_pixels[chief]
        found["pixel_cost_ms_per_action"] = by_pixels["ms_per_action"]
    return found


def unseen(subject: ActingSubject) -> dict[str, float]:
    """How much less often a model arrives where the pictures are not those of its training: "lost_to_CHANGE".

    CHANGE is "noise" (deviation .05 on every pixel), "colour" (of the dot alone) or "screen" (a television that shows
    something else, or that there was not). Rates are of the same pairs, of which NUM_UNSEEN are played each time.
    Nothing of a model that cannot be read as the planning asks.
    """
    model, ground = _model(subject), subject.ground
    if model is None or ground is None or not isinstance(ground.env, TwoRooms):
        return {}
    planning = replace(subject.planning, cross_room=min(NUM_UNSEEN, subject.planning.cross_room), same_room=0)
    planning = planning.affordable(model)
    arrived = partial(_arrived, model, planning=planning, world=subject.world)
    changed = {name: replace(ground, env=env) for name, env in changes(ground.env).items()}
    # Another television is part of a state, so starts and goals are drawn again, from the same seed to the same places.
    try:
        usual = arrived(ground)
        return {f"lost_to_{name}": usual - arrived(where) for name, where in changed.items()}
    except UnreadableError as error:
        return unjudged(error)


def changes(env: TwoRooms) -> Mapping[str, Environment[Any]]:
    """The rooms as they look otherwise."""
    was = env.television
    share = {} if was is None else {"share": was.share}
    screen = Television.showing("noise" if was is None or was.persistence == 1 else "episode", **share)
    return {
        "noise": Changed(env, noise=0.05),
        "colour": env.recoloured(),
        "screen": replace(env, television=screen),
    }


def steps_taken(subject: ActingSubject) -> dict[str, float]:
    """ "GROUP_mean_steps": steps until the goal was within the widest radius, a whole episode's where it never was."""
    if subject.ground is None:
        return {}
    try:
        trial, played = _episodes(subject)
    except UnreadableError as error:
        return unjudged(error)
    return {f"{group}_mean_steps": _mean_steps(trial, played, group) for group in dict.fromkeys(trial.manifest.groups)}


def _mean_steps(trial: Trial, played: Played, group: str) -> float:
    within = played.within[max(trial.radii.values())][trial.manifest.rows(group)]
    return float(steps_to_success(within).clamp_max(trial.num_steps).mean())


def _episodes(subject: ActingSubject) -> tuple[Trial, Played]:
    """What `acting` played, or would play."""
    assert subject.ground is not None
    return episodes(subject.objective, subject.ground, subject.planning, world=subject.world)


def _arrived(model: WorldModel, ground: Ground, *, planning: Planning, world: WorldSubject | None) -> float:
    drawn = ground if not isinstance(ground.env, TwoRooms) else replace(rooms_ground(ground.env), env=ground.env)
    trial = planning.trial(drawn)
    return success(trial, trial.play(planning.agent(model, drawn, world=world)))["cross_ever_wide"]


def _model(subject: ActingSubject) -> WorldModel | None:
    model: object = subject.objective
    return model if isinstance(model, WorldModel) else None
