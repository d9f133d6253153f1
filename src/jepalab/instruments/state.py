"""What can be read from each frame's embedding: the state that matters, and the nuisance that does not.

Every read-out is closed form, standardised on the training split and regularised by the validation split, the same
code for every arm. Scores are on the test split unless their name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jepalab.instruments.features import embed_with
from jepalab.instruments.knn import KNNClassifier
from jepalab.instruments.probes import Ridge, RidgeClassifier, information_budget
from jepalab.types import Features, Subject, WorldModel

Read = Callable[[Features], Tensor]


def state(subject: Subject) -> dict[str, float]:
    """The state's R2 and what it is made of, class accuracy (kNN and linear), and the nuisance's R2.

    `selectivity` is the mean of state R2 and class accuracy above chance, less nuisance R2, each clipped to [0, 1].
    `..._nats` is a linear-Gaussian lower bound on the information about each, in nats.
    """
    scores = motion(subject) | _classify(subject)
    if subject.train.batch.factors["nuisance"].std() > 0:
        nuisance = _fit(subject, _frames, _factor("nuisance"))
        each = nuisance.score_each(_frames(subject.test), _factor("nuisance")(subject.test))
        scores |= {"nuisance_r2": float(each.mean()), "nuisance_nats": information_budget(each)}
        useful = [scores[name] for name in ("state_r2", "class_above_chance") if name in scores]
        scores["selectivity"] = sum(map(_clip, useful)) / len(useful) - _clip(scores["nuisance_r2"])
    return scores


def motion(subject: Subject) -> dict[str, float]:
    """State R2: position and velocity, four numbers, read together from two consecutive embeddings.

    One embedding cannot know the velocity, and the difference of two cancels what stays in the picture, so the pair
    is the fair read-out of a state that moves. `position_r2` is read from single embeddings.
    """
    if subject.train.batch.action is None:
        raise ValueError("State R2 reads the velocity, so it needs clips with actions, got clips without any.")
    probe = _fit(subject, _pairs, _motion)
    each = probe.score_each(_pairs(subject.test), _motion(subject.test))
    position = _fit(subject, _frames, _factor("position"))
    return {
        "state_r2": float(each.mean()),
        "velocity_r2": float(each[2:].mean()),
        "position_r2": position.score(_frames(subject.test), _factor("position")(subject.test)),
        "state_nats": information_budget(each),
        "validation_state_r2": probe.score(_pairs(subject.validation), _motion(subject.validation)),
    }


def rollout(subject: Subject) -> dict[str, float]:
    """Position R2 after imagining 1, 2, ... steps, read by a probe trained on encoded, not on predicted, embeddings.

    For objectives that can imagine (`WorldModel`); the others give nothing.
    """
    model: object = subject.objective
    action = subject.test.batch.action
    if not isinstance(model, WorldModel) or action is None:
        return {}
    train, validation, test = (
        embed_with(model.encode, part.batch.x) for part in (subject.train, subject.validation, subject.test)
    )
    truth = _factor("position")
    probe = Ridge().fit(train.flatten(0, 1), truth(subject.train), validation.flatten(0, 1), truth(subject.validation))
    with torch.no_grad():
        imagined = model.rollout(test[:, :1], action[:, :0], action[:, None])[:, 0]
    later = subject.test.batch.factors["position"][:, 1:]
    return {f"rollout_{k + 1}_r2": probe.score(imagined[:, k], later[:, k]) for k in range(action.shape[1])}


def _classify(subject: Subject) -> dict[str, float]:
    labels = _factor("class")
    num_classes = len(labels(subject.train).unique())
    if num_classes < 2:
        return {}
    train, validation, test = subject.train, subject.validation, subject.test
    linear = RidgeClassifier().fit(_frames(train), labels(train), _frames(validation), labels(validation))
    accuracy = linear.score(_frames(test), labels(test))
    knn = KNNClassifier().fit(_frames(train), labels(train)).score(_frames(test), labels(test))
    above_chance = (accuracy * num_classes - 1) / (num_classes - 1)
    return {"class_linear": accuracy, "class_knn": knn, "class_above_chance": above_chance}


def _fit(subject: Subject, read: Read, truth: Read) -> Ridge:
    train, validation = subject.train, subject.validation
    return Ridge().fit(read(train), truth(train), read(validation), truth(validation))


def _frames(features: Features) -> Tensor:
    return features.z.flatten(0, 1)


def _pairs(features: Features) -> Tensor:
    return torch.cat([features.z[:, :-1], features.z[:, 1:]], -1).flatten(0, 1)


def _motion(features: Features) -> Tensor:
    """Position at the second of two frames, and the displacement between them: [n 4]."""
    batch = features.batch
    assert batch.action is not None
    return torch.cat([batch.factors["position"][:, 1:], batch.action], -1).flatten(0, 1)


def _factor(name: str) -> Read:
    return lambda features: features.batch.factors[name].flatten(0, 1)


def _clip(score: float) -> float:
    return min(max(score, 0.0), 1.0)
