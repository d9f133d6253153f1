"""The command line. Nothing heavy is imported before a command is known, so that help comes at once."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jepalab import __version__

if TYPE_CHECKING:
    from jepalab.compare.grid import Comparison


class Command(NamedTuple):
    """One word of the command line: what it does, and the function that does it with the words that follow."""

    help: str
    run: Callable[[list[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for an error, 2 for a wrong call, 128 + n for signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] == "--version":
        print(f"jepalab {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    name = _known(words[0], COMMANDS, "command")
    return _guarded(COMMANDS[name].run, words[1:]) if name else 2


def _guarded(run: Callable[[list[str]], int], words: list[str]) -> int:
    """A user's mistake, a full disk or a stopped run ends in a sentence and an exit code, not in a traceback."""
    from jepalab.fit import DivergedError, InterruptedRunError

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


@dataclass(frozen=True)
class Place:
    """Where a run is recorded and computed.

    Args:
        out: folder of the run; the same command with the same folder goes on where it stopped.
        device: auto takes CUDA, then MPS, then the CPU.
        save_every: steps between checkpoints.
        json: print the result as JSON on standard output.
    """

    out: Path | None = None
    device: str = "auto"
    save_every: int = 200
    json: bool = False


def train(words: list[str]) -> int:
    """jepalab train RECIPE [options]"""
    from jepalab.catalogue import find_recipes

    recipes = find_recipes()
    if not words or words[0] in ("-h", "--help"):
        print("usage: jepalab train RECIPE [options], and jepalab train RECIPE --help for its options\n")
        print(_table({name: _summary(recipe) for name, recipe in recipes.items()}))
        return 0
    name = _known(words[0], recipes, "recipe")
    if not name:
        return 2

    from jepalab.compare.cells import judge_run
    from jepalab.fit import fit
    from jepalab.flags import call_with_flags, flatten
    from jepalab.hub.runs import save_encoders
    from jepalab.progress import make_display
    from jepalab.records import RunFolder, write_json

    place, settings, run = call_with_flags(recipes[name], Place, program=f"jepalab train {name}", words=words[1:])
    judging = sys.modules[recipes[name].__module__].JUDGING
    folder = place.out or Path("runs") / f"{name}-seed-{run.seed}"
    RunFolder(folder).claim(recipe=name, **flatten(settings))
    display = make_display()
    display.start([name])
    try:
        fit(
            run,
            folder=folder,
            device=place.device,
            save_every=place.save_every,
            watch=lambda moment: display.news(name, moment),
        )
        save_encoders(run.objective, folder, stream=run.stream, recipe=name)
        scores = judge_run(run, judging)
    finally:
        display.close()
    write_json(folder / "scores.json", scores)
    RunFolder(folder).describe(status="done")
    if place.json:
        print(json.dumps({"folder": str(folder), "scores": scores}))
    else:
        print(_table({key: f"{value:.3f}" for key, value in scores.items()}))
        print(f"\nencoder and records: {folder}")
    return 0


@dataclass(frozen=True)
class ComparePlace:
    """Where a comparison is recorded and computed.

    Args:
        out: folder of the comparison; the same command with the same folder goes on where it stopped.
        num_workers: runs at a time; 0 takes one for each core.
        publish: also copy the results and the report into this folder.
        json: print results.json on standard output instead of tables.
    """

    out: Path | None = None
    num_workers: int = 0
    publish: Path | None = None
    json: bool = False


def compare(words: list[str]) -> int:
    """jepalab compare EXPERIMENT [options]"""
    from jepalab.catalogue import find_experiments

    experiments = find_experiments()
    if not words or words[0] in ("-h", "--help"):
        print("usage: jepalab compare EXPERIMENT [options], and jepalab compare EXPERIMENT --help for its options\n")
        print(_table({name: _summary(plan) for name, plan in experiments.items()}))
        return 0
    name = _known(words[0], experiments, "experiment")
    if not name:
        return 2

    from jepalab.compare import grid
    from jepalab.compare.report import write_report
    from jepalab.compare.summary import publish
    from jepalab.flags import call_with_flags
    from jepalab.progress import make_display

    program = f"jepalab compare {name}"
    place, _, plan = call_with_flags(experiments[name], ComparePlace, program=program, words=words[1:])
    display = make_display()
    folder = place.out or Path("runs") / plan.name
    try:
        comparison = grid.compare(plan, out=folder, num_workers=place.num_workers, display=display)
    finally:
        display.close()
        if (folder / "results.json").exists():
            write_report(folder)
            if place.publish:
                publish(folder, place.publish)
    if place.json:
        print(json.dumps(comparison.results))
    else:
        _print_comparison(comparison)
        print(f"\nreport: {(folder / 'report.html').resolve()}")
    return 0 if all(cell["status"] == "done" for cell in comparison.results["cells"]) else 1


