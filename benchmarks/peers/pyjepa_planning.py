"""pyjepa (GPL-3): its CEMPlanner on its LeWM, one environment after the other, since a batch would get one plan.

Every latent step runs the window of the last three frames anew for every candidate. It encodes frames and goal at every
iteration; an encoder that hands on embeddings takes their place, so that nothing is encoded. As in
stable-worldmodel, whose form it has, the first actions of a candidate are the history's: `WithPast` puts them there.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import nn

from peers import plan_search as sizes
from peers.plan_search import Given, Search, WithPast, serve


def build(given: Given) -> Search:
    from pyjepa.models.action_encoder import ActionEmbedder
    from pyjepa.models.lewm import ARPredictor, LeWM
    from pyjepa.planning.cem import CEMConfig, CEMPlanner

    predictor = ARPredictor(
        num_frames=sizes.HISTORY,
        depth=sizes.DEPTH,
        heads=sizes.HEADS,
        mlp_dim=sizes.MLP,
        input_dim=sizes.DIM,
        hidden_dim=sizes.DIM,
        dim_head=sizes.HEAD_WIDTH,
    )
    actions = ActionEmbedder(input_dim=sizes.BLOCK, emb_dim=sizes.DIM)
    model = WithPast(LeWM(nn.Identity(), predictor, actions, history_size=sizes.HISTORY))
    planner = CEMPlanner(
        CEMConfig(
            horizon=sizes.HORIZON,
            action_dim=sizes.BLOCK,
            num_samples=sizes.SAMPLES,
            num_elites=sizes.ELITES,
            num_iters=given.num_iterations,
            action_min=-torch.inf,
            action_max=torch.inf,
        )
    )
    frames = {"pixels": given.z, "goal": given.goal[:, None], "past": given.past}
    infos = [{name: value[i : i + 1] for name, value in frames.items()} for i in range(len(given.z))]

    @torch.no_grad()
    def run() -> torch.Tensor:
        return torch.stack([planner(model, info) for info in infos])

    return Search(package=f"pyjepa {version('pyjepa')}", modules=[model], run=run)


if __name__ == "__main__":
    serve(build)
