"""What a clip with an occluder shows, in whole pixels: shapes, a bar in front, solid walls and floors, a background.

Nothing here is smoothed: a shape is a stamp of whole pixels at whole places, and every grey value is a multiple of 1/8.
So the squared changes from frame to frame are exact in float32, and clips that should cost the same cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SIZE = 32
BACKGROUND, CONTRAST = 0.5, 0.125  # grey of the plain background; what a texture adds to or takes from it
RADII = (3, 4)  # a shape is 7 or 9 pixels high and wide
SOLID = 2  # pixels that a wall or a floor is thick
NONE = -1000  # a place that no pixel has

# Length of each row, from top to bottom, all centred: no row is shorter than the fastest shape moves in a frame, and
# there is one run a row, so a move sideways changes the same number of pixels for every shape of the same height.
ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "disc": ((3, 5, 7, 7, 7, 5, 3), (5, 7, 9, 9, 9, 9, 9, 7, 5)),
    "square": ((7,) * 7, (9,) * 9),
    "triangle": ((3, 3, 3, 5, 5, 7, 7), (3, 3, 3, 5, 5, 7, 7, 9, 9)),
    "diamond": ((3, 3, 5, 7, 5, 3, 3), (3, 3, 5, 7, 9, 7, 5, 3, 3)),
    "cross": ((3, 3, 7, 7, 7, 3, 3), (3, 3, 3, 9, 9, 9, 3, 3, 3)),
    "hourglass": ((7, 5, 3, 3, 3, 5, 7), (9, 7, 5, 3, 3, 3, 5, 7, 9)),
}
SHAPES = tuple(ROWS)
MAX_SPEED = min(min(rows) for both in ROWS.values() for rows in both)
NUM_TEXTURES = 5  # 0 is plain; stripes and checks, 2 and 4 pixels wide


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """b clips of t frames with k shapes each. Columns and rows count from the upper left pixel; 0 is black, 1 white.

    centre       [b k t 2] column and row of each shape's middle pixel.
    kind         [b k] index into SHAPES; radius [b k] out of RADII; tone [b k] grey; present [b k] or it is not there.
    bar          [b t] column of the occluder's middle; it is in front of everything.
    bar_half     [b] columns it covers to either side; -1 for no bar.
    bar_margin   [b] rows that it leaves free above and below.
    bar_tone     [b].
    wall         [b] left column of a vertical wall from top to bottom; NONE for none.
    floor        [b] 1 for a floor at the lower edge, -1 at the upper one, 0 for none.
    solid_tone   [b] of wall and floor.
    texture      [b] of the background, out of NUM_TEXTURES.
    strip        [b] middle column, strip_half [b], strip_texture [b]: columns whose background is another one.
    """

    centre: Int[Tensor, "b k t 2"]
    kind: Int[Tensor, "b k"]
    radius: Int[Tensor, "b k"]
    tone: Float[Tensor, "b k"]
    present: Bool[Tensor, "b k"]
    bar: Int[Tensor, "b t"]
    bar_half: Int[Tensor, " b"]
    bar_margin: Int[Tensor, " b"]
    bar_tone: Float[Tensor, " b"]
    wall: Int[Tensor, " b"]
    floor: Int[Tensor, " b"]
    solid_tone: Float[Tensor, " b"]
    texture: Int[Tensor, " b"]
    strip: Int[Tensor, " b"]
    strip_half: Int[Tensor, " b"]
    strip_texture: Int[Tensor, " b"]

    @classmethod
    def empty(cls, num_clips: int, num_frames: int) -> Scenes:
        """A plain background with nothing in front of it, and one shape that is not there."""
        none, one = torch.zeros(num_clips, dtype=torch.long), torch.zeros(num_clips, 1, dtype=torch.long)
        return cls(
            centre=torch.zeros(num_clips, 1, num_frames, 2, dtype=torch.long),
            kind=one,
            radius=one + RADII[0],
            tone=one.float(),
            present=one.bool(),
            bar=torch.zeros(num_clips, num_frames, dtype=torch.long),
            bar_half=none - 1,
            bar_margin=none,
            bar_tone=none.float(),
            wall=none + NONE,
            floor=none,
            solid_tone=none.float(),
            texture=none,
            strip=none,
            strip_half=none - 1,
            strip_texture=none,
        )

    def take(self, index: Int[Tensor, " n"]) -> Scenes:
        """The clips at these places."""
        return Scenes(**{each.name: getattr(self, each.name)[index] for each in fields(self)})

    def mirrored(self, which: Bool[Tensor, " b"]) -> Scenes:
        """With left and right exchanged in some clips."""
        column, row = self.centre.unbind(-1)
        return replace(
            self,
            centre=torch.stack([torch.where(which[:, None, None], SIZE - 1 - column, column), row], -1),
            bar=torch.where(which[:, None], SIZE - 1 - self.bar, self.bar),
            wall=torch.where(which, SIZE - SOLID - self.wall, self.wall),
            strip=torch.where(which, SIZE - 1 - self.strip, self.strip),
        )

    def show(self) -> tuple[Float[Tensor, "b t h w"], Float[Tensor, "b t"]]:
        """The frames, and the share of the first shape's pixels that the bar leaves to be seen."""
        x, hidden, covers = self._behind()[:, None], self._hidden(), self._covers()
        for i in range(covers.shape[1]):
            x = torch.where(covers[:, i], self.tone[:, i, None, None, None], x)
        seen = (covers[:, 0] & ~hidden).sum((-1, -2)) / area(self.kind[:, 0], self.radius[:, 0])[:, None]
        return torch.where(hidden, self.bar_tone[:, None, None, None], x), seen

    def draw(self) -> Float[Tensor, "b t h w"]:
        """The frames."""
        return self.show()[0]

    def _covers(self) -> Bool[Tensor, "b k t h w"]:
        """Where each shape is, seen or not."""
        column, row = self.centre.unbind(-1)
        halves, line = half_rows()[self.kind, self.radius - RADII[0]], torch.arange(SIZE)
        place = (line - row[..., None] + RADII[-1] + 1).clamp(0, halves.shape[-1] - 1)
        half = halves[:, :, None].expand(*place.shape[:3], -1).gather(3, place)
        covers = (line - column[..., None]).abs()[..., None, :] <= half[..., None]
        return covers & self.present[:, :, None, None, None]

    def _hidden(self) -> Bool[Tensor, "b t h w"]:
        """Where the bar is."""
        line = torch.arange(SIZE)
        columns = (line - self.bar[..., None]).abs() <= self.bar_half[:, None, None]
        rows = (line >= self.bar_margin[:, None]) & (line < SIZE - self.bar_margin[:, None])
        return columns[:, :, None, :] & rows[:, None, :, None]

    def _behind(self) -> Float[Tensor, "b h w"]:
        known, line = textures(), torch.arange(SIZE)
        in_strip = (line - self.strip[:, None]).abs() <= self.strip_half[:, None]
        pattern = torch.where(in_strip[:, None], known[self.strip_texture], known[self.texture])
        wall = (line >= self.wall[:, None]) & (line < self.wall[:, None] + SOLID)
        below = (line >= SIZE - SOLID) & (self.floor[:, None] > 0)
        above = (line < SOLID) & (self.floor[:, None] < 0)
        solid = wall[:, None, :] | (below | above)[:, :, None]
        return torch.where(solid, self.solid_tone[:, None, None], BACKGROUND + CONTRAST * pattern)


