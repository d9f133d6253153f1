"""Which layer each box of a drawing is in, and in what order: longest paths, then barycentres and exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jepalab.audit.report import Drawing

NUM_SWEEPS = 12
LATE = ("comparison", "statistic", "constant")  # stand as near as possible to what reads them


@dataclass
class Net:
    """Nodes in layers: the boxes first, by their number, then the places of lines that pass a layer.

    chains       for each arrow the nodes it runs through, in the direction of the layers.
    is_reversed  whether an arrow runs against them, as in a loop.
    """

    num_boxes: int
    layer: list[int]
    layers: list[list[int]]
    chains: list[list[int]]
    is_reversed: list[bool]

    @property
    def num_nodes(self) -> int:
        return len(self.layer)

    def neighbours(self) -> tuple[list[list[int]], list[list[int]]]:
        """The nodes linked to each node in the layer before, and in the layer after."""
        before: list[list[int]] = [[] for _ in range(self.num_nodes)]
        after: list[list[int]] = [[] for _ in range(self.num_nodes)]
        for chain in self.chains:
            for one, other in pairwise(chain):
                if one != other:
                    after[one].append(other)
                    before[other].append(one)
        return before, after


def make_net(drawing: Drawing) -> Net:
    """Layers with little crossing. Equal drawings give equal nets."""
    numbers = {box.key: i for i, box in enumerate(drawing.boxes)}
    if len(numbers) < len(drawing.boxes):
        raise ValueError(f"Wanted a key of its own for each box, got {[box.key for box in drawing.boxes]}.")
    for arrow in drawing.arrows:
        for key in (arrow.source, arrow.target):
            if key not in numbers:
                raise ValueError(f"An arrow names the box {key!r}; wanted one of {sorted(numbers)}.")
    edges = [(numbers[arrow.source], numbers[arrow.target]) for arrow in drawing.arrows]
    is_reversed = _against_the_flow(len(numbers), edges)
    flow = [(b, a) if back else (a, b) for (a, b), back in zip(edges, is_reversed, strict=True)]
    layer = _longest_paths([box.kind for box in drawing.boxes], flow)
    num_boxes, chains = len(layer), []
    for one, other in flow:
        passed = range(layer[one] + 1, layer[other])
        chains.append([one, *range(len(layer), len(layer) + len(passed)), other])
        layer += passed
    layers: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, number in enumerate(layer):
        layers[number].append(node)
    net = Net(num_boxes, layer, layers, chains, is_reversed)
    net.layers = _untangled(net)
    return net


def _against_the_flow(num_boxes: int, edges: Sequence[tuple[int, int]]) -> list[bool]:
    """Which edges lead back to a box that led to them; without these there is no circle."""
    found, state = [False] * len(edges), [0] * num_boxes  # 0 not seen, 1 on the way here, 2 done

    def visit(box: int) -> None:
        state[box] = 1
        for number, (source, target) in enumerate(edges):
            if source == box and state[target] == 1:
                found[number] = source != target
            elif source == box and state[target] == 0:
                visit(target)
        state[box] = 2

    for box in range(num_boxes):
        if state[box] == 0:
            visit(box)
    return found


def _longest_paths(kinds: Sequence[str], flow: Sequence[tuple[int, int]]) -> list[int]:
    layer = [0] * len(kinds)
    for _ in kinds:  # no path is longer than the number of boxes
        for source, target in flow:
            if source != target:
                layer[target] = max(layer[target], layer[source] + 1)
    for _ in kinds:
        for box, kind in enumerate(kinds):
            readers = [layer[target] for source, target in flow if source == box != target]
            if kind in LATE and readers:
                layer[box] = max(layer[box], min(readers) - 1)
    used = sorted(set(layer))
    return [used.index(number) for number in layer]


def _untangled(net: Net) -> list[list[int]]:
    """The best order met while sweeping to and fro, each node to the mean place of its neighbours."""
    before, after = net.neighbours()
    layers = [list(layer) for layer in net.layers]
    best, fewest = layers, _num_crossings(layers, after)
    for sweep in range(NUM_SWEEPS):
        forward = sweep % 2 == 0
        links = before if forward else after
        layers = [list(layer) for layer in layers]
        places = {node: place for layer in layers for place, node in enumerate(layer)}
        for layer in layers if forward else layers[::-1]:
            layer.sort(key=lambda node: _barycentre(links[node], places, default=float(places[node])))
            places |= {node: place for place, node in enumerate(layer)}
        _exchange(layers, after)
        if (crossings := _num_crossings(layers, after)) < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _barycentre(around: Sequence[int], places: dict[int, int], *, default: float) -> float:
    return sum(places[node] for node in around) / len(around) if around else default


def _exchange(layers: list[list[int]], after: Sequence[Sequence[int]]) -> None:
    """Swaps two neighbours wherever that takes a crossing away."""
    for number, layer in enumerate(layers):
        near = layers[max(0, number - 1) : number + 2]
        crossings = _num_crossings(near, after)
        for k in range(len(layer) - 1):
            layer[k], layer[k + 1] = layer[k + 1], layer[k]
            if (fewer := _num_crossings(near, after)) < crossings:
                crossings = fewer
            else:
                layer[k], layer[k + 1] = layer[k + 1], layer[k]


def _num_crossings(layers: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> int:
    total = 0
    for layer, following in pairwise(layers):
        places = {node: place for place, node in enumerate(following)}
        ends = [(i, places[other]) for i, node in enumerate(layer) for other in after[node] if other in places]
        total += sum((a - c) * (b - d) < 0 for k, (a, b) in enumerate(ends) for c, d in ends[:k])
    return total
