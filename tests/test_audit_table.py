"""The audit against its label table: every row, written as public code would write it, gets the answer of the table."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from jepalab.audit.report import Audit, Term
from jepalab.audit.steps import Case, Expect, Row, audit_case, find_cases

CASES = find_cases()
NOTICED = 0.05  # share of the encoder's gradient from which a term counts

every_case = pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.number} {case.name}") for case in CASES])


def novelty_in_words(novelty: float | None) -> set[str]:
    if novelty is None:
        return {"none"}
    return {name for name, true in (("one", novelty > 0.95), ("zero", novelty < 0.05)) if true} | (
        {"positive"} if novelty > 0.05 else set()
    )


def disagreements(term: Term, expected: Expect) -> list[str]:
    """Where the term differs from what was expected of it."""
    found = []
    for name in ("space", "process", "target_learning", "family", "label"):
        wanted, got = getattr(expected, name), getattr(term, name)
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        if wanted is not None and got not in allowed:
            found.append(f"{name} {got}, not {' or '.join(allowed)}")
    if expected.stop_gradient is not None and term.stop_gradient != expected.stop_gradient:
        found.append(f"stop_gradient {term.stop_gradient}")
    if expected.novelty is not None and expected.novelty not in novelty_in_words(term.novelty):
        found.append(f"novelty {term.novelty}, not {expected.novelty}")
    if expected.ambiguous and not term.ambiguous:
        found.append("not said to be ambiguous")
    return found


def complaints(result: Audit, case: Case) -> list[str]:
    """What the audit says and the table does not."""
    said = []
    if case.verdict == "mixed":
        families = {str(family) for family, share in result.mixture.items() if share >= NOTICED}
        if not result.verdict.startswith("mixed (") or families - case.may_mix != case.mixture:
            said.append(f"verdict {result.verdict} of {sorted(families)}, not a mixture of {sorted(case.mixture)}")
    elif result.verdict != case.verdict:
        said.append(f"verdict {result.verdict}, not {case.verdict}")
    if case.terms is None:
        return said
    for expected in case.terms:
        if expected.required and not any(not disagreements(term, expected) for term in result.terms):
            said.append(f"no term is {expected.label or expected.space}")
    for term in result.terms:
        if term.share >= NOTICED:
            reasons = [disagreements(term, expected) for expected in case.terms]
            if all(reasons):
                nearest = "; ".join(min(reasons, key=len, default=["not expected at all"]))
                said.append(f"{term.label} at {term.place} ({term.share:.0%} of the gradient): {nearest}")
    return said


@every_case
def test_audit_says_what_the_table_says(case: Case) -> None:
    result = audit_case(case, steps=10)
    said = complaints(result, case)
    assert not said, "\n".join([f"row {case.number}, {case.name}:", *said, "", str(result)])


def test_every_row_of_the_table_is_here() -> None:
    assert {case.number for case in CASES} == set(range(1, 31))
    assert len({case.name for case in CASES}) == len(CASES)


def call(row: Row) -> object:
    names = inspect.signature(row.step).parameters
    return row.step(**row.inputs) if set(names) <= set(row.inputs) else row.step(row.inputs)


def numbers_in(returned: object) -> Iterator[float]:
    if isinstance(returned, dict):
        for value in returned.values():
            yield from numbers_in(value)
    elif isinstance(returned, Tensor):
        yield from returned.detach().flatten().tolist()
    elif returned is not None:
        yield float(returned)  # type: ignore[arg-type]


def train(row: Row, num_steps: int) -> list[float]:
    """Plain training, without any audit. A step that leaves no gradient behind has only returned its loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the masks and the noise of the steps
        return trained(row, num_steps)


def trained(row: Row, num_steps: int) -> list[float]:
    every = [p for module in row.parameters.values() for p in module.parameters()]
    versions = lambda: [p._version for p in every]  # noqa: E731
    numbers: list[float] = []
    for _ in range(num_steps):
        for p in every:
            p.grad = None
        before = versions()
        returned = call(row)
        numbers += numbers_in(returned)
        if versions() == before:
            loss = returned["loss"] if isinstance(returned, dict) else returned
            assert isinstance(loss, Tensor)
            assert loss.ndim == 0
            assert row.optimizer is not None
            row.optimizer.zero_grad()
            loss.backward()
            row.optimizer.step()
            if row.after_step:
                row.after_step()
    return numbers


@every_case
def test_step_trains(case: Case) -> None:
    row = case.build()
    before = {name: copy.deepcopy(module.state_dict()) for name, module in row.parameters.items()}
    encoder = list(row.encoder.parameters()) if row.encoder else []
    encoder_before = [p.detach().clone() for p in encoder]
    assert all(map(math.isfinite, train(row, 3)))
    after = {name: module.state_dict() for name, module in row.parameters.items()}
    moved = {name for name in before for key, old in before[name].items() if not torch.equal(old, after[name][key])}
    assert moved
    assert not encoder or any(not torch.equal(p, old) for p, old in zip(encoder, encoder_before, strict=True))


@every_case
def test_row_is_the_same_each_time(case: Case) -> None:
    first = train(case.build(), 2)
    assert train(case.build(), 2) == first


@pytest.fixture(scope="module")
def matched() -> tuple[Audit, Case]:
    case = next(case for case in CASES if case.name == "ijepa")
    return audit_case(case), case


WRONG = {
    "space": "input",
    "process": "contrast",
    "target_learning": "joint",
    "stop_gradient": False,
    "novelty": "zero",
    "family": "generative",
    "label": "CONTRASTIVE",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_expectation_is_noticed(name: str, matched: tuple[Audit, Case]) -> None:
    result, case = matched
    assert case.terms is not None
    assert name in {entry.name for entry in fields(Expect)}
    assert complaints(result, replace(case, terms=tuple(replace(e, **{name: WRONG[name]}) for e in case.terms)))


def test_an_unexpected_term_is_noticed(matched: tuple[Audit, Case]) -> None:
    result, case = matched
    assert not complaints(result, case)
    assert complaints(result, replace(case, terms=()))
    assert complaints(result, replace(case, verdict="invariance"))
