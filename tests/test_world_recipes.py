"""World models of Two Rooms: every arm on the same walks and first weights, judged on the same episodes; a command."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.test_acting import TrueWorld

from jepalab.cli import main
from jepalab.compare.cells import run_cell
from jepalab.compare.grid import compare
from jepalab.compare.report import write_report
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.walks import film
from jepalab.fit import fit
from jepalab.instruments.bystanders import bystanders
from jepalab.instruments.imagining import world_subject
from jepalab.instruments.plan_films import train_microscope
from jepalab.objectives.pixel_world import PixelWorld
from jepalab.recipes import exogenous, noisy_tv, two_rooms, worlds
from jepalab.recipes.world_bench import Rooms, Walks, WorldBench, WorldNetwork, WorldTraining
from jepalab.recipes.world_judging import (
    Planning,
    acting,
    acting_subjects,
    environment_of,
    episodes,
    make_floor,
    understanding,
)
from jepalab.recipes.world_lab import ARMS as ARMS_OF_LAB
from jepalab.recipes.world_lab import WorldLab, make_world_run
from jepalab.run import Run
from jepalab.types import WorldModel

BRIEF = WorldTraining(steps=2, batch_size=4, num_frames=5, ahead=3)
BENCH = WorldBench(
    world=Rooms(num_walks=40),
    network=WorldNetwork(dim=8, widths=(8, 8, 8), dynamics_width=16),
    training=BRIEF,
)
QUICK = Planning(cross_room=2, same_room=2, num_steps=4, horizon=3, num_samples=10, num_iterations=1, precision="fp32")
ARMS = {
    name: recipe
    for name, recipe in vars(worlds).items()
    if inspect.isfunction(recipe) and recipe.__module__ == worlds.__name__ and not name.startswith("_")
}


@cache
def first_weights() -> dict[str, torch.Tensor]:
    return BENCH.encoder().state_dict()


def test_there_is_an_arm_for_each_way() -> None:
    assert len(ARMS) == 11


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_starts_alike_trains_and_acts(name: str) -> None:
    run: Run = ARMS[name](BENCH)
    weights = run.objective.encoder.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in first_weights().items())
    fit(run, device="cpu")
    assert isinstance(run.objective, WorldModel)
    stream = run.stream
    assert isinstance(stream, TrajectoryStream)
    (subject,) = acting_subjects(run.objective, stream, planning=QUICK, share=0.1).values()
    scores = acting(replace(subject, share=1.0)) | understanding(subject)
    assert {"cross_ever_wide", "same_end_tight", "position_r2", "geodesic_rank", "ahead_4_shuffled"} <= scores.keys()
    assert scores["imagined_per_action"] == pytest.approx(10 * 3 * 1 / 2)


def test_models_of_frames_plan_with_a_tenth() -> None:
    full = Planning()
    assert full.through_frames() == replace(full, cross_room=20, same_room=10, num_samples=10)
    for name, share in (("frame_world", 10), ("vicreg_world", 1)):
        objective = ARMS[name](BENCH).objective.eval()
        planning = replace(QUICK, cross_room=20, same_room=10, num_steps=2)
        trial, _ = episodes(objective, BENCH.world.env(), planning)
        assert len(trial.manifest) == (8 + 4 if share == 10 else 30)


@pytest.mark.parametrize("dynamics", ["residual", "gru", "causal"])
def test_every_kind_of_dynamics_serves_both_camps(dynamics: str) -> None:
    bench = replace(BENCH, network=replace(BENCH.network, dynamics=dynamics))
    for name in ("vicreg_world", "pixel_world"):
        run: Run = ARMS[name](bench)
        assert run.objective(run.stream.batch(0)).total.isfinite()


def test_walks_are_read_as_they_were_walked() -> None:
    walks = BENCH.world.walks("train", 0)
    windows = torch.tensor([0, 5, 12, 13 * 7 + 3])
    batch = walks.read(windows, 5)
    rows, first = windows // 13, windows % 13
    pictures = film(walks.rooms, walks.walked.start[rows], walks.walked.action[rows])
    for i, start in enumerate(first.tolist()):
        torch.testing.assert_close(batch.x[i], pictures[i, start : start + 5])
        assert batch.action is not None
        assert torch.equal(batch.action[i], walks.walked.action[rows[i], start : start + 4])
        assert torch.equal(batch.factors["position"][i], walks.walked.position[rows[i], start : start + 5])


def test_no_walk_is_in_two_splits_and_none_is_in_the_test() -> None:
    keys = {
        split: {*BENCH.world.walks(split, 0).walked.start.key.tolist()} for split in ("train", "validation", "test")
    }
    assert len(set.union(*keys.values())) == sum(map(len, keys.values()))
    manifest = QUICK.trial(BENCH.world.env()).manifest
    assert not {*manifest.start.key.tolist(), *manifest.goal.key.tolist()} & set.union(*keys.values())


def test_batches_are_a_function_of_seed_and_step() -> None:
    stream = BENCH.stream()
    assert torch.equal(stream.batch(3).x, BENCH.stream().batch(3).x)
    assert not torch.equal(stream.batch(3).x, stream.batch(4).x)
    assert not torch.equal(stream.batch(3).x, replace(stream, seed=1).batch(3).x)
    shuffled, taken = replace(stream, relabel="shuffled").batch(3), stream.batch(3)
    assert shuffled.action is not None
    assert taken.action is not None
    assert torch.equal(shuffled.x, taken.x)
    assert not torch.equal(shuffled.action, taken.action)
    assert torch.equal(shuffled.action.sum(0), taken.action.sum(0)) or torch.allclose(
        shuffled.action.sum(0), taken.action.sum(0)
    )


def test_windows_longer_than_the_walks_are_refused() -> None:
    with pytest.raises(ValueError, match="is 18 frames long; take shorter clips"):
        replace(BENCH, training=replace(BRIEF, num_frames=18)).stream()


@pytest.mark.parametrize("television", ["noise", "video", "episode", "dataset"])
def test_a_television_is_in_the_picture_and_in_the_factors(television: str) -> None:
    bench = replace(BENCH, world=replace(BENCH.world, television=television))
    batch = bench.stream().batch(0)
    assert batch.factors["television"].shape == (4, 5, 16)
    changes = bool((batch.factors["television"].diff(dim=1).abs() > 0).any())
    assert changes == (television in ("noise", "video"))


def test_floor_and_ceiling_act_on_the_same_episodes() -> None:
    floor, ceiling = (make_floor(BENCH, name=name) for name in ("random", "oracle"))
    env, digests = BENCH.world.env(), set()
    for run in (floor, ceiling):
        trial, played = episodes(run.objective, env, QUICK)
        digests.add(trial.manifest.digest)
        assert played.actions.shape == (4, 4, 2)
        assert episodes(run.objective, env, QUICK)[1] is played  # played once
    assert len(digests) == 1
    assert understanding(next(iter(acting_subjects(floor.objective, floor.stream, planning=QUICK).values()))) == {}


def test_what_does_not_imagine_cannot_act() -> None:
    from jepalab.objectives.untrained import Untrained

    with pytest.raises(ValueError, match="neither imagines nor stands in"):
        episodes(Untrained(BENCH.encoder()), BENCH.world.env(), QUICK)


def test_the_encoder_of_frozen_worlds_stays_as_it_was() -> None:
    run = worlds.random_encoder_world(BENCH)
    fit(run, device="cpu")
    assert all(torch.equal(run.objective.encoder.state_dict()[key], value) for key, value in first_weights().items())
    learned = worlds.frozen_autoencoder_world(BENCH)
    assert learned.steps == 1
    fit(learned, device="cpu")
    assert any((learned.objective.encoder.state_dict()[key] != value).any() for key, value in first_weights().items())


def test_latent_term_is_there_if_asked_for() -> None:
    without, beside = worlds.pixel_world(BENCH).objective, worlds.pixel_latent_world(BENCH, latent=0.5).objective
    assert isinstance(without, PixelWorld)
    assert {*without.weights} == {"reconstruct", "predict"}
    assert beside.weights["own"] == 0.5


def test_a_world_is_trained_then_plans_and_is_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jepalab.planning.train_microscope", partial(train_microscope, steps=2))
    monkeypatch.setattr(worlds, "JUDGING", replace(worlds.JUDGING, subjects=partial(acting_subjects, planning=QUICK)))
    small = ["--num-walks", "30", "--steps", "2", "--batch-size", "4", "--dim", "8", "--widths", "8", "8", "8"]
    assert main(["train", "vicreg-world", *small, "--seed", "3", "--out", "run"]) == 0
    assert "cross_ever_wide" in capsys.readouterr().out
    quick = ["--num-steps", "4", "--horizon", "3", "--num-samples", "10", "--num-iterations", "1"]
    asked = ["plan", "run", "--episodes", "4", "--seed", "11", *quick]
    assert main([*asked, "--json", "--film", "plans.gif"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["episodes"] == 6
    assert {*found["scores"]} == {"run", "random actions (floor)", "the environment itself (ceiling)"}
    with Image.open("plans.gif") as movie:
        assert movie.size == (65 * 3 * 2 + 4, 65 * 3)
        assert getattr(movie, "n_frames", 1) > 6
    assert main([*asked, "--json", "--no-floors"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["manifest"] == found["manifest"]
    rates = {name: value for name, value in found["scores"]["run"].items() if "ms_" not in name}
    assert rates.items() <= again["scores"]["run"].items()
    assert main([*asked, "--noise", "0.2", "--json", "--no-floors"]) == 0
    noisy = json.loads(capsys.readouterr().out)
    assert noisy["manifest"] == found["manifest"]
    assert main([*asked, "--layout", "random-wall", "--json", "--no-floors"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] != found["manifest"]
    assert main([*asked, "--no-floors"]) == 0
    shown = capsys.readouterr().out
    assert "[" in shown
    assert found["manifest"][:16] in shown


def test_what_is_no_world_model_cannot_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path)]) == 1
    assert "holds no run of `jepalab train`" in capsys.readouterr().err
    small = ["--steps", "1", "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["train", "inverse-dynamics", *small]) == 0
    capsys.readouterr()
    assert main(["plan", str(tmp_path / "run")]) == 1
    assert "does not imagine" in capsys.readouterr().err


def test_rooms_are_found_again_by_the_stream() -> None:
    bench = replace(BENCH, world=replace(BENCH.world, layout="random-door"))
    env = environment_of(bench.stream())
    assert env == bench.world.env()
    assert isinstance(bench.stream().recorded["test"], Walks)


SEARCHED = {
    "settings": {"lr": 1e-3, "weight_decay": 1e-5},
    "score": 0.5,
    "scores": [0.4, 0.5],
    "expected_best_of_n": [0.45, 0.475],
    "share_above_random_encoder": 0.5,
}


def test_a_comparison_of_world_models_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"conditions": {"fixed": dict.fromkeys(("J1", "G1"), SEARCHED)}}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: known)
    monkeypatch.setattr("jepalab.recipes.world_films.train_microscope", partial(train_microscope, steps=1))
    plan = two_rooms.plan(QUICK, num_seeds=1, budget=1.0)
    assert {cell.arm for cell in plan.cells} == {"J1", "G1", "R", "CHANCE", "SIM"}
    assert {contrast.name for contrast in plan.contrasts} >= {
        "Clean rooms: no difference between embeddings and pixels"
    }
    brief = replace(plan, cells=[replace(cell, make=partial(small, arm=cell.arm)) for cell in plan.cells])
    done = []
    for cell in brief.cells:  # in this process, where the microscope is short
        done.append(run_cell(cell, 0, out=tmp_path, judging=replace(brief.judging, curve=()), budget=brief.budget))
    assert {cell["status"] for cell in done} == {"done"}, [cell.get("error") for cell in done]
    compare(replace(brief, judging=replace(brief.judging, curve=())), out=tmp_path, num_workers=1)
    page = write_report(tmp_path).read_text()
    for words in ("arrived, other room", "Plans, as they were carried out", "How far is it to the goal?", "(ceiling)"):
        assert words in page


def small(seed: int, *, arm: str) -> Run:
    """The run of an arm on few walks and a narrow network."""
    return ARMS_OF_LAB[arm].make(replace(BENCH, seed=seed))


def test_untuned_arms_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {}})
    with pytest.raises(ValueError, match="run `jepalab tune two-rooms` first"):
        two_rooms.plan(QUICK)


def test_every_arm_has_a_knob_that_its_recipe_takes() -> None:
    for name, arm in ARMS_OF_LAB.items():
        if arm.knob:
            made = make_world_run(0, arm=name, world=BENCH.world, settings={arm.knob.name: arm.knob.at(0.5)}, steps=1)
            made.objective.train()
            assert made.objective(made.stream.batch(0)).total.isfinite()
    assert set(two_rooms.tunable().knobs) == {name for name, arm in ARMS_OF_LAB.items() if arm.knob}


@pytest.mark.parametrize("experiment", [noisy_tv, exogenous])
def test_experiments_with_bystanders_declare_and_judge(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"conditions": {name: {"J1": SEARCHED, "G1": SEARCHED} for name in experiment.CONDITIONS}}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: known)
    plan = experiment.plan(QUICK, preset="full", num_seeds=1)
    assert {cell.condition for cell in plan.cells} == {*experiment.CONDITIONS}
    assert {"J1", "G1"} <= {contrast.better for contrast in plan.contrasts} | {c.than for c in plan.contrasts}
    assert {*experiment.LAB.tuned_on} <= {*experiment.CONDITIONS}
    assert {*experiment.tunable().conditions} == {*experiment.CONDITIONS} - {*experiment.LAB.tuned_on}


def test_a_light_and_a_television_are_read_where_they_are() -> None:
    class Sees(TrueWorld):
        def encode(self, x: torch.Tensor, proprio: torch.Tensor | None = None) -> torch.Tensor:
            screen = torch.nn.functional.avg_pool2d(x[:, :, 0, 28:60, 28:60], 8).flatten(2)
            return torch.cat([screen, x[:, :, 0, 10, 10, None]], -1)

    class Guesses(TrueWorld):
        def encode(self, x: torch.Tensor, proprio: torch.Tensor | None = None) -> torch.Tensor:
            return torch.rand(*x.shape[:2], 3, generator=torch.Generator().manual_seed(len(x)))

    world = Rooms(num_walks=60, light="door", flip=0.5, television="noise", screen_share=0.25)
    bench = replace(BENCH, world=world)
    for model, knows in ((Sees(), True), (Guesses(), False)):
        found = bystanders(world_subject(model, world.env(), bench.stream(), share=0.3))
        assert (found["light_accuracy"] > 0.9) == knows
        assert (found["television_r2"] > 0.5) == knows
    assert bystanders(world_subject(TrueWorld(), BENCH.world.env(), BENCH.stream(), share=0.1)) == {}


def test_a_model_that_has_learned_since_is_played_again() -> None:
    run = worlds.vicreg_world(BENCH)
    (subject,) = acting_subjects(run.objective, BENCH.stream(), planning=QUICK, share=0.25).values()
    acting(subject)
    first = episodes(run.objective, BENCH.world.env(), subject.planning)[1].actions
    with torch.no_grad():
        for parameter in run.objective.parameters():
            parameter.add_(torch.randn_like(parameter))
    acting(subject)
    assert not torch.equal(episodes(run.objective, BENCH.world.env(), subject.planning)[1].actions, first)


def test_a_budget_pays_for_what_is_prepared_as_well() -> None:
    run = worlds.frozen_autoencoder_world(BENCH, decoder_share=0.25).on_steps(40)
    assert run.steps == 30
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jepalab.recipes.worlds.fit", lambda first, **_: steps.append(first.steps))
        assert run.prepare is not None
        run.prepare()
    assert steps == [10]
    assert worlds.vicreg_world(BENCH).on_steps(40).steps == 40


def test_noised_frames_reach_their_encoder_in_its_units() -> None:
    objective = worlds.diffusion_world(BENCH).objective
    seen: list[torch.Tensor] = []
    noisy = objective.get_submodule("noisy_encoder")
    noisy.get_submodule("convolutions.0").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective(BENCH.stream().batch(0))
    assert 0.3 < float(seen[0].std()) < 3


@pytest.mark.parametrize("name", ["random", "oracle"])
def test_runs_of_other_seeds_have_other_luck_on_the_same_episodes(name: str) -> None:
    trials, actions = [], []
    for seed in (0, 1):
        run = make_floor(replace(BENCH, seed=seed), name="random" if name == "random" else "oracle")
        stream = replace(BENCH.stream(), seed=seed)
        (subject,) = acting_subjects(run.objective, stream, planning=QUICK).values()
        acting(subject)
        trial, played = episodes(run.objective, BENCH.world.env(), subject.planning)
        trials.append(trial.manifest.digest)
        actions.append(played.actions)
        assert float(played.actions.norm(dim=-1).max()) <= 1.8 + 1e-5
    assert trials[0] == trials[1]
    assert not torch.equal(*actions)


def test_one_guard_may_be_left_out() -> None:
    objective = worlds.vicreg_world(BENCH, variance=0.0).objective
    assert objective.weights["variance"] == 0
    assert objective(BENCH.stream().batch(0)).total.isfinite()
    assert "inverse" not in worlds.vicreg_world(BENCH, inverse=0.0).objective.weights
