"""What a world model's embeddings hold beside the position: a light that may matter, a television that does not."""

from __future__ import annotations

from jepalab.instruments.imagining import WorldSubject
from jepalab.instruments.probes import Ridge, RidgeClassifier


def bystanders(subject: WorldSubject) -> dict[str, float]:
    """Read linearly from single embeddings: "light_accuracy" (0.5 is chance) and "television_r2", where there are any.

    A television that is the same in every episode has no R2 and is left out.
    """
    factors = {split: batch.factors for split, batch in subject.clips.items()}
    scores = {}
    if "light" in factors["test"]:
        light = {split: each["light"].flatten() for split, each in factors.items()}
        reader = RidgeClassifier().fit(
            subject.rows("train"), light["train"], subject.rows("validation"), light["validation"]
        )
        scores["light_accuracy"] = reader.score(subject.rows("test"), light["test"])
    if "television" in factors["test"]:
        screen = {split: each["television"].flatten(0, 1) for split, each in factors.items()}
        if screen["train"].std(0).max() > 1e-6:
            probe = Ridge().fit(
                subject.rows("train"), screen["train"], subject.rows("validation"), screen["validation"]
            )
            scores["television_r2"] = probe.score(subject.rows("test"), screen["test"])
    return scores
