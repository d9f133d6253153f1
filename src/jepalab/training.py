"""The command `jepalab train`: one encoder by one recipe, judged and kept."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from jepalab.catalogue import find_recipes
from jepalab.compare.cells import judge_run
from jepalab.data.sample_stream import left_out
from jepalab.fit import fit
from jepalab.flags import call_with_flags, flatten
from jepalab.hub.runs import save_encoders
from jepalab.menu import known, summary, table
from jepalab.progress import make_display, sum_up_alarms
from jepalab.records import RunFolder, write_json


@dataclass(frozen=True)
class Place:
    """Where a run is recorded and computed.

    Args:
        out: folder of the run; the same command with the same folder goes on where it stopped.
        device: auto takes CUDA, otherwise the CPU; mps has not been tested.
        save_every: steps between checkpoints.
        json: print the result as JSON on standard output.
    """

    out: Path | None = None
    device: str = "auto"
    save_every: int = 200
    json: bool = False


def run(words: list[str]) -> int:
    """jepalab train RECIPE [options]"""
    recipes = find_recipes()
    if not words or words[0] in ("-h", "--help"):
        print("usage: jepalab train RECIPE [options], and jepalab train RECIPE --help for its options\n")
        print(table({name: summary(recipe) for name, recipe in recipes.items()}))
        return 0
    name = known(words[0], recipes, "recipe")
    if not name:
        return 2
    place, settings, made = call_with_flags(recipes[name], Place(), program=f"jepalab train {name}", words=words[1:])
    judging = sys.modules[recipes[name].__module__].JUDGING
    folder = place.out or Path("runs") / f"{name}-seed-{made.seed}"
    records = RunFolder(folder)
    records.claim(recipe=name, **flatten(settings))
    records.list_skipped(left_out(made.stream))
    is_begun = records.latest() is not None and "flops_per_step" in records.description()
    records.describe(words=words[1:], **({} if is_begun else {"flops_per_step": made.count_flops()}))
    display = make_display()
    display.start([name])
    try:
        fit(
            made,
            folder=folder,
            device=place.device,
            save_every=place.save_every,
            watch=lambda moment: display.news(name, moment),
        )
        unsaved = save_encoders(made.objective, folder, stream=made.stream, recipe=name)
        with records.beating(made.steps):
            scores = judge_run(made, judging)
    except Exception as error:
        records.describe(status="failed", error=f"{type(error).__name__}: {error}")
        raise
    finally:
        display.close()
    write_json(folder / "scores.json", scores)
    alarms = sum_up_alarms(records.records())
    records.describe(status="done", alarms=alarms)
    if place.json:
        print(json.dumps({"folder": str(folder), "scores": scores}))
    else:
        chief = {k: v for k, v in scores.items() if not judging.chief or k.rpartition("/")[2] in judging.chief}
        print(table({key: f"{value:.3f}" for key, value in chief.items()}) or "no labels, so nothing was read out")
        for each in alarms:
            print(f"the collapse alarm rang at steps {each['first']} to {each['last']} of {made.steps}: {each['what']}")
        print(f"\nencoder, records and all scores: {folder}")
        if unsaved:
            print(f"not saved as an encoder, but in the checkpoints: {', '.join(unsaved)}")
    return 0
