"""What a world model holds, and how well it imagines, each beside what comes without imagining.

An error of prediction means nothing by itself: a latent that hardly moves is easy to predict. So every one stands
beside persistence ("nothing changes") and the same model with the actions of other clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.data.trajectories import Split, TrajectoryStream
from jepalab.dist import seeded
from jepalab.envs.environment import Environment
from jepalab.instruments.capacity import HIDDEN, correct
from jepalab.instruments.geometry import collapse_meters, straightness
from jepalab.instruments.probes import Ridge
from jepalab.instruments.ranks import pearson, spearman
from jepalab.instruments.stages import Replayable, Stage
from jepalab.instruments.surprise import auroc
from jepalab.types import Batch, Objective, WorldModel

NUM_CLIPS: dict[Split, int] = {"train": 400, "validation": 150, "test": 250}
CLIPS_AT_ONCE = 64
NUM_PAIRS = 2_000
PLACES = 15  # of the grid of actions, along each axis of the bounds


@runtime_checkable
class Looks(Protocol):
    """A model whose state is the frame: what it knows is what its encoder sees there."""

    def look(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]: ...


@dataclass(frozen=True)
class WorldSubject:
    """A world model, where it acts, and its states of held-out clips, each computed once.

    z      [b t d] by split, float32: what it plans with.
    seen   [b t e] what its encoder sees there; z itself, but for models whose state is the frame.
    clips  the clips they are of, with "position" among their factors.
    states the states at the frames of the test's clips, clip by clip, where they are known.
    """

    model: WorldModel
    env: Environment[Any]
    z: Mapping[Split, Float[Tensor, "b t d"]]
    seen: Mapping[Split, Float[Tensor, "b t e"]]
    clips: Mapping[Split, Batch]
    states: Any = None

    def rows(self, split: Split) -> Float[Tensor, "n e"]:
        return self.seen[split].flatten(0, 1)

    def positions(self, split: Split) -> Float[Tensor, "n f"]:
        return self.clips[split].factors["position"].flatten(0, 1).float()

    def probe(self) -> Ridge:
        """Reads positions from what is seen in encoded frames."""
        return Ridge().fit(
            self.rows("train"), self.positions("train"), self.rows("validation"), self.positions("validation")
        )

    def look(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
        """What is seen in states, encoded or imagined."""
        return _look(self.model, z)


def _look(model: WorldModel, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
    if not isinstance(model, Looks):
        return z
    return torch.cat([model.look(part).float() for part in z.split(CLIPS_AT_ONCE)])


@torch.no_grad()
def world_subject(
    model: WorldModel, env: Environment[Any], stream: TrajectoryStream, *, share: float = 1.0
) -> WorldSubject:
    """Embeds held-out clips, or a share of them."""
    clips = {split: stream.held_out(split, max(20, round(share * num))) for split, num in NUM_CLIPS.items()}
    z = {split: torch.cat([*map(model_encode(model), _parts(batch))]) for split, batch in clips.items()}
    seen, recorded = {split: _look(model, states) for split, states in z.items()}, stream.recorded["test"]
    where = stream.held_out_windows("test", len(clips["test"]))
    states = recorded.states(where, stream.num_frames) if isinstance(recorded, Replayable) else None
    return WorldSubject(model, env, z, seen, clips, states)


def model_encode(model: WorldModel) -> Any:
    """Embeds a batch, with what is felt where the batch has it."""
    return lambda batch: model.encode(batch.x, batch.proprio).float()


def world_state(subject: WorldSubject) -> dict[str, float]:
    """What one embedding says of the position, and how embeddings lie.

    "position_r2", "position_r" (Pearson) by ridge; "position_mlp_r2" by a network that starts from that answer;
    "straightness" of the latent's path, and the collapse meters.
    """
    probe = subject.probe()
    truth = {split: subject.positions(split) for split in subject.z}
    answers = {split: probe.predict(subject.rows(split)) for split in subject.z}
    with seeded(0):
        last = nn.Linear(HIDDEN, truth["train"].shape[1])
        mlp = nn.Sequential(nn.Linear(subject.rows("train").shape[1], HIDDEN), nn.GELU(), last)
    nn.init.zeros_(last.weight)
    rows: dict[str, Tensor] = {split: subject.rows(split) for split in subject.z}
    left: dict[str, Tensor] = {split: truth[split] - answers[split] for split in subject.z}
    return {
        "position_r2": probe.score(rows["test"], truth["test"]),
        "position_r": pearson(answers["test"], truth["test"]),
        "position_mlp_r2": correct(mlp, rows, left, truth["test"]),
        "straightness": straightness(subject.seen["test"]),
        **collapse_meters(subject.rows("test")),
    }


@torch.no_grad()
def imagination(subject: WorldSubject) -> dict[str, float]:
    """Errors k steps ahead, as shares of what persistence errs, and the position read from what is imagined.

    "ahead_K" the squared error over that of "nothing changes" (below 1 is better than it); "ahead_K_shuffled" the same
    with the actions of other clips, which must be worse if actions are used; "ahead_K_still" with no actions;
    "ahead_K_r2" the position, by the probe of encoded frames; "ahead_K_px" its mean distance from the truth, and
    likewise "ahead_K_px_shuffled", "ahead_K_px_still", and "ahead_K_px_persistence" if nothing had changed.
    """
    batch, z = subject.clips["test"], subject.z["test"]
    action = batch.action
    assert action is not None
    probe, position = subject.probe(), batch.factors["position"].float()
    kinds = {"": action, "_shuffled": action.roll(1, 0), "_still": torch.zeros_like(action)}
    imagined = {kind: _imagine(subject.model, z[:, :1], taken) for kind, taken in kinds.items()}
    scores = {}
    for k in _milestones(action.shape[1]):
        truth, still = z[:, k], z[:, 0]
        persistence = float((still - truth).square().mean())
        for kind, path in imagined.items():
            error = float((path[:, k - 1] - truth).square().mean())
            scores[f"ahead_{k}{kind}"] = error / max(persistence, 1e-12)
        seen = {kind: subject.look(path[:, k - 1 : k])[:, 0] for kind, path in imagined.items()}
        scores[f"ahead_{k}_r2"] = probe.score(seen[""], position[:, k])
        for kind, shown in (seen | {"_persistence": subject.seen["test"][:, 0]}).items():
            scores[f"ahead_{k}_px{kind}"] = float((probe.predict(shown) - position[:, k]).norm(dim=1).mean())
    return scores


@torch.no_grad()
def geodesics(subject: WorldSubject, *, seed: int = 0) -> dict[str, float]:
    """Whether distances between embeddings follow the ways that can be gone: Spearman's rank correlations.

    "geodesic_rank" with the way around what is in the way, "euclidean_rank" with the straight line, over pairs of
    states drawn by the environment.
    """
    starts, goals = subject.env.random_pairs(NUM_PAIRS, torch.Generator().manual_seed(seed), min_distance=1.0)
    z_start, z_goal = (torch.cat([*map(model_encode(subject.model), _shown(subject.env, s))]) for s in (starts, goals))
    latent = (z_start - z_goal).square().mean((1, 2))
    way = subject.env.distance(starts, goals)
    straight = (subject.env.factors(starts)["position"] - subject.env.factors(goals)["position"]).norm(dim=1)
    known = way.isfinite()
    return {
        "geodesic_rank": spearman(latent[known], way[known]),
        "euclidean_rank": spearman(latent[known], straight[known]),
    }


@torch.no_grad()
def energy_landscape(subject: WorldSubject) -> dict[str, float]:
    """Where the error of the next embedding is least, over a grid of actions, against the action that was taken.

    The grid has actions no longer than the longest in the training clips, and steps that the environment is known to
    have blocked are left out: no model knows the others, and of a blocked step many actions are true.

    "action_error" the mean distance between the two, in the action's units; "action_error_chance" that of the middle
    of the grid, which looks at nothing.
    """
    batch, z = subject.clips["test"], subject.z["test"]
    assert batch.action is not None
    grid, taken, longest = action_grid(subject), batch.action[:, 0], _longest_known(subject)
    grid = grid[grid.norm(dim=1) <= longest * (1 + 1e-6)]
    free = torch.ones(len(z), dtype=torch.bool)
    if subject.states is not None and isinstance(subject.env, Stage):
        free = ~subject.env.is_blocked(subject.states[:: z.shape[1]], taken)
    z, taken = z[free], taken[free]
    found = [grid[energies(subject.model, grid, part).argmin(1)] for part in z.split(CLIPS_AT_ONCE)]
    return {
        "action_error": float((torch.cat(found) - taken).norm(dim=1).mean()),
        "action_error_chance": float(taken.norm(dim=1).mean()),
    }


def action_grid(subject: WorldSubject) -> Float[Tensor, "g a"]:
    """Actions evenly over the bounds' box, as far as the longest in the training clips; the last component fastest."""
    bounds, longest = subject.env.bounds, _longest_known(subject)
    low, high = (end.clamp(-longest, longest).tolist() for end in (bounds.low, bounds.high))
    axes = [torch.linspace(*ends, PLACES) for ends in zip(low, high, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def _longest_known(subject: WorldSubject) -> float:
    """The length of the longest action in the training clips: no model knows longer ones."""
    known = subject.clips["train"].action
    assert known is not None
    return float(known.flatten(0, 1).norm(dim=1).max())


@torch.no_grad()
def energies(model: WorldModel, grid: Float[Tensor, "g a"], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b g"]:
    """The squared error of what each action is imagined to lead to from the first state, against the second."""
    candidates = grid[None, :, None].expand(len(z), -1, 1, -1)
    path = model.rollout(z[:, :1], grid.new_zeros(len(z), 0, grid.shape[1]), candidates)
    return (path[:, :, 0] - z[:, 1:2]).square().mean(-1)


@torch.no_grad()
def teleport_surprise(subject: WorldSubject) -> dict[str, float]:
    """Whether the model is surprised when what acts jumps, and not when only its colour changes.

    The error of the predicted embedding is compared with that of the frame that came: 0.5 is no surprise, 1 always
    more. "teleport_auroc" where what acts is somewhere else in the same scene, with the same walls, light and screen;
    "recoloured_auroc" where it alone has another colour. A model of what can happen has the first near 1; the second is
    a false alarm. Where states are not known, the jump is to the clip's last frame, and nothing is recoloured.
    """
    batch, z = subject.clips["test"], subject.z["test"]
    assert batch.action is not None
    foreseen = _imagine(subject.model, z[:, :1], batch.action[:, :1])[:, 0]
    usual = (foreseen - z[:, 1]).square().mean(1)
    if subject.states is None or not isinstance(subject.env, Stage):
        return {"teleport_auroc": auroc(usual, (foreseen - z[:, -1]).square().mean(1))}
    second = subject.states[1 :: z.shape[1]]
    shown = {
        "teleport": (subject.env, subject.env.elsewhere(second, torch.Generator().manual_seed(0))),
        "recoloured": (subject.env.recoloured(), second),
    }
    scores = {}
    for name, (env, state) in shown.items():
        instead = torch.cat([*map(model_encode(subject.model), _shown(env, state))])[:, 0]
        scores[f"{name}_auroc"] = auroc(usual, (foreseen - instead).square().mean(1))
    return scores


def input_statistics(subject: WorldSubject) -> dict[str, float]:
    """Whether the encoder's normalisation is that of the frames it is given: stale statistics ruin all that follows.

    "input_mean_off" the largest distance of a channel's normalised mean from 0, "input_std_off" of the logarithm of
    its deviation from 0. Encoders that do not say how they normalise give nothing.
    """
    model: object = subject.model
    encoder = model.encoder if isinstance(model, Objective) else None
    mean, std = getattr(encoder, "mean", None), getattr(encoder, "std", None)  # buffers, of all or of each channel
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        return {}
    x = subject.clips["test"].x.transpose(0, 2).flatten(1)
    normal = (x - mean.reshape(-1, 1)) / std.reshape(-1, 1)
    return {
        "input_mean_off": float(normal.mean(1).abs().max()),
        "input_std_off": float(normal.std(1).log().abs().max()),
    }


def _imagine(model: WorldModel, z: Float[Tensor, "b 1 d"], action: Float[Tensor, "b h a"]) -> Float[Tensor, "b h d"]:
    """The rollout of each clip under its own actions, part by part."""
    parts = zip(z.split(CLIPS_AT_ONCE), action.split(CLIPS_AT_ONCE), strict=True)
    return torch.cat([model.rollout(start, taken[:, :0], taken[:, None])[:, 0].float() for start, taken in parts])


def _milestones(horizon: int) -> list[int]:
    """1, then roughly doubling, up to the horizon."""
    return sorted({*(k for k in (1, 2, 4, 8, 16, 32, 64) if k < horizon), horizon})


def _parts(batch: Batch) -> list[Batch]:
    felt = [None] * len(batch) if batch.proprio is None else batch.proprio.split(CLIPS_AT_ONCE)
    return [Batch(x=x, proprio=p) for x, p in zip(batch.x.split(CLIPS_AT_ONCE), felt, strict=False)]


def _shown(env: Environment[Any], state: Any) -> list[Batch]:
    """The pictures of states, as clips of one frame."""
    felt = env.proprioception(state)
    return _parts(Batch(x=env.render(state)[:, None], proprio=felt[:, None] if felt.shape[-1] else None))
