"""The page /plan as a person uses it: a click and a key send both models off, and what came of it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect
from tests.lab_browser import PHONE, browsing, needs_chromium, serving, violations
from tests.test_web_plan import NEAR, train_pair

pytestmark = [pytest.mark.browser, needs_chromium]
ARENA, MARGIN = (4.5, 59.5), 1  # of the room, and what the page shows around it
PATIENCE = 90_000  # ms, beside other work


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(train_pair(tmp_path_factory.getbasetemp() / "plan-pair")) as where:
        yield where


def open_page(page: Page, address: str) -> None:
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/plan")
    expect(page.locator("#ground")).to_be_visible(timeout=PATIENCE)


def click(page: Page, place: list[float], *, room: int = 0) -> None:
    """Clicks a place, in pixels of the model's picture."""
    canvas = page.locator(".room canvas").nth(room)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    zoom = box["width"] / (ARENA[1] - ARENA[0] + 2 * MARGIN)
    x, y = ((value - ARENA[0] + MARGIN) * zoom for value in place)
    canvas.click(position={"x": x, "y": y})


def wait_for_try(page: Page, number: int) -> str:
    """What the log says of the latest try, once there are so many."""
    expect(page.locator("#log p")).to_have_count(number, timeout=PATIENCE)
    return page.locator("#log p").first.inner_text()


def scrolls_sideways(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_a_click_on_a_near_goal_is_planned_and_reached(address: str) -> None:
    with browsing(reduced_motion="reduce") as page:
        open_page(page, address)
        assert page.locator("#run-a").input_value() == "vicreg-world"
        assert page.locator("#run-b").input_value() == "pixel-world"
        expect(page.locator(".player .trust").first).to_contain_text("R²")
        page.check("input[name=map][value=latent]")
        click(page, NEAR)
        told = wait_for_try(page, 1)
        assert re.search(r"A, vicreg-world: arrived after \d+ steps", told)
        assert "B, pixel-world: " in told
        rows = page.locator("#tally tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.nth(0).locator("td").nth(0)).to_contain_text("1 of 1")
        expect(rows.nth(0).locator("td").nth(0)).to_contain_text("21 to 100 %")
        expect(rows.nth(0).locator("td").nth(1)).to_have_text("no try yet")
        expect(rows.nth(1).locator("td").nth(0)).to_contain_text("of 1")
        seen = page.locator(".room canvas").first
        expect(seen).to_have_attribute("aria-label", re.compile(r"Goal at x 54, y 36\..*Outcome: arrived after"))
        expect(page.locator(".legend").first).to_contain_text("rank correlation with the true way 0.")
        sizes = page.locator(".strip canvas").evaluate_all("all => all.map((each) => each.width)")
        assert sizes == [65] * 6
        assert violations(page) == []
        assert not scrolls_sideways(page)

        page.check("#oracle")
        page.click("#again")
        told = wait_for_try(page, 2)
        assert "The environment itself (ceiling): arrived" in told
        expect(rows.nth(0).locator("td").nth(0)).to_contain_text("2 of 2")
        expect(rows.nth(2)).to_contain_text("1 of 1")
        page.click("#reset")
        expect(rows.nth(0)).to_contain_text("no try yet")


def test_the_keyboard_alone_sets_goals_on_a_phone_in_the_dark(address: str) -> None:
    with browsing(size=PHONE, color_scheme="dark", reduced_motion="reduce") as page:
        open_page(page, address)
        page.locator(".room").first.focus()
        for _ in range(3):
            page.keyboard.press("Shift+ArrowDown")
        expect(page.locator("#cursor")).to_have_text("x 47, y 44, free")
        page.keyboard.press("Enter")
        assert "A, vicreg-world: arrived after" in wait_for_try(page, 1)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("s")
        expect(page.locator("#playing")).to_contain_text("The start has moved")
        expect(page.locator(".room canvas").first).to_have_attribute("aria-label", re.compile("Start at x 46, y 44"))
        page.locator(".settings summary").click()
        assert page.get_by_label("Start y").input_value() == "43.8"
        assert violations(page) == []
        assert not scrolls_sideways(page)


def test_a_try_can_be_stopped_and_the_next_one_is_played(address: str) -> None:
    with browsing() as page:
        open_page(page, address)
        click(page, [32.0, 12.0])
        expect(page.locator("#playing")).to_contain_text("lies in the wall")
        page.locator(".settings summary").click()
        page.get_by_label("Steps at most").fill("400")
        page.get_by_label("Steps at most").press("Tab")
        click(page, [6.0, 6.0], room=1)
        expect(page.locator(".facts").first).to_contain_text("px left", timeout=PATIENCE)
        page.click("#stop")
        expect(page.locator("#playing")).to_contain_text("Stopped")
        expect(page.locator("#stop")).to_be_disabled()
        click(page, NEAR)
        assert "arrived" in wait_for_try(page, 1)
        expect(page.locator("#tally-title")).to_contain_text("400")


def test_where_there_is_no_world_model_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    with serving(tmp_path) as where, browsing() as page:
        page.goto(f"{where}/plan")
        expect(page.locator("#nothing")).to_be_visible()
        expect(page.locator("#nothing")).to_contain_text("jepalab train pixel-world --steps 1000")
        expect(page.locator("#with-worlds")).to_be_hidden()
        assert violations(page) == []
