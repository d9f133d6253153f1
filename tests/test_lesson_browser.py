"""The lesson in a browser: tried before it opens, checked against the audit, kept, exported, printed, readable."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Locator, Page, Route

from jepalab.web.lesson.content import read_content
from jepalab.web.lesson.page import STATIC, page_alone, page_data
from lab_browser import DESKTOP, PHONE, browsing, needs_chromium, serving, violations

pytestmark = [pytest.mark.browser, needs_chromium, pytest.mark.slow]

CONTENT = read_content()
DATA = page_data(CONTENT, served=False)
STEPS = {step["id"]: step for step in DATA["steps"]}
SCOPES = {item["id"]: item for item in DATA["scopes"]}
NO_STORAGE = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('not here'); } })"
PAGES = re.compile(rb"/Type\s*/Page\b(?!s)")


@contextmanager
def lesson(folder: Path, *, before: str = "", **context: Any) -> Iterator[Page]:
    """The lesson opened from a file; `before` is script that runs before the page's own."""
    file = folder / "lesson.html"
    file.write_text(page_alone(), encoding="utf-8")
    with browsing(**context) as page:
        if before:
            page.add_init_script(before)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        yield page
        assert [url for url in asked if not url.startswith(("data:", "blob:")) and url != file.as_uri()] == []


def answer_step(page: Page, label: str, space: str) -> Locator:
    """Answers the step that is shown, and returns what was said to it."""
    here = page.locator("#steps-here")
    here.locator(f'input[name="step-label"][value="{label}"]').check()
    here.locator(f'input[name="step-space"][value="{space}"]').check()
    here.get_by_role("button", name="Check").click()
    return here.locator(".item > .state")


def shown(page: Page, place: str) -> str:
    """The id of the item that an exercise shows."""
    return str(page.locator(f"{place} [data-item]").get_attribute("data-item"))


def test_question_opens_after_trying_and_is_kept(tmp_path: Path) -> None:
    with lesson(tmp_path) as page:
        card = page.locator("[data-question=loop]")
        answer, state = card.locator(".answer"), card.locator(".trying .state")
        assert not answer.is_visible()
        card.locator(".compare").click()
        assert not answer.is_visible()
        assert "Try first" in str(state.text_content())
        assert card.locator("textarea").evaluate("box => box === document.activeElement")
        card.locator("textarea").fill("Two encoders, a predictor, and a slow copy.")
        card.locator(".compare").press("Enter")
        assert answer.is_visible()
        assert "slow moving average" in str(answer.text_content())
        assert card.locator(".compare").get_attribute("aria-expanded") == "true"
        answer.get_by_label("Something works against collapse.").check()
        assert page.locator("#questions-done").text_content() == "1 of 7 tried"
        page.reload()
        assert answer.is_visible()
        assert card.locator("textarea").input_value() == "Two encoders, a predictor, and a slow copy."
        assert answer.get_by_label("Something works against collapse.").is_checked()
        assert card.locator(".points .state").text_content() == "1 of 6 said"
        card.locator(".compare").click()
        assert not answer.is_visible()
        other = page.locator("[data-question=production]")
        other.locator(".aloud").click()
        assert other.locator(".answer").is_visible()
        assert "secondary source" in str(other.locator(".answer").text_content())
        page.locator("#forget-lesson").click()
        assert "once more" in str(page.locator("#lesson-tools .state").text_content())
        page.locator("#forget-lesson").click()
        page.wait_for_function("document.querySelector('[data-question=loop] textarea').value === ''")
        assert not other.locator(".answer").is_visible()


