"""The command line. Nothing heavy is imported before a command is known, so that help comes at once."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from typing import NamedTuple

from jepalab import __version__
from jepalab.menu import known, table


class Command(NamedTuple):
    """One word of the command line: what it does, and where the function is that takes the words after it."""

    help: str
    function: str


COMMANDS = {
    "compare": Command(
        "train a JEPA and its generative twins alike, judge them alike, write a report", "comparing:run"
    ),
    "train": Command("train one encoder by one recipe", "training:run"),
    "probe": Command("say what a trained encoder knows about the classes of your data", "probing:run"),
    "embed": Command("write a trained encoder's embeddings of your data into a file", "embedding:run"),
    "collect": Command("record episodes of an environment, to train world models on", "collecting:run"),
    "convert": Command("turn recorded episodes into HDF5 or LeRobot datasets, and back", "converting:run"),
    "plan": Command("let a trained world model act, beside a floor and a ceiling", "planning:run"),
    "audit": Command("say what each term of any PyTorch training step's loss compares", "auditing:run"),
    "masks": Command("show what a mask sampler covers: in the terminal, and as a picture", "masking:run"),
    "tune": Command("search the settings of every arm of an experiment with equal effort", "searching:run"),
    "lab": Command("open the lab in the browser: live runs, a look inside, plans by click", "serving:run"),
    "learn": Command("open the lesson: questions, exercises and flashcards on JEPA and world models", "learning:run"),
    "theory": Command("check our objectives against the theory of deep linear networks, in seconds", "cli:theory"),
    "report": Command("write a comparison's report again", "comparing:rewrite"),
    "list": Command("list objectives, recipes, experiments and instruments", "cli:show_list"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for an error, 2 for a wrong call, 128 + n for signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows may not know "R²": better a ? than no result
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if words and words[0] == "--version":
        print(f"jepalab {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    name = known(words[0], COMMANDS, "command")
    return _guarded(partial(_call, COMMANDS[name].function), words[1:]) if name else 2


def _call(function: str, words: list[str]) -> int:
    module, name = function.split(":")
    return getattr(importlib.import_module(f"jepalab.{module}"), name)(words)


def _guarded(run: Callable[[list[str]], int], words: list[str]) -> int:
    """A user's mistake, a full disk or a stopped run ends in a sentence and an exit code, not in a traceback."""
    from jepalab.endings import DivergedError, InterruptedRunError

    try:
        return run(words)
    except InterruptedRunError as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except (ValueError, DivergedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def theory(words: list[str]) -> int:
    """jepalab theory: our objectives against what theory says of deep linear networks."""
    from jepalab.recipes.linear import EXPECTED, learn

    if words:
        print("usage: jepalab theory\n\nTrains deep linear networks by our own objectives: do they learn in the order")
        print("that theory predicts (Littwin et al. 2024, arXiv 2407.03475)? Takes some seconds.")
        return 0 if words[0] in ("-h", "--help") else 2
    print("camp            depth  learned first  as theory says")
    right = True
    for (camp, depth), expected in EXPECTED.items():
        first = learn(camp, depth=depth).first
        right &= first == expected
        print(f"{camp:<15} {depth:>5}  {first:<13}  {'yes' if first == expected else f'NO: {expected}'}", flush=True)
    return 0 if right else 1


def show_list(words: list[str]) -> int:
    """jepalab list [--json]: what there is."""
    from jepalab.catalogue import catalogue

    if unknown := [word for word in words if word != "--json"]:
        print("usage: jepalab list [--json]")
        return 0 if unknown[0] in ("-h", "--help") else 2
    found = catalogue()
    if "--json" in words:
        print(json.dumps(found, indent=2))
        return 0
    for kind, entries in found.items():
        print(f"{kind}\n{table({name: entry['summary'] for name, entry in entries.items()})}\n")
    return 0


def _help() -> str:
    rows = table({name: command.help for name, command in COMMANDS.items()})
    return (
        "jepalab: does predicting embeddings beat predicting raw outputs, on your data, and why?\n\n"
        f"usage: jepalab COMMAND [options]\n\n{rows}\n\n"
        "jepalab COMMAND --help tells its options; start with: jepalab compare distractor"
    )
