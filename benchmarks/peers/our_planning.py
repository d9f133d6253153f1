"""jepalab: `CausalPredictor`, `CEM` and `distance_to`.

Each iteration reads the history once, whatever the number of candidates, and keeps its keys and values and those of
what is imagined: a latent step is one token. A token attends to all that came before it, the whole history included.
"""

from __future__ import annotations

from importlib.metadata import version

import torch

from jepalab.backbones.causal_predictor import CausalPredictor
from jepalab.planners.cem import CEM
from jepalab.planners.costs import distance_to
from jepalab.planners.planner import Bounds
from peers import plan_search as sizes
from peers.plan_search import Given, Search, serve


def build(given: Given) -> Search:
    predictor = CausalPredictor(
        sizes.DIM,
        num_actions=sizes.BLOCK,
        width=sizes.DIM,
        depth=sizes.DEPTH,
        num_heads=sizes.HEADS,
        head_width=sizes.HEAD_WIDTH,
        mlp_ratio=sizes.MLP / sizes.DIM,
    )
    planner = CEM(sizes.SAMPLES, num_elites=sizes.ELITES, num_iterations=given.num_iterations)
    everywhere = torch.full((sizes.BLOCK,), torch.inf)
    start, bounds = torch.zeros(len(given.z), sizes.HORIZON, sizes.BLOCK), Bounds(-everywhere, everywhere)
    cost = distance_to(given.goal, lambda action: predictor.rollout(given.z, given.past, action))
    generator = torch.Generator().manual_seed(0)
    return Search(
        package=f"jepalab {version('jepalab')}",
        modules=[predictor],
        run=lambda: planner(cost, start, bounds, generator).action,
    )


if __name__ == "__main__":
    serve(build)
