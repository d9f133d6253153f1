"""Instruments of world models, on models whose answers are known: exact ones, deaf ones, and stale ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.test_acting import TrueWorld
from torch import Tensor

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import ResidualDynamics
from jepalab.backbones.teachers import OwnTeacher
from jepalab.instruments.imagining import (
    WorldSubject,
    energy_landscape,
    geodesics,
    imagination,
    input_statistics,
    teleport_surprise,
    world_state,
    world_subject,
)
from jepalab.instruments.ranks import spearman
from jepalab.losses.regularisers import Slowness
from jepalab.objectives.jepa_world import JEPAWorld
from jepalab.recipes.world_bench import Rooms, WorldBench, WorldTraining

BENCH = WorldBench(world=Rooms(num_walks=60), training=WorldTraining(num_frames=5, ahead=2))
ENV = BENCH.world.env()


class DeafWorld(TrueWorld):
    """Sees where the dot is and believes that nothing changes."""

    def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
        return z[:, -1, None, None].expand(-1, *action.shape[1:3], -1)


@cache
def subject(model: type[TrueWorld] = TrueWorld) -> WorldSubject:
    return world_subject(model(), ENV, BENCH.stream(), share=0.2)


def test_an_exact_model_imagines_what_comes_and_needs_the_actions() -> None:
    found = imagination(subject())
    assert found["ahead_4"] < 0.3  # it knows nothing of walls
    assert found["ahead_4_r2"] > 0.95
    assert found["ahead_1_px"] < 0.5
    assert found["ahead_4_px_shuffled"] > found["ahead_4_px_persistence"] > 4 * found["ahead_4_px"]
    assert found["ahead_4_px_still"] == pytest.approx(found["ahead_4_px_persistence"])
    assert found["ahead_4_shuffled"] > 1.0
    assert found["ahead_4_still"] == pytest.approx(1.0)


def test_a_deaf_model_is_persistence() -> None:
    found = imagination(subject(DeafWorld))
    for k in (1, 2, 4):
        assert found[f"ahead_{k}"] == found[f"ahead_{k}_shuffled"] == pytest.approx(1.0)


def test_position_is_read_where_it_is() -> None:
    found = world_state(subject())
    assert found["position_r2"] > 0.99
    assert found["position_r"] > 0.99
    assert found["position_mlp_r2"] > 0.99
    assert -1 <= found["straightness"] <= 1


def test_straight_lines_are_not_ways() -> None:
    found = geodesics(subject())
    assert found["euclidean_rank"] > 0.99
    assert found["geodesic_rank"] < found["euclidean_rank"]


def test_the_least_energy_is_at_the_action_that_was_taken() -> None:
    exact, deaf = energy_landscape(subject()), energy_landscape(subject(DeafWorld))
    assert exact["action_error"] < 0.2  # cells of the grid are 0.26 pixels wide
    assert deaf["action_error"] > exact["action_error_chance"]


def test_only_steps_that_were_free_and_known_are_told() -> None:
    """Of a blocked step, and of actions that no walk had, the least energy says nothing."""
    known = subject()
    batch = known.clips["test"]
    assert batch.action is not None
    stopped = ENV.is_blocked(known.states[:: batch.x.shape[1]], batch.action[:, 0])
    moved = batch.factors["position"][:, 1] - batch.factors["position"][:, 0]
    torch.testing.assert_close(moved[~stopped], batch.action[~stopped, 0], atol=1e-3, rtol=0)
    assert 0 < int(stopped.sum()) < len(stopped)
    asked: list[Tensor] = []

    class Asked(TrueWorld):
        def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
            asked.append(action)
            return super().rollout(z, past, action)

    found = energy_landscape(replace(known, model=Asked()))
    assert sum(map(len, asked)) == int((~stopped).sum())
    assert float(torch.cat(asked).norm(dim=-1).max()) <= 1.8 + 1e-5
    assert found["action_error_chance"] == pytest.approx(float(batch.action[~stopped, 0].norm(dim=1).mean()))


def test_surprised_by_a_jump_and_not_by_another_colour() -> None:
    found = teleport_surprise(subject())
    assert found["teleport_auroc"] > 0.95
    assert found["recoloured_auroc"] == pytest.approx(0.5, abs=0.05)  # the dot's middle does not move


@pytest.mark.parametrize("changed", [True, False])
def test_what_jumps_and_what_is_recoloured_is_the_dot_alone(changed: bool) -> None:
    """A model that sees all but the dot is surprised by neither, whatever rooms and screens the clips have."""

    class Elsewhere(TrueWorld):
        def encode(self, x: Tensor, proprio: Tensor | None = None) -> Tensor:
            screen = torch.nn.functional.avg_pool2d(x[:, :, 0, 40:60, 40:60], 10).flatten(2)
            return torch.cat([x[:, :, 1].mean(-2), screen if changed else screen[..., :0]], -1)

        def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
            return z[:, -1, None, None].expand(-1, *action.shape[1:3], -1)

    world = Rooms(num_walks=60, layout="random-wall", television="episode" if changed else "none", screen_share=0.25)
    bench = replace(BENCH, world=world)
    found = teleport_surprise(world_subject(Elsewhere(), world.env(), bench.stream(), share=0.2))
    assert found["teleport_auroc"] == pytest.approx(0.5, abs=0.1)
    assert found["recoloured_auroc"] == pytest.approx(0.5, abs=0.1)


def test_ranks_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    for levels in (4, 1_000_000):
        a, b = (torch.randint(levels, (200,), generator=generator).float() for _ in range(2))
        assert spearman(a, a + b) == pytest.approx(stats.spearmanr(a.numpy(), (a + b).numpy()).statistic)


def test_stale_normalisation_is_noticed() -> None:
    assert input_statistics(subject()) == {}  # it does not say how it normalises
    fresh, stale = BENCH.encoder(), ConvEncoder(65, channels=2, dim=8, mean=[0.2, 0.1], std=[0.3, 0.3])
    found = {}
    for name, encoder in (("fresh", fresh), ("stale", stale)):
        world = JEPAWorld(
            encoder,
            predictor=ResidualDynamics(encoder.dim, num_actions=2, width=8),
            teacher=OwnTeacher(),
            regularisers=[Slowness()],
        )
        found[name] = input_statistics(world_subject(world, ENV, BENCH.stream(), share=0.2))
    assert found["fresh"]["input_mean_off"] < 0.1
    assert found["fresh"]["input_std_off"] < 0.1
    assert found["stale"]["input_mean_off"] > 0.5
    assert found["stale"]["input_std_off"] > 1.0
