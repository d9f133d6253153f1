"""From contents, footprints and shares to words: what each term is, and what the step as a whole does."""

from __future__ import annotations

from collections.abc import Sequence

from jepalab.audit.content import EMA, FIXED, FROZEN, NOISE, ONLINE, RAW, STAGES, Content, Contents
from jepalab.audit.footprint import Footprint
from jepalab.audit.leaves import COMPARISON, CRITIC, PENALTY, SCORE, Leaf
from jepalab.audit.report import Family, Process, Side, Space, TargetLearning, Term, percent
from jepalab.audit.roles import kind_of
from jepalab.audit.tape import Tape

GIVEN = {"label": Space.LABEL, "action": Space.ACTION, "reward": Space.REWARD}
EMBEDDING = {FROZEN: Space.FROZEN_EMBEDDING, EMA: Space.EMA_EMBEDDING, ONLINE: Space.OWN_EMBEDDING}
LEARNING = {FROZEN: TargetLearning.FROZEN, EMA: TargetLearning.EMA, ONLINE: TargetLearning.JOINT}
SUFFIX = {FROZEN: "frozen target", EMA: "EMA"}
NOISED = (Space.NOISE, Space.VELOCITY, Space.INPUT, Space.FIXED_FEATURE)  # what noise is taken off of
PRESENT = 0.05  # share of the encoder's gradient from which a family counts
FRESH = 0.05  # novelty from which a target counts as predicted


