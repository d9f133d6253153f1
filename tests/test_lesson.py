"""The lesson keeps what it promises: complete, its numbers measured, its verdicts the audit's, its page current."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jepalab import learning
from jepalab.audit.examples import examples
from jepalab.audit.steps import find_cases
from jepalab.web import lesson_page
from jepalab.web.lesson import choices, figures, verdicts
from jepalab.web.lesson.bundle import bundle
from jepalab.web.lesson.content import FILE, PLACEHOLDER, Run, content_of, read_content
from jepalab.web.lesson.figures import Figure, fill
from jepalab.web.lesson.page import STATIC, data_block, page_alone
from jepalab.web.lesson.prose import inline, plain
from small_runs import start
from test_readme import UNDERSTOOD, spoken_to_jepalab, understand

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results"
CONTENT = read_content()
RAW = tomllib.loads(FILE.read_text(encoding="utf-8"))


# Completeness --------------------------------------------------------------------------------------------------------


def test_lesson_has_what_it_promises() -> None:
    assert len(CONTENT.question) == 7
    assert [step.step for step in CONTENT.step if step.classic] == [
        "next token",
        "masked picture",
        "diffusion",
        "masked clip",
    ]
    assert sum(not step.classic for step in CONTENT.step) >= 16
    assert sum(item.fixed for item in CONTENT.scope) == 6
    assert sum(not item.fixed for item in CONTENT.scope) >= 14
    assert len(CONTENT.card) >= 24
    assert {item.by for item in CONTENT.scope} == {*choices.INSTRUMENTS, *choices.CATEGORIES}


def gone(name: str, kind: str = "question") -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw[kind][0].pop(name)


def put(name: str, value: object, kind: str = "question") -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw[kind][0].update({name: value})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (gone("answer"), "answer"),
        (gone("points"), "points"),
        (gone("supporting"), "supporting"),
        (gone("opposing"), "opposing"),
        (gone("run"), "run"),
        (lambda raw: raw["question"][0]["run"][0].pop("minutes"), "minutes"),
        (lambda raw: raw["question"][0]["run"][0].update(minutes=0.0), "minutes"),
        (lambda raw: raw["question"][0]["run"][0].update(shows="It reaches 0.85."), "typed by hand"),
        (lambda raw: raw["question"][0]["supporting"].append({"text": "We found 12 %."}), "typed by hand"),
        (lambda raw: raw["question"][0]["supporting"][0].update(sources=["nobody"]), "no source nobody"),
        (lambda raw: raw["question"].pop(), "7 questions"),
        (put("title", ""), "title"),
        (put("colour", "red"), "'colour' is not known"),
        (gone("reason", "step"), "reason"),
        (gone("describes", "step"), "describes"),
        (put("classic", False, "step"), "classic"),
        (lambda raw: raw["step"].append(raw["step"][0] | {"classic": False}), "twice"),
        (gone("by", "scope"), "by"),
        (put("by", "policy", "scope"), "'policy' is none of"),
        (gone("command", "scope"), "in scope"),
        (put("scope", "maybe", "scope"), "in or out"),
        (put("needs", "jepalab tune images", "scope"), "jepalab tune images comes first"),
        (gone("back", "card"), "back"),
        (lambda raw: raw.update(card=raw["card"][:9]), "10 cards"),
        (lambda raw: raw["source"].append({"id": "x", "cite": "X", "what": "x", "arxiv": "1"}), "cited nowhere"),
        (lambda raw: raw["source"][1].pop("arxiv"), "wanted arxiv or url"),
    ],
)
def test_what_is_missing_is_said(spoil: Callable[[dict[str, Any]], object], complaint: str) -> None:
    raw = copy.deepcopy(RAW)
    spoil(raw)
    with pytest.raises(ValueError, match=complaint):
        content_of(raw)


def test_descriptions_do_not_give_the_answer_away() -> None:
    for step in CONTENT.step:
        for word in (*choices.LABELS, "JEPA", "distill", "invarian"):
            assert word.lower() not in f"{step.title} {step.describes}".lower(), (step.step, word)
        source = verdicts.read_verdicts()[step.step].source
        assert source.startswith("def ready():\n")
        assert '"""' not in source
        assert "rewards=" not in source
        for word in (*choices.LABELS, "JEPA", "distill", "invarian", "lm_loss"):
            assert word.lower() not in source.lower(), (step.step, word)


