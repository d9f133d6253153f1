"""What models foretell: errors against closed forms, causality, and masks of judging among those of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.masked_denoiser import MaskedDenoiser
from jepalab.backbones.patch_heads import PatchHead
from jepalab.backbones.predictor import SequencePredictor
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT
from jepalab.dist import seeded
from jepalab.instruments.foretelling import (
    CopyLastFrame,
    Foretells,
    NextEmbedding,
    PixelVelocity,
    foretellers,
)
from jepalab.instruments.foretelling_clips import MaskedFuture
from jepalab.losses.denoising import PredictVelocity
from jepalab.losses.pixels import plain_pixels
from jepalab.masks.causal import DrawnPast, Prefix
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.frozen_jepa import FrozenJEPA
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.next_token import NextToken
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.types import Batch, Mask, Objective, Space

GRID, PATCH = (4, 2, 2), (2, 4, 4)  # 8 frames of 8 x 8


@pytest.fixture
def clips(generator: torch.Generator) -> Tensor:
    return torch.rand(3, 8, 1, 8, 8, generator=generator)


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
def test_embedding_errors_count_from_the_context_on(clips: Tensor, weight: float, same: Foretells) -> None:
    objective = Identity(Extrapolate(weight))
    (foretells,) = foretellers(objective).values()
    for context in (2, 5):
        found = foretells.errors(clips, context=context)
        assert found.shape == (3, 8 - context)
        torch.testing.assert_close(found, same.errors(clips, context=context))
        assert objective.predictor.shown == 7, "all frames but the last, in one pass"
    by_hand = (clips[:, 5] - clips[:, 4] - weight * (clips[:, 4] - clips[:, 3])).square().mean((1, 2, 3))
    torch.testing.assert_close(same.errors(clips, context=4)[:, 1], by_hand)


def test_a_velocity_takes_two_frames(clips: Tensor) -> None:
    with pytest.raises(ValueError, match="context=1"):
        PixelVelocity().errors(clips, context=1)
    encoder, predictor = conv_parts()
    with pytest.raises(ValueError, match="1 to 7 frames, got context=8"):
        NextEmbedding(encoder, predictor, encoder).errors(clips, context=8)


def conv_parts(seed: int = 0, size: int = 8) -> tuple[ConvEncoder, SequencePredictor]:
    with seeded(seed):
        return ConvEncoder(size, dim=4), SequencePredictor(4, width=8)


@torch.no_grad()
def test_each_objective_is_held_against_its_own_targets(clips: Tensor) -> None:
    encoder, predictor = conv_parts()
    z = encoder(clips)
    said = torch.stack([predictor(z[:, :i])[:, -1] for i in range(4, 8)], 1)

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
    ema.teacher.get_parameter("encoder.project.bias").add_(1)
    (slow,) = foretellers(ema).values()
    doubled = torch.stack([predictor(2 * z[:, :i])[:, -1] for i in range(4, 8)], 1)
    torch.testing.assert_close(slow.errors(clips, context=4), error(doubled, 2 * (z + 1)))


def clip_vit(dim: int = 12) -> ViT:
    return ViT(GRID, patch=PATCH, dim=dim, depth=2, num_heads=2, mean=0.5, std=0.25)


def masked_jepa() -> MaskedJEPA:
    with seeded(0):
        encoder = clip_vit()
        predictor = MaskedPredictor(12, 12, grid=GRID, width=8, depth=2, num_heads=2)
        return MaskedJEPA(encoder, predictor=predictor, masks=DrawnPast(GRID), teacher=EMATeacher(encoder))


def mae(target: object = plain_pixels) -> MAE:
    with seeded(0):
        encoder = clip_vit()
        decoder = MaskedPredictor(12, encoder.patch_dim, grid=GRID, width=8, depth=2, num_heads=2)
        return MAE(encoder, decoder=decoder, masks=DrawnPast(GRID), target=target)


def denoiser(num_asked: int | None = 1) -> DenoiseHidden:
    with seeded(0):
        encoder = clip_vit()
        decoder = MaskedDenoiser(12, encoder.patch_dim, grid=GRID, width=8, depth=2, num_heads=2)
        masks = DrawnPast(GRID, num_asked=num_asked)
        return DenoiseHidden(encoder, decoder=decoder, masks=masks, predict=PredictVelocity())


def next_token() -> NextToken:
    with seeded(0):
        encoder = clip_vit()
        head = PatchHead(12, encoder.patch_dim * 4, width=8, depth=2)
        for weights in (*encoder.parameters(), *head.parameters()):
            weights.requires_grad_(False).normal_(std=0.5)  # first weights say nothing yet
        return NextToken(encoder, head=head, prefix=Prefix(GRID), num_bins=4)


def test_a_masked_model_is_asked_for_what_follows_its_past() -> None:
    asked: list[tuple[float, list[int], list[int]]] = []

    def wrong(x: Tensor) -> Callable[[Mask, int], Tensor]:
        def errors(mask: Mask, num: int) -> Tensor:
            asked.append((float(x[0, 0, 0, 0, 0]), mask.context[0].tolist(), mask.target[0, 0].tolist()))
            return torch.arange(float(num)).expand(len(x), num)

        return errors

    x = torch.arange(10.0)[None, :, None, None, None].expand(2, 10, 1, 8, 8)
    found = MaskedFuture(clip_vit(), wrong).errors(x, context=4)
    assert found.tolist() == [[1.5] * 3] * 2, "the mean over the four patches of the next time alone"
    four = list(range(16))
    assert (
        asked
        == [
            (0, four[:8], four[8:]),  # frames 4 and 5, asked for with what follows them
            (0, four[:12], four[12:]),  # 6 and 7
            (2, four[:12], four[12:]),  # 8 and 9, in a window that starts at 2
        ]
    )
    for context, num_frames in ((3, 8), (8, 8), (0, 8), (4, 6), (4, 9)):
        with pytest.raises(ValueError, match=f"context={context} and clips of {num_frames} frames"):
            MaskedFuture(clip_vit(), wrong).errors(torch.rand(1, num_frames, 1, 8, 8), context=context)


@pytest.mark.parametrize("make", [masked_jepa, mae, denoiser, lambda: denoiser(None)])
def test_masks_of_judging_are_among_those_of_training(
    clips: Tensor, make: Callable[[], MaskedJEPA | MAE | DenoiseHidden], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged on masks that it never saw, a model would be surprised by the mask."""
    objective = make()
    drawn = objective.masks
    trained = {_as_key(drawn(len(clips))) for _ in range(60)}
    head = objective.predictor if isinstance(objective, MaskedJEPA) else objective.decoder
    judged: set[object] = set()
    forward = head.forward

    def noted(*args: Tensor | Mask) -> Tensor:
        judged.update(_as_key(each) for each in args if isinstance(each, Mask))
        return forward(*args)

    monkeypatch.setattr(head, "forward", noted)
    foretells = next(iter(foretellers(objective).values()))
    with torch.no_grad():
        for context in (2, 4, 6):
            foretells.errors(clips, context=context)
    assert judged == trained
    assert len(judged) == 3


