"""World models of run folders, opened once and kept, and what reads positions and pictures from their embeddings."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.instruments.imagining import Looks, WorldSubject, world_subject
from jepalab.instruments.plan_films import Draws
from jepalab.instruments.probes import Ridge
from jepalab.recipes.world_bench import Walks
from jepalab.recipes.world_grounds import Ground, rooms_ground
from jepalab.types import Objective, WorldModel
from jepalab.web.opening_runs import open_below, weights_of
from jepalab.web.shelf import camp_of

MOST_KEPT = 4
AT_ONCE = 128  # frames that are encoded together
SHARE = 0.15  # of the clips that the instruments of world models read: enough for a probe of two numbers
_KEPT: OrderedDict[tuple[str, int], World] = OrderedDict()


@dataclass(frozen=True, eq=False)
class World:
    """A trained world model, the rooms in which it learned, and a linear probe of the position.

    r2         of the probe on held-out frames: 1 is exact, 0 says nothing.
    off        mean distance in pixels between the position that is read and the true one, on held-out frames.
    off_ahead  the same on what is imagined `ahead` steps after a frame, under the actions that were taken.
    """

    name: str
    step: int
    model: WorldModel
    objective: Objective
    ground: Ground
    env: TwoRooms
    probe: Ridge
    r2: float
    off: float
    ahead: int
    off_ahead: float

    @torch.no_grad()
    def encode(self, state: RoomState) -> Float[Tensor, "n 1 d"]:
        """Embeddings of the pictures of these states."""
        parts = [state[i : i + AT_ONCE] for i in range(0, len(state), AT_ONCE)]
        return torch.cat([self.model.encode(self.env.render(part)[:, None]).float() for part in parts])

    @torch.no_grad()
    def imagine(self, state: RoomState, plan: Float[Tensor, "1 h a"]) -> Float[Tensor, "1 h d"]:
        """What would follow on the plan, step by step."""
        return self.model.rollout(self.encode(state), plan[:, :0], plan[:, None])[:, 0].float()

    @torch.no_grad()
    def locate(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "n 2"]:
        """Positions in pixels, as the probe reads them."""
        seen = self.model.look(z).float() if isinstance(self.model, Looks) else z
        return self.probe.predict(seen.flatten(0, 1))

    @torch.no_grad()
    def draw(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"] | None:
        """What the model's own decoder makes of embeddings; None for a model that has none."""
        return self.model.draw(z) if isinstance(self.model, Draws) else None

    def facts(self) -> dict[str, Any]:
        """What the page says of it."""
        spaces = {term: str(self.objective.compares[term]) for term in self.objective.weights}
        return {
            "name": self.name,
            "camp": camp_of(spaces),
            "objective": type(self.objective).__name__,
            "compares": sorted({*spaces.values()}),
            "step": self.step,
            "r2": self.r2,
            "off": self.off,
            "ahead": self.ahead,
            "off_ahead": self.off_ahead,
            "draws_itself": isinstance(self.model, Draws),
            "imagines_frames": isinstance(self.model, Looks),
        }


def world_of(root: Path, name: str) -> World:
    """The world model in the run folder that the page calls `name`, opened anew only if there is a newer checkpoint.

    Raises:
        ValueError: there is none that could act in simulated rooms; says why.
    """
    weights = weights_of(root, name)
    if weights.key not in _KEPT:
        _KEPT[weights.key] = _open(root, name, weights.step)
        while len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(weights.key)
    return _KEPT[weights.key]


def _open(root: Path, name: str, step: int) -> World:
    run, _ = open_below(root, name)
    model: object = run.objective
    stream: object = run.stream
    if not isinstance(model, WorldModel) or not isinstance(stream, TrajectoryStream):
        raise ValueError(f"{name} holds {type(model).__name__}, which does not imagine; plan with a world model.")
    walks = stream.recorded["test"]
    if not isinstance(walks, Walks):
        raise ValueError(
            f"{name} learned from stored episodes, and this page plays in the simulated Two Rooms; let it act in its "
            f"own world with `jepalab plan`."
        )
    subject = world_subject(model, walks.rooms, stream, share=SHARE)
    probe = subject.probe()
    ahead, off_ahead = _off_ahead(subject, probe)
    truth = subject.positions("test")
    return World(
        name=name,
        step=step,
        model=model,
        objective=run.objective,
        ground=rooms_ground(walks.rooms),
        env=walks.rooms,
        probe=probe,
        r2=probe.score(subject.rows("test"), truth),
        off=_mean_distance(probe.predict(subject.rows("test")), truth),
        ahead=ahead,
        off_ahead=off_ahead,
    )


@torch.no_grad()
def _off_ahead(subject: WorldSubject, probe: Ridge) -> tuple[int, float]:
    """Steps ahead, and how far off the position is that is read from what is imagined so many steps ahead."""
    z, clips = subject.z["test"], subject.clips["test"]
    action = clips.action
    assert action is not None, "walks have actions"
    last = subject.model.rollout(z[:, :1], action[:, :0], action[:, None])[:, 0, -1:].float()
    read = probe.predict(subject.look(last)[:, 0])
    return action.shape[1], _mean_distance(read, clips.factors["position"][:, -1])


def _mean_distance(read: Float[Tensor, "n 2"], truth: Float[Tensor, "n 2"]) -> float:
    return float((read - truth).norm(dim=1).mean())
