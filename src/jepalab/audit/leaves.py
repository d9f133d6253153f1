"""The leaves of a loss: where it begins, seen from the network, and the way that leads there."""

from __future__ import annotations

from dataclasses import dataclass

COMPARISON, STATISTIC, SCORE, CRITIC, PENALTY = "comparison", "statistic", "score", "critic", "penalty"


ORDER = (COMPARISON, CRITIC, STATISTIC, SCORE, PENALTY)  # what a summand is, if several are found in it


@dataclass(frozen=True)
class Leaf:
    """One place where the loss begins, seen from the network.

    kind        "comparison" of two sides; "statistic" of one; "score", one content taken as it is, to be raised or
                lowered; "critic", one content against a constant class; "penalty" on parameters.
    cut         the summand of the loss this leaf stands for: the gradient through it is the leaf's.
    meet        the call that compares; prediction and target are the nodes it compares.
    contrast    whether samples are compared with one another under a softmax or the like.
    cross       whether features are correlated over the batch (Barlow Twins).
    classifies  whether it is a cross-entropy or another comparison of distributions.
    weights     inputs that scale this comparison.
    """

    kind: str
    cut: int
    meet: int
    prediction: int
    target: int | None = None
    contrast: bool = False
    cross: bool = False
    classifies: bool = False
    weights: frozenset[str] = frozenset()
    opaque: bool = False
    within: bool = False  # embeddings against the mean of their own group: the views of one sample


@dataclass(frozen=True)
class Way:
    """How the walk came here from the loss: by sums and means alone, and past a softmax or exponential or not."""

    linear: bool = True
    soft: bool = False
    frozen: bool = False  # past a frozen layer
    bent: bool = False  # past more than sums and one square or norm
