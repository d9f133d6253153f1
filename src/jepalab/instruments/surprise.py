"""Violation of expectation: is a model more surprised by what cannot happen than by its possible twin?

After IntPhys (arXiv 1803.07616) and Garrido et al. 2025 (arXiv 2502.11831). Surprise is a model's own prediction error.
Beside it stands what a mere change does to it: a model that is alarmed by every change has understood nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.data.occluder_pairs import LEGAL
from jepalab.data.occluders import OccludedShapes, Pairs
from jepalab.data.sprites import Split
from jepalab.instruments.features import CLIPS_AT_ONCE, embed_with
from jepalab.instruments.foretelling import CopyLastFrame, Foretells, PixelVelocity, foretellers
from jepalab.instruments.geometry import finite_float64, straightness
from jepalab.types import Objective

CONTEXTS = (4, 8)  # frames before the first that counts, ascending
NUM_PAIRS: Mapping[Split, int] = {"validation": 64, "test": 200}
# The impossible clips that a legal change is held against: those that differ from their twins in the same way.
MATCHED = {"background": "permanence", "look": "shape"}
LEVEL, NUM_RESAMPLES = 0.95, 2000

Over = Literal["mean", "max"]
OVERS: tuple[Over, ...] = ("mean", "max")
Surprise = Callable[[Pairs], tuple[Float[Tensor, " n"], Float[Tensor, " n"]]]


class Trials(NamedTuple):
    """Pairs by concept, by legal change, and flickers against blinks: all that one split is judged on."""

    impossible: Mapping[str, Pairs]
    legal: Mapping[str, Pairs]
    blinks: Pairs


class Setting(NamedTuple):
    """How errors over time become one number: from which frame on they count, and their mean or largest."""

    context: int
    over: Over


@dataclass(frozen=True)
class SurpriseSubject:
    """What `surprise` judges: all that a model foretells, by space, its own first, and the clips that it is shown."""

    objective: Objective
    foretells: Mapping[str, Foretells]
    validation: Trials
    test: Trials


def surprise_subjects(
    objective: Objective, stream: OccludedShapes, *, share: float = 1.0
) -> dict[str, SurpriseSubject]:
    """The model as it trains, on a share of NUM_PAIRS. It is moved to the CPU and put in evaluation mode."""
    objective.eval().cpu()
    validation, test = (show(stream, split, 2 * max(1, round(share * num / 2))) for split, num in NUM_PAIRS.items())
    return {"model": SurpriseSubject(objective, foretellers(objective), validation, test)}


def show(stream: OccludedShapes, split: Split, num_pairs: int) -> Trials:
    """`num_pairs` of each kind, an even number."""
    return Trials(
        {concept: stream.pairs(concept, split, num_pairs) for concept in stream.concepts},
        {kind: stream.legal(kind, split, num_pairs) for kind in LEGAL},
        stream.blinks(split, num_pairs),
    )


def surprise(subject: SurpriseSubject) -> dict[str, float]:
    """Pairwise accuracy of each concept, unpaired AUROC, and what legal changes do, on test clips.

    permanence_accuracy, ...  share of pairs whose impossible clip surprises more, ties one half; `_low` and `_high`,
                              95 % over quartets; `_sign_p`, that of `sign_test`; `_auroc`, all impossible against all
                              possible clips.
    surprise_accuracy         the mean over the concepts; `validation_surprise_accuracy` for choosing settings.
    look_alarm, ...           share of legal changes that surprise more than the same clip unchanged; `alarm`, the mean
                              of those that change no pixel more, 0.5 for who is not alarmed. A flicker does change
                              pixels, and stands apart: copying the last frame scores 1.
    look_auroc, ...           impossible clips against legal changes that change the pixels as much: by how much each
                              surprises more than its twin (look and shape, background and permanence); and a shape
                              that blinks against light that flickers, where `blink_accuracy` is of pairs.
    straightness              of the embeddings of possible clips, if there is one for each frame.

    From which frame on errors count, and whether their mean or the largest does, has the best accuracy on validation,
    from one grid for all models; `context` and `over_max` tell which. What a generative model scores in
    its own latent bears the prefix "latent_". Nothing for models that foretell nothing.
    """
    scores: dict[str, float] = {}
    for place, (space, foretells) in enumerate(subject.foretells.items()):
        prefix = f"{space}_" if place else ""
        found = tuned(foretells, validation=subject.validation, test=subject.test)
        scores |= {f"{prefix}{name}": score for name, score in found.items()}
    if scores:
        x = torch.cat([pairs.possible for pairs in subject.test.impossible.values()])
        z = embed_with(subject.objective.encoder, x)
        if z.shape[1] == x.shape[1]:
            scores["straightness"] = straightness(z)
    return scores


def tuned(foretells: Foretells, *, validation: Trials, test: Trials) -> dict[str, float]:
    """The scores on test under the setting that has the best accuracy on validation."""
    setting, accuracy = choose_setting(foretells, validation.impossible)
    return judge(surprise_of(foretells, setting), test) | {
        "validation_surprise_accuracy": accuracy,
        "context": float(setting.context),
        "over_max": float(setting.over == "max"),
    }


def choose_setting(foretells: Foretells, impossible: Mapping[str, Pairs]) -> tuple[Setting, float]:
    """The setting with the best mean accuracy over these concepts, and that accuracy; of equals, the first."""
    first, accuracy = CONTEXTS[0], {}
    errors = [both_errors(foretells, pairs, context=first) for pairs in impossible.values()]
    num_frames = next(iter(impossible.values())).possible.shape[1]
    for context in CONTEXTS:
        counted = [[each[:, _num_before(each, first, context, num_frames) :] for each in pair] for pair in errors]
        for over in OVERS:
            found = [pairwise_accuracy(summed(a, over=over), summed(b, over=over)) for a, b in counted]
            accuracy[Setting(context, over)] = sum(found) / len(found)
    setting = max(accuracy, key=accuracy.__getitem__)
    return setting, accuracy[setting]


def _num_before(errors: Float[Tensor, "n s"], first: int, context: int, num_frames: int) -> int:
    """How many of the errors, which begin at frame `first`, lie before frame `context`."""
    return errors.shape[1] * (context - first) // (num_frames - first)


def baselines(stream: OccludedShapes, *, num_pairs: Mapping[Split, int] = NUM_PAIRS) -> dict[str, dict[str, float]]:
    """What takes no learning: copying, extrapolating, and two that are told where everything is and goes.

    "constant velocity" draws what follows if nothing has weight and walls are air, "physics" draws what does follow;
    both are told the nuisance too, and are surprised by anything else. Legal changes they are not told of, so that
    alarms would say nothing about them: they have none.
    """
    validation, test = (show(stream, split, num) for split, num in num_pairs.items())

    def told(pairs: Pairs, expected: Tensor) -> tuple[Tensor, Tensor]:
        wrong = [(clips - expected).square().flatten(1).mean(1) for clips in pairs[:2]]
        return wrong[0], wrong[1]

    return {
        "copy last frame": tuned(CopyLastFrame(), validation=validation, test=test),
        "pixel velocity": tuned(PixelVelocity(), validation=validation, test=test),
        "constant velocity": _without_legal(judge(lambda pairs: told(pairs, pairs.inertial), test)),
        "physics": _without_legal(judge(lambda pairs: told(pairs, pairs.lawful), test)),
    }


def _without_legal(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if name != "alarm" and not name.startswith(LEGAL)}


def untrained(
    make: Callable[[int], Objective], *, validation: Trials, test: Trials, num_networks: int = 20
) -> dict[str, list[float]]:
    """Every score of networks as they are initialised, one for each seed that `make` gets: what chance looks like."""
    found: dict[str, list[float]] = {}
    for seed in range(num_networks):
        objective = make(seed).eval().cpu()
        for name, score in surprise(SurpriseSubject(objective, foretellers(objective), validation, test)).items():
            found.setdefault(name, []).append(score)
    return found


def surprise_of(foretells: Foretells, setting: Setting) -> Surprise:
    """From pairs of clips to how much each surprises."""

    def both(pairs: Pairs) -> tuple[Tensor, Tensor]:
        possible, impossible = both_errors(foretells, pairs, context=setting.context)
        return summed(possible, over=setting.over), summed(impossible, over=setting.over)

    return both


@torch.no_grad()
def both_errors(
    foretells: Foretells, pairs: Pairs, *, context: int
) -> tuple[Float[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Errors over time of the possible and of the impossible clips. ValueError if any is not finite."""

    def one(clips: Tensor) -> Tensor:
        parts = [foretells.errors(part, context=context) for part in clips.split(CLIPS_AT_ONCE)]
        return finite_float64(torch.cat(parts), name="errors")

    return one(pairs.possible), one(pairs.impossible)