def test_steps_are_checked_against_the_audit(tmp_path: Path) -> None:
    with lesson(tmp_path) as page:
        here = page.locator("#steps-here")
        here.get_by_role("button", name="Check").click()
        assert here.locator(".item > .state").text_content() == "Choose one of each first."
        for number, name in enumerate(("next token", "masked picture", "diffusion", "masked clip"), 1):
            assert shown(page, "#steps-here") == name
            step = STEPS[name]
            wrong = name == "masked picture"
            said = answer_step(page, "generative" if wrong else step["label"], step["spaces"][0])
            if wrong:
                assert "The audit says JEPA-style. The space is right: ema-embedding." in str(said.text_content())
                assert "not this" in str(here.locator(".choice.wrong").text_content())
                assert "would be right" in str(here.locator(".choice.right").first.text_content())
            else:
                assert str(said.text_content()).startswith("Right on both")
            assert step["reason"] in str(here.locator(".result").text_content())
            assert not here.get_by_text("Audit it live").count()
            done = page.locator("#steps-done").text_content()
            assert done == f"{number} of {len(STEPS)} seen, {number - (number > 1)} right at once"
            here.get_by_role("button", name="Next step").click()
            assert here.locator("h3").evaluate("title => title === document.activeElement")
        page.reload()
        seen = set()
        for _ in range(5):
            step = STEPS[shown(page, "#steps-here")]
            assert not step["fixed"]
            seen.add(step["id"])
            assert str(answer_step(page, step["label"], step["spaces"][-1]).text_content()).startswith("Right on both")
            here.get_by_role("button", name="Next step").click()
        assert len(seen) == 5
        here.get_by_text("Show the code").click()
        assert "def ready():" in str(here.locator("pre").text_content())


def test_scope_is_checked(tmp_path: Path) -> None:
    with lesson(tmp_path) as page:
        here = page.locator("#scope-here")
        said = here.locator(".item > .state")
        fixed = [item["id"] for item in DATA["scopes"] if item["fixed"]]
        answers = {fixed[0]: "planning success", fixed[1]: "loss curves"}
        for name in fixed:
            assert shown(page, "#scope-here") == name
            item = SCOPES[name]
            here.locator(f'input[value="{answers.get(name, item["by"][0])}"]').check()
            here.get_by_role("button", name="Check").click()
            where = "in scope" if item["scope"] == "in" else "out of scope"
            expected = {
                fixed[0]: f"Right scope, but we would say {item['by'][0]}.",
                fixed[1]: f"We say {where}: {item['by'][0]}.",
            }
            assert said.text_content() == expected.get(name, f"Right, {where}: {item['by'][0]}.")
            result = str(here.locator(".result").text_content())
            assert item["reason"] in result
            assert item["command"] in result
            here.get_by_role("button", name="Next question").click()
        assert shown(page, "#scope-here") not in fixed
        assert page.locator("#scope-done").text_content() == f"6 of {len(SCOPES)} seen, 4 right at once"


def test_cards_turn_move_and_come_back(tmp_path: Path) -> None:
    first, second = (card["front"] for card in DATA["cards"][:2])
    with lesson(tmp_path, before="Date.now") as page:
        page.clock.set_fixed_time(datetime(2026, 3, 1, 12, 0))
        page.reload()
        face, words = page.locator(".flashcard"), page.locator(".flashcard .words")
        assert words.text_content() == first
        face.click()
        assert words.text_content() == DATA["cards"][0]["back"]
        face.press("Space")
        assert words.text_content() == first
        assert page.locator("[data-grade=good]").is_disabled()
        face.press("3")
        assert words.text_content() == first  # a card that was not turned is not rated
        face.press("ArrowRight")
        assert words.text_content() == second
        face.press("ArrowLeft")
        face.press("Enter")
        face.press("3")
        assert page.locator("#cards-here .state").text_content() == "Good: comes back on March 2."
        assert words.text_content() == second
        face.press("Enter")
        page.locator("[data-grade=again]").click()
        assert page.locator("#cards-here .state").text_content() == "Again: comes back today."
        assert words.text_content() == DATA["cards"][2]["front"]  # what failed goes to the end of the day
        assert page.locator("#cards-done").text_content() == f"1 due, {len(DATA['cards']) - 2} new"
        assert "new" in str(page.locator(".where").text_content())
        page.reload()
        kept = page.evaluate("JSON.parse(localStorage.getItem('jepalab lesson')).cards")
        assert {front: (state["streak"], state["interval"]) for front, state in kept.items()} == {
            first: (1, 1),
            second: (0, 0),
        }
        page.clock.set_fixed_time(datetime(2026, 3, 2, 0, 30))
        page.reload()
        assert words.text_content() == second  # due since yesterday
        assert page.locator("#cards-done").text_content() == f"2 due, {len(DATA['cards']) - 2} new"
        face.press("ArrowRight")
        assert words.text_content() == first
        face.press("Enter")
        face.press("4")
        assert page.locator("#cards-here .state").text_content() == "Easy: comes back on March 8."
        for _ in range(len(DATA["cards"]) - 1):
            face.press("Enter")
            face.press("3")
        assert page.locator("#cards-done").text_content() == "done for today, the next on March 3"


