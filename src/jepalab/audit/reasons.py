"""Why the verdict is what it is, in two sentences that a student understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jepalab.audit.report import Family, Process, Term, percent

HOW = {
    Family.GENERATIVE: "what it predicts and what it is held against are raw output (or a token, or noise), so every "
    "detail of that output counts, predictable or not",
    Family.JEPA: "the target is an embedding and holds something the prediction has not seen, so only what the "
    "embedding keeps has to be predicted",
    Family.INVARIANCE: "both sides are embeddings of the same thing, so nothing hidden is predicted: the encoder is "
    "asked to give two views one embedding",
    Family.CONTRASTIVE: "an embedding must be nearer to its partner's than to those of other samples, so what tells "
    "samples apart is kept",
    Family.DISTILLATION: "the target is a frozen network's answer to the same input, so the network is asked to "
    "imitate it, not to predict anything hidden",
    Family.SUPERVISED: "the target was handed in with the data, so only what tells that target is asked for",
}
FOREIGN = {
    "CRITIC": "a network's answer is held against constants made in the step, as adversarial training does with its "
    "critic",
    "SCORE": "a network's own score is raised or lowered without being compared with anything, as critics, energies "
    "and value functions do",
    "POLICY GRADIENT": "the log-probability of an action is weighed by a reward, which is a policy gradient and no "
    "comparison",
    "OPAQUE": "the loss is computed inside a custom autograd function, which is opaque: nothing can be seen in there",
}


def reasons(verdict: str, terms: Sequence[Term], shares: Mapping[str, float], problem: str) -> str:
    """Two sentences: what was seen, and what it means."""
    if verdict == "unsupported":
        return _unsupported(terms, problem)
    main = max((t for t in terms if t.family is not Family.REGULARISER), key=lambda t: t.share)
    if verdict == "collapse-prone":
        return (
            f"The loss holds one embedding against another that {_maker(main)}. Nothing in the step works against the "
            "trivial answer, the same embedding for every input, which makes this loss zero."
        )
    if verdict.startswith("mixed"):
        parts = ", ".join(f"{percent(share)} {name}" for name, share in shares.items() if share >= 0.01)
        return (
            f"Several kinds of comparison drive the encoder ({parts} of its gradient). The largest is {main.name} at "
            f"{main.place.file.rpartition('/')[2]}:{main.place.line}: {HOW[main.family]}."
        )
    guard = ""
    if main.family in (Family.JEPA, Family.INVARIANCE) and main.anti_collapse:
        guard = f" What keeps it from collapse: {', '.join(main.anti_collapse[:2])}."
    where = f"{main.place.file.rpartition('/')[2]}:{main.place.line}"
    op = "" if main.op == main.name else f"{main.op}, "
    return f"The comparison that drives the encoder is {main.name} ({op}{where}). In it {HOW[main.family]}.{guard}"


def _maker(term: Term) -> str:
    return "the same network makes" + (" (without gradient)" if term.stop_gradient else ", with gradient on both sides")


def _unsupported(terms: Sequence[Term], problem: str) -> str:
    foreign = [term for term in terms if term.family is Family.UNSUPPORTED]
    said = [FOREIGN[term.label] for term in foreign if term.label in FOREIGN]
    first = "; ".join(dict.fromkeys(said)) or problem or "no comparison was found"
    process = "statistics" if any(t.process is Process.MATCH_STATISTIC and t not in foreign for t in terms) else ""
    rest = f" Besides, only {process} of the embedding were found." if process and not said else ""
    return f"The audit does not know this kind of step: {first}. It says nothing rather than guess.{rest}"
