"""A comparison of still-picture arms with invented scores and pictures, and real judgements."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepalab.compare.cells import Cell, Judging
from jepalab.compare.contrasts import Better
from jepalab.compare.grid import Plan, judge
from jepalab.compare.metrics import RECOGNITION

ARMS = {
    "J1": "I-JEPA",
    "J2": "Masked JEPA + VICReg",
    "J3": "Masked JEPA + SIGReg",
    "J4": "SALT: frozen pixel teacher",
    "J5": "I-JEPA, hidden-layer targets",
    "J6": "I-JEPA with context loss",
    "J1r": "I-JEPA, official masks",
    "V1": "LeJEPA, 2 views",
    "V2": "VICReg (views)",
    "G1": "MAE",
    "G2": "Next patch",
    "G3": "Next token",
    "G4": "Denoising",
    "G5": "Masked tokens (BEiT)",
    "S": "Supervised (ceiling)",
    "R": "Random encoder (floor)",
    "PCA": "Pixel PCA (floor)",
}
LEVELS = {
    "J1": 0.52, "J2": 0.47, "J3": 0.49, "J4": 0.5, "J5": 0.53, "J6": 0.51, "J1r": 0.48, "V1": 0.6, "V2": 0.57,
    "G1": 0.5, "G2": 0.46, "G3": 0.4, "G4": 0.44, "G5": 0.45, "S": 0.72, "R": 0.33, "PCA": 0.405,
}  # fmt: skip
FINE = {"G1": 0.2, "G4": 0.22, "G2": 0.18}  # what fine-tuning adds, where it adds more than to the others
MAIN = ("J1", "V1", "G1", "G2", "G4", "S", "R", "PCA")
CONDITION = "cifar10"
SHOTS = (1, 2, 5, 10, 20, 50, 100)
SIDE, GRID = 16, 4


def make_cell(arm: str, seed: int, generator: np.random.Generator) -> dict[str, Any]:
    facts = {"arm": arm, "condition": CONDITION, "seed": seed}
    if (arm, seed) == ("G5", 1):
        return facts | {"status": "failed", "metrics": {}, "error": "DivergedError: the loss is nan at step 212"}
    level, jitter = LEVELS[arm], float(generator.normal(0, 0.006))
    score, is_trained = level + jitter, arm not in ("R", "PCA")
    metrics = {"linear": score, "linear_validation": score + 0.01, "knn": score - 0.06, "logistic": score + 0.015}
    metrics |= {"linear_sgd": score + 0.005}
    if arm in MAIN and arm != "PCA":
        metrics |= {"attentive": score + 0.04, "finetuned": score + FINE.get(arm, 0.12) * is_trained}
        metrics |= {f"linear_level_{k}": score - 0.015 * (k - 4) ** 2 for k in range(1, 7)}
        metrics |= {"best_level": 4.0, "linear_best_level": score, "linear_joined_levels": score + 0.02}
    metrics |= {f"shot_{k}": 0.1 + (score - 0.13) * np.log(2 * k) / np.log(200) for k in SHOTS}
    metrics |= {"shot_all": score, "shot_all_labels": 45_000.0, "shots_auc": score - 0.12}
    drops = {"noise": 0.15, "blur": 0.1, "contrast": 0.12, "brightness": 0.05, "pixelate": 0.08}
    metrics |= {"robust_clean": score} | {f"robust_{kind}": score * (1 - drop) for kind, drop in drops.items()}
    metrics |= {"robust_mean": score * 0.9, "robust_relative_drop": 0.1 * score / (score - 0.1)}
    metrics |= {"transfer_linear": score + 0.2, "transfer_knn": score + 0.15, "posthoc_psnr": 18 + 6 * (0.7 - level)}
    metrics["posthoc_pooled_psnr"] = metrics["posthoc_psnr"] - 4
    metrics |= {"rankme": 150 * generator.random(), "rankme_centred": 120 * generator.random()}
    metrics |= {"effective_rank": 60 * generator.random(), "uniformity": -3 + generator.random()}
    if arm in ("J1", "J5", "G1"):  # the averaged weights stand for them
        averaged = "average" if arm == "G1" else "teacher"
        metrics |= {"student/linear": score - 0.012, f"{averaged}/linear": score}
    if arm in ("J6", "J1r"):  # the last ones do
        metrics |= {"student/linear": score, "teacher/linear": score - 0.02}
    steps = 2000 if is_trained else 0
    speed = {"G2": 0.08, "V1": 0.21, "V2": 0.2}.get(arm, 0.12)
    ways = [(at, {"linear": 0.3 + (score - 0.3) * (at / 2000) ** 0.6}) for at in (200, 500, 1000) if steps]
    curve = [
        {"step": at, "seconds": speed * at, "flops": at * speed * 4e11, "metrics": values}
        for at, values in [*ways, (steps, metrics)]
    ]
    compute = {
        "steps": steps,
        "samples": 128 * steps,
        "frames": 128 * steps,
        "flops_per_step": speed * 4e11 if steps else 0.0,
        "train_flops": speed * 4e11 * steps,
        "seconds": speed * steps,
        "judging_seconds": 31.0,
        "parameters": {"encoder": 2_700_000, "trained": 3_100_000},
    }
    return facts | {"status": "done", "metrics": metrics, "curve": curve, "compute": compute}


def make_image_results(*, arms: dict[str, str] = ARMS, num_seeds: int = 3) -> dict[str, Any]:
    """What `compare` writes of still pictures."""
    generator = np.random.default_rng(0)
    make = partial(pytest.fail, "nothing is trained here")

    def better(one: str, other: str) -> Better:
        name, why = f"{one} over {other}", "what a declared reason says"
        return Better(name, better=one, than=other, metric="linear", condition=CONDITION, because=why, source="a paper")

    plan = Plan(
        name="images-test",
        question="On these pictures, which kind of pretraining gives the better encoder?",
        cells=[Cell(arm, CONDITION, make) for arm in arms],
        seeds=range(num_seeds),
        judging=Judging(instruments=(), curve=()),
        contrasts=[better("J1", "G1"), better("J1", "R"), better("G2", "V1")],
        arms=arms,
        conditions={CONDITION: "60,000 pictures of 32 pixels, 10 classes"},
        metrics=RECOGNITION,
        noun="pictures",
        notes=["Three seeds resolve differences of about 2 points.", "Nothing here is said about larger budgets."],
    )
    return judge(plan, [make_cell(cell.arm, seed, generator) for seed in plan.seeds for cell in plan.cells])


def make_pictures(folder: Path, *, channels: int = 3, num: int = 8) -> None:
    """Invented pictures of three arms, as `draw_image_cell` writes them."""
    generator, target = np.random.default_rng(0), folder / "pictures" / CONDITION
    target.mkdir(parents=True)
    images = generator.integers(0, 256, (num, SIDE, SIDE, channels), dtype=np.uint8)
    near = generator.integers(0, 256, (6, 5, SIDE, SIDE, channels), dtype=np.uint8)
    context = np.arange(GRID**2)[None] % 3 == np.zeros((num, 1))
    blocks = np.stack([np.arange(GRID**2)[None] % 6 == np.full((num, 1), g) for g in (1, 2, 4, 5)], 1)
    common = {
        "images": images,
        "features": generator.integers(0, 256, (num, GRID**2, 3), dtype=np.uint8),
        "attention": generator.random((num, GRID**2), dtype=np.float32),
        "neighbours": near,
        "same": generator.integers(0, 2, (6, 5)),
        "decoded": images // 2,
        "decoded_pooled": images // 3,
    }
    np.savez_compressed(target / "J1.stills.npz", **common, context=context, target=blocks)
    np.savez_compressed(target / "G1.stills.npz", **common, context=context, target=blocks[:, :1], reconstructed=images)
    np.savez_compressed(target / "G4.stills.npz", **common, samples=np.concatenate([images, images]))
