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
from jepalab.types import Features, Subject, TaughtWorldModel, WorldModel

Read = Callable[[Features], Tensor]


def state(subject: Subject) -> dict[str, float]:
    """The state's R2 and what it is made of, class accuracy (kNN and linear), and the nuisance's R2.

    `selectivity` is the mean of state R2 and class accuracy above chance, less nuisance R2, each clipped to [0, 1].
    `..._nats` is a linear-Gaussian lower bound on the information about each, in nats.
    """
    scores = motion(subject) | _classify(subject)
    if subject.train.batch.factors["nuisance"].std() > 0:
        frames, truth = _frames(subject), _factor(subject, "nuisance")
        each = _fit(subject, frames, truth).score_each(frames(subject.test), truth(subject.test))
        scores |= {"nuisance_r2": float(each.mean()), "nuisance_nats": information_budget(each)}
        useful = [scores[name] for name in ("state_r2", "class_above_chance") if name in scores]
        scores["selectivity"] = sum(map(_clip, useful)) / len(useful) - _clip(scores["nuisance_r2"])
    return scores


def motion(subject: Subject) -> dict[str, float]:
    """State R2: position and velocity, four numbers, read together from two consecutive frames.

    One frame cannot know the velocity, and the difference of two cancels what stays in the picture, so the pair is the
    fair read-out of a state that moves: two embeddings, or the one that an encoder of two frames makes of them.
    `position_r2` is read from single embeddings.
    """
    if subject.train.batch.action is None:
        raise ValueError("State R2 reads the velocity, so it needs clips with actions, got clips without any.")
    frames, pairs, place = _frames(subject), _pairs(subject), _factor(subject, "position")
    probe = _fit(subject, pairs, _motion)
    each = probe.score_each(pairs(subject.test), _motion(subject.test))
    position = _fit(subject, frames, place)
    return {
        "state_r2": float(each.mean()),
        "velocity_r2": float(each[2:].mean()),
        "position_r2": position.score(frames(subject.test), place(subject.test)),
        "state_nats": information_budget(each),
        "validation_state_r2": probe.score(pairs(subject.validation), _motion(subject.validation)),
    }


def rollout(subject: Subject) -> dict[str, float]:
    """Position R2 after imagining 1, 2, ... steps, read by a probe trained on encoded, not on predicted, embeddings.

    The probe learns in the space in which the model answers, which is its teacher's where it predicts that one's. For
    objectives that can imagine (`WorldModel`) from one frame, once: with the encoder that is reported first, as the
    start is the same for all. The others give nothing.
    """
    model: object = subject.objective
    action = subject.test.batch.action
    if not isinstance(model, WorldModel) or action is None or subject.objective.encoder.num_frames_seen > 1:
        return {}
    if not subject.is_first:
        return {}
    answered = model.encode_target if isinstance(model, TaughtWorldModel) else model.encode
    train, validation = (embed_with(answered, part.batch.x) for part in (subject.train, subject.validation))
    truth = _factor(subject, "position")
    probe = Ridge().fit(train.flatten(0, 1), truth(subject.train), validation.flatten(0, 1), truth(subject.validation))
    with torch.no_grad():
        start = embed_with(model.encode, subject.test.batch.x)[:, :1]
        imagined = model.rollout(start, action[:, :0], action[:, None])[:, 0]
    later = subject.test.batch.factors["position"][:, 1:]
    return {f"rollout_{k + 1}_r2": probe.score(imagined[:, k], later[:, k]) for k in range(action.shape[1])}


def _classify(subject: Subject) -> dict[str, float]:
    labels, frames = _factor(subject, "class"), _frames(subject)
    num_classes = len(labels(subject.train).unique())
    if num_classes < 2:
        return {}
    train, validation, test = subject.train, subject.validation, subject.test
    linear = RidgeClassifier().fit(frames(train), labels(train), frames(validation), labels(validation))
    accuracy = linear.score(frames(test), labels(test))
    knn = KNNClassifier().fit(frames(train), labels(train)).score(frames(test), labels(test))
    above_chance = (accuracy * num_classes - 1) / (num_classes - 1)
    return {"class_linear": accuracy, "class_knn": knn, "class_above_chance": above_chance}


def _fit(subject: Subject, read: Read, truth: Read) -> Ridge:
    train, validation = subject.train, subject.validation
    return Ridge().fit(read(train), truth(train), read(validation), truth(validation))


def _first(subject: Subject) -> int:
    """The first frame of a clip whose embedding is of as many frames as the encoder takes."""
    return subject.objective.encoder.num_frames_seen - 1


def _frames(subject: Subject) -> Read:
    first = _first(subject)
    return lambda features: features.z[:, first:].flatten(0, 1)


def _pairs(subject: Subject) -> Read:
    """What is known of each frame but the first and of the one before it: two frames, whatever the encoder."""
    if _first(subject):
        return lambda features: features.z[:, 1:].flatten(0, 1)
    return lambda features: torch.cat([features.z[:, :-1], features.z[:, 1:]], -1).flatten(0, 1)


def _motion(features: Features) -> Tensor:
    """Position at the second of two frames, and the displacement between them: [n 4]."""
    batch = features.batch
    assert batch.action is not None
    return torch.cat([batch.factors["position"][:, 1:], batch.action], -1).flatten(0, 1)


def _factor(subject: Subject, name: str) -> Read:
    first = _first(subject)
    return lambda features: features.batch.factors[name][:, first:].flatten(0, 1)


def _clip(score: float) -> float:
    return min(max(score, 0.0), 1.0)
