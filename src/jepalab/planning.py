"""The command `jepalab plan`: lets a trained world model act, on fixed episodes, beside a floor and a ceiling."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from jepalab.catalogue import find_recipes
from jepalab.compare.stats import mcnemar_exact, wilson_interval
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.changed import Changed
from jepalab.envs.scenes import LAYOUTS, LayoutName, SceneName
from jepalab.envs.two_rooms import TwoRooms
from jepalab.flags import call_with_flags
from jepalab.instruments.acting import Agent, Played
from jepalab.instruments.imagining import world_subject
from jepalab.instruments.plan_films import Draws, film_plans, train_microscope
from jepalab.instruments.planning import Trial, success
from jepalab.progress import count_items
from jepalab.recipes.world_grounds import Ground, ground_of, rooms_ground
from jepalab.recipes.world_judging import FloorName, Planning
from jepalab.records import RunFolder
from jepalab.training import Place
from jepalab.types import WorldModel

NAMES: dict[FloorName, str] = {"random": "random actions (floor)", "oracle": "the environment itself (ceiling)"}
NUM_FILMS = 6


@dataclass(frozen=True)
class PlanCommand:
    """Lets a trained world model plan its way to goals it has never seen, and says how often it arrives.

    Starts and goals are drawn from a seed, the same for every model; none is solved at the start. Beside the model act
    a floor (random actions) and, in our own environments, a ceiling (the same planner in the environment itself).

    Args:
        run: folder of a run (runs/NAME) that a recipe of worlds trained.
        env: in which it acts; that of its training, and no other has the same pictures.
        layout: other rooms than those of its training: "fixed", "random-door" or "random-wall".
        episodes: to play; in Two Rooms these have their goal in the other room, and half as many in the same.
        ahead: goals are what stored episodes, held out of training, came to so many steps after the start; 0 draws
            starts and goals anywhere. By default 25 in other people's worlds, 0 in ours.
        seed: of starts and goals.
        noise: deviation of noise on every pixel, which the model was not trained on.
        brightness: by which every pixel is multiplied.
        tint: added to the channel of what moves.
        film: a GIF to write: what happened beside what was imagined, in simulated rooms.
        floors: also let the floor and the ceiling act, on the same episodes.
        json: print the result as JSON.
        how: of planning.
    """

    run: Annotated[Path, tyro.conf.Positional]
    env: SceneName | None = None
    layout: LayoutName | None = None
    episodes: int = 200
    ahead: int | None = None
    seed: int = 7
    noise: float = 0.0
    brightness: float = 1.0
    tint: float = 0.0
    film: Path | None = None
    floors: bool = True
    json: bool = False
    how: tyro.conf.OmitArgPrefixes[Planning] = field(default_factory=Planning)


def run(words: list[str]) -> int:
    """jepalab plan RUN [options]"""
    asked = tyro.cli(PlanCommand, prog="jepalab plan", args=words)
    stream, model = open_world(asked.run)
    usual = Planning()
    if (asked.how.cross_room, asked.how.same_room, asked.how.episode_seed) != (
        *(usual.cross_room, usual.same_room, usual.episode_seed),
    ):
        raise ValueError("Say how many episodes with --episodes, and from which seed they are drawn with --seed.")
    how = replace(asked.how, cross_room=asked.episodes, same_room=asked.episodes // 2, episode_seed=asked.seed)
    ground = _ground(asked, stream, num_at_once=how.cross_room)
    if (asked.noise, asked.brightness, asked.tint) != (0.0, 1.0, 0.0):
        changed = Changed(ground.env, noise=asked.noise, brightness=asked.brightness, tint=asked.tint)
        ground = replace(ground, env=changed)
    trial = how.trial(ground)
    agents: dict[str, Agent] = {asked.run.name: how.agent(model, ground)}
    if asked.floors:
        stand_ins: tuple[FloorName, ...] = ("random", "oracle") if ground.is_fast else ("random",)
        agents |= {NAMES[name]: how.stand_in(name, ground) for name in stand_ins}
    played = {name: _play(trial, agent, name) for name, agent in agents.items()}
    scores = {name: success(trial, each) for name, each in played.items()}
    facts = {"env": ground.name, "episodes": len(trial.manifest), "seed": asked.seed}
    facts |= {"manifest": trial.manifest.digest}
    if asked.film is not None:
        _film(asked.film, stream, model, trial, played[asked.run.name])
    if asked.json:
        print(json.dumps(facts | {"scores": scores}))
        return 0
    _show(trial, scores, played, asked.run.name)
    print(f"\nepisodes: seed {asked.seed}, manifest {trial.manifest.digest[:16]}, {how.num_steps} steps each")
    if asked.film is not None:
        print(f"film: {asked.film}")
    return 0


def _ground(asked: PlanCommand, stream: TrajectoryStream, *, num_at_once: int) -> Ground:
    """Where the model is to act; ValueError for what it was not trained for."""
    ground = ground_of(stream, num_at_once=num_at_once, ahead=asked.ahead)
    if ground is None:
        raise ValueError(f"{asked.run} was trained on episodes that name no environment of jepalab's; it cannot act.")
    if asked.env not in (None, ground.name):
        raise ValueError(f"{asked.run} was trained on pictures of {ground.name}; it cannot act in {asked.env}.")
    is_simulated = isinstance(ground.env, TwoRooms)
    if (asked.layout or asked.film) and not is_simulated:
        raise ValueError("--layout and --film are for models of simulated rooms, and this one saw stored episodes.")
    if asked.layout is not None and isinstance(ground.env, TwoRooms):
        return rooms_ground(replace(ground.env, layouts=LAYOUTS[asked.layout]()))
    return ground


def open_world(folder: Path) -> tuple[TrajectoryStream, WorldModel]:
    """The world model of a run's folder, made again as its command line made it, with the weights it ended with, and
    the stream it was trained on.

    Raises:
        ValueError: the folder holds no run, or one of something that does not imagine.
    """
    records = RunFolder(folder)
    known = records.description()
    if "words" not in known:
        raise ValueError(f"{folder} holds no run of `jepalab train`; wanted the folder of a world model (runs/NAME).")
    recipes = find_recipes()
    if known["recipe"] not in recipes:
        raise ValueError(f"{folder} was trained by the recipe {known['recipe']!r}, which this jepalab does not have.")
    recipe = recipes[known["recipe"]]
    _, _, made = call_with_flags(recipe, Place(), program=f"jepalab train {known['recipe']}", words=known["words"])
    records.load(made.objective)
    model: object = made.objective.eval()
    if not isinstance(model, WorldModel) or not isinstance(made.stream, TrajectoryStream):
        raise ValueError(f"{folder} holds {type(model).__name__}, which does not imagine; plan with a world model.")
    return made.stream, model


def _play(trial: Trial, agent: Agent, name: str) -> Played:
    with count_items(f"acting: {name}") as count:
        return trial.play(agent, watch=lambda step, _: count(step, trial.num_steps))


def _film(place: Path, stream: TrajectoryStream, model: WorldModel, trial: Trial, played: Played) -> None:
    subject = world_subject(model, trial.env, stream, share=0.5)
    probe = subject.probe()
    draw = model.draw if isinstance(model, Draws) else train_microscope(model, stream)
    films = film_plans(
        trial.env,
        trial.manifest.goal,
        played,
        model,
        rows=range(min(NUM_FILMS, len(trial.manifest))),
        locate=lambda z: probe.predict(subject.look(z).flatten(0, 1)),
        draw=draw,
        every=2,
    )
    frames = [Image.fromarray(frame) for film in films for frame in [*film, film[-1], film[-1], film[-1]]]
    place.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(place, save_all=True, append_images=frames[1:], duration=80, loop=0)


def _show(trial: Trial, scores: Mapping[str, Mapping[str, float]], played: Mapping[str, Played], chief: str) -> None:
    """A table: rates with their Wilson intervals, by group and criterion."""
    groups = [*dict.fromkeys(trial.manifest.groups)]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("")
    for group in groups:
        name = "" if group == "all" else f"{group} room\n"
        shown.add_column(f"{name}ever", justify="right")
        shown.add_column(f"{name}at the end", justify="right")
        shown.add_column("steps", justify="right")
    shown.add_column("ms an\naction", justify="right")
    shown.add_column("p against\nthe model", justify="right")
    for name, each in scores.items():
        cells = []
        for group in groups:
            num = int(trial.manifest.rows(group).sum())
            cells += [_rate(each[f"{group}_{when}_wide"], num) for when in ("ever", "end")]
            steps = each.get(f"{group}_steps_wide", math.nan)
            cells.append("" if math.isnan(steps) else f"{steps:.0f}")
        cells.append(f"{each['ms_per_action']:.2f}")
        cells.append("" if name == chief else _against(played[chief], played[name]))
        shown.add_row(name, *cells)
    Console().print(shown)


def _rate(rate: float, num: int) -> str:
    low, high = wilson_interval(round(rate * num), num)
    return f"{rate:.1%} [{low:.0%}, {high:.0%}]"


def _against(one: Played, other: Played) -> str:
    """McNemar's exact p of who arrived at some time, over all episodes."""
    radius = max(one.within)
    a, b = one.within[radius].any(1), other.within[radius].any(1)
    return f"{mcnemar_exact(int((a & ~b).sum()), int((~a & b).sum())):.2g}"
