"""Planners against costs whose minimum is known, each planner found by looking; CEM against two other loops."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import pkgutil
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from jepalab import planners
from jepalab.planners.cem import CEM
from jepalab.planners.costs import distance_to
from jepalab.planners.gradient import Gradient
from jepalab.planners.icem import ICEM, coloured
from jepalab.planners.mppi import MPPI
from jepalab.planners.planner import Bounds, Cost, Planned, Planner


def find_planners() -> dict[str, type]:
    """Every class in the folder whose call answers with a plan, but for the protocol."""
    modules = [
        importlib.import_module(f"{planners.__name__}.{m.name}") for m in pkgutil.iter_modules(planners.__path__)
    ]
    classes = [c for m in modules for c in vars(m).values() if inspect.isclass(c) and c.__module__ == m.__name__]
    return {
        c.__name__: c
        for c in classes
        if c is not Planner and inspect.isfunction(vars(c).get("__call__")) and plans(vars(c)["__call__"])
    }


def plans(call: Callable[..., Any]) -> bool:
    return inspect.signature(call).return_annotation in (Planned, "Planned")


PLANNERS = find_planners()
every_planner = pytest.mark.parametrize("planner", [c() for c in PLANNERS.values()], ids=list(PLANNERS))
ITERATIVE = {name: c for name, c in PLANNERS.items() if "num_iterations" in {f.name for f in fields(c)}}
every_iterative_planner = pytest.mark.parametrize("planner", [c() for c in ITERATIVE.values()], ids=list(ITERATIVE))


def box(size: float = 1.0, *, width: int = 2, max_norm: float = math.inf) -> Bounds:
    return Bounds(torch.full((width,), -size), torch.full((width,), size), max_norm)


def parabola(goal: Tensor) -> Cost:
    """Least where each action is the goal [a]."""
    return lambda action: (action - goal).square().mean((2, 3))


def two_basins(action: Tensor) -> Tensor:
    """A valley of depth 0 around 0.8 in all components, and one of 0.3 around -0.3, with a ridge between."""
    shallow = (action + 0.3).square().mean((2, 3)) + 0.3
    deep = 4 * (action - 0.8).square().mean((2, 3))
    return torch.minimum(shallow, deep)


def double_integrator(action: Tensor) -> Tensor:
    """From rest at the origin, accelerations [e s h 2] to positions and velocities [e s h 4]; a step takes 0.5."""
    velocity = (0.5 * action).cumsum(2)
    return torch.cat([(0.5 * velocity).cumsum(2), velocity], -1)


class Recorder:
    """A cost that keeps what it was asked."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.seen: list[Tensor] = []

    def __call__(self, action: Tensor) -> Tensor:
        self.seen.append(action.detach().clone())
        return self.cost(action)


def cost_of(cost: Cost, planned: Planned) -> Tensor:
    return cost(planned.action.unsqueeze(1))[:, 0]


def test_planners_are_found_and_satisfy_the_protocol() -> None:
    assert {"CEM", "Gradient", "ICEM", "MPPI", "RandomShooting"} <= PLANNERS.keys()
    assert all(isinstance(c(), Planner) for c in PLANNERS.values())


@every_planner
def test_finds_the_minimum_of_a_parabola(planner: Planner, generator: torch.Generator) -> None:
    goal = torch.tensor([0.4, -0.3])
    planned = planner(parabola(goal), torch.zeros(2, 1, 2), box(), generator)
    tolerance = 0.03 if type(planner).__name__ in ITERATIVE else 0.15
    torch.testing.assert_close(planned.action, goal.expand(2, 1, 2), atol=tolerance, rtol=0)


@every_planner
def test_finds_a_minimum_on_the_boundary(planner: Planner, generator: torch.Generator) -> None:
    goal = torch.tensor([3.0, 3.0])
    boxed = planner(parabola(goal), torch.zeros(1, 1, 2), box(0.5), generator).action
    torch.testing.assert_close(boxed, torch.full((1, 1, 2), 0.5), atol=0.02, rtol=0)
    shortened = planner(parabola(goal), torch.zeros(1, 1, 2), box(max_norm=0.5), generator).action
    torch.testing.assert_close(shortened, torch.full((1, 1, 2), 0.5 / math.sqrt(2)), atol=0.05, rtol=0)
    assert shortened.norm() == pytest.approx(0.5, abs=0.01)


