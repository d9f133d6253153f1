"""What the distractor experiment claims, declared before any final seed ran, and what a first look suggested."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product

from jepalab.compare.contrasts import Better, Contrast, Equivalent, Unordered

METRIC = "state_r2"
RANKED_ARMS = ("J1", "J2", "J3", "G2", "A1")
FLOOR = "A floor that learns nothing is part of every honest table."
SOBAL = "Sobal et al. 2022, arXiv 2211.10831"
UNCHANGED, SEEN = "A difference drops what stays, and holds the noise of two frames.", "seed 0 was seen untuned"


def declare(competing: Collection[tuple[str, str]]) -> list[Contrast]:
    """The contrasts, with their directions, that were declared before any final seed ran.

    Those whose arms compete, as pairs (arm, condition).
    """
    declared: list[tuple[Contrast, set[str], set[str]]] = [
        _better(
            "Changing distractor: embedding prediction wins",
            "J1 > G2 | changing",
            because="What cannot be predicted costs a pixel loss and earns an embedding loss nothing.",
            source=SOBAL,
        ),
        _better(
            "Fixed distractor: pixel prediction wins",
            "G2 > J1 | fixed",
            because="A copy of what never changes predicts itself for free; pixels charge for the state as well.",
            source=SOBAL,
        ),
        *(
            _better(
                f"Fixed distractor: {name} repairs it",
                f"{arm} > J1 | fixed",
                because="The action says nothing about what never changes, so only the state can tell it.",
                source=f"{SOBAL}; PLDM, arXiv 2502.14819",
            )
            for arm, name in (("A1", "inverse dynamics"), ("J1+A1", "inverse dynamics beside the JEPA"))
        ),
        _better(
            "Fixed distractor: pixel prediction beats the masked JEPA",
            "G2 > J5 | fixed",
            because="What stays is in the visible frames and in the hidden ones, so it predicts itself here too. G2 is "
            "told the actions and J5 is not, so that they differ in more than what is compared.",
            source=f"{SOBAL}, carried over from the next frame to hidden ones",
        ),
        (
            Equivalent(
                "No distractor: no difference",
                better="J1",
                than="G2",
                metric=METRIC,
                condition="none",
                margin=0.05,
                because="Without a nuisance both targets hold the same information.",
                source="Van Assel et al. 2025, arXiv 2505.12477",
            ),
            {"J1", "G2"},
            {"none"},
        ),
        (
            Unordered(
                "RankMe does not order the objectives by usefulness",
                metric="rankme",
                usefulness=METRIC,
                conditions=("changing", "fixed"),
                arms=RANKED_ARMS,
                because="Rank counts directions with variance, and a distractor has variance.",
                source="against Garrido et al. 2023, arXiv 2210.02885, used across objectives",
            ),
            set(RANKED_ARMS),
            {"changing", "fixed"},
        ),
    ]
    return _that_apply(declared, competing)


def explore(competing: Collection[tuple[str, str]]) -> list[Contrast]:
    """Contrasts that a first look at the demo suggested, where both arms compete; they carry no verdict."""
    looked = "first look at the demo"
    found = [
        _better(
            "Behind a fixed distractor, pixels against their PCA", "G2 > PCA | fixed", because=FLOOR, source=looked
        ),
        _better("Behind a changing one, JEPA against that PCA", "J1 > PCA | changing", because=FLOOR, source=looked),
        _better("Fixed distractor: frame differences", "J1d > J1 | fixed", because=UNCHANGED, source=SEEN),
        _better("Changing distractor: frame differences", "J1 > J1d | changing", because=UNCHANGED, source=SEEN),
        _better(
            "Fixed distractor: pixels, in position alone",
            "G2 > J1 | fixed",
            because="State R2 counts the velocity as well, and what stays cancels between two frames.",
            source=looked,
            metric="position_r2",
        ),
        _better(
            "Fixed distractor: statistics within clips",
            "J1w > J1 | fixed",
            because="A code that is constant in a clip has no variance there.",
            source="arXiv 2606.07770",
        ),
    ]
    return _that_apply(found, competing)


def _better(
    name: str, claim: str, *, because: str, source: str, metric: str = METRIC
) -> tuple[Contrast, set[str], set[str]]:
    """A claim "better > than | condition" about a metric, with the arms and the condition it needs."""
    arms, condition = claim.split(" | ")
    better, than = arms.split(" > ")
    contrast = Better(
        name, better=better, than=than, metric=metric, condition=condition, because=because, source=source
    )
    return contrast, {better, than}, {condition}


def _that_apply(
    contrasts: Sequence[tuple[Contrast, set[str], set[str]]], competing: Collection[tuple[str, str]]
) -> list[Contrast]:
    return [c for c, needed, where in contrasts if {*product(needed, where)} <= {*competing}]
