"""Violation of expectation: closed forms, models whose errors are known, and baselines that show the pairs matched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jaxtyping
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.predictor import SequencePredictor
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT
from jepalab.data.nuisance import Nuisance
from jepalab.data.occluder_pairs import CONCEPTS, LEGAL
from jepalab.data.occluders import OccludedShapes, Pairs
from jepalab.dist import seeded
from jepalab.instruments.foretelling import (
    CopyLastFrame,
    Foretells,
    MaskedFuture,
    NextEmbedding,
    PixelVelocity,
    foretellers,
)
from jepalab.instruments.geometry import straightness
from jepalab.instruments.surprise import (
    NUM_PAIRS,
    Setting,
    SurpriseSubject,
    Trials,
    accuracy_interval,
    auroc,
    baselines,
    pairwise_accuracy,
    show,
    summed,
    surprise,
    surprise_of,
    surprise_subjects,
    tuned,
    untrained,
)
from jepalab.losses.pixels import plain_pixels
from jepalab.masks.causal import PastFuture
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.frozen_jepa import FrozenJEPA
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.untrained import Untrained
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.types import Batch, Mask, Objective, Space

GRID, PATCH = (4, 2, 2), (2, 4, 4)  # 8 frames of 8 x 8


@pytest.fixture
def clips(generator: torch.Generator) -> Tensor:
    return torch.rand(3, 8, 1, 8, 8, generator=generator)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_accuracy_counts_wins_and_half_of_the_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairwise_accuracy(numbers(1, 2, 3, 4), numbers(2, 2, 2, 9)) == 2.5 / 4
    assert pairwise_accuracy(numbers(1, 2), numbers(1, 2)) == 0.5
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="got 1 and 2"):
        pairwise_accuracy(numbers(1, 2), numbers(1))


def test_auroc_is_that_of_scikit_learn(generator: torch.Generator) -> None:
    for levels in (2, 5, 10_000):  # with many ties, some, and none
        ordinary, odd = (torch.randint(levels, (num,), generator=generator).float() for num in (70, 50))
        truth = torch.cat([torch.zeros(70), torch.ones(50)])
        wanted = roc_auc_score(truth.numpy(), torch.cat([ordinary, odd]).numpy())
        assert auroc(ordinary, odd) == pytest.approx(wanted, abs=1e-12)
    assert auroc(numbers(0, 1), numbers(2, 3)) == 1
    with pytest.raises(ValueError, match="0 odd"):
        auroc(numbers(1), numbers())


def test_interval_of_quartets_is_wider_by_the_root_of_two(generator: torch.Generator) -> None:
    """The two pairs of a quartet that agree are one observation; against the normal interval of a share."""
    wins = (torch.rand(200, generator=generator) < 0.7).float()
    odd = wins.repeat_interleave(2)
    low, high = accuracy_interval(torch.full((400,), 0.5), odd, generator=generator)
    share = float(wins.mean())
    half = 1.96 * math.sqrt(share * (1 - share) / 200)
    assert (low, high) == (pytest.approx(share - half, abs=0.01), pytest.approx(share + half, abs=0.01))
    alone = accuracy_interval(torch.full((400,), 0.5), odd, generator=generator, num_in_group=1)
    assert (alone[1] - alone[0]) * math.sqrt(2) == pytest.approx(high - low, rel=0.08)
    assert accuracy_interval(numbers(0, 0), numbers(1, 1), generator=generator) == (1, 1)
    with pytest.raises(ValueError, match="groups of 2"):
        accuracy_interval(numbers(0, 0, 0), numbers(1, 1, 1), generator=generator)


def test_a_clip_has_its_mean_or_its_largest_error() -> None:
    errors = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    assert summed(errors, over="mean").tolist() == [3, 0]
    assert summed(errors, over="max").tolist() == [6, 0]


def test_straightness_of_a_line_a_walk_and_noise(generator: torch.Generator) -> None:
    steps = torch.randn(200, 12, 64, generator=generator)
    line = torch.arange(12.0)[:, None] * steps[:, :1]
    assert straightness(line) == pytest.approx(1, abs=1e-5)
    assert straightness(steps.cumsum(1)) == pytest.approx(0, abs=0.01)
    assert straightness(steps) == pytest.approx(-0.5, abs=0.02)
    assert straightness(torch.ones(3, 12, 4)) == 0


class Identity(Objective):
    """Embeds each frame as its pixels, and predicts by a function of the past ones."""

    compares: ClassVar[Mapping[str, Space]] = {}

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.encoder, self.predictor, self.weights = ConvEncoder(8, dim=4), predictor, {}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(2)


class Extrapolate(nn.Module):
    """z + weight * (its last change); remembers how many it was shown."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight, self.shown = weight, 0

    def forward(self, z: Tensor, action: Tensor | None = None) -> Tensor:
        self.shown = z.shape[1]
        before = torch.cat([z[:, :1], z[:, :-1]], 1)
        return z + self.weight * (z - before)

    def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize(("weight", "same"), [(0.0, CopyLastFrame()), (1.0, PixelVelocity())])
