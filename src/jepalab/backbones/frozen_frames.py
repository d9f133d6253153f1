"""An encoder of pictures that was trained elsewhere, as a frozen encoder of frames (DINO-WM, arXiv 2411.04983).

DINO-WM keeps all patch tokens and gives them a transformer. Here all of a frame is one latent of a width of one's
choice, by a fixed projection, so that dynamics, planner and instruments are those of every other arm.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from jepalab.types import Encoder

Tokens = Literal["flatten", "mean"]
AT_ONCE = 64


class FrozenFrames(Encoder):
    """Each frame, resized, through an encoder of pictures that does not learn, then onto principal components.

    encoder         takes x [b 1 c h w] in [0, 1] and gives tokens [b n e].
    size, channels  of the pictures that it takes.
    tokens          "flatten" lays all tokens in a row, and keeps where things are; "mean" pools them.
    mean, basis     [n * e] or [e], and [n * e d] or [e d]: what is taken off, and the components: see `fitted`.
    """

    mean: Tensor
    basis: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        size: int,
        channels: int,
        tokens: Tokens,
        mean: Float[Tensor, " k"],
        basis: Float[Tensor, "k d"],
    ) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.size, self.channels, self.tokens, self.dim = size, channels, tokens, basis.shape[1]
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    @classmethod
    def fitted(
        cls,
        encoder: Encoder,
        frames: Float[Tensor, "b t c h w"],
        *,
        size: int,
        channels: int,
        dim: int,
        tokens: Tokens = "flatten",
    ) -> FrozenFrames:
        """With the principal components of these frames, all in one unit, in which their mean variance is 1.

        Raises:
            ValueError: there are fewer frames, or numbers in a frame's tokens, than components.
        """
        with torch.no_grad():
            shown = _shown(frames.flatten(0, 1), size=size, channels=channels)
            read = torch.cat([_read(encoder.eval(), part, tokens) for part in shown.split(AT_ONCE)]).double()
        if dim > min(read.shape[0] - 1, read.shape[1]):
            raise ValueError(
                f"Wanted {dim} components out of {read.shape[0]} frames of {read.shape[1]} numbers each; take a "
                "smaller --dim, or tokens that are flattened."
            )
        mean = read.mean(0)
        _, values, components = torch.linalg.svd(read - mean, full_matrices=False)
        unit = (values[:dim].square().mean() / (len(read) - 1)).sqrt().clamp_min(1e-12)
        basis = components[:dim].T / unit
        return cls(encoder, size=size, channels=channels, tokens=tokens, mean=mean.float(), basis=basis.float())

    def train(self, mode: bool = True) -> FrozenFrames:
        """What was trained elsewhere stays as it evaluates."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(
        self, x: Float[Tensor, "b t c h w"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """One embedding a frame, n = t; frames never see each other, so `causal` holds anyway."""
        if keep is not None:
            x = x.take_along_dim(keep.view(*keep.shape, 1, 1, 1), 1)
        shown = _shown(x.flatten(0, 1), size=self.size, channels=self.channels)
        z = (_read(self.encoder, shown, self.tokens).float() - self.mean) @ self.basis
        return z.unflatten(0, x.shape[:2])


def _shown(x: Float[Tensor, "b c h w"], *, size: int, channels: int) -> Float[Tensor, "b k s s"]:
    """Frames as the encoder takes pictures: of its size, grey or in colour.

    In grey every pixel is the brightest of its channels; two channels become red and, for the second, green and blue.
    """
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    if x.shape[1] == channels:
        return x
    if channels == 1:
        return x.amax(1, keepdim=True)
    return x[:, [0, -1, -1]]


def _read(encoder: Encoder, x: Float[Tensor, "b c h w"], tokens: Tokens) -> Float[Tensor, "b k"]:
    z = encoder(x[:, None])
    return z.mean(1) if tokens == "mean" else z.flatten(1)
