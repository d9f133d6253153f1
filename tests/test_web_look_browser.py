"""Look inside as a person meets it: blocks that are dragged, points that move, a cursor that follows the frames."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, Request, expect

from lab_browser import DESKTOP, PHONE, browsing, needs_chromium, serving, violations
from test_web_look import draw_pictures, lay_out_runs

pytestmark = [pytest.mark.browser, needs_chromium]
READY = {
    "masks": ".block",
    "holds": ".pair select",
    "neighbours": ".pair select",
    "dials": ".point:nth-child(5)",
    "surprise": ".curves svg",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("look")
    lay_out_runs(place)
    with serving(place / "runs") as found:
        yield found


def go(page: Page, address: str, part: str) -> None:
    """Opens one part and waits until it has something to show."""
    page.goto(f"{address}/look#{part}")
    page.wait_for_selector(f"#{part} {READY[part]}", state="attached")


def count(page: Page, kind: str) -> int:
    """So many patches of a kind, as the page tells."""
    found = re.search(r"(\d+) of \d+", page.locator(f"[data-count={kind}]").inner_text())
    assert found
    return int(found[1])


def test_blocks_move_by_mouse_by_touch_and_by_key(address: str) -> None:
    with browsing(has_touch=True) as page:
        go(page, address, "masks")
        page.wait_for_selector("#masks .choice[aria-label='handwritten 9']")  # nothing is moved aside any more
        block = page.locator(".block").first
        block.scroll_into_view_if_needed()
        block.focus()
        for _ in range(14):
            page.keyboard.press("ArrowUp")
            page.keyboard.press("ArrowLeft")
        assert "row 1 to" in str(block.get_attribute("aria-label"))
        before = {kind: count(page, kind) for kind in ("context", "asked", "neither")}
        box = page.locator(".overlay").bounding_box()
        assert box
        cell = box["width"] / 14
        at = (box["x"] + 1.5 * cell, box["y"] + 2.5 * cell)
        page.mouse.move(*at)
        page.mouse.down()
        page.mouse.move(at[0] + 3 * cell, at[1] + 2 * cell, steps=4)
        page.mouse.up()
        expect(block).to_have_attribute("aria-label", re.compile("row 3 to .* column 4 to"))
        dragged = {kind: count(page, kind) for kind in before}
        assert dragged != before
        assert sum(dragged.values()) == sum(before.values()) == 196
        drag_by_touch(page, (at[0] + 3 * cell, at[1] + 2 * cell), (0.0, 4 * cell))
        expect(block).to_have_attribute("aria-label", re.compile("row 7 to .* column 4 to"))
        page.click("text=Undo moves")
        assert page.locator("text=Undo moves").is_disabled()


def drag_by_touch(page: Page, at: tuple[float, float], by: tuple[float, float]) -> None:
    client = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0)):
        point = {"x": at[0] + share * by[0], "y": at[1] + share * by[1]}
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_patches_are_hidden_by_key_and_the_next_patch_is_dragged_along(address: str) -> None:
    with browsing() as page:
        go(page, address, "masks")
        page.select_option("#masks label:has-text('Sampler') select", "random")
        cursor = page.locator(".cursor")
        cursor.wait_for(state="attached")
        seen = count(page, "context")
        cursor.focus()
        page.keyboard.press("ArrowDown")
        was_hidden = "hidden" in str(cursor.get_attribute("aria-label")).split(".")[0]
        page.keyboard.press("Space")
        assert count(page, "context") == seen + (1 if was_hidden else -1)
        assert "row 2" in str(cursor.get_attribute("aria-label"))
        page.select_option("#masks label:has-text('Sampler') select", "next")
        page.wait_for_selector(".block:nth-child(1):last-child")
        page.locator(".block").focus()
        before = count(page, "context")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        assert count(page, "context") in {before + 13, before + 14, before - 1}
        expect(page.locator("#masks h4").first).to_contain_text("pixels")


def test_a_file_of_mine_is_read_here_and_sent_nowhere(address: str, tmp_path: Path) -> None:
    sent: list[Request] = []
    with browsing() as page:
        page.on("request", lambda request: sent.append(request))
        go(page, address, "masks")
        mine = next(draw_pictures(tmp_path / "mine").rglob("*.png"))
        page.set_input_files("#masks input[type=file]", mine)
        page.wait_for_selector("text=Read in this browser")
        assert "your picture" in str(page.locator(".mask-view canvas").first.get_attribute("aria-label"))
        (tmp_path / "broken.png").write_bytes(b"no picture")
        page.set_input_files("#masks input[type=file]", tmp_path / "broken.png")
        page.wait_for_selector("text=cannot read broken.png")
    asked = [json.loads(each.post_data or "{}") for each in sent if each.method == "POST"]
    assert {each["task"] for each in asked} == {"masks", "specimens"}
    assert not any("picture" in each["arguments"] for each in asked)


def test_two_runs_look_at_one_picture(address: str) -> None:
    with browsing() as page:
        go(page, address, "holds")
        page.click("#holds button:has-text('Look at it')")
        page.wait_for_selector("#holds .look-run:nth-child(2) .drawn")
        cards = page.locator("#holds .look-run")
        expect(cards.nth(0)).to_contain_text("drawn by a decoder")
        expect(cards.nth(1)).to_contain_text("its own prediction of the hidden pixels")
        assert "dB" in cards.nth(0).inner_text()
        before = cards.nth(0).inner_text()
        page.click("#holds .choice[aria-label='handwritten 4']")
        expect(cards.nth(0)).not_to_have_text(before)
        page.wait_for_selector("#holds .choice[aria-label*='of ijepa']")
        assert violations(page) == []
        page.click("#tab-neighbours")
        page.click("#neighbours button:has-text('Look at it')")
        page.wait_for_selector("#neighbours .look-run:nth-child(2) .near li:nth-child(8)")
        assert page.locator("#neighbours .near li").count() == 16
        assert violations(page) == []


def test_dials_move_the_points(address: str) -> None:
    with browsing() as page:
        go(page, address, "dials")
        name = "distractor-demo/cells/changing/J1/seed-0"
        page.wait_for_selector("text=encoders read in")
        place = page.locator(f'.point[data-name="{name}"]')
        before, row = str(place.get_attribute("style")), page.locator(f'tr[data-name="{name}"] td.number').first
        state = row.inner_text()
        slider = page.locator("#dials label:has-text('Strength') input")
        slider.focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        expect(page.locator("#dials label:has-text('Strength') output")).to_have_text("1.8")
        expect(place).not_to_have_attribute("style", before, timeout=30_000)
        expect(row).not_to_have_text(state)
        page.click("text=No distractor")
        page.wait_for_selector("text=there is no nuisance to keep")
        assert page.locator('.point[data-name="pixel PCA"]').count() == 1


def test_the_cursor_follows_the_frames(address: str) -> None:
    with browsing(reduced_motion="reduce") as page:
        go(page, address, "surprise")
        cursor, curves = page.locator(".frame-cursor"), page.locator(".curves svg")
        expect(page.locator("#surprise .player button")).to_have_text("Play")
        at = float(str(cursor.get_attribute("x")))
        assert "nothing predicted yet" in str(curves.get_attribute("aria-label"))
        page.locator("#surprise .player input").focus()
        for _ in range(9):
            page.keyboard.press("ArrowRight")
        assert float(str(cursor.get_attribute("x"))) > at
        assert "up to frame 10" in str(curves.get_attribute("aria-label"))
        assert "frame 10 of 16" in str(page.locator("#surprise canvas").first.get_attribute("aria-label"))
        page.select_option("#surprise label:has-text('What happens') select", "flicker")
        expect(page.locator("#surprise .told")).to_contain_text("nobody should be")
        page.click("#surprise .player button")
        page.wait_for_selector("#surprise .player button:has-text('Pause')")
        page.click("#tab-dials")
        page.wait_for_selector("#dials .strip canvas")
        expect(page.locator("#dials .player button")).to_have_text("Play")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_part_can_be_read_by_everybody(address: str, scheme: str) -> None:
    for size in (DESKTOP, PHONE):
        with browsing(size=size, color_scheme=scheme) as page:
            page.goto(f"{address}/look")
            for part, ready in READY.items():
                page.click(f"#tab-{part}")
                page.wait_for_selector(f"#{part} {ready}", state="attached")
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, part
                assert violations(page) == [], part


def test_parts_are_reached_by_key_and_by_their_anchor(address: str) -> None:
    with browsing() as page:
        go(page, address, "surprise")
        page.focus("#tab-surprise")
        page.keyboard.press("ArrowRight")
        assert page.url.endswith("#masks")
        page.wait_for_selector("#masks .block", state="attached")
        page.go_back()
        page.wait_for_selector("#surprise .curves svg")
        assert page.locator("#masks").is_hidden()


def test_without_runs_the_floors_stand_alone_and_commands_are_told(tmp_path: Path) -> None:
    with serving(tmp_path) as address, browsing() as page:
        page.goto(f"{address}/look#dials")
        page.wait_for_selector("text=2 encoders read in")
        expect(page.locator("#dials .empty")).to_contain_text("python3 dev.py demo")
        page.click("#tab-surprise")
        page.wait_for_selector("#surprise .curves svg")
        expect(page.locator("#surprise .empty")).to_contain_text("jepalab train expect-pixels")
        page.click("#tab-holds")
        expect(page.locator("#holds .empty")).to_contain_text("jepalab train ijepa")