def test_sources_are_named_in_full() -> None:
    for source in CONTENT.source:
        assert re.search(r"\b20\d\d\b", source.cite), source
        assert not source.arxiv or re.fullmatch(r"\d{4}\.\d{5}", source.arxiv)


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.1, "some seconds"),
        (0.5, "half a minute"),
        (1.0, "about 1 minute"),
        (5.0, "about 5 minutes"),
        (360.0, "about 6 hours"),
    ],
)
def test_time_in_words(minutes: float, words: str) -> None:
    assert Run("x", minutes, "y").takes == words


# Figures -------------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_published_results() -> None:
    made = figures.make_figures(figures.find_placeholders(CONTENT.texts()), RESULTS)
    assert figures.FILE.read_text(encoding="utf-8") == lesson_page.as_json(made), (
        "make them anew: python -m jepalab.web.lesson_page docs/lesson.html --results docs/results"
    )


def test_a_figure_is_the_mean_and_half_of_its_interval() -> None:
    key = "results:distractor-demo/state_r2/changing/J1"
    cells = json.loads((RESULTS / "distractor-demo/results.json").read_text())["cells"]
    values = [c["metrics"]["state_r2"] for c in cells if (c["arm"], c["condition"]) == ("J1", "changing")]
    half = 4.302653 * statistics.stdev(values) / math.sqrt(3)  # Student's t at .975 with two degrees of freedom
    assert len(values) == 3
    assert figures.read_figures()[key].text == f"{statistics.mean(values):.2f} ± {half:.2f}"


def test_no_measured_number_is_typed() -> None:
    unsourced = [q.answer for q in CONTENT.question]
    unsourced += [point for q in CONTENT.question for point in q.points]
    unsourced += [e.text for q in CONTENT.question for e in (*q.supporting, *q.opposing) if not e.sources]
    unsourced += [text for q in CONTENT.question for run in q.run for text in (run.shows, run.measured)]
    unsourced += [text for step in CONTENT.step for text in (step.describes, step.reason)]
    unsourced += [item.reason for item in CONTENT.scope] + [card.back for card in CONTENT.card]
    typed = "\n".join(unsourced)
    for key, figure in figures.read_figures().items():
        for number in re.findall(r"\d\.\d{2,}", figure.text):
            assert number not in typed, f"{number} of {key} is typed"
    for question in CONTENT.question:
        assert not re.search(r"\d\.\d\d", PLACEHOLDER.sub("", question.answer))


def test_unfinished_results_say_so() -> None:
    for name in {key.split(":")[1].split("/")[0] for key in figures.read_figures()}:
        file = RESULTS / name / "results.json"
        if file.exists() and not json.loads(file.read_text())["complete"]:
            for key, figure in figures.read_figures().items():
                assert f":{name}/" not in key or figure.pending or "unfinished" in figure.text


def test_results_that_are_not_there_yet(tmp_path: Path) -> None:
    made = figures.make_figures(["results:two-rooms/cross_ever_wide/fixed/J1"], tmp_path)["figures"]
    found = {key: Figure(**each) for key, each in made.items()}
    text = "Arrived: {results:two-rooms/cross_ever_wide/fixed/J1} of all."
    assert fill(text, found) == "Not measured yet; run `jepalab compare two-rooms`."
    with pytest.raises(ValueError, match="lacks results:two-rooms/x/y/z"):
        fill("{results:two-rooms/x/y/z}", found)


def results(**changed: Any) -> dict[str, Any]:
    cells = [
        {"arm": "J1", "condition": "fixed", "seed": seed, "status": "done", "metrics": {"cross_ever_wide": value}}
        for seed, value in ((0, 0.5), (1, 0.7))
    ]
    contrast = {"better": "J1", "than": "G1", "metric": "m", "condition": "fixed", "name": "c"}
    return {
        "name": "two-rooms",
        "complete": True,
        "arms": {"J1": "JEPA"},
        "conditions": {"fixed": "one door"},
        "seeds": [0, 1],
        "cells": cells,
        "metrics": {"cross_ever_wide": "arrived"},
        "contrasts": [contrast | {"difference": 0.2, "interval": [0.1, 0.3]}],
        "versions": {"commit": "0123456789abcdef"},
    } | changed


