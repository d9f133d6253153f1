"""The command `jepalab plan`: lets a trained world model act, on fixed episodes, beside a floor and a ceiling."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image

from jepalab.compare.acting_tables import show_acting
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.changed import Changed
from jepalab.envs.scenes import LAYOUTS, LayoutName, SceneName
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Agent, Played
from jepalab.instruments.counterfactuals import sheet_of
from jepalab.instruments.film_files import FILMS, PICTURES, check_place, write_films
from jepalab.instruments.imagining import WorldSubject, world_subject
from jepalab.instruments.planning import Trial, diagnose_searches, success
from jepalab.progress import count_items
from jepalab.recipes.world_films import artist, films_of, futures
from jepalab.recipes.world_grounds import Ground, ground_of, rooms_ground
from jepalab.recipes.world_planning import FloorName, Planning, usual_planning
from jepalab.records import RunFolder
from jepalab.remaking import judging_of_cell, settings_of, way_to_make
from jepalab.types import WorldModel

NAMES: dict[FloorName, str] = {
    "random": "random actions (floor)",
    "oracle": "the environment itself (ceiling)",
    "replay": "the recorded actions again (ceiling)",
}
NUM_FILMS = 6
COUNTED = ("cross_room", "same_room", "episode_seed", "planning_seed")  # of a test, not of the way of planning
TelevisionName = Literal["none", "noise", "video", "episode", "dataset"]


@dataclass(frozen=True)
class PlanCommand:
    """Lets a trained world model plan its way to goals it has never seen, and says how often it arrives.

    Starts and goals are drawn from a seed, the same for every model; none is solved at the start. Beside the model act
    a floor (random actions) and, in our own environments, a ceiling (the same planner in the environment itself).

    Args:
        run: folder of a run (runs/NAME) that a recipe of worlds trained.
        env: in which it acts; that of its training, and no other has the same pictures.
        layout: other rooms than those of its training: "fixed", "narrow-door", "random-door", "random-wall" or
            "random-wall-narrow-door".
        television: what another television than that of its training shows: "none", "noise", "video", "episode" or
            "dataset".
        screen_share: of the picture that this television covers.
        episodes: to play; in Two Rooms these have their goal in the other room, and half as many in the same.
        ahead: goals are what stored episodes, held out of training, came to so many steps after the start; 0 draws
            starts and goals anywhere. By default 25 in other people's worlds, 0 in ours.
        seed: of starts and goals.
        noise: deviation of noise on every pixel, which the model was not trained on.
        brightness: by which every pixel is multiplied.
        tint: share of what moves that is recoloured in our own environments; in others, added to the first colour.
        film: a GIF or MP4 to write, by its suffix: what happened beside what was imagined. MP4 needs PyAV, which comes
            with the extra jepalab[video].
        counterfactual: a PNG to write: from one start, what is imagined under steady actions each way beside what they
            really do.
        floors: also let the floor and the ceiling act, on the same episodes.
        json: print the result as JSON.
        how: of planning; what is not asked for is as in the comparison that a cell is of, else as usual in this world.
    """

    run: Annotated[Path, tyro.conf.Positional]
    env: SceneName | None = None
    layout: LayoutName | None = None
    television: TelevisionName | None = None
    screen_share: float = 0.1
    episodes: int = 200
    ahead: int | None = None
    seed: int = 7
    noise: float = 0.0
    brightness: float = 1.0
    tint: float = 0.0
    film: Path | None = None
    counterfactual: Path | None = None
    floors: bool = True
    json: bool = False
    how: tyro.conf.OmitArgPrefixes[Planning] = field(default_factory=Planning)


def run(words: list[str]) -> int:
    """jepalab plan RUN [options]"""
    asked = tyro.cli(PlanCommand, prog="jepalab plan", args=words)
    for place, suffixes in ((asked.film, FILMS), (asked.counterfactual, PICTURES)):
        if place is not None:
            check_place(place, suffixes)
    stream, model = open_world(asked.run)
    ground, judged = _ground(asked, stream, num_at_once=asked.episodes), judged_planning(asked.run)
    usual = _uncounted(judged or usual_planning(ground.name))
    # Read again, now that it is known what is usual: what was not asked for is so.
    asked = tyro.cli(PlanCommand, prog="jepalab plan", args=words, default=replace(asked, how=usual))
    how = _how(asked, model)
    if judged and (others := _differences(asked.how, _uncounted(judged))):
        print(f"This is not how the comparison planned: {others}.", file=sys.stderr)
    trial = how.trial(ground)
    world = None
    if asked.film is not None or how.space == "state":
        world = world_subject(model, ground.env, stream, share=0.5)
    agents: dict[str, Agent] = {asked.run.name: how.agent(model, ground, world=world)}
    if asked.floors:
        ceiling: tuple[FloorName, ...] = ("oracle",) if ground.is_fast else ("replay",) if ground.replay else ()
        agents |= {NAMES[name]: how.stand_in(name, ground) for name in ("random", *ceiling)}
    played = {name: _play(trial, agent, name) for name, agent in agents.items()}
    scores = {name: success(trial, each) | diagnose_searches(each) for name, each in played.items()}
    _draw(asked, stream, model, ground, trial, world, played[asked.run.name])
    if asked.json:
        facts = {"env": ground.name, "episodes": len(trial.manifest), "seed": asked.seed}
        print(json.dumps(facts | {"manifest": trial.manifest.digest, "planning": vars(how), "scores": scores}))
        return 0
    show_acting(trial, scores, played, asked.run.name)
    print(f"\nepisodes: seed {asked.seed}, manifest {trial.manifest.digest[:16]}, {how.num_steps} steps each")
    print(how.in_words(ground.frameskip))
    for name, place in (("film", asked.film), ("counterfactuals", asked.counterfactual)):
        if place is not None:
            print(f"{name}: {place}")
    return 0


def _uncounted(how: Planning) -> Planning:
    """The same way of planning; episodes and seeds have flags of the command's own."""
    return replace(how, **{name: getattr(Planning(), name) for name in COUNTED})


