"""Defects seen in public packages: the audit finds each of them, at its line, and not in the twin that lacks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import nn

import audit_defects as steps
from audit_cases import Case, audited, marked_lines, run
from jepalab.audit import audit
from jepalab.audit.report import Audit, Finding

Make = Callable[[], Case]
BEFORE, OVERLAPPING = (0, 1, 2), (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Twins:
    """A step with a defect and one without.

    marked  whether the finding has a line, which the step's source marks.
    weight  "note" for what is usual and only worth knowing, "warning" for what should weigh more.
    warm    whether a plain step goes first; without one a copy still equals its original.
    """

    kind: str
    bad: Make
    clean: Make
    marked: bool = True
    weight: str = "warning"
    warm: bool = True


def pair(
    kind: str, make: Callable[..., Case], bad: dict[str, object], clean: dict[str, object], **more: object
) -> Twins:
    return Twins(kind, partial(make, **bad), partial(make, **clean), **more)  # type: ignore[arg-type]


TWINS = {
    "next word without a causal mask": pair("leak", steps.next_word, {"causal": False}, {"causal": True}),
    "hidden pixels in the context": pair("leak", steps.masked_pixels, {"context": OVERLAPPING}, {"context": BEFORE}),
    "hidden embeddings in the context": pair(
        "leak",
        partial(steps.masked_embeddings, teacher_attends=False),
        {"context": OVERLAPPING},
        {"context": BEFORE},
    ),
    "hidden embeddings in the context, teacher with attention": pair(
        "leak",
        partial(steps.masked_embeddings, teacher_attends=True),
        {"context": OVERLAPPING},
        {"context": BEFORE},
    ),
    "samples attend to each other": pair(
        "batch-mixing", steps.sequence_encoder, {"batch_first": False}, {"batch_first": True}
    ),
    "statistics over the batch": pair(
        "batch-mixing",
        steps.normalised_encoder,
        {"normalise": nn.BatchNorm1d},
        {"normalise": nn.LayerNorm},
        weight="note",
    ),
    "true state beside a self-supervised term": pair(
        "privileged", steps.true_state, {"detached": False}, {"detached": True}
    ),
    "decoder on a detached embedding": pair(
        "no-gradient", steps.two_terms, {"detach_embedding": True}, {}, weight="note"
    ),
    "term that trains nothing": pair("no-gradient", steps.two_terms, {"detach_pixels": True}, {}),
    "term that drowns the other": pair("swamped", steps.two_terms, {"weight": 1e3}, {"weight": 0.5}),
    "two embeddings and nothing else": pair("collapse", steps.two_embeddings, {}, {"stop_gradient": True}),
    "two embeddings, twin with a spread": pair("collapse", steps.two_embeddings, {}, {"spread": True}),
    "momentum of one": pair("ema-still", steps.slow_teacher, {"rate": 0.0}, {"rate": 0.05}, marked=False),
    "copy that nobody moves": pair(
        "ema-still", steps.slow_teacher, {"rate": None}, {"rate": None, "another": True}, marked=False, warm=False
    ),
    "copy moved before the optimizer": pair(
        "ema-early", steps.order_of_updates, {"teacher_first": True}, {"teacher_first": False}
    ),
    "head that no term reaches": pair(
        "untrained", steps.forgotten_head, {"frozen": False}, {"frozen": True}, marked=False
    ),
    "action that is never read": pair(
        "unused-input", steps.action_in_the_batch, {"read": False}, {"read": True}, marked=False
    ),
}


def seeded(make: Make) -> Case:
    torch.manual_seed(0)
    return make()


@cache
def audit_of(name: str, *, bad: bool) -> Audit:
    twins = TWINS[name]
    return audited(seeded(twins.bad if bad else twins.clean), warm=twins.warm)


def of_kind(result: Audit, kind: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.kind == kind]


@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_twins_run_without_an_audit(twins: Twins) -> None:
    for make in (twins.bad, twins.clean):
        case = seeded(make)
        assert case.encoder is not None
        before = [parameter.clone() for parameter in case.encoder.parameters()]
        run(case)
        pairs = zip(before, case.encoder.parameters(), strict=True)
        assert not any(torch.equal(old, new) for old, new in pairs), "every weight of the encoder learns"


@pytest.mark.parametrize("name", TWINS)
def test_defect_is_found(name: str) -> None:
    found = of_kind(audit_of(name, bad=True), TWINS[name].kind)
    assert found
    weights = {finding.weight for finding in found}
    if TWINS[name].weight == "note":
        assert weights == {"note"}
    else:
        assert weights & {"warning", "error"}
    assert all(len(finding.message.split()) > 5 for finding in found), "a sentence on why it matters"


@pytest.mark.parametrize("name", TWINS)
def test_clean_twin_has_no_such_finding(name: str) -> None:
    result = audit_of(name, bad=False)
    assert not of_kind(result, TWINS[name].kind)
    assert not [finding for finding in result.findings if finding.weight == "error"]


@pytest.mark.parametrize("name", [name for name, twins in TWINS.items() if twins.marked])
def test_finding_names_its_line(name: str) -> None:
    twins = TWINS[name]
    found = of_kind(audit_of(name, bad=True), twins.kind)
    places = {f"{Path(finding.place.file).name}:{finding.place.line}" for finding in found if finding.place}
    assert isinstance(twins.bad, partial)
    assert places & marked_lines(twins.bad.func), [str(finding) for finding in found]


def test_negatives_in_the_loss_are_no_mixing() -> None:
    assert not of_kind(audited(seeded(steps.contrast_of_views)), "batch-mixing")


def test_true_state_alone_is_supervision_not_a_privilege() -> None:
    """Labels are privileged only where the step claims to learn without them."""
    torch.manual_seed(0)
    encoder, reader = steps.network(), nn.Linear(steps.WIDTH, 2)
    inputs = {"x": torch.randn(5, 8), "label": torch.randn(5, 2)}
    case = steps.make_case(
        lambda x, label: nn.functional.mse_loss(reader(encoder(x)), label), inputs, encoder=encoder, reader=reader
    )
    result = audited(case)
    assert result.verdict == "supervised"
    assert not of_kind(result, "privileged")


def test_autoencoder_does_not_leak() -> None:
    """Its target is its input, and that is no secret: a leak is where something was meant to be hidden."""
    torch.manual_seed(0)
    encoder, decoder = steps.network(num_out=4), nn.Linear(4, 8)
    case = steps.make_case(
        lambda x: nn.functional.mse_loss(decoder(encoder(x)), x),
        {"x": torch.randn(5, 8)},
        encoder=encoder,
        decoder=decoder,
    )
    assert not of_kind(audited(case), "leak")


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("action that is never read", "action"),
        ("head that no term reaches", "head"),
        ("decoder on a detached embedding", "pixel"),
        ("term that drowns the other", "pixel"),
        ("copy moved before the optimizer", "teacher"),
    ],
)
def test_finding_names_what_it_is_about(name: str, about: str) -> None:
    assert about in of_kind(audit_of(name, bad=True), TWINS[name].kind)[0].message


def mixing_of(step: Callable[[torch.Tensor], torch.Tensor], encoder: nn.Module) -> list[str]:
    found = audit(step, {"x": torch.randn(5, 5, 8)}, encoder=encoder, steps=1)
    return [finding.message for finding in found.findings if finding.kind == "batch-mixing"]


def test_frames_gathered_time_first_do_not_look_mixed_though_there_are_as_many_as_samples() -> None:
    torch.manual_seed(0)
    encoder, head = nn.Linear(8, 6), nn.Linear(6, 8)

    def step(x: torch.Tensor) -> torch.Tensor:
        z = torch.stack([1 - encoder(frame) for frame in x.unbind(1)])  # [time, batch, width]
        return (head(z) - x.transpose(0, 1)).pow(2).mean()

    assert not mixing_of(step, encoder)


def test_a_mean_over_the_batch_inside_the_network_mixes() -> None:
    torch.manual_seed(0)
    encoder, head = nn.Linear(8, 6), nn.Linear(6, 8)

    def step(x: torch.Tensor) -> torch.Tensor:
        z = encoder(x.flatten(1)[:, :8])
        return (head(z - z.mean(0)) - x[:, 0]).pow(2).mean()

    (message,) = mixing_of(step, encoder)
    assert "sub" in message