def test_results_that_come_later(tmp_path: Path) -> None:
    (tmp_path / "two-rooms").mkdir()
    file = tmp_path / "two-rooms/results.json"
    keys = ["results:two-rooms/cross_ever_wide/fixed/J1", "contrast:two-rooms/J1/G1/m/fixed"]
    file.write_text(json.dumps(results()))
    first, second = (each["text"] for each in figures.make_figures(keys, tmp_path)["figures"].values())
    assert first == "0.60 ± 1.27"
    assert second == "0.20 (95 % interval 0.10 to 0.30)"
    file.write_text(json.dumps(results(complete=False, cells=results()["cells"][:1])))
    assert figures.make_figures(keys[:1], tmp_path)["figures"][keys[0]]["text"] == "0.50 (1 seed, unfinished)"
    for wrong in (
        "results:two-rooms/cross_ever_wide/fixed/G9",
        "results:two-rooms/x/fixed/J1",
        "contrast:two-rooms/a/b/c/d",
    ):
        file.write_text(json.dumps(results()))
        with pytest.raises(ValueError, match="There are"):
            figures.make_figures([wrong], tmp_path)


# Verdicts ------------------------------------------------------------------------------------------------------------


def some_steps() -> list[str]:
    """The classics, and of the others one for each label and for each space: all of them would take minutes."""
    found: dict[object, str] = {step.step: step.step for step in CONTENT.step if step.classic}
    for verdict in verdicts.read_verdicts().values():
        for facet in (verdict.label, verdict.spaces[0]):
            if facet not in found and verdict.step not in found.values():
                found[facet] = verdict.step
    return [*found.values()]


@pytest.mark.slow
def test_verdicts_are_what_the_audit_says_now() -> None:
    stored = verdicts.read_verdicts()
    assert list(stored) == [step.step for step in CONTENT.step]
    for live in verdicts.make_verdicts(some_steps()):
        kept = json.loads(json.dumps(stored[live["step"]], default=vars))
        assert {name: live[name] for name in ("label", "spaces", "disputed", "source")} == {
            name: kept[name] for name in ("label", "spaces", "disputed", "source")
        }
        for now, then in zip(live["terms"], kept["terms"], strict=True):
            assert [now[name] for name in ("label", "family", "space")] == [
                then[n] for n in ("label", "family", "space")
            ]
            assert now["share"] == pytest.approx(then["share"], abs=0.03)
            assert (
                now["novelty"] == pytest.approx(then["novelty"], abs=0.03) or now["novelty"] is then["novelty"] is None
            )


def test_every_verdict_can_be_answered() -> None:
    for verdict in verdicts.read_verdicts().values():
        assert verdict.label in choices.LABELS
        assert {*verdict.spaces} <= choices.SPACES.keys()
    assert {v.label for v in verdicts.read_verdicts().values()} == {*choices.LABELS}
    assert {space for v in verdicts.read_verdicts().values() for space in v.spaces} == {*choices.SPACES}


def test_every_step_is_one_of_the_audits() -> None:
    known = {case.name for case in find_cases()} | {example.name for example in examples()}
    assert {step.step for step in CONTENT.step} <= known


def test_a_step_that_the_audit_does_not_have() -> None:
    with pytest.raises(ValueError, match="no step 'word2vec'"):
        verdicts.make_verdicts(["word2vec"])


# The page ------------------------------------------------------------------------------------------------------------


def test_page_in_docs_is_current() -> None:
    assert (ROOT / "docs/lesson.html").read_text(encoding="utf-8") == page_alone(), (
        "make it anew: python -m jepalab.web.lesson_page docs/lesson.html"
    )


def test_page_allows_its_own_script_and_style_and_nothing_else() -> None:
    page = page_alone()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    allowed = policy[1].replace("&#39;", "'")
    for tag, rule in (('script type="module"', "script-src"), ("style", "style-src")):
        text = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", page, re.DOTALL)
        assert text
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in allowed
    assert allowed.startswith("default-src 'none'; ")
    assert not re.search(r"\bsrc=\"(?!data:)|<link[^>]*href=\"(?!data:)|url\((?!data:)|@import", page)
    assert {*re.findall(r'<a href="(\w+):', page)} == {"https"}


