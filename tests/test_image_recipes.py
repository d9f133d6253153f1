"""The image lab's arms and its plan: alike where they should be, tuned or absent, and the same wherever data lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jepalab import cli
from jepalab.backbones.vit import ViT
from jepalab.catalogue import find_recipes
from jepalab.compare.cells import fingerprint, judge_run
from jepalab.compare.tables import tuning_table
from jepalab.fit import fit
from jepalab.masks.blocks import Blocks
from jepalab.masks.random import RandomMask
from jepalab.masks.reference import ReferenceBlocks
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.recipes import image_generative, image_jepas, image_scaling, images
from jepalab.recipes.allowance import READ_OUT_SECONDS
from jepalab.recipes.image_bench import JUDGING, ImageBench, Pictures
from jepalab.recipes.image_transfer import OtherPictures
from jepalab.recipes.images import ARMS, CONDITION, MAIN
from jepalab.recipes.lab_costs import num_labelled
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.records import RunFolder

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
    taught = {"J1", "J1r", "J1x", "J5", "J6"}
    assert ("student/linear" in scores) == (arm in taught)
    assert ("average/linear" in scores) == (arm in {*TRAINED} - taught)


def of_pictures(name: str, recipe: Callable[..., Any]) -> bool:
    return recipe.__module__ in (image_jepas.__name__, image_generative.__name__)


RECIPES = {name: recipe for name, recipe in find_recipes().items() if of_pictures(name, recipe)}
ON_RESNET = [(name, "resnet") for name, recipe in RECIPES.items() if "backbone" in signature(recipe).parameters]


@pytest.mark.parametrize(("name", "backbone"), [*((name, "") for name in RECIPES), *ON_RESNET])
def test_every_recipe_of_pictures_trains_from_the_command_line(
    name: str, backbone: str, tmp_path: Path, pictures: Pictures
) -> None:
    data = pictures.data if name == "classifier" else pictures.data / "class 0"  # without labels nothing is judged
    flags: dict[str, Any] = {"data": data, "cache": tmp_path / "cache", "out": tmp_path / "run", "size": 16, "steps": 2}
    flags |= {"width": 16, "depth": 3, "num-heads": 2, "head-width": 16, "head-depth": 1, "batch-size": 4}
    if name == "masked-token":
        flags["num-codes"] = 16
    flags |= {"backbone": backbone} if backbone else {}
    assert cli.main(["train", name, *(f"--{flag}={value}" for flag, value in flags.items())]) == 0
    assert RunFolder(tmp_path / "run").description()["status"] == "done"
    built = [config.read_text() for config in (tmp_path / "run" / "encoders").glob("*/config.json")]
    assert not backbone or (built and all("ResNet" in each for each in built))


def test_views_and_labels_train_a_residual_network_too() -> None:
    assert {name for name, _ in ON_RESNET} == {"lejepa", "vicreg", "classifier"}


def test_the_teacher_of_salt_is_part_of_the_budget(bench: ImageBench) -> None:
    run = image_jepas.salt(bench, teacher_share=0.5).on_steps(9)
    assert run.first is not None
    assert (run.steps, run.first.steps) == (6, 3)
    pixels = run.first.objective
    assert isinstance(pixels, MAE)
    assert isinstance(pixels.masks.sampler, Blocks), "as published: the teacher of pixels hides blocks too"
    objective = run.objective
    assert isinstance(objective, MaskedJEPA)
    assert run.prepare is not None
    run.prepare()
    for ours, theirs in zip(objective.teacher.parameters(), run.first.objective.encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(objective.encoder.parameters()), next(objective.teacher.parameters()))


def test_one_view_arms_see_the_same_crops(bench: ImageBench) -> None:
    batches = [ARMS[arm].make(bench).stream.batch(3) for arm in ("J1", "G1", "G2", "G4")]
    assert all(torch.equal(batch.x, batches[0].x) for batch in batches)
    views = ARMS["V1"].make(bench).stream.batch(3)
    assert torch.equal(views.factors["class"], batches[0].factors["class"])
    assert len(views.views) == 1
    assert not torch.equal(views.x, batches[0].x)


@pytest.mark.parametrize(("patch", "settings"), [(4, {}), (8, {}), (16, {}), (4, {"num_codes": 1024})])
@pytest.mark.parametrize("arm", [arm for arm in TRAINED if arm[0] in "JG"])
def test_heads_have_the_same_budget_within_a_tenth(
    arm: str, patch: int, settings: dict[str, Any], pictures: Pictures
) -> None:
    bench = ImageBench(pictures=replace(pictures, size=8 * patch), network=Network(patch=patch), schedule=BRIEF)
    counts = ARMS[arm].make(bench, **(settings if arm == "G5" else {})).count_parameters()
    wanted = ARMS["J1"].make(bench).count_parameters()
    head, budget = (each["trained"] - each["encoder"] for each in (counts, wanted))
    assert head == pytest.approx(budget, rel=0.1)


def test_the_official_masks_are_an_arm_of_their_own(bench: ImageBench) -> None:
    objective = ARMS["J1r"].make(bench).objective
    assert isinstance(objective, MaskedJEPA)
    assert isinstance(objective.masks.sampler, ReferenceBlocks)


@pytest.mark.parametrize(("jepa", "pixels", "sampler"), [("J1", "G1m", Blocks), ("J1x", "G1", RandomMask)])
def test_each_camp_is_trained_on_the_others_masks(jepa: str, pixels: str, sampler: type, bench: ImageBench) -> None:
    ours, theirs = (ARMS[arm].make(bench).objective for arm in (jepa, pixels))
    assert isinstance(ours, MaskedJEPA)
    assert isinstance(theirs, MAE)
    assert type(ours.masks.sampler) is type(theirs.masks.sampler) is sampler
    one, other = ours.masks(8), theirs.masks(8)
    assert torch.equal(one.context, other.context)
    assert torch.equal(one.target, other.target)


def test_contrasts_cite_what_they_test() -> None:
    declared = {(c.better, c.than, c.metric): c for c in images.declare([*ARMS])}  # type: ignore[attr-defined]
    assert declared["J1", "G1m", "linear"].because == "Only what is compared differs."
    assert "table 7" in declared["J1", "G1m", "linear"].source
    assert "table 7" in declared["J1", "G1", "shot_10"].source, "the frozen one; table 2 is fine-tuned"
    assert "table 1" in declared["J1", "G1", "linear_joined_levels"].source
    assert ("G2", "G1", "attentive") in declared, "which is how the source read"
    assert "own hypothesis" in declared["V1", "J1", "linear"].source
    assert len({claim.name for claim in declared.values()}) == len(declared)


def test_floor_and_official_masks_are_compared_without_a_verdict(plan: Callable[..., Any]) -> None:
    made = plan(arms=("J1", "G1", "PIX"))
    assert [(c.better, c.than, c.metric) for c in made.exploratory] == [("J1", "PIX", "linear")]
    whole = [(c.better, c.than) for c in images.explore([*ARMS])]  # type: ignore[attr-defined]
    assert whole == [("J1", "PIX"), ("J1", "J1r")]
    assert not {c.name for c in images.explore([*ARMS])} & {c.name for c in images.declare([*ARMS])}


def test_the_last_four_levels_are_a_chief_metric_where_there_are_four(plan: Callable[..., Any]) -> None:
    shallow, deep = plan(), plan(network=replace(SMALL, depth=4))
    assert list(deep.metrics)[:2] == ["linear", "linear_joined_levels"]
    counts = [sum(c.metric == "linear_joined_levels" for c in made.contrasts) for made in (shallow, deep)]
    assert counts == [0, 1], "one that cannot be tested would count in Holm's correction"
    assert [any("no last 4 levels" in note for note in made.notes) for made in (shallow, deep)] == [True, False]


def test_patches_that_do_not_fit_are_refused(pictures: Pictures) -> None:
    for patch in (5, 16):
        with pytest.raises(ValueError, match=r"cannot be cut into at least 4 x 4 patches"):
            ImageBench(pictures=pictures, network=replace(SMALL, patch=patch)).encoder()


@pytest.fixture
def plan(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(images, "tuned", lambda *_: TUNED)
    monkeypatch.setattr(image_scaling, "tuned", lambda *_: TUNED)

    def made(data: Path | None = None, **settings: Any) -> Any:
        chosen = pictures if data is None else replace(pictures, data=data)
        return images.plan(chosen, **({"samples": 64, "network": SMALL} | settings))

    return made


def test_untuned_arms_do_not_compete_and_the_report_says_so(plan: Callable[..., Any]) -> None:
    made = plan()
    assert [cell.arm for cell in made.cells] == ["J1", "G1", "S", "R", "PCA", "PIX"]
    assert any("V1, G1m, G2, G4" in note for note in made.notes)
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


def test_a_number_of_samples_is_told_with_what_it_can_show(plan: Callable[..., Any]) -> None:
    notes = plan(samples=640, num_seeds=1).notes
    assert any("Each trained arm saw 640 pictures" in note and "1 seed(s)" in note for note in notes)
    assert any("no contrast can be held" in note for note in notes)


def test_components_are_fitted_to_a_bounded_number_of_frames(bench: ImageBench, monkeypatch: Any) -> None:
    frames: list[int] = []
    monkeypatch.setattr("jepalab.recipes.patch_bench.PixelPCA.fit", lambda self, x: frames.append(len(x)))
    monkeypatch.setattr("jepalab.recipes.patch_bench.PCA_BYTES", 40 * 8 * 3 * 32**2)
    prepare = ARMS["PCA"].make(bench).prepare
    assert prepare is not None
    prepare()
    assert frames == [40]


def test_a_folder_of_sixty_pictures_has_components_too(tmp_path: Path) -> None:
    """Fewer than the encoder is wide: as many as there are pictures to fit them to, less one for the mean."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    run = ARMS["PCA"].make(ImageBench(pictures=Pictures(data=folder, size=16, cache=tmp_path / "cache")))
    assert run.prepare is not None
    run.prepare()
    z = run.objective.encoder(run.stream.held_out("train", 48).x)
    assert z.shape == (48, 1, 47)
    assert z.flatten(1).std(0).min() > 0


