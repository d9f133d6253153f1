"""The metrics of a comparison: how each is printed, in which order, and which one the report follows."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Behind a distractor, of moving things: what a comparison without a table of its own is read by.
MOTION: dict[str, str] = {
    "state_r2": "state R²",
    "nuisance_r2": "nuisance R²",
    "position_r2": "position R²",
    "velocity_r2": "velocity R²",
    "class_linear": "class, linear",
    "class_knn": "class, kNN",
    "selectivity": "selectivity",
    "rankme": "RankMe",
    "rankme_centred": "RankMe, centred",
    "rollout_1_r2": "R², 1 imagined",
    "rollout_5_r2": "R², 5 imagined",
}
# Of labelled samples: the first is the primary one; accuracies are on test and lie in [0, 1].
RECOGNITION: dict[str, str] = {
    "linear": "linear accuracy",
    "knn": "kNN accuracy",
    "logistic": "logistic accuracy",
    "linear_sgd": "linear by SGD",
    "attentive": "attentive accuracy",
    "finetuned": "fine-tuned accuracy",
    "shots_auc": "label efficiency (AUC)",
    "robust_mean": "corrupted accuracy",
    "transfer_linear": "transfer, linear",
    "posthoc_psnr": "PSNR, from tokens (dB)",
    "bits_per_dimension": "bits per dimension",
    "ram_above_majority": "game state read",
    "ram_f1": "game state, F1",
    "rankme": "RankMe",
    "rankme_centred": "RankMe, centred",
}
# Names of what a report shows in a section of its own, beside the chief metrics.
OTHERS: dict[str, str] = {
    "posthoc_pooled_psnr": "PSNR, from mean token (dB)",
    "linear_best_level": "linear, best level",
    "linear_joined_levels": "linear, last 4 levels",
    "robust_relative_drop": "share lost (less is better)",
    "transfer_knn": "transfer, kNN",
    "effective_rank": "effective rank",
    "lidar": "LiDAR",
    "alpha_req": "α-ReQ",
    "uniformity": "uniformity",
    "cka_with_pixels": "CKA with pixels",
    "position_share": "share of position",
    "image_share": "share of image",
}
GEOMETRY = (
    *("rankme", "rankme_centred", "effective_rank", "lidar", "alpha_req", "uniformity"),
    *("cka_with_pixels", "position_share", "image_share"),
)
FALLBACK = "position_r2"  # where the state was not read
ACCURACIES = re.compile(r"(linear|knn|logistic|attentive|finetuned|shot_|shots_|robust_|transfer_)")


def name_metric(metric: str, names: Mapping[str, str]) -> str:
    """How a metric is printed; "student/linear" is "linear accuracy, student"."""
    encoder, _, key = metric.rpartition("/")
    name = names.get(key) or MOTION.get(key) or RECOGNITION.get(key) or OTHERS.get(key) or _spell(key)
    return f"{name}, {encoder}" if encoder else name


def digits_of(metric: str) -> int:
    """Decimals worth printing: three of an accuracy, where half a point can matter, two of all else."""
    return 3 if ACCURACIES.match(metric.rpartition("/")[2]) else 2


def _spell(key: str) -> str:
    if match := re.fullmatch(r"rollout_(\d+)_r2", key):
        return f"R², {match[1]} imagined"
    if match := re.fullmatch(r"shot_(\d+)", key):
        return f"{match[1]} labels a class"
    if match := re.fullmatch(r"linear_level_(\d+)", key):
        return f"linear, level {match[1]}"
    return key.replace("_r2", " R²").replace("_", " ")
