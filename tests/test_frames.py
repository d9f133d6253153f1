"""Frame encoders under another face: what they compute, what is read of them, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.frames import FrameDifferences, FramesAsPatches
from jepalab.backbones.predictor import SequencePredictor
from jepalab.data.moving import MovingObject
from jepalab.data.sprites import dot
from jepalab.dist import seeded
from jepalab.instruments.diagnosis import geometry
from jepalab.instruments.features import subjects
from jepalab.instruments.state import motion, rollout, state
from jepalab.losses.vicreg import across_clips, within_clips
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.recipes import distractor
from jepalab.recipes.bench import Bench
from jepalab.recipes.distractor_claims import declare, explore
from jepalab.types import Features, Subject


def differences(size: int = 8) -> FrameDifferences:
    with seeded(0):
        return FrameDifferences(size=size, dim=4, std=0.5).eval()


def frames_of(encoder: FrameDifferences | FramesAsPatches) -> ConvEncoder:
    return encoder.frame


@torch.no_grad()
def test_differences_are_those_from_the_frame_before(generator: torch.Generator) -> None:
    encoder, x = differences(), torch.rand(3, 5, 1, 8, 8, generator=generator)
    z = encoder(x)
    for t in range(1, 5):
        torch.testing.assert_close(z[:, t], frames_of(encoder)((x[:, t] - x[:, t - 1])[:, None])[:, 0])
    torch.testing.assert_close(z[:, 0], frames_of(encoder)(torch.zeros(3, 1, 1, 8, 8))[:, 0])
    stays = torch.rand(3, 1, 1, 8, 8, generator=generator)
    torch.testing.assert_close(encoder(x + stays), z, atol=1e-5, rtol=1e-4)
    keep = torch.tensor([[4, 2]]).expand(3, -1)
    torch.testing.assert_close(encoder(x, keep), z[:, [4, 2]])


@torch.no_grad()
def test_frames_as_patches_are_frames_that_never_see_each_other(generator: torch.Generator) -> None:
    with seeded(0):
        encoder = FramesAsPatches(5, size=8, dim=4, mean=0.25, std=0.5).eval()
    x = torch.rand(3, 5, 1, 8, 8, generator=generator)
    z = encoder(x)
    torch.testing.assert_close(z, frames_of(encoder)(x))
    keep = torch.tensor([[0, 3], [1, 2], [3, 4]])
    seen = encoder(x, keep)
    for i in range(3):
        torch.testing.assert_close(seen[i], z[i, keep[i]])
    hidden = x.clone()
    hidden[0, [1, 2, 4]] = 9
    torch.testing.assert_close(encoder(hidden, keep)[0], seen[0])
    torch.testing.assert_close(encoder.patches(x), ((x - 0.25) / 0.5).flatten(2))
    assert (encoder.grid, encoder.patch_dim) == ((5,), 64)
    (level,) = encoder.levels(x)
    torch.testing.assert_close(level, z)


@pytest.fixture
def subject() -> Subject:
    """Of differences, on clips of a dot, with what an encoder that is perfect from its second frame on would say."""
    stream = MovingObject(sprites=dot(sigma=0.5), num_frames=4, size=8)
    weights = {"predict": 1.0, "variance": 1.0, "covariance": 1.0}
    predictor = SequencePredictor(4, num_actions=2, width=8)
    objective = VICRegJEPA(differences(), predictor=predictor, weights=weights).eval()
    found = subjects(objective, stream, share=1.0)["student"]

    def perfect(part: Features) -> Features:
        assert part.batch.action is not None
        known = torch.cat([part.batch.factors["position"][:, 1:], part.batch.action], -1)
        return Features(torch.cat([torch.full_like(known[:, :1], 7.0), known], 1), part.batch)

    return replace(found, **{name: perfect(getattr(found, name)) for name in ("train", "validation", "test")})


def test_two_frames_are_read_of_every_encoder_and_none_before_the_second(subject: Subject) -> None:
    """One embedding of differences is of two frames already; that of the first frame says nothing."""
    scores = state(subject)
    assert scores["state_r2"] == pytest.approx(1, abs=1e-3)
    assert scores["position_r2"] == pytest.approx(1, abs=1e-3)
    shuffled = replace(subject, test=Features(subject.test.z.roll(1, dims=1), subject.test.batch))
    assert motion(shuffled)["state_r2"] < 0.9, "a frame late, the state is another"

    def still(part: Features) -> Features:
        told = part.batch.factors["position"]
        return Features(torch.cat([told, torch.zeros_like(told)], -1), part.batch)

    places = replace(
        subject, train=still(subject.train), validation=still(subject.validation), test=still(subject.test)
    )
    assert motion(places)["velocity_r2"] < 0.5, "a third frame would tell the velocity"


def test_what_starts_from_one_frame_is_left_out(subject: Subject) -> None:
    assert rollout(subject) == {}
    assert subject.views is None
    assert "lidar" not in geometry(subject)
    lively = replace(
        subject, test=Features(torch.cat([subject.test.z[:, :1] * 1e3, subject.test.z[:, 1:]], 1), subject.test.batch)
    )
    assert geometry(lively)["rankme"] == geometry(subject)["rankme"], "the first frame's embedding is no part of it"


def test_contrasts_of_the_distractor_are_of_arms_that_compete() -> None:
    plan = distractor.plan(preset="full")
    competing = {(cell.arm, cell.condition) for cell in plan.cells}
    assert {"J5", "J1d"} <= {arm for arm, _ in competing}
    for contrast in (*plan.contrasts, *plan.exploratory):
        arms = getattr(contrast, "arms", None) or (contrast.better, contrast.than)  # type: ignore[attr-defined]
        where = getattr(contrast, "conditions", None) or (contrast.condition,)  # type: ignore[attr-defined]
        assert {(arm, condition) for arm in arms for condition in where} <= competing
    everyone = [(arm, condition) for arm in distractor.ARMS for condition in distractor.CONDITIONS]
    pairs = {(c.better, c.than) for c in declare(everyone) if hasattr(c, "than")}
    assert ("G2", "J5") in pairs
    assert ("J1d", "J1") in {(c.better, c.than) for c in explore(everyone)}  # type: ignore[attr-defined]
    assert declare([("G2", "fixed"), ("J5", "changing")]) == []
    (alone,) = (contrast for contrast in plan.exploratory if contrast.metric == "position_r2")
    assert (alone.better, alone.than, alone.condition) == ("G2", "J1", "fixed")  # type: ignore[attr-defined]


def test_the_sweep_of_the_distractor_differs_in_persistence_alone() -> None:
    assert distractor.SWEEP == {"fixed": 1.0, "rho 0": 0.0, "rho 0.5": 0.5, "rho 0.9": 0.9, "rho 0.99": 0.99}
    for name, persistence in distractor.SWEEP.items():
        assert distractor.CONDITIONS[name] == replace(distractor.CONDITIONS["fixed"], persistence=persistence)
    assert [*distractor.plan(preset="full").conditions] == [*distractor.CONDITIONS]
    assert distractor.PERSISTENCE.places == distractor.SWEEP


def test_arms_take_their_statistics_within_clips_or_across_them() -> None:
    bench = Bench()
    within, across = (distractor.ARMS[arm].make(bench).objective for arm in ("J1w", "J1"))
    assert isinstance(within, VICRegJEPA)
    assert isinstance(across, VICRegJEPA)
    assert within.grouping is within_clips
    assert across.grouping is across_clips


def test_the_distractor_says_what_was_chosen_after_a_look() -> None:
    plan, full = distractor.plan(), distractor.plan(preset="full")
    assert (next(iter(plan.metrics)), plan.goals) == ("state_r2", (0.5, 0.75))
    for words in ("did not in position R² alone", "chosen on seed 0", "J3 stands by its student"):
        assert any(words in note for note in plan.notes), words
    assert [any("J5 is told no actions" in note for note in each.notes) for each in (plan, full)] == [False, True]
