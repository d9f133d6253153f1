"""What a report says of world models beside their scores: success episode by episode, rivals in pairs, what it cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from jepalab.compare.milestones import milestone_table, thresholds
from jepalab.compare.readings import Readings
from jepalab.compare.stats import mcnemar_exact, wilson_interval
from jepalab.compare.world_diagnostics import (
    diagnostics_section,
    diagnostics_table,
    error_figure,
    pixels_figure,
)
from jepalab.compare.world_episodes import episodes_section, num_shared, pair_of, pairs_table, rates_table
from jepalab.envs.two_rooms import EB_JEPA_RADIUS, TwoRooms
from jepalab.instruments.planning import outcomes, success
from jepalab.recipes.world_planning import Planning

# Whoever draws other episodes for the usual seed tests something else than what was published.
GOLDEN = "82f9e0135592b56abdcf239f70acaea3eb46c0a868f35254170a2339a498ba31"


def test_the_usual_episodes_are_those_that_were_published() -> None:
    assert Planning().trial(TwoRooms()).manifest.digest == GOLDEN


def test_outcomes_are_the_rates_episode_by_episode() -> None:
    planning = Planning(cross_room=3, same_room=20, num_steps=10, horizon=4, num_samples=20, num_iterations=1)
    trial = planning.trial(TwoRooms())
    played = trial.play(planning.stand_in("oracle", TwoRooms()))
    found, scores = outcomes(trial, played), success(trial, played)
    assert (found["manifest"], found["radius"]) == (trial.manifest.digest, EB_JEPA_RADIUS)
    assert found["episodes"] == {"cross": 3, "same": 20}
    for group, num in found["episodes"].items():
        for when in ("ever", "end"):
            assert len(found[when][group]) == num
            assert found[when][group].count("1") / num == pytest.approx(scores[f"{group}_{when}_wide"])
    within = played.within[EB_JEPA_RADIUS][trial.manifest.rows("same")].any(1)
    assert 0 < int(within.sum()) < 20
    assert torch.tensor([one == "1" for one in found["ever"]["same"]]).equal(within)


def run(arm: str, seed: int, ever: str, *, manifest: str = "abc", curve: tuple[float, ...] = ()) -> dict[str, Any]:
    kept = {"manifest": manifest, "episodes": {"cross": len(ever)}, "radius": 4.5}
    moments = [
        {"step": 100 * (i + 1), "flops": 1e9 * (i + 1), "seconds": float(i + 1), "metrics": {"cross_ever_wide": rate}}
        for i, rate in enumerate(curve)
    ]
    return {
        **{"arm": arm, "condition": "fixed", "seed": seed, "status": "done", "curve": moments},
        "metrics": {"cross_ever_wide": curve[-1] if curve else ever.count("1") / len(ever)},
        "outcomes": {**kept, "ever": {"cross": ever}, "end": {"cross": "0" * len(ever)}},
    }


def contrast(better: str | None, than: str | None, condition: str = "fixed") -> dict[str, Any]:
    return {"better": better, "than": than, "condition": condition}


def test_one_run_s_rate_has_wilson_s_interval_and_the_digest_of_its_episodes() -> None:
    table = rates_table([run("J1", 0, "1" * 9 + "0")])
    assert table is not None
    (row,) = table.rows
    low, high = wilson_interval(9, 10)
    assert row[:4] == ["fixed", "J1", "0", "cross"]
    assert row[4] == f"0.900 [{low:.3f}, {high:.3f}]"
    assert row[-1] == "abc"
    assert rates_table([]) is None


def test_rivals_are_paired_on_the_same_episodes_seed_by_seed() -> None:
    one, other = "1111100000", "1000010000"
    assert pair_of(one, other) == (10, 4, 1, mcnemar_exact(4, 1))
    runs = [run("J1", 0, one), run("G1", 0, other), run("J1", 1, one), run("G1", 1, one, manifest="others")]
    declared = [contrast("J1", "G1"), contrast("G1", "J1"), contrast("J1", "G1", "elsewhere"), contrast(None, None)]
    table = pairs_table(declared, runs)
    assert table is not None
    assert [row[:-1] for row in table.rows] == [["fixed", "J1 against G1", "0", "cross", "10", "4", "1"]]
    assert "Exploratory" in table.note
    assert pairs_table(declared[2:], runs) is None


def test_who_played_the_first_episodes_of_another_is_paired_on_those() -> None:
    """As G3 and J1 are: of 30 and 20 episodes the first 12 are the same, of another seed none."""
    planning = Planning(cross_room=12, same_room=4, num_steps=1)
    fewer, more, others = (
        outcomes(trial, trial.play(planning.stand_in("random", TwoRooms())))
        for trial in (
            replace(planning, **changed).trial(TwoRooms())
            for changed in ({}, {"cross_room": 30, "same_room": 20}, {"cross_room": 30, "episode_seed": 8})
        )
    )
    assert (num_shared(fewer, more, "cross"), num_shared(more, fewer, "same")) == (12, 4)
    assert num_shared(fewer, others, "cross") == num_shared(more, others, "cross") == 0
    assert num_shared(fewer, {k: v for k, v in more.items() if k != "marks"}, "cross") == 0
    cells = [run("J1", 0, "1"), run("G3", 0, "1")]
    fewer["ever"]["cross"], more["ever"]["cross"] = "0" * 12, "1" * 8 + "0" * 22
    cells[0] |= {"outcomes": more, "tenth_outcomes": fewer}
    cells[1] |= {"outcomes": fewer, "tenth_outcomes": fewer}
    table = pairs_table([contrast("J1", "G3")], cells)
    assert table is not None
    rows = {row[3]: row[4:7] for row in table.rows}
    assert rows["cross"] == ["12", "8", "0"]
    assert rows["cross, a tenth of the search"] == ["12", "0", "0"]
    assert {*rows} == {f"{group}{search}" for group in ("cross", "same") for search in ("", ", a tenth of the search")}


def results(*cells: dict[str, Any], goals: tuple[float, ...] = ()) -> dict[str, Any]:
    arms = {cell["arm"]: cell["arm"] for cell in cells}
    about = {"question": "?", "answer": "!", "arms": arms, "conditions": {"fixed": "rooms"}, "seeds": [0]}
    metrics = {"cross_ever_wide": "arrived"}
    return about | {"cells": [*cells], "contrasts": [contrast("J1", "G1")], "metrics": metrics, "goals": [*goals]}


def test_comparisons_without_outcomes_have_no_such_section() -> None:
    found = results(run("J1", 0, "10"), run("G1", 0, "01"))
    assert len(episodes_section(found, Readings(found)).tables) == 2
    for cell in found["cells"]:
        del cell["outcomes"]
    assert not episodes_section(found, Readings(found)).tables


def test_what_it_cost_to_reach_the_declared_goals() -> None:
    curves = {"J1": (0.4, 0.6, 1.0), "G1": (0.1, 0.2, 0.6)}
    readings = Readings(results(*(run(arm, 0, "1", curve=curve) for arm, curve in curves.items()), goals=(0.5, 0.9)))
    assert [*thresholds(readings, "fixed").values()] == [0.5, 0.9]
    table = milestone_table(readings, "fixed")
    assert table is not None
    rows = {row[1]: row[2:] for row in table.sheet.rows}
    assert rows["J1"][:3] == pytest.approx([150.0, 1.5e9, 1.5])  # halfway between 0.4 and 0.6
    assert rows["J1"][3:6] == pytest.approx([275.0, 2.75e9, 2.75])
    assert rows["G1"][3:6] == [None, None, None]
    assert "declared" in table.note


def test_diagnostics_stand_beside_each_other_and_errors_beside_their_controls() -> None:
    cells = [run("J1", 0, "10"), run("CHANCE", 0, "00")]
    errors = {f"ahead_{k}{kind}": 0.1 * k for k in (1, 2, 4) for kind in ("", "_shuffled", "_still")}
    cells[0]["metrics"] |= errors | {"search_gain": 0.25, "flops_per_action": 2.5e6, "ahead_4_px": 3.0}
    readings = Readings(results(*cells))
    table = diagnostics_table(readings, "fixed")
    assert table is not None
    assert [*map(list, table.rows)] == [["J1", "0.25", "2.5 M"]]
    figure = error_figure(readings, "fixed")
    assert figure is not None
    assert len(figure.panels) == 1
    for words in ("actions taken", "other clips", "no action", "nothing changes"):
        assert words in figure.panels[0]
    assert pixels_figure(readings, "fixed") is not None
    assert diagnostics_table(Readings(results(cells[1])), "fixed") is None
    assert error_figure(Readings(results(cells[1])), "fixed") is None


def test_positions_ahead_stand_beside_their_controls_and_probes_in_a_table() -> None:
    kinds = ("", "_shuffled", "_still", "_persistence")
    found = {f"ahead_{k}_px{kind}": k + i for k in (1, 2, 4) for i, kind in enumerate(kinds)}
    probes = {"position_r2": 0.9, "position_r": 0.95, "position_mlp_r2": 0.97, "ahead_1_r2": 0.8, "ahead_4_r2": 0.5}
    cell = run("J1", 0, "10")
    cell["metrics"] |= found | probes | {"search_gain": 0.25, "ahead_4": 0.5, "input_mean_off": 0.01}
    section = diagnostics_section(Readings(results(cell)), ["fixed"])
    errors, pixels = section.figures
    assert (errors.title, pixels.title) == ("Errors ahead, fixed", "Positions ahead, fixed")
    for words in ("actions taken", "other clips", "no action", "nothing changes", "position off, px"):
        assert words in pixels.panels[0]
    assert {row[2] for row in pixels.sheet.rows} == {*found}
    searches, read = section.tables
    assert searches.columns == ["arm", "cost kept, last round over first"]
    assert dict(zip(read.columns, read.rows[0], strict=True)) == {
        **{"arm": "J1", "position R²": "0.90", "position r": "0.95", "position R², by a network": "0.97"},
        **{"input's mean off": "0.01", "position R², 4 ahead": "0.50"},
    }
    assert "stale" not in section.text


def test_stale_normalisation_is_cried_out() -> None:
    cells = [run("J1", 0, "10"), run("G1", 0, "10"), run("G2", 0, "10")]
    for cell, (mean, std) in zip(cells, ((0.1, 0.2), (0.31, 0.1), (0.0, 1.4)), strict=True):
        cell["metrics"] |= {"search_gain": 0.25, "input_mean_off": mean, "input_std_off": std}
    section = diagnostics_section(Readings(results(*cells)), ["fixed"])
    assert section.text.startswith("Warning, fixed: stale normalisation of G1 (mean 0.31, deviation 0.10), G2 (mean")
    assert "J1" not in section.text
