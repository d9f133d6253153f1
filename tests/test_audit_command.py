"""`jepalab audit` as a new user meets it: a file with their step in it, the examples, every objective of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jepalab.cli import main
from jepalab.objectives import find_objectives

MINE = """
import torch
from torch import nn
import torch.nn.functional as F


def my_step():
    encoder, predictor = nn.Linear(6, 4), nn.Linear(4, 4)

    def step(x, x_next):
        with torch.no_grad():
            target = encoder(x_next)
        return F.mse_loss(predictor(encoder(x)), target)  # the comparison

    torch.manual_seed(0)
    return step, {"x": torch.randn(5, 6), "x_next": torch.randn(5, 6)}, {"encoder": encoder, "predictor": predictor}


def named():
    step, inputs, modules = my_step()
    return {"step": step, "inputs": inputs, "encoder": modules["encoder"]}


def nothing():
    return 3


def needy(x):
    return x


def broken():
    step, inputs, modules = my_step()
    return lambda x: inputs["x"] @ x, inputs, modules
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "steps_of_mine.py"
    path.write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.mark.parametrize("target", ["steps_of_mine.py:my_step", "steps_of_mine:my_step", "steps_of_mine.py:named"])
def test_a_pasted_step_gets_its_verdict(mine: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", target, "--steps", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (term,) = found["terms"]
    assert found["verdict"] == "JEPA-style"
    assert (term["space"], term["target_learning"], term["stop_gradient"]) == ("own-embedding", "joint", True)
    line = MINE.splitlines().index("        return F.mse_loss(predictor(encoder(x)), target)  # the comparison") + 1
    assert (Path(term["place"]["file"]).name, term["place"]["line"]) == (mine.name, line)
    assert found["encoder"].startswith("the encoder (28 of 48")


def test_in_words_with_confirmations_and_a_picture(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", f"{mine}:my_step", "--steps", "2", "--confirm", "--html", "audit.html"]) == 0
    shown = capsys.readouterr().out
    assert "VERDICT    JEPA-style" in shown
    assert "intervention" in shown
    assert "CONTRADICT" not in shown
    assert "What does this loss reward" in shown
    page = Path("audit.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "predictor" in page


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("my_step", "Wanted FILE.py:FUNCTION or MODULE:FUNCTION, got 'my_step'"),
        ("missing.py:my_step", "There is no file missing.py"),
        ("missing:my_step", "There is no module 'missing' here"),
        ("steps_of_mine.py:other", "has no function 'other'"),
        ("steps_of_mine.py:nothing", "returned int. Wanted a function without arguments"),
        ("steps_of_mine.py:needy", "could not be called without arguments"),
        ("steps_of_mine.py:broken", "steps_of_mine.py:34"),
    ],
)
def test_a_wrong_target_is_answered_in_a_sentence(
    mine: Path, target: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", target]) == 1
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--all", "--examples"], ["x.py:y", "--all"]])
def test_one_thing_at_a_time(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *words]) == 2
    assert "usage: jepalab audit" in capsys.readouterr().err


def test_all_objectives_of_ours_keep_their_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--all", "--steps", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {audit["title"] for audit in found} == {n for n, o in find_objectives().items() if o.compares}
