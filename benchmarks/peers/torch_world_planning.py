"""torch-world: its CEM on its LeWM.

Every latent step runs the window of the last three frames anew for every candidate. The planner takes embeddings, so
nothing is encoded. The perceptron behind its predictor is left out: the others come without one.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import nn

from peers import plan_search as sizes
from peers.plan_search import Given, Search, serve


def build(given: Given) -> Search:
    from torch_world.models.jepa import LeWM
    from torch_world.planning import CEM

    model = LeWM(
        nn.Identity(),
        sizes.BLOCK,
        embed_dim=sizes.DIM,
        history=sizes.HISTORY,
        depth=sizes.DEPTH,
        num_heads=sizes.HEADS,
        head_dim=sizes.HEAD_WIDTH,
        mlp_dim=sizes.MLP,
    )
    model.pred_proj = model.projector = nn.Identity()
    planner = CEM(
        sizes.HORIZON,
        sizes.BLOCK,
        num_samples=sizes.SAMPLES,
        num_elites=sizes.ELITES,
        iterations=given.num_iterations,
    )
    generator = torch.Generator().manual_seed(0)
    return Search(
        package=f"torch-world {version('torch-world')}",
        modules=[model],
        run=lambda: planner(model, given.z, given.goal, past_actions=given.past, generator=generator),
    )


if __name__ == "__main__":
    serve(build)
