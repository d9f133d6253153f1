"""What every objective owes the loop, the audit and the instruments; each file in objectives/ is found unlisted."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import pytest
import safetensors.torch
import torch
from torch import Tensor

from jepalab.audit import report as audit_words
from jepalab.auditing import audit_objective, differences
from jepalab.objectives import find_objectives
from jepalab.types import Batch, Loss, Objective, Space, WorldModel

OBJECTIVES = find_objectives()
TRAINED = [name for name, objective in OBJECTIVES.items() if objective.compares]
IN_PIXELS = ["diffusion_world", "frame_world"]  # their state is the frame: test_worlds.py
IMAGINING = [n for n, objective in OBJECTIVES.items() if issubclass(objective, WorldModel) and n not in IN_PIXELS]
TEACHERS = {Space.EMA_EMBEDDING, Space.FROZEN_EMBEDDING}
TAUGHT = [name for name in TRAINED if TEACHERS & {*OBJECTIVES[name].compares.values()}]


class Watched(Mapping[str, Tensor]):
    """Factors that remember which of them were looked at."""

    def __init__(self, factors: Mapping[str, Tensor]) -> None:
        self.factors = factors
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.factors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)


def tiny(name: str) -> tuple[Objective, Batch]:
    """The objective's own smallest instance, the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OBJECTIVES[name].tiny()


def snapshot(objective: Objective) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.state_dict().items()}


def same(one: Loss, other: Loss) -> bool:
    terms = all(torch.equal(one.terms[name], other.terms[name]) for name in one.terms.keys() | other.terms.keys())
    return torch.equal(one.total, other.total) and terms


def tensors(batch: Batch) -> list[Tensor]:
    seen: list[Tensor] = []
    batch.map(lambda tensor: seen.append(tensor) or tensor)
    return seen


def test_folders_hold_what_the_lists_below_need() -> None:
    assert len(TRAINED) >= 8
    assert len(IMAGINING) >= 3
    assert len(TAUGHT) >= 2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_declares_what_it_compares(name: str) -> None:
    objective, _ = tiny(name)
    assert objective.weights.keys() <= OBJECTIVES[name].compares.keys()
    assert all(isinstance(space, Space) for space in OBJECTIVES[name].compares.values())
    assert OBJECTIVES[name].forward is Objective.forward
    assert inspect.getdoc(OBJECTIVES[name]) != inspect.getdoc(Objective)


@pytest.mark.parametrize("name", TRAINED)
def test_loss_is_the_finite_weighted_sum_of_its_terms(name: str) -> None:
    objective, batch = tiny(name)
    loss = objective(batch)
    assert loss.terms.keys() == objective.weights.keys()
    assert all(value.shape == () and value.isfinite() for value in loss.terms.values())
    wanted = sum(objective.weights[name] * value.item() for name, value in loss.terms.items())
    assert loss.total.item() == pytest.approx(wanted, rel=1e-6)
    objective.weights = {name: 2 * weight for name, weight in objective.weights.items()}
    objective.load_state_dict(snapshot(tiny(name)[0]))
    assert torch.equal(objective(batch).total, 2 * loss.total)


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_reaches_all_that_is_trained(name: str) -> None:
    objective, batch = tiny(name)
    objective(batch).total.backward()
    trained = {key: p for key, p in objective.named_parameters() if p.requires_grad}
    assert any(key.startswith("encoder.") for key in trained)
    assert not [key for key, p in trained.items() if p.grad is None or not p.grad.any()]
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize("name", TAUGHT)
def test_no_gradient_flows_into_a_teacher_even_if_it_would_take_one(name: str) -> None:
    objective, batch = tiny(name)
    teacher = {key for key, p in objective.named_parameters() if not p.requires_grad}
    assert teacher
    objective.requires_grad_(True)
    objective(batch).total.backward()
    assert {key for key, p in objective.named_parameters() if p.grad is None} == teacher


@pytest.mark.parametrize("name", OBJECTIVES)
def test_reads_the_factors_it_declares_and_no_other(name: str) -> None:
    objective, batch = tiny(name)
    num_clips, num_frames = batch.x.shape[:2]
    known = {name: torch.zeros(num_clips, num_frames, 2) for name in ("position", "nuisance", "nuisance_parameters")}
    known["class"] = torch.zeros(num_clips, num_frames, dtype=torch.long)
    watched = Watched(known | dict(batch.factors))
    batch = replace(batch, factors=watched)
    watched.read.clear()
    if objective.compares:
        objective(batch)
    assert watched.read == objective.reads_factors


@pytest.mark.parametrize("name", TRAINED)
def test_terms_leave_the_batch_as_it_was(name: str) -> None:
    objective, batch = tiny(name)
    before = copy.deepcopy(batch)
    objective(batch).total.backward()
    assert all(torch.equal(a, b) for a, b in zip(tensors(batch), tensors(before), strict=True))
    assert not any(tensor.requires_grad for tensor in tensors(batch))


@pytest.mark.parametrize("name", TRAINED)
def test_same_state_same_loss_to_the_bit(name: str) -> None:
    objective, batch = tiny(name)
    state, first = snapshot(objective), objective(batch)
    objective.load_state_dict(state)
    assert same(objective(batch), first)


@pytest.mark.parametrize("name", TRAINED)
def test_state_travels_through_a_file(name: str) -> None:
    objective, batch = tiny(name)
    copied = copy.deepcopy(objective)
    stored = safetensors.torch.save({key: value.contiguous() for key, value in objective.state_dict().items()})
    wanted = objective(batch)
    assert same(copied(batch), wanted)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert not same(copied(batch), wanted)
    copied.load_state_dict(safetensors.torch.load(stored))
    assert same(copied(batch), wanted)