def test_the_ceiling_learns_from_labelled_pictures_alone(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "data", num_classes=2)
    for number in range(200):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    bench = ImageBench(pictures=Pictures(data=folder, size=16, cache=tmp_path / "cache"), network=SMALL, schedule=BRIEF)
    ceiling, rival = (ARMS[arm].make(bench) for arm in ("S", "J1"))
    assert (ceiling.stream.batch(0).factors["class"] >= 0).all()
    assert (rival.stream.batch(0).factors["class"] < 0).any()
    seen = (run.steps * run.stream.clips_per_batch for run in (ceiling, rival))
    assert next(seen) == next(seen)


def test_contrasts_without_their_read_out_are_left_out_and_that_is_said(plan: Callable[..., Any]) -> None:
    """They would count in Holm's correction as p-values of 1, and make the others harder to show."""
    quick, full = plan(read_outs="quick"), plan(read_outs="full")
    assert {claim.metric for claim in full.contrasts} - {claim.metric for claim in quick.contrasts} == {"finetuned"}
    (note,) = (note for note in quick.notes if "left out, as only" in note)
    assert "Fine-tuned: MAE beats I-JEPA" in note
    assert not any("left out, as only" in note for note in full.notes)


def test_pictures_that_were_shrunk_are_told(plan: Callable[..., Any], tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "large")
    for path in folder.glob("*/*.png"):
        with Image.open(path) as image:
            image.resize((100, 65)).save(path)
    said = "squares of 32 x 32 pixels. The shorter side of the median picture was 65 pixels."
    assert any(said in note for note in plan(folder).notes)
    assert not any("squares of" in note for note in plan().notes)


