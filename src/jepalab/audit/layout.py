"""Where the boxes and lines of a drawing go: layers by longest path, few crossings, no overlap.

After Sugiyama, Tagawa & Toda (1981). Everything here knows one direction, `along` the flow, and one `across` it; only
the last step turns them into x and y. A line that passes layers holds a place of its own in each, so that it runs
between the boxes and not through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jepalab.audit.layers import Net, make_net
from jepalab.audit.report import Drawing

GAP_ALONG = {False: 54.0, True: 44.0}  # between layers; labels of lines are longer than they are high
GAP_ACROSS = {False: 22.0, True: 24.0}
ROOM_OF_LINE = 16.0
PORT_STEP = 13.0
NUM_SWEEPS = 60
STIFFNESS = (1.0, 2.0, 8.0)  # of a link by how many of its ends are passing lines
Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]


@dataclass(frozen=True)
class Extent:
    """A rectangle: its middle and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """The rectangle of each box, the curves of each arrow from source to target, and the size of the whole."""

    boxes: tuple[Extent, ...]
    routes: tuple[tuple[Curve, ...], ...]
    width: float
    height: float
    flows_down: bool


def lay_out(drawing: Drawing, sizes: Sequence[tuple[float, float]], *, flows_down: bool) -> Layout:
    """Places boxes of these (width, height), from left to right or downwards.

    Raises:
        ValueError: an arrow names a box that is not there, or two boxes share a key.
    """
    net = make_net(drawing)
    depth = [size[flows_down] for size in sizes] + [0.0] * (net.num_nodes - len(sizes))
    breadth = [size[not flows_down] for size in sizes] + [ROOM_OF_LINE] * (net.num_nodes - len(sizes))
    starts, ends = _layer_bounds(net, depth, GAP_ALONG[flows_down])
    across = _place_across(net, breadth, GAP_ACROSS[flows_down])
    middle = [(starts[net.layer[i]] + ends[net.layer[i]]) / 2 for i in range(net.num_nodes)]
    routes = _routes(net, across, breadth, middle, depth, (starts, ends))
    far_along = max(ends, default=0.0)
    far_across = max((a + b / 2 for a, b in zip(across, breadth, strict=True)), default=0.0)
    boxes = tuple(Extent(*_turned((middle[i], across[i]), flows_down), *size) for i, size in enumerate(sizes))
    turned = tuple(tuple(_turned_curve(curve, flows_down) for curve in route) for route in routes)
    return Layout(boxes, turned, *_turned((far_along, far_across), flows_down), flows_down)


def _turned(point: Point, flows_down: bool) -> Point:
    return (point[1], point[0]) if flows_down else point


def _turned_curve(curve: Curve, flows_down: bool) -> Curve:
    a, b, c, d = (_turned(point, flows_down) for point in curve)
    return a, b, c, d


def _layer_bounds(net: Net, depth: Sequence[float], gap: float) -> tuple[list[float], list[float]]:
    starts, ends, at = [], [], 0.0
    for layer in net.layers:
        starts.append(at)
        at += max(depth[i] for i in layer)
        ends.append(at)
        at += gap
    return starts, ends


