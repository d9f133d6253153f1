"""What a frozen embedding still holds of the picture: a decoder trained afterwards, the same one for every encoder.

After the visualisations of I-JEPA (arXiv 2301.08243, section 9) and of MAE's targets; this decoder is far smaller, so
that what it draws is what the tokens hold and not what it has learned of pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from jepalab.backbones.patch_heads import PatchHead
from jepalab.backbones.vit import patchify, unpatchify
from jepalab.data.samples import Samples
from jepalab.data.sprites import Split
from jepalab.dist import seeded
from jepalab.instruments.labelled import LabelledSubject, observe, read
from jepalab.instruments.probes import Moments, Ridge, moments, standardise

NUM_STEPS = 300
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 1_000, 200, 500
MOST_TOKENS = 65_536
TOKENS_AT_ONCE, SAMPLES_AT_ONCE = 1_024, 128
WIDTH, LR = 96, 1e-3
LARGEST_SIDE = 32


@dataclass(frozen=True)
class TokenDecoder:
    """Draws each token's own part of the picture from that token alone: linear, and what a small MLP adds to it.

    patch, grid  the part that a token draws, and the tokens along each axis; one token draws the whole picture.
    correction   None where the MLP made it no better on validation.
    """

    linear: Ridge
    correction: PatchHead | None
    by: Moments
    unit: float
    patch: tuple[int, int]
    grid: tuple[int, int]

    @torch.no_grad()
    def __call__(self, z: Float[Tensor, "b n d"], *, is_linear: bool = False) -> Float[Tensor, "b c h w"]:
        """Pictures in [0, 1] from an encoder's tokens; `is_linear` leaves the MLP out."""
        tokens = _tokens_on(z, self.grid)
        rows = tokens.flatten(0, 1)
        drawn = self.linear.predict(rows).float()
        if self.correction is not None and not is_linear:
            drawn = drawn + self.unit * self.correction(standardise(rows, self.by).float()[:, None])[:, 0]
        return unpatchify(drawn.unflatten(0, tokens.shape[:2]), self.patch, self.grid)[:, 0].clamp(0, 1)


def posthoc(
    subject: LabelledSubject, *, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST, num_steps: int = NUM_STEPS
) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of test pictures drawn from frozen tokens: higher holds more of the pixels.

    `posthoc_psnr` is that of the whole decoder, `posthoc_linear_psnr` that of its linear part. `posthoc_pooled_psnr` is
    drawn from the mean token, as pictures of at most 32 pixels, since patch tokens may hold more numbers than their
    patch has. `posthoc_mean_psnr` is what the mean training picture scores, the least a decoder has to beat. Not a
    score of usefulness: pixels are what an embedding may well forget.
    """
    parts: dict[Split, int] = {"train": num_train, "validation": NUM_VALIDATION, "test": num_test}
    x = {split: read_pixels(subject.samples, subject.part(split).index[:n], subject.size) for split, n in parts.items()}
    z = {
        split: read(subject.encoder, subject.samples, subject.part(split).index[:n], subject.encoder, size=subject.size)
        for split, n in parts.items()
    }
    decoder = fit_decoder(z["train"], x["train"], z["validation"], x["validation"], num_steps=num_steps)
    pooled, small = ({s: pool(v) for s, v in z.items()}, {s: shrink(v) for s, v in x.items()})
    whole = fit_decoder(pooled["train"], small["train"], pooled["validation"], small["validation"], num_steps=num_steps)
    return {
        "posthoc_psnr": psnr(decoder(z["test"]), x["test"]),
        "posthoc_pooled_psnr": psnr(whole(pooled["test"]), small["test"]),
        "posthoc_linear_psnr": psnr(decoder(z["test"], is_linear=True), x["test"]),
        "posthoc_mean_psnr": psnr(x["train"].mean(0).expand_as(x["test"]), x["test"]),
    }


def fit_decoder(
    z: Float[Tensor, "n t d"],
    x: Float[Tensor, "n c h w"],
    z_validation: Float[Tensor, "m t d"],
    x_validation: Float[Tensor, "m c h w"],
    *,
    num_steps: int = NUM_STEPS,
) -> TokenDecoder:
    """A decoder from an encoder's tokens to the pictures in [0, 1] that they come from.

    The linear part is ridge regression; the MLP then learns what it left, for num_steps of AdamW.
    """
    num_images = max(2, MOST_TOKENS // z.shape[1])
    grid = _grid(z.shape[1], x.shape[2:])
    patch = (x.shape[2] // grid[0], x.shape[3] // grid[1])
    rows, rows_validation = (_tokens_on(tokens, grid).flatten(0, 1) for tokens in (z[:num_images], z_validation))
    y, y_validation = (patchify(pixels[:, None], patch).flatten(0, 1) for pixels in (x[:num_images], x_validation))
    linear, by = Ridge().fit(rows, y, rows_validation, y_validation), moments(rows)
    left, left_validation = y - linear.predict(rows).float(), y_validation - linear.predict(rows_validation).float()
    unit = float(left.std()) or 1.0
    correction = _learn(standardise(rows, by).float(), left / unit, math.prod(grid), num_steps)
    with torch.no_grad():
        corrected = left_validation - unit * correction(standardise(rows_validation, by).float()[:, None])[:, 0]
    is_better = corrected.square().mean() < left_validation.square().mean()
    return TokenDecoder(linear, correction if is_better else None, by, unit, patch, grid)


def pool(z: Float[Tensor, "n t d"]) -> Float[Tensor, "n 1 d"]:
    """The mean token as the only one."""
    return z.mean(1, keepdim=True)


def shrink(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s q"]:
    """The pictures with at most 32 pixels a side, by means of pixels: what one embedding is asked to draw."""
    height, width = (min(length, LARGEST_SIDE) for length in x.shape[2:])
    return adaptive_avg_pool2d(x, (height, width))


def psnr(drawn: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]) -> float:
    """-10 log10 of the mean squared error, for pixels in [0, 1]; infinite where nothing differs."""
    error = float((drawn.double() - truth.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def _learn(z: Tensor, y: Tensor, num_tokens: int, num_steps: int) -> PatchHead:
    """Trains the MLP; its weights and the order of samples are the same for every encoder of one width."""
    with seeded(0):
        head = PatchHead(z.shape[1], y.shape[1], width=WIDTH, depth=1, mlp_ratio=2.0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LR)
    order = torch.Generator().manual_seed(0)
    size = min(TOKENS_AT_ONCE, SAMPLES_AT_ONCE * num_tokens)
    for _ in range(num_steps):
        rows = torch.randint(len(z), (size,), generator=order)
        mse_loss(head(z[rows, None])[:, 0], y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return head


def _grid(num_tokens: int, size: torch.Size) -> tuple[int, int]:
    """Tokens on a square grid whose parts tile the picture; any others are pooled to one, which draws all of it."""
    side = math.isqrt(num_tokens)
    return (side, side) if side**2 == num_tokens and not any(length % side for length in size) else (1, 1)


def _tokens_on(z: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b g d"]:
    return z if z.shape[1] == math.prod(grid) else pool(z)


def read_pixels(samples: Samples, index: Int[Tensor, " n"], size: int | None) -> Float[Tensor, "n c h w"]:
    """The images at these places as floats in [0, 1] on the CPU."""
    return observe(samples, index, device=torch.device("cpu"), size=size)[:, 0]
