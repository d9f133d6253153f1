"""What has to be said of the settings that a comparison takes: where, on what and how they were searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jepalab.recipes.settings import say_trials


def tuning_caveats(
    found: Mapping[str, Any],
    known: Mapping[str, Any],
    *,
    asked: Sequence[str],
    chosen: Sequence[str],
    search: str,
    noun: str,
    here: Mapping[str, Any],
    unrecorded: Mapping[str, Any],
) -> list[str]:
    """Notes on the search, on arms left out, and on arms that were searched with another network or at another size.

    found       what `read_settings` returned; `known` its arms under the condition.
    asked       the arms that should take part; `chosen`, those that do.
    search      the command that repeats it, on these `noun`.
    here        network and shape of a sample in this comparison, as an arm's entry records those of its search.
    unrecorded  what they are where an entry does not say; what is neither here nor there is not compared.
    """
    tuned = [arm for arm in chosen if arm in known]
    notes = [
        f"Settings were tuned on {found.get('data', 'nothing yet')}, {say_trials([known[arm] for arm in tuned])} short "
        f"trials an arm ({found.get('from', 'no file')}); `{search}` repeats the search on your {noun}."
    ]
    others: dict[str, list[str]] = {}
    for arm in tuned:
        there = {**unrecorded, **known[arm]}
        if differs := [f"{key} {_spoken(there[key])}" for key in here if key in there and there[key] != here[key]]:
            others.setdefault(" and ".join(differs), []).append(arm)
    for told, arms in others.items():
        ours = ", ".join(f"{key} {_spoken(value)}" for key, value in here.items())
        notes.append(
            f"Settings of {', '.join(arms)} were searched with another {told}; here it is {ours}. The best settings "
            f"may be others: search with the same flags (`{search}`)."
        )
    if left := [arm for arm in asked if arm not in chosen]:
        notes.append(f"Left out, for want of tuned settings: {', '.join(left)}.")
    return notes


def how_ranked(known: Mapping[str, Any], chosen: Sequence[str], *, prefer: str) -> str:
    """How trials were ranked where that was otherwise than arms are judged here; empty where it was not.

    An entry that records no "prefer" is of a search that read each arm's first encoder.
    """
    old = [arm for arm in chosen if arm in known and known[arm].get("prefer") != prefer]
    if not old:
        return ""
    return (
        f"Trials of {', '.join(old)} were ranked by the first encoder of an arm: the averaged teacher where there is "
        "one, as in I-JEPA, and the last weights elsewhere. Scores of this comparison, and newer searches, take last "
        "or averaged weights, whichever validation prefers, of every arm."
    )


def _spoken(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
