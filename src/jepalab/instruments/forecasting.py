"""What follows the first half of a clip, in pixels, beside what needs no model: the last frame, or its change kept up.

A generative model answers in pixels. A JEPA answers in embeddings, which a linear map then draws that learned to turn
the embeddings of its targets into their own patches: it shows what they hold and never touches the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.patch_heads import draw_patches
from jepalab.backbones.vit import ViT, patchify, unpatchify
from jepalab.data.sprites import Split
from jepalab.dist import autocast
from jepalab.instruments.labelled import LabelledSubject, device_of, evaluating, observe
from jepalab.instruments.probes import Ridge
from jepalab.losses.pixels import plain_pixels
from jepalab.masks.causal import DrawnPast, PastFuture, prefix_sees
from jepalab.masks.drawing import MaskDrawer
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_token import NextToken
from jepalab.types import Mask, MaskSampler, Objective

NUM_FORECAST, NUM_TRAIN, NUM_VALIDATION, AT_ONCE = 32, 256, 64, 64
NUM_DRAWS, NUM_STEPS = 4, 10  # of a denoiser, whose mean draw is its forecast

Clips = Callable[[Split, int], Tensor]
Forecast = Callable[[Tensor], Tensor]


def forecast(subject: LabelledSubject, *, num_clips: int = NUM_FORECAST) -> dict[str, float]:
    """Mean squared error of the pixels, in [0, 1], of the second half of test clips, given the first half.

    forecast_mse    of the model. `persistence_mse`: the last frame given, repeated. `velocity_mse`: its change from the
                    frame before it, added once more for each frame, cut to [0, 1].
    forecast_skill  1 - forecast_mse / persistence_mse: above 0 is better than a still picture.

    Of the model, whichever of its encoders the subject has. Nothing for models that were not trained to predict the
    later frames from all the earlier ones, and for those that answer in patches normalised one by one, which are no
    forecast without the truth's mean and variance.
    """
    objective = subject.objective
    device = device_of(objective)

    def clips(split: Split, num: int) -> Tensor:
        return observe(subject.samples, subject.part(split).index[:num], device=device, size=subject.size)

    with evaluating(objective), torch.no_grad(), autocast(device):
        told = forecaster(objective, clips)
        if told is None:
            return {}
        x = clips("test", num_clips)
        num_given = given_frames(objective)
        truth, drawn = x[:, num_given:], told(x)[:, num_given:].float()
    still, moving = persistence(x, num_given), constant_velocity(x, num_given)
    error, copied, extrapolated = (float((each - truth).square().mean()) for each in (drawn, still, moving))
    scores = {"forecast_mse": error, "persistence_mse": copied, "velocity_mse": extrapolated}
    return scores | ({"forecast_skill": 1 - error / copied} if copied else {})


def persistence(x: Float[Tensor, "b t c h w"], num_given: int) -> Float[Tensor, "b s c h w"]:
    """The last frame given in place of each later one."""
    return x[:, num_given - 1 : num_given].expand(-1, x.shape[1] - num_given, -1, -1, -1)


def constant_velocity(x: Float[Tensor, "b t c h w"], num_given: int) -> Float[Tensor, "b s c h w"]:
    """Each pixel goes on changing as it did last, within [0, 1]. It takes two frames."""
    last, before = x[:, num_given - 1 : num_given], x[:, num_given - 2 : num_given - 1]
    ahead = torch.arange(1, x.shape[1] - num_given + 1, device=x.device)[:, None, None, None]
    return (last + ahead * (last - before)).clamp(0, 1)


def given_frames(objective: Objective) -> int:
    """How many frames a forecast is made from: those of the first half of the grid's times."""
    encoder: object = objective.encoder
    assert isinstance(encoder, ViT)
    return encoder.grid[0] // 2 * encoder.patch[0]


