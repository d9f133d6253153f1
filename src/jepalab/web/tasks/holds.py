"""What an embedding still holds of a picture: drawn by a decoder trained afterwards, and by the objective itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.dist import autocast
from jepalab.instruments.image_pictures import mask_planes
from jepalab.instruments.labelled import device_of, evaluating
from jepalab.instruments.posthoc import psnr, shrink
from jepalab.losses.pixels import PlainPixels
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.types import Mask, PatchEncoder
from jepalab.web.looking_arguments import as_rgb, picture, whole
from jepalab.web.looking_pictures import TARGETS, PictureRun, asked_run
from jepalab.web.tasks import Arguments, Tell


class Own(NamedTuple):
    """What an objective itself predicts at the targets of a mask: by what it is drawn, and what it was told."""

    drawn: Float[Tensor, "c h w"]
    by: str
    is_told: bool


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """{run, encoder, side, num_tokens, dim, truth, tokens, pooled, own, mean_psnr, num_known}.

    Arguments: run, encoder (the first where there is none), picture (see `looking_arguments.picture`), seed (of masks).

    tokens, pooled  {pixels, psnr, side}: drawn from every token of the frozen embedding, and from their mean alone.
    own             {pixels, psnr, seen, asked, grid, by, is_told}, what the objective predicts at the targets of a mask
                    of its own, the picture elsewhere; None where it hides nothing. `by` is "pixels" for its own pixels,
                    "decoder" for predicted embeddings that a decoder draws; `is_told` says that the true mean and
                    variance of each patch were put back. The PSNR is that of the targets alone.
    mean_psnr       what the mean training picture scores on this picture.
    """
    shown, which = asked_run(arguments, root)
    x = picture(arguments, side=shown.side, channels=shown.channels)
    seed = whole(arguments, "seed", low=0, high=2**31 - 1, default=0)
    if (which, "train") not in shown.known:
        tell("Embedding pictures of the run's own data …")
    known, z = shown.knows(which, "train"), shown.embed(which, x)
    if (which, False) not in shown.decoders:
        tell("Training a decoder on the frozen embeddings …")
    tokens = shown.decoder(which)(z)[0]
    pooled = shown.decoder(which, pooled=True)(z.mean(1, keepdim=True))[0]
    return {
        "run": shown.opened.name,
        "encoder": which,
        "side": shown.side,
        "num_tokens": z.shape[1],
        "dim": z.shape[2],
        "truth": as_rgb(x[0, 0]),
        "tokens": _drawing(tokens, x[0, 0]),
        "pooled": _drawing(pooled, shrink(x[0])[0]),
        "own": _own(shown, x, seed, tell),
        "mean_psnr": psnr(known.x.mean(0), x[0, 0]),
        "num_known": len(known.x),
    }


def _drawing(drawn: Float[Tensor, "c h w"], truth: Float[Tensor, "c h w"]) -> dict[str, Any]:
    return {"pixels": as_rgb(drawn), "psnr": psnr(drawn, truth), "side": drawn.shape[-1]}


def _own(shown: PictureRun, x: Float[Tensor, "1 1 c h w"], seed: int, tell: Tell) -> dict[str, Any] | None:
    mask, objective, encoder = shown.draw_mask(seed), shown.objective, shown.objective.encoder
    if mask is None or not isinstance(objective, MAE | MaskedJEPA) or not isinstance(encoder, PatchEncoder):
        return None
    if isinstance(objective, MAE):
        own = _reconstructed(objective, x, mask)
    else:
        if (TARGETS, False) not in shown.decoders:
            tell("Training a decoder on what the predictor has to predict …")
        own = _foretold(shown, objective, x, mask)
    seen, asked = mask_planes(mask, math.prod(encoder.grid))
    patches = torch.from_numpy(asked[0].any(0)).view(encoder.grid)
    pixels = _enlarge(patches, shown.side)
    return {
        "pixels": as_rgb(torch.where(pixels, own.drawn, x[0, 0])),
        "psnr": psnr(own.drawn[:, pixels], x[0, 0][:, pixels]),
        "seen": seen[0].nonzero()[0].tolist(),
        "asked": [block.nonzero()[0].tolist() for block in asked[0]],
        "grid": [*encoder.grid],
        "by": own.by,
        "is_told": own.is_told,
    }


def _enlarge(patches: Bool[Tensor, "r q"], side: int) -> Bool[Tensor, "h w"]:
    """Which pixels belong to the marked patches."""
    rows, columns = (side // length for length in patches.shape)
    return patches.repeat_interleave(rows, 0).repeat_interleave(columns, 1)


@torch.no_grad()
def _reconstructed(objective: MAE, x: Float[Tensor, "1 1 c h w"], mask: Mask) -> Own:
    """The pixels that a masked auto-encoder predicts."""
    with evaluating(objective):
        drawn = objective.reconstruct(x, mask)[0, 0]
    return Own(drawn.clamp(0, 1), "pixels", not isinstance(objective.target, PlainPixels))


@torch.no_grad()
def _foretold(shown: PictureRun, objective: MaskedJEPA, x: Float[Tensor, "1 1 c h w"], mask: Mask) -> Own:
    """The embeddings that a JEPA's predictor predicts, drawn by a decoder that learned from those it should predict."""
    decoder = shown.decoder(TARGETS)
    with evaluating(objective), autocast(device_of(objective)):
        said = objective.predictor(objective.see(x, mask), mask).float().flatten(1, 2)
    present = torch.ones_like(mask.target, dtype=torch.bool) if mask.present is None else mask.present
    weight, place = present.flatten(1).unsqueeze(-1).float(), mask.target.flatten(1).unsqueeze(-1)
    z = torch.zeros_like(shown.embed(TARGETS, x))
    total = z.scatter_add(1, place.expand_as(said), said * weight)
    count = torch.zeros_like(z[..., :1]).scatter_add_(1, place, weight)
    return Own(decoder(total / count.clamp(min=1))[0], "decoder", False)
