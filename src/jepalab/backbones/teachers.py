"""Where the targets of a JEPA come from: a slow copy, a frozen network, or the student itself.

Each is a part with the same two methods, so that an objective takes one instead of a switch. `space` names what the
prediction is compared with.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.types import Encoder, PatchEncoder, Space


class Teacher(nn.Module, ABC):
    """Embeds the whole input, after each of its levels, for a student that saw a part of it.

    name   of the loss term that compares with this teacher; space is what that term compares with.
    """

    name: ClassVar[str]
    space: ClassVar[Space]

    @abstractmethod
    def forward(self, student: PatchEncoder, x: Float[Tensor, "b t *obs"]) -> list[Float[Tensor, "b n d"]]:
        """The embedding of every token of the full input, level by level."""

    @abstractmethod
    def embed(self, x: Float[Tensor, "b t *obs"], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The embedding of each frame, for a student whose own embedding of it is z."""

    def follow(self, student: nn.Module, progress: float) -> None:
        """Called after each optimizer step; progress runs from 0 to 1."""

    def network(self) -> Encoder | None:
        """The encoder that a user could take home, if it is another than the student."""
        return None


class EMATeacher(Teacher):
    """An exponential moving average of the student, without gradient (I-JEPA, arXiv 2301.08243).

    momentum  after the first optimizer step; it rises linearly to `final_momentum` at the last. It moves once for
    each optimizer step, after it.
    """

    name = "ema"
    space = Space.EMA_EMBEDDING

    def __init__(self, student: Encoder, *, momentum: float = 0.996, final_momentum: float = 0.9999) -> None:
        super().__init__()
        if not (0 <= momentum <= 1 and 0 <= final_momentum <= 1):
            wanted = "The teacher's momentum lies between 0 (a copy) and 1 (frozen)"
            raise ValueError(f"{wanted}, got {momentum} rising to {final_momentum}.")
        self.encoder = copy.deepcopy(student).requires_grad_(False)
        self.momentum, self.final_momentum = momentum, final_momentum

    @torch.no_grad()
    def forward(self, student: PatchEncoder, x: Float[Tensor, "b t *obs"]) -> list[Float[Tensor, "b n d"]]:
        return self.encoder.levels(x)  # pyrefly: ignore[not-callable]

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "b t *obs"], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.encoder(x)  # pyrefly: ignore[not-callable]

    @torch.no_grad()
    def follow(self, student: nn.Module, progress: float) -> None:
        momentum = self.momentum + (self.final_momentum - self.momentum) * progress
        slow, fast = tuple(self.encoder.parameters()), tuple(student.parameters())
        torch._foreach_lerp_(slow, fast, 1 - momentum)

    def network(self) -> Encoder:
        return self.encoder


class FrozenTeacher(Teacher):
    """A network that never learns: random, or trained beforehand on something else (SALT, arXiv 2509.24317)."""

    name = "frozen"
    space = Space.FROZEN_EMBEDDING

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)

    @torch.no_grad()
    def forward(self, student: PatchEncoder, x: Float[Tensor, "b t *obs"]) -> list[Float[Tensor, "b n d"]]:
        return self.encoder.levels(x)  # pyrefly: ignore[not-callable]

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "b t *obs"], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.encoder(x)  # pyrefly: ignore[not-callable]


class OwnTeacher(Teacher):
    """The student itself on the full input, with gradient; it needs a regulariser against collapse beside it."""

    name = "own"
    space = Space.OWN_EMBEDDING

    def forward(self, student: PatchEncoder, x: Float[Tensor, "b t *obs"]) -> list[Float[Tensor, "b n d"]]:
        return student.levels(x)

    def embed(self, x: Float[Tensor, "b t *obs"], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return z


class FrozenStudent(Teacher):
    """The student itself, which does not learn: random, or trained beforehand (DINO-WM, arXiv 2411.04983)."""

    name = "frozen"
    space = Space.FROZEN_EMBEDDING

    def __init__(self, student: Encoder) -> None:
        super().__init__()
        student.requires_grad_(False)

    @torch.no_grad()
    def forward(self, student: PatchEncoder, x: Float[Tensor, "b t *obs"]) -> list[Float[Tensor, "b n d"]]:
        return student.levels(x)

    def embed(self, x: Float[Tensor, "b t *obs"], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return z.detach()
