"""The report: its numbers are those of the cells, nothing missing is hidden, and nothing is fetched or run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from jepalab.compare.courses import Course, Point, crossing
from jepalab.compare.report import write_report
from sample_report import ARMS, CONDITIONS, Page, make_results, render


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return make_results()


@pytest.fixture(scope="module")
def text(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(tmp_path_factory.mktemp("report"), results)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def scores_of(results: dict[str, Any], arm: str, condition: str, metric: str = "state_r2") -> np.ndarray:
    cells = [c for c in results["cells"] if (c["arm"], c["condition"], c["status"]) == (arm, condition, "done")]
    return np.array([cell["metrics"][metric] for cell in cells])


def test_every_number_is_in_the_page_exactly(results: dict[str, Any], page: Page) -> None:
    found = {
        (row["arm"], row["condition"], int(row["seed"]), row["metric"]): float(row["value"])
        for row in page.sheets["every-number.csv"]
        if row["status"] == "done"
    }
    wanted = {
        (cell["arm"], cell["condition"], cell["seed"], name): value
        for cell in results["cells"]
        for name, value in cell["metrics"].items()
    }
    assert found == wanted


def test_means_and_intervals_are_those_of_the_t_distribution(results: dict[str, Any], page: Page) -> None:
    scores = scores_of(results, "J1", "changing")
    low, high = stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores))
    sheet = page.sheets["state-against-nuisance-changing.csv"]
    row = next(row for row in sheet if (row["arm"], row["metric"]) == ("J1", "state_r2"))
    found = [float(row[column]) for column in ("mean", "low", "high", "seed 0", "seed 1", "seed 2")]
    np.testing.assert_allclose(found, [scores.mean(), low, high, *scores], rtol=1e-9)
    assert f"{scores.mean():.2f} ± {(high - low) / 2:.2f}" in page.row("changing", "J1", "3")


def test_teacher_stands_beside_its_student(results: dict[str, Any], page: Page) -> None:
    scores = scores_of(results, "J3", "none", "teacher/state_r2")
    assert page.row("none", "J3 teacher")[2].startswith(f"{scores.mean():.2f} ±")


def test_verdicts_are_told_by_word_and_symbol(results: dict[str, Any], page: Page) -> None:
    *declared, explored = results["contrasts"]
    assert {each["verdict"] for each in declared} == {"held", "refuted", "not shown"}
    symbols = {"held": "✓", "refuted": "✗", "not shown": "○"}
    for each, row in zip(declared, page.tables["Contrasts"][1:], strict=False):
        assert row[0].startswith(each["name"])
        assert row[-1].startswith(f"{symbols[each['verdict']]} {each['verdict']}")
    assert page.tables["Contrasts"][-1][0].startswith(explored["name"])
    assert page.tables["Contrasts"][-1][-1].startswith("· exploratory")
    numbers = {row["name"]: row for row in page.sheets["contrasts.csv"]}
    assert float(numbers["JEPA wins"]["difference"]) == results["contrasts"][0]["difference"]


def test_failed_cells_are_shown(page: Page, text: str) -> None:
    assert (
        page.row("Every cell that did not end", "changing", "J3", "1")[3]
        == "failed: DivergedError: the loss is nan at step 212"
    )
    assert page.row("changing", "J3", "2 of 3failed: seed 1")
    assert page.row("fixed", "J4p", "0 of 3failed: seed 0, 1 and 2")[2] == "–"
    assert re.search(r'<text class="absent"[^>]*>failed</text>', text)
    without = [caption for caption in page.captions if "J4p (failed: DivergedError" in caption]
    assert len(without) == 2  # state against nuisance, and the other read-outs
    assert len([row for row in page.sheets["every-number.csv"] if row["status"] == "failed"]) == 4


def test_captions_name_the_best_arm(results: dict[str, Any], page: Page) -> None:
    means = {arm: scores_of(results, arm, "changing").mean() for arm in ARMS if arm not in "SR"}
    best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    caption = next(c for c in page.captions if "Least nuisance" in c)
    assert f"Highest state R²: {best} {means[best]:.2f}" in caption
    assert f"lowest: {worst} {means[worst]:.2f}" in caption
    assert "ceiling S 0.9" in caption


def test_what_was_equal_is_said(text: str) -> None:
    assert "trained arm: the same 3 seeds (0, 1 and 2), 100 steps and an encoder of 93,120 parameters." in text


def test_unequal_steps_are_said(results: dict[str, Any], tmp_path: Path) -> None:
    kept = [cell for cell in results["cells"] if cell["condition"] == "none"]
    changed = json.loads(json.dumps(results | {"cells": kept}))
    next(cell for cell in changed["cells"] if cell["arm"] == "G2")["compute"]["steps"] = 140
    assert "Not equal: 100 to 140 steps." in render(tmp_path, changed)


def test_tuning_and_compute_are_tabulated(page: Page) -> None:
    tuned = page.row("What tuning chose", "changing", "J1", "lr 0.0028, spread 0.12")
    assert tuned[3:] == ["changing", "3", "0.512", "67 %", "1: 0.30, 2: 0.40, 3: 0.46"]
    assert page.row("What every arm spent", "none", "J1", "3")[3:8] == ["100", "6,400", "38.4 k", "2 G", "200 G"]
    assert [float(row["train_flops"]) for row in page.sheets["compute.csv"][:1]] == [2e11]


def test_curves_carry_every_price(page: Page) -> None:
    row = next(r for r in page.sheets["state-r-while-training-changing.csv"] if (r["arm"], r["step"]) == ("J1", "50"))
    assert (float(row["flops"]), float(row["seconds"])) == (1e11, 5.0)


def test_nothing_is_fetched_and_nothing_runs(text: str, page: Page) -> None:
    addresses = [
        value or ""
        for _, facts in page.tags
        for name, value in facts.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "background", "ping")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, facts in page.tags for name in facts if name.startswith("on")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_forbids_the_network_before_anything_else(page: Page) -> None:
    policy = next(facts["content"] for tag, facts in page.tags if facts.get("http-equiv") == "Content-Security-Policy")
    wanted = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    assert policy == wanted
    assert [tag for tag, _ in page.tags[:4]] == ["html", "head", "meta", "meta"]


def test_links_inside_the_page_arrive(page: Page) -> None:
    names = [facts["id"] for _, facts in page.tags if "id" in facts]
    targets = [facts["href"] for tag, facts in page.tags if tag == "a" and (facts["href"] or "").startswith("#")]
    assert len(set(names)) == len(names)
    assert {f"#{name}" for name in names} >= set(targets)


def test_every_figure_has_words_numbers_and_a_sound_picture(text: str) -> None:
    figures = re.findall(r"<figure>(.*?)</figure>\s*<details class=\"numbers[^>]*>(.*?)</details>", text, re.DOTALL)
    assert len(figures) == text.count("<figure>") >= 20
    for figure, numbers in figures:
        assert re.search(r"<figcaption>\S.{20,}</figcaption>", figure)
        assert "<pre" in numbers
        assert "<svg" in figure
        for picture in re.findall(r"<svg.*?</svg>", figure, re.DOTALL):
            root = ElementTree.fromstring(picture)
            assert root.get("role") == "img"
            assert root.get("aria-label")
            assert root.findtext("title")
            assert root.findtext("desc")


def test_every_arm_keeps_its_look(text: str) -> None:
    keys = re.findall(r"<li>(<svg.*?</svg>)\s*<strong>(.*?)</strong>", text)
    looks = {name: ElementTree.fromstring(picture)[0] for picture, name in keys}
    assert list(looks) == list(ARMS)
    assert len({(look.tag, look.get("class")) for look in looks.values()}) == len(ARMS) - 1  # the references share one
    assert looks["J1"].tag == "circle"
    assert len((looks["G2"].get("points") or "").split()) == 4
    assert len((looks["A1"].get("points") or "").split()) == 3


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    label = '"><img src=http://example.org/x onerror=alert(1)>'
    results = make_results(arms=ARMS | {hostile: label}, conditions={"none": label, "changing": "'&<b>"})
    text = render(tmp_path, results)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [facts for tag, facts in page.tags if tag == "img"]
    assert {hostile, label} <= {words.strip() for words in page.texts}
    assert any(row["arm"] == hostile for row in page.sheets["every-number.csv"])


def test_one_seed_has_no_interval_and_says_so(tmp_path: Path) -> None:
    text = render(tmp_path, make_results(num_seeds=1))
    page = Page(text)
    assert "whisker" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert page.row("changing", "J1", "11 seed, no interval")
    assert {row[4] for row in page.tables["Contrasts"][1:]} == {"1 seed, no interval"}
    assert "±" not in "".join(entry for rows in page.tables.values() for row in rows for entry in row)
    assert sum("1 seed, no interval." in caption for caption in page.captions) == 10


def test_what_did_not_run_is_named(tmp_path: Path) -> None:
    results = make_results()
    results["complete"] = False
    gone = [("J1", "none", 2), *(("A1", "changing", seed) for seed in range(3))]
    results["cells"] = [
        cell
        for cell in results["cells"]
        if (cell["arm"], cell["condition"], cell["seed"]) not in gone and cell["condition"] != "rho 0.5"
    ]
    text = render(tmp_path, results)
    assert "Unfinished." in text
    assert "nothing ran under rho 0.5" in text
    assert Page(text).row("none", "J1", "2 of 3not run: seed 2")
    assert "Not run under this condition: A1." in text


def test_nothing_finished_is_still_a_report(tmp_path: Path) -> None:
    results = make_results(conditions={"changing": ""})
    for cell in results["cells"]:
        cell |= {"status": "failed", "metrics": {}, "error": "OSError: the disk is full"}
        cell.pop("compute", None)
        cell.pop("curve", None)
    results["compute"], results["contrasts"], results["answer"] = [], [], "No contrast was declared."
    text = render(tmp_path, results)
    assert "No training has ended yet." in text
    assert text.count("failed: OSError: the disk is full") >= len(results["cells"])


def test_a_score_far_below_zero_is_an_arrow_with_its_number(tmp_path: Path) -> None:
    results = make_results(conditions={"changing": ""})
    for cell in results["cells"]:
        if cell["arm"] == "J1":
            cell["metrics"]["rollout_5_r2"] = -12.5
    text = render(tmp_path, results)
    assert ">J1 −12.50</text>" in text
    assert "lowest is J1 at −12.50" in text


def test_pictures_become_strips_with_words(tmp_path: Path) -> None:
    clips = np.linspace(0, 3, 2 * 4 * 8 * 8, dtype=np.float32).reshape(2, 4, 8, 8)
    for condition in ("changing", "rho-0.5"):
        (tmp_path / "pictures" / condition).mkdir(parents=True)
        np.savez(tmp_path / "pictures" / condition / "data.npz", with_nuisance=clips, without=clips / 2)
    predicted = clips + np.float32(0.1)
    np.savez(
        tmp_path / "pictures/changing/J1-A1.npz", truth=clips, predicted=predicted, how=np.array("post-hoc decoder")
    )
    text = render(tmp_path, make_results(arms=ARMS | {"J1+A1": "both"}, conditions={"changing": "", "rho 0.5": ""}))
    images = [facts for tag, facts in Page(text).tags if tag == "img"]
    assert len(images) == 3 * 2 * 2  # figures x clips x strips
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert "changing, clip 2 of 2, 4 frames: J1+A1: post-hoc decoder predicted" in [image["alt"] for image in images]
    errors = [float(row["mean_squared_error"]) for row in Page(text).sheets["predictions-changing.csv"]]
    np.testing.assert_allclose(errors, 0.01, rtol=1e-3)


def test_pictures_are_never_unpickled(tmp_path: Path) -> None:
    (tmp_path / "pictures/none").mkdir(parents=True)
    np.savez(tmp_path / "pictures/none/data.npz", with_nuisance=np.array([{}], dtype=object), without=np.zeros(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        render(tmp_path, make_results())


def test_report_without_pictures_has_no_section_for_them(text: str) -> None:
    assert ("The data" in text, "<img" in text) == (False, False)


def test_report_is_a_whole_file_in_the_folder(tmp_path: Path, results: dict[str, Any]) -> None:
    render(tmp_path, results | {"cells": results["cells"][:3]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.json"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "does not exist"),
        ("{", "not JSON"),
        ("[]", "lacks question"),
        ('{"cells": []}', "lacks question, answer"),
    ],
)
def test_unusable_results_say_what_to_run(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{complaint}.*`jepalab compare distractor --out"):
        write_report(tmp_path)


def test_cell_without_its_facts_says_what_to_run(tmp_path: Path, results: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cell without one of .*jepalab compare"):
        render(tmp_path, results | {"cells": [{"arm": "J1"}]})


def test_course_is_drawn_from_two_conditions_on(page: Page, tmp_path: Path) -> None:
    rhos = {row["rho"] for row in page.sheets["state-r-against-persistence.csv"] if row["arm"] == "J1"}
    assert rhos == {"0.0", "0.5", "1.0"}
    one = {name: words for name, words in CONDITIONS.items() if not name.startswith("rho")}
    assert "state-r-against-persistence.csv" not in render(tmp_path, make_results(conditions=one))


def test_course_of_budgets_says_where_two_arms_cross(tmp_path: Path, results: dict[str, Any]) -> None:
    budgets = {"rho 0": 1_000, "rho 0.5": 10_000, "fixed": 100_000}
    course = Course("Longer training", "clips seen", budgets, is_budget=True)
    for cell in results["cells"]:
        if cell["status"] == "done" and cell["condition"] in budgets and cell["arm"] in ("J1", "G2"):
            seen = budgets[cell["condition"]]
            cell["compute"] |= {"train_flops": seen * {"J1": 2e6, "G2": 1e6}[cell["arm"]], "seconds": seen / 100}
            cell["metrics"]["state_r2"] = (
                0.3 if cell["arm"] == "G2" else {1_000: 0.2, 10_000: 0.25, 100_000: 0.35}[seen]
            )
    found = results | {"courses": [course.as_dict()]}
    caption = next(each for each in Page(render(tmp_path, found)).captions if "By clips seen" in each)
    assert "J1 and G2 cross at about 31.6 k" in caption  # half way, by ratio, from 10,000 to 100,000
    assert "at 100 k J1 is highest" not in caption  # A1 is
    assert caption.count("J1 and G2 cross at about") == 3


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ([(1, 0.0), (100, 1.0)], [(1, 0.5), (100, 0.5)], 10.0),
        ([(1, 0.0), (100, 1.0)], [(10, 0.6), (1000, 0.6)], 10**1.2),  # their points differ: only where both are known
        ([(1, 0.0), (100, 1.0)], [(1, 0.5), (5, 0.5)], None),
        ([(1, 0.0), (10, 1.0), (100, 0.0), (1000, 1.0)], [(1, 0.5), (1000, 0.5)], 10**2.5),  # the last of three
        ([(1, 0.0), (100, 0.4)], [(1, 0.5), (100, 0.5)], None),
        ([(1, 0.0), (10, 0.5), (100, 1.0)], [(1, 0.5), (100, 0.5)], 10.0),  # at a point of both
        ([(1, 0.0), (10, 0.5), (100, 0.0)], [(1, 0.5), (100, 0.5)], None),  # they touch
    ],
)
def test_crossing(first: list[Point], second: list[Point], where: float | None) -> None:
    assert crossing(first, second) == (where and pytest.approx(where))
    assert crossing(second, first) == (where and pytest.approx(where))