def test_cards_for_anki_and_on_paper(tmp_path: Path) -> None:
    with lesson(tmp_path, before="window.print = () => {}") as page:
        with page.expect_download() as download:
            page.locator("#export-deck").click()
        assert download.value.suggested_filename.endswith(".txt")
        text = Path(download.value.path()).read_text(encoding="utf-8")
        head, rows = text.splitlines()[:4], text.splitlines()[4:]
        assert head[:2] == ["#separator:tab", "#html:false"]
        assert head[2:] == ["#columns:Front\tBack\tTags", "#tags column:3"]
        assert len(rows) == len(DATA["cards"])
        unquoted = [[re.sub(r'^"|"$', "", field).replace('""', '"') for field in row.split("\t")] for row in rows]
        assert [row[:2] for row in unquoted] == [[card["front"], card["back"]] for card in DATA["cards"]]
        assert all(row[2].startswith("jepalab ") for row in unquoted)
        for paper in ("Letter", "A4"):
            page.locator("#print-deck").click()
            assert len(PAGES.findall(page.pdf(format=paper))) == len(DATA["cards"])
        page.evaluate("delete document.documentElement.dataset.print")
        assert len(PAGES.findall(page.pdf())) > 10
        page.emulate_media(media="print")
        assert page.locator("#answer-loop").is_visible()
        assert page.get_by_role("heading", name="What the audit says").is_visible()
        assert not page.locator("#steps-here").is_visible()
        assert not page.locator(".flashcard").is_visible()


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark"), (PHONE, "light"), (DESKTOP, "dark")])
def test_nothing_stands_in_anybodys_way(size: dict[str, int], scheme: str, tmp_path: Path) -> None:
    with lesson(tmp_path, size=size, color_scheme=scheme, reduced_motion="reduce") as page:
        for button in page.locator(".aloud").all():
            button.click()
        answer_step(page, "contrastive", "token")
        page.locator("#scope-here input").first.check()
        page.locator("#scope-here").get_by_role("button", name="Check").click()
        page.locator(".flashcard").click()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_keyboard_alone_will_do(tmp_path: Path) -> None:
    focused = "document.activeElement"
    with lesson(tmp_path) as page:
        keys = page.keyboard
        keys.press("Tab")
        assert page.evaluate(f"{focused}.className") == "skip"
        keys.press("Enter")
        while page.evaluate(f"{focused}.id") != "try-objection":
            keys.press("Tab")
        keys.type("It is charged for what nobody can predict.")
        keys.press("Tab")
        keys.press("Enter")
        assert page.evaluate(f"{focused}.id") == "answer-objection"
        page.locator("#steps-here summary").focus()
        keys.press("Tab")  # the code is closed: on to the choices
        keys.press("Space")
        keys.press("ArrowDown")
        keys.press("ArrowUp")
        keys.press("Tab")
        keys.press("ArrowDown")
        keys.press("ArrowDown")
        keys.press("Tab")
        keys.press("Enter")
        said = str(page.locator("#steps-here .item > .state").text_content())
        assert said == "Right on both: generative, space token."


def test_without_storage_it_works_and_says_so(tmp_path: Path) -> None:
    with lesson(tmp_path, before=NO_STORAGE) as page:
        assert "keeps nothing" in str(page.locator("#lesson-kept").text_content())
        page.locator(".flashcard").press("Enter")
        page.locator(".flashcard").press("3")
        assert page.locator("#cards-done").text_content() == f"{len(DATA['cards']) - 1} new"
        page.locator("[data-question=loop] .aloud").click()
        assert page.locator("#questions-done").text_content() == "1 of 7 tried"


def test_without_script_everything_can_be_read(tmp_path: Path) -> None:
    with lesson(tmp_path, java_script_enabled=False) as page:
        assert page.get_by_text("Hide part of the input").is_visible()
        assert page.get_by_text("What the audit says").is_visible()


