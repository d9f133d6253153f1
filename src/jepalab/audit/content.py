"""What a tensor holds: which inputs' content, through which kind of network it came, and what was done on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from jepalab.audit import operations as ops
from jepalab.audit.report import ParameterClass
from jepalab.audit.tape import Node, Tape

NOTHING, RAW, FIXED, FROZEN, EMA, ONLINE = -1, 0, 1, 2, 3, 4
STAGES = {NOTHING: "none", RAW: "raw", FIXED: "fixed", FROZEN: "frozen", EMA: "ema", ONLINE: "online"}
STAGE_OF = {
    ParameterClass.ONLINE: ONLINE,
    ParameterClass.EMA: EMA,
    ParameterClass.FROZEN: FROZEN,
    ParameterClass.IDLE: FROZEN,
    ParameterClass.DRIFTING: FROZEN,
}
NOISE = "noise"
# Arguments that say where, not what: positions and keywords of indices and conditions.
WHERE = {
    "getitem": ("1",), "setitem": ("1",), "gather": ("2", "index"), "index_select": ("2", "index"),
    "masked_select": ("1", "mask"), "take_along_dim": ("1", "indices"), "take": ("1", "index"),
    "masked_fill": ("1", "mask"), "where": ("0", "condition"), "index_put": ("1", "indices"),
    "index_fill": ("2", "index"),
    "scatter": ("2", "index"), "scatter_add": ("2", "index"), "scatter_reduce": ("2", "index"),
    "index_add": ("2", "index"), "index_copy": ("2", "index"), "masked_scatter": ("1", "mask"),
    "scaled_dot_product_attention": ("3", "attn_mask"),
    "multi_head_attention_forward": ("attn_mask", "key_padding_mask"),
    "repeat_interleave": ("1", "repeats"),
}  # fmt: skip


class Atom(NamedTuple):
    """Content of one input at one stage; `entry` is the stage at which the first trained parameter read it."""

    root: str
    stage: int
    entry: int


@dataclass(frozen=True, slots=True)
class Content:
    """What one tensor holds. The three sets of parameters are bit masks over the order of the classes.

    params   every parameter on the way here.
    first    those that read content no network had touched; late: those that read content already past a trained one.
    noised   noise was added to content that no trained network had read yet: a corrupted input, not a sampled code.
    guides   inputs that chose (through masks and indices) without lending content.
    """

    atoms: frozenset[Atom] = frozenset()
    params: int = 0
    first: int = 0
    late: int = 0
    discrete: bool = False
    noised: bool = False
    guides: frozenset[str] = frozenset()
    opaque: bool = False
    coded: bool = False  # rounded or made a code after a trained network
    sampled: bool = False  # drawn at random from a distribution that a network gave

    @property
    def roots(self) -> frozenset[str]:
        return frozenset(atom.root for atom in self.atoms)

    @property
    def only_noise(self) -> bool:
        return self.roots == {NOISE}

    @property
    def stage(self) -> int:
        return max((atom.stage for atom in self.atoms), default=NOTHING)

    @property
    def entry(self) -> int:
        return max((atom.entry for atom in self.atoms), default=NOTHING)

    def stage_of(self, roots: frozenset[str] | set[str]) -> int:
        """How raw these inputs still are here: a raw or hand-made part outweighs what networks made of them."""
        stages = {atom.stage for atom in self.atoms if atom.root in roots}
        return min(stages, default=NOTHING) if stages & {RAW, FIXED} else max(stages, default=NOTHING)


EMPTY = Content()


class Contents:
    """The content of every node of a tape, given what the audit saw each parameter do."""

    def __init__(self, tape: Tape, classes: Mapping[str, ParameterClass]) -> None:
        self.tape = tape
        self.bits = {name: index for index, name in enumerate(classes)}
        self.classes = [STAGE_OF[kind] for kind in classes.values()]
        self.names = list(classes)
        self.online = sum(1 << i for i, stage in enumerate(self.classes) if stage == ONLINE)
        self.of: list[Content] = []
        for node in tape.nodes:
            self.of.append(self._read(node))

    def parameters_of(self, node: Node) -> list[int]:
        """The inputs of a call that hold parameters and nothing else."""
        return [key for _, key in node.inputs if not self.of[key].atoms and self.of[key].params]

    def data_of(self, node: Node) -> list[int]:
        """The inputs of a call that lend it content, without those that only say where."""
        where = WHERE.get(node.name, ())
        lending = [key for slot, key in node.inputs if slot.split(".")[0] not in where and self.of[key].atoms]
        return lending or [key for _, key in node.inputs if self.of[key].atoms]

    def is_network(self, node: Node) -> bool:
        """Whether parameters transform content here; a single learned factor (a temperature) does not count."""
        used = [k for k in self.parameters_of(node) if prod(self.tape.nodes[k].shape) > 1]
        return bool(used) and bool(self.data_of(node))

    def trains(self, node: Node) -> bool:
        """Whether a trained parameter is among those of this call."""
        return bool(union(self.of[key].params for key in self.parameters_of(node)) & self.online)

    def _read(self, node: Node) -> Content:
        if node.kind == "root":
            return Content(frozenset({Atom(node.name, RAW, NOTHING)}), discrete=node.integer)
        if node.kind == "parameter":
            return Content(params=1 << self.bits[node.name]) if node.name in self.bits else EMPTY
        if node.kind == "noise":
            return Content(frozenset({Atom(NOISE, RAW, NOTHING)}))
        if node.kind != "call" or node.name in ops.CONSTANT or node.name in ops.CHANCE:
            return EMPTY
        return self._call(node)

    def _call(self, node: Node) -> Content:
        lending = [self.of[key] for key in self.data_of(node)]
        others = [self.of[key] for key in self.parameters_of(node)]
        guides = frozenset().union(*(self.of[k].guides for _, k in node.inputs))
        where = WHERE.get(node.name, ())
        guides |= frozenset().union(*(self.of[k].roots for s, k in node.inputs if s.split(".")[0] in where))
        if not lending:
            if node.name in ("normal", "_standard_gamma", "_sample_dirichlet") and not others:
                return Content(frozenset({Atom(NOISE, RAW, NOTHING)}))
            return Content(params=union(c.params for c in others), guides=guides)
        lending = without_modulating_noise(node, lending, [self.tape.nodes[k].shape for k in self.data_of(node)])
        atoms = frozenset().union(*(c.atoms for c in lending))
        if node.name in ops.QUOTIENT and len(lending) > 1:
            # What divides is a scale: it lends content only where there is none of the same input above it.
            above = lending[0].roots
            atoms = lending[0].atoms | frozenset(a for c in lending[1:] for a in c.atoms if a.root not in above)
        discrete = any(c.discrete for c in lending) if node.name in ops.LINEAR else False
        if node.name in ops.DISCRETE or node.integer:
            discrete = True
        if discrete and atoms and all(a.root == NOISE for a in atoms):
            return Content(guides=guides)  # a random mask or index
        content = Content(
            atoms,
            params=union(c.params for c in lending),
            first=union(c.first for c in lending),
            late=union(c.late for c in lending),
            discrete=discrete,
            noised=any(c.noised for c in lending) or adds_noise(node, lending),
            guides=guides - {NOISE},
            opaque=node.opaque or any(c.opaque for c in lending),
            coded=any(c.coded for c in lending)
            or (node.name in ops.CODING and any(c.stage == ONLINE for c in lending)),
            sampled=any(c.sampled for c in lending) or (node.name in ops.SAMPLING and any(c.params for c in lending)),
        )
        if others and not self._is_offset(node, others):
            return self._through(content, union(c.params for c in others))
        if node.name in ops.FIXED or node.name in ops.DISCRETE:
            raised = (a._replace(stage=FIXED) if a.stage == RAW and a.root != NOISE else a for a in content.atoms)
            return replace(content, atoms=frozenset(raised))
        return replace(content, params=content.params | union(c.params for c in others))

    def _through(self, content: Content, params: int) -> Content:
        """The content after parameters transformed it."""
        stage = max(kind for index, kind in enumerate(self.classes) if params >> index & 1)
        trained = stage == ONLINE
        atoms = frozenset(
            Atom(
                a.root, max(a.stage, stage), a.stage if trained and a.entry == NOTHING and a.stage < ONLINE else a.entry
            )
            for a in content.atoms
        )
        untouched = all(a.stage < FROZEN for a in content.atoms)
        late = any(a.stage == ONLINE for a in content.atoms)
        return replace(
            content,
            atoms=atoms,
            params=content.params | params,
            first=content.first | (params if untouched else 0),
            late=content.late | (params if late else 0),
            discrete=False,
        )

    def _is_offset(self, node: Node, others: Sequence[Content]) -> bool:
        """Fixed numbers kept as parameters (a mean, sines of the position) shift and scale but are no network."""
        frozen = not union(c.params for c in others) & self.online
        return frozen and (node.name in ops.ADDITIVE or node.name in ops.PRODUCT or node.name in ops.JOINING)


def without_modulating_noise(node: Node, lending: list[Content], shapes: list[tuple[int, ...]]) -> list[Content]:
    """Noise that scales, projects or shifts whole samples modulates content and lends none."""
    rest = [c for c in lending if not c.only_noise]
    if not rest or len(rest) == len(lending):
        return lending
    if node.name in ops.PRODUCT or node.name in ops.MATRIX_PRODUCT or node.name in ("grid_sample", "affine_grid"):
        return rest
    largest = max(prod(shape) for shape in shapes)
    if node.name in ops.ADDITIVE:
        pairs = zip(lending, shapes, strict=True)
        return [c for c, shape in pairs if not (c.only_noise and prod(shape) < largest)]
    return lending


def adds_noise(node: Node, lending: list[Content]) -> bool:
    """Whether noise meets content here that no trained network has read."""
    clean = [c for c in lending if not c.only_noise]
    return len(clean) < len(lending) and any(
        a.stage < ONLINE for c in clean for a in c.atoms if a.root != NOISE and c.roots
    )


def union(bits: object) -> int:
    total = 0
    for value in bits:  # type: ignore[attr-defined]
        total |= value
    return total


def prod(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
