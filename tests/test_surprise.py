"""Violation of expectation: closed forms, models whose errors are known, and baselines that show the pairs matched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.predictor import ResidualDynamics, SequencePredictor
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT
from jepalab.data.nuisance import Nuisance
from jepalab.data.occluder_pairs import CONCEPTS, LEGAL
from jepalab.data.occluders import OccludedShapes, Pairs
from jepalab.dist import seeded
from jepalab.instruments.foretelling import (
    CopyLastFrame,
    Foretells,
    NextEmbedding,
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
    choose_setting,
    pairwise_accuracy,
    show,
    sign_test,
    summed,
    surprise,
    surprise_of,
    surprise_subjects,
    tuned,
    untrained,
)
from jepalab.masks.causal import DrawnPast
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.untrained import Untrained
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.types import Objective


def conv_parts(seed: int = 0, size: int = 8) -> tuple[ConvEncoder, SequencePredictor]:
    with seeded(seed):
        return ConvEncoder(size, dim=4), SequencePredictor(4, width=8)


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


def test_sign_test_is_that_of_scipy_on_quartets(generator: torch.Generator) -> None:
    odd = torch.randint(-1, 3, (60,), generator=generator).float()
    wins = odd.sign().unflatten(0, (30, 2)).sum(1)
    for each in (odd, -odd):
        above, below = (int((each.sign().unflatten(0, (30, 2)).sum(1) * sign > 0).sum()) for sign in (1, -1))
        assert sign_test(torch.zeros(60), each) == pytest.approx(binomtest(above, above + below).pvalue)
    assert 0 < int((wins == 0).sum()) < 30
    assert sign_test(torch.zeros(4), torch.zeros(4)) == 1, "all ties"
    assert sign_test(torch.zeros(4), torch.ones(4), num_in_group=1) == 2 / 2**4


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


def test_an_objective_that_predicts_nothing_foretells_nothing() -> None:
    objective = Untrained(ConvEncoder(32, dim=4))
    assert foretellers(objective) == {}
    subject = surprise_subjects(objective, OccludedShapes(), share=0.03)["model"]
    assert surprise(subject) == {}
    assert isinstance(CopyLastFrame(), Foretells)


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
    assert copying["alarm"] == 0.5, "a flicker changes pixels and counts apart"
    for told in ("physics", "constant velocity"):
        assert not {name for name in found[told] if name.startswith(("alarm", *LEGAL))}
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
        encoder, _ = conv_parts(seed, size=32)
        with seeded(seed):
            predictor = ResidualDynamics(4, num_actions=0)
        told = surprise_of(NextEmbedding(encoder, predictor, encoder), Setting(1, "mean"))
        for concept in ("permanence", "continuity", "shape"):
            possible, impossible = told(stream.pairs(concept, "test", 20))
            assert pairwise_accuracy(possible, impossible) == 0.5
            assert (possible != impossible).all()


@dataclass(frozen=True)
class Late:
    """Finds the impossible by its mean error from frame 8 on; the largest, and what lies before, mislead."""

    stride: int

    def errors(self, x: Tensor, *, context: int) -> Tensor:
        odd = x[:, 0, 0, 0, 0]
        every_second = torch.stack([*[9 - 9 * odd] * 4, odd, odd, odd, 3 - 2 * odd], 1)
        return every_second.repeat_interleave(2 // self.stride, 1)[:, context // self.stride :]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_setting_is_chosen_on_validation_and_kept_on_test(stride: int) -> None:
    x = torch.zeros(4, 16, 1, 2, 2)
    pairs = Pairs(x, x + 1, torch.zeros(4, dtype=torch.long), x, x)
    trials = Trials({"shape": pairs}, {"look": pairs}, pairs)
    assert choose_setting(Late(stride), trials.impossible) == (Setting(8, "mean"), 1)
    scores = tuned(Late(stride), validation=trials, test=trials)
    assert (scores["context"], scores["over_max"]) == (8, 0)
    assert scores["validation_surprise_accuracy"] == scores["shape_accuracy"] == 1


def test_the_instrument_reads_every_space_of_a_model() -> None:
    encoder, predictor = conv_parts(size=32)
    objective = NextFrame(encoder, predictor=predictor, decoder=PixelDecoder(4, size=32, width=2)).train()
    subject = surprise_subjects(objective, OccludedShapes(), share=0.1)["model"]
    assert not objective.training
    assert {len(pairs.frame) for pairs in subject.test.impossible.values()} == {20}
    scores = surprise(subject)
    own = [f"{concept}_{what}" for concept in CONCEPTS for what in ("accuracy", "low", "high", "auroc", "sign_p")]
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
        masks = DrawnPast((8, 2, 2))
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
