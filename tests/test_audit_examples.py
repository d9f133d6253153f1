"""The four classic examples say what they should, and the page "What does your loss compare?" keeps its word."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jepalab.audit import examine, findings, lesson, verdict
from jepalab.audit.examples import Example, audit_examples, diffusion, examples, masked_clip, masked_picture, next_token
from jepalab.audit.report import Audit, Process, Space, TargetLearning
from jepalab.audit.steps import find_cases
from jepalab.audit.text import side_by_side
from jepalab.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/audit.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
CASES = find_cases()

EXPECTED = {
    "next token": ("generative", "GENERATIVE-TOKEN", "token", "classify-token", "none"),
    "masked picture": ("JEPA-style", "EMBEDDING-PREDICTION (EMA)", "ema-embedding", "regress", "ema"),
    "diffusion": ("generative", "GENERATIVE-NOISE", "noise", "denoise", "none"),
    "masked clip": ("JEPA-style", "EMBEDDING-PREDICTION (EMA)", "ema-embedding", "regress", "ema"),
}


@pytest.fixture(scope="module")
def audits() -> dict[str, Audit]:
    return {each.title: each for each in audit_examples()}


def table(head: str) -> list[list[str]]:
    """The rows of the page's table whose head line begins so, without back-ticks."""
    lines = TEXT[TEXT.index(f"\n{head}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


# The examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_example_is_what_its_textbook_says(audits: dict[str, Audit], name: str) -> None:
    found = audits[name]
    (term,) = found.terms
    assert (found.verdict, term.label, term.space, term.process, term.target_learning) == EXPECTED[name]
    assert term.share == pytest.approx(1)
    assert found.unexplained < 0.01
    assert not found.findings, "a classic step has nothing to complain of"


@pytest.mark.parametrize("name", EXPECTED)
def test_black_box_tests_agree(audits: dict[str, Audit], name: str) -> None:
    answers = {each.test: each.agrees for each in audits[name].confirmations}
    assert {"footprint", "intervention", "shuffle"} <= answers.keys()
    assert set(answers.values()) == {True}


def test_novelty_is_the_hidden_part(audits: dict[str, Audit]) -> None:
    """Counted over 96 changes of an input, so the part is known to about .05."""
    novelty = {name: each.terms[0].novelty for name, each in audits.items()}
    assert novelty["next token"] == 1
    assert novelty["diffusion"] is None
    assert novelty["masked picture"] == pytest.approx(16 / 36, abs=0.15)
    assert novelty["masked clip"] == pytest.approx(9 / 16, abs=0.15)


def test_teachers_follow_as_written(audits: dict[str, Audit]) -> None:
    for name, teachers in (("next token", 0), ("masked picture", 1), ("diffusion", 0), ("masked clip", 1)):
        averages = audits[name].averages
        assert [(a.copy, a.source, a.order) for a in averages] == [("teacher", "encoder", "after")] * teachers
        assert all(a.momentum == pytest.approx(0.99, abs=1e-4) for a in averages)


def test_the_comparison_stands_in_the_source_students_read(audits: dict[str, Audit]) -> None:
    for each in audits.values():
        place = each.terms[0].place
        assert Path(place.file).name == "examples.py"
        assert place.function == "step"
        assert place.text.startswith("return F.")


@pytest.mark.parametrize("make", [next_token, masked_picture, diffusion, masked_clip])
def test_example_learns(make: Callable[[], Example]) -> None:
    """The loss falls on the example's own data, so the step is one that trains."""
    torch.manual_seed(0)
    example = make()
    losses = []
    for _ in range(60):
        loss = example.step(**example.inputs)
        example.optimizer.zero_grad()
        loss.backward()
        example.optimizer.step()
        if example.after_step:
            example.after_step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_same_examples_every_time_and_the_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    first = examples()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    second = examples()
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.encoder.parameters(), b.encoder.parameters(), strict=True))
        assert torch.equal(a.inputs["x"], b.inputs["x"])


def test_pictures_show_something() -> None:
    """A disc that is somewhere else in every picture and moves in every clip."""
    torch.manual_seed(0)
    pictures, clips = masked_picture().inputs["x"], masked_clip().inputs["x"]
    assert pictures.shape == (16, 36, 16)
    assert clips.shape == (16, 64, 32)
    assert pictures.std(0).min() > 0.1
    first, second = clips.unflatten(-1, (2, 16)).unbind(2)
    assert (first - second).abs().amax((1, 2)).min() > 0.1


# The page ------------------------------------------------------------------------------------------------------------


def test_page_shows_what_a_fresh_run_says(audits: dict[str, Audit]) -> None:
    """Apart from digits, which may differ from one processor to the next."""
    fresh = [list(row) for row in lesson.rows(audits.values())]
    shown = table(f"| {' | '.join(lesson.HEAD)} |")
    assert [row[:-1] for row in shown] == [row[:-1] for row in fresh]
    assert [row[-1] == "-" for row in shown] == [row[-1] == "-" for row in fresh]
    inside = TEXT[TEXT.index(lesson.BEGIN) : TEXT.index(lesson.END)]
    said = re.sub(r"[\d.]+", "0", side_by_side(list(audits.values())))
    assert said.rstrip() in re.sub(r"[\d.]+", "0", inside)
    for example in examples():
        assert example.loss in inside