def test_embedding_errors_slide_over_the_clip(clips: Tensor, weight: float, same: Foretells) -> None:
    objective = Identity(Extrapolate(weight))
    (foretells,) = foretellers(objective).values()
    for context in (2, 5):
        found = foretells.errors(clips, context=context)
        assert found.shape == (3, 8 - context)
        torch.testing.assert_close(found, same.errors(clips, context=context))
        assert objective.predictor.shown == context
    by_hand = (clips[:, 5] - clips[:, 4] - weight * (clips[:, 4] - clips[:, 3])).square().mean((1, 2, 3))
    torch.testing.assert_close(same.errors(clips, context=4)[:, 1], by_hand)


def test_a_velocity_takes_two_frames(clips: Tensor) -> None:
    with pytest.raises(ValueError, match="context=1"):
        PixelVelocity().errors(clips, context=1)


def conv_parts(seed: int = 0, size: int = 8) -> tuple[ConvEncoder, SequencePredictor]:
    with seeded(seed):
        return ConvEncoder(size, dim=4), SequencePredictor(4, width=8)


@torch.no_grad()
def test_each_objective_is_held_against_its_own_targets(clips: Tensor) -> None:
    encoder, predictor = conv_parts()
    z = encoder(clips)
    said = torch.stack([predictor(z[:, i - 4 : i])[:, -1] for i in range(4, 8)], 1)

    def error(said: Tensor, truth: Tensor) -> Tensor:
        return (said - truth[:, 4:]).square().flatten(2).mean(2)

    weights = {"predict": 1.0, "variance": 1.0, "covariance": 1.0}
    (latent,) = foretellers(VICRegJEPA(encoder, predictor=predictor, weights=weights)).values()
    torch.testing.assert_close(latent.errors(clips, context=4), error(said, z))

    decoder = PixelDecoder(4, size=8, width=2)
    found = foretellers(NextFrame(encoder, predictor=predictor, decoder=decoder))
    assert list(found) == ["pixels", "latent"]
    torch.testing.assert_close(found["pixels"].errors(clips, context=4), error(decoder(said), clips))
    torch.testing.assert_close(found["latent"].errors(clips, context=4), error(said, z))

    teacher, _ = conv_parts(1)
    (frozen,) = foretellers(FrozenJEPA(encoder, teacher=teacher, predictor=predictor)).values()
    torch.testing.assert_close(
        frozen.errors(clips, context=4), error(said, nn.functional.layer_norm(teacher(clips), (4,)))
    )

    ema = EMAJEPA(encoder, predictor=predictor, normalise=lambda z: 2 * z)
    ema.teacher.get_parameter("project.bias").add_(1)
    (slow,) = foretellers(ema).values()
    doubled = torch.stack([predictor(2 * z[:, i - 4 : i])[:, -1] for i in range(4, 8)], 1)
    torch.testing.assert_close(slow.errors(clips, context=4), error(doubled, 2 * (z + 1)))


