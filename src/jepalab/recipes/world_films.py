"""What is kept of a world model for the report: films of its plans, and a map of its distances to a goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.world_pictures import SUFFIX
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.instruments.imagining import world_subject
from jepalab.instruments.plan_films import Draws, film_plans, train_microscope
from jepalab.recipes.world_bench import Walks
from jepalab.recipes.world_grounds import rooms_ground
from jepalab.recipes.world_judging import Planning, environment_of, episodes
from jepalab.run import Run
from jepalab.types import WorldModel

NUM_FILMS, EVERY, ZOOM = 3, 3, 2
PLACES = 27  # of the map, along each side


def draw_world(cell: Cell, run: Run, pictures: Path, *, seed: int, planning: Planning) -> None:
    """Writes films of the first episodes and the map, of one seed; nothing of agents that imagine nothing, nor of
    worlds that are not simulated.
    """
    model: object = run.objective.eval().cpu()
    if not isinstance(run.stream, TrajectoryStream) or not isinstance(run.stream.recorded["test"], Walks):
        return
    if run.seed != seed or not isinstance(model, WorldModel):
        return
    env = environment_of(run.stream)
    trial, played = episodes(run.objective, rooms_ground(env), planning.of_seed(run.stream.seed))
    subject = world_subject(model, env, run.stream, share=0.5)
    probe = subject.probe()
    films = film_plans(
        env,
        trial.manifest.goal,
        played,
        model,
        rows=range(min(NUM_FILMS, len(trial.manifest))),
        locate=lambda z: probe.predict(subject.look(z).flatten(0, 1)),
        draw=model.draw if isinstance(model, Draws) else train_microscope(model, run.stream),
        every=EVERY,
        zoom=ZOOM,
    )
    longest = max(map(len, films))
    padded = [np.concatenate([film, np.repeat(film[-1:], longest - len(film), 0)]) for film in films]
    latent, way = distance_map(model, env, trial.manifest.start[:1], trial.manifest.goal[:1])
    np.savez_compressed(
        picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}{SUFFIX}",
        films=np.stack(padded),
        latent=latent.numpy(),
        way=way.numpy(),
    )


@torch.no_grad()
def distance_map(
    model: WorldModel, env: TwoRooms, start: RoomState, goal: RoomState
) -> tuple[Float[torch.Tensor, "g g"], Float[torch.Tensor, "g g"]]:
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
