"""stable-worldmodel as found on PyPI: its CEMSolver on its LeWM.

Every latent step runs the window of the last three frames anew for every candidate. Embeddings of the frames and of the
goal are handed over under the names by which its LeWM keeps them from one iteration to the next, so that nothing is
encoded. Its LeWM takes the first actions of a candidate for those at the frames of the history; `WithPast` therefore
puts the past in front, and all five actions of a candidate are imagined, as everywhere here.

Its package imports Lance and more when opened; solver and model need none of it, so they are imported past its door.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from types import ModuleType

import numpy as np
import torch
from torch import nn

from peers import plan_search as sizes
from peers.plan_search import Given, Search, WithPast, serve
from peers.torchvision import import_torchvision


def build(given: Given) -> Search:
    import_torchvision()  # its policy module, which has PlanConfig, asks for it
    for name in ("stable_worldmodel", "stable_worldmodel.wm"):
        _enter(name)
    from gymnasium.spaces import Box
    from stable_worldmodel.policy import PlanConfig
    from stable_worldmodel.solver.cem import CEMSolver
    from stable_worldmodel.wm.lewm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import Embedder, Predictor

    predictor = Predictor(
        num_frames=sizes.HISTORY,
        depth=sizes.DEPTH,
        heads=sizes.HEADS,
        mlp_dim=sizes.MLP,
        input_dim=sizes.DIM,
        hidden_dim=sizes.DIM,
        dim_head=sizes.HEAD_WIDTH,
    )
    actions = Embedder(input_dim=sizes.BLOCK, smoothed_dim=sizes.BLOCK, emb_dim=sizes.DIM)
    model = WithPast(LeWM(encoder=nn.Identity(), predictor=predictor, action_encoder=actions))
    solver = CEMSolver(
        model,
        batch_size=given.batch_size,
        num_samples=sizes.SAMPLES,
        n_steps=given.num_iterations,
        topk=sizes.ELITES,
    )
    num = len(given.z)
    solver.configure(
        action_space=Box(-np.inf, np.inf, (num, sizes.ACTIONS)),
        n_envs=num,
        config=PlanConfig(
            horizon=sizes.HORIZON,
            receding_horizon=sizes.HORIZON,
            history_len=sizes.HISTORY,
            action_block=sizes.ACTION_BLOCK,
        ),
    )
    info = {
        "emb": given.z,
        "goal_emb": given.goal[:, None],
        "past": given.past,
        "pixels": torch.zeros(num, sizes.HISTORY, 1),  # it counts their frames and looks at nothing else
        "goal": torch.zeros(num, 1),
    }
    return Search(
        package=f"stable-worldmodel {version('stable-worldmodel')}",
        modules=[model],
        run=lambda: solver.solve(info)["actions"],
    )


def _enter(name: str) -> None:
    """Makes the modules in a package importable without running the package's own `__init__`."""
    found = importlib.util.find_spec(name)
    if found is None:
        raise ImportError(f"No module named {name!r}")
    package = ModuleType(name)
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules[name] = package


if __name__ == "__main__":
    serve(build)