def test_data_block_cannot_end_its_element() -> None:
    value = {"x": "</script><b> & 'quotes'"}
    assert "<" not in data_block(value)
    assert json.loads(data_block(value)) == value


def test_prose_becomes_html_and_nothing_else() -> None:
    text = "A `<b>` of [two](https://a.b/c) **and** *more* & <i>x</i>"
    assert inline(text) == (
        'A <code>&lt;b&gt;</code> of <a href="https://a.b/c" rel="noreferrer">two</a> <strong>and</strong> '
        "<em>more</em> &amp; &lt;i&gt;x&lt;/i&gt;"
    )
    assert plain("`a` **b** [c](https://d.e)") == "a b c"
    assert "href" not in inline("[x](javascript:alert)")


def test_bundle_joins_modules(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text('// a\nimport { b, c } from "./b.js";\nexport const a = b + c;\n')
    (tmp_path / "b.js").write_text("export const b = 1;\nexport function c() {}\n")
    assert bundle(
        tmp_path, "a.js"
    ) == "export const b = 1;\nexport function c() {}\n\n// a\nconst a = b + c;\n".replace("export ", "")
    (tmp_path / "b.js").write_text("export const a = 1;\nexport const b = 1;\n")
    with pytest.raises(ValueError, match=r"a is declared in b\.js and in a\.js"):
        bundle(tmp_path, "a.js")
    for line in ('import { b as d } from "./b.js";\n', 'import * as b from "./b.js";\n', "export default 3;\n"):
        (tmp_path / "c.js").write_text(line)
        with pytest.raises(ValueError, match=r"c\.js"):
            bundle(tmp_path, "c.js")


def test_scripts_keep_to_text(tmp_path: Path) -> None:
    for file in STATIC.glob("learn*"):
        text = file.read_text(encoding="utf-8")
        assert "innerHTML" not in text
        assert file.suffix == ".css" or max(map(len, text.splitlines())) <= 120


# Commands ------------------------------------------------------------------------------------------------------------


def understand_all(commands: list[list[str]], folder: Path) -> None:
    """Ends with UNDERSTOOD where jepalab has understood all of them; for a process of its own."""
    for words in commands:
        try:
            understand(words, folder)
        except SystemExit as end:
            if end.code != UNDERSTOOD:
                print("not understood:", words, file=sys.stderr)
                raise
        else:
            sys.exit(f"not understood: {words}")
    sys.exit(UNDERSTOOD)


@pytest.mark.dist
@pytest.mark.slow
def test_commands_are_understood(tmp_path: Path) -> None:
    commands = [spoken_to_jepalab(line.split()) for line in CONTENT.commands()]
    assert all(commands)
    assert len(commands) > 20
    process = start(understand_all, commands, tmp_path)
    process.join(240)
    process.kill()
    assert process.exitcode == UNDERSTOOD


def test_learn_writes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    opened: list[str] = []
    monkeypatch.setattr(learning.webbrowser, "open", opened.append)
    monkeypatch.setenv("JEPALAB_CACHE", str(tmp_path / "cache"))
    assert learning.run(["--out", str(tmp_path / "deep/lesson.html"), "--no-browse"]) == 0
    assert (tmp_path / "deep/lesson.html").read_text(encoding="utf-8") == page_alone()
    assert opened == []
    assert learning.run([]) == 0
    assert opened == [(tmp_path / "cache/lesson.html").resolve().as_uri()]
    assert capsys.readouterr().out.split() == [
        str((tmp_path / "deep/lesson.html").resolve()),
        str((tmp_path / "cache/lesson.html").resolve()),
    ]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["lesson.html"]
    with pytest.raises(ValueError, match="Wanted a file"):
        learning.run(["--out", str(tmp_path), "--no-browse"])


def test_lesson_needs_no_torch(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "jepalab",
        "learn",
        "--no-browse",
        "--out",
        tmp_path / "x.html",
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "jinja2" in loaded
    assert not loaded & {"torch", "numpy", "fastapi"}


def test_maker_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert lesson_page.main([str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == page_alone()
    for wrong in ([], ["--results"], ["a.html", "b.html"]):
        assert lesson_page.main(wrong) == 2
    assert "usage" in capsys.readouterr().out