def test_an_objective_that_predicts_nothing_foretells_nothing() -> None:
    objective = Untrained(ConvEncoder(32, dim=4))
    assert foretellers(objective) == {}
    subject = surprise_subjects(objective, OccludedShapes(), share=0.03)["model"]
    assert surprise(subject) == {}
    assert isinstance(CopyLastFrame(), Foretells)


def clip_vit(dim: int = 12) -> ViT:
    return ViT(GRID, patch=PATCH, dim=dim, depth=2, num_heads=2, mean=0.5, std=0.25)


def masked_jepa() -> MaskedJEPA:
    with seeded(0):
        encoder = clip_vit()
        predictor = MaskedPredictor(12, 12, grid=GRID, width=8, depth=2, num_heads=2)
        masks = PastFuture(GRID, num_context=8)
        return MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=EMATeacher(encoder))


def mae(target: object = plain_pixels) -> MAE:
    with seeded(0):
        encoder = clip_vit()
        decoder = MaskedPredictor(12, encoder.patch_dim, grid=GRID, width=8, depth=2, num_heads=2)
        return MAE(encoder, decoder=decoder, masks=PastFuture(GRID, num_context=8), target=target)


def test_a_masked_model_is_asked_for_what_follows_its_past(generator: torch.Generator) -> None:
    asked: list[tuple[float, list[int], list[int]]] = []

    def wrong(x: Tensor, mask: Mask) -> Tensor:
        asked.append((float(x[0, 0, 0, 0, 0]), mask.context[0].tolist(), mask.target[0, 0].tolist()))
        return torch.arange(4.0).expand(len(x), 4)

    x = torch.arange(10.0)[None, :, None, None, None].expand(2, 10, 1, 8, 8)
    found = MaskedFuture(clip_vit(), wrong).errors(x, context=4)
    assert found.tolist() == [[1.5] * 3] * 2
    four = list(range(16))
    assert (
        asked
        == [
            (0, four[:8], four[8:12]),  # frames 4 and 5 from 0 to 3
            (0, four[4:12], four[12:]),  # 6 and 7 from 2 to 5
            (2, four[4:12], four[12:]),  # 8 and 9 from 4 to 7, in a window that starts at 2
        ]
    )
    for context, num_frames in ((3, 8), (8, 8), (0, 8), (4, 6), (4, 9)):
        with pytest.raises(ValueError, match=f"context={context} and clips of {num_frames} frames"):
            MaskedFuture(clip_vit(), wrong).errors(torch.rand(1, num_frames, 1, 8, 8), context=context)


@torch.no_grad()
def test_a_masked_jepa_is_held_against_the_teacher_of_the_whole_window(clips: Tensor) -> None:
    objective = masked_jepa()
    (latent,) = foretellers(objective).values()
    seen, asked = torch.arange(4, 12).expand(3, -1), torch.arange(12, 16).expand(3, -1)
    said = objective.predictor(objective.encoder(clips, seen), Mask(seen, asked[:, None]))[:, 0]
    truth = nn.functional.layer_norm(objective.patch_encoder.levels(clips)[-1], (12,))[:, 12:]
    torch.testing.assert_close(latent.errors(clips, context=4)[:, 1], (said - truth).square().mean((1, 2)))


@torch.no_grad()
def test_an_mae_that_says_grey_errs_by_the_picture(clips: Tensor) -> None:
    objective = mae()
    objective.decoder.answer.weight.zero_()
    objective.decoder.answer.bias.zero_()
    found = foretellers(objective)
    assert list(found) == ["pixels", "latent"]
    picture = ((clips - 0.5) / 0.25).square().unflatten(1, (4, 2)).flatten(2).mean(2)
    torch.testing.assert_close(found["pixels"].errors(clips, context=4), picture[:, 2:])
    grey = clips.clone()
    grey[:, 6:] = 0.5
    seen = torch.arange(4, 16).expand(3, -1)
    apart = (objective.encoder(grey, seen) - objective.encoder(clips, seen))[:, 8:]
    torch.testing.assert_close(found["latent"].errors(clips, context=4)[:, 1], apart.square().mean((1, 2)))