@cache
def half_rows() -> Int[Tensor, "m r 11"]:
    """Half of each row of every shape in both sizes, rounded down, from 5 rows above its middle to 5 below."""
    halves = torch.full((len(SHAPES), len(RADII), 2 * RADII[-1] + 3), NONE)
    for kind, both in enumerate(ROWS.values()):
        for size, rows in enumerate(both):
            start = RADII[-1] + 1 - RADII[size]
            halves[kind, size, start : start + len(rows)] = torch.tensor(rows) // 2
    return halves


def area(kind: Int[Tensor, " b"], radius: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Pixels of a shape."""
    pixels = torch.tensor([[sum(rows) for rows in both] for both in ROWS.values()])
    return pixels[kind, radius - RADII[0]]


@cache
def textures() -> Float[Tensor, "m h w"]:
    """-1 or 1 for each pixel, 0 for the plain one. Each column is half and half, over all rows and over the 24 inner.

    So a bar that uncovers a column of any of them changes the picture by the same squared amount.
    """
    line = torch.arange(SIZE)
    made = [torch.zeros(SIZE, SIZE)]
    for width in (2, 4):
        stripe = 2.0 * (line // width % 2) - 1
        made += [stripe[:, None].expand(SIZE, SIZE), stripe[:, None] * stripe]
    return torch.stack(made)


def bounce(
    start: Int[Tensor, "*b"], speed: Int[Tensor, "*b"], low: Int[Tensor, "*b"], high: Int[Tensor, "*b"], time: Tensor
) -> Int[Tensor, "*c"]:
    """Where something is at these times [*b t] that was at `start` at time 0 and is thrown back at `low` and `high`."""
    start, speed, low, high = (value.unsqueeze(-1) for value in (start, speed, low, high))
    span = (high - low).clamp_min(1)
    along = (start - low + speed * time) % (2 * span)
    return low + torch.minimum(along, 2 * span - along)


def drop(time: Tensor, gravity: float) -> Int[Tensor, "*b"]:
    """Pixels, rounded, that something has fallen `time` frames before or after it stood still in the air."""
    return (gravity * time.square() / 2 + 0.5).floor().long()


def fall(
    apex: Int[Tensor, "*b"], ground: Int[Tensor, "*b"], time: Int[Tensor, "*c"], gravity: float
) -> Int[Tensor, "*c"]:
    """Row at these times [*b t], counted from when it stood in the air at row `apex`; thrown back from row `ground`."""
    half = (2 * (ground - apex) / gravity).sqrt().unsqueeze(-1)
    return apex.unsqueeze(-1) + drop((time + half) % (2 * half) - half, gravity)
