"""The command `jepalab collect`: episodes of an environment in a folder, many environments advanced at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from jepalab.data.episode_windows import SIMULATOR
from jepalab.data.episode_writer import EpisodeWriter
from jepalab.data.episodes import Episode
from jepalab.envs.environment import Environment, State
from jepalab.envs.policies import Policy, PolicyName, choose_policy
from jepalab.envs.scenes import Scene, SceneName, Setting, close
from jepalab.progress import count_items

LAYOUT = ("layout.", "maze")  # parts of a state that stay the same in an episode


@dataclass(frozen=True)
class CollectCommand:
    """Records episodes of an environment into a folder, for `jepalab train RECIPE --data FOLDER` and others.

    A folder that holds some already is continued where it stopped, to the same episodes. They have pixels, action, what
    the agent feels (proprio), what is true (state) and the simulator's own state, from which planning begins.

    Args:
        env: two-rooms and point-maze are our own; pusht, point-maze-mujoco and reacher are other people's: pip install
            "jepalab[worlds]".
        out: folder to write.
        episodes: that the folder is to have.
        steps: actions in an episode, which has one frame more.
        policy: "random" acts evenly within the bounds; "expert" goes the shortest way to a goal with an unsteady hand
            (two-rooms, point-maze); "scripted" makes things happen: it pushes the block of pusht, is led through the
            door of two-rooms, turns at random in point-maze.
        persistence: probability that the random policy repeats its last action.
        seed: of the episodes.
        setting: of the environment.
    """

    env: Annotated[SceneName, tyro.conf.Positional]
    out: Path
    episodes: int = 100
    steps: int = 100
    policy: PolicyName = "random"
    persistence: float = 0.0
    seed: int = 0
    setting: tyro.conf.OmitArgPrefixes[Setting] = field(default_factory=Setting)


def run(words: list[str]) -> int:
    """jepalab collect ENV --out DIR [options]"""
    asked = tyro.cli(CollectCommand, prog="jepalab collect", args=words)
    if min(asked.episodes, asked.steps) < 1:
        raise ValueError(f"Wanted at least one episode and one step, got {asked.episodes} and {asked.steps}.")
    scene = Scene(asked.env, asked.setting)
    policy = choose_policy(asked.policy, asked.env, persistence=asked.persistence)
    longest = {"longest": policy.longest if math.isfinite(policy.longest) else None}
    described = {"name": asked.policy} | asdict(policy) | longest  # pyrefly: ignore[bad-argument-type]
    facts = scene.metadata() | {"policy": described, "seed": asked.seed, "num_steps": asked.steps}
    env = scene.env(scene.kind.num_at_once)
    try:
        facts |= {"state": _widths(env)}
        with EpisodeWriter(asked.out, metadata=facts) as writer:
            there, skipped = len(writer), len(writer.skipped)
            record(
                env,
                policy,
                writer,
                num=asked.episodes,
                num_steps=asked.steps,
                seed=asked.seed,
                chunk=scene.kind.num_at_once,
            )
            told = f"{len(writer):,} episodes of {asked.steps} steps: {asked.out}"
            told += f"; {there:,} were there already" if there else ""
            if writer.skipped:
                name, why = next(iter(writer.skipped.items()))
                told += f"; {len(writer.skipped)} left out, {len(writer.skipped) - skipped} of them now: {name} ({why})"
    finally:
        close(env)
    print(told)
    return 0


def record(
    env: Environment[Any], policy: Policy, writer: EpisodeWriter, *, num: int, num_steps: int, seed: int, chunk: int
) -> None:
    """Adds episodes until `num` were recorded, those included that the writer has, or has left out.

    An episode depends on the seed and on its number, so what is interrupted goes on to the same ones. Those in which
    something is not finite are left out, and noted.

    chunk  environments that are advanced together.
    """
    done = len(writer) + len(writer.skipped)
    if done >= num:
        return
    with count_items("recording steps") as count:
        for first in range(done - done % chunk, num, chunk):
            size = min(chunk, num - first)
            rows = range(max(done, first) - first, size)

            def watch(steps: int, first: int = first, size: int = size) -> None:
                count((first - done) * num_steps + steps * size, (num - done) * num_steps)

            recorded = play(env, policy, size, seed=_seed(seed, first), num_steps=num_steps, watch=watch)
            for row, columns in enumerate(recorded):
                if row in rows:
                    _add(writer, first + row, columns)


def play(
    env: Environment[Any],
    policy: Policy,
    num: int,
    *,
    seed: int,
    num_steps: int,
    watch: Callable[[int], None] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Plays `num` episodes at once and yields the columns of each.

    watch  called with the number of steps that were done.
    """
    state, act = policy.begin(env, num, seed=seed, num_steps=num_steps)
    frames, actions = [_look(env, state)], []
    for step in range(num_steps):
        action = env.bounds.clip(act(state))
        state = env.step(state, action)
        actions.append(action)
        frames.append(_look(env, state))
        if watch is not None:
            watch(step + 1)
    done = torch.stack(actions, 1)
    for row in range(num):
        columns = {name: np.stack([frame[name][row].numpy() for frame in frames]) for name in frames[0]}
        yield columns | {"action": done[row].numpy()}


def _look(env: Environment[Any], state: State) -> dict[str, Tensor]:
    """A row of every column but the action's, for each environment."""
    felt, factors = env.proprioception(state), env.factors(state)
    true = [value.float() if value.ndim > 1 else value[:, None].float() for value in factors.values()]
    columns = {"pixels": (env.render(state) * 255).round().to(torch.uint8), "state": torch.cat(true, 1)}
    columns |= {"proprio": felt} if felt.shape[1] else {}
    return columns | {f"{SIMULATOR}{name}": value for name, value in state.tensors().items()}


def _widths(env: Environment[Any]) -> dict[str, int]:
    """What lies in `state` one after the other, with widths; 0 is a class."""
    factors = env.factors(env.reset(1, torch.Generator().manual_seed(0)))
    return {name: value.shape[1] if value.ndim > 1 else 0 for name, value in factors.items()}


def _add(writer: EpisodeWriter, number: int, columns: dict[str, np.ndarray]) -> None:
    broken = [name for name, values in columns.items() if values.dtype.kind == "f" and not np.isfinite(values).all()]
    if broken:
        writer.skip(f"episode {number}", why=f"{', '.join(broken)}: not finite")
        return
    kept = {name.removeprefix(SIMULATOR): values[0] for name, values in columns.items() if name.startswith(SIMULATOR)}
    layout = {name.removeprefix(LAYOUT[0]): value.tolist() for name, value in kept.items() if name.startswith(LAYOUT)}
    writer.add(Episode(columns, {"number": number, "layout": layout}))


def _seed(seed: int, first: int) -> int:
    """Of the environments that begin with this number."""
    return int.from_bytes(hashlib.sha256(f"collect {seed} {first}".encode()).digest()[:7], "big")
