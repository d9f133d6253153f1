"""The lab's runs in a real browser: curves that move while a run writes, warnings, tables, reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepalab.records import RunFolder
from lab_browser import DESKTOP, PHONE, browsing, needs_chromium, serving, until, violations

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.browser, needs_chromium]
SHAPES = "() => [...document.querySelectorAll('#curves canvas')].map(c => c.toDataURL())"


def write(folder: RunFolder, steps: range, *, std: float = 0.8, **facts: object) -> None:
    """Some records as `fit` writes them."""
    compares = {"predict": "ema-embedding"}
    known = {"status": "running", "steps": 1_000, "seed": 0, "objective": "MaskedJEPA", "compares": compares}
    folder.describe(**(known | {"weights": {"predict": 1.0}, "clips_per_batch": 64, "flops_per_step": 1e9} | facts))
    folder.beat(steps[-1])
    for step in steps:
        meters = {"std": std, "rankme": 12.0, "rankme_centred": 11.0, "mean_cosine": 0.2}
        folder.log({"step": step, "seconds": step / 10, "loss": {"predict": 1 / step}, "meters": meters})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab") / "runs"
    write(RunFolder(root / "ijepa"), range(1, 400, 25))
    generative = {"objective": "MAE", "compares": {"pixels": "input"}, "weights": {"pixels": 1.0}}
    write(RunFolder(root / "mae"), range(1, 400, 25), **generative)
    write(RunFolder(root / "flat"), range(1, 400, 25), std=0.01)
    write(RunFolder(root / "old"), range(1, 1_001, 100), status="done")
    RunFolder(root / "sad").describe(status="failed", error="The loss is no longer finite at step 3", steps=9)
    (root / "torn").mkdir()
    (root / "torn" / "run.json").write_text('{"status": ')
    shutil.copytree(ROOT / "docs/results/distractor-demo", root / "distractor-demo")
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with serving(root) as address:
        yield address


def test_curves_move_while_runs_write_and_prices_change_the_axis(root: Path, address: str) -> None:
    with browsing() as page:
        page.goto(address)
        page.wait_for_selector("#curves canvas")
        until(page, "document.querySelectorAll('#key li').length === 3")
        assert page.locator("#key .JEPA").count() == 2
        assert page.locator("#key .generative").count() == 1
        before, words = page.evaluate(SHAPES), page.get_attribute("#curves", "aria-label")
        assert "mae" in words
        assert "at 376" in words
        for name in ("ijepa", "mae"):
            folder = RunFolder(root / name)
            folder.log(folder.records()[-1] | {"step": 401})
        until(page, "document.querySelector('#curves').ariaLabel.includes('at 401')")
        assert page.evaluate(SHAPES) != before
        page.select_option("#price", "samples")
        until(page, "document.querySelector('#curves').ariaLabel.includes('25.7 k')")
        page.select_option("#price", "flops")
        until(page, "document.querySelector('#curves').ariaLabel.includes('training FLOPs')")
        page.select_option("#quantity", "meters/std")
        until(page, "document.querySelector('#curves').ariaLabel.includes('spread')")


def test_the_list_says_what_became_of_each_and_warns_of_a_collapse(address: str) -> None:
    with browsing() as page:
        page.goto(address)
        until(page, "document.querySelectorAll('#rows tr').length === 6")
        status = {
            row.locator("td.name a").inner_text(): row.locator(".badge").inner_text()
            for row in page.locator("#rows tr").all()
        }
        running = dict.fromkeys(("ijepa", "mae", "flat"), "running")
        assert status == running | {"old": "done", "sad": "failed", "torn": "broken"}
        assert "no longer finite" in page.locator("#rows").inner_text()
        page.wait_for_selector(".meter .warning")
        assert page.locator(".meter .warning").count() == 1
        assert "Collapsing" in page.locator("section.meter[aria-label*=flat]").inner_text()
        page.fill("#search", "mae")
        until(page, "document.querySelectorAll('#rows tr').length === 1")
        page.fill("#search", "")
        page.check("#rows input[data-run=old]")
        until(page, "document.querySelectorAll('#key li').length === 4")


def test_a_run_and_a_comparison_are_shown_whole(address: str) -> None:
    with browsing() as page:
        page.goto(f"{address}/run?name=mae")
        page.wait_for_selector("#charts canvas")
        assert page.locator("#compares tbody td").all_inner_texts() == ["pixels", "input", "1"]
        page.goto(f"{address}/comparison?name=distractor-demo")
        page.wait_for_selector("#contrasts tbody tr")
        assert page.locator("strong.verdict.held").count() == 4
        assert page.locator("#table tbody tr").count() == 8
        page.select_option("#metric", "rankme")
        frame = page.frame_locator("#report")
        assert frame.locator("h1").count() == 1


def test_what_is_not_there_is_said(address: str) -> None:
    with browsing(refused=3) as page:
        for where in ("/run?name=nobody", "/comparison?name=nobody", "/run?name=../x"):
            page.goto(address + where)
            page.wait_for_selector("body[data-ready]")
            assert page.locator("#trouble").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_are_accessible_and_fit(size: dict[str, int], scheme: str, address: str) -> None:
    with browsing(size=size, color_scheme=scheme) as page:
        for where in ("/", "/run?name=flat", "/comparison?name=distractor-demo"):
            page.goto(address + where)
            page.wait_for_selector("body[data-ready]")
            page.wait_for_timeout(1_500)
            assert violations(page) == [], where
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), where


def test_everything_can_be_reached_by_keys(address: str) -> None:
    with browsing() as page:
        page.goto(address)
        page.wait_for_selector("#rows input")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.keyboard.press("Enter")
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.run || ''"))
        assert {"quantity", "price", "log", "none", "search", "status", "ijepa"} <= seen