@every_planner
def test_leaves_a_shallow_basin_for_a_deep_one(planner: Planner, generator: torch.Generator) -> None:
    many = replace(planner, num_starts=64) if isinstance(planner, Gradient) else planner
    planned = many(two_basins, torch.full((3, 1, 2), -0.3), box(), generator)
    assert (cost_of(two_basins, planned) < 0.05).all()


@every_planner
def test_reaches_with_a_double_integrator(planner: Planner, generator: torch.Generator) -> None:
    goal = torch.tensor([[1.0, -0.5, 0.0, 0.0], [-0.5, 0.5, 0.3, 0.0]])
    cost = distance_to(goal, double_integrator)
    planned = planner(cost, torch.zeros(2, 6, 2), box(), generator)
    idle = cost(torch.zeros(2, 1, 6, 2))[:, 0]
    share = 0.1 if type(planner).__name__ in ITERATIVE else 0.5
    assert (cost_of(cost, planned) < share * idle).all()


@every_planner
def test_keeps_a_good_start(planner: Planner, generator: torch.Generator) -> None:
    start = torch.tensor([0.6, -0.4]).expand(2, 6, 2)
    cost = parabola(start[0, 0])
    assert (cost_of(cost, planner(cost, start, box(), generator)) < 0.01).all()
    once = replace(planner, num_iterations=1) if type(planner).__name__ in ITERATIVE else planner
    warm, cold = (cost_of(cost, once(cost, s, box(), generator)) for s in (start, torch.zeros(2, 6, 2)))
    assert (warm < cold).all()


@every_iterative_planner
def test_costs_fall_and_are_the_record(planner: Planner, generator: torch.Generator) -> None:
    planned = planner(parabola(torch.tensor([0.4, -0.3])), torch.zeros(3, 4, 2), box(), generator)
    assert planned.costs.shape == planned.spread.shape == (planner.num_iterations, 3)
    assert (planned.costs[-1] < 0.5 * planned.costs[0]).all()
    assert (planned.spread[-1] < planned.spread[0]).all()


@every_planner
def test_the_seed_is_all_there_is_to_chance(planner: Planner) -> None:
    plans, seen = [], []
    for seed in (1, 1, 2):
        torch.manual_seed(len(plans))  # which no planner may read
        recorder = Recorder(two_basins)
        plans.append(planner(recorder, torch.zeros(2, 3, 2), box(), torch.Generator().manual_seed(seed)).action)
        seen.append(recorder.seen[0])
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(seen[0], seen[2])


@every_planner
@pytest.mark.parametrize("max_norm", [math.inf, 0.9])
def test_a_plan_does_not_depend_on_how_many_are_planned(
    planner: Planner, max_norm: float, generator: torch.Generator
) -> None:
    goal, start = torch.randn(5, 1, 1, 2, generator=generator), 0.3 * torch.randn(5, 7, 2, generator=generator)

    def plan(some: slice) -> Planned:
        cost: Cost = lambda action: (action - goal[some]).square().sum((2, 3))  # noqa: E731
        return planner(cost, start[some], box(max_norm=max_norm), torch.Generator().manual_seed(0))

    among, alone = plan(slice(None)), plan(slice(1))
    assert torch.equal(among.action[:1], alone.action)
    assert torch.equal(among.costs[:, :1], alone.costs)


@every_planner
def test_no_candidate_leaves_the_bounds(planner: Planner, generator: torch.Generator) -> None:
    bounds = Bounds(torch.tensor([-0.5, -1.0]), torch.tensor([0.2, math.inf]), 0.8)
    recorder = Recorder(parabola(torch.tensor([3.0, 0.5])))
    planned = planner(recorder, 5 * torch.randn(2, 3, 2, generator=generator), bounds, generator)
    for action in [*recorder.seen, planned.action]:
        assert (action >= bounds.low).all()
        assert (action <= bounds.high).all()
        assert (action.norm(dim=-1) <= 0.8 + 1e-6).all()


@every_planner
def test_the_cost_is_called_once_an_iteration(planner: Planner, generator: torch.Generator) -> None:
    recorder = Recorder(two_basins)
    planned = planner(recorder, torch.full((3, 2, 2), 0.1), box(), generator)
    assert len(recorder.seen) == len(planned.costs)
    assert all(action.shape[0] == 3 for action in recorder.seen)
    assert torch.equal(recorder.seen[0][:, 0], torch.full((3, 2, 2), 0.1)), "the start is a candidate"


