"""Experiments with world models: equal compute, further arms and tests, a light that is held, further contrasts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.test_acting import TrueWorld
from tests.test_world_recipes import ARMS, BENCH, QUICK, SEARCHED

from jepalab.backbones.causal_predictor import CausalPredictor
from jepalab.backbones.predictor import ResidualDynamics
from jepalab.backbones.unrolling import FromEvery
from jepalab.compare.cells import Budget, Cell
from jepalab.compare.contrasts import Better, Equivalent
from jepalab.compare.further_contrasts import Exceeds, ManyTimes, Rises, StaysBelow, Widens
from jepalab.compare.world_episodes import num_shared
from jepalab.data.trajectories import TrajectoryStream
from jepalab.envs.scenes import make_two_rooms
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import TwoRooms
from jepalab.recipes import exogenous, noisy_tv, pusht, two_rooms, worlds
from jepalab.recipes.world_arms import ARMS as ARMS_OF_LAB
from jepalab.recipes.world_arms import REWARDED
from jepalab.recipes.world_bench import Rooms, WorldNetwork
from jepalab.recipes.world_films import draw_world
from jepalab.recipes.world_grounds import rooms_ground
from jepalab.recipes.world_judging import ActingSubject, acting, acting_subjects, keep_outcomes, make_floor
from jepalab.recipes.world_lab import Memory, WorldLab, make_equal_compute_run
from jepalab.recipes.world_notes import describe_test
from jepalab.recipes.world_planning import FloorName, frames_read
from jepalab.recipes.world_tests import changes, steps_taken, unseen, with_a_tenth
from jepalab.run import Run
from jepalab.types import Batch, Objective, Space, WorldModel


def test_a_jepa_may_have_a_decoder_loss() -> None:
    objective, batch = worlds.vicreg_world(BENCH, reconstruct=2.0).objective, BENCH.stream().batch(0)
    assert objective.weights["reconstruct"] == 2.0
    loss = objective(batch).terms["reconstruct"]
    loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in objective.encoder.parameters())
    assert "reconstruct" not in worlds.vicreg_world(BENCH).objective.weights
    part = objective.get_submodule("reconstruct")
    part.num_decoded = 99
    decoded = part.get_submodule("decoder")(objective.encoder(batch.x)) * torch.tensor(BENCH.scale()).view(-1, 1, 1)
    wanted = ((decoded - batch.x) / torch.tensor(BENCH.scale()).view(-1, 1, 1)).square().mean()
    torch.testing.assert_close(objective(batch).terms["reconstruct"], wanted)


def test_a_jepa_may_be_told_the_rewards_of_some_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = replace(BENCH, world=replace(BENCH.world, num_walks=100, light="door", flip=0.5))
    plain, run = worlds.vicreg_world(bench), worlds.vicreg_world(bench, rewarded=0.1)
    assert torch.equal(run.stream.batch(3).x, plain.stream.batch(3).x)
    assert "reward" not in plain.objective.weights
    assert isinstance(run.stream, TrajectoryStream)
    per = run.stream.recorded["train"].num_windows(run.stream.num_frames) // 100
    whole = run.stream.recorded["train"].read(per * torch.arange(100), run.stream.num_frames)
    assert whole.factors["is_rewarded"].any(1).nonzero()[:, 0].tolist() == [*range(9, 100, 10)]
    # By hand: 10 pixels are one; the light is on where the upper of two doors is open.
    position, doors, wall = (whole.factors[name] for name in ("position", "doors", "wall"))
    open_door = doors.gather(2, 1 - whole.factors["light"][..., None])
    away = (position - torch.cat([wall, open_door], 2)).norm(dim=2)
    torch.testing.assert_close(whole.factors["reward"], -away / 10)
    # The loss is of those frames alone, and its gradient reaches the encoder.
    head = run.objective.get_submodule("reward")
    told = head.get_submodule("read")(run.objective.encoder(whole.x))[9::10, :, 0]
    loss = run.objective(whole).terms["reward"]
    torch.testing.assert_close(loss, (told - whole.factors["reward"][9::10]).square().mean())
    loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in run.objective.encoder.parameters())
    none = run.stream.recorded["train"].read(torch.tensor([0, 1]), run.stream.num_frames)
    assert run.objective(none).terms["reward"] == 0
    with pytest.raises(ValueError, match="learns from rewards, got clips with position"):
        run.objective(plain.stream.batch(0))
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 2"):
        worlds.vicreg_world(bench, rewarded=2.0)
    # Those arms have J1's settings, and compete where there is a light to tell.
    known = {"conditions": {name: {"J1": SEARCHED} for name in ("flip 0.1", "fixed")}}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: known)
    cells = {cell.arm: cell for cell in exogenous.plan(QUICK, num_seeds=1).cells}
    assert {"J1", *REWARDED} <= {*cells}
    made, like = (cells[arm].make(0) for arm in ("J1+2%", "J1"))
    assert (made.lr, made.weight_decay) == (like.lr, like.weight_decay)
    assert made.objective.weights == {**like.objective.weights, "reward": 1.0}
    assert not {*REWARDED} & {cell.arm for cell in two_rooms.plan(QUICK, preset="all").cells}


def test_who_steps_onto_a_switch_changes_the_light() -> None:
    for name, opens in (("door-switch", True), ("idle-switch", False)):
        light = make_two_rooms(light=name).light
        assert light is not None
        assert (light.opens_a_door, light.changes_when_hit, light.flip) == (opens, True, 0)
    assert {exogenous.CONDITIONS[name].light for name in ("switch", "idle switch")} == {"door-switch", "idle-switch"}


def test_equal_compute_is_as_many_steps_as_the_flops_of_j1_pay_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = partial(make_equal_compute_run, 0, world=Rooms(num_walks=40), settings={})
    j1, g1, g2, chance = (Budget(200).steps(made(arm=arm)) for arm in ("J1", "G1", "G2", "CHANCE"))
    assert (j1, g1, g2, chance) == (200, 200, 200, 0)  # what is asked for, before it is converted
    runs = {arm: made(arm=arm).on_steps(200) for arm in ("J1", "G1", "G2")}
    whole = {arm: run.total(Run.count_flops) for arm, run in runs.items()}
    assert runs["J1"].steps == 200
    assert runs["G1"].steps < 200
    for arm in ("G1", "G2"):
        assert whole[arm] == pytest.approx(whole["J1"], rel=0.05)
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"fixed": {"J1": SEARCHED, "G1": SEARCHED}}})
    plan = two_rooms.plan(QUICK, preset="compute")
    assert {cell.condition for cell in plan.cells} == {"fixed", two_rooms.EQUAL}
    assert {c.condition for c in plan.contrasts if "no difference" in c.name} == {"fixed", two_rooms.EQUAL}
    with pytest.raises(ValueError, match="give it in steps or samples"):
        two_rooms.plan(QUICK, preset="compute", unit="flops", budget=1e12)


def test_doors_seeds_and_lengths_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"conditions": {name: {"J1": SEARCHED} for name in ("fixed", "clean")}, "steps": 123}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: known)
    notes = " ".join(two_rooms.plan(QUICK, preset="walks", budget=77.0).notes)
    assert "9 pixels (narrow door, random wall)" in notes
    assert "13 pixels (fixed, 5,000 walks, 1,000 walks, random door)" in notes
    assert "All models have the same planner: mppi, " in notes
    assert "cost: late of latent" in notes
    assert "trials of 123 steps; here every arm may spend 77 steps" in notes
    assert (
        "for want of tuned settings: J1-A1, J2, J3, G1, G2; `jepalab tune two-rooms --arms J1-A1 J2 J3 G1 G2`" in notes
    )
    known["conditions"]["fixed"]["G3"] = SEARCHED
    notes = " ".join(two_rooms.plan(replace(QUICK, cross_room=200, same_room=100, num_steps=200), preset="all").notes)
    assert "200 episodes into the other room and 100 within one room, 200 steps each" in notes
    assert "are tested on 60 episodes into the other room and 10 within one room, the first of the others'" in notes
    assert "the arm LeWM, which runs in `jepalab compare two-rooms --preset all`" in notes
    known["conditions"]["fixed"]["G1"] = SEARCHED | {"steps": 1_000}
    assert "trials of 123 or 1,000 steps" in " ".join(two_rooms.plan(QUICK).notes)
    few = describe_test(pusht.PLANNING, {"pusht": Rooms()}, ["G3"])
    assert few[0].startswith("50 episodes into the other room and 25 within one room, 50 steps each")
    assert "tested on 50 episodes into the other room and 4 within" in few[-1]
    plans = [two_rooms.plan(QUICK, preset=name) for name in ("main", "walks", "compute", "all")]
    assert [len(plan.seeds) for plan in [*plans, noisy_tv.plan(QUICK)]] == [3, 3, 3, 1, 3]
    assert len(two_rooms.plan(QUICK, preset="all", num_seeds=2).seeds) == 2
    assert Rooms(layout="narrow-door").env().layouts.door_half == 4
    moving = two_rooms.CONDITIONS["random wall"].env().layouts
    assert moving == replace(Rooms(layout="random-wall").env().layouts, door_half=4)
    layouts = Rooms(layout="narrow-door").env().layouts
    upper, lower = layouts.walls(layouts.draw(torch.zeros(1, dtype=torch.int64)))[0, :, [1, 3]].flatten().tolist()[1:3]
    assert lower - upper == 9


def test_every_model_also_plans_with_a_tenth_and_by_pixels_where_it_decodes() -> None:
    found = {}
    for name in ("vicreg_world", "pixel_world", "frame_world"):
        run: Run = ARMS[name](BENCH)
        subject = ActingSubject(run.objective.eval(), rooms_ground(BENCH.world.env()), QUICK, None, 1.0)
        scores = acting(subject)
        found[name] = with_a_tenth(subject)
        if name == "frame_world":  # it plans so anyway
            assert found[name]["tenth_imagined_per_action"] == scores["imagined_per_action"]
            assert found[name]["tenth_ms_per_action"] == scores["ms_per_action"]
    assert {name for name, scores in found.items() if "lost_to_pixel_cost" in scores} == {"pixel_world"}
    assert found["pixel_world"]["pixel_cost_ms_per_action"] > 0


def test_floor_and_ceiling_play_with_a_tenth_too_and_outcomes_are_kept() -> None:
    planning = replace(QUICK, cross_room=70, num_samples=200)
    floors: dict[FloorName, float] = {"random": 0, "oracle": 20 * 3 / 2}
    for name, imagined in floors.items():
        run = make_floor(BENCH, name=name)
        subject = ActingSubject(run.objective, rooms_ground(BENCH.world.env()), planning, None, 1.0)
        acting(subject)
        assert "tenth_outcomes" not in keep_outcomes(run)
        scores = with_a_tenth(subject)
        assert scores["tenth_imagined_per_action"] == imagined
        kept = keep_outcomes(run)
        assert kept["tenth_outcomes"]["episodes"]["cross"] == 60
        assert kept["tenth_outcomes"]["ever"]["cross"].count("1") / 60 == scores["tenth_cross_ever_wide"]
        assert num_shared(kept["outcomes"], kept["tenth_outcomes"], "cross") == 60


def test_models_are_tested_in_pictures_they_never_saw() -> None:
    class Sees(Objective):
        """Finds the dot by its brightest pixel: another colour changes nothing, a screen does."""

        compares: ClassVar[Mapping[str, Space]] = {}

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.weights = BENCH.encoder(), {}

        def terms(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {}

        @classmethod
        def tiny(cls) -> tuple[Objective, Batch]:
            return cls(), BENCH.stream().batch(0)

        def encode(self, x: torch.Tensor, proprio: torch.Tensor | None = None) -> torch.Tensor:
            best = x[:, :, 0].flatten(2).argmax(-1)
            return torch.stack([best % 65, best // 65], -1).float()

        def rollout(self, z: torch.Tensor, past: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return TrueWorld().rollout(z, past, action)

    planning = replace(QUICK, cross_room=12, same_room=0, num_steps=60, horizon=8, num_samples=60, num_iterations=3)
    env = Rooms().env()
    found = unseen(ActingSubject(Sees(), rooms_ground(env), planning, None, 1.0))
    assert {*found} == {"lost_to_noise", "lost_to_colour", "lost_to_screen"}
    assert found["lost_to_colour"] == 0
    assert found["lost_to_screen"] > 0
    start, _ = env.random_pairs(2, torch.Generator().manual_seed(0))
    seen = {name: changed.render(start) for name, changed in changes(env).items() if name != "screen"}
    torch.testing.assert_close(seen["colour"][:, 0] * 2, env.render(start)[:, 0])
    assert float((seen["noise"] - env.render(start)).std()) > 0.01
    watched = changes(Rooms(television="noise", screen_share=0.25).env())["screen"]
    assert isinstance(watched, TwoRooms)
    assert watched.television == Television.showing("episode", share=0.25)


@pytest.mark.parametrize("space", ["state", "pixels"])
def test_no_cell_is_lost_by_what_plans_compare(space: Any, tmp_path: Path) -> None:
    """The whole judging of a comparison, of a model that does not draw; what asks for pixels of it is left out."""
    run, planning = worlds.vicreg_world(BENCH), replace(QUICK, space=space)
    (subject,) = acting_subjects(run.objective, run.stream, planning=planning, share=0.1).values()
    subject = replace(subject, share=1.0)
    found = acting(subject) | with_a_tenth(subject) | unseen(subject) | steps_taken(subject)
    assert "tenth_cross_ever_wide" in found
    is_read = space == "state"
    assert ("cross_ever_wide" in found, "lost_to_noise" in found, "cross_mean_steps" in found) == (is_read,) * 3
    if not is_read:
        draw_world(Cell("J1", "fixed", lambda seed: run), run, tmp_path, seed=0, planning=planning)
        assert not [*tmp_path.iterdir()]


def test_no_plan_gives_a_model_more_frames_than_it_was_trained_on() -> None:
    env, asked = BENCH.world.env(), replace(QUICK, history=2)
    for dynamics, trained, is_refused in (("causal", 1, True), ("causal", 2, False), ("residual", 1, False)):
        training = replace(BENCH.training, history=trained)
        bench = replace(BENCH, training=training, network=replace(BENCH.network, dynamics=dynamics))
        assert bench.unroll() == FromEvery(BENCH.training.ahead, history=trained)
        for make in (worlds.vicreg_world, worlds.pixel_world):
            model: object = make(bench).objective.eval()
            assert isinstance(model, WorldModel)
            assert model.encode(BENCH.stream().batch(0).x).shape[1] == BENCH.training.num_frames
            if is_refused:
                with pytest.raises(ValueError, match="plan with --history 1, or train it with --history 2"):
                    asked.agent(model, env)
            else:
                asked.agent(model, env)
        frames: object = worlds.frame_world(bench).objective
        assert isinstance(frames, WorldModel)
        asked.agent(frames, env)  # it sees one frame at a time, whatever it is given
    asked.agent(TrueWorld(), env)


def test_steps_are_counted_to_the_end_where_nobody_arrives() -> None:
    run = make_floor(BENCH, name="random")
    subject = ActingSubject(run.objective, rooms_ground(BENCH.world.env()), QUICK, None, 1.0)
    assert steps_taken(subject)["cross_mean_steps"] == QUICK.num_steps


def test_a_light_may_be_held() -> None:
    env = Rooms(light="door", flip=0.5, hold=4).env()
    state = env.reset(200, torch.Generator().manual_seed(0))
    on = []
    for _ in range(13):
        assert state.is_on is not None
        on.append(state.is_on)
        state = env.step(state, torch.zeros(200, 2))
    changed = (torch.stack(on)[1:] != torch.stack(on)[:-1]).float().mean(1)
    held = [i for i in range(12) if (i + 1) % 4]
    assert float(changed[held].max()) == 0
    assert all(0.35 < float(changed[i]) < 0.65 for i in range(12) if i not in held)


def test_narrow_embeddings_are_a_condition() -> None:
    run = exogenous.LAB._maker("flip 0.5, narrow", "J1", {}, Memory("residual", 1))(0)
    assert run.objective.encoder.dim == exogenous.NARROW.dim < WorldNetwork().dim


def cell(arm: str, condition: str, seed: int, value: float) -> dict[str, object]:
    return {"arm": arm, "condition": condition, "seed": seed, "status": "done", "metrics": {"score": value}}


def test_a_lead_that_grows_is_told_from_one_that_stays() -> None:
    said = {"better": "A", "than": "B", "metric": "score", "because": "", "source": ""}
    widens = Widens("grows", condition="hard", milder="easy", **said)
    for growth, verdict in ((0.3, "held"), (-0.3, "refuted"), (0.0, "not shown")):
        cells = [
            cell(arm, place, seed, 0.5 + 0.01 * seed * ((arm == "A") + (place == "hard")) + lead * (arm == "A"))
            for seed in range(5)
            for place, lead in (("easy", 0.1), ("hard", 0.1 + growth + 0.002 * (-1) ** seed))
            for arm in ("A", "B")
        ]
        found = widens.judge(cells)
        assert found.verdict == verdict
        assert found.difference == pytest.approx(growth, abs=0.01)
        assert widens.judge(cells[1:]).note == "1 of 5 seeds lack one of the four cells"
    assert math.isnan(widens.judge(cells[:3]).difference)
    with pytest.raises(ValueError, match="two different conditions"):
        Widens("none", condition="easy", milder="easy", **said)


def test_a_loss_is_held_against_nothing() -> None:
    exceeds = Exceeds("falls", arm="A", metric="score", condition="hard", because="", source="", threshold=0.1)
    for value, verdict in ((0.3, "held"), (0.0, "refuted"), (0.1, "not shown")):
        cells = [cell("A", "hard", seed, value + 0.01 * (-1) ** seed) for seed in range(6)]
        found = exceeds.judge([*cells, cell("A", "easy", 0, 9.0), cell("B", "hard", 0, 9.0)])
        assert (found.verdict, found.num_seeds) == (verdict, 6)
        assert found.difference == pytest.approx(value - 0.1)


def test_a_metric_is_held_against_a_number_from_above_another_condition_and_many_times() -> None:
    said = {"metric": "score", "because": "", "source": ""}
    below = StaysBelow("low", arm="A", condition="hard", threshold=0.9, **said)
    rises = Rises("rises", arm="A", condition="hard", other="easy", **said)
    times = ManyTimes("dear", more="A", than="B", condition="hard", times=5.0, **said)
    for value, verdicts in ((0.6, ("held", "refuted", "not shown")), (1.2, ("refuted", "held", "held"))):
        cells = [
            cell(arm, place, seed, mean * (1 + 0.02 * (-1) ** seed + 0.001 * seed * (place == "hard")))
            for seed in range(6)
            for arm, place, mean in (("A", "hard", value), ("A", "easy", 0.9), ("B", "hard", 0.12))
        ]
        found = [contrast.judge(cells) for contrast in (below, rises, times)]
        assert tuple(each.verdict for each in found) == verdicts
        wanted = (0.9 - value, value - 0.9, value / 0.12)
        assert [each.difference for each in found] == pytest.approx(wanted, rel=0.03)
        cells[0]["status"] = "failed"
        assert [contrast.judge(cells).note for contrast in (below, rises, times)] == [
            "1 of 6 seeds missing",
            "1 of 6 seeds lack one of the two cells",
            "the difference is a ratio; 1 of 6 pairs missing",
        ]
    with pytest.raises(ValueError, match="two different conditions"):
        replace(rises, other="hard")
    with pytest.raises(ValueError, match="two different arms"):
        replace(times, than="A")


def test_what_noisy_tv_declares_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm of a contrast competes, and the inverse-dynamics contrast is between J1 with them and without."""
    known = {"conditions": {name: dict.fromkeys(noisy_tv.ARMS_HERE, SEARCHED) for name in noisy_tv.CONDITIONS}}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: known)
    plan = noisy_tv.plan(QUICK, preset="full")
    competing = {(arm, name) for arm in noisy_tv.ARMS_HERE for name in noisy_tv.CONDITIONS}
    declared, explored = noisy_tv.declare(competing), noisy_tv.explore(competing)
    assert [c.name for c in plan.contrasts] == [c.name for c in declared]
    assert [c.name for c in plan.exploratory] == [c.name for c in explored]
    assert len({c.name for c in [*declared, *explored]}) == len([*declared, *explored])
    assert (len(declared), len(explored)) == (10, 8)
    assert {type(c).__name__ for c in declared} == {"Better", "Equivalent", "Widens", "Rises", "ManyTimes"}
    # Noise is held against the arms that differ in what they predict alone.
    of_noise = [c for c in declared if "25 %" in c.condition or (c.condition == "noise 10 %" and isinstance(c, Better))]
    assert len(of_noise) == 3
    assert {(c.better, c.than) for c in of_noise if isinstance(c, Better | Widens)} == {("J1-A1", "G1")}
    without = next(cell for cell in plan.cells if (cell.arm, cell.condition) == ("J1-A1", "episode"))
    assert "inverse" not in without.make(0).objective.weights
    assert "inverse" in next(cell for cell in plan.cells if cell.arm == "J1").make(0).objective.weights
    demo = noisy_tv.plan(QUICK)
    assert [c.condition for c in demo.contrasts if isinstance(c, Widens | Rises)] == ["noise 10 %"] * 2


