"""What is drawn of a world model: films of its plans, counterfactuals, and a map of its distances to a goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.world_pictures import SUFFIX
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.environment import PointState
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.instruments.acting import Played
from jepalab.instruments.counterfactuals import Counterfactuals, counterfactuals, steady_plans
from jepalab.instruments.imagining import WorldSubject, action_grid, energies, world_subject
from jepalab.instruments.plan_films import Draw, Draws, Film, colours, film_plans, train_microscope
from jepalab.instruments.planning import Trial
from jepalab.recipes.world_bench import Walks
from jepalab.recipes.world_grounds import Ground, rooms_ground
from jepalab.recipes.world_judging import Planning, environment_of, episodes
from jepalab.recipes.world_planning import UnreadableError
from jepalab.run import Run
from jepalab.types import WorldModel

NUM_FILMS, EVERY, ZOOM = 3, 3, 2
NUM_ENERGIES = 4
NUM_FUTURE = 12  # steps of a counterfactual
PLACES = 27  # of the map, along each side


def draw_world(cell: Cell, run: Run, pictures: Path, *, seed: int, planning: Planning) -> None:
    """Writes films of the first episodes and the map, of one seed; nothing of agents that imagine nothing, of those
    that cannot be read as the planning asks, nor of worlds that are not simulated.
    """
    model: object = run.objective.eval().cpu()
    if not isinstance(run.stream, TrajectoryStream) or not isinstance(run.stream.recorded["test"], Walks):
        return
    if run.seed != seed or not isinstance(model, WorldModel):
        return
    env = environment_of(run.stream)
    subject = world_subject(model, env, run.stream, share=0.5)
    try:
        trial, played = episodes(run.objective, rooms_ground(env), planning.of_seed(run.stream.seed), world=subject)
    except UnreadableError:
        return  # `acting` said so
    draw = artist(model, run.stream)
    films = films_of(subject, trial, played, draw, num=NUM_FILMS, every=EVERY, zoom=ZOOM, history=planning.history)
    longest = max(map(len, films))
    padded = [np.concatenate([film, np.repeat(film[-1:], longest - len(film), 0)]) for film in films]
    what_if = futures(model, rooms_ground(env), trial, draw)
    latent, way = distance_map(model, env, trial.manifest.start[:1], trial.manifest.goal[:1])
    np.savez_compressed(
        picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}{SUFFIX}",
        films=np.stack(padded),
        latent=latent.numpy(),
        way=way.numpy(),
        energy=energy_map(subject),
        plans=np.array([*what_if.names]),
        real=as_bytes(what_if.real),
        imagined=as_bytes(what_if.imagined),
    )


def artist(model: WorldModel, stream: TrajectoryStream) -> Draw:
    """What draws a model's states: the model itself, or a decoder that is fitted now and takes no part in planning."""
    return model.draw if isinstance(model, Draws) else train_microscope(model, stream)


def films_of(
    subject: WorldSubject,
    trial: Trial,
    played: Played,
    draw: Draw,
    *,
    num: int,
    every: int,
    zoom: int = 3,
    history: int = 1,
    frameskip: int = 1,
) -> list[Film]:
    """Films of the first episodes; in a world of a point a probe of the model's states says where plans lead."""
    probe = subject.probe() if isinstance(trial.manifest.start, PointState) else None
    return film_plans(
        trial.env,
        trial.manifest.goal,
        played,
        subject.model,
        rows=range(min(num, len(trial.manifest))),
        locate=None if probe is None else lambda z: probe.predict(subject.look(z).flatten(0, 1)),
        draw=draw,
        every=every,
        zoom=zoom,
        history=history,
        frameskip=frameskip,
    )


def futures(
    model: WorldModel,
    ground: Ground,
    trial: Trial,
    draw: Draw,
    *,
    num_steps: int = NUM_FUTURE,
) -> Counterfactuals:
    """Steady actions each way from the first episode's start, so many imagined steps long."""
    plans = steady_plans(trial.env.bounds, num_steps=num_steps * ground.frameskip, max_norm=ground.max_norm)
    return counterfactuals(trial.env, model, trial.manifest.start[:1], plans, draw=draw, frameskip=ground.frameskip)


@torch.no_grad()
def distance_map(
    model: WorldModel, env: TwoRooms, start: RoomState, goal: RoomState
) -> tuple[Float[Tensor, "g g"], Float[Tensor, "g g"]]:
    """From each place of a grid over the rooms to the goal: the latent distance, and the way that is left.

    Places are in the start's world, which has a television of its own, as in an episode. Both have rows from the top
    down, and are shares of their largest.
    """
    low, high = env.layouts.arena
    line = torch.linspace(low + 1, high - 1, PLACES)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    place = torch.stack([columns.flatten(), rows.flatten()], 1)
    here, goals = start.repeat(len(place)), goal.repeat(len(place))
    states = env.place(place, here.layout, here.key)
    z = torch.cat([model.encode(env.render(states[i : i + 128])[:, None]) for i in range(0, len(place), 128)])
    latent = (z - model.encode(env.render(goal)[:, None])).float().square().mean((1, 2)).sqrt()
    way = env.distance(states, goals)
    way = way.where(way.isfinite(), way[way.isfinite()].max())
    return tuple((each / each.max().clamp_min(1e-12)).unflatten(0, (PLACES, PLACES)) for each in (latent, way))  # pyrefly: ignore[bad-return]


def energy_map(subject: WorldSubject) -> Float[np.ndarray, "k g g"]:
    """Of the first held-out clips, how far each action is imagined to lead from the frame that came, as a share of the
    farthest: actions to the right along columns, downwards along rows.
    """
    energy = energies(subject.model, action_grid(subject), subject.z["test"][:NUM_ENERGIES])
    side = round(energy.shape[1] ** 0.5)
    return (energy / energy.amax(1, keepdim=True).clamp_min(1e-12)).unflatten(1, (side, side)).mT.numpy()


def as_bytes(pictures: Float[Tensor, "k t c h w"]) -> UInt8[np.ndarray, "k t y x 3"]:
    """The pictures in colours, as they are."""
    return np.stack([np.stack([colours(x, 1) for x in row]) for row in pictures])
