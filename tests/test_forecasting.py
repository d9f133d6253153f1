"""Forecasts of the second half of a clip: floors in closed form, models whose answer is known, blind to the future."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.masked_denoiser import MaskedDenoiser
from jepalab.backbones.patch_heads import PatchHead
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT, take_blocks
from jepalab.dist import seeded
from jepalab.instruments.forecasting import constant_velocity, forecaster, persistence
from jepalab.losses.denoising import PredictVelocity
from jepalab.losses.pixels import norm_pixels, plain_pixels
from jepalab.masks.causal import DrawnPast, PastFuture, Prefix
from jepalab.masks.random import RandomTubes
from jepalab.masks.tubes import Tubes
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_token import NextToken
from jepalab.run import Run
from jepalab.types import Batch, MaskSampler, Objective

GRID, PATCH = (4, 2, 2), (2, 4, 4)  # 8 frames of 8 x 8
PAST = PastFuture(GRID, num_context=8)


def vit() -> ViT:
    return ViT(GRID, patch=PATCH, dim=64, depth=1, num_heads=2, mean=0.5, std=0.25)


def mae(target: object = plain_pixels, masks: MaskSampler = PAST) -> MAE:
    encoder = vit()
    decoder = MaskedPredictor(64, encoder.patch_dim, grid=GRID, width=8, depth=1, num_heads=2)
    return MAE(encoder, decoder=decoder, masks=masks, target=target)  # type: ignore[arg-type]


def jepa(masks: MaskSampler = PAST) -> MaskedJEPA:
    encoder = vit()
    predictor = MaskedPredictor(64, 64, grid=GRID, width=8, depth=1, num_heads=2)
    return MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=EMATeacher(encoder))


def denoiser() -> DenoiseHidden:
    encoder = vit()
    decoder = MaskedDenoiser(64, encoder.patch_dim, grid=GRID, width=8, depth=1, num_heads=2)
    return DenoiseHidden(encoder, decoder=decoder, masks=PAST, predict=PredictVelocity())


def next_token() -> NextToken:
    encoder = vit()
    head = PatchHead(64, encoder.patch_dim * 4, width=8, depth=1)
    return NextToken(encoder, head=head, prefix=Prefix(GRID), num_bins=4)


def clips(split: str, num: int) -> Tensor:
    return torch.rand(num, 8, 1, 8, 8, generator=torch.Generator().manual_seed(len(split)))


def forecast_by(objective: Objective) -> Callable[[Tensor], Tensor]:
    told = forecaster(objective.eval(), clips)
    assert told is not None
    return told


def test_floors_are_exact_where_the_world_is_theirs(generator: torch.Generator) -> None:
    start, speed = torch.rand(2, 3, 1, 1, 8, 8, generator=generator) * 0.1
    line = start + speed * torch.arange(8.0)[:, None, None, None]
    torch.testing.assert_close(constant_velocity(line, 4), line[:, 4:])
    still = start.expand(-1, 8, -1, -1, -1)
    assert torch.equal(persistence(still, 4), still[:, 4:])
    assert float(constant_velocity(line + 0.9, 4).max()) == 1.0
    torch.testing.assert_close(persistence(line, 4)[:, 2], line[:, 3])


@pytest.mark.parametrize("make", [mae, denoiser, next_token, jepa])
@torch.no_grad()
def test_forecasts_read_the_first_half_alone(make: Callable[[], Objective], generator: torch.Generator) -> None:
    with seeded(0):
        told = forecast_by(make())
    x = torch.rand(3, 8, 1, 8, 8, generator=generator)
    other = x.clone()
    other[:, 4:] = torch.rand(3, 4, 1, 8, 8, generator=generator)
    found, again = told(x), told(other)
    torch.testing.assert_close(found[:, :4], x[:, :4])
    torch.testing.assert_close(found[:, 4:], again[:, 4:])
    changed = x.clone()
    changed[:, :4] = 1 - x[:, :4]
    assert float((told(changed)[:, 4:] - found[:, 4:]).abs().max()) > 0
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@torch.no_grad()
def test_a_jepa_that_predicts_its_targets_is_drawn_as_they_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are linear in the patches here, so that the map to pixels is exact where the prediction is."""
    with seeded(0):
        objective = jepa()

    def targets(levels: list[Tensor]) -> Tensor:
        return levels[0]

    mixing = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    patches = objective.patch_encoder.patches
    monkeypatch.setattr(objective.teacher, "forward", lambda encoder, x: [patches(x) @ mixing])
    monkeypatch.setattr(objective, "targets", targets)
    x = clips("test", 3)
    truth = (patches(x) @ mixing)[:, None]
    monkeypatch.setattr(objective.predictor, "forward", lambda z, mask: take_blocks(truth[:, 0], mask.target))
    torch.testing.assert_close(forecast_by(objective)(x), x, atol=0.02, rtol=0)


@torch.no_grad()
def test_tokens_are_forecast_one_by_one_as_expected_intensities(monkeypatch: pytest.MonkeyPatch) -> None:
    with seeded(0):
        objective = next_token()
    nn.init.zeros_(objective.head.answer.weight)
    bias = torch.full((32, 4), -30.0)
    bias[:16, 0], bias[16:, 3] = 0.0, 0.0  # the first frame of each patch dark, the second light
    objective.head.answer.bias.copy_(bias.flatten())
    drawn = forecast_by(objective)(clips("test", 2))
    torch.testing.assert_close(drawn[:, 4::2], torch.full((2, 2, 1, 8, 8), 0.125))
    torch.testing.assert_close(drawn[:, 5::2], torch.full((2, 2, 1, 8, 8), 0.875))


def test_who_was_not_trained_to_forecast_does_not() -> None:
    tubes = RandomTubes(GRID, share=0.5)
    causal = Tubes(GRID, num_blocks=1, scale=0.5, num_seen_times=2)  # hides most of the past too
    for masks in (tubes, Tubes(GRID, num_blocks=1, scale=0.5), causal):
        assert forecaster(jepa(masks), clips) is None
    assert forecaster(mae(norm_pixels), clips) is None
    assert forecaster(mae(masks=tubes), clips) is None
    assert forecaster(jepa(DrawnPast(GRID)).eval(), clips) is not None


@dataclass(frozen=True)
class Shown:
    """The same four clips at every step."""

    clips_per_batch: int = 4
    frames_per_batch: int = 32

    def batch(self, step: int) -> Batch:
        return Batch(x=clips("train", 4))

    def held_out(self, split: str, num_clips: int) -> Batch:
        return Batch(x=clips(split, num_clips))


def test_flops_of_a_step_are_those_of_the_masks_on_average() -> None:
    """A past of three times costs far more to encode than one of one time; no single draw may speak for all."""
    alone = [Run(mae(masks=PastFuture(GRID, num_context=4 * times)), Shown(), steps=1) for times in (1, 2, 3)]
    costs = [run.count_flops() for run in alone]
    assert costs[2] > 1.5 * costs[0]
    run = Run(mae(masks=DrawnPast(GRID)), Shown(), steps=1)
    told = {replace(run, objective=mae(masks=DrawnPast(GRID))).count_flops() for _ in range(2)}
    assert len(told) == 1
    (drawn,) = told
    assert drawn not in costs
    assert costs[0] < drawn < costs[2]
