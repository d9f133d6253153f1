"""The geometry of image embeddings: that of any sample's, and what only pictures allow, their crops as views."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from jepalab.data.augmentation import Crop
from jepalab.instruments.geometry import debiased_cka, lidar
from jepalab.instruments.labelled import SAMPLES_AT_ONCE, LabelledSubject, full_precision, observe, read
from jepalab.instruments.sample_geometry import NUM_ROWS, sample_geometry

NUM_PAIRED = 2_000
LARGEST_SIDE = 32
NUM_STATES, NUM_VIEWS = 256, 8


def image_geometry(
    subject: LabelledSubject, *, crop: Crop | None = None, num_images: int = NUM_ROWS, seed: int = 0
) -> dict[str, float]:
    """`sample_geometry`, LiDAR and CKA with the pixels, on the pooled output for up to num_images test images.

    Of the crops that LiDAR sees, `alignment` too: the mean squared distance of two of a picture at unit length, 0 where
    crops look alike and at most 4 (Wang & Isola 2020, arXiv 2005.10242); read it beside `uniformity`.

    crop  through which LiDAR's classes, 256 images, are seen 8 times each; if not given, the one that the run trains
          with, or `Crop()` where it trains with other views.

    What is undefined is left out: CKA of a constant embedding.
    """
    scores = sample_geometry(subject, num_samples=num_images)
    z = subject.test.z[:NUM_PAIRED]
    if scores["rankme_centred"] > 1.5 and len(z) >= 4:
        scores["cka_with_pixels"] = debiased_cka(z, _pixels(subject, len(z)))
    if scores["rankme_centred"] > 0:
        views = _views(subject, crop or subject.crop or Crop(), seed)
        scores["lidar"] = lidar(views)
        one, other = normalize(views[:, :2], dim=2).unbind(1)
        scores["alignment"] = float((one - other).square().sum(1).mean())
    return scores


def _views(subject: LabelledSubject, crop: Crop, seed: int) -> Float[Tensor, "n q d"]:
    generator = torch.Generator().manual_seed(seed)

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
