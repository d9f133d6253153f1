"""Any folder of images as small grey pictures: the object that moves, or the background behind it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from jepalab.data.image_files import SUFFIXES, UNREADABLE, opened, strict_about_bombs
from jepalab.data.sprites import Sprites


@dataclass(frozen=True)
class Pictures:
    """The readable images of a folder.

    images   [m s s] grey in [0, 1], the largest central square of each, resized.
    classes  [m] index into `names`: the sub-folder each image lay in.
    skipped  what could not be read, and why.
    """

    images: Float[Tensor, "m s s"]
    classes: Int[Tensor, " m"]
    names: list[str]
    skipped: dict[Path, str]


def read_pictures(folder: Path, *, size: int) -> Pictures:
    """Reads every image below `folder`, in the order of their names; unreadable files are counted, not fatal."""
    if not folder.is_dir():
        raise ValueError(f"Wanted a folder of images, but {folder} is not a folder.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    images, classes, skipped = [], [], {}
    names = sorted({str(path.parent.relative_to(folder)) for path in files})
    with strict_about_bombs():
        for path in files:
            try:
                images.append(_grey_square(path, size))
                classes.append(names.index(str(path.parent.relative_to(folder))))
            except UNREADABLE as error:
                skipped[path] = f"{type(error).__name__}: {error}"
    if not images:
        why = f"{len(skipped)} files could not be read, the first: {next(iter(skipped.items()))}" if skipped else ""
        wanted = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"Found no readable image below {folder} (looked for {wanted}). {why}".strip())
    if skipped:
        first, why = next(iter(skipped.items()))
        print(
            f"Skipped {len(skipped)} of {len(files)} images below {folder}; the first: {first} ({why}).",
            file=sys.stderr,
        )
    return Pictures(torch.from_numpy(np.stack(images)), torch.tensor(classes), names, skipped)


def folder_sprites(folder: Path, *, size: int = 12) -> Sprites:
    """The images of a folder as moving objects; within each class two thirds train, a sixth validate, a sixth test."""
    pictures = read_pictures(folder, size=size)
    split = torch.zeros(len(pictures.images), dtype=torch.long)
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    for label in range(len(pictures.names)):
        members = order[pictures.classes[order] == label]
        split[members[len(members) * 4 // 6 : len(members) * 5 // 6]] = 1
        split[members[len(members) * 5 // 6 :]] = 2
    counts = split.bincount(minlength=3).tolist()
    if min(counts) == 0:
        raise ValueError(
            f"{len(split)} images below {folder} do not fill a train, a validation and a test part; "
            "every class needs at least 4 images, better 30."
        )
    return Sprites(pictures.images, pictures.classes, split)


def background_images(folder: Path, *, size: int) -> Float[Tensor, "m h w"]:
    """The images of a folder as backgrounds of size x size pixels."""
    return read_pictures(folder, size=size).images


def _grey_square(path: Path, size: int) -> np.ndarray:
    with opened(path) as image:
        levels = 65535.0 if image.mode.startswith("I") else 255.0
        grey = image if levels == 65535.0 else image.convert("L")
        side = min(grey.size)
        left, top = (grey.width - side) // 2, (grey.height - side) // 2
        square = grey.resize((size, size), Image.Resampling.BOX, (left, top, left + side, top + side))
        return (np.asarray(square, dtype=np.float32) / levels).clip(0, 1)