@pytest.mark.parametrize("name", TRAINED)
def test_steps_change_the_encoder_and_keep_all_finite(name: str) -> None:
    objective, batch = tiny(name)
    start = snapshot(objective)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        objective(batch).total.backward()
        optimizer.step()
        objective.after_step((step + 1) / 3)
    end = objective.state_dict()
    assert all(value.isfinite().all() for value in end.values())
    assert not [key for key in end if key.startswith("encoder.conv") and torch.equal(end[key], start[key])]


def test_ema_teacher_follows_the_student_more_slowly_towards_the_end() -> None:
    objective, _ = tiny("ema_jepa")
    student, teacher = objective.probed_encoders().values()
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
            slow.zero_()
            fast.fill_(1)
    means = []
    for progress in (0.0, 0.5, 1.0):
        objective.after_step(progress)
        means.append(float(torch.cat([p.flatten() for p in teacher.parameters()]).mean()))
    m0, m1, m2 = 0.996, 0.99795, 0.9999
    assert means == pytest.approx([1 - m0, 1 - m0 * m1, 1 - m0 * m1 * m2], rel=1e-4)


def test_frozen_teacher_never_moves() -> None:
    objective, batch = tiny("frozen_jepa")
    before = snapshot(objective)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], weight_decay=1.0)
    objective(batch).total.backward()
    optimizer.step()
    objective.after_step(0.0)
    frozen = [key for key in before if key.startswith("teacher.")]
    assert frozen
    assert all(torch.equal(objective.state_dict()[key], before[key]) for key in frozen)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_encoders_embed_each_clip_on_its_own_in_their_width(name: str) -> None:
    objective, batch = tiny(name)
    assert objective.probed_encoders()["student"] is objective.encoder
    for encoder in objective.probed_encoders().values():
        with torch.no_grad():
            before = encoder(batch.x)
            after = encoder(torch.cat([batch.x[:1] + 1, batch.x[1:]]))
        assert (before.shape[0], before.shape[2]) == (len(batch), encoder.dim)
        assert torch.equal(after[1:], before[1:])
        assert not torch.equal(after[:1], before[:1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_answers_in_float32_under_bfloat16(name: str) -> None:
    objective, batch = tiny(name)
    with torch.autocast("cpu", torch.bfloat16):
        assert objective.encoder(batch.x).dtype == torch.float32
        if not objective.compares:
            return
        loss = objective(batch)
    assert {value.dtype for value in (loss.total, *loss.terms.values())} == {torch.float32}
    loss.total.backward()
    assert {p.grad.dtype for p in objective.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("name", TRAINED)
def test_compares_what_it_declares(name: str) -> None:
    found = audit_objective(OBJECTIVES[name], steps=2)
    assert not differences(found, OBJECTIVES[name])
    assert {term.name for term in found.terms} == tiny(name)[0].weights.keys()
    assert found.unexplained < 1e-4
    assert not [finding for finding in found.findings if finding.weight == "error"]


def test_a_false_declaration_is_noticed() -> None:
    class Boaster(OBJECTIVES["next_frame"]):
        compares: ClassVar = {"predict": Space.OWN_EMBEDDING}

    found = audit_objective(Boaster, steps=1)
    assert differences(found, Boaster) == ["the term 'predict' compares input, not own-embedding as declared"]


def test_the_audit_and_the_library_use_the_same_words() -> None:
    assert {str(space) for space in audit_words.Space} == {str(space) for space in Space}


@pytest.mark.parametrize("name", IMAGINING)
def test_world_model_imagines_what_its_predictor_was_trained_to_say(name: str) -> None:
    objective, batch = tiny(name)
    assert isinstance(objective, WorldModel)
    assert batch.action is not None
    with torch.no_grad():
        z = objective.encode(batch.x)
        imagined = objective.rollout(z[:, :1], batch.action[:, :0], batch.action[:, None])[:, 0]
        one_step = objective.rollout(z[:, :1], batch.action[:, :0], batch.action[:, None, :1])[:, 0]
        taught = objective.get_submodule("predictor")(z[:, :1], batch.action[:, :1])
    assert z.shape == (*batch.x.shape[:2], objective.encoder.dim)
    assert imagined.shape == (*batch.action.shape[:2], objective.encoder.dim)
    torch.testing.assert_close(one_step, taught, rtol=0, atol=1e-6)
    torch.testing.assert_close(imagined[:, :1], one_step, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", IMAGINING)
def test_planning_starts_from_the_embedding_that_the_predictor_was_trained_on(name: str) -> None:
    objective, batch = tiny(name)
    assert isinstance(objective, WorldModel)
    read: list[Tensor] = []
    objective.get_submodule("predictor").register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    objective(batch)
    torch.testing.assert_close(objective.encode(batch.x)[:, :-1], read[0], rtol=0, atol=1e-6)


def test_untrained_has_no_loss_and_nothing_to_train() -> None:
    objective, batch = tiny("untrained")
    assert not any(p.requires_grad for p in objective.parameters())
    with pytest.raises(ValueError, match="steps=0"):
        objective(batch)


def test_inverse_dynamics_asks_for_actions() -> None:
    objective, batch = tiny("inverse_dynamics")
    with pytest.raises(ValueError, match="without any"):
        objective(replace(batch, action=None))
