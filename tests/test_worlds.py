"""World models: rollouts from a history under many candidates, and losses that look one step ahead or many."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from jepalab.backbones.causal_predictor import CausalPredictor
from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.inverse import InverseHead
from jepalab.backbones.predictor import GRUDynamics, Predictor, ResidualDynamics, SequencePredictor
from jepalab.backbones.teachers import EMATeacher, FrozenStudent, OwnTeacher
from jepalab.backbones.unrolling import FromEvery, FromFirst, Together, latest
from jepalab.losses.distances import layer_normed, mean_squared
from jepalab.losses.regularisers import Gaussianity, Slowness, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.objectives.diffusion_world import DiffusionWorld
from jepalab.objectives.frame_world import FrameWorld
from jepalab.objectives.jepa_world import JEPAWorld
from jepalab.objectives.pixel_world import PixelWorld
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.types import Batch

DIM, ACTIONS = 8, 2
PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "sequence": lambda: SequencePredictor(DIM, num_actions=ACTIONS, width=16),
    "gru": lambda: GRUDynamics(DIM, num_actions=ACTIONS),
    "gru, normed": lambda: GRUDynamics(DIM, num_actions=ACTIONS, norm=nn.LayerNorm(DIM)),
    "residual": lambda: ResidualDynamics(DIM, num_actions=ACTIONS, width=16),
    "causal": lambda: CausalPredictor(DIM, num_actions=ACTIONS, width=16, depth=3, num_heads=2),
    "causal, wide heads": lambda: CausalPredictor(
        DIM, num_actions=ACTIONS, width=12, depth=2, num_heads=2, head_width=8, mlp_ratio=2.0
    ),
}


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def make(name: str) -> Predictor:
    """The predictor with weights large enough for every input to count."""
    predictor = PREDICTORS[name]()
    assert isinstance(predictor, nn.Module)
    for parameter in predictor.parameters():
        nn.init.normal_(parameter, std=0.4)
    return predictor


def clips(num_frames: int = 5) -> Batch:
    return Batch(x=torch.rand(6, num_frames, 1, 8, 8), action=torch.randn(6, num_frames - 1, ACTIONS))


@pytest.mark.parametrize("history", [1, 4])
@pytest.mark.parametrize("name", PREDICTORS)
def test_rollout_is_the_predictor_on_its_own_predictions(name: str, history: int) -> None:
    predictor = make(name)
    z, past = torch.randn(3, history, DIM), torch.randn(3, history - 1, ACTIONS)
    candidates = torch.randn(3, 5, 6, ACTIONS)
    with torch.no_grad():
        imagined = predictor.rollout(z, past, candidates)
        for s in range(5):
            path, taken = z, past
            for i in range(6):
                taken = torch.cat([taken, candidates[:, s, i : i + 1]], 1)
                path = torch.cat([path, predictor(path, taken)[:, -1:]], 1)
            torch.testing.assert_close(imagined[:, s], path[:, history:], rtol=1e-4, atol=1e-4)


def test_candidates_that_advance_in_groups_imagine_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make("causal")
    z, past, candidates = torch.randn(3, 2, DIM), torch.randn(3, 1, ACTIONS), torch.randn(3, 7, 4, ACTIONS)
    together = predictor.rollout(z, past, candidates)
    monkeypatch.setattr("jepalab.backbones.causal_predictor.MAX_TOGETHER", 5)
    torch.testing.assert_close(predictor.rollout(z, past, candidates), together)


@pytest.mark.parametrize("name", ["sequence", "causal"])
def test_a_predictor_with_memory_reads_its_history(name: str) -> None:
    predictor = make(name)
    z, past, candidates = torch.randn(2, 3, DIM), torch.randn(2, 2, ACTIONS), torch.randn(2, 4, 2, ACTIONS)
    for changed in ((z + torch.eye(3)[0, :, None], past), (z, past + torch.eye(2)[0, :, None])):
        assert (predictor.rollout(*changed, candidates) != predictor.rollout(z, past, candidates)).any()


def test_causal_predictor_does_not_see_what_comes() -> None:
    predictor = make("causal")
    z, action = torch.randn(2, 5, DIM), torch.randn(2, 5, ACTIONS)
    before = predictor(z, action)
    for late_z, late_action in ((z + torch.eye(5)[3, :, None], action), (z, action + torch.eye(5)[3, :, None])):
        after = predictor(late_z, late_action)
        assert torch.equal(after[:, :3], before[:, :3])
        assert (after[:, 3:] != before[:, 3:]).any(-1).all()


def test_an_action_changes_nothing_before_training_and_all_that_follows_after() -> None:
    untouched = PREDICTORS["causal"]()
    z, action = torch.randn(2, 3, DIM), torch.randn(2, 3, ACTIONS)
    assert torch.equal(untouched(z, action), untouched(z, -action))
    trained = make("causal")
    assert (trained(z, action) != trained(z, -action)).all()


def test_gru_dynamics_is_pytorch_s_cell() -> None:
    predictor = make("gru")
    assert isinstance(predictor, GRUDynamics)
    z, action = torch.randn(7, DIM), torch.randn(7, ACTIONS)
    nn.init.eye_(predictor.propose.weight)
    nn.init.zeros_(predictor.propose.bias)
    torch.testing.assert_close(predictor.step(z, action), predictor.cell(action, z))


def test_gru_dynamics_begins_as_the_cell_and_can_reach_any_embedding() -> None:
    predictor = GRUDynamics(DIM, num_actions=ACTIONS)
    z, action = torch.randn(7, DIM), torch.randn(7, ACTIONS)
    torch.testing.assert_close(predictor.step(z, action), predictor.cell(action, z))
    far = 2 * torch.ones(1, DIM)
    with torch.no_grad():
        predictor.propose.bias.fill_(20.0)
        for _ in range(60):
            z = predictor.step(z, action)
    assert bool((z > far).all())


@pytest.mark.parametrize("name", ["gru", "residual", "causal", "sequence"])
def test_every_place_ahead_is_what_a_rollout_from_there_says(name: str) -> None:
    predictor, z, action = make(name), torch.randn(3, 6, DIM), torch.randn(3, 5, ACTIONS)
    foreseen = [*FromEvery(4, history=1)(predictor, z, action)]
    assert [f.first for f in foreseen] == [1, 2, 3, 4]
    for start in range(5):
        ahead = min(4, 5 - start)
        path = predictor.rollout(z[:, start : start + 1], action[:, :0], action[:, None, start : start + ahead])[:, 0]
        for k in range(ahead):
            torch.testing.assert_close(foreseen[k].z_pred[:, start], path[:, k])
            torch.testing.assert_close(latest(foreseen[k], z)[:, start], z[:, start + k + 1])


@pytest.mark.parametrize("history", [2, 3, None])
@pytest.mark.parametrize("name", ["causal", "sequence"])
def test_a_predictor_with_memory_is_trained_on_what_it_reads_when_it_plans(name: str, history: int | None) -> None:
    predictor, z, action = make(name), torch.randn(3, 6, DIM), torch.randn(3, 5, ACTIONS)
    foreseen = [*FromEvery(3, history=history)(predictor, z, action)]
    assert [(f.first, f.z_pred.shape[1]) for f in foreseen] == [(1, 5), (2, 4), (3, 3)]
    for place in range(5):
        ahead, first = min(3, 5 - place), 0 if history is None else max(0, place + 1 - history)
        path = predictor.rollout(
            z[:, first : place + 1], action[:, first:place], action[:, None, place : place + ahead]
        )[:, 0]
        for k in range(ahead):
            torch.testing.assert_close(foreseen[k].z_pred[:, place], path[:, k], rtol=1e-4, atol=1e-4)
    teacher_forced = predictor(z[:, :-1], action)
    close = torch.isclose(foreseen[0].z_pred, teacher_forced, rtol=1e-4, atol=1e-4).all()
    assert bool(close) == (history is None)


def test_a_frame_world_is_trained_on_one_frame_as_it_imagines() -> None:
    decoder = PixelDecoder(DIM, size=8, width=2)
    world = FrameWorld(ConvEncoder(8, dim=DIM), predictor=make("causal"), decoder=decoder, scale=[0.5])
    batch = clips()
    assert batch.action is not None
    ahead = world.rollout(
        world.encode(batch.x[:, :-1]).flatten(0, 1)[:, None],
        batch.action[:1, :0].expand(24, -1, -1),
        batch.action.flatten(0, 1)[:, None, None],
    )
    wanted = (ahead[:, 0, 0] - world.encode(batch.x[:, 1:]).flatten(0, 1)).square().mean()
    torch.testing.assert_close(world(batch).terms["predict"], wanted)


def test_from_first_and_together() -> None:
    predictor, z, action = make("sequence"), torch.randn(3, 6, DIM), torch.randn(3, 5, ACTIONS)
    (one,) = FromFirst(2)(predictor, z, action)
    assert one.first == 2
    wanted = predictor.rollout(z[:, :2], action[:, :1], action[:, None, 1:])[:, 0]
    torch.testing.assert_close(one.z_pred, wanted)
    both = [*Together((FromEvery(), FromFirst(2)))(predictor, z, action)]
    torch.testing.assert_close(both[0].z_pred, predictor(z[:, :-1], action))
    torch.testing.assert_close(both[1].z_pred, wanted)


@pytest.mark.parametrize("unroll", [FromEvery(5), FromEvery(0), FromFirst(5), FromFirst(0)])
def test_clips_too_short_are_refused(unroll: FromEvery | FromFirst) -> None:
    with pytest.raises(ValueError, match="Clips of 5 frames"):
        [*unroll(make("residual"), torch.randn(2, 5, DIM), torch.randn(2, 4, ACTIONS))]


def test_one_step_ahead_with_vicreg_s_terms_is_the_jepa_of_clips() -> None:
    encoder, predictor = ConvEncoder(8, dim=DIM), PREDICTORS["sequence"]()
    assert isinstance(predictor, SequencePredictor)
    inverse = InverseHead(DIM, num_actions=ACTIONS, width=8)
    weights = {"variance": 2.0, "covariance": 3.0, "inverse": 4.0}
    world = JEPAWorld(
        encoder,
        predictor=predictor,
        teacher=OwnTeacher(),
        regularisers=[VarianceCovariance()],
        inverse=inverse,
        weights={"own": 1.0} | weights,
    )
    known = VICRegJEPA(encoder, predictor=predictor, inverse=inverse, weights={"predict": 1.0} | weights)
    batch = clips()
    torch.testing.assert_close(world(batch).total, known(batch).total)


def test_terms_of_many_steps_are_the_mean_over_them() -> None:
    encoder, predictor = ConvEncoder(8, dim=DIM), make("residual")
    world = JEPAWorld(
        encoder, predictor=predictor, teacher=OwnTeacher(), regularisers=[Slowness()], unroll=FromEvery(3)
    )
    batch = clips()
    assert batch.action is not None
    z = encoder(batch.x)
    pred, errors = z, []
    for k in (1, 2, 3):
        pred = predictor(pred[:, :-1], batch.action[:, k - 1 :])
        errors.append((pred - z[:, k:]).square().mean())
    terms = world(batch).terms
    torch.testing.assert_close(terms["own"], torch.stack(errors).mean())
    torch.testing.assert_close(terms["slowness"], (z[:, 1:] - z[:, :-1]).square().mean())


def test_ema_targets_are_the_teacher_s_and_carry_no_gradient() -> None:
    encoder, predictor = ConvEncoder(8, dim=DIM), make("residual")
    world = JEPAWorld(encoder, predictor=predictor, teacher=EMATeacher(encoder, momentum=0.5), normalise=layer_normed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1)
    batch = clips()
    assert batch.action is not None
    teacher = world.probed_encoders()["teacher"]
    wanted = predictor(layer_normed(encoder(batch.x))[:, :-1], batch.action) - layer_normed(teacher(batch.x))[:, 1:]
    loss = world(batch)
    torch.testing.assert_close(loss.terms["ema"], wanted.square().mean())
    loss.total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    before = [p.clone() for p in teacher.parameters()]
    world.after_step(0.0)
    for old, new, student in zip(before, teacher.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(new, (old + student) / 2)


def test_dynamics_on_a_frozen_encoder_leave_it_alone() -> None:
    encoder = ConvEncoder(8, dim=DIM)
    world = JEPAWorld(encoder, predictor=make("residual"), teacher=FrozenStudent(encoder))
    world(clips()).total.backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is not None for p in world.get_submodule("predictor").parameters())
    with pytest.raises(ValueError, match=r"use FrozenStudent\(encoder\)"):
        JEPAWorld(ConvEncoder(8, dim=DIM), predictor=make("residual"), teacher=FrozenStudent(encoder))


def test_what_would_collapse_and_what_was_not_asked_for_is_refused() -> None:
    encoder, predictor = ConvEncoder(8, dim=DIM), make("residual")
    with pytest.raises(ValueError, match="collapses with nothing against it"):
        JEPAWorld(encoder, predictor=predictor, teacher=OwnTeacher())
    gaussian = Gaussianity(SIGReg(num_directions=4, num_knots=5))
    with pytest.raises(ValueError, match="terms own, sigreg, got weights for own, variance"):
        JEPAWorld(
            encoder,
            predictor=predictor,
            teacher=OwnTeacher(),
            regularisers=[gaussian],
            weights={"own": 1.0, "variance": 1.0},
        )
    world = JEPAWorld(encoder, predictor=predictor, teacher=OwnTeacher(), regularisers=[gaussian])
    with pytest.raises(ValueError, match="learns what actions do"):
        world(Batch(x=torch.rand(2, 3, 1, 8, 8)))


def test_what_is_felt_stands_beside_what_is_seen() -> None:
    encoder, felt = ConvEncoder(8, dim=DIM - 3), nn.Linear(4, 3)
    world = JEPAWorld(
        encoder, predictor=make("residual"), teacher=OwnTeacher(), regularisers=[VarianceCovariance()], proprio=felt
    )
    batch = clips()
    proprio = torch.randn(6, 5, 4)
    z = world.encode(batch.x, proprio)
    torch.testing.assert_close(z, torch.cat([encoder(batch.x), felt(proprio)], -1))
    assert world(Batch(x=batch.x, action=batch.action, proprio=proprio)).total.isfinite()
    with pytest.raises(ValueError, match="give it `proprio` as well"):
        world.encode(batch.x)


def test_pixel_world_decodes_what_it_encodes_and_what_it_foresees() -> None:
    encoder, predictor, decoder = ConvEncoder(8, dim=DIM), make("residual"), PixelDecoder(DIM, size=8, width=4)
    weights = {"reconstruct": 1.0, "predict": 1.0, "own": 0.5}
    world = PixelWorld(
        encoder,
        predictor=predictor,
        decoder=decoder,
        scale=[0.25],
        unroll=FromFirst(),
        num_decoded=99,
        weights=weights,
    )
    batch = clips()
    assert batch.action is not None
    z = encoder(batch.x)
    z_pred = predictor.rollout(z[:, :1], batch.action[:, :0], batch.action[:, None])[:, 0]
    terms = world(batch).terms
    torch.testing.assert_close(terms["reconstruct"], mean_squared(decoder(z), batch.x / 0.25))
    torch.testing.assert_close(terms["predict"], mean_squared(decoder(z_pred), batch.x[:, 1:] / 0.25))
    torch.testing.assert_close(terms["own"], mean_squared(z_pred, z[:, 1:]))
    torch.testing.assert_close(world.draw(z), decoder(z) * 0.25)


def test_pixel_world_decodes_other_frames_at_each_step_and_the_same_when_resumed() -> None:
    objective, batch = PixelWorld.tiny()
    assert isinstance(objective, PixelWorld)
    objective.num_decoded = 1
    losses = [objective(batch).total.item() for _ in range(8)]
    assert len({*losses}) > 1
    objective.get_buffer("pick.step").zero_()
    assert [objective(batch).total.item() for _ in range(8)] == losses


@pytest.mark.parametrize("world", [FrameWorld, DiffusionWorld])
def test_a_world_of_frames_goes_on_from_the_frames_it_drew(world: type[FrameWorld | DiffusionWorld]) -> None:
    objective, batch = world.tiny()
    assert isinstance(objective, world)
    assert batch.action is not None
    with torch.no_grad():
        z = objective.encode(batch.x)
        torch.testing.assert_close(objective.draw(z), batch.x)
        both = objective.rollout(z[:, :1], batch.action[:, :0], torch.stack([batch.action, -batch.action], 1))
        assert both.shape == (4, 2, 2, 64)
        assert (both[:, 0] != both[:, 1]).any(-1).all()
        alone = objective.rollout(z[:, :1], batch.action[:, :0], batch.action[:, None])
        torch.testing.assert_close(both[:, :1], alone)
    if isinstance(objective, FrameWorld):
        with torch.no_grad():
            path = [z[:, 0]]
            for i in range(2):
                seen = objective.encoder(objective.draw(path[-1][:, None]))
                drawn = objective.decoder(objective.predictor(seen, batch.action[:, i : i + 1]))
                path.append(drawn[:, 0].flatten(1))
            torch.testing.assert_close(alone[:, 0], torch.stack(path[1:], 1))


def test_diffusion_world_learns_the_next_frame() -> None:
    objective, batch = DiffusionWorld.tiny()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    still = Batch(x=batch.x[:, :1].expand(-1, 3, -1, -1, -1), action=batch.action)
    losses = []
    for _ in range(150):
        loss = objective(still).total
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_slowness_is_nothing_for_what_stays() -> None:
    z = torch.randn(2, 1, 4).expand(-1, 3, -1)
    assert Slowness()(z)["slowness"] == 0
    steps = torch.tensor([[0.0, 1.0, 3.0]]).unsqueeze(-1)
    by_hand = [(b - a) ** 2 for a, b in pairwise([0.0, 1.0, 3.0])]
    assert float(Slowness()(steps)["slowness"]) == pytest.approx(sum(by_hand) / 2)
    of_variance = sum(by_hand) / 2 / np.var([0.0, 1.0, 3.0])
    assert float(Slowness(relative=True)(steps)["slowness"]) == pytest.approx(of_variance)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_relative_slowness_is_not_met_by_small_embeddings(size: float) -> None:
    z = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0)).cumsum(1)
    scale = torch.tensor(size, requires_grad=True)
    found = Slowness(relative=True)(3 + scale * z)["slowness"]
    torch.testing.assert_close(found, Slowness(relative=True)(z)["slowness"], rtol=1e-3, atol=1e-6)
    (slope,) = torch.autograd.grad(found, scale)
    assert abs(float(slope)) * size < 0.01 * float(found.detach())
    unrelated = torch.randn(512, 5, 6, generator=torch.Generator().manual_seed(1))
    assert float(Slowness(relative=True)(unrelated)["slowness"]) == pytest.approx(2, rel=0.03)
    assert float(Slowness(relative=True)(torch.zeros(2, 3, 4))["slowness"]) == 0