def _as_key(mask: Mask) -> object:
    assert mask.present is None
    return tuple(map(tuple, mask.context.tolist())), tuple(map(tuple, mask.target.flatten(1).tolist()))


@torch.no_grad()
def test_a_masked_jepa_is_held_against_the_teacher_of_the_whole_window(clips: Tensor) -> None:
    objective = masked_jepa()
    (latent,) = foretellers(objective).values()
    seen, asked = torch.arange(12).expand(3, -1), torch.arange(12, 16).expand(3, -1)
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
    seen = torch.arange(16).expand(3, -1)
    apart = (objective.encoder(grey, seen) - objective.encoder(clips, seen))[:, 12:]
    torch.testing.assert_close(found["latent"].errors(clips, context=4)[:, 1], apart.square().mean((1, 2)))


@torch.no_grad()
def test_a_denoiser_that_tells_the_clean_patch_errs_by_nothing(clips: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = denoiser()
    (pixels,) = foretellers(objective).values()
    clean = objective.encoder.patches(clips)[:, 12:, None].transpose(1, 2)
    told: list[Tensor] = []

    def velocity(z: Tensor, noisy: Tensor, level: Tensor, mask: Mask) -> Tensor:
        told.append(noisy)
        return (noisy - clean) / level[:, None, None, None]  # noise - clean, of x_t = (1 - t) clean + t noise

    monkeypatch.setattr(objective.decoder, "forward", velocity)
    torch.testing.assert_close(pixels.errors(clips, context=6), torch.zeros(3, 1), atol=1e-8, rtol=0)
    assert len(told) == 4
    noise = [(noisy - (1 - t) * clean) / t for noisy, t in zip(told, (0.2, 0.4, 0.6, 0.8), strict=True)]
    for each in noise:
        torch.testing.assert_close(each, each[:1].expand_as(each), msg="the same noise for every clip")
        assert float(each.std()) == pytest.approx(1, abs=0.2)
    monkeypatch.setattr(objective.decoder, "forward", lambda z, noisy, level, mask: noisy / level[:, None, None, None])
    torch.testing.assert_close(
        pixels.errors(clips, context=6)[:, 0], clean.square().mean((1, 2, 3)), msg="told grey, the error is the picture"
    )


@torch.no_grad()
def test_surprise_of_tokens_is_their_likelihood(clips: Tensor) -> None:
    objective = next_token()
    (tokens,) = foretellers(objective).values()
    found = tokens.errors(clips, context=2)
    assert found.shape == (3, 3)
    logits = objective.logits(clips, torch.ones(3, dtype=torch.long))
    bins = objective.bins(clips)
    for time in (1, 2, 3):
        at = slice(4 * time, 4 * time + 4)
        for i in range(3):
            nats = nn.functional.cross_entropy(logits[i, at].flatten(0, 1), bins[i, at].flatten())
            torch.testing.assert_close(found[i, time - 1], nats)
    longer = torch.cat([clips, clips[:, :4]], 1)
    torch.testing.assert_close(tokens.errors(longer, context=4)[:, -1:], tokens.errors(longer[:, 4:], context=6))


@pytest.mark.parametrize("model", ["frames", "pixels of patches", "denoised patches", "tokens"])
@torch.no_grad()
def test_errors_do_not_know_what_comes_later(clips: Tensor, model: str) -> None:
    encoder, predictor = conv_parts()
    foretells = {
        "frames": NextEmbedding(encoder, predictor, encoder),
        "pixels of patches": foretellers(mae())["pixels"],
        "denoised patches": foretellers(denoiser())["pixels"],
        "tokens": foretellers(next_token())["tokens"],
    }[model]
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
