"""Acting by planning again and again (model-predictive control): agents, and episodes of many environments at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.dist import Precision, autocast, keep_freed_memory
from jepalab.envs.environment import Environment, State
from jepalab.instruments.effort import Effort, Meter
from jepalab.planners.costs import OverTime, Read, at_the_end, control_penalty, distance_to, read_out
from jepalab.planners.planner import Bounds, Cost, Planner
from jepalab.types import WorldModel

Act = Callable[[State], Float[Tensor, "n a"]]
MOST_EPISODES = 4_096
AT_ONCE = 50_000_000  # numbers that are imagined together: states that are pictures would not fit into memory


@runtime_checkable
class Agent(Protocol):
    """Somebody who acts in n environments at once, each towards its goal."""

    def begin(self, env: Environment, goal: State, generator: torch.Generator, effort: Effort) -> Act:
        """What it does at each state from now on; `effort` is added to as it acts."""
        ...


@dataclass(frozen=True)
class RandomAgent:
    """Acts by chance, evenly in the bounds' box: the floor under every success rate.

    max_norm  of its actions: those that models consider are no longer.
    """

    max_norm: float = math.inf

    def begin(self, env: Environment, goal: State, generator: torch.Generator, effort: Effort) -> Act:
        bounds = Bounds(env.bounds.low, env.bounds.high, min(env.bounds.max_norm, self.max_norm))
        low, high = (end.clamp(-self.max_norm, self.max_norm) for end in (bounds.low, bounds.high))

        def act(state: State) -> Float[Tensor, "n a"]:
            # As many as the largest test has, so that what one does does not depend on the others.
            lucky = torch.rand(max(len(state), MOST_EPISODES), len(low), generator=generator)[: len(state)]
            return bounds.clip(low + lucky * (high - low))

        return act


@runtime_checkable
class Foresight(Protocol):
    """What tells an agent how good its actions would be.

    frameskip  environment steps in one imagined step: the candidates it judges are blocks of that many actions.
    history    states before and with the present one that it wants to have seen.
    """

    @property
    def frameskip(self) -> int: ...

    @property
    def history(self) -> int: ...

    def begin(self, env: Environment, goal: State, effort: Effort) -> Callable[[State, Tensor | None], Cost]:
        """Called at each state where a block begins, with the block [n k*a] that led there: what candidates cost."""
        ...


@dataclass(frozen=True)
class Imagination:
    """A world model's foresight: how far what it imagines stays from its embedding of the goal.

    read       what of embeddings is compared instead: a probed state, decoded pixels. [e s h d] to [e s h f].
    penalty    what the sum of the squared actions counts beside the distance.
    history    frames that the model is given, as many as there are yet at the start of an episode.
    precision  of the model's matrix products, as `dist.autocast` takes it.
    """

    model: WorldModel
    over_time: OverTime = at_the_end
    read: Read | None = None
    penalty: float = 0.0
    history: int = 1
    frameskip: int = 1
    precision: Precision = "fp32"

    def begin(self, env: Environment, goal: State, effort: Effort) -> Callable[[State, Tensor | None], Cost]:
        looking = Meter(effort, num=1)
        z_goal = self._look(env, goal, looking)
        target = z_goal if self.read is None else self.read(z_goal[:, None, None])[:, 0, 0]
        seen: list[Tensor] = []
        done: list[Tensor] = []

        def foresee(state: State, before: Tensor | None) -> Cost:
            if before is not None:
                done.append(before)
            seen.append(self._look(env, state, looking))
            del seen[: -self.history], done[: len(done) - len(seen) + 1]
            z = torch.stack(seen, 1)
            past = torch.stack(done, 1) if done else z.new_zeros(len(z), 0, self.frameskip * len(env.bounds.low))

            def cost(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
                effort.model_calls += 1
                effort.imagined_steps += action.shape[0] * action.shape[1] * action.shape[2]
                width = max(z.shape[-1], target.shape[-1])
                together = max(1, AT_ONCE // (action.shape[1] * action.shape[2] * width))
                parts = zip(*(each.split(together) for each in (target, z, past, action)), strict=True)
                return torch.cat([self._judge(*part) for part in parts])

            return cost

        return foresee

    def _judge(self, target: Tensor, z: Tensor, past: Tensor, action: Tensor) -> Float[Tensor, "e s"]:
        """What the candidates of some environments cost."""

        def imagine(_: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s h d"]:
            return path

        with autocast(action.device, self.precision):
            path = self.model.rollout(z, past, action)
        counted = action
        if self.over_time is at_the_end:  # what nobody asks for need be neither read nor compared
            path, counted = path[:, :, -1:], action[:, :, -1:]
        imagined = imagine if self.read is None else read_out(imagine, self.read)
        distance = distance_to(target, imagined, over_time=self.over_time)(counted)
        return distance if self.penalty == 0 else distance + control_penalty(self.penalty)(action)

    @torch.no_grad()
    def _look(self, env: Environment, state: State, looking: Meter) -> Float[Tensor, "n d"]:
        x, felt = env.render(state)[:, None], env.proprioception(state)
        with autocast(x.device, self.precision):
            z = looking(lambda: self.model.encode(x, felt[:, None] if felt.shape[-1] else None))
            return z[:, 0].float()


@dataclass(frozen=True)
class Simulation:
    """The environment itself as foresight, and the way that is left as cost: the ceiling over every success rate."""

    over_time: OverTime = at_the_end
    frameskip: int = 1

    @property
    def history(self) -> int:
        return 1

    def begin(self, env: Environment, goal: State, effort: Effort) -> Callable[[State, Tensor | None], Cost]:
        def foresee(state: State, before: Tensor | None) -> Cost:
            def cost(action: Float[Tensor, "e s h a"]) -> Float[Tensor, "e s"]:
                effort.model_calls += 1
                effort.imagined_steps += action.shape[0] * action.shape[1] * action.shape[2]
                num = action.shape[1]
                copies, goals, ways = state.blind().repeat(num), goal.blind().repeat(num), []
                taken = action.flatten(0, 1).unflatten(-1, (self.frameskip, -1)).flatten(1, 2).unbind(1)
                for number, each in enumerate(taken, 1):
                    copies = env.step(copies, each)
                    if number == len(taken) or self.over_time is not at_the_end:  # a way is longer to find than a step
                        ways.append(env.distance(copies, goals))
                return self.over_time(torch.stack(ways, -1).unflatten(0, (-1, num)))

            return cost

        return foresee


@dataclass(frozen=True)
class PlanningAgent:
    """Searches for the best next actions, takes the first few, and searches again from what is left of the plan.

    horizon       imagined steps ahead.
    num_executed  of them that are taken before the next search.
    max_norm      largest norm of an action it considers, where the environment allows longer ones: a model knows
                  nothing of actions that it was never shown.
    """

    foresight: Foresight
    planner: Planner
    horizon: int = 12
    num_executed: int = 1
    max_norm: float = math.inf

    def __post_init__(self) -> None:
        if not 1 <= self.num_executed <= self.horizon:
            raise ValueError(
                f"An agent takes from 1 to all {self.horizon} actions of its plan, got num_executed={self.num_executed}"
            )

    def begin(self, env: Environment, goal: State, generator: torch.Generator, effort: Effort) -> Act:
        skip, width = self.foresight.frameskip, len(env.bounds.low)
        each = Bounds(env.bounds.low, env.bounds.high, min(env.bounds.max_norm, self.max_norm))
        # The norm is that of each action of a block, which the planner, who sees blocks, cannot know.
        bounds = each if skip == 1 else Bounds(each.low.repeat(skip), each.high.repeat(skip))
        foresee = self.foresight.begin(env, goal, effort)
        searching = Meter(effort, num=self.foresight.history)  # the longer the history, the more a search computes
        left, num_acted = torch.zeros(len(goal), self.horizon, skip * width), 0
        blocks: list[Tensor] = []  # to be taken, the next one first
        waiting: list[Tensor] = []  # actions of the block that is being taken
        before: list[Tensor] = []  # the block that was taken last

        def clip(action: Tensor) -> Tensor:
            return action if skip == 1 else each.clip(action.unflatten(-1, (skip, width))).flatten(-2)

        def act(state: State) -> Float[Tensor, "n a"]:
            nonlocal left, num_acted
            if not waiting:
                if not blocks or self.foresight.history > 1:
                    cost = foresee(state, before[-1] if before else None)
                if not blocks:
                    found = searching(lambda: self.planner(lambda a: cost(clip(a)), left, bounds, generator))
                    effort.searches.append(found)
                    effort.searched_at.append(num_acted)
                    plan = clip(found.action)
                    blocks.extend(plan[:, : self.num_executed].unbind(1))
                    left = torch.cat([plan[:, self.num_executed :], torch.zeros_like(plan[:, : self.num_executed])], 1)
                before[:] = [blocks.pop(0)]
                waiting.extend(before[0].unflatten(-1, (skip, width)).unbind(1))
            num_acted += 1
            return waiting.pop(0)

        return act


@dataclass(frozen=True)
class Played:
    """What happened in n episodes of t steps.

    states   t + 1 of them, each of all n environments.
    actions  [n t a].
    within   by radius, whether each state [n t+1] was nearer to the goal than that.
    seconds  that acting took, all environments together, rendering included.
    """

    states: list[State]
    actions: Float[Tensor, "n t a"]
    within: dict[float, Bool[Tensor, "n u"]]
    seconds: float
    effort: Effort


@torch.no_grad()
def play(
    env: Environment,
    start: State,
    goal: State,
    agent: Agent,
    *,
    num_steps: int,
    radii: Sequence[float],
    generator: torch.Generator,
    watch: Callable[[int, float], None] | None = None,
) -> Played:
    """Lets an agent act for `num_steps` from each start towards each goal; nothing ends early, so that what holds at
    the end can be told.

    watch  called after each step with its number and the share of episodes that were near their goal at some time.
    """
    keep_freed_memory()
    effort, state = Effort(), start
    states, actions = [start], []
    near = {radius: [env.success(start, goal, radius=radius)] for radius in radii}
    began = time.perf_counter()
    act = agent.begin(env, goal, generator, effort)
    for step in range(num_steps):
        with torch.enable_grad():  # a planner may follow gradients; those that do not switch them off
            action = act(state).detach()
        state = env.step(state, action)
        states.append(state)
        actions.append(action)
        for radius, found in near.items():
            found.append(env.success(state, goal, radius=radius))
        if watch is not None:
            ever = torch.stack(near[radii[0]], 1).any(1)
            watch(step + 1, float(ever.float().mean()))
    within = {radius: torch.stack(found, 1) for radius, found in near.items()}
    return Played(states, torch.stack(actions, 1), within, time.perf_counter() - began, effort)
