"""Mazes of square cells with thin walls: random spanning trees, so that every place is reached, in one way or more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.envs.drawing import draw_boxes
from jepalab.envs.environment import State
from jepalab.envs.geometry import Arena
from jepalab.envs.roadmap import Roadmap, survey

SIZE, BORDER = 64, 2  # pixels of the picture, and those around it that are wall
WALL_WIDTH = 2
ARENA: Arena = (BORDER - 0.5, SIZE - BORDER - 0.5)
CLEARANCE = 2.0  # pixels by which ways that are to be driven keep off corners


@dataclass(frozen=True)
class Mazes(State):
    """m mazes.

    walls      [m k 4] their walls as boxes (left, top, right, bottom) in pixels.
    cells      [m r 4] boxes without a wall in them, equally large: episodes begin and end there.
    pictures   [m h w] 1 where there is wall, the border included.
    ways       shortest ways in them.
    drivable   the same, keeping off the corners.
    """

    walls: Float[Tensor, "m k 4"]
    cells: Float[Tensor, "m r 4"]
    pictures: Float[Tensor, "m h w"]
    ways: Roadmap
    drivable: Roadmap

    @classmethod
    def build(cls, walls: Float[Tensor, "m k 4"], cells: Float[Tensor, "m r 4"]) -> Mazes:
        """Mazes with those walls, within ARENA."""
        pictures = draw_boxes(walls, size=SIZE)
        pictures[:, :BORDER] = pictures[:, -BORDER:] = 1
        pictures[:, :, :BORDER] = pictures[:, :, -BORDER:] = 1
        return cls(walls, cells, pictures, survey(walls, ARENA), survey(walls, ARENA, clearance=CLEARANCE))


def draw_mazes(num: int, generator: torch.Generator, *, cells: int = 4, num_loops: int = 0) -> Mazes:
    """`num` mazes of cells x cells, each a minimal spanning tree under random costs (Prim 1957).

    cells      along an edge, out of 2, 3, 4, 5 and 6.
    num_loops  further walls taken away, so that there is more than one way.
    """
    if num < 1 or cells not in (2, 3, 4, 5, 6) or not 0 <= num_loops < (cells - 1) ** 2:
        raise ValueError(
            f"Wanted at least 1 maze of 2 to 6 cells and fewer loops than the (cells - 1)^2 walls of a tree, got "
            f"num={num}, cells={cells}, num_loops={num_loops}."
        )
    edges = _edges(cells)
    costs = torch.rand(num, len(edges), generator=generator, dtype=torch.float64)
    is_open = _spanning_trees(edges, costs, num_cells=cells**2)
    spare = torch.where(is_open, math.inf, costs).argsort(1)[:, :num_loops]
    is_open = is_open.scatter(1, spare, True)
    # As many walls stay in every maze, in the order of their edges.
    stay = is_open.int().argsort(dim=1, stable=True)[:, : (cells - 1) ** 2 - num_loops]
    return Mazes.build(_walls(edges, cells=cells)[stay], _interiors(cells).expand(num, -1, -1))


def _edges(cells: int) -> Int[Tensor, "e 2"]:
    """Neighbouring cells, numbered row by row: first those beside each other, then those above each other."""
    number = torch.arange(cells**2).view(cells, cells)
    beside = torch.stack([number[:, :-1], number[:, 1:]], -1).flatten(0, 1)
    above = torch.stack([number[:-1], number[1:]], -1).flatten(0, 1)
    return torch.cat([beside, above])


def _spanning_trees(edges: Int[Tensor, "e 2"], costs: Float[Tensor, "m e"], *, num_cells: int) -> Bool[Tensor, "m e"]:
    """Edges of the cheapest tree of each maze: the cheapest edge out of it, added as long as it does not span all."""
    rows = torch.arange(len(costs))
    reached = torch.zeros(len(costs), num_cells, dtype=torch.bool)
    reached[:, 0] = True
    chosen = torch.zeros_like(costs, dtype=torch.bool)
    for _ in range(num_cells - 1):
        leads_out = reached[:, edges[:, 0]] ^ reached[:, edges[:, 1]]
        cheapest = torch.where(leads_out, costs, math.inf).argmin(1)
        chosen[rows, cheapest] = True
        reached[rows, edges[cheapest, 0]] = reached[rows, edges[cheapest, 1]] = True
    return chosen


def _walls(edges: Int[Tensor, "e 2"], *, cells: int) -> Float[Tensor, "e 4"]:
    """The wall between the two cells of each edge, long enough to close the corners."""
    width, half = (ARENA[1] - ARENA[0]) / cells, WALL_WIDTH / 2
    row, column = edges[:, 1] // cells, edges[:, 1] % cells
    upright = edges[:, 1] - edges[:, 0] == 1
    left, top = ARENA[0] + column * width, ARENA[0] + row * width
    right, bottom = torch.where(upright, left, left + width), torch.where(upright, top + width, top)
    return torch.stack([left - half, top - half, right + half, bottom + half], 1)


def _interiors(cells: int) -> Float[Tensor, "r 4"]:
    """What walls on all its sides would leave of each cell."""
    width, half = (ARENA[1] - ARENA[0]) / cells, WALL_WIDTH / 2
    corner = ARENA[0] + width * torch.cartesian_prod(torch.arange(cells), torch.arange(cells)).float().flip(1)
    return torch.cat([corner + half, corner + width - half], 1)
