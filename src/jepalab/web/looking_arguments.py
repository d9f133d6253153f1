"""What a page may send: numbers in a range, words out of a list, pixels of one size. Nothing else passes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepalab.data.augmentation import LUMA
from jepalab.web.tasks import Arguments, wanted

SMALLEST_SIDE, LARGEST_SIDE = 4, 512


def number(arguments: Arguments, name: str, *, low: float, high: float, default: float | None = None) -> float:
    """A number in [low, high]; NaN is in no range."""
    value = wanted(arguments, name, float, default=default)
    if not low <= value <= high:
        raise ValueError(f"Wanted {name} between {low:g} and {high:g}, got {value:g}.")
    return value


def whole(arguments: Arguments, name: str, *, low: int, high: int, default: int | None = None) -> int:
    """A whole number in [low, high]."""
    value = wanted(arguments, name, int, default=default)
    if not low <= value <= high:
        raise ValueError(f"Wanted {name} between {low} and {high}, got {str(value)[:20]}.")
    return value


def one_of(arguments: Arguments, name: str, choices: Sequence[str], *, default: str | None = None) -> str:
    """One of these words."""
    value = wanted(arguments, name, str, default=default)
    if value not in choices:
        raise ValueError(f"Wanted {name} out of {', '.join(choices)}, got {value[:40]!r}.")
    return value


def names(arguments: Arguments, name: str, *, most: int) -> list[str]:
    """A list of so many words at most."""
    value = wanted(arguments, name, list, default=[])
    if len(value) > most or not all(isinstance(each, str) for each in value):
        raise ValueError(f"Wanted {name} as a list of {most} names at most, got {len(value)} entries.")
    return value


def picture(arguments: Arguments, *, side: int, channels: int) -> Float[Tensor, "1 1 c h w"]:
    """The picture that was sent: base64 of raw bytes, red, green and blue of each pixel, row by row, and nothing else.

    side      pixels it must have in height and width.
    channels  3, or 1 for an encoder of grey pictures: its luma.
    """
    text = wanted(arguments, "picture", str)
    if not SMALLEST_SIDE <= side <= LARGEST_SIDE or channels not in {1, 3}:
        raise ValueError(f"This page shows pictures of 1 or 3 channels and {LARGEST_SIDE} pixels at most.")
    num_bytes = side * side * 3
    if len(text) != 4 * -(-num_bytes // 3):
        raise ValueError(
            f"Wanted a picture of {side} x {side} pixels, {num_bytes} bytes of red, green and blue as base64, got "
            f"{len(text)} characters."
        )
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise ValueError("Wanted the picture's bytes as base64, got something else.") from problem
    if len(raw) != num_bytes:
        raise ValueError(f"Wanted {num_bytes} bytes of a picture, got {len(raw)}.")
    pixels = torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).reshape(side, side, 3).copy())
    x = pixels.permute(2, 0, 1).float() / 255
    if channels == 1:
        x = (x * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    return x[None, None]


def as_bytes(x: Float[Tensor, "*lead h w"], *, top: float = 1.0) -> UInt8[np.ndarray, "*lead h w"]:
    """Values from 0 to `top` as bytes; what lies beyond is cut."""
    return (x.float().clamp(0, top) * (255 / top)).round().to(torch.uint8).cpu().numpy()


def as_text(pixels: UInt8[np.ndarray, "*shape"]) -> str:
    """Bytes as base64."""
    return base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()


def as_rgb(x: Float[Tensor, "c h w"]) -> str:
    """A picture in [0, 1], grey or in colour, as the base64 of its red, green and blue bytes, row by row."""
    return as_text(as_bytes(x.expand(3, -1, -1)).transpose(1, 2, 0))