@pytest.mark.parametrize("model", ["frames", "pixels of patches"])
@torch.no_grad()
def test_errors_do_not_know_what_comes_later(clips: Tensor, model: str) -> None:
    encoder, predictor = conv_parts()
    frames = NextEmbedding(encoder, predictor, encoder)
    foretells = frames if model == "frames" else foretellers(mae())["pixels"]
    later = clips.clone()
    later[:, 6:] = 0
    before, after = (foretells.errors(x, context=2) for x in (clips, later))
    num_before = before.shape[1] * 2 // 3
    torch.testing.assert_close(before[:, :num_before], after[:, :num_before])
    assert (before[:, num_before:] != after[:, num_before:]).all()


def test_only_models_of_clips_foretell() -> None:
    still, _ = MaskedJEPA.tiny()
    with pytest.raises(ValueError, match=r"a model of clips, .* got ViT on .4, 4."):
        foretellers(still)


def test_copying_is_at_chance_and_physics_is_not() -> None:
    """The gate: if anything but the course of things told the pairs apart, copying the last frame would find it."""
    found = baselines(OccludedShapes(), num_pairs={"validation": 16, "test": 100})
    accuracy = {
        name: {concept: scores[f"{concept}_accuracy"] for concept in CONCEPTS} for name, scores in found.items()
    }
    assert accuracy["copy last frame"] == dict.fromkeys(CONCEPTS, 0.5)
    assert accuracy["physics"] == dict.fromkeys(CONCEPTS, 1.0)
    blind = {"solidity": 0.5, "gravity": 0.5}
    assert accuracy["constant velocity"] == dict.fromkeys(CONCEPTS, 1.0) | blind
    assert all(0.4 < score < 0.6 for score in accuracy["pixel velocity"].values())
    copying = found["copy last frame"]
    alarms = {kind: copying[f"{kind}_alarm"] for kind in LEGAL}
    assert alarms == {"background": 0.5, "look": 0.5, "flicker": 1.0}
    assert {copying[f"{kind}_auroc"] for kind in (*CONCEPTS, *LEGAL)} == {0.5}
    assert [found[name]["blink_accuracy"] for name in ("copy last frame", "physics")] == [0.5, 0.5]


def test_copying_stays_at_chance_under_a_nuisance() -> None:
    stream = OccludedShapes(Nuisance(strength=1.0))
    found = baselines(stream, num_pairs={"validation": 16, "test": 200})
    for concept in CONCEPTS:
        assert found["copy last frame"][f"{concept}_accuracy"] == pytest.approx(0.5, abs=0.05)
        assert found["physics"][f"{concept}_accuracy"] == 1


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_no_network_without_memory_can_tell(strength: float) -> None:
    """From one frame to the next a quartet's two possible and two impossible clips hold the same, for any network."""
    stream = OccludedShapes(Nuisance(strength=strength))
    for seed in range(2):
        encoder, predictor = conv_parts(seed, size=32)
        told = surprise_of(NextEmbedding(encoder, predictor, encoder), Setting(1, "mean"))
        for concept in ("permanence", "continuity", "shape"):
            possible, impossible = told(stream.pairs(concept, "test", 20))
            assert pairwise_accuracy(possible, impossible) == 0.5
            assert (possible != impossible).all()


@dataclass(frozen=True)
class Peaked:
    """Finds the impossible by the largest error, from a context of 8 alone; the mean misleads."""

    def errors(self, x: Tensor, *, context: int) -> Tensor:
        odd = x[:, 0, 0, 0, 0]
        quiet = torch.stack([odd, 1 - odd], 1) if context == 4 else torch.stack([2 * odd, 9 - 9 * odd], 1)
        return 10 - quiet if context == 8 else quiet.sum(1, keepdim=True)