# The modules ---------------------------------------------------------------------------------------------------------


@contextmanager
def modules(**context: Any) -> Iterator[Page]:
    """A page that can import the lesson's modules, without a server."""

    def give(route: Route) -> None:
        file = STATIC / route.request.url.rpartition("/")[2]
        is_script = file.suffix == ".js"
        route.fulfill(
            body=file.read_text(encoding="utf-8") if is_script else "<!doctype html><title>x</title>",
            content_type="text/javascript" if is_script else "text/html",
        )

    with browsing(**context) as page:
        page.route("http://127.0.0.1:9/**", give)
        page.goto("http://127.0.0.1:9/")
        yield page


def ask(page: Page, module: str, expression: str, given: object = None) -> Any:
    """What an expression of a module `m` (and of `given`) gives."""
    return page.evaluate(f"given => import('/{module}.js').then(m => {expression})", given)


def test_schedule_is_sm2() -> None:
    with modules(timezone_id="Europe/Berlin") as page:
        step = "(states, [quality, day]) => [...states, m.schedule(states.at(-1), quality, day)]"
        run = f"given.reduce({step}, [undefined])"
        good = ask(page, "learn_schedule", run, [[4, 0], [4, 1], [4, 7], [4, 22]])[1:]
        assert [state["interval"] for state in good] == [1, 6, 15, 38]  # each interval times 2.5, rounded up
        assert [state["due"] for state in good] == [1, 7, 22, 60]
        assert all(state["ease"] == pytest.approx(2.5) for state in good)
        hard = ask(page, "learn_schedule", run, [[3, 0]] * 12)[1:]
        assert hard[0]["ease"] == pytest.approx(2.36)
        assert hard[-1]["ease"] == pytest.approx(1.3)  # and never less
        easy = ask(page, "learn_schedule", run, [[5, 0], [5, 0], [5, 0]])[-1]
        assert (easy["ease"], easy["interval"]) == (pytest.approx(2.8), 17)
        failed = ask(page, "learn_schedule", run, [[4, 0], [4, 1], [1, 7], [4, 7]])
        assert failed[3] == {"ease": 2.5, "streak": 0, "interval": 0, "due": 7}
        assert failed[4]["interval"] == 1
        # A day is a day where clocks change: 2026-03-29 has 23 hours in Berlin.
        days = "given.map(([month, day, hour]) => m.dayOf(new Date(2026, month, day, hour)))"
        found = ask(page, "learn_schedule", days, [[2, 28, 0], [2, 28, 23], [2, 29, 0], [2, 29, 23], [2, 30, 0]])
        assert [day - found[0] for day in found] == [0, 0, 1, 1, 2]
        cards = [{"front": name} for name in ("new", "later", "failed", "due", "overdue")]
        states = {
            "later": {"due": 9, "streak": 1},
            "failed": {"due": 5, "streak": 0, "seen": 1},
            "due": {"due": 5, "streak": 1},
            "overdue": {"due": 2, "streak": 0},
        }
        ordered = ask(
            page,
            "learn_schedule",
            "m.queue(given.cards, given.states, 5).map(card => card.front)",
            {
                "cards": cards,
                "states": states,
            },
        )
        assert ordered == ["overdue", "due", "new", "failed", "later"]


