"""The image lab's arms and its plan: alike where they should be, tuned or absent, and the same wherever data lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jepalab.backbones.vit import ViT
from jepalab.catalogue import find_recipes
from jepalab.compare.cells import fingerprint, judge_run
from jepalab.fit import fit
from jepalab.masks.reference import ReferenceBlocks
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.recipes import image_scaling, images
from jepalab.recipes.image_bench import JUDGING, ImageBench, Pictures
from jepalab.recipes.images import ARMS, CONDITION, MAIN
from jepalab.recipes.patch_bench import Network, Schedule

SMALL = Network(patch=4, width=32, depth=2, num_heads=2, head_width=32, head_depth=2)
BRIEF = Schedule(steps=2, batch_size=8)
TRAINED = [name for name, arm in ARMS.items() if arm.knob]
TUNED = {
    "conditions": {CONDITION: {arm: {"settings": {"lr": 1e-3, "weight_decay": 0.05}} for arm in ("J1", "G1", "S")}}
}


def draw_folder(folder: Path, *, seed: int = 0, num_classes: int = 3) -> Path:
    generator = np.random.default_rng(seed)
    for label in range(num_classes):
        (folder / f"class {label}").mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(60 * label, 60 * label + 100, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {label}/{number}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    place = tmp_path_factory.mktemp("pictures")
    return Pictures(data=draw_folder(place / "data"), size=32, cache=place / "cache")


@pytest.fixture
def bench(pictures: Pictures) -> ImageBench:
    return ImageBench(pictures=pictures, network=SMALL, schedule=BRIEF)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_from_the_same_first_weights_and_can_be_judged(arm: str, bench: ImageBench) -> None:
    settings: dict[str, Any] = {"num_codes": 16} if arm == "G5" else {"num_levels": 2} if arm == "J5" else {}
    run = ARMS[arm].make(bench, **settings)
    if isinstance(run.objective.encoder, ViT):
        first = bench.encoder().state_dict()
        assert all(torch.equal(value, first[key]) for key, value in run.objective.encoder.state_dict().items())
    assert (run.steps > 0) == (arm in TRAINED)
    fit(run, device="cpu")
    scores = judge_run(run, replace(images.judging("trial")))
    assert {"linear", "linear_validation"} <= scores.keys()
    assert ("teacher/linear" in scores) == (arm in {"J1", "J1r", "J5", "J6"})


def test_one_view_arms_see_the_same_crops(bench: ImageBench) -> None:
    batches = [ARMS[arm].make(bench).stream.batch(3) for arm in ("J1", "G1", "G2", "G4")]
    assert all(torch.equal(batch.x, batches[0].x) for batch in batches)
    views = ARMS["V1"].make(bench).stream.batch(3)
    assert torch.equal(views.factors["class"], batches[0].factors["class"])
    assert len(views.views) == 1
    assert not torch.equal(views.x, batches[0].x)


@pytest.mark.parametrize("arm", [arm for arm in TRAINED if arm[0] in "JG"])
def test_heads_have_the_same_budget_within_a_tenth(arm: str, pictures: Pictures) -> None:
    bench = ImageBench(pictures=replace(pictures, size=32), schedule=BRIEF)
    counts = ARMS[arm].make(bench).count_parameters()
    wanted = ARMS["J1"].make(bench).count_parameters()
    head, budget = (each["trained"] - each["encoder"] for each in (counts, wanted))
    assert head == pytest.approx(budget, rel=0.1)


def test_the_official_masks_are_an_arm_of_their_own(bench: ImageBench) -> None:
    objective = ARMS["J1r"].make(bench).objective
    assert isinstance(objective, MaskedJEPA)
    assert isinstance(objective.masks.sampler, ReferenceBlocks)


def test_patches_that_do_not_fit_are_refused(pictures: Pictures) -> None:
    for patch in (5, 16):
        with pytest.raises(ValueError, match=r"cannot be cut into at least 4 x 4 patches"):
            ImageBench(pictures=pictures, network=replace(SMALL, patch=patch)).encoder()


@pytest.fixture
def plan(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(images, "tuned", lambda: TUNED)
    monkeypatch.setattr(image_scaling, "tuned", lambda: TUNED)

    def made(data: Path | None = None, **settings: Any) -> Any:
        chosen = pictures if data is None else replace(pictures, data=data)
        return images.plan(chosen, network=SMALL, **({"samples": 64} | settings))

    return made


def test_untuned_arms_do_not_compete_and_the_report_says_so(plan: Callable[..., Any]) -> None:
    made = plan()
    assert [cell.arm for cell in made.cells] == ["J1", "G1", "S", "R", "PCA"]
    assert any("V1, G2, G4" in note for note in made.notes)
    assert {contrast.name for contrast in made.contrasts} >= {"Frozen features: I-JEPA beats MAE"}
    assert next(iter(made.metrics)) == "linear"
    with pytest.raises(ValueError, match="untuned arms do not compete"):
        plan(arms=("V1", "R"))
    with pytest.raises(ValueError, match=r"Unknown arms: J9"):
        plan(arms=("J9",))


def test_settings_are_known_by_the_pictures_and_not_by_where_they_lie(
    plan: Callable[..., Any], pictures: Pictures, tmp_path: Path
) -> None:
    moved = shutil.copytree(pictures.data, tmp_path / "moved")
    other = draw_folder(tmp_path / "other", seed=1)

    def keys(made: Any) -> list[str]:
        return [fingerprint(cell, 0, made.judging, made.budget) for cell in made.cells]

    assert keys(plan()) == keys(plan(moved))
    assert not set(keys(plan())) & set(keys(plan(other)))


def test_a_budget_of_time_is_split_and_remembered(plan: Callable[..., Any], pictures: Pictures) -> None:
    made = plan(samples=0, budget="5m", num_seeds=2)
    assert made.budget.unit == "samples"
    assert made.budget.amount >= 1_000
    assert any("Each trained arm saw" in note for note in made.notes)
    assert plan(samples=0, budget="5m", num_seeds=2).budget == made.budget
    assert (pictures.cache / "costs.json").exists()  # type: ignore[operator]


def test_pictures_without_labels_train_but_are_not_judged(tmp_path: Path, plan: Callable[..., Any]) -> None:
    folder = draw_folder(tmp_path / "data", num_classes=1)
    lone = folder / "class 0"
    with pytest.raises(ValueError, match=r"without two nothing can be judged"):
        plan(lone)
    run = find_recipes()["ijepa"](
        ImageBench(pictures=Pictures(data=lone, size=32, cache=tmp_path / "cache"), network=SMALL, schedule=BRIEF)
    )
    fit(run, device="cpu")
    assert judge_run(run, JUDGING) == {}


def test_scaling_trains_the_same_arms_longer(pictures: Pictures, plan: Callable[..., Any]) -> None:
    made = image_scaling.plan(pictures, samples=(1_280, 256), network=SMALL)
    assert list(made.conditions) == ["256 pictures", "1,280 pictures"]
    steps = {(cell.arm, cell.condition): cell.make(0).steps for cell in made.cells}
    assert steps["J1", "256 pictures"] == 2
    assert steps["G1", "1,280 pictures"] == 10
    assert steps["R", "256 pictures"] == 0


def test_main_arms_cover_both_camps_floors_and_ceiling() -> None:
    assert {"J1", "V1", "G1", "G2", "G4", "S", "R", "PCA"} == {*MAIN}
    assert all(ARMS[arm].knob for arm in MAIN if arm not in {"R", "PCA"})
