"""The geometry of the embedding as one instrument: a diagnosis to read beside the probes, never a score of quality."""

from __future__ import annotations

from jepalab.instruments.geometry import (
    alpha_req,
    collapse_meters,
    debiased_cka,
    effective_rank,
    lidar,
    straightness,
    uniformity,
)
from jepalab.types import Subject


def geometry(subject: Subject) -> dict[str, float]:
    """RankMe (uncentred and centred), effective rank, alpha-ReQ, LiDAR, uniformity, CKA with the pixels, straightness.

    On test frames. LiDAR's classes are exact: the same state under resampled nuisance. What is undefined is left out:
    alpha-ReQ of a collapsed embedding, which has no spectrum to fit, and straightness of clips below 3 frames.
    """
    first = subject.objective.encoder.num_frames_seen - 1  # before it, embeddings are of fewer frames
    clips = subject.test.z[:, first:]
    z, pixels = clips.flatten(0, 1), subject.test.batch.x[:, first:].flatten(0, 1).flatten(1)
    scores = collapse_meters(z) | {
        "effective_rank": effective_rank(z),
        "uniformity": uniformity(z),
    }
    if clips.shape[1] > 2:
        scores["straightness"] = straightness(clips)
    if scores["rankme_centred"] > 1.5:
        scores["cka_with_pixels"] = debiased_cka(z, pixels)
    if scores["rankme_centred"] > 4:
        law = alpha_req(z)
        scores |= {"alpha_req": law.slope, "alpha_req_fit_r2": law.r2}
    if subject.views is not None and scores["rankme_centred"] > 0:
        scores["lidar"] = lidar(subject.views)
    return scores
