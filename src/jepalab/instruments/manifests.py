"""Starts and goals that every agent is tested on: drawn from a seed that no training uses, fixed, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from jepalab.envs.environment import Environment, State, join

S = TypeVar("S", bound=State)
Pairs = Callable[[int, torch.Generator], tuple[S, S]]


@dataclass(frozen=True)
class Manifest(Generic[S]):
    """The episodes of a test: n starts, n goals in the same worlds, and to which group each pair belongs.

    seed  from which it was drawn.
    """

    seed: int
    start: S
    goal: S
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def rows(self, group: str) -> Tensor:
        """[n] which pairs belong to the group."""
        return torch.tensor([each == group for each in self.groups])

    @property
    def digest(self) -> str:
        """SHA-256 over every number in it: the same digest is the same test."""
        summary = hashlib.sha256(repr(self.groups).encode())
        for name, tensor in self._tensors():
            summary.update(name.encode())
            summary.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return summary.hexdigest()

    def marks(self, group: str) -> list[str]:
        """8 hexadecimal digits an episode of the group, by which a longer test's first episodes are known again."""
        found = []
        for row in self.rows(group).nonzero()[:, 0].tolist():
            summary = hashlib.sha256()
            for name, tensor in self._tensors():
                summary.update(name.encode() + np.ascontiguousarray(tensor[row].numpy()).tobytes())
            found.append(summary.hexdigest()[:8])
        return found

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [each for side in (self.start, self.goal) for each in sorted(side.tensors().items())]


def draw_manifest(
    env: Environment[S], pairs: Mapping[str, Pairs[S]], *, num: Mapping[str, int], seed: int, radius: float
) -> Manifest[S]:
    """So many pairs of each group. Its random numbers are its own: no training stream draws from the same generator.

    pairs   for each group the function that draws its starts and goals, such as `env.random_pairs`.
    radius  of success; a pair that is solved at the start would count for nobody's merit.

    Raises:
        ValueError: a pair is solved at the start, or there are none.
    """
    wanted = {group: count for group, count in num.items() if count > 0}
    if not wanted:
        raise ValueError(f"A test needs episodes, got {dict(num)}.")
    starts, goals, groups = [], [], []
    for group, count in wanted.items():
        start, goal = pairs[group](count, manifest_generator(seed, group))
        if solved := int(env.success(start, goal, radius=radius).sum()):
            raise ValueError(f"{solved} of {count} pairs ({group}) are solved at the start; draw them farther apart.")
        starts.append(start)
        goals.append(goal)
        groups += [group] * count
    return Manifest(seed, join(starts), join(goals), tuple(groups))


def manifest_generator(seed: int, group: str) -> torch.Generator:
    """The generator of a group of a manifest."""
    key = f"manifest {seed} {group}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))
