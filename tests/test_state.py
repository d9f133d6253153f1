"""The instruments on embeddings whose content is known: the state alone, the nuisance alone, nothing at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import SequencePredictor
from jepalab.data.moving import MovingObject
from jepalab.data.nuisance import Nuisance
from jepalab.data.sprites import Split, dot
from jepalab.instruments.diagnosis import geometry
from jepalab.instruments.features import CLIPS_AT_ONCE, NUM_CLIPS, embed_with, subjects
from jepalab.instruments.state import motion, rollout, state
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.untrained import Untrained
from jepalab.types import Batch, Encoder, Features, Objective, Space, Subject

WORLD = MovingObject(nuisance=Nuisance(strength=1.0), num_frames=4)
DOTS = MovingObject(sprites=dot(sigma=0.5), num_frames=3, size=8)
Embed = Callable[[Batch], Tensor]


class Linear(Encoder):
    """Series in, the same linear map of each step out."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix, self.dim = nn.Parameter(matrix), matrix.shape[1]

    def forward(self, x: Tensor, keep: Tensor | None = None, causal: bool = False) -> Tensor:
        return x @ self.matrix


class LinearWorld(Objective):
    """z + action @ effect: exact where the effect is the one that moves the world."""

    compares: ClassVar[Mapping[str, Space]] = {}

    def __init__(self, encoder: Linear, effect: Tensor) -> None:
        super().__init__()
        self.encoder, self.effect, self.weights = encoder, effect, {}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
        return z[:, -1:, None] + (action @ self.effect).cumsum(2)


def untrained() -> Objective:
    return Untrained(ConvEncoder(8, dim=4))


def subject(embed: Embed, *, objective: Objective | None = None, stream: MovingObject = WORLD) -> Subject:
    """What `embed` makes of three splits of the stream's clips."""
    batches = [stream.held_out("train", 120), stream.held_out("validation", 40), stream.held_out("test", 60)]
    return Subject(objective or untrained(), *(Features(embed(batch), batch) for batch in batches))


def noise(batch: Batch, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(len(batch))
    return torch.randn(*batch.x.shape[:2], width, generator=generator)


def true_position(batch: Batch) -> Tensor:
    return torch.cat([batch.factors["position"], noise(batch)], -1)


def true_class(batch: Batch) -> Tensor:
    return nn.functional.one_hot(batch.factors["class"], 10).float() + 0.01 * noise(batch, 10)


def true_nuisance(batch: Batch) -> Tensor:
    rotation, _ = torch.linalg.qr(torch.randn(49, 49, generator=torch.Generator().manual_seed(0)))
    return batch.factors["nuisance"] @ rotation


def constant(batch: Batch) -> Tensor:
    return torch.full((*batch.x.shape[:2], 6), 0.1)


def as_series(stream: MovingObject, num_clips: int, split: Split, matrix: Tensor) -> Batch:
    """Clips as series x [b t c] that are a linear map of the position."""
    batch = stream.held_out(split, num_clips)
    return replace(batch, x=batch.factors["position"] @ matrix)


def test_position_is_read_and_velocity_with_it() -> None:
    scores = state(subject(true_position))
    for name in ("state_r2", "position_r2", "velocity_r2", "validation_state_r2"):
        assert scores[name] > 0.99, name
    assert scores["state_nats"] > 4 * -0.5 * math.log(1 - 0.99)
    assert abs(scores["nuisance_r2"]) < 0.1
    assert scores["class_linear"] < 0.3
    useful = (1 + max(0.0, scores["class_above_chance"])) / 2
    assert scores["selectivity"] == pytest.approx(useful - max(0.0, scores["nuisance_r2"]), abs=0.01)


def test_velocity_is_read_from_the_pair() -> None:
    """Where one of two frames is not shown, its displacement cannot be told; the position seen still can."""
    hidden = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None]
    scores = state(
        subject(lambda batch: torch.cat([true_position(batch)[..., :2] * hidden, hidden.expand(len(batch), 4, 1)], -1))
    )
    assert scores["velocity_r2"] < 0.2


def test_class_is_read_by_both_classifiers() -> None:
    scores = state(subject(true_class))
    assert scores["class_linear"] == scores["class_knn"] == 1
    assert scores["class_above_chance"] == pytest.approx(1)
    assert scores["position_r2"] < 0.1


def test_nuisance_is_read_and_makes_selectivity_negative() -> None:
    scores = state(subject(true_nuisance))
    assert scores["nuisance_r2"] > 0.99
    assert scores["nuisance_nats"] > 49 * -0.5 * math.log(1 - 0.99)
    assert scores["position_r2"] < 0.1
    assert scores["selectivity"] < -0.9


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_embedding_says_nothing_and_breaks_nothing(value: float) -> None:
    nothing = replace(subject(lambda batch: 10 * value * constant(batch)), views=torch.full((8, 4, 6), value))
    scores = state(nothing)
    for name in (
        "state_r2",
        "position_r2",
        "velocity_r2",
        "nuisance_r2",
        "class_above_chance",
        "selectivity",
        "state_nats",
    ):
        assert scores[name] == pytest.approx(0, abs=0.1), name
    assert rollout(nothing) == {}
    shape = geometry(nothing)
    assert shape["effective_rank"] == shape["rankme_centred"] == shape["std"] == 0
    assert shape["dead_dims"] == 1
    assert shape["straightness"] == 0
    assert not {"alpha_req", "lidar", "cka_with_pixels"} & shape.keys()


def test_scores_without_nuisance_or_classes_are_left_out() -> None:
    scores = state(subject(true_position, stream=DOTS))
    assert scores.keys() == {"state_r2", "position_r2", "velocity_r2", "state_nats", "validation_state_r2"}
    assert motion(subject(true_position)).keys() == scores.keys()