@every_planner
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_not_finite_is_the_worst(planner: Planner, bad: float, generator: torch.Generator) -> None:
    goal = torch.tensor([0.6, 0.0])

    def cost(action: Tensor) -> Tensor:
        return parabola(goal)(action).masked_fill(action[..., 0].amax(2) < -0.2, bad)

    planned = planner(cost, torch.zeros(2, 1, 2), box(), generator)
    tolerance = 0.03 if type(planner).__name__ in ITERATIVE else 0.15
    torch.testing.assert_close(planned.action, goal.expand(2, 1, 2), atol=tolerance, rtol=0)
    assert planned.costs.isfinite().all()


@every_planner
def test_a_single_finite_candidate_is_the_plan(planner: Planner, generator: torch.Generator) -> None:
    start = torch.full((2, 3, 2), 0.25)

    def cost(action: Tensor) -> Tensor:
        return action.mean((2, 3)).where((action == 0.25).all(3).all(2), math.nan)

    once = replace(planner, num_iterations=1) if type(planner).__name__ in ITERATIVE else planner
    planned = once(cost, start, box(), generator)
    torch.testing.assert_close(planned.action, start)
    torch.testing.assert_close(planned.costs, torch.full((1, 2), 0.25))


@every_planner
def test_no_finite_cost_is_an_error(planner: Planner, generator: torch.Generator) -> None:
    ruined = torch.tensor([0.0, math.nan, 0.0, math.nan])

    def cost(action: Tensor) -> Tensor:
        return action.square().sum((2, 3)) + ruined[:, None]

    with pytest.raises(ValueError, match=r"finite cost in every environment, .* environments \[1, 3\]"):
        planner(cost, torch.zeros(4, 2, 2), box(), generator)


@every_planner
@pytest.mark.parametrize(
    ("cost", "got"),
    [
        (lambda action: action.sum(), r"the shape \(\)"),
        (lambda action: action.sum((2, 3)).T, r"the shape \(\d+, 3\)"),
        (lambda action: action.sum(3), r"the shape \(3, \d+, 2\)"),
        (lambda action: 1.0, "a float"),
    ],
)
def test_a_cost_of_the_wrong_shape_is_an_error(
    planner: Planner, cost: Cost, got: str, generator: torch.Generator
) -> None:
    with pytest.raises(ValueError, match=rf"Wanted a tensor of \(3, \d+\), one cost for each .* got {got}"):
        planner(cost, torch.zeros(3, 2, 2), box(), generator)


@every_planner
def test_a_start_that_cannot_be_is_an_error(planner: Planner, generator: torch.Generator) -> None:
    for start, message in [
        (torch.zeros(2, 3, 1), "a = 2"),
        (torch.zeros(2, 0, 2), "at least 1"),
        (torch.full((2, 3, 2), math.nan), "finite start"),
    ]:
        with pytest.raises(ValueError, match=message):
            planner(two_basins, start, box(), generator)


@pytest.mark.parametrize(
    ("low", "high", "max_norm"), [(1.0, -1.0, math.inf), (0.5, 1.0, 2.0), (-1.0, 1.0, 0.0), (-1.0, 1.0, math.nan)]
)
def test_bounds_that_cannot_be_are_an_error(low: float, high: float, max_norm: float) -> None:
    with pytest.raises(ValueError, match=r"[Ww]anted"):
        Bounds(torch.tensor([low]), torch.tensor([high]), max_norm)


IMPOSSIBLE = {
    "num_samples": 0,
    "num_elites": 1000,
    "num_starts": 0,
    "num_iterations": 0,
    "std": 0.0,
    "min_std": -1.0,
    "max_std": -1.0,
    "mean_momentum": 1.5,
    "std_momentum": -0.5,
    "momentum": math.nan,
    "temperature": 0.0,
    "exponent": -1.0,
    "sample_decay": 0.5,
    "kept_share": 1.5,
    "lr": 0.0,
}


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
def test_settings_that_cannot_be_are_an_error(planner: type) -> None:
    for name in {f.name for f in fields(planner)} - {"_", "temperature_unit"}:
        with pytest.raises(ValueError, match=f"Wanted.* {name}"):
            planner(**{name: IMPOSSIBLE[name]})


def published_cem(
    cost: Cost, shape: tuple[int, int, int], *, num_samples: int, topk: int, steps: int, seed: int
) -> tuple[Tensor, list[list[set[int]]]]:
    """CEM written from its description, one environment and one candidate at a time: the means, the elites."""
    means, chosen = [], []
    for index in range(shape[0]):
        generator = torch.Generator().manual_seed(seed)
        mean, std, elites = torch.zeros(shape[1:]), torch.ones(shape[1:]), []
        for _ in range(steps):
            noise = torch.randn(1, num_samples, *shape[1:], generator=generator)[0]
            candidates = [mean if i == 0 else noise[i] * std + mean for i in range(num_samples)]
            every = [torch.stack(candidates)] * shape[0]
            costs = cost(torch.stack(every))[index].tolist()
            best = sorted(range(num_samples), key=costs.__getitem__)[:topk]
            kept = torch.stack([candidates[i] for i in best])
            mean = kept.sum(0) / topk
            std = ((kept - mean).square().sum(0) / (topk - 1)).sqrt()
            elites.append(set(best))
        means.append(mean)
        chosen.append(elites)
    return torch.stack(means), chosen


