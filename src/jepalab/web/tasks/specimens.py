"""Pictures to look at: handwritten digits that come with jepalab, and pictures of a run's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepalab.data.sprites import digits
from jepalab.instruments.image_pictures import places
from jepalab.instruments.posthoc import read_pixels
from jepalab.web.looking_arguments import as_rgb
from jepalab.web.looking_pictures import picture_run
from jepalab.web.tasks import Arguments, Tell, wanted

NUM_PICTURES = 12


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """{side, pictures: [{pixels, label}], source}: test pictures of a run, or ten digits where `run` is "".

    pixels  base64 of the red, green and blue bytes, row by row.
    """
    name = wanted(arguments, "run", str, default="")
    if not name:
        return _digits()
    shown = picture_run(root, name)
    index = places(shown.samples, "test", NUM_PICTURES)
    labels = [shown.samples.names[i] if i >= 0 else "" for i in shown.samples.labels[index].tolist()]
    x = read_pixels(shown.samples, index, shown.side)
    found = [{"pixels": as_rgb(each), "label": label} for each, label in zip(x, labels, strict=True)]
    return {"side": shown.side, "pictures": found, "source": shown.samples.source}


def _digits() -> dict[str, Any]:
    """The first test digit of each class, as it was scanned."""
    sprites = digits()
    test = (sprites.split == 2).nonzero().flatten()
    first = [test[(sprites.classes[test] == k).int().argmax()] for k in range(sprites.num_classes)]
    pictures = [{"pixels": as_rgb(sprites.images[i][None]), "label": str(k)} for k, i in enumerate(first)]
    return {"side": sprites.images.shape[-1], "pictures": pictures, "source": "UCI optdigits"}
