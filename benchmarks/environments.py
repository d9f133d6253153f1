"""Frames per second of the environments: steps, pictures, and both, for n environments at once.

    python benchmarks/environments.py [--threads N] [--rounds N] [--seconds S] [--num N ...]

jepalab's own: Two Rooms as it is and with a television that shows new noise at every frame, and the point maze, 65 x 65
and 64 x 64 in two channels. Other people's worlds, through our adapters, are timed where they are installed
(pip install "jepalab[worlds]"): PushT at 96 x 96, MuJoCo's point maze and reacher at 64 x 64, one of each, since the
adapters advance one simulator after the other. MuJoCo draws through EGL; where that fails, set MUJOCO_GL=osmesa.
Actions are uniform in the box of the environment's own bounds.

A frame is one environment's step, picture, or step and picture. Environments take turns (A B C A B C), so that what the
machine does meanwhile meets all of them. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from jepalab.envs.environment import Environment
from jepalab.envs.gymnasium_adapters import Worlds, point_maze_worlds, pusht_worlds, reacher_worlds
from jepalab.envs.point_maze import PointMaze
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import TwoRooms

WORLDS = {"PushT": pusht_worlds, "point maze, MuJoCo": point_maze_worlds, "reacher, MuJoCo": reacher_worlds}
KINDS = ("step", "render", "step+render")
NUM_ACTIONS = 16  # drawn beforehand and used in turn


@dataclass
class Row:
    """`num` environments of one kind; `rates` holds the frames per second of each round."""

    name: str
    environment: Environment[Any]
    num: int
    rates: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        bounds = self.environment.bounds
        shares = torch.rand(NUM_ACTIONS, self.num, len(bounds.low), generator=generator)
        self._actions = itertools.cycle((bounds.low + shares * (bounds.high - bounds.low)).unbind(0))
        self._state = self.environment.reset(self.num, generator)

    def step(self) -> None:
        self._state = self.environment.step(self._state, next(self._actions))

    def render(self) -> Tensor:
        return self.environment.render(self._state)

    def both(self) -> Tensor:
        self.step()
        return self.render()

    def measure(self, seconds: float) -> None:
        for kind, work in zip(KINDS, (self.step, self.render, self.both), strict=True):
            work()  # finds the caches full of others' work; it is not counted
            self.rates[kind].append(self.num * repeat(work, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    parser.add_argument("--num", type=int, nargs="+", default=[1, 64, 1024], help="of jepalab's environments at once")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours: dict[str, Environment[Any]] = {
        "two rooms": TwoRooms(),
        "two rooms, television": TwoRooms(television=Television.showing("noise")),
        "point maze": PointMaze.drawn(seed=0),
    }
    worlds, absent = open_worlds()
    rows = [Row(name, environment, num) for name, environment in ours.items() for num in arguments.num]
    rows += [Row(name, environment, 1) for name, environment in worlds.items()]
    for _ in range(arguments.rounds):
        for row in rows:
            row.measure(arguments.seconds)
    report(rows, absent, arguments.threads)
    for world in worlds.values():
        world.close()


def open_worlds() -> tuple[dict[str, Worlds], dict[str, str]]:
    """Those that are installed, and why the others are not there."""
    worlds, absent = {}, {}
    makers: dict[str, Callable[[], Worlds]] = {name: partial(make, 1) for name, make in WORLDS.items()}
    for name, make in makers.items():
        try:
            worlds[name] = make()
        except ValueError as error:
            absent[name] = f"{error}"
    return worlds, absent


def repeat(work: Callable[[], object], seconds: float) -> float:
    """How often a second `work` can be done."""
    began, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or not times:
        work()
        times += 1
    return times / passed


def report(rows: list[Row], absent: dict[str, str], num_threads: int) -> None:
    print(f"{num_threads} thread(s), torch {torch.__version__}; frames per second, median (slowest-fastest round)")
    print(f"\n{'environment':<22} {'picture':>11} {'n':>5} " + " ".join(f"{kind:>26}" for kind in KINDS))
    for row in rows:
        picture = " x ".join(map(str, row.environment.picture_shape))
        cells = (f"{statistics.median(row.rates[kind]):.0f} ({_range(row.rates[kind])})" for kind in KINDS)
        print(f"{row.name:<22} {picture:>11} {row.num:>5} " + " ".join(f"{cell:>26}" for cell in cells))
    for name, why in absent.items():
        print(f"{name:<22} not run: {why}")


def _range(rates: list[float]) -> str:
    return f"{min(rates):.0f}-{max(rates):.0f}"


if __name__ == "__main__":
    main()
