"""Counterfactuals: from one start, what a world model imagines under several plans, beside what each really does
(jepa-wms, arXiv 2512.24497)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.envs.environment import Environment, State
from jepalab.instruments.plan_films import Draw, colours
from jepalab.planners.planner import Bounds
from jepalab.types import WorldModel

STEADY = {"right": (0, 1.0), "left": (0, -1.0), "down": (1, 1.0), "up": (1, -1.0)}  # component, and which way


@dataclass(frozen=True)
class Counterfactuals:
    """k futures of one start, each told twice, from the start on.

    names     of the plans.
    real      [k t c h w] what the environment shows.
    imagined  [k t c h w] what the model imagines, drawn; first the start's own embedding.
    """

    names: Sequence[str]
    real: Float[Tensor, "k t c h w"]
    imagined: Float[Tensor, "k t c h w"]


def steady_plans(bounds: Bounds, *, num_steps: int, max_norm: float) -> dict[str, Float[Tensor, "t a"]]:
    """Always the same action: as far as may be each way along the first two components, and none at all."""
    width = len(bounds.low)
    longest = Bounds(bounds.low, bounds.high, min(bounds.max_norm, max_norm))
    plans = {}
    for name, (component, way) in STEADY.items():
        if component < width:
            action = torch.zeros(width)
            action[component] = way * min(max_norm, 1e6)
            plans[name] = longest.clip(action).expand(num_steps, -1)
    return plans | {"still": torch.zeros(num_steps, width)}


@torch.no_grad()
def counterfactuals(
    env: Environment[Any],
    model: WorldModel,
    start: State,
    plans: dict[str, Float[Tensor, "t a"]],
    *,
    draw: Draw,
    frameskip: int = 1,
) -> Counterfactuals:
    """The futures of the one environment in `start`, a picture every `frameskip` steps, which each plan's divides."""
    felt = env.proprioception(start)
    z = model.encode(env.render(start)[:, None], felt[:, None] if felt.shape[-1] else None).float()
    action = torch.stack([*plans.values()])
    blocks = action.unflatten(1, (-1, frameskip)).flatten(2)
    path = model.rollout(z, blocks[:1, :0], blocks[None])[0].float()
    imagined = draw(torch.cat([z.expand(len(plans), -1, -1), path], 1)).clamp(0, 1)
    # Each plan's copy of the start lives through the same chances.
    state, real = start.repeat(len(plans)), [env.render(start.repeat(len(plans)))]
    for t, each in enumerate(action.unbind(1)):
        state = env.step(state, each)
        if (t + 1) % frameskip == 0:
            real.append(env.render(state))
    return Counterfactuals([*plans], torch.stack(real, 1).clamp(0, 1), imagined)


def sheet_of(found: Counterfactuals, *, zoom: int = 2) -> UInt8[np.ndarray, "y x 3"]:
    """One picture: for each plan what happens above what is imagined, time to the right."""
    gap, rows = 2 * zoom, []
    for k in range(len(found.names)):
        for line in (found.real[k], found.imagined[k]):
            parts = [np.pad(colours(x, zoom), [(0, 0), (0, gap), (0, 0)], constant_values=255) for x in line]
            rows.append(np.concatenate(parts, 1))
        rows.append(np.full((2 * gap, rows[-1].shape[1], 3), 255, dtype=np.uint8))
    return np.concatenate(rows[:-1])
