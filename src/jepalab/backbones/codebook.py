"""A small frozen tokenizer: patches by their nearest k-means centre (for BEiT-like targets, arXiv 2106.08254).

BEiT takes the codes of a trained discrete VAE; nearest centres need no training beside them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MAX_ROWS = 8192  # patches compared with all codes at once: bounds the memory of their distances


class PatchCodebook(nn.Module):
    """Codes for patches as the encoder normalises them. `fit` first; then it never changes, and travels with the state.

    `draw` makes codes at random, which is enough where only the price of a step is asked.

    codes  [num_codes p], the centres.
    """

    codes: Tensor
    has_codes: Tensor

    def __init__(self, num_codes: int, patch_dim: int) -> None:
        super().__init__()
        if num_codes < 2:
            raise ValueError(f"wanted at least 2 codes to tell apart, got {num_codes}")
        self.num_codes, self.patch_dim = num_codes, patch_dim
        self.register_buffer("codes", torch.zeros(num_codes, patch_dim))
        self.register_buffer("has_codes", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Independent normal codes, as wide as normalised patches are."""
        self.codes.copy_(torch.randn(self.codes.shape, generator=generator))
        self.has_codes.fill_(True)

    @torch.no_grad()
    def fit(self, patches: Float[Tensor, "*rows p"], generator: torch.Generator, *, max_iterations: int = 50) -> float:
        """Lloyd's iterations from k-means++ seeds, until no patch changes its code or at `max_iterations`.

        A centre that loses all its patches moves to the patch that is farthest from its own centre. Returns the mean
        squared distance of the patches to their centres. ValueError if there are fewer distinct patches than codes.
        """
        rows = patches.reshape(-1, patches.shape[-1]).float()
        if rows.shape[1] != self.patch_dim:
            raise ValueError(f"wanted patches of {self.patch_dim} numbers, got {rows.shape[1]}; build another codebook")
        codes = choose_seeds(rows, self.num_codes, generator)
        assigned, distances = nearest(rows, codes)
        for _ in range(max_iterations):
            codes = _centres(rows, assigned, distances, codes)
            before = assigned
            assigned, distances = nearest(rows, codes)
            if torch.equal(before, assigned):
                break
        self.codes.copy_(codes)
        self.has_codes.fill_(True)
        return float(distances.mean())

    @torch.no_grad()
    def forward(self, patches: Float[Tensor, "b n p"]) -> Int[Tensor, "b n"]:
        """The nearest code of each patch. ValueError before `fit`."""
        if not self.has_codes:
            raise ValueError(
                "This codebook is not fitted; call fit(encoder.patches(x), generator) on training pictures."
            )
        return nearest(patches.flatten(0, 1), self.codes)[0].unflatten(0, patches.shape[:2])


def nearest(rows: Float[Tensor, "n p"], codes: Float[Tensor, "k p"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The nearest code of each row and the squared distance to it."""
    found = []
    with torch.autocast(rows.device.type, enabled=False):  # bfloat16 products would confuse neighbouring codes
        for part in rows.float().split(MAX_ROWS):
            # |row - code|^2 without |row|^2, which is the same for every code.
            found.append((codes.square().sum(1) - 2 * part @ codes.T).argmin(1))
    index = torch.cat(found)
    return index, (rows.float() - codes[index]).square().sum(1)


def choose_seeds(rows: Float[Tensor, "n p"], num_codes: int, generator: torch.Generator) -> Float[Tensor, "k p"]:
    """k-means++: each next seed is a row drawn with a chance that grows with its squared distance to the seeds so far.

    (Arthur & Vassilvitskii 2007.) ValueError if fewer rows differ than seeds are wanted.
    """
    first = torch.randint(len(rows), (), generator=generator)
    seeds, distances = [rows[first]], (rows - rows[first]).square().sum(1)
    while len(seeds) < num_codes:
        total = distances.double().cumsum(0)
        if not total[-1] > 0:
            raise ValueError(
                f"wanted {num_codes} codes, but only {len(seeds)} of {len(rows)} patches differ; take fewer codes or "
                "more pictures"
            )
        # A place among all distances; `right` never lands on a row whose own distance is zero.
        place = torch.rand((), generator=generator, dtype=torch.float64).to(total.device) * total[-1]
        chosen = torch.searchsorted(total, place, right=True).clamp(max=len(rows) - 1)
        seeds.append(rows[chosen])
        distances = torch.minimum(distances, (rows - rows[chosen]).square().sum(1))
    return torch.stack(seeds)


def _centres(rows: Tensor, assigned: Tensor, distances: Tensor, codes: Tensor) -> Float[Tensor, "k p"]:
    """The mean of each code's rows; a code without rows takes one of the rows that are farthest from their code."""
    sums = torch.zeros_like(codes).index_add_(0, assigned, rows)
    sizes = torch.bincount(assigned, minlength=len(codes))
    centres = sums / sizes.clamp(min=1).unsqueeze(1)
    empty = (sizes == 0).nonzero().flatten()
    if len(empty):
        centres[empty] = rows[distances.topk(len(empty)).indices]
    return centres
