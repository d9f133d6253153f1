"""Bring a step: the task behind the page, and the page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jepalab.web.tasks import audit
from lab_browser import DESKTOP, PHONE, browsing, needs_chromium, serving, until, violations

STEP = """
import torch
from torch import nn

def my_step():
    encoder, decoder = nn.Linear(6, 4), nn.Linear(4, 6)
    return lambda x: nn.functional.mse_loss(decoder(encoder(x)), x), {"x": torch.randn(8, 6)}, {"encoder": encoder}
"""


def ask(arguments: dict[str, Any], *, allow_code: bool = False) -> dict[str, Any]:
    return audit.run(arguments, root=Path(), allow_code=allow_code, tell=lambda _: None)


def test_every_kind_of_step_is_listed_once() -> None:
    found = ask({"list": True})["steps"]
    kinds = [step["kind"] for step in found]
    assert kinds.count("classic") == 4
    assert kinds.count("table") >= 25
    assert kinds.count("objective") >= 15
    assert len({step["name"] for step in found}) == len(found)
    assert all(step["summary"] for step in found)


@pytest.mark.parametrize(
    ("asked", "verdict", "space"),
    [
        ({"step": "masked picture"}, "JEPA-style", "ema-embedding"),
        ({"step": "byol"}, "invariance", "ema-embedding"),
        ({"step": "mae"}, "generative", "input"),
        ({"objective": "MaskedJEPA"}, "JEPA-style", "ema-embedding"),
        ({"objective": "NextToken"}, "generative", "token"),
    ],
)
def test_shipped_steps_get_the_audits_verdict(asked: dict[str, str], verdict: str, space: str) -> None:
    found = ask(asked)
    assert found["verdict"] == verdict
    assert found["terms"][0]["space"] == space
    assert found["svg"].startswith("<svg")
    assert "<script" not in found["svg"]
    assert "def " in found["source"]


def test_code_runs_only_where_it_is_allowed() -> None:
    asked = {"code": STEP, "function": "my_step"}
    with pytest.raises(ValueError, match="--allow-code"):
        ask(asked)
    assert ask(asked, allow_code=True)["verdict"] == "generative"


@pytest.mark.parametrize(
    ("code", "function", "words"),
    [
        ("def my_step(:", "my_step", "SyntaxError"),
        ("x = 1", "my_step", "no function"),
        ("def my_step():\n    return 1", "my_step", "Wanted"),
        ("def my_step():\n    raise KeyError('k')", "my_step", "KeyError"),
        (STEP, "__import__('os')", "name of a function"),
        ("#" * 200_000, "my_step", "characters"),
    ],
)
def test_wrong_code_is_answered_in_words(code: str, function: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ask({"code": code, "function": function}, allow_code=True)


@pytest.mark.parametrize(
    "asked", [{}, {"step": "nobody"}, {"step": 3}, {"objective": "nobody"}, {"objective": "Untrained"}]
)
def test_what_there_is_not_is_said(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Wanted|There is no|not trained"):
        ask(asked)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("runs"), "--allow-code") as address:
        yield address


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_choosing_and_pasting_a_step_shows_its_audit(size: dict[str, int], scheme: str, address: str) -> None:
    with browsing(size=size, color_scheme=scheme) as page:
        page.goto(address)  # the token becomes a cookie
        assert "token" not in page.url
        page.goto(f"{address.partition('/?')[0]}/step")
        page.fill("#search", "byol")
        page.wait_for_selector("#steps button")
        assert page.locator("#steps button").count() == 1
        page.focus("#steps button")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#answer h2')?.textContent === 'invariance'")
        assert page.inner_text("#said").endswith("is ready.")
        assert page.get_attribute("#answer", "aria-live") is None
        assert page.evaluate("document.activeElement.textContent") == "invariance"
        assert page.locator("#answer img").evaluate("img => img.complete && img.naturalWidth > 100")
        assert "EMBEDDING-INVARIANCE" in page.inner_text("#answer table")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.click("#own summary")
        page.fill("#code", STEP)
        page.click("#own-row button")
        until(page, "document.querySelector('#answer h2')?.textContent === 'generative'")
        page.fill("#code", "raise RuntimeError('broken here')")
        page.click("#own-row button")
        until(page, "document.querySelector('#own-row .state').textContent.includes('broken here')")


@pytest.mark.browser
@needs_chromium
def test_code_is_off_by_default(tmp_path: Path) -> None:
    with serving(tmp_path) as address, browsing() as page:
        page.goto(f"{address}/step")
        page.click("#own summary")
        assert page.locator("#code").count() == 0
        assert "--allow-code" in page.inner_text("#own")