def test_a_second_set_and_a_likelihood_are_paid_for_out_of_the_budget(
    plan: Callable[..., Any], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {CONDITION: {arm: {"settings": {"lr": 1e-3, "weight_decay": 0.05}} for arm in ("J1", "G3")}}
    monkeypatch.setattr(images, "tuned", lambda *_: {"conditions": known})

    def costs(measures: Mapping[str, object], **_: object) -> dict[str, float]:
        return {name: 1.0 if name.startswith("encoders") else 1e-3 for name in measures}

    judged: list[Mapping[str, float]] = []

    def allot(*_: object, judging_seconds: Mapping[str, float], **__: object) -> tuple[int, int]:
        judged.append(judging_seconds)
        return 1_000, 1

    monkeypatch.setattr("jepalab.recipes.lab.measured_costs", costs)
    monkeypatch.setattr("jepalab.recipes.lab.allot", allot)
    settings = {"samples": 0, "arms": ("J1", "G3", "R"), "read_outs": "quick"}
    plan(**settings)
    made = plan(**settings, other=OtherPictures(transfer=pictures.data))
    alone, with_others = judged
    read_there = sum(num_labelled(pictures.open(), images.FEW_IMAGES).values())
    assert read_there == 72
    for arm in ("J1", "G3", "R"):
        assert with_others[arm] - alone[arm] == pytest.approx(read_there * (1e-3 + READ_OUT_SECONDS))
    assert alone["G3"] - alone["J1"] == pytest.approx(2 * 2_000 * 1e-3)
    assert [*map(repr, made.judging.of_the_first)][-1].count("_transfer_to") == 1


def test_trials_are_ranked_as_arms_are_judged(plan: Callable[..., Any], pictures: Pictures) -> None:
    search = images.tunable(pictures, network=replace(SMALL, patch=8))
    assert search.judging.prefer == plan().judging.prefer == "linear_validation"
    run = search.make(0, arm="J1", world=search.worlds[CONDITION], settings={})
    assert isinstance(run.objective.encoder, ViT)
    assert (run.objective.encoder.patch, run.objective.encoder.dim) == ((8, 8), 32)
    assert search.of_each["shape"] == [1, 3, 32, 32]
    assert search.of_each["network"]["patch"] == 8


def test_settings_searched_with_another_network_are_told(
    plan: Callable[..., Any], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes(**recorded: Any) -> str:
        entry = {"settings": {"lr": 1e-3, "weight_decay": 0.05}, "scores": [0.5], "expected_best_of_n": [0.5]}
        entry |= {"score": 0.5, "share_above_random_encoder": 1.0}
        known = {CONDITION: {"J1": entry | recorded, "G1": entry | {"prefer": "linear_validation"}}}
        monkeypatch.setattr(images, "tuned", lambda *_: {"conditions": known})
        made = plan()
        table = tuning_table(made.settings)
        assert table is not None
        return " ".join([*made.notes, table.note])

    here = images.tunable(pictures, network=SMALL).of_each
    assert "Settings of G1 were searched with another network patch 4, width 192" in notes(**here)
    assert "Trials of" not in notes(**here)
    there = images.tunable(replace(pictures, size=16), network=SMALL).of_each
    assert "Settings of J1 were searched with another shape 1 x 3 x 16 x 16; here" in notes(**there)
    assert "Trials of J1 were ranked by the first encoder of an arm: the averaged teacher" in notes()


def test_test_noise_is_that_of_the_pictures_that_are_read(plan: Callable[..., Any], monkeypatch: Any) -> None:
    few = {"train": 40, "validation": 10, "test": 6}
    monkeypatch.setattr(images, "FEW_IMAGES", few)
    notes = plan(samples=0, budget="5m", read_outs="quick").notes
    assert any("Accuracies are on 6 labelled pictures" in note for note in notes)


def test_workers_share_the_budget(plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Costs as a busy machine could measure them would let one arm's run fill the budget alone.
    def costs(measures: Mapping[str, object], **_: object) -> dict[str, float]:
        return {name: 1.0 if name.startswith("encoders") else 1e-3 for name in measures}

    monkeypatch.setattr("jepalab.recipes.lab.measured_costs", costs)
    one, two = (plan(samples=0, budget="5m", num_seeds=1, num_workers=n).budget.amount for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.15)


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
    assert {"J1", "V1", "G1", "G1m", "G2", "G4", "S", "R", "PCA", "PIX"} == {*MAIN}
    assert all(ARMS[arm].knob for arm in MAIN if arm not in {"R", "PCA", "PIX"})
