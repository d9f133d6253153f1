"""Acting by planning: an exact world model arrives, chance does not, the simulator crosses; and nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from jepalab.envs.two_rooms import EB_JEPA_RADIUS, PLDM_RADIUS, TwoRooms
from jepalab.instruments.acting import Imagination, PlanningAgent, RandomAgent, Simulation, play
from jepalab.instruments.manifests import Manifest, draw_manifest
from jepalab.instruments.planning import Trial, diagnose_searches, steps_to_success, success
from jepalab.planners.cem import CEM
from jepalab.planners.costs import summed
from jepalab.planners.gradient import Gradient
from jepalab.planners.mppi import MPPI

ENV = TwoRooms()
PAIRS = {
    "same-room": partial(ENV.random_pairs, rooms="same"),
    "cross-room": partial(ENV.random_pairs, rooms="different"),
}
RADII = {"wide": EB_JEPA_RADIUS, "tight": PLDM_RADIUS}
QUICK = MPPI(num_samples=48, num_elites=8, num_iterations=3, std=1.0, max_std=2.0)


class TrueWorld:
    """Reads the dot's position off the picture and adds the actions: exact wherever no wall is near."""

    def __init__(self) -> None:
        self.histories: list[tuple[int, int]] = []

    def encode(self, x: Tensor, proprio: Tensor | None = None) -> Tensor:
        dot = x[:, :, 0] / x[:, :, 0].sum((-1, -2), keepdim=True)
        place = torch.arange(x.shape[-1], dtype=x.dtype)
        return torch.stack([(dot.sum(-2) * place).sum(-1), (dot.sum(-1) * place).sum(-1)], -1)

    def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
        self.histories.append((z.shape[1], past.shape[1]))
        each = action.unflatten(-1, (-1, 2)).sum(-2)
        return z[:, -1, None, None] + each.cumsum(2)


def manifest(**num: int) -> Manifest:
    counts = {name.replace("_", "-"): count for name, count in num.items()}
    return draw_manifest(ENV, PAIRS, num=counts, seed=3, radius=EB_JEPA_RADIUS)


def trial(num_steps: int = 60, **num: int) -> Trial:
    return Trial(ENV, manifest(**num), RADII, num_steps=num_steps)


def test_an_exact_world_model_arrives_in_its_room_and_chance_does_not() -> None:
    test = trial(same_room=40)
    agent = PlanningAgent(Imagination(TrueWorld()), QUICK, horizon=5)
    found = success(test, test.play(agent))
    assert found["same-room_ever_wide"] > 0.9
    assert found["same-room_end_wide"] > 0.9
    floor = success(test, test.play(RandomAgent()))
    assert floor["same-room_ever_wide"] < found["same-room_ever_wide"] - 0.3
    assert found["imagined_per_action"] == 48 * 5 * 3
    assert found["calls_per_action"] == 3
    assert floor["imagined_per_action"] == 0


def test_the_environment_itself_is_the_ceiling() -> None:
    test = trial(80, cross_room=8)
    found = success(test, test.play(PlanningAgent(Simulation(), QUICK, horizon=6)))
    assert found["cross-room_ever_wide"] == 1.0
    assert 0 < found["cross-room_steps_wide"] < 80


def test_what_one_does_does_not_depend_on_the_others() -> None:
    test = trial(6, same_room=5)
    agent = PlanningAgent(Imagination(TrueWorld()), QUICK, horizon=5, num_executed=2)
    together = test.play(agent)
    alone = replace(test, manifest=replace(test.manifest, start=test.manifest.start[:1], goal=test.manifest.goal[:1]))
    torch.testing.assert_close(alone.play(agent).actions[0], together.actions[0])


@pytest.mark.parametrize(("frameskip", "history", "num_executed"), [(1, 3, 1), (2, 2, 2), (3, 1, 1)])
def test_blocks_and_history_are_what_the_model_was_promised(frameskip: int, history: int, num_executed: int) -> None:
    test, model = trial(12, same_room=4), TrueWorld()
    foresight = Imagination(model, history=history, frameskip=frameskip)
    agent = PlanningAgent(foresight, replace(QUICK, num_iterations=1), horizon=4, num_executed=num_executed)
    played = test.play(agent)
    blocks = [i * num_executed for i in range(len(played.effort.searches))]
    assert len(blocks) == -(-12 // (frameskip * num_executed))
    assert model.histories == [(min(block + 1, history), min(block, history - 1)) for block in blocks]
    assert float(played.actions.norm(dim=-1).max()) <= ENV.max_norm + 1e-5


def test_longest_action_that_is_considered() -> None:
    test = trial(8, same_room=4)
    agent = PlanningAgent(Imagination(TrueWorld(), over_time=summed), QUICK, horizon=4, max_norm=0.5)
    norms = test.play(agent).actions.norm(dim=-1)
    assert 0.4 < float(norms.max()) <= 0.5 + 1e-6


def test_a_read_out_is_compared_in_place_of_the_embedding() -> None:
    test = trial(30, same_room=10)
    foresight = Imagination(TrueWorld(), read=lambda z: z[..., :1])
    played = test.play(PlanningAgent(foresight, QUICK, horizon=5))
    gap = (played.states[-1].position - test.manifest.goal.position).abs()
    assert float(gap[:, 0].median()) < 2 < float(gap[:, 1].median())


def test_manifests_are_fixed_and_told_apart() -> None:
    one, again, other = manifest(same_room=5, cross_room=3), manifest(same_room=5, cross_room=3), manifest(same_room=6)
    assert one.digest == again.digest != other.digest
    assert len(one) == 8
    assert ENV.same_room(one.start, one.goal).tolist() == one.rows("same-room").tolist()
    moved = replace(one, start=replace(one.start, position=one.start.position + 1e-3))
    assert moved.digest != one.digest
    for radius in RADII.values():
        assert not ENV.success(one.start, one.goal, radius=radius).any()


def test_solved_pairs_and_empty_tests_are_refused() -> None:
    def solved(num: int, generator: torch.Generator) -> tuple:
        start, _ = ENV.random_pairs(num, generator)
        return start, start

    with pytest.raises(ValueError, match=r"3 of 3 pairs \(same\) are solved at the start"):
        draw_manifest(ENV, {"same": solved}, num={"same": 3}, seed=0, radius=1.0)
    with pytest.raises(ValueError, match="needs episodes"):
        draw_manifest(ENV, {"same": solved}, num={"same": 0}, seed=0, radius=1.0)


def test_success_tells_ever_from_the_end() -> None:
    test = trial(2, same_room=4)
    within = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]]).bool()
    played = play(
        ENV,
        test.manifest.start,
        test.manifest.goal,
        RandomAgent(),
        num_steps=2,
        radii=[*RADII.values()],
        generator=torch.Generator(),
    )
    found = success(test, replace(played, within=dict.fromkeys(RADII.values(), within)))
    assert found["same-room_ever_wide"] == 0.75
    assert found["same-room_end_wide"] == 0.5
    assert found["same-room_steps_wide"] == 1.0
    assert steps_to_success(within).tolist() == [1, 2, 1, torch.inf]


