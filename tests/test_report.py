"""The report: its numbers are those of the cells, nothing missing is hidden, and nothing is fetched or run."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from jepalab.compare.cells import Cell, Judging
from jepalab.compare.contrasts import Better, Equivalent, Unordered
from jepalab.compare.curves import persistences
from jepalab.compare.drawing import Axis, Chart, Look, Margins, number_axis, steps_between
from jepalab.compare.grid import Plan, judge
from jepalab.compare.labels import place, spread
from jepalab.compare.pictures import encode_strip
from jepalab.compare.report import write_report

ARMS = {
    "J1": "JEPA + VICReg",
    "J3": "JEPA + EMA teacher",
    "J4p": "JEPA + frozen teacher",
    "A1": "Inverse dynamics",
    "G2": "Next-frame pixels",
    "S": "Supervised (ceiling)",
    "R": "Random encoder (floor)",
}
CONDITIONS = {
    "none": "no distractor",
    "changing": "patch distractor, strength 2, persistence rho 0",
    "fixed": "patch distractor, strength 1, persistence rho 1",
    "rho 0": "patch distractor, strength 1, persistence rho 0",
    "rho 0.5": "patch distractor, strength 1, persistence rho 0.5",
}
LEVELS = {"J1": 0.8, "J3": 0.7, "J4p": 0.6, "A1": 0.65, "G2": 0.3, "S": 0.9, "R": 0.2}
CONTRASTS = (
    Better("JEPA wins", better="J1", than="G2", metric="state_r2", condition="changing", because="b", source="s 1"),
    Better("pixels win", better="G2", than="J1", metric="state_r2", condition="changing", because="b", source="s 2"),
    Equivalent(
        "a tie", better="J1", than="J3", metric="state_r2", condition="none", margin=0.01, because="b", source="s"
    ),
    Unordered(
        "rank", metric="rankme", usefulness="state_r2", conditions=("none",), arms=tuple(ARMS), because="b", source="s"
    ),
)
FAILED = ("J3", "changing", 1)


def make_cell(arm: str, condition: str, seed: int, generator: np.random.Generator) -> dict[str, Any]:
    facts = {"arm": arm, "condition": condition, "seed": seed}
    if (arm, condition, seed) == FAILED or (arm, condition) == ("J4p", "fixed"):
        error = "DivergedError: the loss is nan at step 212"
        return facts | {"status": "failed", "metrics": {}, "error": error}
    score = LEVELS.get(arm, 0.5) + float(generator.normal(0, 0.01))
    metrics = {"state_r2": score, "position_r2": score - 0.1, "velocity_r2": score / 2, "class_linear": score / 3}
    metrics |= {"class_knn": score / 4, "rankme": 20 * generator.random(), "rankme_centred": 10 * generator.random()}
    if condition != "none":
        metrics |= {"nuisance_r2": 0.5 - score / 2, "selectivity": score - 0.3}
    if arm in ("J1", "J3", "G2"):
        metrics |= {f"rollout_{k}_r2": score - 0.1 * k for k in range(1, 6)}
    if arm == "J3":
        metrics["teacher/state_r2"] = score + 0.05
    steps = 0 if arm == "R" else 100
    moments = [(at, {"state_r2": score * at / 100}) for at in (10, 50) if steps] + [(steps, metrics)]
    curve = [{"step": at, "seconds": at / 10, "flops": at * 2e9, "metrics": values} for at, values in moments]
    compute = {
        "steps": steps,
        "samples": 64 * steps,
        "frames": 384 * steps,
        "flops_per_step": 2e9 if steps else 0.0,
        "train_flops": 2e9 * steps,
        "seconds": steps / 10,
        "judging_seconds": 1.5,
        "parameters": {"encoder": 93_120, "trained": 120_000},
    }
    return facts | {"status": "done", "metrics": metrics, "curve": curve, "compute": compute}


def make_results(
    *, arms: dict[str, str] = ARMS, conditions: dict[str, str] = CONDITIONS, num_seeds: int = 3
) -> dict[str, Any]:
    """What `compare` writes, with invented scores and real judgements."""
    generator = np.random.default_rng(0)
    make = partial(pytest.fail, "nothing is trained here")
    plan = Plan(
        name="distractor-test",
        question="Which keeps the state?",
        cells=[Cell(arm, condition, make) for condition in conditions for arm in arms],
        seeds=range(num_seeds),
        judging=Judging(instruments=(), curve=()),
        contrasts=CONTRASTS,
        arms=arms,
        conditions=conditions,
        settings={
            "conditions": {
                "changing": {
                    "J1": {
                        "settings": {"lr": 0.0028, "spread": 0.12},
                        "score": 0.5123,
                        "scores": [0.1, 0.5123, 0.3],
                        "expected_best_of_n": [0.3041, 0.4, 0.4577],
                        "share_above_random_encoder": 2 / 3,
                    }
                }
            }
        },
    )
    return judge(plan, [make_cell(c.arm, c.condition, s, generator) for s in plan.seeds for c in plan.cells])


def render(folder: Path, results: dict[str, Any]) -> str:
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    return write_report(folder).read_text()


class Page(HTMLParser):
    """Every tag with its attributes, the text of each cell and caption, and the CSV behind each download."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sheets: dict[str, list[dict[str, str]]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.captions: list[str] = []
        self.texts: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.append((tag, facts))
        if tag == "a" and "download" in facts:
            content = base64.b64decode((facts["href"] or "").split(",")[1]).decode()
            self.sheets[facts["download"] or ""] = list(csv.DictReader(io.StringIO(content)))
        if tag == "table":
            self._rows: list[list[str]] = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "figcaption", "caption"):
            self._into = self._rows[-1] if tag == "td" else self.captions
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "figcaption", "caption") and self._into:
            self._into[-1] = self._into[-1].strip()
            self._into = None
        if tag == "caption":
            self.tables[self.captions.pop()] = self._rows

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._into is not None:
            self._into[-1] += data

    def row(self, table: str, *start: str) -> list[str]:
        return next(row for row in self.tables[table] if row[: len(start)] == list(start))


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
    sheet = page.sheets["every-number.csv"]
    found = {
        (row["arm"], row["condition"], int(row["seed"]), row["metric"]): float(row["value"])
        for row in sheet
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
    verdicts = {each["name"]: each["verdict"] for each in results["contrasts"]}
    assert set(verdicts.values()) == {"held", "refuted", "not shown"}
    symbols = {"held": "✓", "refuted": "✗", "not shown": "○"}
    for (name, verdict), row in zip(verdicts.items(), page.tables["Contrasts"][1:], strict=True):
        assert row[0].startswith(name)
        assert row[-1].startswith(f"{symbols[verdict]} {verdict}")
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
    said = "the same 3 seeds (0, 1 and 2), 100 steps and an encoder of 93,120 parameters."
    assert f"Held equal for every trained arm: {said}" in text


def test_unequal_steps_are_said(results: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(results))
    next(cell for cell in changed["cells"] if cell["arm"] == "G2")["compute"]["steps"] = 140
    assert "Not equal: 100 to 140 steps." in render(tmp_path, changed)


def test_tuning_and_compute_are_tabulated(page: Page) -> None:
    tuned = page.row("What tuning chose", "changing", "J1", "lr 0.0028, spread 0.12")
    assert tuned[3:] == ["3", "0.512", "67 %", "1: 0.30, 2: 0.40, 3: 0.46"]
    assert page.row("What every arm spent", "none", "J1", "3")[3:8] == ["100", "6,400", "38.4 k", "2 G", "200 G"]
    assert [float(row["train_flops"]) for row in page.sheets["compute.csv"][:1]] == [2e11]


def test_curves_carry_every_price(page: Page) -> None:
    sheet = page.sheets["state-r-while-training-changing.csv"]
    row = next(row for row in sheet if row["arm"] == "J1" and row["step"] == "50")
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
    text = render(tmp_path, make_results(arms=ARMS | {"J1+A1": "both"}))
    images = [facts for tag, facts in Page(text).tags if tag == "img"]
    assert len(images) == 3 * 2 * 2  # figures x clips x strips
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert "changing, clip 2 of 2, 4 frames: J1+A1: post-hoc decoder predicted" in [image["alt"] for image in images]
    errors = [float(row["mean_squared_error"]) for row in Page(text).sheets["predictions-changing.csv"]]
    np.testing.assert_allclose(errors, 0.01, rtol=1e-3)


def test_report_without_pictures_leaves_their_sections_out(text: str) -> None:
    assert "The data" not in text
    assert "<img" not in text


def test_pictures_are_never_unpickled(tmp_path: Path) -> None:
    (tmp_path / "pictures/none").mkdir(parents=True)
    np.savez(tmp_path / "pictures/none/data.npz", with_nuisance=np.array([{}], dtype=object), without=np.zeros(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        render(tmp_path, make_results())


def test_strip_is_black_at_low_and_white_at_high() -> None:
    clip = np.array([[[0.0, 1.0]], [[2.0, 5.0]]])
    address = encode_strip(clip, low=0.0, high=4.0)
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    grey, alpha = np.moveaxis(np.asarray(picture), -1, 0)
    assert grey[0, [0, 1, 4, 5]].tolist() == [0, 64, 128, 255]
    assert alpha[0].tolist() == [255, 255, 0, 0, 255, 255]


def test_report_is_a_whole_file_in_the_folder(tmp_path: Path, results: dict[str, Any]) -> None:
    render(tmp_path, results)
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


def test_persistences_are_those_of_the_common_strength() -> None:
    assert persistences(CONDITIONS) == {0.0: "rho 0", 0.5: "rho 0.5", 1.0: "fixed"}
    other = CONDITIONS | {"fixed": "strength 2", "rho 0.9": "strength 1"}
    assert persistences(other) == {0.0: "rho 0", 0.5: "rho 0.5", 0.9: "rho 0.9"}
    assert persistences({"none": ""}) == {}


def test_persistence_sweep_is_drawn_from_three_conditions_on(page: Page, tmp_path: Path) -> None:
    rhos = {row["rho"] for row in page.sheets["state-r-against-persistence.csv"] if row["arm"] == "J1"}
    assert rhos == {"0.0", "0.5", "1.0"}
    two = {name: words for name, words in CONDITIONS.items() if name != "rho 0"}
    assert "state-r-against-persistence.csv" not in render(tmp_path, make_results(conditions=two))


def test_marks_stand_where_their_values_are() -> None:
    axis = Axis("", 0.0, 1.0, ())
    chart = Chart("t", "d", x=axis, y=axis, size=(120, 220), margins=Margins(10, 10, 10, 10))
    look = Look("blue")
    for point in ((0.25, 0.25), (1.0, 0.0), (0.5, -3.0)):
        chart.dot(point, look)
    circles = [(mark.get("cx"), mark.get("cy")) for mark in chart.root.iter("circle")]
    assert circles == [("35.0", "160.0"), ("110.0", "210.0")]
    arrow = next(chart.root.iter("polygon"))
    assert "60.0,213.0" in (arrow.get("points") or ""), "its tip lies just below the edge"


def test_rows_run_downwards() -> None:
    axis = Axis("", 0.0, 1.0, ())
    margins = Margins(0, 0, 0, 0)
    chart = Chart("t", "d", x=axis, y=replace(axis, high=2.0), size=(100, 100), margins=margins, names_down=True)
    assert [chart.at_y(value) for value in (0.0, 0.5, 2.0)] == [0.0, 25.0, 100.0]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_few(low: float, length: float, most: int) -> None:
    ticks = steps_between(low, low + length, most=most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 * length <= tick <= low + (1 + 1e-6) * length for tick in ticks)
    gaps = np.diff(ticks)
    mantissas = {f"{gap:.0e}"[0] for gap in gaps}
    assert len(mantissas) <= 1
    assert mantissas <= set("125")


def test_an_axis_of_one_value_opens_around_it() -> None:
    axis = number_axis("", 3.0, 3.0)
    assert (axis.low, axis.high) == (2.5, 3.5)


@given(st.lists(st.floats(0, 100), max_size=12))
def test_spread_labels_keep_order_distance_and_bounds(wanted: list[float]) -> None:
    placed = spread(wanted, gap=8.0, low=0.0, high=100.0)
    assert all(-1e-9 <= at <= 100 + 1e-9 for at in placed)
    order = np.argsort(wanted, kind="stable")
    assert all(np.diff(np.array(placed)[order]) >= 8 - 1e-6)


def test_spread_moves_no_more_than_needed() -> None:
    assert spread([10.0, 50.0, 90.0], gap=8.0, low=0.0, high=100.0) == [10.0, 50.0, 90.0]
    assert spread([52.0, 50.0, 90.0], gap=8.0, low=0.0, high=100.0) == [55.0, 47.0, 90.0]
    assert spread([0.0, 0.0, 0.0], gap=80.0, low=0.0, high=100.0) == [0.0, 50.0, 100.0]
    assert spread([], gap=8.0, low=0.0, high=100.0) == []


def test_labels_of_a_cluster_overlap_neither_each_other_nor_the_marks() -> None:
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    anchors = 200 + 12 * np.stack([np.cos(angles), np.sin(angles)], 1)
    sizes = np.tile([[30.0, 12.0]], (7, 1))
    marks = np.concatenate([anchors - 5, anchors + 5], 1)
    boxes = place(anchors, sizes, bounds=(0.0, 0.0, 400.0, 400.0), obstacles=marks, weights=np.full(7, 4.0))
    everything = [*boxes, *marks]
    for i, box in enumerate(boxes):
        for other in everything[i + 1 :]:
            assert (np.maximum(box[:2], other[:2]) >= np.minimum(box[2:], other[2:])).any()


def test_labels_at_the_edge_stay_inside() -> None:
    corner = np.array([[1.0, 1.0], [399.0, 399.0]])
    sizes = np.array([[60.0, 12.0], [60.0, 12.0]])
    none = np.empty((0, 4))
    boxes = place(corner, sizes, bounds=(0.0, 0.0, 400.0, 400.0), obstacles=none, weights=np.empty(0))
    assert (boxes >= 0).all()
    assert (boxes <= 400).all()
