"""The step as a small drawing: inputs, networks, comparisons and the loss, and how content flows between them."""

from __future__ import annotations

from collections.abc import Sequence

from jepalab.audit.content import EMA, NOISE, ONLINE, Contents
from jepalab.audit.findings import Evidence
from jepalab.audit.leaves import COMPARISON
from jepalab.audit.report import Arrow, Box, Drawing
from jepalab.audit.tape import Node, Tape

FEW, MOST = 3, 10  # networks a drawing shows: the largest modules of which there are at least a few
SHOWN = 12  # comparisons


def draw(tape: Tape, contents: Contents, evidence: Sequence[Evidence]) -> Drawing:
    """Networks are drawn as the largest modules that keep the drawing small; calls without parameters are arrows."""
    shown = [item for item in evidence if item.leaf.cut < len(tape.nodes)][:SHOWN]
    names = module_names(tape, contents, shown)
    boxes: dict[str, Box] = {}
    arrows: dict[tuple[str, str], Arrow] = {}
    sources = Sources(tape, contents, names, boxes, arrows)
    boxes["loss"] = Box("loss", "loss", "loss")
    for index, item in enumerate(shown):
        key, leaf = f"term{index}", item.leaf
        kind = "comparison" if leaf.kind == COMPARISON else "statistic"
        boxes[key] = Box(key, item.term.name, kind, f"{item.term.label}, {item.term.op}")
        sides = [leaf.prediction] if leaf.target is None else [leaf.prediction, leaf.target]
        for side in sides:
            for source, stopped in sources.of(side).items():
                sources.connect(source, key, stopped or not tape.nodes[side].requires_grad)
        arrows[key, "loss"] = Arrow(key, "loss", share=item.term.share)
    joined = {end for arrow in arrows.values() for end in (arrow.source, arrow.target)}
    return Drawing(tuple(box for box in boxes.values() if box.key in joined), tuple(arrows.values()))


def module_names(tape: Tape, contents: Contents, shown: Sequence[Evidence]) -> dict[int, str]:
    """The network box of each node that is part of one: module paths cut to the depth that keeps the boxes few."""
    keys = [k for item in shown for k in (item.leaf.prediction, item.leaf.target) if k is not None]
    inside = [tape.nodes[key] for key in sorted(tape.ancestors(keys)) if contents.is_network(tape.nodes[key])]
    paths = {node.key: node.module or parameter_names(contents, node) for node in inside}
    while len({path.partition(".")[0] for path in paths.values()}) == 1 and all("." in p for p in paths.values()):
        paths = {key: path.partition(".")[2] for key, path in paths.items()}  # one module holds all: show its parts
    best = merge_lists(paths)
    for depth in (3, 2, 1):
        alike = merge_lists({key: ".".join(path.split(".")[:depth]) for key, path in paths.items()})
        if len(set(best.values())) > MOST or len(set(alike.values())) >= FEW:
            best = alike
    return best


def parameter_names(contents: Contents, node: Node) -> str:
    """The parameters a call outside every module uses."""
    bits = [contents.of[key].params for key in contents.parameters_of(node)]
    return ", ".join(name for i, name in enumerate(contents.names) if any(b >> i & 1 for b in bits)) or "parameters"


def merge_lists(names: dict[int, str]) -> dict[int, str]:
    """Numbered parts of one list ("blocks.0", "blocks.1") are one box."""
    return {
        key: ".".join(part for part in name.split(".") if not part.isdigit()) or name for key, name in names.items()
    }


class Sources:
    """Which boxes a node's content comes from."""

    def __init__(
        self,
        tape: Tape,
        contents: Contents,
        names: dict[int, str],
        boxes: dict[str, Box],
        arrows: dict[tuple[str, str], Arrow],
    ) -> None:
        self.tape, self.contents, self.names, self.boxes, self.arrows = tape, contents, names, boxes, arrows
        self.known: dict[int, dict[str, bool]] = {}
        self.own: dict[str, int] = {}

    def of(self, key: int) -> dict[str, bool]:
        """The boxes whose output reaches this node without another box between, and whether gradient is stopped."""
        for ancestor in sorted(self.tape.ancestors([key])):
            if ancestor not in self.known:
                self.known[ancestor] = self._find(self.tape.nodes[ancestor])
        return self.known[key]

    def connect(self, source: str, target: str, stopped: bool) -> None:
        if source == target:
            return
        before = self.arrows.get((source, target))
        self.arrows[source, target] = Arrow(source, target, stopped and (before is None or before.stopped))

    def _find(self, node: Node) -> dict[str, bool]:
        content = self.contents.of[node.key]
        if not content.atoms:
            return {}
        if node.kind == "root":
            self.boxes.setdefault(node.name, Box(node.name, node.name, "input"))
            return {node.name: False}
        if node.kind == "noise":
            self.boxes.setdefault(NOISE, Box(NOISE, NOISE, "noise"))
            return {NOISE: False}
        reaching: dict[str, bool] = {}
        for key in self.contents.data_of(node):
            source = self.tape.nodes[key]
            for box, stopped in self.known.get(key, {}).items():
                now = stopped or (not node.requires_grad and source.requires_grad)
                reaching[box] = reaching.get(box, True) and now
        if node.key not in self.names:
            return reaching
        name = self._box(node)
        for box, stopped in reaching.items():
            self.connect(box, name, stopped)
        return {name: False}

    def _box(self, node: Node) -> str:
        """The network this call belongs to; one that is run with and without gradient is drawn twice."""
        used = [self.contents.of[key].params for key in self.contents.parameters_of(node)]
        stages = {kind for bits in used for i, kind in enumerate(self.contents.classes) if bits >> i & 1}
        stage = max(stages)
        name = self.names[node.key]
        still = stage == ONLINE and not node.requires_grad
        key = f"{name} (no gradient)" if still else name
        kind = "online" if stage == ONLINE else "ema" if stage == EMA else "frozen"
        before = self.boxes.get(key)
        kind = kind if before is None or before.kind == kind else "mixed"
        self.boxes[key] = Box(key, key, kind)
        return key
