"""The command line: help at once, mistakes answered in a sentence, and every word of it explained."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jepalab.objectives
from jepalab import __version__
from jepalab.catalogue import find_experiments, find_recipes, find_tunables
from jepalab.cli import COMMANDS, _guarded, main
from jepalab.records import RunFolder

OBJECTIVES = [path.stem for path in Path(jepalab.objectives.__path__[0]).glob("[!_]*.py")]
TRAIN = ["train", "vicreg-jepa", "--thing", "dot", "--steps", "5", "--out"]


WITH_FLAGS = [
    *(f"train {name}" for name in find_recipes()),
    *(f"compare {name}" for name in find_experiments()),
    *(f"tune {name}" for name in find_tunables()),
    "audit",
    "masks",
    "probe",
    "embed",
    "collect",
    "convert",
    "plan",
]
PRINT_HELP = """
import contextlib, io, json, sys
from jepalab.cli import main
texts = {}
for words in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*words.split(), "--help"])
    texts[words] = out.getvalue()
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    """What --help says, as a user's process says it: here every function is wrapped by the checks of its types."""
    command = [sys.executable, "-c", PRINT_HELP, *WITH_FLAGS]
    environment = os.environ | {"COLUMNS": "110", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    texts = json.loads(process.stdout)
    return {words: " ".join(re.sub("[│╭╮╰╯─]|-{9,}", " ", text).split()) for words, text in texts.items()}


def unexplained_flags(text: str) -> list[str]:
    """The flags of a help text that are followed by no sentence of their own."""
    parts = re.split(r" (--[a-z][a-z-]*)(?:, --no-[a-z-]+)?(?= )", text)[1:]
    found = {}
    for flag, rest in zip(parts[::2], parts[1::2], strict=True):
        prose = re.sub(r"\(default: .*|\{[^}]*\}\S*|\[[^\]]*\]|[A-Z]{3,}\S*", "", rest)
        found[flag] = len(re.findall(r"[A-Za-z]{2,}", prose)) >= 3
    assert len(found) >= 3
    return [flag for flag, is_explained in found.items() if not is_explained]


def test_help_comes_at_once() -> None:
    durations = []
    while len(durations) < 10 and min(durations, default=1.0) >= 0.5:
        began = time.perf_counter()
        told = subprocess.run([sys.executable, "-m", "jepalab", "--help"], capture_output=True, text=True, check=True)
        durations.append(time.perf_counter() - began)
        assert [name for name in COMMANDS if f"  {name} " not in told.stdout] == []
    assert min(durations) < 0.5


def test_version_and_no_words_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jepalab {__version__}\n"
    assert main([]) == main(["-h"]) == 0
    assert "usage: jepalab COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["trian"], "knows no command 'trian'. Perhaps you meant train."),
        (["xyz"], f"knows no command 'xyz'. There are: {', '.join(COMMANDS)}."),
        (["train", "vicreg-jeap"], "knows no recipe 'vicreg-jeap'. Perhaps you meant vicreg-jepa."),
        (["compare", "distracter"], "knows no experiment 'distracter'. Perhaps you meant distractor."),
        (["tune", "distracter"], "knows no tunable experiment 'distracter'. Perhaps you meant distractor."),
    ],
)
def test_mistyped_word_is_answered_with_the_nearest(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "vicreg-jepa", "--stepps", "5"], "--steps"),
        (["compare", "distractor", "--num-seed", "5"], "--num-seeds"),
        (["tune", "distractor", "--num-trails", "5"], "--num-trials"),
    ],
)
def test_mistyped_flag_is_answered_with_the_nearest(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert re.search(rf"Perhaps you meant.*{meant}\b", capsys.readouterr().err, re.DOTALL)


def test_list_holds_everything_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["objectives"]) == sorted(OBJECTIVES)
    assert found["objectives"]["sigreg_jepa"]["compares"] == {"predict": "own-embedding", "sigreg": "statistic"}
    assert found["recipes"].keys() == find_recipes().keys() >= {"vicreg-jepa", "next-frame"}
    assert found["experiments"].keys() == find_experiments().keys() >= {"distractor"}
    assert found["instruments"].keys() >= {"state", "rollout", "geometry"}
    summaries = [entry["summary"] for entries in found.values() for entry in entries.values()]
    assert all(summaries)
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(summary in shown for summary in summaries)


def test_list_takes_one_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--help"]) == 0
    assert main(["list", "--jason"]) == 2
    assert capsys.readouterr().out == 2 * "usage: jepalab list [--json]\n"


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_of_a_command_lists_what_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"train": find_recipes, "compare": find_experiments}[command]()
    assert main([command, "--help"]) == main([command]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w+", shown, re.MULTILINE) for name in found)


@pytest.mark.parametrize("words", WITH_FLAGS)
def test_every_flag_is_explained(words: str, help_texts: dict[str, str]) -> None:
    assert help_texts[words].startswith(f"usage: jepalab {words} ")
    assert unexplained_flags(help_texts[words]) == []


def test_training_records_everything_and_is_not_done_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main([*TRAIN, str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told == {"folder": str(folder), "scores": json.loads((folder / "scores.json").read_text())}
    assert "vicreg-jepa step 5/5" in captured.err
    assert {"state_r2", "rollout_1_r2", "rankme", "lidar"} <= told["scores"].keys()
    described = RunFolder(folder).description()
    assert (described["recipe"], described["thing"], described["steps"], described["spread"]) == (
        *("vicreg-jepa", "dot", 5, 1.0),
    )
    assert described["status"] == "done"
    weights = folder / "checkpoints" / "step-000005" / "model.safetensors"
    before = weights.stat().st_mtime_ns, (folder / "metrics.jsonl").read_text()
    assert main([*TRAIN, str(folder)]) == 0
    assert (weights.stat().st_mtime_ns, (folder / "metrics.jsonl").read_text()) == before
    assert json.loads((folder / "scores.json").read_text()) == told["scores"]
    shown = capsys.readouterr().out
    assert f"state_r2             {told['scores']['state_r2']:.3f}" in shown
    assert f"encoder, records and all scores: {folder}" in shown

    assert main([*TRAIN, str(folder), "--spread", "2", "--strength", "0"]) == 1
    assert "other settings: strength 1.0 (now 0.0), spread 1.0 (now 2.0)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["train", "vicreg-jepa", "--thing", "{here}"], "Found no readable image below {here}"),
        (["train", "vicreg-jepa", "--thing", "{here}/photos"], "{here}/photos is not a folder"),
        (["train", "vicreg-jepa", "--thing", "dot", "--device", "gpu"], "No device 'gpu' here; take auto, cpu"),
        (["train", "vicreg-jepa", "--thing", "dot", "--lr", "-1"], "lr > 0"),
        (["train", "next-frame", "--thing", "dot", "--lr", "1e30", "--steps", "3"], "no longer finite at step 1"),
        (["report", "{here}"], "results.json"),
    ],
)
def test_mistake_ends_in_a_sentence(
    words: list[str], answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    assert main([word.format(here=here) for word in words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert answer.format(here=here) in said
    assert said.count("\n") == 1


def test_ctrl_c_between_two_steps_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def press(words: list[str]) -> int:
        raise KeyboardInterrupt

    assert _guarded(press, []) == 130
    assert capsys.readouterr().err == "Stopped.\n"