@pytest.mark.parametrize("experiment", [two_rooms, exogenous])
def test_what_is_declared_can_be_measured_and_has_names_of_its_own(
    experiment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"conditions": {name: dict.fromkeys(ARMS_OF_LAB, SEARCHED) for name in experiment.CONDITIONS}}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: known)
    competing = {(arm, name) for arm in ARMS_OF_LAB for name in experiment.CONDITIONS}
    everything = {c.name for c in [*experiment.declare(competing), *experiment.explore(competing)]}
    presets = ("demo", "full") if experiment is exogenous else ("main", "all", "walks", "compute")
    plans = [experiment.plan(QUICK, preset=preset) for preset in presets]
    assert everything == {c.name for plan in plans for c in [*plan.contrasts, *plan.exploratory]}
    assert len(everything) == len([*experiment.declare(competing), *experiment.explore(competing)])
    for plan in plans:
        assert plan.contrasts, "a preset has something to show"
    if experiment is two_rooms:
        assert [c.name for c in plans[0].contrasts if isinstance(c, Equivalent) and c.better == "J1-A1"] == [
            "Clean rooms: no difference between embeddings without inverse dynamics and pixels"
        ]


def test_controls_have_the_settings_of_what_they_control_but_for_the_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    lrs = {"J1": 1e-3, "G1": 2e-3}
    tuned = {arm: {"settings": {"lr": lr, "weight_decay": 1e-4, "slowness": 7.0}} for arm, lr in lrs.items()}
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"flip 0.1": tuned}})
    cells = {cell.arm: cell for cell in exogenous.plan(QUICK, num_seeds=1).cells if cell.condition == "flip 0"}
    for arm, like in (("J1-S", "J1"), ("G1-S", "G1"), ("J1+2%", "J1")):
        made, model = (cells[name].make(0) for name in (arm, like))
        assert (made.lr, made.weight_decay) == (lrs[like], 1e-4)
        assert model.objective.weights["slowness"] == 7.0
        assert made.objective.weights.get("slowness") == (7.0 if arm == "J1+2%" else None)
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"flip 0.1": {"J1": tuned["J1"]}}})
    assert {"J1-S", "G1-S"} & {cell.arm for cell in exogenous.plan(QUICK, num_seeds=1).cells} == {"J1-S"}


def test_all_arms_of_a_comparison_have_the_dynamics_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"fixed": {"J1": SEARCHED, "G1": SEARCHED}}})
    monkeypatch.setitem(two_rooms.CONDITIONS, "fixed", BENCH.world)
    usual, causal = (two_rooms.plan(replace(QUICK, history=2), dynamics=name) for name in ("residual", "causal"))
    for plan, kind, frames in ((usual, ResidualDynamics, None), (causal, CausalPredictor, 2)):
        for cell in plan.cells:
            objective = cell.make(0).objective
            if hasattr(objective, "unroll"):
                assert isinstance(objective.get_submodule("predictor"), kind)
                assert isinstance(objective, WorldModel)
                assert frames_read(objective) == frames
    assert "network" not in usual.cells[0].make.keywords  # cells recorded without this choice stay what they are
    assert any("dynamics are 'causal'" in note for note in causal.notes)
    assert not any("dynamics are" in note for note in usual.notes)