def test_cem_is_the_published_loop(generator: torch.Generator) -> None:
    goal = torch.randn(3, 4, generator=generator)
    recorder = Recorder(distance_to(goal, double_integrator))
    cem = CEM(60, num_elites=9, num_iterations=4)
    planned = cem(recorder, torch.zeros(3, 5, 2), box(math.inf), torch.Generator().manual_seed(7))
    mean, chosen = published_cem(recorder.cost, (3, 5, 2), num_samples=60, topk=9, steps=4, seed=7)
    torch.testing.assert_close(planned.action, mean, rtol=1e-4, atol=1e-5)
    for step, action in enumerate(recorder.seen):
        elites = recorder.cost(action).topk(9, dim=1, largest=False)
        assert [set(row) for row in elites.indices.tolist()] == [each[step] for each in chosen]
        torch.testing.assert_close(planned.costs[step], elites.values.mean(1))


class Judge:
    """The interface that stable-worldmodel's solvers ask of a cost."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost

    def get_cost(self, info: dict[str, Any], candidates: Tensor) -> Tensor:
        return self.cost(candidates)

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])


def test_cem_is_the_one_of_stable_worldmodel() -> None:
    pytest.importorskip("stable_worldmodel")
    solvers = [importlib.util.find_spec(f"stable_worldmodel.{name}") for name in ("planning.solver", "solver")]
    solver_class = importlib.import_module(next(s.name for s in solvers if s)).CEMSolver
    names = inspect.signature(solver_class).parameters
    cost = distance_to(torch.tensor([[1.0, -0.5, 0.0, 0.2]]), double_integrator)
    solver = solver_class(
        **{"cost" if "cost" in names else "model": Judge(cost)}, num_samples=60, topk=9, n_steps=4, seed=7
    )
    space = importlib.import_module("gymnasium").spaces.Box(-1, 1, (1, 2))
    solver.configure(action_space=space, n_envs=1, config=SimpleNamespace(horizon=5, action_block=1))
    theirs = solver.solve({"state": torch.zeros(1, 4)})
    cem = CEM(60, num_elites=9, num_iterations=4)
    ours = cem(cost, torch.zeros(1, 5, 2), box(math.inf), torch.Generator().manual_seed(7))
    assert torch.equal(ours.action, theirs["actions"])
    assert ours.costs[-1].tolist() == pytest.approx(theirs["costs"])


def test_momentum_and_limits_move_the_next_candidates_as_they_say(generator: torch.Generator) -> None:
    start, cost = torch.zeros(1, 1, 2), parabola(torch.tensor([0.5, 0.5]))
    seen = {}
    for share in (0.0, 0.25):
        recorder = Recorder(cost)
        planner = CEM(50, num_elites=5, num_iterations=2, mean_momentum=share)
        planner(recorder, start, box(), torch.Generator().manual_seed(3))
        seen[share] = recorder.seen[1][:, 0]
    torch.testing.assert_close(seen[0.25], 0.75 * seen[0.0])
    for planner in (CEM(2000, num_elites=20, min_std=0.5), MPPI(2000, max_std=0.5, std_momentum=1.0)):
        recorder = Recorder(cost)
        planner(recorder, start, box(math.inf), generator)
        torch.testing.assert_close(recorder.seen[-1].std(1), torch.full((1, 1, 2), 0.5), rtol=0.1, atol=0)


def test_mppi_weighs_by_excess_over_temperature() -> None:
    costs = torch.tensor([[1.0, 1.2, 1.6, math.inf]])
    published = MPPI(temperature=0.2, temperature_unit="cost").weights(costs)
    wanted = torch.tensor([[1.0, math.exp(-1), math.exp(-3), 0.0]])
    torch.testing.assert_close(published, wanted / wanted.sum())
    relative = MPPI(temperature=0.5)
    wanted = torch.tensor([[1.0, math.exp(-3 / 2), math.exp(-9 / 2), 0.0]])  # the mean excess is 0.8 / 3
    torch.testing.assert_close(relative.weights(costs), wanted / wanted.sum())
    torch.testing.assert_close(relative.weights(1000 * costs), relative.weights(costs))
    torch.testing.assert_close(relative.weights(torch.ones(2, 4)), torch.full((2, 4), 0.25))


def test_mppi_is_as_sharp_as_its_temperature_is_low(generator: torch.Generator) -> None:
    """Not so with exp(temperature * (least - cost)), which weighs all alike at a low temperature."""
    recorder = Recorder(parabola(torch.tensor([0.4, -0.3])))
    once = MPPI(num_iterations=1, temperature=1e-4)
    planned = once(recorder, torch.zeros(1, 2, 2), box(), generator)
    costs = recorder.cost(recorder.seen[0])
    torch.testing.assert_close(planned.action[0], recorder.seen[0][0, costs.argmin()])
    hot = replace(once, temperature=1e6, num_elites=None)(recorder, torch.zeros(1, 2, 2), box(), generator)
    torch.testing.assert_close(hot.action, recorder.seen[1].mean(1))


def test_icem_draws_fewer_each_time_and_executes_the_best(generator: torch.Generator) -> None:
    def lottery(action: Tensor) -> Tensor:
        return (1000 * action).sin().sum((2, 3))

    recorder = Recorder(lottery)
    planned = ICEM(100, num_elites=10, num_iterations=9)(recorder, torch.zeros(1, 4, 2), box(), generator)
    assert [action.shape[1] for action in recorder.seen] == [100, 80, 64, 51, 40, 32, 26, 20, 20]
    least = torch.cat([lottery(action) for action in recorder.seen], 1).min().item()
    assert cost_of(lottery, planned).item() == pytest.approx(least, abs=1e-3), "the best of all is always kept"


@pytest.mark.parametrize("horizon", [1, 2, 7, 12])
def test_coloured_noise_has_its_spectrum_and_unit_variance(horizon: int, generator: torch.Generator) -> None:
    white = torch.randn(4000, horizon, 3, generator=generator)
    torch.testing.assert_close(coloured(white, 0.0), white, atol=1e-5, rtol=1e-5)
    noise = coloured(white, 2.0)
    torch.testing.assert_close(noise.std((0, 2)), torch.ones(horizon), rtol=0.04, atol=0)
    power = torch.fft.rfft(noise, dim=1).abs().square().mean((0, 2))[1:]
    steps = torch.arange(1, len(power) + 1)
    torch.testing.assert_close(power * steps**2, power[:1].expand(len(power)), rtol=0.1, atol=0)


def test_gradient_needs_one_and_says_so(generator: torch.Generator) -> None:
    weight = torch.ones(1, requires_grad=True)
    for cost in (lambda action: two_basins(action.detach()), lambda action: (weight * action.detach()).sum((2, 3))):
        with pytest.raises(ValueError, match=r"can be differentiated .* such as CEM"):
            Gradient()(cost, torch.zeros(1, 2, 2), box(), generator)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        Gradient()(two_basins, torch.zeros(1, 2, 2), box(), generator)


def test_gradient_leaves_the_model_alone_and_works_without_grad_mode(generator: torch.Generator) -> None:
    weight = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        planned = Gradient(1)(lambda a: (weight * a - 0.5).square().sum((2, 3)), torch.zeros(1, 2, 2), box(), generator)
    torch.testing.assert_close(planned.action, torch.full((1, 2, 2), 0.5), atol=0.01, rtol=0)
    assert not planned.action.requires_grad
    assert weight.grad is None


def test_gradient_stands_still_where_its_gradient_is_not_a_number(generator: torch.Generator) -> None:
    def cost(action: Tensor) -> Tensor:
        return action.square().sum((2, 3)).sqrt()

    planned = Gradient(1, num_iterations=3)(cost, torch.zeros(1, 2, 2), box(), generator)
    assert not planned.action.any()
    assert not planned.costs.any()


def test_gradient_from_one_start_stays_in_its_basin_and_returns_the_best_not_the_last(
    generator: torch.Generator,
) -> None:
    planned = Gradient(1)(two_basins, torch.full((1, 1, 2), -0.5), box(), generator)
    torch.testing.assert_close(planned.action, torch.full((1, 1, 2), -0.3), atol=0.01, rtol=0)
    start = torch.full((1, 1, 2), 0.4)
    coarse = Gradient(1, lr=0.5, num_iterations=2)(parabola(start[0, 0] + 0.001), start, box(), generator)
    assert torch.equal(coarse.action, start)
