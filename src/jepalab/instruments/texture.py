"""What a picture's embedding holds: shape, place and number, against each texture that lies over them.

Every read-out is closed form, from the mean over the tokens, the same code for every arm. An embedding is judged as a
whole: a single token knows its own place by its position code, and would tell it without having seen anything.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from jepalab.data.texture import KINDS
from jepalab.instruments.diagnosis import geometry
from jepalab.instruments.knn import KNNClassifier
from jepalab.instruments.probes import Ridge, RidgeClassifier
from jepalab.types import Features, Subject


def texture_budget(subject: Subject) -> dict[str, float]:
    """Class, position and count against each nuisance of `TexturedShapes`, on test pictures unless the name says else.

    class_linear, class_knn, count_linear  accuracies.
    position_r2, coherent_r2, ...          R2 of the position, and of each nuisance that is there: the realisation of
                                           noise, local texture and images, the parameters of grating and light. The
                                           grating's phase and the local texture's length are told apart.
    semantic      D_s, the mean of class, count and position, each (score - chance) / (ceiling - chance) within [0, 1].
    nuisance_r2   D_n, the mean R2 of the nuisances that are there, each within [0, 1].
    selectivity   D_s - D_n; without a nuisance neither is given.
    validation_semantic  D_s on the validation split, for choosing settings.

    Chance is one over the number of classes, and 0 for R2. The ceiling is 1, the generator's own knowledge: a linear
    probe of raw pixels is none, as neither a shape nor a grating is linear in pixels. A random encoder reads much of
    all this, the position above all, so its row is part of every honest table. The mean over the tokens blurs where a
    pixel was bright, so little of a realisation can be read here; `nuisance_capacity` reads it token by token.
    """
    train, validation, test = (_pool(part).z[:, 0] for part in (subject.train, subject.validation, subject.test))
    scores: dict[str, float] = {}
    semantic, semantic_validation = [], []
    for name in ("class", "count"):
        labels, chosen_by, truth = (_factor(part, name) for part in (subject.train, subject.validation, subject.test))
        num_classes = len(labels.unique())
        if num_classes < 2:
            continue
        probe = RidgeClassifier().fit(train, labels, validation, chosen_by)
        scores[f"{name}_linear"] = probe.score(test, truth)
        semantic.append(_above_chance(scores[f"{name}_linear"], num_classes))
        semantic_validation.append(_above_chance(probe.score(validation, chosen_by), num_classes))
        if name == "class":
            scores["class_knn"] = KNNClassifier().fit(train, labels).score(test, truth)
    for name in ("position", *KINDS, "coherent_phase", "local_length"):
        if name not in subject.train.batch.factors:
            continue
        targets, chosen_by, truth = (_factor(part, name) for part in (subject.train, subject.validation, subject.test))
        probe = Ridge().fit(train, targets, validation, chosen_by)
        scores[f"{name}_r2"] = probe.score(test, truth)
        if name == "position":
            semantic.append(_clip(scores["position_r2"]))
            semantic_validation.append(_clip(probe.score(validation, chosen_by)))
    scores["semantic"] = sum(semantic) / len(semantic)
    scores["validation_semantic"] = sum(semantic_validation) / len(semantic_validation)
    nuisances = [_clip(scores[f"{kind}_r2"]) for kind in KINDS if f"{kind}_r2" in scores]
    if nuisances:
        scores["nuisance_r2"] = sum(nuisances) / len(nuisances)
        scores["selectivity"] = scores["semantic"] - scores["nuisance_r2"]
    return scores


def pooled_geometry(subject: Subject) -> dict[str, float]:
    """`geometry` of the mean over each picture's tokens, which is what the probes read."""
    train, validation, test = (_pool(part) for part in (subject.train, subject.validation, subject.test))
    return geometry(replace(subject, train=train, validation=validation, test=test))


def _pool(features: Features) -> Features:
    return Features(features.z.mean(1, keepdim=True), features.batch)


def _factor(features: Features, name: str) -> Tensor:
    """Of a still picture: [b] or [b f]."""
    values = features.batch.factors[name]
    if values.shape[1] != 1:
        raise ValueError(f"The texture budget is read from still pictures (t = 1), got {values.shape[1]} frames.")
    return values[:, 0]


def _above_chance(accuracy: float, num_classes: int) -> float:
    return _clip((accuracy * num_classes - 1) / (num_classes - 1))


def _clip(score: float) -> float:
    return min(max(score, 0.0), 1.0)
