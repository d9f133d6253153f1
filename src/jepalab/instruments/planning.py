"""How well an agent reaches goals: success at the end and at any time, within two radii, and what acting costs.

A success rate says little without the floor (acting at random) and the ceiling (planning in the environment itself)
under the same test, so every table has both. Rates come without intervals; whoever prints them adds Wilson's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepalab.envs.environment import Environment
from jepalab.instruments.acting import Agent, Played, play
from jepalab.instruments.manifests import Manifest


@dataclass(frozen=True)
class Trial:
    """A test of acting.

    radii      of success by name, the chief one first.
    num_steps  of every episode; none ends early.
    seed       of the planner's candidates.
    """

    env: Environment[Any]
    manifest: Manifest[Any]
    radii: Mapping[str, float]
    num_steps: int = 200
    seed: int = 0

    def play(self, agent: Agent, *, watch: Callable[[int, float], None] | None = None) -> Played:
        """All episodes of the manifest, at once."""
        return play(
            self.env,
            self.manifest.start,
            self.manifest.goal,
            agent,
            num_steps=self.num_steps,
            radii=[*self.radii.values()],
            generator=torch.Generator().manual_seed(self.seed),
            watch=watch,
        )


def success(trial: Trial, played: Played) -> dict[str, float]:
    """Rates by group, radius and criterion, and what acting cost.

    "GROUP_ever_RADIUS" within the radius at some time, "GROUP_end_RADIUS" at the end; "GROUP_steps_RADIUS" the median
    number of steps over all episodes, where more than half arrive; "ms_per_action", "flops_per_action" and
    "imagined_per_action" of one episode, "calls_per_action" of the model, all episodes together.
    """
    scores: dict[str, float] = {}
    for group in dict.fromkeys(trial.manifest.groups):
        rows = trial.manifest.rows(group)
        for name, radius in trial.radii.items():
            within = played.within[radius][rows]
            ever = within.any(1)
            scores[f"{group}_ever_{name}"] = float(ever.float().mean())
            scores[f"{group}_end_{name}"] = float(within[:, -1].float().mean())
            if float(ever.float().mean()) > 0.5:
                scores[f"{group}_steps_{name}"] = float(steps_to_success(within).median())
    num_actions = played.actions.shape[0] * played.actions.shape[1]
    scores["ms_per_action"] = 1000 * played.seconds / num_actions
    scores["flops_per_action"] = played.effort.flops / num_actions
    scores["imagined_per_action"] = played.effort.imagined_steps / num_actions
    scores["calls_per_action"] = played.effort.model_calls / played.actions.shape[1]
    return scores


def outcomes(trial: Trial, played: Played) -> dict[str, Any]:
    """Episode by episode, as JSON can hold it, so that agents on the same episodes can be compared in pairs.

    "manifest" the digest of the episodes, "episodes" how many there are of each group and "marks", by which each is
    known, 8 digits an episode in a string; within the "radius" that counts first, "ever" and "end", for each group a 1
    or a 0 an episode in a string.
    """
    chief = next(iter(trial.radii.values()))
    rows = {group: trial.manifest.rows(group) for group in dict.fromkeys(trial.manifest.groups)}
    reached = {"ever": played.within[chief].any(1), "end": played.within[chief][:, -1]}
    return {
        "manifest": trial.manifest.digest,
        "episodes": {group: int(each.sum()) for group, each in rows.items()},
        "marks": {group: "".join(trial.manifest.marks(group)) for group in rows},
        "radius": chief,
        **{
            when: {group: "".join("1" if one else "0" for one in found[each].tolist()) for group, each in rows.items()}
            for when, found in reached.items()
        },
    }


def steps_to_success(within: Bool[Tensor, "n t"]) -> Float[Tensor, " n"]:
    """The first step at which each episode is within the radius; infinite where it never is."""
    first = within.int().argmax(1).float()
    return first.masked_fill(~within.any(1), torch.inf)


def diagnose_searches(played: Played) -> dict[str, float]:
    """How the planner fared: "search_gain", the cost of what it kept in the last round over that in the first (median
    over searches and episodes; 1 with one round), and "search_spread", how far its last candidates lay apart.
    """
    searches = played.effort.searches
    if not searches:
        return {}
    first, last = (torch.stack([found.costs[i] for found in searches]) for i in (0, -1))
    spread = torch.stack([found.spread[-1] for found in searches])
    return {
        "search_gain": float((last / first.clamp_min(1e-12)).median()),
        "search_spread": float(spread.mean()),
    }
