"""Success episode by episode: what one run's rate is worth by itself, and two runs on the same episodes in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jepalab.compare.readings import Readings, number
from jepalab.compare.sheets import Entry, Section, Sheet, Table
from jepalab.compare.stats import mcnemar_exact, wilson_interval

WHEN = {"ever": "arrived", "end": "there at the end"}
SEARCHES = {"outcomes": "", "tenth_outcomes": ", a tenth of the search"}
MARK = 8  # characters by which an episode is known


class Pair(NamedTuple):
    """Two runs on the same episodes: what only one of them reached, and the exact p-value of McNemar's test."""

    num: int
    only_first: int
    only_second: int
    p: float


def episodes_section(results: Mapping[str, Any], readings: Readings) -> Section:
    """Tables of every run that kept its episodes' outcomes; empty where none did."""
    runs = [cell for cell in readings.cells if cell["status"] == "done" and "outcomes" in cell]
    tables = [table for table in (rates_table(runs), pairs_table(results["contrasts"], runs)) if table]
    text = (
        "Every run is tested on the same episodes, which a digest tells from any others. Intervals and tests here are "
        "about episodes: they say how well one run's rate is known and whether two runs differ, not what another "
        "training seed would do. The verdicts come from the seeds."
    )
    return Section("Episode by episode", text, tables=tables)


def rates_table(runs: Sequence[Mapping[str, Any]]) -> Table | None:
    """The success of each run with Wilson's interval, and the digest of its episodes; None without runs."""
    if not runs:
        return None
    printed, numbers = [], []
    for run in runs:
        found, place = run["outcomes"], [run["condition"], run["arm"], str(run["seed"])]
        for group, num in found["episodes"].items():
            counts = {when: found[when][group].count("1") for when in WHEN}
            ends = {when: wilson_interval(count, num) for when, count in counts.items()}
            rates = [_rate(count / num, ends[when]) for when, count in counts.items()]
            printed.append([*place, group, *rates, str(num), found["manifest"][:16]])
            every = [value for when, count in counts.items() for value in (count, *ends[when])]
            numbers.append([*place, group, num, *every, found["manifest"]])
    keys = [f"{when}{part}" for when in WHEN for part in ("", "_low", "_high")]
    sheet = Sheet("episodes", ["condition", "arm", "seed", "group", "episodes", *keys, "manifest"], numbers)
    radii = sorted({run["outcomes"]["radius"] for run in runs})
    note = f"Rates within {', '.join(f'{r:g}' for r in radii)} of the goal, with Wilson's 95 % interval over episodes."
    columns = ["condition", "arm", "seed", "goals", *WHEN.values(), "episodes", "digest of the episodes"]
    return Table("Every run", columns, printed, sheet, note=note, num_names=4)


def _rate(rate: float, ends: tuple[float, float]) -> str:
    low, high = (number(end, 3) for end in ends)
    return f"{number(rate, 3)} [{low}, {high}]"


def pairs_table(contrasts: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> Table | None:
    """Declared rivals on the same episodes, seed by seed, by McNemar's exact test; None where there are none."""
    printed, numbers = [], []
    for contrast, seed, search, group, pair in _pairs(contrasts, runs):
        place = [contrast["condition"], f"{contrast['better']} against {contrast['than']}", str(seed)]
        p = "< 0.001" if pair.p < 0.001 else number(pair.p, 3)
        goals = f"{group}{SEARCHES[search]}"
        printed.append([*place, goals, str(pair.num), str(pair.only_first), str(pair.only_second), p])
        numbers.append([contrast["condition"], contrast["better"], contrast["than"], seed, search, group, *pair])
    if not printed:
        return None
    keys = ["condition", "first", "second", "seed", "of", "group", "episodes", "only_first", "only_second", "p_value"]
    sheet = Sheet("rivals on the same episodes", keys, numbers)
    note = (
        "McNemar's exact two-sided test of who arrived at some time, from the episodes that only one of them reached. "
        "Where one played the first of the other's episodes alone, the pair is about those; with a tenth of the search "
        "both plan alike. "
        "Exploratory: not adjusted for the number of rows, and no verdict rests on it."
    )
    columns = ["condition", "declared rivals", "seed", "goals", "episodes", "only the first", "only the second", "p"]
    return Table("Declared rivals on the same episodes", columns, printed, sheet, note=note, num_names=4)


def _pairs(
    contrasts: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], int, str, str, Pair]]:
    """Rivals of each contrast in one condition, once, in each search; runs on other episodes are no pair."""
    known = {(run["condition"], run["arm"], run["seed"]): run for run in runs}
    done: set[tuple[Any, Any, Any]] = set()
    for contrast in contrasts:
        condition, first, second = (contrast.get(key) for key in ("condition", "better", "than"))
        if first is None or second is None or {(condition, first, second), (condition, second, first)} & done:
            continue
        done.add((condition, first, second))
        for seed in sorted({seed for _, _, seed in known}):
            rivals = [known.get((condition, arm, seed), {}) for arm in (first, second)]
            for search in SEARCHES:
                one, other = (run.get(search) for run in rivals)
                if one is None or other is None:
                    continue
                for group, outcome in one["ever"].items():
                    if num := num_shared(one, other, group):
                        yield contrast, seed, search, group, pair_of(outcome[:num], other["ever"][group][:num])


def num_shared(one: Mapping[str, Any], other: Mapping[str, Any], group: str) -> int:
    """How many episodes of a group both played: all, or all of the one where they are the first of the other's; else 0.

    Outcomes that were kept without marks are of the same episodes only where the whole tests are the same.
    """
    if one["manifest"] == other["manifest"]:
        return len(one["ever"][group])
    marks = [run.get("marks", {}).get(group, "") for run in (one, other)]
    first, second = ([text[i : i + MARK] for i in range(0, len(text), MARK)] for text in marks)
    num = min(len(first), len(second))
    return num if first[:num] == second[:num] else 0


def pair_of(one: str, other: str) -> Pair:
    """Of two strings of 1 and 0, an episode each."""
    both: list[tuple[Entry, Entry]] = [*zip(one, other, strict=True)]
    first, second = both.count(("1", "0")), both.count(("0", "1"))
    return Pair(len(both), first, second, mcnemar_exact(first, second))