def _place_across(net: Net, breadth: Sequence[float], gap: float) -> list[float]:
    """Each node as near as possible to its neighbours, in the order of its layer and `gap` apart."""
    across = [0.0] * net.num_nodes
    for layer in net.layers:
        at = 0.0
        for i in layer:
            across[i] = at + breadth[i] / 2
            at += breadth[i] + gap
    before, after = net.neighbours()
    around = [one + other for one, other in zip(before, after, strict=True)]
    for sweep in range(NUM_SWEEPS):
        for layer in net.layers[:: 1 if sweep % 2 else -1]:
            pulled = [_pull(net, i, around[i], across, is_early=sweep < NUM_SWEEPS // 3) for i in layer]
            placed = _apart(pulled, [breadth[i] for i in layer], gap)
            for i, position in zip(layer, placed, strict=True):
                across[i] = position
    low = min((a - b / 2 for a, b in zip(across, breadth, strict=True)), default=0.0)
    return [a - low for a in across]


def _pull(
    net: Net, node: int, around: Sequence[int], across: Sequence[float], *, is_early: bool
) -> tuple[float, float]:
    """Where the neighbours want a node, and how strongly.

    Passing lines hold on to each other more than boxes do: a bend is uglier than a box off the middle of its
    neighbours. Squared distances come first; then each is weighed by its inverse, which is the absolute distance: many
    small bends give way to few.
    """
    if not around:
        return across[node], 1e-3
    total = mass = 0.0
    for other in around:
        pull = STIFFNESS[(node >= net.num_boxes) + (other >= net.num_boxes)]
        pull /= 1.0 if is_early else abs(across[other] - across[node]) + 1.0
        total, mass = total + pull * across[other], mass + pull
    return total / mass, mass


def _apart(pulled: Sequence[tuple[float, float]], breadth: Sequence[float], gap: float) -> list[float]:
    """Places nearest to the wanted ones, each with its weight, in order and apart: by pooling adjacent violators."""
    offsets = [0.0]
    for one, other in pairwise(breadth):
        offsets.append(offsets[-1] + (one + other) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # weighted sum, weight, number of members
    for (want, weight), offset in zip(pulled, offsets, strict=True):
        total, mass, size = (want - offset) * weight, weight, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / mass:
            last = pools.pop()
            total, mass, size = total + last[0], mass + last[1], size + last[2]
        pools.append((total, mass, size))
    levels = [total / mass for total, mass, size in pools for _ in range(size)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]


def _routes(
    net: Net,
    across: Sequence[float],
    breadth: Sequence[float],
    middle: Sequence[float],
    depth: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]],
) -> list[tuple[Curve, ...]]:
    leaving, arriving = _ports(net, across, breadth)
    routes: list[tuple[Curve, ...]] = []
    for number, chain in enumerate(net.chains):
        first, last = chain[0], chain[-1]
        if first == last:
            routes.append((_loop(across[first], breadth[first], middle[first], depth[first]),))
            continue
        start, end = across[first] + leaving[number], across[last] + arriving[number]
        # Lines bend between layers only: beside a narrow box there may be a wide one.
        points = [(middle[first] + depth[first] / 2, start), (bounds[1][net.layer[first]], start)]
        for node in chain[1:-1]:
            layer = net.layer[node]
            points += [(bounds[0][layer], across[node]), (bounds[1][layer], across[node])]
        points += [(bounds[0][net.layer[last]], end), (middle[last] - depth[last] / 2, end)]
        curves = [_bend(one, other) for one, other in pairwise(points) if other[0] - one[0] > 0.5]
        if net.is_reversed[number]:
            curves = [(d, c, b, a) for a, b, c, d in reversed(curves)]
        routes.append(tuple(curves))
    return routes


def _ports(net: Net, across: Sequence[float], breadth: Sequence[float]) -> tuple[list[float], list[float]]:
    """How far from the middle of its box each line leaves and arrives: side by side, in the order of where they go."""
    offsets = []
    for end, neighbour in ((0, 1), (-1, -2)):
        own = [0.0] * len(net.chains)
        for box in range(net.num_boxes):
            lines = [n for n, chain in enumerate(net.chains) if chain[end] == box and chain[0] != chain[-1]]
            lines.sort(key=lambda n: (across[net.chains[n][neighbour]], n))
            step = min(PORT_STEP, (breadth[box] - 16) / max(1, len(lines) - 1))
            for rank, line in enumerate(lines):
                own[line] = step * (rank - (len(lines) - 1) / 2)
        offsets.append(own)
    return offsets[0], offsets[1]


def _bend(start: Point, end: Point) -> Curve:
    half = (start[0] + end[0]) / 2
    return start, (half, start[1]), (half, end[1]), end


def _loop(across: float, breadth: float, middle: float, depth: float) -> Curve:
    """From a box back into itself, past its upper or left edge."""
    edge, reach = across - breadth / 2, min(depth, 60.0) / 3
    return (middle + reach, edge), (middle + reach, edge - 16), (middle - reach, edge - 16), (middle - reach, edge)
