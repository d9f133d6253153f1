"""The geometry of image embeddings as one instrument: a diagnosis to read beside the probes, never a score."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from jepalab.data.augmentation import Crop
from jepalab.instruments.geometry import (
    alpha_req,
    collapse_meters,
    debiased_cka,
    effective_rank,
    lidar,
    uniformity,
)
from jepalab.instruments.labelled import SAMPLES_AT_ONCE, LabelledSubject, full_precision, observe, read, tokens

NUM_ROWS = 5_000
NUM_PAIRED = 2_000
LARGEST_SIDE = 32
NUM_STATES, NUM_VIEWS = 256, 8
NUM_TOKEN_IMAGES = 512


def image_geometry(subject: LabelledSubject, *, num_images: int = NUM_ROWS, seed: int = 0) -> dict[str, float]:
    """RankMe (uncentred and centred), effective rank, alpha-ReQ, LiDAR, uniformity, CKA with the pixels, token shares.

    On the pooled output for up to num_images test images. LiDAR's classes are 256 images, each seen through 8 random
    crops and flips, those of training. What is undefined is left out: alpha-ReQ of a collapsed embedding, CKA of a
    constant one, token shares of an encoder with one token.
    """
    z = subject.test.z[:num_images]
    scores = collapse_meters(z) | {"effective_rank": effective_rank(z), "uniformity": uniformity(z)}
    if scores["rankme_centred"] > 1.5 and len(z) >= 4:
        scores["cka_with_pixels"] = debiased_cka(z[:NUM_PAIRED], _pixels(subject, min(NUM_PAIRED, len(z))))
    if scores["rankme_centred"] > 4:
        law = alpha_req(z)
        scores |= {"alpha_req": law.slope, "alpha_req_fit_r2": law.r2}
    if scores["rankme_centred"] > 0:
        scores["lidar"] = lidar(_views(subject, seed))
    seen = tokens(subject, "test", NUM_TOKEN_IMAGES).z
    return scores if seen.shape[1] == 1 else scores | token_geometry(seen)


def token_geometry(z: Float[Tensor, "n t d"]) -> dict[str, float]:
    """How much of the tokens' variance their position explains, and how much the image: a check for a shortcut.

    position_share        of the variance of single tokens, the part that position alone explains: near 1, tokens say
                          where they are and not what is there. Corrected for the noise of a mean over n images.
    image_share           the part that the image alone explains, corrected alike; mean pooling keeps this part.
    token_std_positions   root mean square over dimensions of the spread across the positions of one image.
    token_std_images      the same across the images at one position; 0 if all images look alike.

    All are left out where the tokens do not vary at all. Needs two images and two tokens.
    """
    num_images, num_tokens, _ = z.shape
    if num_images < 2 or num_tokens < 2:
        raise ValueError(f"wanted at least 2 images of at least 2 tokens, got {num_images} of {num_tokens}")
    z = z.double()
    across_images = float(z.var(dim=0).sum(dim=-1).mean())
    across_positions = float(z.var(dim=1).sum(dim=-1).mean())
    # A mean over n rows still holds 1 / n of the variance within them: analysis of variance takes it out.
    position = float(z.mean(dim=0).var(dim=0).sum()) - across_images / num_images
    image = float(z.mean(dim=1).var(dim=0).sum()) - across_positions / num_tokens
    scores = {
        "token_std_positions": (across_positions / z.shape[2]) ** 0.5,
        "token_std_images": (across_images / z.shape[2]) ** 0.5,
    }
    if across_images + across_positions == 0:
        return {}
    return scores | {
        "position_share": max(0.0, position) / (max(0.0, position) + across_images),
        "image_share": max(0.0, image) / (max(0.0, image) + across_positions),
    }


def _views(subject: LabelledSubject, seed: int) -> Float[Tensor, "n q d"]:
    crop, generator = Crop(), torch.Generator().manual_seed(seed)

    def embed(x: Tensor) -> Tensor:
        with full_precision(x.device):
            seen = crop(x[:, 0].repeat_interleave(NUM_VIEWS, dim=0), size=x.shape[-1], generator=generator)[:, None]
        parts = [subject.encoder(part).float().mean(dim=1) for part in seen.split(SAMPLES_AT_ONCE)]
        return torch.cat(parts).unflatten(0, (len(x), NUM_VIEWS))

    return read(subject.encoder, subject.samples, subject.test.index[:NUM_STATES], embed, size=subject.size)


def _pixels(subject: LabelledSubject, num_images: int) -> Float[Tensor, "n p"]:
    x = observe(subject.samples, subject.test.index[:num_images], device=torch.device("cpu"))[:, 0]
    if max(x.shape[2:]) > LARGEST_SIDE:  # CKA costs the square of the number of pixels
        x = adaptive_avg_pool2d(x, LARGEST_SIDE)
    return x.flatten(1)