def test_draws_and_checks() -> None:
    items = [{"id": name, "fixed": name in "ab"} for name in "abcd"]
    done, missed = {"tries": 1, "first": True, "right": True}, {"tries": 1, "first": False, "right": False}
    with modules() as page:

        def drawn(record: dict[str, Any], last: str | None, number: float) -> str:
            given = {"items": items, "record": record, "last": last, "number": number}
            code = "m.draw(given.items, given.record, given.last, () => given.number).id"
            return ask(page, "learn_draw", code, given)

        assert drawn({}, None, 0.9) == "a"
        assert drawn({"a": done}, "a", 0.9) == "b"
        assert [drawn({"a": done, "b": missed}, "b", x) for x in (0.0, 0.99)] == ["c", "d"]
        everything = dict.fromkeys("abcd", done)
        assert drawn(everything | {"c": missed}, "a", 0.0) == "c"
        assert [drawn(everything | {"c": missed}, "c", x) for x in (0.0, 0.99)] == ["a", "d"]
        record = "given.reduce((before, right) => m.record(before, right), undefined)"
        assert ask(page, "learn_draw", record, [False, True]) == {"tries": 2, "first": False, "right": True}
        mixed = {"label": "mixed", "spaces": ["input", "reward"]}
        checked = (
            "[['mixed', 'reward'], ['generative', 'input'], ['mixed', 'token']].map(a => m.checkStep(given, ...a))"
        )
        assert [[*each.values()] for each in ask(page, "learn_draw", checked, mixed)] == [
            [True, True],
            [False, True],
            [True, False],
        ]
        item = {"scope": "out", "by": ["policy", "accountability"]}
        checked = "['policy', 'accountability', 'philosophy', 'curves'].map(a => m.checkScope(given, a, {curves: ''}))"
        assert [[*each.values()] for each in ask(page, "learn_draw", checked, item)] == [
            [True, True],
            [True, True],
            [True, False],
            [False, False],
        ]


def test_memory_stands_what_others_wrote() -> None:
    with modules() as page:
        for stored in ("nonsense{", "[1]", '{"cards": 3}', "null"):
            page.evaluate("text => localStorage.setItem('jepalab lesson', text)", stored)
            kept = ask(
                page,
                "learn_memory",
                "(k => (k.put('cards', 'x', 1), [k.lasts, k.all('cards'), k.all('y')]))(m.openMemory())",
            )
            assert kept == [True, {"x": 1}, {}]
            assert json.loads(page.evaluate("localStorage.getItem('jepalab lesson')"))["cards"] == {"x": 1}
        # Two tabs do not take from each other.
        both = "(a, b) => (a.put('cards', 'y', 2), b.put('cards', 'z', 3), a.all('cards'))"
        two = f"({both})(m.openMemory(), m.openMemory())"
        assert ask(page, "learn_memory", two) == {"x": 1, "y": 2, "z": 3}
        parts = "(k => (k.put('scope', 'a', 1), Object.keys(k.all('cards'))))(m.openMemory())"
        assert ask(page, "learn_memory", parts) == ["x", "y", "z"]
        gone = "(k => (k.put('scope', 'a', 1), k.forget('cards'), [k.all('cards'), k.all('scope')]))(m.openMemory())"
        assert ask(page, "learn_memory", gone) == [{}, {"a": 1}]


def test_anki_fields_are_quoted_where_they_must_be() -> None:
    cards = [{"front": '#a "b"', "back": "c\td", "topic": "I-JEPA and V-JEPA"}]
    with modules() as page:
        text = ask(page, "learn_anki", "m.ankiText(given)", cards)
    assert text.splitlines()[-1] == '"#a ""b"""\t"c\td"\tjepalab I-JEPA-and-V-JEPA'


# In the lab ----------------------------------------------------------------------------------------------------------


def test_lab_shows_the_lesson_and_audits_live(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    term = {"name": "loss", "label": "GENERATIVE-TOKEN", "family": "generative", "space": "token", "share": 1.0}
    found = {"verdict": "generative", "terms": [term | {"novelty": 1.0}], "svg": drawing}

    def begin(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(status=202, json={"job": "one"})

    def news(route: Route) -> None:
        body = f"event: began\ndata: null\n\nevent: done\ndata: {json.dumps(found)}\n\n"
        route.fulfill(body=body, content_type="text/event-stream")

    with serving(tmp_path) as address, browsing(size=PHONE) as page:
        page.route("**/api/work", begin)
        page.route("**/api/work/one", news)
        page.goto(f"{address}/learn")
        assert page.get_by_role("heading", level=1).text_content() == CONTENT.title
        assert str(answer_step(page, "generative", "token").text_content()).startswith("Right on both")
        page.get_by_role("button", name="Audit it live").click()
        page.get_by_text("Just now the audit says").wait_for()
        assert asked == [{"task": "audit", "arguments": {"step": "next token"}}]
        live = page.locator(".live")
        assert "GENERATIVE-TOKEN, space token, 100 % of the gradient, novelty 1.00" in str(live.text_content())
        assert live.locator("img").evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 9
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.locator('nav a[aria-current="page"]').text_content() == "Lesson"
