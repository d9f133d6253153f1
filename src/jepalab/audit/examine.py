"""The audit itself: observe the parameters, trace and weigh the comparisons, perturb the inputs, judge, put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from jepalab.audit.comparisons import Comparisons
from jepalab.audit.confirmation import confirm as confirmations
from jepalab.audit.content import EMA, FROZEN, Contents
from jepalab.audit.drawing import draw
from jepalab.audit.findings import Evidence, find, unread
from jepalab.audit.footprint import footprints
from jepalab.audit.leaves import COMPARISON, SCORE, STATISTIC, Leaf
from jepalab.audit.mixing import mixing
from jepalab.audit.observation import Observation, observe
from jepalab.audit.reasons import reasons
from jepalab.audit.rehearsal import Rehearsal
from jepalab.audit.report import Audit, Family, ParameterClass, Place, Term, percent
from jepalab.audit.shares import Weighing
from jepalab.audit.tape import Tape
from jepalab.audit.terms import Weighed, nearest, representative
from jepalab.audit.verdict import PRESENT, Judge, mixture, verdict
from jepalab.audit.views import views_among

UNEXPLAINED = 0.3  # of the gradient; beyond it the audit says that it does not understand the step
TRACE = 1e-3  # share of the gradient below which a term does not count at all
WORDS = {
    "sub": "difference",
    "mul": "product",
    "matmul": "matrix product",
    "mm": "matrix product",
    "bmm": "matrix product",
}
NOWHERE = Place("", 0, "", "")


def audit(
    step: Callable[..., Any],
    inputs: Any,
    *,
    parameters: Any = None,
    encoder: nn.Module | Iterable[Tensor] | None = None,
    optimizer: Any = None,
    after_step: Callable[..., Any] | None = None,
    roles: Mapping[str, str] | None = None,
    steps: int = 10,
    confirm: bool = False,
    title: str = "",
) -> Audit:
    """Says what each term of a training step's loss compares, and how much each drives the encoder.

    step        the training step. It gets no argument if it takes none, inputs by name where its arguments are named
                like them, else the whole `inputs`. It returns the loss (a scalar, or something that holds `loss` or
                `total`), or calls `backward` itself; it may also step its optimizers and move its teachers.
    inputs      mapping of role to tensor, batch first: x, x_next, view1, view2, label, action, reward, text; or any
                batch of dicts, dataclasses and tuples, whose field names are read as roles.
    parameters  modules or parameters the step uses; what it calls or closes over is found without being named.
    encoder     the module (or its parameters) whose gradient the shares are about; all trained parameters if not given.
    optimizer   stepped after the step if the step itself steps none; AdamW stands in if none is given.
    after_step  called after each optimizer step with the progress if it takes an argument: moving averages belong here.
    roles       field name -> role, where a field's name does not say it.
    steps       over how many training steps on these inputs the shares are averaged.
    confirm     also run the black-box tests (footprint, parameter intervention, shuffled target, constant encoder).

    Everything is put back afterwards, to the last bit: parameters, gradients, buffers, optimizers, random numbers.
    Raises ValueError where the step fails, returns no scalar or a NaN, trains nothing or never reads its inputs.
    """
    encoder, parameters = (list(given) if isinstance(given, Iterator) else given for given in (encoder, parameters))
    if steps < 1:
        raise ValueError(f"The audit needs at least one step to average over, got steps={steps}.")
    rehearsal = Rehearsal(
        step, inputs, parameters=parameters, encoder=encoder, optimizer=optimizer, after_step=after_step, roles=roles
    )
    try:
        with torch.enable_grad():
            return Examination(rehearsal, encoder, steps).report(confirm=confirm, title=title)
    finally:
        rehearsal.world.restore()


class Examination:
    """All that is measured of one step, each once."""

    def __init__(self, rehearsal: Rehearsal, encoder: Any, steps: int) -> None:
        self.rehearsal, self.steps = rehearsal, steps
        self.observation: Observation = observe(rehearsal)
        self.encoder, self.encoder_name = self._encoder(encoder)
        self.tape, self.contents, self.weighed, self.unexplained = self._weigh()
        unused = unread(self.tape, self.contents, rehearsal.inputs.by_id.values())
        if set(unused) == set(rehearsal.inputs.by_id.values()):
            raise ValueError(
                f"The step never used the inputs it was given ({', '.join(unused)}): it must compute its loss from "
                f"these very tensors, not from data it loads itself.{rehearsal.where(self.tape)}"
            )
        self.unread = unused
        self.footprints = footprints(
            rehearsal,
            self.tape,
            self.contents,
            {index: (item.leaf, item.weighed) for index, item in enumerate(self.weighed)},
            views_among([item.leaf for item in self.weighed], self.contents, rehearsal.inputs),
        )
        self.mixed = mixing(rehearsal, self.tape, self.contents)

    def _encoder(self, given: Any) -> tuple[list[Tensor], str]:
        """The trained parameters the shares are about, and how they are called in the report."""
        world, classes = self.rehearsal.world, self.observation.classes
        online = {n: t for n, t in world.tensors() if classes.get(n) is ParameterClass.ONLINE}
        if not online:
            raise ValueError(
                "No parameter received a gradient that the audit could see. Look for a detach, torch.no_grad or frozen "
                f"parameters on the way to the loss.{self.rehearsal.where()}"
            )
        if given is None:
            return list(online.values()), "all trained parameters (name the encoder with encoder=...)"
        named = {id(t) for t in (given.parameters() if isinstance(given, nn.Module) else given)}
        chosen = [t for t in online.values() if id(t) in named]
        if not chosen:
            return list(online.values()), "all trained parameters (no parameter of the encoder is trained)"
        count = sum(t.numel() for t in chosen)
        return chosen, f"the encoder ({count:,} of {sum(t.numel() for t in online.values()):,} trained parameters)"

    def _weigh(self) -> tuple[Tape, Contents, list[Weighed], float]:
        """The shares of every term over all steps, and the tape of the first."""
        first: tuple[Tape, Contents] | None = None
        names: dict[int, str] = {}
        found: dict[Any, Weighed] = {}
        unexplained = 0.0
        size = self.rehearsal.inputs.batch_size
        try:
            for index in range(self.steps):
                weighing = Weighing(self.observation.classes, self.encoder, size, check=index == 0)
                tape = self.rehearsal.record(asked=weighing, train=True)
                if first is None:
                    first = tape, Contents(tape, self.observation.classes)
                    unexplained = weighing.shares.unexplained
                    names = self._names(*first)
                norms = weighing.shares.norms()
                whole = sum(norms.values())
                for kind, group in weighing.shares.groups.items() if index == 0 else ():
                    name = next((names[leaf.cut] for leaf in group.leaves if leaf.cut in names), "")
                    found[kind] = Weighed(representative(group, first[1]), [], group.weighed, name)
                now = dict.fromkeys(found, 0.0)
                for kind in weighing.shares.groups:
                    if (known := nearest(kind, found)) is not None:
                        now[known] += norms[kind] / whole if whole else 0.0
                for kind, item in found.items():
                    item.shares.append(now[kind])
        finally:
            self.rehearsal.world.restore()
        assert first is not None
        return *first, sorted(found.values(), key=lambda item: -sum(item.shares)), unexplained

    def _names(self, tape: Tape, contents: Contents) -> dict[int, str]:
        """What the step itself calls its terms: the returned scalar with the fewest leaves under it, by cut."""
        finder = Comparisons(tape, contents, self.rehearsal.inputs.batch_size)
        names: dict[int, tuple[int, str]] = {}
        for name, key in self.rehearsal.names.items():
            leaves = finder.of(key)
            for leaf in leaves:
                if name not in ("loss", "total", "total_loss", ""):
                    names[leaf.cut] = min(names.get(leaf.cut, (len(leaves), name)), (len(leaves), name))
        return {cut: name for cut, (_, name) in names.items()}

    def report(self, *, confirm: bool, title: str) -> Audit:
        evidence = self._evidence()
        terms = tuple(item.term for item in evidence)
        shares = mixture(terms)
        problem = self._problem(terms)
        said = verdict(terms, shares, problem)
        findings = find(evidence, self.tape, self.contents, self.observation, mixed=self.mixed, unread=self.unread)
        counts: dict[str, int] = {}
        for name, tensor in self.rehearsal.world.tensors():
            if name in self.observation.classes:
                kind = str(self.observation.classes[name])
                counts[kind] = counts.get(kind, 0) + tensor.numel()
        return Audit(
            verdict=said,
            mixture=shares,
            why=reasons(said, terms, shares, problem),
            terms=terms,
            averages=self.observation.averages,
            findings=findings,
            confirmations=tuple(confirmations(self, evidence)) if confirm else (),
            parameters=counts,
            encoder=self.encoder_name,
            num_steps=self.steps,
            unexplained=self.unexplained,
            drawing=draw(self.tape, self.contents, evidence),
            title=title or getattr(self.rehearsal.step, "__name__", ""),
        )

    def _problem(self, terms: tuple[Term, ...]) -> str:
        """Why nothing should be said of this step as a whole; empty if something can."""
        hint = " (the step differentiates with respect to its own samples)" if self.tape.asked else ""
        hint += " (the step uses torch.func, which the audit cannot look into)" if self.tape.transformed else ""
        if self.unexplained > UNEXPLAINED:
            return f"{percent(self.unexplained)} of the gradient comes from no comparison that could be found{hint}"
        if not any(t.family not in (Family.REGULARISER, Family.UNSUPPORTED) and t.share > TRACE for t in terms):
            return f"no term that drives the encoder compares a prediction with what it should have been{hint}"
        return ""

    def _evidence(self) -> list[Evidence]:
        judged = []
        alone = {self.contents.of[i.leaf.prediction].atoms for i in self.weighed if i.leaf.kind == STATISTIC}
        for index, item in enumerate(self.weighed):
            leaf = item.leaf
            if leaf.kind == SCORE and self.contents.of[leaf.prediction].atoms in alone:
                leaf = replace(leaf, kind=STATISTIC)  # the linear part of a statistic: a KL divergence written by hand
            judged.append(
                (
                    item,
                    leaf,
                    Judge(self.tape, self.contents, leaf, self.footprints.get(index), self.rehearsal.inputs.batch_size),
                )
            )
        guards = self._guards(judged)
        evidence = [Evidence(self._term(item, judge, guards), leaf, judge.footprint) for item, leaf, judge in judged]
        return sorted(evidence, key=lambda e: -e.term.share)

    def _guards(self, judged: list[tuple[Weighed, Leaf, Judge]]) -> list[str]:
        """What in this step works against collapse, apart from the comparison's own asymmetry."""
        guards = []
        for item, leaf, judge in judged:
            share = average(item.shares)
            if leaf.kind == STATISTIC and share > TRACE:
                guards.append("a statistic of the embedding")
            elif leaf.kind == COMPARISON and leaf.cross:
                guards.append("decorrelated features")
            elif judge.family is Family.CONTRASTIVE and share >= PRESENT:
                guards.append("negatives")
            elif judge.family in (Family.GENERATIVE, Family.SUPERVISED) and share >= PRESENT:
                guards.append(f"grounded by the {judge.space} term")
        return list(dict.fromkeys(guards))

    def _term(self, item: Weighed, judge: Judge, guards: list[str]) -> Term:
        leaf = judge.leaf
        node = self.tape.nodes[leaf.meet]
        here, there = node.places
        prediction, target = judge.sides()
        own = list(guards)
        if judge.family in (Family.JEPA, Family.INVARIANCE) and judge.targ is not None:
            online = self.contents.online
            if judge.stage in (EMA, FROZEN):
                own.insert(0, "a moving average as target" if judge.stage == EMA else "a frozen target")
            elif judge.stopped and judge.pred.params & online & ~judge.targ.params:
                own.insert(0, "stop-gradient with a predictor")
            elif judge.stopped and "self-codes" in judge.label:
                own.insert(0, "codes without gradient")
        third = max(1, len(item.shares) // 3)
        return Term(
            name=item.name or WORDS.get(node.name, node.name),
            op=node.name,
            place=here or NOWHERE,
            called_from=there,
            prediction=prediction,
            target=target,
            space=judge.space,
            process=judge.process,
            target_learning=judge.learning,
            stop_gradient=judge.stopped,
            novelty=judge.novelty if judge.family is not Family.REGULARISER else None,
            share=average(item.shares),
            early=average(item.shares[:third]),
            late=average(item.shares[-third:]),
            family=judge.family,
            label=judge.label,
            ambiguous=judge.ambiguous,
            anti_collapse=tuple(own) if judge.family in (Family.JEPA, Family.INVARIANCE) else (),
        )


def average(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
