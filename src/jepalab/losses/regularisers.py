"""Terms of embeddings alone: what keeps them from collapsing without a teacher (VICReg, SIGReg), and slowness.

Statistics are taken over the batch at each place of the grid, or at each time. Taken over all tokens together they
could be met by the position alone, which every encoder with position codes has for nothing.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from jepalab.dist import mean_over_processes
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.vicreg import spread

SMALLEST = 1e-12  # variance of embeddings that are taken for different at all


@runtime_checkable
class Regulariser(Protocol):
    """Named terms of the statistics of embeddings."""

    names: ClassVar[tuple[str, ...]]

    def __call__(self, z: Float[Tensor, "b n d"]) -> dict[str, Float[Tensor, ""]]: ...


class VarianceCovariance(nn.Module):
    """VICReg's hinge on the standard deviation and its off-diagonal covariance, at each place (arXiv 2105.04906)."""

    names: ClassVar[tuple[str, ...]] = ("variance", "covariance")

    def forward(self, z: Float[Tensor, "b n d"]) -> dict[str, Float[Tensor, ""]]:
        return spread(z.transpose(0, 1))._asdict()


class Gaussianity(nn.Module):
    """SIGReg at each place (LeJEPA, arXiv 2511.08544)."""

    names: ClassVar[tuple[str, ...]] = ("sigreg",)

    def __init__(self, sigreg: SIGReg) -> None:
        super().__init__()
        self.sigreg = sigreg

    def forward(self, z: Float[Tensor, "b n d"]) -> dict[str, Float[Tensor, ""]]:
        return {"sigreg": self.sigreg(z.transpose(0, 1))}


class Slowness(nn.Module):
    """How far consecutive embeddings lie apart, squared: the time-similarity of PLDM (2502.14819) and eb_jepa.

    Beside a floor on the variance it draws together what lies few steps apart, so that distances follow ways that can
    be gone: the slow features of Wiskott and Sejnowski (2002).

    Args:
        relative: in units of the embeddings' variance over the batch and all times, 2 where frames are unrelated; for
            losses that ask for no variance. There the absolute one is met by embeddings that are small, and by those
            that are nothing.
    """

    names: ClassVar[tuple[str, ...]] = ("slowness",)

    def __init__(self, *, relative: bool = False) -> None:
        super().__init__()
        self.relative = relative

    def forward(self, z: Float[Tensor, "b t d"]) -> dict[str, Float[Tensor, ""]]:
        z = z.float()
        change = z.diff(dim=1).square().mean()
        if self.relative:
            centred = z - mean_over_processes(z.mean((0, 1)))
            change = change / mean_over_processes(centred.square().mean()).clamp(min=SMALLEST)
        return {"slowness": change}