def test_lines_the_page_points_at_are_comparisons() -> None:
    """Else `examples.py` was changed and the section not written anew."""
    source = (ROOT / "src/jepalab/audit/examples.py").read_text(encoding="utf-8").splitlines()
    numbers = {int(number) for number in re.findall(r"examples\.py:(\d+)", TEXT)}
    assert numbers
    assert all(source[number - 1].strip().startswith("return F.") for number in numbers)


def test_section_is_written_between_its_marks_and_nowhere_else(
    audits: dict[str, Audit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "audit_examples", lambda: list(audits.values()))
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{lesson.BEGIN}\nstale\n{lesson.END}\n\nafter\n", encoding="utf-8")
    lesson.write_page_section(page)
    once = page.read_text(encoding="utf-8")
    assert once.startswith(f"before\n\n{lesson.BEGIN}\n")
    assert once.endswith(f"\n{lesson.END}\n\nafter\n")
    assert "stale" not in once
    assert "| next token | generative |" in once
    lesson.write_page_section(page)
    assert page.read_text(encoding="utf-8") == once


@pytest.mark.parametrize(
    "text",
    [
        "",
        lesson.BEGIN,
        f"{lesson.END}\n{lesson.BEGIN}",
        f"{lesson.BEGIN}{lesson.END}{lesson.END}",
        lesson.BEGIN + lesson.END + lesson.BEGIN,
    ],
)
def test_page_without_its_marks_is_refused(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="examples:begin"):
        lesson.write_page_section(page)
    assert page.read_text(encoding="utf-8") == text


def test_lesson_is_plain_text_of_a_terminals_width(audits: dict[str, Audit]) -> None:
    said = lesson.lesson(list(audits.values()))
    assert said.isascii()
    assert max(map(len, said.splitlines())) <= 110
    assert all(f"\n{each.name}\n" in f"\n{said}" and each.rewards in " ".join(said.split()) for each in examples())


def test_command_without_a_page_says_what_it_wants() -> None:
    done = subprocess.run([sys.executable, "-m", "jepalab.audit.lesson"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "PAGE.md" in done.stderr


@pytest.fixture
def my_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's `my_step.py`, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "my_step", None)  # so that it is removed again afterwards
    monkeypatch.delitem(sys.modules, "my_step")
    path = tmp_path / "my_step.py"
    path.write_text(BLOCKS[0], encoding="utf-8")
    return path


@pytest.mark.parametrize(("change", "said"), [("", "JEPA-style"), (".detach()", "collapse-prone")])
def test_the_pages_own_step_is_what_the_page_says(
    my_step: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = my_step.read_text(encoding="utf-8")
    assert change in text
    my_step.write_text(text.replace(change, "") if change else text, encoding="utf-8")
    assert main(["audit", "my_step.py:ready"]) == 0
    assert f"VERDICT    {said}" in capsys.readouterr().out


def test_the_pages_python_runs(my_step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert my_step.is_file()
    assert len(BLOCKS) == 2
    exec(compile(BLOCKS[1], "page", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("JEPA-style\nEMBEDDING-PREDICTION (self) own-embedding 100%")
    assert "my_step.py:" in said


def test_page_lists_every_finding() -> None:
    source = Path(findings.__file__).read_text(encoding="utf-8")
    kinds = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert len(kinds) > 5
    assert [row[0] for row in table("| finding |")] == list(dict.fromkeys(row[0] for row in table("| finding |")))
    assert {row[0] for row in table("| finding |")} == kinds


@pytest.mark.parametrize("word", [*Space, *Process, *TargetLearning])
def test_page_explains_every_word_of_a_report(word: str) -> None:
    assert f"`{word}`" in TEXT[TEXT.index("## How to read the report") : TEXT.index("## Findings")]


def test_page_gives_the_audits_own_thresholds() -> None:
    assert f"at least {verdict.PRESENT * 100:.0f} % of the encoder's gradient" in TEXT
    assert f"beyond {examine.UNEXPLAINED * 100:.0f} % the verdict is *unsupported*" in TEXT
    assert f"more than {findings.SWAMPING * 100:.0f} % of the encoder's gradient" in TEXT


@pytest.mark.parametrize("number", sorted({case.number for case in CASES}))
def test_pages_table_says_what_the_tests_of_the_audit_demand(number: int) -> None:
    rows = {int(row[0]): row for row in table("| | training step |")}
    demanded = [case for case in CASES if case.number == number]
    said = re.split(r"[,;] ", rows[number][-1])
    plain = {case.verdict for case in demanded if not (number == 18 and case.verdict == "mixed")}
    assert plain == set(said) - {"disputed"}
    disputed = any(term.ambiguous for case in demanded for term in case.terms or ())
    assert disputed == ("disputed" in said) or number == 18


def test_what_is_disputed_is_not_hidden() -> None:
    """Each ambiguous row of the table has its paragraph."""
    section = TEXT[TEXT.index("## Where the words are disputed") : TEXT.index("## Limits")]
    for word in ("Diffusion in an embedding space", "frozen target", "Codes", "Perceptual", "Mixtures"):
        assert f"{word}" in section
