"""Where in the network the class can be read best: the same closed-form probe after every block.

The end of an encoder is shaped by its pretraining task, and the best level often lies before it. Which one is best
is chosen on validation, so that its test score is not the luckiest of many.
"""

from __future__ import annotations

import torch

from jepalab.instruments.labelled import FrozenSamples, LabelledSubject, known_classes
from jepalab.instruments.probes import RidgeClassifier

NUM_JOINED = 4


def layer_sweep(subject: LabelledSubject) -> dict[str, float]:
    """Ridge accuracy on test after each block, counted from 1; of the best on validation; of the last four, joined.

    Joined is the concatenation of the pooled last four levels, I-JEPA's read-out, where there are so many.
    """
    known_classes(subject.train)
    num_levels = subject.train.levels.shape[1]
    probes = [_probe(subject, range(level, level + 1)) for level in range(num_levels)]
    best = max(range(num_levels), key=lambda level: probes[level]["validation"])
    scores = {f"linear_level_{level + 1}": probe["test"] for level, probe in enumerate(probes)}
    scores |= {
        "best_level": float(best + 1),
        "linear_best_level": probes[best]["test"],
        "linear_best_level_validation": probes[best]["validation"],
        "linear_last_level": probes[-1]["test"],
    }
    if num_levels >= NUM_JOINED:
        scores["linear_joined_levels"] = _probe(subject, range(num_levels - NUM_JOINED, num_levels))["test"]
    return scores


def _probe(subject: LabelledSubject, levels: range) -> dict[str, float]:
    def features(part: FrozenSamples) -> torch.Tensor:
        return part.levels[:, levels.start : levels.stop].flatten(1)

    train, validation, test = subject.train, subject.validation, subject.test
    probe = RidgeClassifier().fit(features(train), train.labels, features(validation), validation.labels)
    return {
        "validation": probe.score(features(validation), validation.labels),
        "test": probe.score(features(test), test.labels),
    }
