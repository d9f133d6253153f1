"""What a model of series has to show, as small arrays: windows, masks, reconstructions, and what a probe confuses.

Windows come from the test split (from all where there is none), the same ones for every arm.
"""

from __future__ import annotations

import numpy as np
import torch

from jepalab.backbones.patch_heads import draw_patches
from jepalab.backbones.vit import ViT
from jepalab.data.sample_stream import SampleStream
from jepalab.data.samples import Samples
from jepalab.data.series import Series
from jepalab.instruments.clip_pictures import draw_masks
from jepalab.instruments.image_pictures import mask_planes, places
from jepalab.instruments.labelled import device_of, encoder_named, evaluating, observe, read, split_index
from jepalab.instruments.probes import RidgeClassifier
from jepalab.objectives.mae import MAE
from jepalab.objectives.next_patch import NextPatch
from jepalab.types import Encoder, Objective

NUM_WINDOWS, MOST_CHANNELS = 3, 3
NUM_TRAIN, NUM_JUDGED = 5_000, 2_000


def draw_series(objective: Objective, stream: SampleStream, *, encoder: str = "") -> dict[str, np.ndarray]:
    """Everything that this objective and one of its encoders have to show of series, by name.

    encoder  by its name; the first, if empty. Masks and predictions are the objective's own, with its weights as
             trained.

    windows           [k t c] float32, test windows that the others belong to; at most the first three channels.
    channels          [c] their names.
    context, target   [k n] and [k g n] bool: patches that are seen, and those of each block that is predicted.
    predicted         [k t c] float32: a masked reconstruction at its targets, the window elsewhere; of a model of the
                      next step each patch from all before it, the first as it is.
    confusion, names  [f f] test windows by true class (row) and by the class that ridge on pooled features says, and
                      the names of the classes; absent without labels.
    """
    network, samples = encoder_named(objective, encoder), stream.samples
    x = observe(samples, places(samples, "test", NUM_WINDOWS), device=device_of(objective))
    channels = samples.channel_names if isinstance(samples, Series) else [str(i + 1) for i in range(x.shape[-1])]
    found = {"windows": _numbers(x), "channels": np.array(channels[:MOST_CHANNELS])}
    with evaluating(objective), torch.no_grad():
        mask = next(draw_masks(objective, len(x)), None)
        if mask is not None and isinstance(network, ViT):
            planes = mask_planes(mask, network.positions.shape[0])
            found |= dict(zip(("context", "target"), planes, strict=True))
        if isinstance(objective, MAE):
            found["predicted"] = _numbers(objective.reconstruct(x, mask))
        if isinstance(objective, NextPatch):
            patches, causal = objective.vit.patches(x), torch.ones(len(x), dtype=torch.long, device=x.device)
            later = objective.target.restore(objective.predict(x, causal), patches[:, 1:])
            found["predicted"] = _numbers(draw_patches(objective.vit, torch.cat([patches[:, :1], later], 1)))
    return found | _confusion(network, stream.samples)


def _confusion(encoder: Encoder, samples: Samples) -> dict[str, np.ndarray]:
    if samples.num_classes < 2:
        return {}
    index = {
        "train": split_index(samples, "train", NUM_TRAIN),
        "validation": split_index(samples, "validation", NUM_JUDGED),
        "test": split_index(samples, "test", NUM_JUDGED),
    }
    z = {name: read(encoder, samples, places, encoder).mean(1) for name, places in index.items()}
    labels = {name: samples.labels[places] for name, places in index.items()}
    probe = RidgeClassifier().fit(z["train"], labels["train"], z["validation"], labels["validation"])
    counts = torch.zeros(samples.num_classes, samples.num_classes, dtype=torch.long)
    said = probe.predict(z["test"])
    counts.index_put_((labels["test"], said), torch.ones_like(said), accumulate=True)
    return {"confusion": counts.numpy(), "names": np.array(samples.names)}


def _numbers(x: torch.Tensor) -> np.ndarray:
    return x[..., :MOST_CHANNELS].float().cpu().numpy()