class Judge:
    """Puts words to one comparison: space, process, label, family, and what is ambiguous about them."""

    def __init__(
        self, tape: Tape, contents: Contents, leaf: Leaf, footprint: Footprint | None, batch_size: int | None
    ) -> None:
        self.leaf, self.contents, self.footprint, self.meet = leaf, contents, footprint, tape.nodes[leaf.meet].name
        self.pred = contents.of[leaf.prediction]
        self.targ: Content | None = None if leaf.target is None else contents.of[leaf.target]
        self.pred_flows = tape.nodes[leaf.prediction].requires_grad
        self.targ_flows = leaf.target is not None and tape.nodes[leaf.target].requires_grad
        self.data = frozenset() if self.targ is None else self.targ.roots - {NOISE}
        self.stage = -1 if self.targ is None else self.targ.stage_of(self.data)
        self.network = self.stage >= FROZEN
        self.stopped = self.network and not self.targ_flows
        self.perceptual = self._perceptual()
        self.space = self._space()
        self.process = self._process()
        self.novelty = self._novelty()
        self.learning = LEARNING[self.stage] if self._is_embedding() or self.stage == FROZEN else TargetLearning.NONE
        if self.perceptual or self.space in GIVEN.values():
            self.learning = TargetLearning.FROZEN if self.stage == FROZEN else TargetLearning.NONE
        whole = all(self._is_whole(tape, k, batch_size) for k in (leaf.prediction, leaf.target) if k is not None)
        pictures = {node.name for node in tape.nodes if node.kind == "root" and len(node.shape) == 4}
        self.crops = whole and self.data <= pictures and self.novelty is not None and FRESH < self.novelty < 1 - FRESH
        self.family, self.label, self.ambiguous = self._name()

    def _is_whole(self, tape: Tape, key: int, batch_size: int | None) -> bool:
        """Whether a node holds one embedding a sample, or two, and not embeddings picked by an index."""
        node = tape.nodes[key]
        if batch_size is None or len(node.shape) != 2 or node.shape[0] not in (batch_size, 2 * batch_size):
            return False
        while node.kind == "call" and not self.contents.is_network(node):
            picked = node.name in ("getitem", "gather", "index_select", "masked_select", "take_along_dim")
            data = self.contents.data_of(node)
            if not data or (picked and len(node.inputs) > 1):
                return False
            node = tape.nodes[data[0]]
        return True

    def _is_embedding(self) -> bool:
        return self.space in EMBEDDING.values()

    def _given(self) -> Space | None:
        """The space of what was handed in with the data, if the target holds any: rewards before labels and actions."""
        assert self.targ is not None
        plain = {kind_of(a.root) for a in self.targ.atoms if a.stage <= FIXED}
        return next((space for kind, space in reversed(GIVEN.items()) if kind in plain), None)

    def _perceptual(self) -> bool:
        """Whether the prediction leaves its network and enters the target's: features of two outputs are compared."""
        if self.targ is None or not self.targ.first:
            return False
        late = self.targ.first & self.pred.late
        return bool(late) and not self.targ.first & self.pred.first

    def _space(self) -> Space | None:
        if self.leaf.kind != COMPARISON or self.leaf.target is None or self.targ is None:
            return Space.STATISTIC
        if given := self._given():
            return given
        noise = any(a.root == NOISE and a.stage == RAW for a in self.targ.atoms)
        if self.perceptual:
            return Space.INPUT
        if not self.data:
            return Space.NOISE if noise else Space.STATISTIC
        if noise and self.stage <= FROZEN:
            return Space.VELOCITY
        if self.targ.discrete and self.stage in (RAW, FIXED, FROZEN):
            return Space.TOKEN
        if self.stage in (RAW, FIXED):
            return Space.INPUT if self.stage == RAW else Space.FIXED_FEATURE
        return EMBEDDING[self.stage]

    def _novelty(self) -> float | None:
        """Of what was handed in with the data, only that counts: a return also holds what the state will be worth."""
        if self.footprint is None or self.process is Process.CONTRAST:
            return None
        if self.leaf.within:
            return 0.0
        given = self.targ.roots if self.targ is not None and self.space in GIVEN.values() else None
        roots = None if given is None else {root for root in given if GIVEN.get(kind_of(root)) is self.space}
        return self.footprint.novelty(roots)

    def _process(self) -> Process:
        if self.leaf.kind != COMPARISON:
            return Process.MATCH_STATISTIC
        if self.leaf.contrast:
            return Process.CONTRAST
        latent = self.space is Space.FROZEN_EMBEDDING and self.pred.entry == FROZEN
        if self.pred.noised and not self.leaf.classifies and (self.space in NOISED or latent):
            return Process.DENOISE
        return Process.CLASSIFY_TOKEN if self.leaf.classifies else Process.REGRESS

    def _name(self) -> tuple[Family, str, str]:
        """Family, label in the words of the label table, and what else it could be called."""
        space, denoises = self.space, self.process is Process.DENOISE
        if why := self._foreign():
            return Family.UNSUPPORTED, why, ""
        if self.leaf.kind == PENALTY:
            return Family.REGULARISER, "WEIGHT PENALTY", ""
        if self.leaf.kind != COMPARISON or space is Space.STATISTIC:
            return Family.REGULARISER, "STATISTIC", ""
        if self.process is Process.CONTRAST:
            same = self.targ is not None and self.targ.roots == self.pred.roots and len(self.pred.roots) == 1
            note = (
                "both sides come from one input: name the views as roles (view1, view2) to tell contrast between views "
                "from a statistic of one batch"
            )
            return Family.CONTRASTIVE, "CONTRASTIVE", note if same else ""
        if space in GIVEN.values():
            return Family.SUPERVISED, "SUPERVISED" if space is Space.LABEL else str(space).upper(), ""
        latent = self.pred.entry == FROZEN
        if space in (Space.NOISE, Space.VELOCITY) or (denoises and space is Space.FROZEN_EMBEDDING):
            return self._noise(latent)
        if space is Space.TOKEN:
            return Family.GENERATIVE, "TOKEN-PREDICTION" if self.stage == FROZEN else "GENERATIVE-TOKEN", ""
        if self.perceptual:
            note = (
                "the decoded output is compared in the features of another network, so this compares embeddings of "
                "outputs: a perceptual metric on a prediction of the input, not an embedding that was predicted"
            )
            return Family.GENERATIVE, "GENERATIVE-INPUT (perceptual)", note
        if space in (Space.INPUT, Space.FIXED_FEATURE):
            return Family.GENERATIVE, f"GENERATIVE-{str(space).upper()}", ""
        return self._embedding()

    def _foreign(self) -> str:
        """What kind of learning this is, where it is none that compares a prediction with what it predicts."""
        if self.leaf.kind == CRITIC:
            return "CRITIC"
        if self.leaf.kind == SCORE:
            return "SCORE"
        rewarded = any(GIVEN.get(kind_of(root)) is Space.REWARD for root in self.leaf.weights)
        if self.targ is not None and (
            rewarded or (self.targ.sampled and self.targ.stage == ONLINE and self.targ.discrete)
        ):
            return "POLICY GRADIENT"
        meets_opaque = self.leaf.kind == COMPARISON and self.leaf.opaque
        return "OPAQUE" if meets_opaque else ""

    def _noise(self, latent: bool) -> tuple[Family, str, str]:
        if self.space is Space.FROZEN_EMBEDDING:
            note = (
                "the target is a frozen embedding, as in distillation or latent prediction; noise in the prediction's "
                "input and novelty 0 tell denoising in a latent space from these"
            )
            return Family.GENERATIVE, "GENERATIVE-IN-FROZEN-LATENT", note
        return (
            Family.GENERATIVE,
            "GENERATIVE-IN-FROZEN-LATENT" if latent else f"GENERATIVE-{str(self.space).upper()}",
            "",
        )

    def _embedding(self) -> tuple[Family, str, str]:
        assert self.targ is not None
        predicts = self.novelty is not None and self.novelty > FRESH and not self.crops
        suffix = SUFFIX.get(self.stage, "self" if predicts else "stop-grad" if self.stopped else "joint")
        note = ""
        soft = self.leaf.classifies and self.meet != "sub"  # a difference of logarithms is a divergence, not a code
        codes = self.targ.discrete or (soft and (self.stage == ONLINE or predicts))
        if self.stage in (EMA, ONLINE) and codes:
            suffix = "discrete self-codes"
            note = (
                "the target is a code the network assigns to itself: between predicting embeddings and classifying "
                "tokens; "
                "novelty tells prediction (masked) from invariance (views)"
            )
        if not predicts and self.stopped and self.stage == ONLINE and self.targ.params & ~self.pred.params:
            note = (
                "the target is itself a prediction, and the encoder is pulled towards what was predicted of it: the "
                "consistency term of a latent world model"
            )
        if self.crops:
            note = (
                "both sides are one embedding of the whole sample and saw different parts of it, as crops made inside "
                "the step do; if one part were hidden on purpose and named to the predictor, this would be prediction"
            )
        apart = self.targ is not None and not self.data & self.pred.roots
        if predicts and apart and not any(kind_of(root) in ("x_next", "text") for root in self.data):
            note = (
                f"{' and '.join(sorted(self.pred.roots | self.data))} were taken for different observations; if they "
                "are views of one thing, name them view1 and view2: then this is invariance"
            )
        if self.stage == FROZEN:
            if not predicts:
                note = (
                    "the same comparison with a hidden or future input would be prediction of a frozen embedding; "
                    "novelty "
                    "0 makes it distillation"
                )
                return Family.DISTILLATION, "DISTILLATION", note
            note = (
                "a frozen target is JEPA in its authors' sense but is not learned along; with novelty 0 it would be "
                "distillation. What the frozen network was trained on cannot be seen in the step"
            )
        if predicts:
            return Family.JEPA, f"EMBEDDING-PREDICTION ({suffix})", note
        return Family.INVARIANCE, f"EMBEDDING-INVARIANCE ({suffix})", note

    def sides(self) -> tuple[Side, Side | None]:
        made = [_side(self.pred, self.pred_flows)]
        return made[0], None if self.targ is None else _side(self.targ, self.targ_flows)


