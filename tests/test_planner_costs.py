"""Costs to plan with, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jepalab.planners.cem import CEM
from jepalab.planners.costs import (
    Discounted,
    Late,
    OverTime,
    at_the_end,
    constraint,
    control_penalty,
    distance_to,
    read_out,
    summed,
    total,
)
from jepalab.planners.planner import Bounds

ACTION = torch.tensor([[[[1.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [-1.0, 1.0]]]])  # one environment, two candidates


def walk(action: Tensor) -> Tensor:
    """Positions, each action a step."""
    return action.cumsum(2)


@pytest.mark.parametrize(
    ("over_time", "wanted"),
    [(at_the_end, [0.5, 4.5]), (summed, [1.5, 7.0]), (Discounted(0.5), [1.25, 4.75]), (Discounted(2.0), [2.0, 11.5])],
)
def test_distances_over_time(over_time: OverTime, wanted: list[float]) -> None:
    # The goal is (2, 1): squared distances, mean over 2, of (1, 0), (2, 2) are 1, .5; of (0, 0), (-1, 1) 2.5, 4.5.
    goal = torch.tensor([[2.0, 1.0]])
    assert distance_to(goal, walk, over_time=over_time)(ACTION).tolist() == [wanted]


def test_distance_does_not_grow_with_the_width() -> None:
    goal = torch.tensor([[2.0, 1.0]])
    wide = distance_to(goal.repeat(1, 8), lambda action: walk(action).repeat(1, 1, 1, 8))
    torch.testing.assert_close(wide(ACTION), distance_to(goal, walk)(ACTION))


def test_each_environment_has_its_own_goal() -> None:
    goal = torch.tensor([[2.0, 2.0], [-1.0, 1.0]])
    cost = distance_to(goal, walk)(ACTION.repeat(2, 1, 1, 1))
    assert (cost == 0).tolist() == [[True, False], [False, True]]


def test_a_cost_reads_what_a_probe_reads() -> None:
    def height(z: Tensor) -> Tensor:
        return z[..., 1:]

    cost = distance_to(torch.tensor([[2.0]]), read_out(walk, height))
    assert cost(ACTION).tolist() == [[0.0, 1.0]]


def test_half_precision_is_compared_in_float32() -> None:
    goal = torch.full((1, 2), 256.0, dtype=torch.bfloat16)
    cost = distance_to(goal, lambda action: torch.full((1, 2, 2, 2), 257.0))
    assert cost(ACTION).dtype == torch.float32
    assert cost(ACTION).tolist() == [[1.0, 1.0]]


def test_penalty_constraint_and_total() -> None:
    penalty = control_penalty(0.5)
    assert penalty(ACTION).tolist() == [[3.0, 1.0]]
    ceiling = constraint(lambda action: walk(action)[..., 1].amax(2) - 1.5, weight=10.0)
    assert ceiling(ACTION).tolist() == [[5.0, 0.0]]
    assert total(penalty, ceiling)(ACTION).tolist() == [[8.0, 1.0]]


def test_a_constraint_is_kept_where_the_weight_is_large(generator: torch.Generator) -> None:
    bounds = Bounds(torch.full((2,), -1.0), torch.full((2,), 1.0))
    reach = distance_to(torch.tensor([[2.0, 2.0]]), walk)
    ceiling = constraint(lambda action: walk(action)[..., 1].amax(2) - 1.0, weight=100.0)
    planned = CEM()(total(reach, ceiling, control_penalty(1e-4)), torch.zeros(1, 4, 2), bounds, generator)
    end = walk(planned.action[:, None])[0, 0, -1]
    torch.testing.assert_close(end, torch.tensor([2.0, 1.0]), atol=0.1, rtol=0)


def test_a_goal_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"goal \[e d\] for each of 1 environments .* got a goal \(2, 2\)"):
        distance_to(torch.zeros(2, 2), walk)(ACTION)
    with pytest.raises(ValueError, match=r"of \(1, 2, 2, 3\), got a goal \(1, 3\) and \(1, 2, 2, 2\)"):
        distance_to(torch.zeros(1, 3), walk)(ACTION)
    with pytest.raises(ValueError, match=r"keep h steps"):
        distance_to(torch.zeros(1, 2), lambda action: walk(action)[:, :, 1:])(ACTION)


def test_parts_that_cannot_be_are_an_error() -> None:
    with pytest.raises(ValueError, match="one cost or more"):
        total()
    with pytest.raises(ValueError, match="rate above 0"):
        Discounted(0.0)
    with pytest.raises(ValueError, match="weight above 0"):
        constraint(lambda action: action.sum((2, 3)), weight=0.0)
    with pytest.raises(ValueError, match=r"costs \[e s\] of \(1, 2\) to add up, got \[\(1, 2\), \(1,\)\]"):
        total(control_penalty(1.0), lambda action: action.sum((1, 2, 3)))(ACTION)


def test_late_distances_decide_and_earlier_ones_break_ties() -> None:
    """By hand: weights 1/16, 1/4, 1 at rate 4, over their sum; a constant distance is its own mean."""
    late = Late(4.0)
    assert float(late(torch.tensor([[[8.0, 4.0, 1.0]]]))) == pytest.approx((8 / 16 + 4 / 4 + 1) / (1 + 1 / 4 + 1 / 16))
    assert float(late(torch.full((1, 1, 12), 0.3))) == pytest.approx(0.3)
    early, at_last, astray = [9.0, 1.0, 1.0], [9.0, 9.0, 1.0], [1.0, 1.0, 4.0]
    costs = Late()(torch.tensor([[early, at_last, astray]]))[0]
    assert costs.argsort().tolist() == [0, 1, 2]
    assert (summed(torch.tensor([[early, at_last, astray]]))[0]).argmin() == 2
    with pytest.raises(ValueError, match="rate above 1"):
        Late(1.0)
