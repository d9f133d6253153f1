"""Matched possible and impossible clips, and how surprised a run and what learned nothing are by each frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.data.occluder_pairs import CONCEPTS, LEGAL
from jepalab.data.occluders import OccludedShapes, Pairs
from jepalab.instruments.foretelling import CopyLastFrame, Foretells, foretellers
from jepalab.instruments.surprise import Setting, both_errors, choose_setting, pairwise_accuracy, summed
from jepalab.recipes.surprise_arms import ExpectationBench, OccludedWorld, expect_embedding_vicreg
from jepalab.recipes.surprise_floors import FIRST_SEED
from jepalab.run import Run
from jepalab.types import Objective
from jepalab.web.looking import Opened, open_run
from jepalab.web.looking_arguments import as_bytes, as_text, number, one_of, whole
from jepalab.web.tasks import Arguments, Tell, wanted

NUM_PAIRS = 16
WITHOUT_RUN = Setting(4, "mean")


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """{kind, is_legal, side, num_frames, frame, context, possible, impossible, num_pairs, curves}.

    Arguments: run ("" for the baselines alone), kind (what is violated, or a legal change), pair (which of the 16),
    strength (of a television in the background; of a run it is its own).

    frame    the first that differs; possible, impossible  base64 of grey bytes, frame by frame.
    context  the first that errors count for: of a run, chosen on validation pairs as for its scores, and so is whether
             the mean or the largest error of a clip counts.
    curves   [{name, space, frames, possible, impossible, told_apart}] of the run, of an untrained network and of
             copying the last frame: mean squared errors at these frames over their mean on all clips, since every model
             has a scale of its own. `told_apart` is the share of the pairs whose impossible, or changed, clip
             has the larger error; a tie counts one half.
    """
    name = wanted(arguments, "run", str, default="")
    kind = one_of(arguments, "kind", (*CONCEPTS, *LEGAL), default="permanence")
    pair = whole(arguments, "pair", low=0, high=NUM_PAIRS - 1, default=0)
    strength = number(arguments, "strength", low=0.0, high=2.0, default=0.0)
    opened = open_run(root, name) if name else None
    stream: object = opened.run.stream if opened else OccludedWorld(strength=strength).stream(0)
    if not isinstance(stream, OccludedShapes):
        raise ValueError(f"{name} was not trained on shapes behind occluders; choose a run of an expect- recipe.")
    setting = _chosen(opened, stream) if opened else WITHOUT_RUN
    models = _models(name, opened.run.objective if opened else None, _untrained(opened.make if opened else None))
    pairs = (stream.legal if kind in LEGAL else stream.pairs)(kind, "test", NUM_PAIRS)
    top = 1 + stream.nuisance.strength
    return {
        "kind": kind,
        "is_legal": kind in LEGAL,
        "side": pairs.possible.shape[-1],
        "num_frames": pairs.possible.shape[1],
        "frame": int(pairs.frame[pair]),
        "context": setting.context,
        "possible": as_text(as_bytes(pairs.possible[pair, :, 0], top=top)),
        "impossible": as_text(as_bytes(pairs.impossible[pair, :, 0], top=top)),
        "num_pairs": NUM_PAIRS,
        "curves": [_curve(key, space, model, pairs, pair, setting) for key, (space, model) in models.items()],
    }


def _models(name: str, trained: Objective | None, untrained: Objective) -> Mapping[str, tuple[str, Foretells]]:
    """What is surprised, by the name of its curve, with the space of its errors."""
    found: dict[str, tuple[str, Foretells]] = {}
    for key, objective in (("run", trained), ("untrained", untrained)):
        if objective is None:
            continue
        known = foretellers(objective)
        if not known:
            raise ValueError(f"{name} predicts no future, so nothing can surprise it; choose another run.")
        found[key] = next(iter(known.items()))
    return found | {"copy": ("pixels", CopyLastFrame())}


def _untrained(make: Callable[[], Run] | None) -> Objective:
    """The run's own network before its first step; without a run, one of the JEPA's networks."""
    return _small_network() if make is None else _first_weights(make)


@cache
def _small_network() -> Objective:
    return expect_embedding_vicreg(ExpectationBench(seed=FIRST_SEED)).objective.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def _first_weights(make: Callable[[], Run]) -> Objective:
    return make().objective.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def _chosen(opened: Opened, stream: OccludedShapes) -> Setting:
    """The setting that the run's scores have, from fewer pairs; nothing foretold, nothing to choose."""
    known = foretellers(opened.run.objective)
    validation = {concept: stream.pairs(concept, "validation", NUM_PAIRS) for concept in stream.concepts}
    return choose_setting(next(iter(known.values())), validation)[0] if known else WITHOUT_RUN


@torch.no_grad()
def _curve(key: str, space: str, model: Foretells, pairs: Pairs, pair: int, setting: Setting) -> dict[str, Any]:
    first = setting.context
    possible, impossible = both_errors(model, pairs, context=first)
    stride = max(1, (pairs.possible.shape[1] - first) // possible.shape[1])  # models of clips foretell several frames
    usual = float(torch.cat([possible, impossible]).mean().clamp_min(1e-12))
    return {
        "name": key,
        "space": space,
        "frames": [first + stride * i for i in range(possible.shape[1])],
        "stride": stride,
        "possible": _scaled(possible[pair], usual),
        "impossible": _scaled(impossible[pair], usual),
        "told_apart": pairwise_accuracy(*(summed(each, over=setting.over) for each in (possible, impossible))),
    }


def _scaled(errors: Float[Tensor, " s"], usual: float) -> list[float]:
    return (errors / usual).tolist()