def forecaster(objective: Objective, clips: Clips) -> Forecast | None:
    """From clips to the same clips with the second half forecast, in [0, 1]; None for models that do not forecast.

    clips  (split, number) to clips of that split: a JEPA's map to pixels learns from "train" and "validation".
    """
    encoder: object = objective.encoder
    if not isinstance(encoder, ViT) or len(encoder.grid) != 3 or encoder.grid[0] < 2:
        return None
    if isinstance(objective, NextToken):
        return lambda x: _unroll(objective, x)
    drawers = [part for part in objective.modules() if isinstance(part, MaskDrawer)]
    if not drawers or not all(_is_causal(drawer.sampler) for drawer in drawers):
        return None
    if isinstance(objective, MAE) and objective.target is plain_pixels:
        return lambda x: objective.reconstruct(x, _past(objective.vit, x)).clamp(0, 1)
    if isinstance(objective, DenoiseHidden):
        return lambda x: _mean_draw(objective, x)
    return _through_pixels(objective, clips) if isinstance(objective, MaskedJEPA) else None


def _is_causal(sampler: MaskSampler) -> bool:
    """Whether training asked what a forecast asks: the whole past is seen. Causal `Tubes` hide most of it."""
    return isinstance(sampler, (PastFuture, DrawnPast))


def _past(encoder: ViT, x: Float[Tensor, "b t c h w"]) -> Mask:
    times, *plane = encoder.grid
    mask = PastFuture(encoder.grid, num_context=times // 2 * prod(plane))(len(x), torch.Generator())
    return mask.map(lambda tensor: tensor.to(x.device))


def _mean_draw(objective: DenoiseHidden, x: Tensor) -> Tensor:
    """The mean of several draws out of noise: one draw would pay for its detail twice in squared error."""
    mask, generator = _past(objective.vit, x), torch.Generator().manual_seed(0)
    drawn = [objective.imagine(x, generator=generator, mask=mask, num_steps=NUM_STEPS) for _ in range(NUM_DRAWS)]
    return torch.stack(drawn).mean(0).clamp(0, 1)


def _unroll(objective: NextToken, x: Tensor) -> Tensor:
    """Patch after patch, the expected intensity of each pixel, which is then the past of the next patch."""
    vit, given = objective.vit, prod(objective.vit.grid[1:]) * (objective.vit.grid[0] // 2)
    patches = patchify(x, vit.patch).clone()
    num_bins = objective.num_bins
    middle = (torch.arange(num_bins, device=x.device) + 0.5) / num_bins * objective.top
    sees = prefix_sees(torch.full((len(x),), given, device=x.device), patches.shape[1])
    patches[:, given:] = 0
    for place in range(given, patches.shape[1]):
        z = vit(unpatchify(patches, vit.patch, vit.grid), sees=sees)[:, place - 1 : place]
        logits = objective.head(z).float().unflatten(-1, (-1, num_bins))[:, 0]
        patches[:, place] = logits.softmax(-1) @ middle
    return unpatchify(patches, vit.patch, vit.grid).clamp(0, 1)


def _through_pixels(objective: MaskedJEPA, clips: Clips) -> Forecast:
    encoder: object = objective.encoder
    assert isinstance(encoder, ViT)

    def targets(x: Tensor) -> Tensor:
        parts: Sequence[Tensor] = x.split(AT_ONCE)
        found = [objective.targets(objective.teacher(objective.patch_encoder, part)).float() for part in parts]
        return torch.cat(found)

    def rows(split: Split, num: int) -> tuple[Tensor, Tensor]:
        x = clips(split, num)
        return targets(x).flatten(0, 1).cpu(), encoder.patches(x).float().flatten(0, 1).cpu()

    (z, y), (z_validation, y_validation) = rows("train", NUM_TRAIN), rows("validation", NUM_VALIDATION)
    to_pixels = Ridge().fit(z, y, z_validation, y_validation)

    def told(x: Tensor) -> Tensor:
        mask = _past(encoder, x)
        z_pred = objective.predictor(objective.encoder(x, mask.context), mask)[:, 0].float()
        drawn = to_pixels.predict(z_pred.flatten(0, 1).cpu()).float().unflatten(0, z_pred.shape[:2]).to(x.device)
        place = mask.target[:, 0].unsqueeze(-1).expand_as(drawn)
        return draw_patches(encoder, encoder.patches(x).float().scatter(1, place, drawn)).clamp(0, 1)

    return told