def test_searches_are_diagnosed() -> None:
    test = trial(4, same_room=4)
    agent = PlanningAgent(Imagination(TrueWorld()), CEM(64, num_elites=8, num_iterations=4), horizon=4)
    found = diagnose_searches(test.play(agent))
    assert 0 < found["search_gain"] < 1
    assert found["search_spread"] > 0
    assert diagnose_searches(test.play(RandomAgent())) == {}


def test_an_agent_executes_no_more_than_it_plans() -> None:
    with pytest.raises(ValueError, match="from 1 to all 3 actions"):
        PlanningAgent(Simulation(), QUICK, horizon=3, num_executed=4)


def test_environments_that_are_judged_in_parts_are_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    test = trial(4, same_room=5)
    agent = PlanningAgent(Imagination(TrueWorld()), QUICK, horizon=5, num_executed=2)
    together = test.play(agent)
    monkeypatch.setattr("jepalab.instruments.acting.AT_ONCE", 48 * 5 * 2 * 2)  # two environments at a time
    parts = test.play(agent)
    torch.testing.assert_close(parts.actions, together.actions)
    assert parts.effort.imagined_steps == together.effort.imagined_steps
    assert parts.effort.model_calls == together.effort.model_calls


def test_searches_say_when_they_were_made() -> None:
    played = trial(7, same_room=2).play(PlanningAgent(Imagination(TrueWorld()), QUICK, horizon=5, num_executed=3))
    assert played.effort.searched_at == [0, 3, 6]


def test_chance_does_not_depend_on_the_others_and_is_no_faster_than_asked_for() -> None:
    test = trial(5, same_room=6)
    together = test.play(RandomAgent(1.0))
    few = replace(test, manifest=replace(test.manifest, start=test.manifest.start[:2], goal=test.manifest.goal[:2]))
    assert torch.equal(few.play(RandomAgent(1.0)).actions, together.actions[:2])
    assert float(together.actions.norm(dim=-1).max()) <= 1 + 1e-6


@pytest.mark.parametrize(("history", "num_executed"), [(1, 1), (3, 2)])
def test_flops_of_an_action_are_those_of_looking_and_of_every_rollout(history: int, num_executed: int) -> None:
    class Multiplies(TrueWorld):
        def encode(self, x: Tensor, proprio: Tensor | None = None) -> Tensor:
            return super().encode(x) @ torch.eye(2)

        def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
            return super().rollout(z @ torch.eye(2), past, action @ torch.eye(2))

    test = trial(8, same_room=5)
    agent = PlanningAgent(Imagination(Multiplies(), history=history), QUICK, horizon=4, num_executed=num_executed)
    played = test.play(agent)
    searches = 8 // num_executed
    product = 2 * 2 * 2  # of a row with a matrix of 2 x 2
    looks = 5 * (1 + (searches if history == 1 else 8))  # at the goal, and at each search or each step
    rows = looks + sum(5 * 3 * (min(1 + i * num_executed, history) + 48 * 4) for i in range(searches))
    assert success(test, played)["flops_per_action"] == rows * product / (5 * 8)
    assert success(test, test.play(RandomAgent()))["flops_per_action"] == 0


def test_flops_of_a_planner_that_follows_gradients_include_the_way_back() -> None:
    class Multiplies(TrueWorld):
        def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
            return super().rollout(z, past, action @ torch.eye(2))

    test = trial(2, same_room=3)
    flops = [
        test.play(PlanningAgent(Imagination(Multiplies()), planner, horizon=4)).effort.flops
        for planner in (Gradient(8, num_iterations=2), replace(QUICK, num_samples=8, num_iterations=2))
    ]
    assert flops[0] == 2 * flops[1]
