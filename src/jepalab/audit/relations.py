"""How two nodes of a tape stand to each other: made of the same, of one sample or many, target of the other."""

from __future__ import annotations

from jepalab.audit import operations as ops
from jepalab.audit.content import EMA, ONLINE, Contents, prod, union
from jepalab.audit.roles import is_view
from jepalab.audit.tape import Node, Tape


class Relations:
    """Questions about pairs of nodes. batch_size is the number of samples, where the inputs have a first axis."""

    def __init__(self, tape: Tape, contents: Contents, batch_size: int | None) -> None:
        self.tape, self.contents, self.batch_size = tape, contents, batch_size
        self._codebooks: int | None = None
        self._origins: dict[int, object] = {}
        self._frontiers: dict[int, frozenset[object]] = {}

    def sides(self, a: int, b: int) -> tuple[int, int]:
        """Prediction and target: the target is the side without gradient, else the one fewer parameters made."""
        flows = [self.tape.nodes[key].requires_grad for key in (a, b)]
        if flows[0] != flows[1]:
            return (a, b) if flows[0] else (b, a)
        made = [(self.contents.of[key].params & self.contents.online).bit_count() for key in (a, b)]
        return (b, a) if made[1] > made[0] else (a, b)

    def same_origin(self, a: int, b: int) -> bool:
        """Whether both are made, without parameters, of the very same values: a thing held against itself."""
        return self.frontier(a) == self.frontier(b)

    def frontier(self, key: int) -> frozenset[object]:
        """What a node is made of: outputs of networks, leaves and selected parts of these."""
        if key not in self._frontiers:
            node, content = self.tape.nodes[key], self.contents.of[key]
            if self._is_codebook(node):
                lending = [k for k in self.contents.data_of(node) if self.contents.of[k].stage >= ONLINE]
                self._frontiers[key] = frozenset().union(*(self.frontier(k) for k in lending))
            elif node.kind != "call" or self.contents.is_network(node) or node.opaque or node.name in ops.NOISE:
                self._frontiers[key] = frozenset({key})
            elif node.literal and not self._takes_all(node):
                self._frontiers[key] = frozenset({self._origin(key)})
            else:
                data = self.data_of(node) if content.atoms else []
                self._frontiers[key] = frozenset().union(*(self.frontier(k) for k in data))
        return self._frontiers[key]

    def _takes_all(self, node: Node) -> bool:
        """Whether a slice cuts nothing off: x[:, :n] of n."""
        plain = node.name in ("getitem", "narrow") and len(node.inputs) == 1
        return plain and self.tape.nodes[node.inputs[0][1]].shape == node.shape

    def _is_codebook(self, node: Node) -> bool:
        """Whether a code looks up its entry here, or the entry is found by its distance: a quantiser, no network."""
        if node.kind != "call" or not self.contents.is_network(node):
            return False
        if self._codebooks is None:
            self._codebooks = 0
            for each in self.tape.nodes:
                finds = each.kind == "call" and each.name in ops.LOOKUP | ops.MATRIX_PRODUCT
                data = self.contents.data_of(each) if finds else []
                if data and all(self.contents.of[k].discrete and self.contents.of[k].stage == ONLINE for k in data):
                    self._codebooks |= union(self.contents.of[k].params for k in self.contents.parameters_of(each))
        used = union(self.contents.of[k].params for k in self.contents.parameters_of(node))
        return bool(used) and not used & ~self._codebooks

    def _origin(self, key: int) -> object:
        """The same for two selections of the same part of the same thing."""
        if key not in self._origins:
            node = self.tape.nodes[key]
            parts = tuple((slot, tuple(sorted(map(hash, self.frontier(k))))) for slot, k in node.inputs)
            self._origins[key] = (node.name, node.literal, parts)
        return self._origins[key]

    def within_samples(self, a: int, b: int) -> bool:
        """Whether embeddings of several views are held against their own mean, view by view."""
        num_views = sum(map(is_view, self.contents.of[a].roots))
        full, reduced = sorted((self.tape.nodes[k].shape for k in (a, b)), key=prod, reverse=True)
        gone = [size for size in full if full.count(size) > reduced.count(size) and size != 1]
        return num_views > 1 and gone == [num_views] and num_views != self.batch_size

    def within_groups(self, a: int, b: int) -> bool:
        """Whether embeddings are held against their own mean over an axis that is neither batch nor features."""
        shapes = {key: self.tape.nodes[key].shape for key in (a, b)}
        whole, mean = sorted((a, b), key=lambda key: -prod(shapes[key]))
        full, reduced = shapes[whole], shapes[mean]
        gone = [size for size in full if size != 1 and full.count(size) > reduced.count(size)]
        own = self.tape.nodes[mean].name in (*ops.REDUCTION, "div") and self.contents.of[mean].stage >= EMA
        kept = len(reduced) > 0 and full[-1] == reduced[-1] and self.batch_size in reduced[:-1]
        return own and kept and len(gone) == 1 and gone[0] != self.batch_size

    def differ(self, a: int, b: int) -> bool:
        return self.contents.of[a].atoms != self.contents.of[b].atoms or not self.both_flow(a, b)

    def both_flow(self, a: int, b: int) -> bool:
        return self.tape.nodes[a].requires_grad and self.tape.nodes[b].requires_grad

    def is_scale(self, key: int) -> bool:
        """One number a sample, or fewer: what is multiplied by it is scaled, not compared."""
        shape = self.tape.nodes[key].shape
        size = self.batch_size or 1
        return prod(shape) == 1 or (len(shape) > 1 and shape[0] == size and prod(shape) == size)

    def is_distribution(self, key: int) -> bool:
        """Whether a softmax stands above this node, with nothing but layout in between."""
        node = self.tape.nodes[key]
        while node.kind == "call":
            if node.name in ("softmax", "log_softmax", "logsigmoid", "sigmoid", "one_hot", "softmin"):
                return True
            if any(self.tape.nodes[key].name == "logsumexp" for _, key in node.inputs):
                return True  # logits made to sum to one
            data = self.contents.data_of(node)
            if node.name not in ops.LINEAR | {"log", "clamp", "mul", "div"} or not data:
                return False
            node = self.tape.nodes[data[0]]
        return False

    def correlates_features(self, node: Node, a: int, b: int) -> bool:
        """Whether the product sums over the batch and leaves features by features."""
        size, (left, right) = self.batch_size, (self.tape.nodes[k].shape for k in (a, b))
        if size is None or len(node.shape) < 2 or len(left) != 2 or len(right) != 2:
            return False
        turned = [self._is_turned(key) for key in (a, b)]
        if node.name != "einsum" and turned[0] != turned[1]:
            return turned[0] and left[-1] % size == 0
        if node.name == "einsum":
            return (
                node.shape[-1] != size and left[0] == right[0] and left[0] % size == 0 and node.shape[-1] == right[-1]
            )
        return left[-1] == right[0] and right[0] % size == 0 and node.shape[0] % size != 0

    def _is_turned(self, key: int) -> bool:
        """Whether a matrix stands here transposed."""
        node = self.tape.nodes[key]
        while node.kind == "call" and node.name not in ops.TURNING:
            data = self.data_of(node)
            if len(data) != 1 or self.contents.is_network(node):
                return False
            node = self.tape.nodes[data[0]]
        return node.kind == "call"

    def pairs_samples(self, node: Node) -> bool:
        size = self.batch_size
        return bool(size) and len(node.shape) == 2 and all(n % size == 0 for n in node.shape)

    def data_of(self, node: Node) -> list[int]:
        """What lends content to a call; random numbers that scale or project lend none."""
        data = self.contents.data_of(node)
        if node.name in ops.PRODUCT or node.name in ops.MATRIX_PRODUCT:
            return [key for key in data if not self.contents.of[key].only_noise] or data
        return data
