"""The report of a comparison on still pictures: its sections, their numbers, and what is hidden where nothing is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from jepalab.compare.drawing import Axis
from jepalab.compare.image_pictures import encode_row, heat, show_masks
from jepalab.compare.metrics import name_metric
from jepalab.compare.milestones import reached, thresholds
from jepalab.compare.readings import Readings
from jepalab.compare.summary import scores_table
from sample_image_report import ARMS, CONDITION, make_image_results, make_pictures
from sample_report import Page, render


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return make_image_results()


@pytest.fixture(scope="module")
def text(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    make_pictures(folder)
    return render(folder, results)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def scores_of(results: dict[str, Any], arm: str, metric: str) -> np.ndarray:
    return np.array([c["metrics"][metric] for c in results["cells"] if c["arm"] == arm and c["status"] == "done"])


def test_every_section_is_there_and_none_about_motion(page: Page) -> None:
    titles = {words.strip() for words in page.texts}
    wanted = {
        *("Linear accuracy", "Does the read-out decide?", "How few labels are enough?", "What it cost"),
        *("Where in the network the class can be read", "Under corruption", "On other data"),
        "Last weights against averaged ones",
        *("What is hidden, and what is predicted", "What the encoders see", "What lies near", "Failed cells"),
        *("What an embedding still holds", "What the generative arms draw", "Rank is a diagnosis, never a score"),
    }
    assert wanted <= titles
    assert not {"State against nuisance", "Other read-outs", "The data", "What the predictions look like"} & titles


def test_sections_without_numbers_or_pictures_are_left_out(results: dict[str, Any], tmp_path: Path) -> None:
    bare = json.loads(json.dumps(results))
    for cell in bare["cells"]:
        cell["metrics"] = {k: v for k, v in cell["metrics"].items() if k == "linear"}
    titles = {words.strip() for words in Page(render(tmp_path, bare)).texts}
    assert "Linear accuracy" in titles
    assert not {"Does the read-out decide?", "Under corruption", "What lies near", "On other data"} & titles


def test_table_has_the_declared_names_in_their_order(results: dict[str, Any], text: str, page: Page) -> None:
    table = text[text.index("All chief metrics</h2>") :]
    names = [name for name in results["metrics"].values() if f">{name}</th>" in table]
    assert names[:2] == ["linear accuracy", "kNN accuracy"]
    assert [table.index(f">{name}</th>") for name in names] == sorted(table.index(f">{name}</th>") for name in names)
    scores = scores_of(results, "J1", "linear")
    margin = stats.t.ppf(0.975, 2) * stats.sem(scores)
    assert page.row(CONDITION, "J1", "3")[2] == f"{scores.mean():.3f} ± {margin:.3f}"


def test_terminal_shows_the_primary_metric_first(results: dict[str, Any]) -> None:
    columns = [column.header for column in scores_table(results, CONDITION).columns]
    assert columns[:4] == ["arm", "seeds", "linear accuracy", "kNN accuracy"]
    assert columns[-1] == "seconds"


def test_notes_stand_in_the_head(results: dict[str, Any], text: str) -> None:
    head = text[: text.index("<main>")]
    assert "What this comparison can and cannot conclude" in head
    assert all(f"<li>{note}</li>" in head for note in results["notes"])


def test_a_flipped_order_is_said(results: dict[str, Any], page: Page, tmp_path: Path) -> None:
    assert any("V1 leads under every read-out" in caption for caption in page.captions)
    flipped = json.loads(json.dumps(results))
    for cell in flipped["cells"]:
        if cell["arm"] == "G1":
            cell["metrics"]["finetuned"] = 0.9
    caption = next(c for c in Page(render(tmp_path, flipped)).captions if "The leader changes" in c)
    assert "fine-tuned accuracy: G1 0.900" in caption


def test_agreement_is_spearmans(results: dict[str, Any], page: Page) -> None:
    arms = ("J1", "V1", "G1", "G2", "G4")
    pairs = [(scores_of(results, arm, "linear").mean(), scores_of(results, arm, "finetuned").mean()) for arm in arms]
    value = stats.spearmanr(*zip(*pairs, strict=True)).statistic
    assert any(f"fine-tuned accuracy {value:.2f}." in caption for caption in page.captions)


def test_labels_needed_are_those_of_the_best_floor(results: dict[str, Any], page: Page) -> None:
    goal = scores_of(results, "PCA", "shot_50").mean()
    assert page.row(f"Labels needed, {CONDITION}", "PCA")[4:6] == ["50.0", "1.00"]
    assert page.row(f"Labels needed, {CONDITION}", "R")[4] == "more than 100"
    curve = {k: scores_of(results, "V1", f"shot_{k}").mean() for k in (5, 10)}
    share = (goal - curve[5]) / (curve[10] - curve[5])
    needed = 2 ** (math.log2(5) + share * (math.log2(10) - math.log2(5)))
    assert page.row(f"Labels needed, {CONDITION}", "V1")[4:6] == [f"{needed:.1f}", f"{needed / 50:.2f}"]


def test_time_to_threshold_is_read_off_the_mean_curve(results: dict[str, Any], page: Page) -> None:
    assert reached([(1.0, 0.2), (3.0, 0.4)], 0.3) == pytest.approx(2.0)
    assert reached([(1.0, 0.4)], 0.3) == 1.0
    assert reached([(1.0, 0.2), (3.0, 0.29)], 0.3) is None
    goals = thresholds(Readings(results), CONDITION)
    floor, best = scores_of(results, "PCA", "linear").mean(), scores_of(results, "V1", "linear").mean()
    assert list(goals.values()) == pytest.approx([floor, (floor + best) / 2])
    assert page.row(f"Time to threshold, {CONDITION}", "G3")[1:7] == ["never"] * 6
    seconds = float(page.row(f"Time to threshold, {CONDITION}", "V1")[3])
    assert 0.21 * 200 < seconds < 0.21 * 2000


def with_cpu_seconds(results: dict[str, Any]) -> dict[str, Any]:
    """The same, half of whose seconds on the wall were spent waiting for other work."""
    found = json.loads(json.dumps(results))
    for cell in found["cells"]:
        for each in (*cell.get("curve", ()), *([cell["compute"]] if "compute" in cell else [])):
            each["cpu_seconds"] = each["seconds"] / 2
    return found


def test_seconds_are_the_processors_where_all_cells_have_them(results: dict[str, Any], tmp_path: Path) -> None:
    timed = with_cpu_seconds(results)
    assert [column.header for column in scores_table(timed, CONDITION).columns][-1] == "CPU seconds"
    wall, cpu = (Page(render(tmp_path, each)) for each in (results, timed))
    place = f"Time to threshold, {CONDITION}"
    assert float(cpu.row(place, "V1")[3]) == pytest.approx(float(wall.row(place, "V1")[3]) / 2, abs=0.06)
    sheet = cpu.sheets["linear-accuracy-while-training-cifar10.csv"]
    assert {float(row["cpu_seconds"]) for row in sheet if row["arm"] == "J1"} == {12.0, 30.0, 60.0, 120.0}
    assert any("other work on the machine does not add to them" in caption for caption in cpu.captions)
    last = next(cell for cell in reversed(timed["cells"]) if "compute" in cell)
    del last["compute"]["cpu_seconds"]
    assert Readings(timed).clock == Readings(results).clock == "seconds"


def test_thresholds_and_levels_are_read_as_curves_are(results: dict[str, Any], tmp_path: Path) -> None:
    """On a share of the labels: a floor that is read with all of them would be too high for curves that are not."""
    shared = json.loads(json.dumps(results))
    for cell in shared["cells"]:
        for moment in cell.get("curve", ())[-1:]:
            moment |= {"share": 0.25, "metrics": {"linear": cell["metrics"]["linear"] - 0.05}}
    goals, fewer = (list(thresholds(Readings(each), CONDITION).values()) for each in (results, shared))
    assert fewer == pytest.approx([goal - 0.05 for goal in goals])
    captions = Page(render(tmp_path, shared)).captions
    assert any("Every point was read on 25 % of the labelled pictures" in caption for caption in captions)


def test_numbers_of_labels_stand_beside_the_read_outs(results: dict[str, Any], tmp_path: Path) -> None:
    told = json.loads(json.dumps(results))
    for cell in told["cells"]:
        if cell["metrics"]:
            cell["metrics"] |= {"linear_labels": 45_000.0, "attentive_labels": 4_000.0}
    words = "Labels that each read-out learned from: 45,000 for linear accuracy; 4,000 for attentive accuracy."
    assert any(words in caption for caption in Page(render(tmp_path, told)).captions)
    assert words in render(tmp_path, told).partition("All chief metrics</h2>")[2]
    assert words in str(scores_table(told, CONDITION).caption)


def test_curves_of_stills_count_pictures(page: Page) -> None:
    sheet = page.sheets["linear-accuracy-while-training-cifar10.csv"]
    assert {row["samples"] for row in sheet if row["arm"] == "J1"} == {"25600", "64000", "128000", "256000"}
    assert any("held-out pictures" in caption for caption in page.captions)


def test_averaged_weights_stand_beside_the_last_ones(page: Page) -> None:
    caption = next(c for c in page.captions if "less that of the last ones" in c)
    for gain in ("J1 +0.012", "J5 +0.012", "J6 −0.020", "J1r −0.020", "G1 +0.012"):
        assert gain in caption


def test_looks_differ_for_every_trained_arm(results: dict[str, Any]) -> None:
    looks = [arm.look for arm in Readings(results).arms if not arm.is_reference]
    assert len(set(looks)) == len(looks) == len(ARMS) - 3


def test_colours_of_looks_are_in_the_page(results: dict[str, Any], text: str) -> None:
    style = text[: text.index("</style>")]
    for arm in Readings(results).arms:
        assert f".{arm.look.colour} {{ color" in style


def test_pictures_are_embedded_with_words(page: Page) -> None:
    images = [facts for tag, facts in page.tags if tag == "img"]
    assert images
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in images)
    cards = [image["alt"] or "" for image in images]
    for name in ("J1, G1 seen", "features G1", "attention J1", "G1: hidden patches drawn", "G4: out of noise samples"):
        assert any(name in words or name.replace("J1, G1", "J1") in words for words in cards), name


def test_grey_pictures_are_drawn_too(results: dict[str, Any], tmp_path: Path) -> None:
    make_pictures(tmp_path, channels=1)
    assert "data:image/png" in render(tmp_path, results)


def test_hidden_patches_are_grey_and_targets_tinted() -> None:
    images = np.full((1, 8, 8, 3), 200, dtype=np.uint8)
    context, target = np.zeros((1, 4), dtype=bool), np.zeros((1, 2, 4), dtype=bool)
    context[0, 0], target[0, 0, 3] = True, True
    seen, blocks = show_masks(images, context, target)
    assert (seen[0, :4, :4] == 200).all()
    assert (seen[0, 4:] == 128).all()
    assert (blocks[0, 4:, 4:] == (np.array([230, 159, 0]) + 200) // 2).all()
    assert (blocks[0, :4] == 70).all()


def test_rows_of_pictures_are_png_with_gaps() -> None:
    address, width, height = encode_row(np.zeros((3, 4, 5, 1), dtype=np.uint8))
    assert address.startswith("data:image/png;base64,")
    assert (width, height) == (3 * 5 + 2 * 2, 4)
    assert heat(np.array([[0.0, 1.0, 2.0, 4.0]]), (4, 4))[0, :, :, 0].max() == 255


def test_logarithmic_axis_places_ratios() -> None:
    axis = Axis("labels", 1.0, 100.0, (), is_log=True)
    assert axis.share(10.0) == pytest.approx(0.5)
    assert (axis.share(0.1), axis.share(1e6)) == (0.0, 1.0)


def test_unknown_metrics_have_readable_names() -> None:
    assert name_metric("student/linear", {"linear": "linear accuracy"}) == "linear accuracy, student"
    assert name_metric("shot_5", {}) == "5 labels a class"
    assert name_metric("hue_r2", {}) == "hue R²"
