"""What is shown while things run: rates, terms and meters, in plain lines or as live bars."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import pytest

from jepalab import progress
from jepalab.progress import ALARMS, LiveDisplay, Moment, PlainDisplay, make_display

METERS = {"std": 0.5, "dead_dims": 0.0, "rankme": 7.2, "rankme_centred": 6.1, "mean_cosine": 0.13}
MOMENT = Moment(
    step=50, steps=200, seconds=2.0, frames=14_400, terms={"predict": 0.125, "variance": 1.5}, meters=METERS
)


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


def sit_at_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Makes standard error a terminal of 160 columns that understands colours, for the rest of the test."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    return terminal


def test_moment_in_one_line() -> None:
    assert MOMENT.describe() == (
        "25 steps/s · 7,200 frames/s · predict 0.125 · variance 1.5 · std 0.50 · RankMe 7.2 / centred 6.1 · cosine 0.13"
    )
    assert replace(MOMENT, meters={}, seconds=0.0).describe() == (
        "0 steps/s · 0 frames/s · predict 0.125 · variance 1.5"
    )


@pytest.mark.parametrize(("std", "collapses"), [(0.051, False), (0.049, True), (0.0, True)])
def test_collapse_is_called_by_its_name(std: float, collapses: bool) -> None:
    for name in ALARMS:
        assert ("COLLAPSING" in replace(MOMENT, meters=METERS | {name: std}).warn()) is collapses
    assert replace(MOMENT, meters={}).warn() == ""


@pytest.mark.parametrize("columns", ["80", "160"])
def test_a_warning_is_never_cut_off(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_at_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", columns)
    display = LiveDisplay()
    display.start(["a"])
    moment = replace(MOMENT, meters=METERS | {"std": 0.01})
    display.news("a", moment)
    display.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert moment.warn() in " ".join(shown.split())


def test_a_warning_follows_the_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay()
    display.start(["a"])
    moment = replace(MOMENT, step=200, meters=METERS | {"std_samples": 0.01})
    display.news("a", moment)
    assert capsys.readouterr().err == f"a step 200/200 · {moment.describe()} · {moment.warn()}\n"


def test_plain_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    display = PlainDisplay()
    display.start(["a", "b"])
    display.news("a", MOMENT)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    display.news("a", MOMENT)
    display.ended("a", {"status": "done"})
    display.ended("b", {"status": "failed", "error": "ValueError: no"})
    display.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"a step 50/200 · {MOMENT.describe()}"
    assert re.fullmatch(r"\[1/2\] done a · about \d+ s left", lines[1])
    assert lines[2] == "[2/2] failed b · ValueError: no · about 0 s left"
    assert len(lines) == 3


def test_last_step_of_a_single_run_is_always_told(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay()
    display.start(["a"])
    display.news("a", replace(MOMENT, step=199))
    display.news("a", replace(MOMENT, step=200))
    assert capsys.readouterr().err.startswith("a step 200/200 · ")


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_live_bars_show_the_runs_in_hand_and_what_failed(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_at_terminal(monkeypatch)
    display = make_display()
    assert isinstance(display, LiveDisplay)
    display.start(names)
    for name in names:
        display.news(name, MOMENT)
    display.live.refresh()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue())
    assert f"a: {MOMENT.describe()}" in shown
    assert "50/200" in shown
    for name in names:
        display.ended(name, {"status": "failed", "error": "ValueError: no [room]"})
    display.close()
    rest = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue())[len(shown) :]
    assert [f"failed {name}: ValueError: no [room]" in rest for name in names] == [True] * len(names)
    assert ("2/2" in rest) is (len(names) == 2)


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_display_is_plain_where_nobody_can_see_colours(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sit_at_terminal(monkeypatch)
    monkeypatch.setenv(variable, "1")
    assert isinstance(make_display(), PlainDisplay)


def test_display_is_plain_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(make_display(), PlainDisplay)
