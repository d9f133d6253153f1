"""Films of plans: what happened, the path that was imagined at each moment over it, and what was imagined, drawn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.backbones.decoder import PixelDecoder
from jepalab.dist import seeded
from jepalab.envs.environment import Environment, State
from jepalab.instruments.acting import Played
from jepalab.losses.distances import mean_squared
from jepalab.types import Stream, WorldModel

DECODER_STEPS = 300
GOAL, PATH, WALL = (60, 200, 90), (255, 150, 30), (110, 110, 120)
Draw = Callable[[Float[Tensor, "b t d"]], Float[Tensor, "b t c h w"]]
Film = UInt8[np.ndarray, "t y x 3"]


@runtime_checkable
class Draws(Protocol):
    """A model that can draw its own embeddings."""

    def draw(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"]: ...


def train_microscope(model: WorldModel, stream: Stream, *, steps: int = DECODER_STEPS) -> PixelDecoder:
    """A decoder that draws what a model's embeddings hold, learned on its training clips; the model is left alone."""
    first = stream.batch(0)
    channels, size = first.x.shape[2], first.x.shape[-1]
    with torch.no_grad():
        dim = model.encode(first.x[:1, :1], None if first.proprio is None else first.proprio[:1, :1]).shape[-1]
    with seeded(0):
        decoder = PixelDecoder(dim, size=size, channels=channels, width=16)
    scale = first.x.std((0, 1, 3, 4)).clamp_min(1e-3).reshape(-1, 1, 1)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3, fused=True)
    for step in range(steps):
        batch = stream.batch(step)
        x = batch.x[:, :2]
        with torch.no_grad():
            z = model.encode(x, None if batch.proprio is None else batch.proprio[:, :2]).float()
        mean_squared(decoder(z) / scale, x / scale).backward()
        optimizer.step()
        optimizer.zero_grad()
    return decoder.eval().requires_grad_(False)


@torch.no_grad()
def film_plans(
    env: Environment[Any],
    goal: State,
    played: Played,
    model: WorldModel,
    *,
    rows: Sequence[int],
    locate: Callable[[Float[Tensor, "b t d"]], Float[Tensor, "n 2"]] | None,
    draw: Draw,
    every: int = 1,
    zoom: int = 3,
    history: int = 1,
    frameskip: int = 1,
) -> list[Film]:
    """One film of each of these episodes: what happens beside the frame that the plan imagines last. In a world of a
    point, the imagined path lies over the episode in orange and the goal over both in green; of others the goal's
    picture stands on the right.

    locate  reads positions, in pixels, from imagined states, all in a row; None where there is no point.
    draw    draws them.

    history    frames that the agent's model was given, so far as there were any; they lie `frameskip` steps apart.
    frameskip  steps that a block of its actions takes.

    Each film ends when the goal is reached within the smallest radius, or with the episode.
    """
    when = played.effort.searched_at
    films: list[Film] = []
    for row in rows:
        index = torch.tensor([row])
        near = played.within[min(played.within)][row]
        last = int(near.int().argmax()) if bool(near.any()) else len(played.states) - 1
        frames = []
        for t in range(0, last + 1, every):
            state = played.states[t][index]
            number = bisect_right(when, t) - 1
            plan = played.effort.searches[number].action[index]
            seen = [*range(when[number], -1, -frameskip)][:history][::-1]
            given = [played.states[moment][index] for moment in seen]
            x, felt = (torch.stack([*map(look, given)], 1) for look in (env.render, env.proprioception))
            past = [played.actions[index, moment : moment + frameskip].flatten(1) for moment in seen[:-1]]
            z = model.encode(x, felt if felt.shape[-1] else None).float()
            path = model.rollout(z, torch.stack(past, 1) if past else plan[:, :0], plan[:, None])[:, 0].float()
            pictures = [colours(x, zoom) for x in (env.render(state)[0], draw(path[:, -1:])[0, 0].clamp(0, 1))]
            if locate is None:
                pictures.append(colours(env.render(goal[index])[0], zoom))
            else:
                place = env.factors(goal[index])["position"]
                _mark(pictures[0], place, GOAL, zoom, size=2)
                _mark(pictures[0], locate(path), PATH, zoom, size=1)
                _mark(pictures[1], place, GOAL, zoom, size=2)
            gap = np.full((pictures[0].shape[0], 4, 3), 255, dtype=np.uint8)
            frames.append(np.concatenate([part for each in pictures for part in (gap, each)][1:], 1))
        films.append(np.stack(frames))
    return films


def colours(picture: Float[Tensor, "c h w"], zoom: int) -> UInt8[np.ndarray, "y x 3"]:
    """Three channels as colours; of fewer, the first one in white over the last one, the walls, in grey."""
    picture = picture.clamp(0, 1)
    if len(picture) == 3:
        shown = picture.permute(1, 2, 0) * 255
    else:
        dot, wall = picture[0], picture[-1] if len(picture) > 1 else picture[0] * 0
        grey = torch.tensor(WALL, dtype=torch.float32)
        shown = wall[..., None] * grey + dot[..., None] * (255 - wall[..., None] * grey)
    large = shown.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    return np.ascontiguousarray(large.round().clamp(0, 255).to(torch.uint8).numpy())


def _mark(
    picture: np.ndarray, positions: Float[Tensor, "n 2"], colour: tuple[int, int, int], zoom: int, *, size: int
) -> None:
    """A square at each position that lies in the picture."""
    for x, y in ((positions.double() + 0.5) * zoom).round().long().tolist():
        top, left = max(0, y - size), max(0, x - size)
        picture[top : max(0, y + size + 1), left : max(0, x + size + 1)] = colour