def summed(errors: Float[Tensor, "n s"], *, over: Over) -> Float[Tensor, " n"]:
    """The mean or the largest error of each clip."""
    return {"mean": errors.mean(1), "max": errors.amax(1)}[over]


def judge(surprises: Surprise, trials: Trials) -> dict[str, float]:
    """Every score of `surprise` that one measure of surprise has."""
    impossible = {concept: surprises(pairs) for concept, pairs in trials.impossible.items()}
    legal = {kind: surprises(pairs) for kind, pairs in trials.legal.items()}
    flickers, blinks = surprises(trials.blinks)
    scores: dict[str, float] = {}
    for concept, (possible, not_possible) in impossible.items():
        scores[f"{concept}_accuracy"] = pairwise_accuracy(possible, not_possible)
        low, high = accuracy_interval(possible, not_possible, generator=torch.Generator().manual_seed(0))
        scores |= {f"{concept}_low": low, f"{concept}_high": high, f"{concept}_auroc": auroc(possible, not_possible)}
        scores[f"{concept}_sign_p"] = sign_test(possible, not_possible)
    scores["surprise_accuracy"] = sum(scores[f"{concept}_accuracy"] for concept in impossible) / len(impossible)
    for kind, (unchanged, changed) in legal.items():
        scores[f"{kind}_alarm"] = pairwise_accuracy(unchanged, changed)
        if kind in MATCHED:
            possible, not_possible = impossible[MATCHED[kind]]
            scores[f"{kind}_auroc"] = auroc(changed - unchanged, not_possible - possible)
    free = [scores[f"{kind}_alarm"] for kind in legal if kind in MATCHED]
    scores["alarm"] = sum(free) / len(free)
    scores["flicker_auroc"] = auroc(flickers, blinks)
    scores["blink_accuracy"] = pairwise_accuracy(flickers, blinks)
    return scores


