"""What lies near a picture in a run's embedding, what its patches look like there, and where attention goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jepalab.backbones.vit import ViT
from jepalab.instruments.image_pictures import NUM_FITTED, attention_received
from jepalab.instruments.labelled import evaluating
from jepalab.instruments.patch_colours import patch_colours
from jepalab.web.looking_arguments import as_rgb, as_text, picture
from jepalab.web.looking_pictures import asked_run, square
from jepalab.web.tasks import Arguments, Tell

NUM_NEIGHBOURS = 8


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """{run, encoder, side, neighbours, num_known, grid, colours, attention}.

    Arguments: run, encoder (the first where there is none), picture (see `looking_arguments.picture`).

    neighbours  [{pixels, label, closeness}]: the training pictures nearest in the embedding, by the cosine of pooled
                and centred features; the nearest comes first.
    grid        patches along each side, where the tokens make a square; colours [n] base64 of red, green and blue: the
                first principal components of patch features, fitted on training pictures.
    attention   [n] how much attention each patch receives in the last block, 1 on average; None without a ViT.
    """
    shown, which = asked_run(arguments, root)
    x = picture(arguments, side=shown.side, channels=shown.channels)
    if (which, "train") not in shown.known:
        tell("Embedding pictures of the run's own data …")
    known, z = shown.knows(which, "train"), shown.embed(which, x)
    encoder, side = shown.encoders[which], square(z.shape[1])
    pooled, pool = z.mean(1), known.z.mean(1)
    middle = pool.mean(0)
    closeness = torch.cosine_similarity(pooled - middle, pool - middle, dim=1)
    nearest = closeness.topk(min(NUM_NEIGHBOURS, len(pool)))
    attention = None
    if isinstance(encoder, ViT):
        with evaluating(encoder), torch.no_grad():
            attention = attention_received(encoder, x)[0].tolist()
    colours = None
    if side is not None and z.shape[2] > 2:
        colours = as_text(patch_colours(z, fitted=known.z[:NUM_FITTED])[0])
    labels = shown.samples.labels[known.index]
    return {
        "run": shown.opened.name,
        "encoder": which,
        "side": shown.side,
        "neighbours": [
            {
                "pixels": as_rgb(known.x[i]),
                "label": shown.samples.names[int(labels[i])] if labels[i] >= 0 else "",
                "closeness": value,
            }
            for i, value in zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
        ],
        "num_known": len(pool),
        "grid": side,
        "colours": colours,
        "attention": attention,
    }