def test_scores_are_of_the_test_split() -> None:
    whole = subject(true_position)
    spoiled = replace(whole, test=replace(whole.test, z=noise(whole.test.batch, 6)))
    scores = state(spoiled)
    assert scores["state_r2"] < 0.1
    assert scores["position_r2"] < 0.1
    assert scores["validation_state_r2"] > 0.99


def test_rollout_of_the_exact_world_is_exact_and_of_a_deaf_one_decays() -> None:
    matrix = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    mixing = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    parts: dict[Split, int] = {"train": 120, "validation": 40, "test": 60}
    batches = [as_series(WORLD, num_clips, split, matrix) for split, num_clips in parts.items()]
    encoder = Linear(mixing)
    features = [Features(encoder(batch.x).detach(), batch) for batch in batches]
    exact = rollout(Subject(LinearWorld(encoder, (matrix @ mixing).detach()), *features))
    assert exact.keys() == {"rollout_1_r2", "rollout_2_r2", "rollout_3_r2"}
    assert all(score > 0.9999 for score in exact.values())
    deaf = list(rollout(Subject(LinearWorld(encoder, torch.zeros(2, 3)), *features)).values())
    assert 1 > deaf[0] > deaf[1] > deaf[2]
    assert deaf[2] < 0.97


class IntoTheTeachersSpace(SequencePredictor):
    """Predicts exactly what the teacher says of where the student saw the object go; all of it is linear."""

    def __init__(self, read: Tensor, say: Tensor) -> None:
        super().__init__(3, num_actions=2, width=4)
        self.read, self.say = read, say

    def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
        return (z[:, -1:, None] @ self.read + action.cumsum(2)) @ self.say


def test_rollout_is_read_in_the_space_of_the_teacher_that_it_predicts() -> None:
    matrix, student, teacher = (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for seed, shape in enumerate(((2, 5), (5, 3), (5, 3)))
    )
    encoder = Linear(student)
    predictor = IntoTheTeachersSpace(torch.linalg.pinv(matrix @ student), matrix @ teacher)
    objective = EMAJEPA(encoder, predictor=predictor, normalise=lambda z: z)
    with torch.no_grad():
        objective.teacher.get_parameter("encoder.matrix").copy_(teacher)
    parts: dict[Split, int] = {"train": 120, "validation": 40, "test": 60}
    batches = [as_series(WORLD, num_clips, split, matrix) for split, num_clips in parts.items()]
    judged = {
        name: Subject(objective, *(Features(each(batch.x).detach(), batch) for batch in batches), encoder=each)
        for name, each in objective.probed_encoders().items()
    }
    scores = rollout(judged["student"])
    assert scores.keys() == {"rollout_1_r2", "rollout_2_r2", "rollout_3_r2"}
    assert all(score > 0.9999 for score in scores.values())
    assert rollout(judged["teacher"]) == {}, "both encoders start from the student, so there is one score"
    assert rollout(replace(judged["student"], encoder=None)) == scores


def test_rollout_needs_an_objective_that_imagines() -> None:
    assert rollout(subject(true_position)) == {}


def test_geometry_of_a_healthy_embedding() -> None:
    healthy = replace(subject(lambda batch: noise(batch, 8)), views=torch.randn(64, 4, 8))
    scores = geometry(healthy)
    assert scores["effective_rank"] == pytest.approx(8, rel=0.05)
    assert scores["straightness"] == pytest.approx(-0.5, abs=0.1)
    assert scores["uniformity"] < -2
    assert abs(scores["cka_with_pixels"]) < 0.05
    assert {"alpha_req", "alpha_req_fit_r2", "lidar", "mean_cosine"} <= scores.keys()
    assert all(math.isfinite(score) for score in scores.values())
    assert "lidar" not in geometry(replace(healthy, views=None))


def test_geometry_of_two_frames_has_no_straightness() -> None:
    assert "straightness" not in geometry(subject(noise, stream=replace(WORLD, num_frames=2)))


def test_embedding_in_parts_is_embedding_at_once() -> None:
    encoder, x = ConvEncoder(8, dim=4), torch.rand(CLIPS_AT_ONCE + 3, 2, 1, 8, 8)
    sizes = []
    z = embed_with(lambda part: sizes.append(len(part)) or encoder(part).bfloat16(), x)
    assert sizes == [CLIPS_AT_ONCE, 3]
    assert (z.dtype, z.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(z, encoder(x).detach(), rtol=0.01, atol=0.01)


def test_subjects_are_the_encoders_one_could_take_home() -> None:
    objective = EMAJEPA(ConvEncoder(8, dim=4), predictor=SequencePredictor(4, num_actions=2, width=8)).train()
    with torch.no_grad():
        objective.teacher.get_parameter("encoder.project.bias").add_(1)
    found = subjects(objective, DOTS)
    assert list(found) == ["student", "teacher"]
    assert not objective.training
    for name, encoder in objective.probed_encoders().items():
        judged = found[name]
        assert judged.encoder is encoder
        splits: dict[Split, Features] = {"train": judged.train, "validation": judged.validation, "test": judged.test}
        for split, part in splits.items():
            held_out = DOTS.held_out(split, NUM_CLIPS[split])
            assert torch.equal(part.batch.x, held_out.x)
            torch.testing.assert_close(part.z, encoder(held_out.x).detach(), rtol=0, atol=1e-5)
        assert judged.views is not None
        assert judged.views.shape == (256, 8, 4)
    student, teacher = found["student"].test.z, found["teacher"].test.z
    torch.testing.assert_close(teacher, student + 1, rtol=0, atol=1e-5)
    glance = subjects(objective, DOTS, share=0.125)["student"]
    assert (glance.views, len(glance.train.batch)) == (None, NUM_CLIPS["train"] // 8)