def pairwise_accuracy(ordinary: Float[Tensor, " n"], odd: Float[Tensor, " n"]) -> float:
    """Share of pairs in which the odd one has the larger number; a tie counts one half."""
    _check(ordinary, odd)
    return float(_wins(ordinary, odd).mean())


def accuracy_interval(
    ordinary: Float[Tensor, " n"], odd: Float[Tensor, " n"], *, generator: torch.Generator, num_in_group: int = 2
) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the pairwise accuracy, resampling groups of pairs that follow one another.

    The two pairs of a quartet are made of the same two courses, so they are drawn together. An accuracy of exactly 0 or
    1 has an interval of no width, which says little: look at the number of pairs.
    """
    groups = _in_groups(ordinary, odd, num_in_group)
    drawn = torch.randint(len(groups), (NUM_RESAMPLES, len(groups)), generator=generator)
    bounds = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=groups.dtype)
    low, high = groups[drawn].mean(1).quantile(bounds).tolist()
    return low, high


def sign_test(ordinary: Float[Tensor, " n"], odd: Float[Tensor, " n"], *, num_in_group: int = 2) -> float:
    """p-value, two-sided and exact, of no preference; groups as in `accuracy_interval`, ties left out (Conover 1999).

    A group counts as one observation: for the odd ones where more of its pairs are won than lost.
    """
    groups = _in_groups(ordinary, odd, num_in_group) - 0.5
    num, most = int((groups != 0).sum()), max(int((groups > 0).sum()), int((groups < 0).sum()))
    return min(1.0, 2 * sum(comb(num, k) for k in range(most, num + 1)) / 2**num)


def auroc(ordinary: Float[Tensor, " n"], odd: Float[Tensor, " m"]) -> float:
    """P(an odd one has the larger number than an ordinary one) + P(tie) / 2, over all n m couples."""
    if not len(ordinary) or not len(odd):
        raise ValueError(f"wanted clips of both kinds, got {len(ordinary)} ordinary and {len(odd)} odd ones")
    ascending = ordinary.sort().values
    below, up_to = (torch.searchsorted(ascending, odd, right=right) for right in (False, True))
    return float((below + up_to).double().mean() / (2 * len(ordinary)))


def _in_groups(ordinary: Tensor, odd: Tensor, num_in_group: int) -> Tensor:
    _check(ordinary, odd)
    if len(odd) % num_in_group:
        raise ValueError(f"wanted groups of {num_in_group} pairs, got {len(odd)} pairs; give whole groups")
    return _wins(ordinary, odd).unflatten(0, (-1, num_in_group)).mean(1)


def _wins(ordinary: Tensor, odd: Tensor) -> Tensor:
    return ((odd - ordinary).sign() + 1).double() / 2


def _check(ordinary: Tensor, odd: Tensor) -> None:
    if len(ordinary) == 0 or len(ordinary) != len(odd):
        raise ValueError(f"wanted as many odd clips as ordinary ones, got {len(odd)} and {len(ordinary)}; keep pairs")
