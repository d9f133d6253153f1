"""The lab's runs in a real browser: curves that move while a run writes, warnings, tables, reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from jepalab.records import RunFolder
from lab_browser import DESKTOP, PHONE, browsing, needs_chromium, serving, until, violations

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.browser, needs_chromium]
BEATING = ("ijepa", "mae", "flat")
SHAPES = "() => [...document.querySelectorAll('#curves canvas')].map(c => c.toDataURL())"
SPY = """
window.drawn = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.drawn.push(text);
  return write.call(this, text, ...rest);
};
window.streams = [];
window.EventSource = class extends EventSource {
  constructor(address) {
    super(address);
    window.streams.push(this);
  }
};
window.turn = (isHidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""  # what is written on canvases, which streams were opened, and a way to hide the page
LARGEST_LABEL = "Math.max(...drawn.map(Number).filter(Number.isFinite))"


def write(folder: RunFolder, steps: range, *, std: float = 0.8, term: str = "predict", **facts: object) -> None:
    """Some records as `fit` writes them."""
    compares = {term: "ema-embedding"}
    known = {"status": "running", "steps": 1_000, "seed": 0, "objective": "MaskedJEPA", "compares": compares}
    folder.describe(**(known | {"weights": {term: 1.0}, "clips_per_batch": 64, "flops_per_step": 1e9} | facts))
    folder.beat(steps[-1])
    for step in steps:
        meters = {"std": std, "std_samples": std / 2, "rankme": 12.0, "rankme_centred": 11.0, "mean_cosine": 0.2}
        folder.log({"step": step, "seconds": step / 10, "loss": {term: 1 / step}, "meters": meters})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab") / "runs"
    write(RunFolder(root / "ijepa"), range(1, 400, 25))
    write(RunFolder(root / "mae"), range(1, 400, 25), term="pixels", objective="MAE", compares={"pixels": "input"})
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


@pytest.fixture(autouse=True)
def beating(root: Path) -> None:
    """Runs that run say so at the beginning of each test, as tests may take long."""
    for name in BEATING:
        RunFolder(root / name).beat(376)


def go_on(root: Path, step: int, *, names: tuple[str, ...] = BEATING, **facts: object) -> None:
    """The last record again, as that of another step."""
    for name in names:
        folder = RunFolder(root / name)
        folder.beat(step)
        folder.log(folder.records()[-1] | {"step": step} | facts)


def until_drawn(page: Page, step: int) -> None:
    until(page, f"document.querySelector('#curves').ariaLabel.includes('at {step}')")


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
        go_on(root, 401, names=("ijepa", "mae"))
        until_drawn(page, 401)
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
        said = page.locator("section.meter[aria-label*=flat]").inner_text()
        assert "Collapsing: the embeddings all point one way; tokens say where they are" in said
        page.fill("#search", "mae")
        until(page, "document.querySelectorAll('#rows tr').length === 1")
        page.fill("#search", "")
        page.check("#rows input[data-run=old]")
        until(page, "document.querySelectorAll('#key li').length === 4")


def test_new_records_go_into_the_plot_that_is_there_and_leave_a_zoom_alone(root: Path, address: str) -> None:
    with browsing() as page:
        page.add_init_script(SPY)
        page.goto(address)
        page.wait_for_selector("#curves canvas")
        until(page, f"{LARGEST_LABEL} > 300")
        page.evaluate("window.kept = document.querySelector('.uplot')")
        box = page.locator("#curves .u-over").bounding_box()
        assert box
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=5)
        page.mouse.up()
        page.evaluate("drawn.length = 0")
        go_on(root, 426)
        until_drawn(page, 426)
        until(page, f"drawn.length && {LARGEST_LABEL} < 300")
        assert page.evaluate("kept.isConnected && document.querySelectorAll('.uplot').length === 1")
        page.evaluate("drawn.length = 0")
        page.dblclick("#curves .u-over")
        until(page, f"drawn.length && {LARGEST_LABEL} > 300")
        page.select_option("#quantity", "meters/std")
        until(page, "!kept.isConnected && document.querySelectorAll('.uplot').length === 1")
        page.evaluate("drawn.length = 0")
        page.select_option("#price", "seconds")
        until(page, "drawn.includes('10 s') && drawn.includes('20 s')")


def test_focus_and_a_warning_outlast_news(root: Path, address: str) -> None:
    with browsing() as page:
        page.goto(address)
        page.wait_for_selector(".meter [role=alert]")
        page.focus("#rows a[href*=mae]")
        page.evaluate("""window.kept = [document.activeElement, document.querySelector('[role=alert]'),
            document.querySelector('#key li'), document.querySelector('section.meter')]""")
        for step in (451, 476):
            go_on(root, step)
            until_drawn(page, step)
        assert page.evaluate("kept.every((node) => node.isConnected) && document.activeElement === kept[0]")
        assert page.locator("[role=alert]").count() == 1
        healthy = RunFolder(root / "ijepa").records()[-1]["meters"]
        flat = RunFolder(root / "flat").records()[-1]["meters"]
        go_on(root, 477, names=("flat",), meters=healthy)
        until(page, "!document.querySelector('[role=alert]')")
        go_on(root, 478, names=("flat",), meters=flat | {"rankme": None})
        until(page, "document.querySelector('[role=alert]') && document.querySelector('[role=alert]') !== kept[1]")
        page.goto(f"{address}/run?name=flat")
        page.wait_for_selector("#charts canvas")
        page.evaluate("window.kept = [...document.querySelectorAll('.uplot, [role=alert]')]")
        go_on(root, 501, names=("flat",))
        until(page, "document.querySelector('#far').textContent.includes('501')")
        until(page, "document.querySelector('#charts [role=img]').ariaLabel.includes('at 501')")
        assert page.evaluate("kept.length > 2 && kept.every((node) => node.isConnected)")
        assert page.inner_text("#live") == "running"


