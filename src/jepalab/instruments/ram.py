"""What frozen embeddings say of a game's memory, byte by byte: Anand et al. 2019, arXiv 1906.08226.

They read out those bytes that people had found a meaning for. Here every byte is read that varies enough, so clocks and
random numbers are among them, which no picture shows: arms can be compared, a perfect score cannot be reached.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from jepalab.data.clips import Clips
from jepalab.instruments.labelled import LabelledSubject
from jepalab.instruments.probes import Ridge, RidgeClassifier

# Nats, as in the paper's code: below, a byte is hardly ever anything else than its commonest value.
LEAST_ENTROPY = 0.6
# With so many values, a byte is also read as a number: a place, a speed, a count.
LEAST_NUMERIC = 8


def ram_state(subject: LabelledSubject) -> dict[str, float]:
    """How well linear probes of the pooled output name the bytes of the state at a clip's last frame.

    All are means over the `ram_bytes` bytes that were chosen on the training split, on test, every byte with a probe of
    its own: `ram_f1` of the values, weighted by how often each occurs, and `ram_accuracy`, both as in the paper;
    `ram_majority` is the accuracy of always saying the commonest value of training, and `ram_above_majority` lies
    between that (0) and no mistake (1). `ram_r2` is the R2 of ridge regression, with at least 0 for each byte, over
    those of 8 and more values.

    Nothing where the samples have no states, or none that varies.
    """
    samples = subject.samples
    if not isinstance(samples, Clips) or samples.states is None:
        return {}
    parts = (subject.train, subject.validation, subject.test)
    states = [samples.states[part.index.numpy()] for part in parts]
    bytes_read = choose_bytes(states[0])
    # What does not vary in the other splits cannot be scored there: the same bytes for every encoder.
    bytes_read = [byte for byte in bytes_read if all((part[:, byte] != part[0, byte]).any() for part in states)]
    if not bytes_read:
        return {}
    z, z_validation, z_test = (part.z for part in parts)
    scores: list[tuple[float, float, float, float]] = []
    for byte in bytes_read:
        y, y_validation, y_test = (torch.from_numpy(part[:, byte].astype(np.int64)) for part in states)
        said = RidgeClassifier().fit(z, y, z_validation, y_validation).predict(z_test)
        accuracy = float((said == y_test).double().mean())
        majority = float((y.bincount().argmax() == y_test).double().mean())
        scores.append((weighted_f1(said, y_test), accuracy, majority, (accuracy - majority) / (1 - majority)))
    f1, accuracy, majority, above = np.mean(scores, axis=0).tolist()
    found = {"ram_f1": f1, "ram_accuracy": accuracy, "ram_majority": majority, "ram_above_majority": above}
    numeric = [byte for byte in bytes_read if len(np.unique(states[0][:, byte])) >= LEAST_NUMERIC]
    if numeric:
        y, y_validation, y_test = (torch.from_numpy(part[:, numeric].astype(np.float64)) for part in states)
        each = Ridge().fit(z, y, z_validation, y_validation).score_each(z_test, y_test)
        found["ram_r2"] = float(each.clamp_min(0).mean())
    return found | {"ram_bytes": float(len(bytes_read))}


def choose_bytes(states: UInt8[np.ndarray, "n s"]) -> list[int]:
    """The bytes that vary enough to be read; of equal ones, the first."""
    _, first = np.unique(states, axis=1, return_index=True)
    return [int(byte) for byte in sorted(first) if _entropy(states[:, byte]) >= LEAST_ENTROPY]


def weighted_f1(said: Int[Tensor, " n"], truth: Int[Tensor, " n"]) -> float:
    """F1 of each value that occurs, weighted by how often it does: sklearn's f1_score(average="weighted")."""
    num = int(max(said.max(), truth.max())) + 1
    right, of_truth, of_said = (x.bincount(minlength=num).double() for x in (truth[said == truth], truth, said))
    f1 = 2 * right / (of_truth + of_said).clamp_min(1)
    return float((f1 * of_truth).sum() / len(truth))


def _entropy(values: UInt8[np.ndarray, " n"]) -> float:
    shares: Float[np.ndarray, " v"] = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log(shares)).sum())