def _differences(how: Planning, judged: Planning) -> str:
    """Where the way of planning is another than a run was judged with, in words; empty where it is not."""
    pairs = {name: (value, vars(judged)[name]) for name, value in vars(how).items()}
    return ", ".join(f"{name} {now}, there {then}" for name, (now, then) in pairs.items() if now != then)


def _how(asked: PlanCommand, model: WorldModel) -> Planning:
    """How it is planned, which is said where it is not as it was asked for."""
    usual = Planning()
    if (asked.how.cross_room, asked.how.same_room, asked.how.episode_seed) != (
        *(usual.cross_room, usual.same_room, usual.episode_seed),
    ):
        raise ValueError("Say how many episodes with --episodes, and from which seed they are drawn with --seed.")
    full = replace(asked.how, cross_room=asked.episodes, same_room=asked.episodes // 2, episode_seed=asked.seed)
    how = full.affordable(model)
    if how != full:
        print(
            f"A frame is encoded or decoded at every imagined step, so it is planned as in comparisons, with a tenth: "
            f"{how.num_samples} candidates, {how.cross_room} and {how.same_room} episodes.",
            file=sys.stderr,
        )
    return how


def _ground(asked: PlanCommand, stream: TrajectoryStream, *, num_at_once: int) -> Ground:
    """Where the model is to act; ValueError for what it was not trained for."""
    ground = ground_of(stream, num_at_once=num_at_once, ahead=asked.ahead)
    if ground is None:
        raise ValueError(f"{asked.run} was trained on episodes that name no environment of jepalab's; it cannot act.")
    if asked.env not in (None, ground.name):
        raise ValueError(f"{asked.run} was trained on pictures of {ground.name}; it cannot act in {asked.env}.")
    env = ground.env
    if asked.layout is not None or asked.television is not None:
        if not isinstance(env, TwoRooms):
            raise ValueError(
                "--layout and --television are for models of simulated rooms, and this one saw stored episodes."
            )
        if asked.layout is not None:
            env = replace(env, layouts=LAYOUTS[asked.layout]())
        if asked.television is not None:
            shows = asked.television
            env = replace(
                env, television=None if shows == "none" else Television.showing(shows, share=asked.screen_share)
            )
        ground = rooms_ground(env)
    if (asked.noise, asked.brightness, asked.tint) != (0.0, 1.0, 0.0):
        changed = Changed(ground.env, noise=asked.noise, brightness=asked.brightness, tint=asked.tint)
        ground = replace(ground, env=changed)
    return ground


def judged_planning(folder: Path) -> Planning | None:
    """How a cell of a comparison was planned with when it was judged; None for a run of `jepalab train`."""
    judging = judging_of_cell(RunFolder(folder).description(), name=str(folder), settings=settings_of(str(folder)))
    subjects = None if judging is None else judging.subjects
    planning = subjects.keywords.get("planning") if isinstance(subjects, partial) else None
    return planning if isinstance(planning, Planning) else None


def open_world(folder: Path) -> tuple[TrajectoryStream, WorldModel]:
    """The world model of a run's folder, be it of `jepalab train` or a cell of `jepalab compare`, made again as its
    command made it, with the weights it ended with, and the stream it was trained on.

    Raises:
        ValueError: the folder holds no run, one that cannot be made again, or one of something that does not imagine.
    """
    records = RunFolder(folder)
    known = records.description()
    if not known:
        raise ValueError(
            f"{folder} holds no run of `jepalab train` or `jepalab compare`; wanted the folder of a world model, such "
            "as runs/NAME or a cell's runs/NAME/cells/CONDITION/ARM/seed-0."
        )
    made = way_to_make(known, folder.resolve(), name=str(folder), settings=settings_of(str(folder)))()
    model: object = made.objective.eval()
    if not isinstance(model, WorldModel) or not isinstance(made.stream, TrajectoryStream):
        raise ValueError(f"{folder} holds {type(model).__name__}, which does not imagine; plan with a world model.")
    records.load(made.objective)
    return made.stream, model


def _play(trial: Trial, agent: Agent, name: str) -> Played:
    with count_items(f"acting: {name}") as count:
        return trial.play(agent, watch=lambda step, _: count(step, trial.num_steps))


def _draw(
    asked: PlanCommand,
    stream: TrajectoryStream,
    model: WorldModel,
    ground: Ground,
    trial: Trial,
    world: WorldSubject | None,
    played: Played,
) -> None:
    """The film and the counterfactuals, where they are asked for."""
    if asked.film is None and asked.counterfactual is None:
        return
    draw = artist(model, stream)
    if asked.film is not None:
        assert world is not None, "it was made for the film"
        given = {"history": asked.how.history, "frameskip": ground.frameskip}
        write_films(asked.film, films_of(world, trial, played, draw, num=NUM_FILMS, every=2, **given))
    if asked.counterfactual is not None:
        Image.fromarray(sheet_of(futures(model, ground, trial, draw))).save(asked.counterfactual)
