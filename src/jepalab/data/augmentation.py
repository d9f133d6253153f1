"""Random crops, flips and colours of a batch of pictures as matrix products; no torchvision, on any device.

A resized crop is separable: rows @ picture @ columns, with one small matrix a picture for each axis, which also holds
the flip. Brightness, contrast, saturation, hue and grey are affine in a pixel's colour, so a picture has one matrix for
all of them. Random numbers come from a CPU generator, so a picture looks the same on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
# NTSC's luma and the two chroma axes; a rotation of the chroma plane is a change of hue.
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
NUM_TRIES = 10


@dataclass(frozen=True)
class Plain:
    """No augmentation: resized where the size differs, else untouched."""

    def __call__(
        self, x: Float[Tensor, "b c h w"], *, size: int, generator: torch.Generator
    ) -> Float[Tensor, "b c s s"]:
        if x.shape[-2:] == (size, size):
            return x
        boxes = torch.tensor([0.0, 0.0, x.shape[-2], x.shape[-1]]).expand(len(x), 4)
        return resized_crops(x, boxes, torch.zeros(len(x), dtype=torch.bool), size=size)


@dataclass(frozen=True)
class Crop:
    """A random crop, resized, and a flip: what MAE (2111.06377) trains with; I-JEPA (2301.08243) crops and never flips.

    scale  the crop's share of the area, uniform in this range; ratio its width by height, log-uniform.
    flip   the probability of a mirror image.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1 or not 0 < self.ratio[0] <= self.ratio[1] or not 0 <= self.flip <= 1:
            raise ValueError(
                f"A crop needs 0 < scale <= 1, ascending ranges and a flip in [0, 1], got scale={self.scale}, "
                f"ratio={self.ratio}, flip={self.flip}."
            )

    def __call__(
        self, x: Float[Tensor, "b c h w"], *, size: int, generator: torch.Generator
    ) -> Float[Tensor, "b c s s"]:
        boxes = self.boxes(len(x), height=x.shape[-2], width=x.shape[-1], generator=generator)
        flips = torch.rand(len(x), generator=generator) < self.flip
        return resized_crops(x, boxes, flips, size=size)

    def boxes(self, num: int, *, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "num 4"]:
        """Top, left, height and width of each crop in pixels, not rounded.

        As in torchvision the first of ten draws that fits is taken; where none does, the last is cut to the picture.
        """
        draws = torch.rand(4, num, NUM_TRIES, generator=generator)
        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * draws[0]) * (height * width)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = (low + (high - low) * draws[1]).exp()
        heights, widths = (area / ratio).sqrt(), (area * ratio).sqrt()
        # argmax finds the first True; without any it finds 0, as good a draw to cut as another.
        fitting = ((heights <= height) & (widths <= width)).int().argmax(1, keepdim=True)
        heights = heights.gather(1, fitting)[:, 0].clamp_max(height)
        widths = widths.gather(1, fitting)[:, 0].clamp_max(width)
        top, left = draws[2, :, 0] * (height - heights), draws[3, :, 0] * (width - widths)
        return torch.stack([top, left, heights, widths], 1)


@dataclass(frozen=True)
class Views:
    """Views of one picture that agree in content only, as LeJEPA (2511.08544) and VICReg (2105.04906) compare them.

    crop               the part that is shown.
    jitter             how far brightness, contrast, saturation and hue move, as torchvision's ColorJitter counts.
    jitter_probability, grey, blur, solarize  the share of pictures to which each happens. Blur is off, as is usual
                       for small pictures; on large ones (2105.04906) it is 0.5.
    """

    crop: Crop = Crop(scale=(0.2, 1.0))
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: float = 0.0
    solarize: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.jitter_probability, self.grey, self.blur, self.solarize)
        if not all(0 <= share <= 1 for share in shares) or not all(0 <= reach <= 1 for reach in self.jitter):
            raise ValueError(f"Wanted probabilities and jitter in [0, 1], got {self}.")

    def __call__(
        self, x: Float[Tensor, "b c h w"], *, size: int, generator: torch.Generator
    ) -> Float[Tensor, "b c s s"]:
        x = self.crop(x, size=size, generator=generator)
        # All numbers are drawn whether used or not, so that one probability does not move the dice of another.
        chosen = torch.rand(4, len(x), generator=generator)
        draws = torch.rand(4, len(x), generator=generator) * 2 - 1
        sigmas = 0.1 + 1.9 * torch.rand(len(x), generator=generator)
        reach = torch.tensor(self.jitter)[:, None] * (chosen[0] < self.jitter_probability)
        brightness, contrast, saturation = (1 + reach * draws)[:3].clamp_min(0)
        x = change_colours(x, brightness, contrast, saturation, (reach * draws)[3], chosen[1] < self.grey)
        x = blur(x, sigmas, chosen[2] < self.blur)
        return solarize(x, chosen[3] < self.solarize)


