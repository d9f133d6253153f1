"""Instruments of world models, on models whose answers are known: exact ones, deaf ones, and stale ones."""

from __future__ import annotations

from functools import cache

import pytest
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
    assert exact["action_error"] < 0.45  # cells of the grid are 0.35 pixels wide
    assert deaf["action_error"] > exact["action_error_chance"]


def test_surprised_by_a_jump_and_not_by_a_dimmer_picture() -> None:
    found = teleport_surprise(subject())
    assert found["teleport_auroc"] > 0.95
    assert found["dimmed_auroc"] == pytest.approx(0.5, abs=0.05)  # the dot's middle does not move


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
