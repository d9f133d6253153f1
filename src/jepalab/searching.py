"""The command `jepalab tune`: the settings of every arm of an experiment, searched with equal effort."""

from __future__ import annotations

from jepalab.catalogue import find_tunables
from jepalab.flags import call_with_flags
from jepalab.menu import known, summary, table
from jepalab.progress import make_display
from jepalab.recipes import tuning


def run(words: list[str]) -> int:
    """jepalab tune EXPERIMENT [options]"""
    tunables = find_tunables()
    if not words or words[0] in ("-h", "--help"):
        print("usage: jepalab tune EXPERIMENT [options], and jepalab tune EXPERIMENT --help for its options\n")
        print(table({name: summary(tunable) for name, tunable in tunables.items()}))
        return 0
    name = known(words[0], tunables, "tunable experiment")
    if not name:
        return 2
    program = f"jepalab tune {name}"
    search, _, tunable = call_with_flags(tunables[name], tuning.Search(), program=program, words=words[1:])
    display = make_display()
    try:
        found = tuning.tune(tunable, search, display=display)
    finally:
        display.close()
    for condition, arms in found["conditions"].items():
        for arm, chosen in arms.items():
            print(f"{condition:12} {arm:6} {chosen['score']:.3f}  {chosen['settings']}")
    return 0
