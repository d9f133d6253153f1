"""A moving object under a nuisance with every dial, and where frozen encoders and floors stand under it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from jepalab.data.moving import MovingObject
from jepalab.data.nuisance import Coherence, Driver, Nuisance
from jepalab.data.sprites import digits
from jepalab.web.looking_arguments import as_bytes, as_text, names, number, one_of, whole
from jepalab.web.looking_clips import NUM_CLIPS, Clips, load_moving, preview
from jepalab.web.tasks import Arguments, Tell, wanted

NUM_FRAMES = 24  # of the clip that is shown
MOST_RUNS = 32
COHERENCES = tuple(each for each in get_args(Coherence) if each != "image")  # that one wants a folder of images


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """{clip, points, num_test, seconds}; `tell` hears {"clip": ...}, and {"point": ...} as soon as each is known.

    Arguments: strength, persistence, share, scale (of the object), max_step, coherence, driver, seed, runs (names),
    floors (whether they are read too).

    clip    {side, num_frames, pixels}: base64 of grey bytes, frame by frame.
    points  [{name, state, position, velocity, nuisance, classes}], R2 on test clips; {name, error} where a run cannot
            be read. Floors come first.
    """
    began = time.perf_counter()
    stream, runs = _world(arguments), names(arguments, "runs", most=MOST_RUNS)
    clip = _clip(stream)
    tell({"clip": clip})
    clips, points = Clips.of(stream), []
    for name, encoder in clips.floors() if wanted(arguments, "floors", bool, default=True) else ():
        points.append({"name": name, "is_floor": True} | asdict(clips.read(encoder)))
        tell({"point": points[-1]})
    for name in runs:
        try:
            points.append({"name": name, "is_floor": False} | asdict(clips.read(load_moving(root, name))))
        except (ValueError, OSError) as problem:
            points.append({"name": name, "is_floor": False, "error": " ".join(str(problem).split())})
        tell({"point": points[-1]})
    seconds = time.perf_counter() - began
    return {"clip": clip, "points": points, "num_test": NUM_CLIPS["test"], "seconds": seconds}


def _world(arguments: Arguments) -> MovingObject:
    """The world that the dials say."""
    nuisance = Nuisance(
        strength=number(arguments, "strength", low=0.0, high=4.0, default=1.0),
        persistence=number(arguments, "persistence", low=0.0, high=1.0, default=0.0),
        share=number(arguments, "share", low=0.05, high=1.0, default=1.0),
        coherence=cast("Coherence", one_of(arguments, "coherence", COHERENCES, default="patch")),
        driver=cast("Driver", one_of(arguments, "driver", get_args(Driver), default="chance")),
    )
    return MovingObject(
        sprites=digits(scale=number(arguments, "scale", low=0.75, high=2.5, default=1.25)),
        nuisance=nuisance,
        max_step=number(arguments, "max_step", low=0.02, high=0.6, default=0.2),
        seed=whole(arguments, "seed", low=0, high=1_000, default=0),
    )


def _clip(stream: MovingObject) -> dict[str, Any]:
    x = preview(stream, NUM_FRAMES).x[0, :, 0]
    pixels = as_text(as_bytes(x, top=1 + stream.nuisance.strength))
    return {"side": stream.size, "num_frames": NUM_FRAMES, "pixels": pixels, "top": 1 + stream.nuisance.strength}
