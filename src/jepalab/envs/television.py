"""A television in the corner: pixels that have nothing to do with the task, new at every frame or always the same.

Burda et al. 2018 (arXiv 1808.04355) let agents meet one; Sobal et al. 2022 (2211.10831) show that joint embeddings drop
a noise that changes at every frame and encode one that stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.envs.chance import Purpose, normals, uniforms
from jepalab.envs.geometry import Arena

_WALLPAPER = 2**61  # keys of wallpapers begin here
Program = Literal["noise", "video", "episode", "dataset"]


@dataclass(frozen=True)
class Television:
    """A square screen in the lower right corner of where the dot may go.

    share        of the picture's area, in (0, 0.25].
    strength     its values are uniform in [0, strength], whatever the persistence.
    persistence  rho in [0, 1]: 0 is new at every frame, 1 is fixed for the episode; between, the screen's cells are
                 AR(1) processes with that correlation from frame to frame.
    wallpaper    None: every episode shows its own. A number: all of them show the wallpaper of that number, which asks
                 for persistence 1.
    cell         width of the cells in pixels; each has one value.
    """

    share: float = 0.1
    strength: float = 1.0
    persistence: float = 0.0
    wallpaper: int | None = None
    cell: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.share <= 0.25 and 0 < self.strength <= 1 and 0 <= self.persistence <= 1 and self.cell >= 1):
            raise ValueError(
                "A television needs share in (0, 0.25], strength in (0, 1], persistence in [0, 1] and cell >= 1, got "
                f"{self}."
            )
        if self.wallpaper is not None and (self.persistence != 1 or self.wallpaper < 0):
            raise ValueError(
                f"A wallpaper is a number from 0 on and stays, so it needs persistence=1, got {self}; set wallpaper to "
                "None for a screen that changes."
            )

    @classmethod
    def showing(cls, program: Program, *, share: float = 0.1, correlation: float = 0.9) -> Television:
        """What experiments compare: "noise" (new at every frame), "video" (AR(1) with that correlation), a wallpaper
        for each "episode", or one for the whole "dataset".
        """
        persistence = {"noise": 0.0, "video": correlation, "episode": 1.0, "dataset": 1.0}
        if program not in persistence:
            raise ValueError(f"Wanted a program out of {', '.join(persistence)}, got {program!r}.")
        wallpaper = 0 if program == "dataset" else None
        return cls(share=share, persistence=persistence[program], wallpaper=wallpaper)

    def first(self, key: Int[Tensor, " n"], *, size: int) -> Float[Tensor, "n g g"]:
        """The screens of n episodes that begin: g x g cells, each standard normal."""
        source = key if self.wallpaper is None else torch.full_like(key, _WALLPAPER + self.wallpaper)
        return self._fresh(source, torch.zeros_like(key), self._cells(size))

    def next(
        self, screen: Float[Tensor, "n g g"], key: Int[Tensor, " n"], clock: Int[Tensor, " n"]
    ) -> Float[Tensor, "n g g"]:
        """The screens at `clock`, one step after those."""
        if self.persistence == 1:
            return screen
        fresh = self._fresh(key, clock, screen.shape[-1])
        return self.persistence * screen + math.sqrt(1 - self.persistence**2) * fresh

    def draw(self, screen: Float[Tensor, "n g g"], arena: Arena, *, size: int) -> Float[Tensor, "n h w"]:
        """The screens where they hang, and 0 around them."""
        side, end = self._side(size), round(arena[1] + 0.5)
        cells = torch.special.ndtr(screen) * self.strength
        shown = cells.repeat_interleave(self.cell, 1).repeat_interleave(self.cell, 2)[:, :side, :side]
        return F.pad(shown, (end - side, size - end, end - side, size - end))

    def _side(self, size: int) -> int:
        return max(round(math.sqrt(self.share) * size), 1)

    def _cells(self, size: int) -> int:
        return math.ceil(self._side(size) / self.cell)

    def _fresh(self, key: Tensor, clock: Tensor, num: int) -> Tensor:
        return normals(uniforms(key, Purpose.TELEVISION, clock, num=num**2)).unflatten(1, (num, num))
