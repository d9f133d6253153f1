"""What an encoder of still pictures sees, as small arrays: masks, patch features, neighbours, attention, drawings.

Pictures come from the test split (from all where there is none), the same ones for every arm. All arrays are small:
a report draws them; nothing here is a score.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from jepalab.backbones.attention import Block
from jepalab.backbones.vit import ViT
from jepalab.data.sample_stream import SampleStream
from jepalab.data.samples import Samples
from jepalab.data.sprites import Split
from jepalab.instruments.labelled import device_of, encoder_named, evaluating, observe, read
from jepalab.instruments.patch_colours import patch_colours
from jepalab.instruments.posthoc import fit_decoder, pool, read_pixels, shrink
from jepalab.masks.drawing import MaskDrawer
from jepalab.objectives.denoise import Denoise
from jepalab.objectives.mae import MAE
from jepalab.types import Mask, Objective

NUM_PICTURES = 8
NUM_QUERIES, NUM_NEIGHBOURS = 6, 5
NUM_KNOWN, NUM_VALIDATION = 600, 60  # pictures that neighbours come from, and a decoder learns from
NUM_FITTED = 256  # pictures whose patches the principal components are fitted to
NUM_SAMPLES, NUM_SAMPLING_STEPS = 16, 25
Pixels = UInt8[np.ndarray, "k h w c"]


def draw_objective(objective: Objective, stream: SampleStream, *, encoder: str = "") -> dict[str, np.ndarray]:
    """Every picture that this objective and one of its encoders have something to show for, by name.

    encoder  by its name; the first, if empty. Masks and drawings are the objective's own, with its weights as trained.

    images                  [k h w c] uint8, test pictures that the others belong to.
    context, target         [k n] and [k g n] bool: patches that are seen, and those of each block that is predicted.
    features                [k n 3] uint8: the first principal components of patch features as red, green, blue.
    attention               [k n]: how much attention each patch receives in the last block, 1 on average.
    neighbours, same        [6 5 h w c] uint8: the training pictures nearest to each of the first 6; [6 5] 1 where the
                            label is the same, 0 where it is not, -1 where one is unknown.
    reconstructed           [k h w c] uint8: predictions of pixels at the targets, the picture elsewhere.
    samples                 [16 h w c] uint8: pictures drawn out of noise.
    decoded                 [k h w c] uint8: what a decoder trained afterwards draws from the frozen tokens.
    decoded_pooled          [k s s c] uint8: the same from the mean token alone, at most 32 pixels a side.
    """
    network, samples, size = encoder_named(objective, encoder), stream.samples, stream.size
    shown, known = places(samples, "test", NUM_PICTURES), places(samples, "train", NUM_KNOWN)
    z, z_known = (read(network, samples, index, network, size=size) for index in (shown, known))
    x = observe(samples, shown, device=device_of(objective), size=size)
    found = {"images": as_pixels(x)}
    with evaluating(objective), torch.no_grad():
        mask = draw_mask(objective, len(x))
        if mask is not None:
            found |= dict(zip(("context", "target"), mask_planes(mask, z.shape[1]), strict=True))
        if isinstance(network, ViT):
            found["attention"] = attention_received(network, x).cpu().numpy()
        if isinstance(objective, MAE):
            found["reconstructed"] = as_pixels(objective.reconstruct(x, mask))
        if isinstance(objective, Denoise):
            generator = torch.Generator().manual_seed(0)
            drawn = objective.sample(NUM_SAMPLES, generator=generator, num_steps=NUM_SAMPLING_STEPS)
            found["samples"] = as_pixels(drawn)
    if z.shape[1] > 1 and math.isqrt(z.shape[1]) ** 2 == z.shape[1] and z.shape[2] > 2:  # else no square of colours
        found["features"] = patch_colours(z, fitted=z_known[:NUM_FITTED])
    place, same = nearest(z, z_known, labels=samples.labels[shown], known=samples.labels[known])
    found |= {
        "neighbours": samples.read(known[place.flatten()]).unflatten(0, place.shape).numpy(),
        "same": same.numpy(),
    }
    checked = places(samples, "validation", NUM_VALIDATION)
    z_checked = read(network, samples, checked, network, size=size)
    x_known, x_checked = (read_pixels(samples, index, size) for index in (known, checked))
    decoder = fit_decoder(z_known, x_known, z_checked, x_checked)
    whole = fit_decoder(pool(z_known), shrink(x_known), pool(z_checked), shrink(x_checked))
    found |= {"decoded": as_pixels(decoder(z)[:, None]), "decoded_pooled": as_pixels(whole(pool(z))[:, None])}
    return found


def places(samples: Samples, split: Split, num_images: int) -> Int[Tensor, " n"]:
    """Places of images of a split, labelled or not, in an order drawn once and for all; of all if it is empty."""
    found = samples.indices(split)
    found = found if len(found) > 1 else torch.arange(len(samples))
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))][:num_images]


def draw_mask(objective: Objective, num_samples: int) -> Mask | None:
    """Masks as this objective draws them in training, without moving it on; None where it hides nothing."""
    drawer = next((part for part in objective.children() if isinstance(part, MaskDrawer)), None)
    if drawer is None:
        return None
    mask = drawer.sampler(num_samples, torch.Generator().manual_seed(0))
    return mask.map(lambda tensor: tensor.to(device_of(objective)))


def mask_planes(mask: Mask, num_patches: int) -> tuple[Bool[np.ndarray, "k n"], Bool[np.ndarray, "k g n"]]:
    """Which patches are context, and which are in each target block."""
    samples, blocks = mask.target.shape[:2]
    context = torch.zeros(samples, num_patches, dtype=torch.bool)
    context.scatter_(1, mask.context.cpu(), True)
    present = torch.ones_like(mask.target, dtype=torch.bool) if mask.present is None else mask.present
    # Counted, not set: an entry that only fills a block up repeats a place that may be there in earnest.
    count = torch.zeros(samples, blocks, num_patches, dtype=torch.int64)
    count.scatter_add_(2, mask.target.cpu(), present.long().cpu())
    return context.numpy(), (count > 0).numpy()


def attention_received(encoder: ViT, x: Float[Tensor, "b t *obs"]) -> Float[Tensor, "b n"]:
    """n times the mean over heads and queries of the last block's attention to each patch: 1 is an equal share."""
    block, seen = encoder.transformer.blocks[-1], []
    assert isinstance(block, Block)
    handle = block.register_forward_pre_hook(
        lambda module, given, named: seen.append((given[0], named.get("rotation"))), with_kwargs=True
    )
    encoder(x)
    handle.remove()
    q, k, _ = block.heads(*seen[0])
    weights = (q.float() @ k.float().mT * q.shape[-1] ** -0.5).softmax(-1)
    return weights.mean((1, 2)) * weights.shape[-1]


def nearest(
    z: Float[Tensor, "q n d"],
    z_known: Float[Tensor, "m n d"],
    *,
    labels: Int[Tensor, " q"],
    known: Int[Tensor, " m"],
) -> tuple[Int[Tensor, "f j"], Int[Tensor, "f j"]]:
    """For the first queries the places of the nearest known ones, by cosine of pooled and centred features.

    And whether those share the query's label: 1 or 0, and -1 where one of the two is unknown (-1).
    """
    pooled, pool = z[:NUM_QUERIES].mean(1), z_known.mean(1)
    closeness = normalize(pooled - pool.mean(0), dim=1) @ normalize(pool - pool.mean(0), dim=1).T
    place = closeness.topk(min(NUM_NEIGHBOURS, len(pool))).indices
    own, theirs = labels[: len(place), None], known[place]
    return place, torch.where((own < 0) | (theirs < 0), -1, (own == theirs).long())


def as_pixels(x: Float[Tensor, "b 1 c h w"]) -> Pixels:
    """Floats in [0, 1] as bytes, channels last."""
    return (x[:, 0].float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