def test_the_readers_choice_is_drawn_and_kept(address: str) -> None:
    with browsing() as page:
        page.goto(address)
        page.wait_for_selector("#curves canvas")
        page.select_option("#quantity", "loss/pixels")
        until(page, "document.querySelector('#curves').ariaLabel.startsWith('loss term: pixels')")
        for name in BEATING:
            page.uncheck(f"#rows input[data-run={name}]")
        assert page.locator("#curves .uplot, #key li").count() == 0
        assert "No values yet" in page.get_attribute("#curves", "aria-label")
        page.check("#rows input[data-run=ijepa]")
        until(page, "document.querySelectorAll('#quantity option').length > 1")
        assert page.input_value("#quantity") == "total"
        page.check("#rows input[data-run=mae]")
        until(page, "document.querySelector('#quantity').value === 'loss/pixels'")


def test_a_hidden_page_holds_no_stream_and_goes_on_where_it_was(root: Path, address: str) -> None:
    with browsing() as page:
        page.add_init_script(SPY)
        page.goto(address)
        until(page, "document.querySelector('#curves').ariaLabel?.includes('mae')")
        go_on(root, 526)
        until_drawn(page, 526)
        page.evaluate("turn(true)")
        assert page.evaluate("streams.every((stream) => stream.readyState === EventSource.CLOSED)")
        go_on(root, 551)
        page.wait_for_timeout(2_500)
        assert "at 551" not in page.get_attribute("#curves", "aria-label")
        page.evaluate("turn(false)")
        until_drawn(page, 551)
        assert page.evaluate("streams.filter((stream) => stream.readyState !== EventSource.CLOSED).length") == 1
        assert page.evaluate("new URL(streams.at(-1).url).searchParams.getAll('run').every((n) => /@[1-9]/.test(n))")
        assert page.evaluate("document.querySelector('#curves .uplot') !== null")


def test_a_refused_stream_is_said_plainly(address: str) -> None:
    with browsing(refused=1) as page:
        page.route("**/api/live?*", lambda route: route.fulfill(status=403, json={"error": "No."}))
        page.goto(address)
        until(page, "document.querySelector('#connection').textContent.includes('load it again')")


def test_what_cannot_be_computed_is_not_drawn(address: str) -> None:
    with browsing() as page:
        page.goto(address)
        axis = "ticks => import('/static/dom.js').then(({ durations }) => durations(ticks))"
        assert page.evaluate(axis, [0, 0.5, 1, 1.5]) == ["0 s", "0.5 s", "1 s", "1.5 s"]
        assert page.evaluate(axis, [100, 150, 200]) == ["100 s", "150 s", "200 s"]
        assert page.evaluate(axis, [0, 600, 1200]) == ["0 min", "10 min", "20 min"]
        found = page.evaluate("""async () => {
            const { Records } = await import("/static/records.js");
            const records = new Records();
            const add = (...found) => records.add({ run: "a", records: found, offset: 7 });
            add({ step: 1, seconds: null, loss: { p: 2, q: 3 }, meters: { std: null } });
            add({ step: 2, seconds: 2, loss: { p: null, q: 3 }, meters: null });
            const prices = { flops_per_step: 5, prepare_flops: 100, clips_per_batch: 2 };
            const run = { name: "a", weights: { p: 1, q: 10 }, ...prices };
            const read = (quantity, price, facts = {}) => records.points({ ...run, ...facts }, quantity, price);
            return [read("total", "flops"), read("total", "seconds"), read("total", "step", { weights: { p: 1 } }),
                read("loss/q", "samples"), read("meters/std", "step"), records.address(["a", "b@2"])];
        }""")
        assert found == [[[105, 32]], [], [], [[2, 3], [4, 3]], [], "/api/live?run=a%407&run=b%402%400"]


def done(camp: str, beat: float, recipe: str) -> dict[str, object]:
    """A run that is done, as the server lists it."""
    known = {"objective": "", "seed": 0, "step": 9, "steps": 9, "error": "", "compares": {}, "weights": {}}
    prices = {"clips_per_batch": 0, "flops_per_step": 0, "prepare_flops": 0}
    facts = {"status": "done", "camp": camp, "beat": beat, "age": 1e5, "recipe": recipe}
    return {"name": f"{camp[0]}{beat:g}"} | facts | known | prices


def test_the_newest_of_both_camps_are_shown_first(address: str) -> None:
    of_both = [done("JEPA", beat, "vicreg-world") for beat in range(5)]
    of_both += [done("generative", beat, "pixel-world") for beat in range(5)]
    shelf = {"runs": of_both, "comparisons": []}
    news = {"content_type": "text/event-stream", "body": f"event: shelf\ndata: {json.dumps(shelf)}\n\n"}
    over = {"content_type": "text/event-stream", "body": 'event: failed\ndata: "Not now."\n\n'}
    with browsing() as page:
        page.route("**/api/live?*", lambda route: route.fulfill(**news))
        page.route("**/api/live", lambda route: route.fulfill(**news))
        page.route("**/api/runs", lambda route: route.fulfill(json=shelf))
        page.route("**/api/work", lambda route: route.fulfill(json={"job": "none"}))
        page.route("**/api/work/none", lambda route: route.fulfill(**over))
        page.goto(address)
        until(page, "document.querySelectorAll('#key li').length === 6")
        assert page.locator("#key a").all_inner_texts() == ["J2", "J3", "J4", "g2", "g3", "g4"]
        page.goto(f"{address}/plan")
        until(page, "document.querySelector('#opening').textContent === 'Not now.'")
        assert (page.input_value("#run-a"), page.input_value("#run-b")) == ("J4", "g4")


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