def tune(words: list[str]) -> int:
    """jepalab tune EXPERIMENT [options]"""
    import tyro

    from jepalab.progress import make_display
    from jepalab.recipes import tuning

    searches = {
        "distractor": (tuning.tune_distractor, tuning.Search()),
        "texture": (tuning.tune_texture, tuning.TEXTURE_SEARCH),
    }
    words = words if words and not words[0].startswith("-") else ["distractor", *words]
    name = _known(words[0], searches, "tunable experiment")
    if not name:
        return 2
    find, default = searches[name]
    search = tyro.cli(tuning.Search, prog=f"jepalab tune {name}", args=words[1:], default=default)
    display = make_display()
    try:
        found = find(search, display=display)
    finally:
        display.close()
    for condition, arms in found["conditions"].items():
        for arm, summary in arms.items():
            print(f"{condition:12} {arm:6} {summary['score']:.3f}  {summary['settings']}")
    return 0


def report(words: list[str]) -> int:
    """jepalab report FOLDER"""
    if len(words) != 1 or words[0].startswith("-"):
        print("usage: jepalab report FOLDER\n\nWrites FOLDER/report.html again from the comparison recorded there.")
        return 0 if words in (["-h"], ["--help"]) else 2

    from jepalab.compare.report import write_report

    print(write_report(Path(words[0])))
    return 0


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


def audit(words: list[str]) -> int:
    """jepalab audit FILE.py:FUNCTION | --examples | --all [options]"""
    from jepalab.auditing import run

    return run(words)


def masks(words: list[str]) -> int:
    """jepalab masks --grid 14x14 [options]"""
    from jepalab.masking import run

    return run(words)


def probe(words: list[str]) -> int:
    """jepalab probe RUN --data DIR [options]"""
    from jepalab.probing import run

    return run(words)


def embed(words: list[str]) -> int:
    """jepalab embed RUN --data DIR --out FILE [options]"""
    from jepalab.embedding import run

    return run(words)


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
        print(f"{kind}\n{_table({name: entry['summary'] for name, entry in entries.items()})}\n")
    return 0


COMMANDS = {
    "compare": Command("train a JEPA and its generative twins alike, judge them alike, write a report", compare),
    "train": Command("train one encoder by one recipe", train),
    "audit": Command("say what each term of any PyTorch training step's loss compares", audit),
    "probe": Command("say what a trained encoder knows about the classes of your pictures", probe),
    "embed": Command("write a trained encoder's embeddings of your pictures into a file", embed),
    "masks": Command("show what a mask sampler covers: in the terminal, and as a picture", masks),
    "tune": Command("search the settings of every arm of an experiment with equal effort", tune),
    "theory": Command("check our objectives against the theory of deep linear networks, in seconds", theory),
    "report": Command("write a comparison's report again", report),
    "list": Command("list objectives, recipes, experiments and instruments", show_list),
}


def _help() -> str:
    rows = _table({name: command.help for name, command in COMMANDS.items()})
    return (
        "jepalab: does predicting embeddings beat predicting raw outputs, on your data, and why?\n\n"
        f"usage: jepalab COMMAND [options]\n\n{rows}\n\n"
        "jepalab COMMAND --help tells its options; start with: jepalab compare distractor"
    )


def _print_comparison(comparison: Comparison) -> None:
    from rich.console import Console

    from jepalab.compare.summary import contrasts_table, scores_table

    console = Console(width=None if sys.stdout.isatty() else 116)
    for condition in comparison.results["conditions"]:
        console.print(scores_table(comparison.results, condition))
    console.print(contrasts_table(comparison.results))
    console.print(comparison.results["answer"], highlight=False, markup=False)


def _known(word: str, names: Any, kind: str) -> str | None:
    if word in names:
        return word
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    hint = f"Perhaps you meant {close[0]}." if close else f"There are: {', '.join(names)}."
    print(f"jepalab knows no {kind} {word!r}. {hint}", file=sys.stderr)
    return None


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().split("\n")[0]


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())
