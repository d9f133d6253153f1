"""The experiment on recorded episodes, on our own point maze: declared, tuned before it competes, judged by acting."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from jepalab.cli import main
from jepalab.compare.grid import compare
from jepalab.compare.report import write_report
from jepalab.recipes import pusht
from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_bench import WorldBench, WorldNetwork, WorldTraining
from jepalab.recipes.world_judging import Planning
from jepalab.recipes.world_lab import ARMS, WorldLab
from jepalab.recipes.world_planning import TOWARDS_RECORDED
from jepalab.recipes.worlds import JUDGING
from jepalab.run import Run

SEARCHED = {
    "settings": {"lr": 1e-3, "weight_decay": 1e-4},
    "score": 0.5,
    "scores": [0.4, 0.5],
    "expected_best_of_n": [0.45, 0.475],
    "share_above_random_encoder": 0.5,
}
QUICK = Planning(cross_room=2, same_room=0, num_steps=4, horizon=2, num_executed=1, num_samples=10, num_iterations=1)
NETWORK = WorldNetwork(dim=8, widths=(8, 8, 8), dynamics_width=16)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "maze"
    assert main(["collect", "point-maze", "--out", str(folder), "--episodes", "30", "--steps", "24"]) == 0
    return folder


def small(seed: int, *, arm: str, data: Path) -> Run:
    """The run of an arm on these episodes with a narrow network and two steps."""
    training = WorldTraining(steps=2, batch_size=4, num_frames=4, ahead=2)
    return ARMS[arm].make(WorldBench(stored=Stored(data, frameskip=2), network=NETWORK, training=training, seed=seed))


def test_untuned_arms_do_not_compete(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {}})
    with pytest.raises(ValueError, match="run `jepalab tune pusht` first"):
        pusht.plan(data=recorded)


def test_recorded_episodes_are_compared_and_reported(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        WorldLab, "read_tuned", lambda _: {"conditions": {"pusht": dict.fromkeys(("J1", "G1"), SEARCHED)}}
    )
    plan = pusht.plan(QUICK, data=recorded, frameskip=2, num_seeds=1, budget=2.0)
    assert {cell.arm for cell in plan.cells} == {"J1", "G1", "R", "CHANCE"}
    names = {contrast.name for contrast in plan.contrasts}
    assert "No difference between embeddings and pixels" in names
    assert len(names) == 4
    brief = replace(
        plan,
        cells=[replace(cell, make=partial(small, arm=cell.arm, data=recorded)) for cell in plan.cells],
        judging=replace(plan.judging, curve=()),
    )
    found = compare(brief, out=tmp_path, num_workers=1).results["cells"]
    assert {cell["status"] for cell in found} == {"done"}, [cell.get("error") for cell in found]
    assert all(0 <= cell["metrics"]["all_ever_wide"] <= 1 for cell in found)
    assert "arrived" in write_report(tmp_path).read_text()


def test_the_search_is_on_the_same_episodes(recorded: Path) -> None:
    search = pusht.tunable(data=recorded, frameskip=2)
    assert search.metric == "all_ever_wide"
    assert search.worlds == {"pusht": Stored(recorded, frameskip=2).named()}
    made = search.make(0, arm="J1", world=search.worlds["pusht"], settings={"lr": 2e-3, "slowness": 3.0}, steps=1)
    assert made.lr == 2e-3
    assert made.objective.weights["slowness"] == 3.0


def test_a_run_of_its_own_is_planned_as_is_usual_in_its_world(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small(0, arm="J1", data=recorded)
    asked: list[str] = []

    def usual(name: str) -> Planning:
        asked.append(name)
        return TOWARDS_RECORDED

    monkeypatch.setattr("jepalab.recipes.world_judging.usual_planning", usual)
    planning = JUDGING.subjects(run.objective, run.stream)["model"].planning
    assert asked == ["point-maze"]
    assert (planning.horizon, planning.num_executed, planning.num_steps) == (5, 1, 50)
    assert (planning.cross_room, planning.same_room) == (40, 20)