def test_the_setting_is_chosen_on_validation_and_kept_on_test() -> None:
    x = torch.zeros(4, 16, 1, 2, 2)
    pairs = Pairs(x, x + 1, torch.zeros(4, dtype=torch.long), x, x)
    trials = Trials({"shape": pairs}, {"look": pairs}, pairs)
    scores = tuned(Peaked(), validation=trials, test=trials)
    # possible: errors 10 and 1; impossible: 8 and 10: equal in their largest, larger in their mean.
    assert (scores["context"], scores["over_max"]) == (8, 0)
    assert scores["validation_surprise_accuracy"] == scores["shape_accuracy"] == 1


def test_the_instrument_reads_every_space_of_a_model() -> None:
    encoder, predictor = conv_parts(size=32)
    objective = NextFrame(encoder, predictor=predictor, decoder=PixelDecoder(4, size=32, width=2)).train()
    subject = surprise_subjects(objective, OccludedShapes(), share=0.1)["model"]
    assert not objective.training
    assert {len(pairs.frame) for pairs in subject.test.impossible.values()} == {20}
    scores = surprise(subject)
    own = [f"{concept}_{what}" for concept in CONCEPTS for what in ("accuracy", "low", "high", "auroc")]
    own += [f"{kind}_{what}" for kind in LEGAL for what in ("alarm", "auroc")]
    own += ["surprise_accuracy", "validation_surprise_accuracy", "alarm", "blink_accuracy", "context", "over_max"]
    assert scores.keys() == {*own, *(f"latent_{name}" for name in own), "straightness"}
    assert all(math.isfinite(score) for score in scores.values())
    for concept in CONCEPTS:
        assert scores[f"{concept}_low"] <= scores[f"{concept}_accuracy"] <= scores[f"{concept}_high"]
    mean = sum(scores[f"{concept}_accuracy"] for concept in CONCEPTS) / len(CONCEPTS)
    assert scores["surprise_accuracy"] == pytest.approx(mean)
    assert surprise(subject) == scores


def test_untrained_networks_are_one_for_each_seed() -> None:
    weights = {"predict": 1.0, "variance": 1.0, "covariance": 1.0}

    def make(seed: int) -> Objective:
        encoder, predictor = conv_parts(seed, size=32)
        return VICRegJEPA(encoder, predictor=predictor, weights=weights)

    trials = show(OccludedShapes(), "test", 4)
    found = untrained(make, validation=trials, test=trials, num_networks=2)
    for seed in range(2):
        subject = SurpriseSubject(make(seed).eval(), foretellers(make(seed).eval()), trials, trials)
        assert {name: scores[seed] for name, scores in found.items()} == surprise(subject)


def test_a_masked_clip_model_is_judged_on_whole_clips() -> None:
    with seeded(0):
        encoder = ViT((8, 2, 2), patch=(2, 16, 16), dim=8, depth=1, num_heads=2)
        predictor = MaskedPredictor(8, 8, grid=(8, 2, 2), width=8, depth=1, num_heads=2)
        masks = PastFuture((8, 2, 2), num_context=16)
        objective = MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=EMATeacher(encoder))
    stream = OccludedShapes()
    trials = show(stream, "test", 4)
    scores = surprise(SurpriseSubject(objective, foretellers(objective), trials, trials))
    assert 0 <= scores["surprise_accuracy"] <= 1
    assert "straightness" not in scores
    assert NUM_PAIRS["test"] >= 200


def test_errors_that_are_not_numbers_are_refused() -> None:
    encoder, predictor = conv_parts(size=32)
    with torch.no_grad():
        encoder.get_parameter("project.bias").fill_(math.nan)
    told = surprise_of(NextEmbedding(encoder, predictor, encoder), Setting(4, "mean"))
    with pytest.raises(ValueError, match=r"errors .* must be finite"):
        told(OccludedShapes().pairs("shape", "test", 2))