def _side(content: Content, flows: bool) -> Side:
    return Side(tuple(sorted(content.roots)), STAGES[content.stage], STAGES[content.entry], flows, content.discrete)


def mixture(terms: Sequence[Term]) -> dict[str, float]:
    """The share of each family in what the comparisons send to the encoder; statistics are no family."""
    total: dict[str, float] = {}
    for term in terms:
        if term.family is not Family.REGULARISER:
            total[str(term.family)] = total.get(str(term.family), 0.0) + term.share
    whole = sum(total.values())
    shares = {name: share / whole for name, share in total.items()} if whole else {}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def collapse_prone(terms: Sequence[Term], shares: dict[str, float]) -> bool:
    """Whether what drives the encoder is latent against latent with nothing that prevents the constant."""
    latent = shares.get(Family.JEPA, 0.0) + shares.get(Family.INVARIANCE, 0.0)
    own = [t for t in terms if t.family in (Family.JEPA, Family.INVARIANCE) and t.share >= PRESENT]
    return latent > 1 - PRESENT and any(not t.anti_collapse for t in own)


def verdict(terms: Sequence[Term], shares: dict[str, float], problem: str) -> str:
    """One phrase for the step."""
    if problem or not shares or shares.get(Family.UNSUPPORTED, 0.0) >= PRESENT:
        return "unsupported"
    if collapse_prone(terms, shares):
        return "collapse-prone"
    present = {name: share for name, share in shares.items() if share >= PRESENT}
    if len(present) == 1:
        return next(iter(present))
    return f"mixed ({', '.join(f'{name} {percent(share)}' for name, share in present.items())})"
