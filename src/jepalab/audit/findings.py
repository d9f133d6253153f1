"""What a reader of the step should know besides its verdict: leaks, mixing, privileged labels, idle and stuck parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jepalab.audit.content import Contents
from jepalab.audit.footprint import Footprint
from jepalab.audit.leaves import Leaf
from jepalab.audit.observation import Observation
from jepalab.audit.places import place
from jepalab.audit.report import Family, Finding, ParameterClass, Place, Space, Term, percent
from jepalab.audit.roles import LABELS, kind_of
from jepalab.audit.tape import Tape
from jepalab.audit.verdict import PRESENT

SWAMPING = 0.95
HIDDEN = 0.05  # novelty from which something is hidden; below it the step reconstructs what it sees
OVERLAP = 0.02  # share of compared places whose own input the prediction saw, from which a context overlaps its targets
SEQUENTIAL = ("multi_head_attention_forward", "scaled_dot_product_attention", "gru", "lstm", "rnn_tanh", "rnn_relu")
GIVEN = (Space.LABEL, Space.ACTION, Space.REWARD)


@dataclass(frozen=True)
class Evidence:
    """A term with what stands behind it."""

    term: Term
    leaf: Leaf
    footprint: Footprint | None


def find(
    evidence: Sequence[Evidence],
    tape: Tape,
    contents: Contents,
    observation: Observation,
    *,
    mixed: Sequence[int],
    unread: Iterable[str],
) -> tuple[Finding, ...]:
    """All findings, the heaviest first."""
    terms = [item.term for item in evidence]
    found = [
        *leaks(evidence),
        *mixing(tape, mixed),
        *privileged(evidence, tape, contents),
        *shares(evidence, tape),
        *collapsing(terms),
        *averages(observation, tape, contents),
        *untrained(observation),
        *opaque(tape),
        *(
            Finding(
                "unused-input",
                unread_weight(name),
                f"The step never read the input {name!r}, so nothing is said about it.",
            )
            for name in unread
        ),
    ]
    weights = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda finding: weights.index(finding.weight)))


def unread_weight(name: str) -> str:
    """Labels that self-supervised learning leaves unread are as they should be."""
    return "note" if kind_of(name) in LABELS else "warning"


def leaks(evidence: Sequence[Evidence]) -> Iterable[Finding]:
    for item in evidence:
        term, seen = item.term, item.footprint
        if seen is None or term.novelty is None or term.share == 0:
            continue
        raw = term.space in (Space.INPUT, Space.TOKEN) and term.target is not None and term.target.stage == "raw"
        if term.space in GIVEN and term.novelty < 1 - OVERLAP:
            what = f"The {term.space} that is to be told also reaches the prediction's input"
            yield Finding("leak", "error", f"{what}: it can be copied instead of learned.", term.place)
        elif raw and HIDDEN < term.novelty < 1 - OVERLAP:
            what = (
                f"At {percent(1 - term.novelty)} of the compared places the prediction has seen the very content "
                "it is to predict"
            )
            weight = "error" if term.novelty < 0.6 else "warning"  # a few are left visible on purpose, by BERT for one
            yield Finding("leak", weight, f"{what}: those places reward copying.", term.place)
        elif raw and term.space is Space.TOKEN and term.novelty <= HIDDEN:
            what = "The prediction sees the token it is to predict (is the causal mask or the shift missing?)"
            yield Finding("leak", "error", f"{what}: copying it solves the task.", term.place)
        elif term.family is Family.JEPA and seen.own and seen.own_seen / seen.own > OVERLAP:
            what = (
                f"For {percent(seen.own_seen / seen.own)} of the predicted embeddings the context holds the "
                "target's own place"
            )
            yield Finding("leak", "error", f"{what}: context and target overlap, and these can be copied.", term.place)


def mixing(tape: Tape, mixed: Sequence[int]) -> Iterable[Finding]:
    first = {tape.nodes[key].line: key for key in reversed(mixed)}
    for key in sorted(first.values())[:3]:
        node = tape.nodes[key]
        place = node.places[0]
        if "batch_norm" in node.name:
            yield Finding(
                "batch-mixing",
                "note",
                "Batch normalisation makes every sample depend on the others through the batch's mean and variance; "
                "what is learned may use that, and evaluation with stored statistics differs from training.",
                place,
            )
        else:
            hint = (
                " Is the batch on the axis that this module takes for time or tokens (batch_first)?"
                if node.name in SEQUENTIAL
                else ""
            )
            what = f"Samples of a batch mix in {node.name}: changing one sample changes the embeddings of others."
            yield Finding("batch-mixing", "error", what + hint, place)


def privileged(evidence: Sequence[Evidence], tape: Tape, contents: Contents) -> Iterable[Finding]:
    comparisons = [item for item in evidence if item.term.family is not Family.REGULARISER]
    selfsupervised = [i for i in comparisons if i.term.space not in GIVEN and i.term.share > 0]
    for item in comparisons:
        roots = {root for side in (item.term.prediction, item.term.target) if side for root in side.roots}
        labels = sorted(root for root in roots if kind_of(root) in LABELS)
        term = item.term
        if term.space is Space.LABEL and selfsupervised and term.share > 0.001:
            what = f"Labels or true states ({', '.join(labels)}) send {percent(term.share)} of the encoder's gradient"
            yield Finding(
                "privileged",
                "warning",
                f"{what}: what it learns is no longer learned from observations alone.",
                term.place,
            )
        elif labels and term.space is not Space.LABEL and term.family is not Family.GENERATIVE and term.share > 0.001:
            what = f"{', '.join(labels)} feeds the {term.space} comparison"
            yield Finding("privileged", "warning", f"{what}: a label takes part in a self-supervised term.", term.place)


def shares(evidence: Sequence[Evidence], tape: Tape) -> Iterable[Finding]:
    terms = [item.term for item in evidence]
    total = sum(term.share for term in terms)
    for item in evidence:
        term = item.term
        if term.share == 0 and not tape.nodes[item.leaf.cut].requires_grad:
            what = (
                f"The term {term.name!r} sends no gradient to any parameter: it adds a number to the loss and "
                "trains nothing"
            )
            yield Finding("no-gradient", "warning", f"{what}.", term.place)
        elif term.share == 0:
            what = f"The term {term.name!r} sends no gradient to the encoder: it trains a reader of the embedding"
            yield Finding("no-gradient", "note", f"{what}.", term.place)
    real = [term for term in terms if term.share > 0]
    for term in real:
        if len(real) > 1 and total and term.share / total > SWAMPING:
            others = ", ".join(other.name for other in real if other is not term)
            what = f"{term.name!r} sends {percent(term.share)} of the encoder's gradient and swamps {others}"
            yield Finding("swamped", "warning", f"{what}: at these weights the rest hardly counts.", term.place)


def collapsing(terms: Sequence[Term]) -> Iterable[Finding]:
    for term in terms:
        if term.family in (Family.JEPA, Family.INVARIANCE) and term.share >= PRESENT and not term.anti_collapse:
            what = (
                "The target has the same network and only a stop-gradient, no predictor"
                if term.stop_gradient
                else "The target is the encoder's own embedding with gradient on both sides"
            )
            yield Finding(
                "collapse",
                "error",
                f"{what}, and nothing in the step works against collapse: the same embedding for every input solves "
                "it.",
                term.place,
            )


def averages(observation: Observation, tape: Tape, contents: Contents) -> Iterable[Finding]:
    for copy in observation.still:
        yield Finding(
            "ema-still",
            "warning",
            f"{copy} is a copy of trained weights and nothing in the step moves it. If it is meant to be a moving "
            "average, "
            "its update does nothing or is missing (or lies outside the step: pass it as after_step).",
            written(observation, copy),
        )
    for average in observation.averages:
        if average.order == "before" and not moved_before_use(average.copy, tape, contents):
            yield Finding(
                "ema-early",
                "warning",
                f"{average.copy} follows the weights from before the optimizer's step: it is updated one step "
                "early, and "
                "at the first step not at all.",
                written(observation, average.copy),
            )


def moved_before_use(copy: str, tape: Tape, contents: Contents) -> bool:
    """Whether the copy moves at the start of the step, before its use: then it has the newest weights all the same."""
    names = {name for name in tape.written if name.startswith(copy)}
    leaves = {node.key for node in tape.nodes if node.kind == "parameter" and node.name in names}
    used = (node for node in tape.nodes if any(key in leaves for _, key in node.inputs))
    read = (node.key for node in used if contents.is_network(node))
    first = next(read, len(tape.nodes))
    return bool(names) and min(tape.written[name] for name in names) < first


def written(observation: Observation, copy: str) -> Place | None:
    """Where the step writes to this copy."""
    return next((place(line) for name, line in observation.writes.items() if name.startswith(copy)), None)


def opaque(tape: Tape) -> Iterable[Finding]:
    for name in dict.fromkeys(node.name for node in tape.nodes if node.opaque):
        node = next(node for node in tape.nodes if node.opaque and node.name == name)
        what = (
            f"{name} is a custom autograd function and opaque: what happens inside, and whether its backward fits its"
        )
        yield Finding("opaque", "note", f"{what} forward, cannot be seen.", node.places[0])


def untrained(observation: Observation) -> Iterable[Finding]:
    idle = [name for name, kind in observation.classes.items() if kind is ParameterClass.IDLE]
    if idle:
        shown = ", ".join(idle[:4]) + (f" and {len(idle) - 4} more" if len(idle) > 4 else "")
        yield Finding("untrained", "warning", f"No term trains {shown}, though they require a gradient.")


def unread(tape: Tape, contents: Contents, roots: Iterable[str]) -> tuple[str, ...]:
    """Inputs that entered no call of the step."""
    read = {tape.nodes[key].name for node in tape.nodes for _, key in node.inputs if tape.nodes[key].kind == "root"}
    return tuple(root for root in dict.fromkeys(roots) if root not in read)