Augmentation = Plain | Crop | Views


def resized_crops(
    x: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b 4"], flips: Bool[Tensor, " b"], *, size: int
) -> Float[Tensor, "b c s s"]:
    """Each picture's box (top, left, height, width) resized to size x size, antialiased and bilinear, flips mirrored.

    Equal to Pillow's resize(box=..., BILINEAR) in floats.
    """
    top, left, height, width = boxes.to(x.device).unbind(1)
    flips = flips.to(x.device)
    # A mirror image is read from the box's other end, backwards.
    left, step = torch.where(flips, left + width, left), torch.where(flips, -width, width) / size
    return _separable(
        x, _interpolation(top, height / size, x.shape[-2], size), _interpolation(left, step, x.shape[-1], size)
    )


def change_colours(
    x: Float[Tensor, "b c h w"],
    brightness: Float[Tensor, " b"],
    contrast: Float[Tensor, " b"],
    saturation: Float[Tensor, " b"],
    hue: Float[Tensor, " b"],
    grey: Bool[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """Brightness, contrast, saturation (factors, 1 leaves all as it is), hue (in turns), then grey, clamped once.

    torchvision applies them in random order, clamps after each, and turns hue in HSV; the turn here is linear, in YIQ.
    Of pictures with one channel, brightness and contrast alone change.
    """
    channels = x.shape[1]
    if channels not in {1, 3}:
        raise ValueError(f"Colours are changed in pictures with 1 or 3 channels, got {channels}.")
    luma = torch.tensor(LUMA if channels == 3 else (1.0,))
    to_grey = luma.expand(channels, -1)
    matrix = torch.eye(channels).expand(len(x), -1, -1)
    if channels == 3:
        matrix = _turned(hue) @ (saturation[:, None, None] * matrix + (1 - saturation)[:, None, None] * to_grey)
        matrix = torch.where(grey[:, None, None], to_grey @ matrix, matrix)
    # Contrast moves a pixel from the picture's mean grey; hue and saturation leave luma, and with it that mean, alone.
    matrix = (matrix * (brightness * contrast)[:, None, None]).to(x.device, x.dtype)
    mean = torch.einsum("c,bchw->b", luma.to(x.device, x.dtype), x) / x[0, 0].numel()
    offset = mean * (brightness * (1 - contrast)).to(x.device, x.dtype)
    changed = torch.baddbmm(offset[:, None, None].expand(-1, channels, 1), matrix, x.flatten(2))
    return changed.clamp_(0, 1).view_as(x)


def blur(
    x: Float[Tensor, "b c h w"], sigmas: Float[Tensor, " b"], chosen: Bool[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """A Gaussian blur of `sigmas` pixels on the chosen pictures; at the borders the weights inside sum to one."""
    if not chosen.any():
        return x
    places = chosen.nonzero().flatten().to(x.device)
    rows, columns = (_gaussian(sigmas[chosen].to(x.device), length) for length in x.shape[-2:])
    return x.index_copy(0, places, _separable(x[places], rows, columns))


def solarize(x: Float[Tensor, "b c h w"], chosen: Bool[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Inverts the bright half of each chosen picture's values."""
    return torch.where((x >= 0.5) & chosen.to(x.device)[:, None, None, None], 1 - x, x)


def _interpolation(start: Tensor, step: Tensor, num_in: int, num_out: int) -> Float[Tensor, "b o i"]:
    """Weights of input pixels in output pixels: triangles that widen with the downscale, as antialiasing needs.

    start, step  where the first output pixel begins, and how far one goes, in input pixels; backwards if negative.
    """
    steps = torch.arange(num_out, device=start.device) + 0.5
    centres = start[:, None] + steps * step[:, None]
    sharpness = 1 / step.abs().clamp_min(1)
    pixels = (torch.arange(num_in, device=start.device) + 0.5) * sharpness[:, None]
    distances = (pixels[:, None] - (centres * sharpness[:, None])[..., None]).abs_()
    weights = distances.neg_().add_(1).clamp_min_(0)
    return weights.div_(weights.sum(-1, keepdim=True))


def _gaussian(sigmas: Tensor, length: int) -> Float[Tensor, "b i i"]:
    places = torch.arange(length, device=sigmas.device)
    return (-((places - places[:, None]) / sigmas[:, None, None]).square() / 2).softmax(-1)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T for each channel."""
    channels = x.shape[1]
    along = (x.flatten(1, 2) @ columns.to(x.dtype).mT).unflatten(1, (channels, -1))
    return rows.to(x.dtype)[:, None] @ along


def _turned(hue: Float[Tensor, " b"]) -> Float[Tensor, "b 3 3"]:
    angle = 2 * math.pi * hue
    turn = torch.zeros(len(hue), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    yiq = torch.tensor(YIQ)
    return yiq.inverse() @ turn @ yiq
