"""Clips as animated pictures that need no script: WebP files inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jepalab.compare.image_pictures import GAP

FRAME_MILLISECONDS, LAST_MILLISECONDS = 160, 480  # a clip rests on its last frame, so that its end can be seen
SHOWN_PIXELS = 80  # a frame below this is shown larger, in whole steps
Movies = UInt8[np.ndarray, "k t h w _"]


def encode_movies(movies: Movies) -> tuple[str, int, int]:
    """The clips side by side, playing together without end, as the data: address of a WebP; its width and height."""
    num, t, h, w, _ = movies.shape
    row = np.full((t, h, num * (w + GAP) - GAP, 3), 255, dtype=np.uint8)
    for i, movie in enumerate(in_colour(movies)):
        row[:, :, i * (w + GAP) : i * (w + GAP) + w] = movie
    first, *others = [Image.fromarray(frame) for frame in row]
    file = io.BytesIO()
    pauses = [FRAME_MILLISECONDS] * (t - 1) + [LAST_MILLISECONDS]
    first.save(file, format="WEBP", save_all=True, append_images=others, duration=pauses, loop=0, lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", row.shape[2], h


def on_pixels(patches: np.ndarray, grid: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """[k n ...] on a grid of times, rows and columns to [k t h w ...]: each patch covers its pixels."""
    found = patches.reshape(len(patches), *grid, *patches.shape[2:])
    for axis, (size, length) in enumerate(zip(grid, shape, strict=True), 1):
        found = found.take(np.arange(length) * size // length, axis=axis)
    return found


def in_colour(movies: Movies) -> Movies:
    return np.repeat(movies, 3, axis=-1) if movies.shape[-1] == 1 else movies


def movie_card(title: str, rows: Mapping[str, Movies], condition: str) -> str:
    """Rows of clips below each other, one animation each."""
    card = Element("div", {"class": "strips"})
    if title:
        SubElement(card, "h4").text = title
    for name, movies in rows.items():
        line = SubElement(card, "div", {"class": "strip"})
        SubElement(line, "span").text = name
        source, width, height = encode_movies(movies)
        zoom = max(1, SHOWN_PIXELS // movies.shape[2])
        words = " ".join(filter(None, [f"{condition}, {len(movies)} clips, animated:", title, name]))
        SubElement(line, "img", {"src": source, "alt": words, "width": str(zoom * width), "height": str(zoom * height)})
    return ElementTree.tostring(card, encoding="unicode", method="html")
