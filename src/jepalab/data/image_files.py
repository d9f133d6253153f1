"""One image file, whatever its encoding, as a square of bytes: what is read, how it is converted, what is refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, features

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
# Those that this Pillow, or a plugin that is installed, reads beside them.
SUFFIXES |= {".avif"} if features.check("avif") else set()
HEIF = {".heic", ".heif"} if find_spec("pillow_heif") else set[str]()
SUFFIXES |= HEIF

# What Pillow raises on files that are damaged, empty, cut short, huge or no pictures at all.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

# EXIF tag 274 says how the camera was held; what undoes it.
ORIENTATION = 274
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def opened(file: Path | io.BytesIO) -> Iterator[Image.Image]:
    """The image, not yet decoded; raises one of UNREADABLE where it is damaged, too large or made of floats."""
    if HEIF:
        _know_heif()
    with Image.open(file) as image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {Image.MAX_IMAGE_PIXELS}")
        if image.mode == "F":
            raise ValueError("its pixels are floats, which have no agreed white; save it with 8 or 16 bits")
        yield image


def shorter_side(content: bytes | np.ndarray) -> int:
    """Of an encoded picture, by its head alone, or of pixels [h w] or [h w c]."""
    if isinstance(content, np.ndarray):
        return min(content.shape[:2])
    with opened(io.BytesIO(content)) as image:
        return min(image.size)


@cache
def _know_heif() -> None:
    import_module("pillow_heif").register_heif_opener()


@contextmanager
def strict_about_bombs() -> Iterator[None]:
    """Makes Pillow's warning about huge pictures an error. Threads share the filters: hold it around all of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(content: Path | bytes | np.ndarray, *, size: int) -> UInt8[np.ndarray, "s s c"]:
    """The largest central square of a picture as size x size bytes; one channel where all its pixels are grey.

    Transparent pixels lie on white; 16 bits become 8; CMYK, palettes and the like become RGB; the first frame stands
    for an animation; EXIF orientation is undone. A picture of exactly this size keeps its pixels, others are resized
    with antialiasing (bicubic).

    Raises:
        one of UNREADABLE, for files that cannot be read.
    """
    if isinstance(content, np.ndarray):
        return _bytes(_square(Image.fromarray(content), size))
    with opened(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
        if min(image.size) >= 4 * size:
            # A JPEG decodes at 1/2, 1/4 or 1/8 at a fraction of the cost; at least twice the size is left to filter.
            image.draft(None, (2 * size, 2 * size))
        orientation = image.getexif().get(ORIENTATION)
        square = _square(image, size)
        return _bytes(square.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else square)


def _square(image: Image.Image, size: int) -> Image.Image:
    image = _plain(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def _plain(image: Image.Image) -> Image.Image:
    """The image as RGB, as 8-bit grey, or as floats up to 255 where it had 16 bits."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image, dtype=np.float32) / 257)
    if image.mode in {"1", "L"} and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def _bytes(image: Image.Image) -> UInt8[np.ndarray, "s s c"]:
    array = np.asarray(image)
    if array.dtype != np.uint8:
        array = array.round().clip(0, 255).astype(np.uint8)
    if array.ndim == 2:
        return array[..., None]
    red, green, blue = np.moveaxis(array, -1, 0)
    is_grey = (red == green).all() and (green == blue).all()
    return array[..., :1] if is_grey else array
