"""World models of Two Rooms: every arm on the same walks and first weights, judged on the same episodes; a command."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.test_acting import TrueWorld

from jepalab.cli import main
from jepalab.compare.cells import Budget, Judging, run_cell
from jepalab.compare.contrasts import Better, Equivalent
from jepalab.compare.grid import compare
from jepalab.compare.report import write_report
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.walks import film
from jepalab.fit import fit
from jepalab.instruments.bystanders import bystanders
from jepalab.instruments.imagining import world_subject
from jepalab.instruments.plan_films import train_microscope
from jepalab.losses.regularisers import Gaussianity, Slowness, VarianceCovariance
from jepalab.objectives.pixel_world import PixelWorld
from jepalab.planning import open_world
from jepalab.recipes import exogenous, noisy_tv, pusht, two_rooms, worlds
from jepalab.recipes.world_arms import ARMS as ARMS_OF_LAB
from jepalab.recipes.world_arms import MAIN, SLOWNESS
from jepalab.recipes.world_bench import Rooms, Walks, WorldBench, WorldNetwork, WorldTraining
from jepalab.recipes.world_judging import (
    Planning,
    acting,
    acting_subjects,
    environment_of,
    episodes,
    keep_outcomes,
    make_floor,
    understanding,
)
from jepalab.recipes.world_lab import TRIAL_EPISODES, WorldLab, make_world_run
from jepalab.records import RunFolder
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
    if name != "frozen_encoder_world"  # which needs an encoder: see test_frozen_frames
}


@cache
def first_weights() -> dict[str, torch.Tensor]:
    return BENCH.encoder().state_dict()


def test_there_is_an_arm_for_each_way() -> None:
    assert len(ARMS) == 11
    assert {*MAIN, *noisy_tv.ARMS_HERE, *exogenous.ARMS_HERE, *pusht.ARMS_HERE} <= {*ARMS_OF_LAB}


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
    assert full.through_frames() == replace(full, cross_room=60, same_room=10, num_samples=10)
    assert replace(full, cross_room=1_000).through_frames().cross_room == 100
    for planning in (TRIAL_EPISODES, pusht.PLANNING, pusht.TRIALS):  # no arm is ranked by a handful
        assert planning.through_frames().cross_room >= min(60, planning.cross_room)
    stream = BENCH.stream()
    for name in ("frame_world", "vicreg_world"):  # on the way as well, where all have a share of the episodes
        objective = ARMS[name](BENCH).objective.eval()
        (subject,) = acting_subjects(objective, stream, planning=replace(QUICK, cross_room=96), share=0.25).values()
        acting(subject)
        run = replace(ARMS[name](BENCH), objective=objective)
        assert keep_outcomes(run)["outcomes"]["episodes"]["cross"] == 24
    for name, share in (("frame_world", 10), ("vicreg_world", 1)):
        objective = ARMS[name](BENCH).objective.eval()
        planning = replace(QUICK, cross_room=20, same_room=10, num_steps=2)
        trial, _ = episodes(objective, BENCH.world.env(), planning)
        assert len(trial.manifest) == (20 + 4 if share == 10 else 30)


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


@pytest.mark.parametrize("num", [2, 3, 64])
def test_no_window_keeps_its_own_actions_when_they_are_shuffled(num: int) -> None:
    stream = replace(BENCH.stream(), clips_per_batch=num)
    for step in range(20):
        taken, shuffled = stream.batch(step).action, replace(stream, relabel="shuffled").batch(step).action
        assert taken is not None
        assert shuffled is not None
        given = (shuffled[:, None] == taken).all((2, 3))  # what was drawn twice is given by two
        assert bool(given.any(1).all())
        own = (taken[:, None] == taken).all((2, 3)) & ~torch.eye(num, dtype=torch.bool)
        assert not bool((given.diagonal() & ~own.any(1)).any())
    with pytest.raises(ValueError, match="two windows or more"):
        replace(stream, relabel="shuffled", clips_per_batch=1)


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
    assert {*without.weights} == {"reconstruct", "predict", "slowness"}
    assert beside.weights["own"] == 0.5


def test_every_arm_whose_embeddings_learn_and_plan_is_searched_for_its_slowness() -> None:
    others = {"G3", "G4", "LeWM"}  # plans compare their pictures; LeWorldModel has two losses
    searched = {name: arm.knob for name, arm in ARMS_OF_LAB.items() if arm.knob and name not in others}
    assert {*searched.values()} == {SLOWNESS}
    assert {"J1", "J2", "J3", "A1", "G1", "G1+J", "G2"} <= searched.keys()
    for name in searched:
        run = ARMS_OF_LAB[name].make(BENCH, slowness=7.0)
        learned = [run.objective, *([] if run.first is None else [run.first.objective])]
        assert [each.weights["slowness"] for each in learned if "slowness" in each.weights] == [7.0], name
        # What asks for no variance would be small, or nothing, and be slow.
        slow = [part for each in learned for part in each.modules() if isinstance(part, Slowness)]
        asks = any(isinstance(part, VarianceCovariance | Gaussianity) for each in learned for part in each.modules())
        assert [part.relative for part in slow] == [not asks], name


def test_slowness_is_of_the_embeddings_that_plans_compare() -> None:
    objective, batch = worlds.ema_world(BENCH).objective.eval(), BENCH.stream().batch(0)
    assert isinstance(objective, WorldModel)
    z = objective.encode(batch.x)
    slow = z.diff(dim=1).square().mean() / z.flatten(0, 1).var(0, correction=0).mean()
    torch.testing.assert_close(objective(batch).terms["slowness"], slow)


def test_a_world_is_trained_then_plans_and_is_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jepalab.recipes.world_films.train_microscope", partial(train_microscope, steps=2))
    monkeypatch.setattr(worlds, "JUDGING", replace(worlds.JUDGING, subjects=partial(acting_subjects, planning=QUICK)))
    small = ["--num-walks", "30", "--steps", "2", "--batch-size", "4", "--dim", "8", "--widths", "8", "8", "8"]
    assert main(["train", "vicreg-world", *small, "--seed", "3", "--out", "run"]) == 0
    assert "cross_ever_wide" in capsys.readouterr().out
    quick = ["--num-steps", "4", "--horizon", "3", "--num-samples", "10", "--num-iterations", "1"]
    asked = ["plan", "run", "--episodes", "4", "--seed", "11", *quick]
    assert main([*asked, "--json", "--film", "plans.gif", "--counterfactual", "futures.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["episodes"] == 6
    assert {*found["scores"]} == {"run", "random actions (floor)", "the environment itself (ceiling)"}
    with Image.open("plans.gif") as movie:
        assert movie.size == (65 * 3 * 2 + 4, 65 * 3)
        assert getattr(movie, "n_frames", 1) > 6
    with Image.open("futures.png") as picture:
        assert picture.size == (13 * (65 * 2 + 4), 5 * 2 * 65 * 2 + 4 * 8)
    assert main([*asked, "--json", "--no-floors"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["manifest"] == found["manifest"]
    rates = {name: value for name, value in found["scores"]["run"].items() if "ms_" not in name}
    assert rates["flops_per_action"] > 0
    assert rates.items() <= again["scores"]["run"].items()
    assert main([*asked, "--noise", "0.2", "--json", "--no-floors"]) == 0
    noisy = json.loads(capsys.readouterr().out)
    assert noisy["manifest"] == found["manifest"]
    assert main([*asked, "--television", "noise", "--json", "--no-floors"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] != found["manifest"]
    assert main([*asked, "--film", "plans.avi"]) == 1
    assert ".gif or .mp4" in capsys.readouterr().err
    assert main([*asked, "--layout", "random-wall", "--json", "--no-floors"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] != found["manifest"]
    assert main([*asked, "--planner", "cem", "--cost", "sum", "--space", "state", "--history", "2"]) == 0
    shown = capsys.readouterr().out
    for words in ("[", "within 4.5", "within 1.41", "FLOPs", "planner: cem, 10 candidates", "sum of state, history 2"):
        assert words in shown
    assert found["manifest"][:16] in shown


def test_a_cell_of_a_comparison_plans_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"fixed": {"G3": SEARCHED}}})
    monkeypatch.setitem(two_rooms.CONDITIONS, "fixed", BENCH.world)
    monkeypatch.setattr("jepalab.recipes.world_lab.WorldBench", partial(WorldBench, network=BENCH.network))
    compared = ["--preset", "all", "--budget", "1", "--horizon", "7", "--planner", "cem"]
    monkeypatch.setattr("sys.argv", ["jepalab", "compare", "two-rooms", *compared])
    cell = next(cell for cell in two_rooms.plan(QUICK, preset="all", budget=1.0).cells if cell.arm == "G3")
    done = run_cell(cell, 2, out=tmp_path, judging=Judging(instruments=()), budget=Budget(1, "steps"))
    assert done["status"] == "done", done.get("error")
    quick = ["--num-steps", "2", "--horizon", "2", "--num-samples", "30", "--num-iterations", "1", "--no-floors"]
    folder = str(tmp_path / "cells" / "fixed" / "G3" / "seed-2")
    assert main(["plan", folder, "--episodes", "12", *quick, "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert "with a tenth: 10 candidates, 12 and 4 episodes" in shown.err
    assert (found["episodes"], found["planning"]["num_samples"]) == (16, 10)
    assert found["scores"]["seed-2"]["imagined_per_action"] == 10 * 2 / 2
    # Planned as it was judged, but where something else is asked for, which is said.
    assert "not how the comparison planned: num_steps 2, there 200, horizon 2, there 7" in shown.err
    assert "planner" not in shown.err.split("comparison planned")[1]
    assert (found["planning"]["planner"], found["planning"]["num_executed"]) == ("cem", 2)
    assert main(["plan", folder, "--episodes", "2", "--num-steps", "1", "--no-floors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["planning"]["horizon"] == 7
    stored, model = open_world(tmp_path / "cells" / "fixed" / "G3" / "seed-2")
    assert stored.seed == 2
    weights = RunFolder(Path(folder)).latest()
    assert weights is not None
    saved = safetensors.torch.load_file(weights.path / "model.safetensors")
    assert isinstance(model, torch.nn.Module)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in saved.items())
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"fixed": {"J1": SEARCHED}}})
    assert main(["plan", folder]) == 1
    assert "is no cell of what" in capsys.readouterr().err


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
    assert all(len(cell["outcomes"]["ever"]["cross"]) == 2 for cell in done)
    for words in ("Why they plan as they do", "Errors ahead, fixed", "What if?", "Which action was it?"):
        assert words in page
    for words in ("Episode by episode", "Declared rivals on the same episodes", "reach 0.90"):
        assert words in page
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
    pairs = [contrast for contrast in plan.contrasts if isinstance(contrast, Better | Equivalent)]
    assert {"J1", "G1"} <= {arm for contrast in pairs for arm in (contrast.better, contrast.than)}
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
    assert run.first is not None
    assert (run.steps, run.first.steps) == (30, 10)
    with torch.no_grad():
        for parameter in run.first.objective.parameters():
            parameter.add_(1)
    assert run.prepare is not None
    run.prepare()
    found, wanted = run.objective.encoder.state_dict(), run.first.objective.encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert not any(parameter.requires_grad for parameter in run.objective.encoder.parameters())
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
    assert ARMS_OF_LAB["LeWM"].make(BENCH, sigreg=0.3).objective.weights == {"own": 1.0, "sigreg": 0.3}
