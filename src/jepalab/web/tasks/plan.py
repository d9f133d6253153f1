"""The task of the page /plan: opens two world models, lets them act beside each other, and maps their costs.

Arguments, by "what":

    open  {runs, seed}                       the room, the models, how far the probe can be trusted
    go    {runs, seed, start, goal, steps, at_once, floors, how, luck, pictures}   begins an episode and plays on
    on    {episode, at_once}                 plays on
    map   {runs, seed, goal}                 latent distance to a goal from everywhere, beside the true way

"go" and "on" tell {agent, path, imagined, cost, step, straight, left, has_arrived, ms, ...} after each block of steps,
agents being the runs in their order and then the floors. They end with {episode, is_over, agents: [{step, straight,
left, has_arrived, ms}]}; whoever wants to stop asks no further, which leaves the worker alive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch

from jepalab.envs.two_rooms import EB_JEPA_RADIUS
from jepalab.recipes.world_judging import FloorName, Planning
from jepalab.web.playing import Episode, keep, kept, packed, planning_of, players_of
from jepalab.web.playing_rooms import Room, survey_of
from jepalab.web.playing_worlds import World, world_of
from jepalab.web.tasks import Arguments, Tell, wanted

MOST_RUNS, MOST_STEPS, LARGEST_SEED = 2, 400, 2**31 - 1
BOUNDS = {  # of what the page may set of planning
    "num_samples": (10, 500),
    "horizon": (2, 40),
    "num_iterations": (1, 12),
    "num_executed": (1, 40),
}


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """What "what" asks for. ValueError with a sentence for what cannot be done."""
    with _one_thread():
        return _run(arguments, root, tell)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and beside a training run they wait: 10 ms a step become 300."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _run(arguments: Arguments, root: Path, tell: Tell) -> dict[str, Any]:
    what = wanted(arguments, "what", str)
    if what == "on":
        return _go_on(wanted(arguments, "episode", str), arguments, tell)
    if what not in ("open", "go", "map"):
        raise ValueError(f"Wanted what as open, go, on or map, got {what[:40]!r}.")
    seed = _whole(arguments, "seed", (0, LARGEST_SEED), default=0)
    worlds = _worlds(arguments, root, tell)
    room = Room.drawn(worlds[0].env, seed)
    if what == "go":
        return _go(arguments, worlds, room, tell)
    return _open(worlds, room) if what == "open" else _map(arguments, worlds, room)


def _open(worlds: Sequence[World], room: Room) -> dict[str, Any]:
    usual = Planning()
    return {
        "room": room.facts(),
        "radius": EB_JEPA_RADIUS,
        "runs": [world.facts() | {"num_samples": planning_of(world, usual).num_samples} for world in worlds],
        "usual": {name: vars(usual)[name] for name in BOUNDS},
        "bounds": BOUNDS,
        "most_steps": MOST_STEPS,
    }


def _go(arguments: Arguments, worlds: Sequence[World], room: Room, tell: Tell) -> dict[str, Any]:
    start, goal = room.start_at(_place(arguments, "start")), room.goal_at(_place(arguments, "goal"))
    if bool(room.env.success(start, goal, radius=EB_JEPA_RADIUS)[0]):
        raise ValueError(f"That goal lies within {EB_JEPA_RADIUS:g} pixels of the start; choose one farther away.")
    shows_pictures = wanted(arguments, "pictures", bool, default=False)
    asked = wanted(arguments, "floors", list, default=[])
    how, floors = _planning(arguments), [name for name in get_args(FloorName) if name in asked]
    steps = _whole(arguments, "steps", (1, MOST_STEPS), default=100)
    players = players_of(worlds, floors, room, start=start, goal=goal, how=how, shows_pictures=shows_pictures)
    tell(
        {
            "same_room": bool(room.env.same_room(start, goal)[0]),
            "left": float(room.env.distance(start, goal)),
            "goal": packed(room.env.render(goal)[0]) if shows_pictures else None,
        }
    )
    return _go_on(keep(Episode(players, steps, how.num_executed)), arguments, tell)


def _go_on(name: str, arguments: Arguments, tell: Tell) -> dict[str, Any]:
    at_once = _whole(arguments, "at_once", (1, MOST_STEPS), default=MOST_STEPS)
    return {"episode": name, **kept(name).go_on(at_once, tell)}


def _map(arguments: Arguments, worlds: Sequence[World], room: Room) -> dict[str, Any]:
    goal = room.goal_at(_place(arguments, "goal"))
    maps = [survey_of(world, room).map_to(goal) for world in worlds]
    return {"maps": [{"rows": each["latent"], "rank": each["rank"]} for each in maps], "way": maps[0]["way"]}


def _worlds(arguments: Arguments, root: Path, tell: Tell) -> list[World]:
    """The models that were asked for. ValueError unless they learned in the same rooms."""
    names = wanted(arguments, "runs", list)
    are_words = all(isinstance(name, str) for name in names)
    if not (1 <= len(names) <= MOST_RUNS and are_words and len({*names}) == len(names)):
        raise ValueError(f"Wanted runs as a list of 1 to {MOST_RUNS} names that differ, got {str(names)[:60]}.")
    worlds = []
    for name in names:
        tell({"loading": name})
        worlds.append(world_of(root, name))
    if len({repr(world.env) for world in worlds}) > 1:
        raise ValueError(
            f"{worlds[0].name} and {worlds[1].name} learned in rooms that differ, in layout, television or light; "
            "choose two that learned in the same."
        )
    return worlds


def _planning(arguments: Arguments) -> Planning:
    usual, asked = Planning(), wanted(arguments, "how", dict, default={})
    settings: dict[str, Any] = {
        name: _whole(asked, name, ends, default=vars(usual)[name]) for name, ends in BOUNDS.items()
    }
    if settings["num_executed"] > settings["horizon"]:
        raise ValueError("A plan has as many actions as steps are imagined ahead; take no more of it than that.")
    luck = _whole(arguments, "luck", (0, LARGEST_SEED), default=0)
    # One episode is too small for bfloat16 to pay.
    return Planning(**settings, planning_seed=luck, precision="fp32")


def _place(arguments: Arguments, name: str) -> tuple[float, float]:
    found = wanted(arguments, name, list)
    is_pair = len(found) == 2 and all(isinstance(each, int | float) and not isinstance(each, bool) for each in found)
    if not is_pair or not all(map(math.isfinite, found)):
        raise ValueError(f"Wanted {name} as [x, y] in pixels, got {str(found)[:60]}.")
    return float(found[0]), float(found[1])


def _whole(arguments: Arguments, name: str, ends: tuple[int, int], *, default: int) -> int:
    value = wanted(arguments, name, int, default=default)
    if not ends[0] <= value <= ends[1]:
        raise ValueError(f"Wanted {name} from {ends[0]} to {ends[1]}, got {str(value)[:20]}.")
    return value
