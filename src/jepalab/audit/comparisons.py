"""Where a loss compares: a walk from the scalar back to where two contents meet, or one is measured alone."""

from __future__ import annotations

from dataclasses import replace

from jepalab.audit import operations as ops
from jepalab.audit.content import Content, Contents, prod
from jepalab.audit.leaves import COMPARISON, CRITIC, ORDER, PENALTY, SCORE, STATISTIC, Leaf, Way
from jepalab.audit.relations import Relations
from jepalab.audit.tape import Node, Tape


class Comparisons:
    """Finds the leaves of a loss on a tape."""

    def __init__(self, tape: Tape, contents: Contents, batch_size: int | None) -> None:
        self.tape, self.contents, self.relations = tape, contents, Relations(tape, contents, batch_size)
        self._known: dict[tuple[int, Way], list[Leaf]] = {}

    def of(self, root: int) -> list[Leaf]:
        """The leaves of the scalar at this key, one for each summand of the loss, in the order of the tape."""
        uses: dict[int, int] = {}
        for key in self.tape.ancestors([root]):
            for _, given in self.tape.nodes[key].inputs:
                uses[given] = uses.get(given, 0) + 1
        found = []
        for head in sorted(self._summands(root, uses)):
            leaves = self.leaves(head, Way())
            if leaves:
                main = min(leaves, key=lambda leaf: (ORDER.index(leaf.kind), not leaf.contrast))
                meet = head if main.kind in (STATISTIC, SCORE, PENALTY) else main.meet
                found.append(replace(main, cut=head, meet=meet))
        return found

    def _summands(self, root: int, uses: dict[int, int]) -> set[int]:
        """The nodes the loss is a plain sum of: as far down as sums, means and constant factors go.

        A node that is used twice is not entered, since its gradient would be counted for both uses.
        """
        heads, todo = set(), [root]
        while todo:
            key = todo.pop()
            node = self.tape.nodes[key]
            data = self.relations.data_of(node) if self.contents.of[key].atoms else self._penalised(node)
            stops = not data or not self._is_linear(node, data) or self._chosen(node) or node.opaque
            if stops or any(uses[k] > 1 or self.tape.nodes[k].kind != "call" for k in data):
                heads.add(key)
            else:
                todo += data
        return heads

    def _penalised(self, node: Node) -> list[int]:
        return [key for _, key in node.inputs if self.contents.of[key].params or self.contents.of[key].atoms]

    def _is_linear(self, node: Node, data: list[int]) -> bool:
        """Whether the call is linear in what lends it content; a product is, if only one factor does."""
        if node.kind != "call" or self.contents.is_network(node):
            return False
        if node.name in ops.PRODUCT and len(data) == 1:
            first = next(key for slot, key in node.inputs if key == data[0] or slot == "0")
            return node.name in ("mul", "multiply") or (node.name in ops.QUOTIENT and first == data[0])
        return node.name in ops.LINEAR

    def leaves(self, key: int, way: Way) -> list[Leaf]:
        if (key, way) not in self._known:
            self._known[key, way] = []  # a guard: the tape has no cycles
            self._known[key, way] = self._walk(key, way)
        return self._known[key, way]

    def _walk(self, key: int, way: Way) -> list[Leaf]:
        node, content = self._at(key)
        if not content.atoms:
            return [Leaf(PENALTY, key, key, key)] if node.requires_grad else []
        if node.kind != "call":
            return [self._alone(key, way)]
        if node.name in ops.LOSSES:
            return self._named(node, way)
        data = self.relations.data_of(node)
        if chosen := self._chosen(node):
            return [self._meeting(node, data[0], chosen, classifies=True)]
        if self.contents.is_network(node) and not way.frozen and not self.contents.trains(node) and len(data) == 1:
            # A frozen layer after a comparison weighs it (LPIPS); frozen layers without one below belong to a network.
            inner = self.leaves(data[0], Way(False, way.soft, frozen=True))
            met = [
                i
                for i in inner
                if i.kind == COMPARISON and i.target is not None and self.relations.differ(i.prediction, i.target)
            ]
            return met or [self._alone(key, way)]
        if self.contents.is_network(node) or node.opaque:
            if node.opaque and len(data) > 1 and not node.shape:
                return [replace(self._meeting(node, data[0], data[1]), opaque=True)]
            return [self._alone(key, way)]
        soft = way.soft or node.name in ops.SOFTMAX
        if len(data) == 1:
            linear = self._is_linear(node, data)
            bent = way.bent or not (linear or (node.name in ops.LENGTH and way.linear))
            return self.leaves(data[0], replace(way, linear=way.linear and linear, soft=soft, bent=bent))
        return self._several(node, data, replace(way, soft=soft))

    def _several(self, node: Node, data: list[int], way: Way) -> list[Leaf]:
        """A parameter-free call that two or more contents enter."""
        if node.name in ops.ADDITIVE:
            if way.linear:
                return [leaf for key in data for leaf in self.leaves(key, way)]
            return self._difference(node, data, way)
        if node.name in ops.PRODUCT:
            return self._product(node, data, way)
        if node.name in ops.MATRIX_PRODUCT:
            return self._matrix_product(node, data, way)
        inner = [
            leaf
            for key in data
            for leaf in self.leaves(key, replace(way, linear=way.linear and node.name in ops.LINEAR))
        ]
        if any(leaf.kind == COMPARISON for leaf in inner) or (way.linear and node.name in ops.LINEAR):
            return inner
        return [self._alone(node.key, way)]

    def _difference(self, node: Node, data: list[int], way: Way) -> list[Leaf]:
        a, b = data[0], data[-1]
        if self.relations.same_origin(a, b):
            if way.soft:  # logits less their own maximum or normaliser: the same logits
                return self.leaves(max(a, b, key=lambda key: prod(self.tape.nodes[key].shape)), way)
            if self.relations.within_samples(a, b):
                return [self._meeting(node, a, b)]
            grouped = not way.bent and self.relations.within_groups(a, b)
            return [replace(self._meeting(node, a, b), within=True)] if grouped else [self._alone(node.key, way)]
        if all(self._is_distance(key) for key in data):
            return [leaf for key in data for leaf in self.leaves(key, way)]
        if node.name == "add" and not any(self.tape.nodes[k].name == "neg" for k in (a, b)):
            inner = [leaf for key in data for leaf in self.leaves(key, way)]
            compared = any(leaf.kind == COMPARISON for leaf in inner)
            flows = [self.tape.nodes[key].requires_grad for key in (a, b)]
            if not compared and not way.bent and flows[0] != flows[1]:
                return [self._meeting(node, a, b)]  # (f(x) + noise) squared: the difference to the negated noise
            return inner if compared else [self._alone(node.key, way)]
        return [self._meeting(node, a, b)]

    def _product(self, node: Node, data: list[int], way: Way) -> list[Leaf]:
        a, b = data[0], data[-1]
        if a == b:
            return self.leaves(a, replace(way, linear=False, bent=way.bent or not way.linear))
        inner = {key: self.leaves(key, replace(way, linear=False)) for key in (a, b)}
        compared = [key for key in (a, b) if any(leaf.kind == COMPARISON for leaf in inner[key])]
        if compared:
            found = [leaf for key in compared for leaf in inner[key] if leaf.kind == COMPARISON]
            scales = [key for key in (a, b) if key not in compared]
            if any(self.relations.is_distribution(key) for key in scales):
                found = [replace(leaf, classifies=True) for leaf in found]  # p (log p - log q)
            roots = frozenset().union(*(self.contents.of[k].roots for k in scales))
            found = [replace(leaf, weights=leaf.weights | roots) for leaf in found]
            if any(self.tape.nodes[key].requires_grad for key in scales):
                return [replace(found[0], cut=node.key)]
            return found
        if self.relations.same_origin(a, b) or node.name in ("rdiv",):
            return [self._alone(node.key, way)]
        if any(self.relations.is_scale(key) for key in (a, b)):
            return [self._alone(node.key, way)]
        return [
            self._meeting(node, a, b, classifies=self.relations.is_distribution(a) or self.relations.is_distribution(b))
        ]

    def _matrix_product(self, node: Node, data: list[int], way: Way) -> list[Leaf]:
        a, b = data[0], data[-1]
        if self.relations.correlates_features(node, a, b):
            return (
                [self._alone(node.key, way)]
                if self.relations.same_origin(a, b)
                else [self._meeting(node, a, b, cross=True)]
            )
        if way.soft or self.relations.pairs_samples(node):
            if self.relations.same_origin(a, b) and not way.soft:
                return [self._alone(node.key, way)]
            return [self._meeting(node, a, b, contrast=True)]
        same_kind = self.contents.of[a].atoms == self.contents.of[b].atoms
        if self.relations.same_origin(a, b) or (same_kind and self.relations.both_flow(a, b)):
            return [self._alone(node.key, way)]
        return [self._meeting(node, a, b)]

    def _named(self, node: Node, way: Way) -> list[Leaf]:
        """A loss function or distance by its name."""
        slots = dict(node.inputs)
        left, right = (next((slots[s] for s in names if s in slots), None) for names in ops.LOSSES[node.name])
        has = [k for k in (left, right) if k is not None and self.contents.of[k].atoms]
        classifies = node.name in ops.CLASSIFYING
        if len(has) == 2 and left is not None and right is not None:
            if self.relations.same_origin(left, right):
                contrast = way.soft and node.name in ("cosine_similarity", "cdist")
                if contrast:
                    return [self._meeting(node, left, right, contrast=True)]
                return [Leaf(STATISTIC, node.key, node.key, node.key)]  # its own mean, its own codes
            distance = node.name in ("cosine_similarity", "cdist", "pairwise_distance", "dist")
            contrast = node.name in ops.CONTRASTING or (distance and (way.soft or node.name == "cdist"))
            inner = self._similarities(left) if classifies else []
            if inner and not self.contents.of[right].roots - self.contents.of[left].roots:
                return [replace(inner[0], cut=node.key, contrast=True)]
            return [self._meeting(node, left, right, contrast=contrast, classifies=classifies)]
        if not has:
            return []
        if classifies or node.name in ("poisson_nll_loss",):
            if inner := self._similarities(has[0]):
                return [replace(inner[0], cut=node.key, contrast=True)]
            return [Leaf(CRITIC, node.key, node.key, has[0], classifies=True)]
        inner = self.leaves(has[0], Way(False, way.soft))
        compared = [leaf for leaf in inner if leaf.kind == COMPARISON and (leaf.cross or leaf.contrast)]
        return compared or [Leaf(STATISTIC, node.key, node.key, has[0])]

    def _similarities(self, key: int) -> list[Leaf]:
        """Products of two contents that end up as the logits at this key, without a network in between."""
        todo, found, seen = [key], [], set()
        while todo:
            here = todo.pop(0)
            node, content = self._at(here)
            if here in seen or not content.atoms or node.kind != "call":
                continue
            seen.add(here)
            data = self.contents.data_of(node)
            distance = node.name in ("cosine_similarity", "cdist", "pairwise_distance")
            products = ops.MATRIX_PRODUCT | ops.PRODUCT
            if self.contents.is_network(node):
                continue
            meets = len(data) > 1 and (distance or node.name in products)
            if meets and not any(self.relations.is_scale(k) for k in data[:2]):
                found.append(self._meeting(node, data[0], data[1], contrast=True))
            else:
                todo += data
        return found

    def _chosen(self, node: Node) -> int | None:
        """The index that chooses among predictions, where it holds content itself: log p[y]."""
        if node.name not in ("gather", "getitem", "take_along_dim") or not (data := self.contents.data_of(node)):
            return None
        source = data[0]
        for slot, key in node.inputs:
            where = slot.split(".")[0] in ("1", "2", "index", "indices") and slot != "0"
            index = where and key != source and self.tape.nodes[key].integer and self.contents.of[key].atoms
            if index and self.relations.is_distribution(source):
                return key
        return None

    def _alone(self, key: int, way: Way) -> Leaf:
        """One content without a second one to hold against."""
        return Leaf(SCORE if way.linear else STATISTIC, key, key, key)

    def _meeting(
        self, node: Node, a: int, b: int, *, contrast: bool = False, cross: bool = False, classifies: bool = False
    ) -> Leaf:
        prediction, target = self.relations.sides(a, b)
        return Leaf(COMPARISON, node.key, node.key, prediction, target, contrast, cross, classifies)

    def _is_distance(self, key: int) -> bool:
        """Whether a reduction of a comparison stands here: the distance of a triplet, a score."""
        node, content = self._at(key)
        while node.kind == "call" and content.atoms and not self.contents.is_network(node):
            if node.name in ops.LOSSES and len(self.contents.data_of(node)) > 1:
                return True
            data = self.contents.data_of(node)
            if node.name in ops.DISTANCE:
                return any(
                    leaf.kind == COMPARISON
                    and leaf.target is not None
                    and self.relations.differ(leaf.prediction, leaf.target)
                    for leaf in self.leaves(node.key, Way(node.name in ops.REDUCTION))
                )
            if len(data) != 1:
                return False
            node, content = self._at(data[0])
        return False

    def _at(self, key: int) -> tuple[Node, Content]:
        return self.tape.nodes[key], self.contents.of[key]
