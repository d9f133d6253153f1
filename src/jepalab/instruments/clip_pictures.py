"""What an encoder of clips sees, as small arrays: masks over time, patch features, neighbours, predicted frames.

Clips come from the test split (from all where there is none), the same ones for every arm. All arrays are small: a
report draws them; nothing here is a score.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.backbones.vit import ViT
from jepalab.data.sample_stream import SampleStream
from jepalab.data.sprites import Split
from jepalab.instruments.forecasting import forecaster, given_frames
from jepalab.instruments.image_pictures import mask_planes, nearest, places
from jepalab.instruments.labelled import device_of, encoder_named, evaluating, observe, read
from jepalab.instruments.patch_colours import patch_colours
from jepalab.masks.drawing import MaskDrawer
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.types import Mask, Objective

NUM_CLIPS, NUM_KNOWN, NUM_FITTED = 4, 400, 64
Movies = UInt8[np.ndarray, "k t h w c"]


def draw_clips(objective: Objective, stream: SampleStream, *, encoder: str = "") -> dict[str, np.ndarray]:
    """Everything that this objective and one of its encoders have to show of clips, by name.

    encoder  by its name; the first, if empty. Masks, predictions and forecasts are the objective's own, with its
             weights as trained.

    clips              [k t h w c] uint8, test clips that the others belong to.
    classes            [k] what they show, in words; empty where that is not known.
    grid               [3] patches along time, rows and columns; absent where the encoder has none.
    context, target    [k n] and [k g n] bool: patches that are seen, and those of each block that is predicted; of an
                       objective with several masks, the others as context_2, target_2 and so on.
    features           [k n 3] uint8: the first principal components of patch features as red, green, blue.
    neighbours, same   [k 5 t h w c] uint8: the training clips nearest to each; [k 5] 1 where the class is the same, 0
                       where it is not, -1 where one is unknown.
    predicted          [k t h w c] uint8: predictions of pixels at the targets of the first mask, the clip elsewhere.
    forecast           [k t h w c] uint8: the first half of the clip, and what the model says follows it; `given`, how
                       many frames that half has.
    """
    network, samples, size = encoder_named(objective, encoder), stream.samples, stream.size
    shown, known = places(samples, "test", NUM_CLIPS), places(samples, "train", NUM_KNOWN)
    z, z_known = (read(network, samples, index, network, size=size) for index in (shown, known))
    x = observe(samples, shown, device=device_of(objective), size=size)
    labels = samples.labels[shown].tolist()
    found = {"clips": as_movies(x), "classes": np.array([samples.names[i] if i >= 0 else "" for i in labels])}
    if isinstance(network, ViT):
        found |= {"grid": np.array(network.grid), "features": patch_colours(z, fitted=z_known[:NUM_FITTED])}
    with evaluating(objective), torch.no_grad():
        mask, *further = [*draw_masks(objective, len(x))] or [None]
        for number, each in enumerate([mask, *further], 1):
            if each is not None:
                suffix = f"_{number}" if number > 1 else ""
                names = (f"context{suffix}", f"target{suffix}")
                found |= dict(zip(names, mask_planes(each, z.shape[1]), strict=True))
        if isinstance(objective, MAE):
            found["predicted"] = as_movies(objective.reconstruct(x, mask))
        if isinstance(objective, DenoiseHidden):
            generator = torch.Generator().manual_seed(0)
            found["predicted"] = as_movies(objective.imagine(x, generator=generator, mask=mask))
        if told := forecaster(objective, partial(_clips, objective, stream)):
            found |= {"forecast": as_movies(told(x)), "given": np.array(given_frames(objective))}
    place, same = nearest(z, z_known, labels=samples.labels[shown], known=samples.labels[known])
    near = samples.read(known[place.flatten()]).unflatten(0, place.shape)
    return found | {"neighbours": near.numpy(), "same": same.numpy()}


def draw_masks(objective: Objective, num_samples: int) -> Iterator[Mask]:
    """A mask from each of the objective's samplers as training draws them, without moving it on."""
    for drawer in objective.modules():
        if isinstance(drawer, MaskDrawer):
            mask = drawer.sampler(num_samples, torch.Generator().manual_seed(0))
            yield mask.map(lambda tensor: tensor.to(device_of(objective)))


def _clips(objective: Objective, stream: SampleStream, split: Split, num: int) -> Tensor:
    index = places(stream.samples, split, num)
    return observe(stream.samples, index, device=device_of(objective), size=stream.size)


def as_movies(x: Float[Tensor, "b t c h w"]) -> Movies:
    """Floats in [0, 1] as bytes, channels last."""
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
