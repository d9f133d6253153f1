"""What is left of recognition when test images are corrupted (after Hendrycks & Dietterich, ICLR 2019, 1903.12261).

The linear probe is trained on clean images; five corruptions at three severities each reach the encoder on test only.
Strengths are of our own, stated below, and scale with the picture's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, pad

from jepalab.instruments.labelled import LabelledSubject, full_precision, known_classes, read
from jepalab.instruments.probes import RidgeClassifier

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def noise(x: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Adds Gaussian noise of standard deviation `strength` to each number."""
    return (x + strength * torch.randn(x.shape, generator=generator).to(x.device)).clamp(0, 1)


def blur(x: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Gaussian blur; `strength` is its standard deviation as a share of the height."""
    sigma = strength * x.shape[2]
    radius = max(1, math.ceil(3 * sigma))
    place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = (-0.5 * (place / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = pad(x, (radius, radius, radius, radius), mode="replicate")
    x = conv2d(x, kernel, groups=x.shape[1])
    return conv2d(x, kernel.mT, groups=x.shape[1]).clamp(0, 1)


def contrast(x: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Draws every number towards the picture's mean; `strength` is the share of contrast that is lost."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (1 - strength) * (x - mean)


def brightness(x: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Adds `strength` to each number; what goes above 1 is white."""
    return (x + strength).clamp(0, 1)


def pixelate(x: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Averages over larger pixels; `strength` is the share of rows and columns that is lost."""
    height, width = x.shape[2:]
    small = adaptive_avg_pool2d(x, (max(1, round((1 - strength) * height)), max(1, round((1 - strength) * width))))
    return interpolate(small, size=(height, width), mode="nearest")


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, float, float]]] = {
    "noise": (noise, (0.04, 0.08, 0.16)),
    "blur": (blur, (1 / 64, 1 / 32, 1 / 16)),
    "contrast": (contrast, (0.3, 0.6, 0.8)),
    "brightness": (brightness, (0.1, 0.2, 0.4)),
    "pixelate": (pixelate, (0.5, 0.625, 0.75)),
}


def robustness(subject: LabelledSubject, *, num_images: int = 1000, seed: int = 0) -> dict[str, float]:
    """Test accuracy under each corruption, the mean over its severities; over all; and clean, on the same images.

    num_images  of the test split; each passes through the encoder fifteen times.

    `robust_relative_drop` is (clean - corrupt) / (clean - chance), chance being what the largest training class
    scores; 0 loses nothing, 1 everything. It is left out where clean recognition is no better than chance.
    """
    known_classes(subject.train)
    train, validation, test = subject.train, subject.validation, subject.test
    probe = RidgeClassifier().fit(train.z, train.labels, validation.z, validation.labels)
    truth = test.labels[:num_images]
    clean = probe.score(test.z[:num_images], truth)
    scores = {"robust_clean": clean, "robust_validation": probe.score(validation.z, validation.labels)}
    for name, (corrupt, strengths) in CORRUPTIONS.items():
        found = [probe.score(_corrupted(subject, corrupt, s, num_images, seed), truth) for s in strengths]
        scores[f"robust_{name}"] = sum(found) / len(found)
        scores |= {f"severity_{name}_{i}": each for i, each in enumerate(found, 1)}
    scores["robust_mean"] = sum(scores[f"robust_{name}"] for name in CORRUPTIONS) / len(CORRUPTIONS)
    chance = float((truth == train.labels.mode().values).double().mean())
    if clean > chance:
        scores["robust_relative_drop"] = (clean - scores["robust_mean"]) / (clean - chance)
    return scores


def _corrupted(
    subject: LabelledSubject, corrupt: Corruption, strength: float, num_images: int, seed: int
) -> Float[Tensor, "n d"]:
    generator = torch.Generator().manual_seed(seed)  # the same noise for every arm, and at every strength

    def embed(x: Tensor) -> Tensor:
        with full_precision(x.device):
            x = corrupt(x[:, 0], strength, generator)[:, None]
        return subject.encoder(x).float().mean(dim=1)

    return read(subject.encoder, subject.samples, subject.test.index[:num_images], embed, size=subject.size)
