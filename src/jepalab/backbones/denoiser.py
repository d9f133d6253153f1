"""The head of denoising objectives: a narrow transformer over all tokens that is told the level of the noise."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.attention import Transformer, init_linear
from jepalab.backbones.noise_level import NoiseLevel
from jepalab.backbones.positions import Positions, make_positions


class DenoisingDecoder(nn.Module):
    """Answers for every patch from the embeddings of a noised picture and its level t in [0, 1].

    The level enters here and not in the encoder, which stays a plain encoder of pictures. Widths and depths mean the
    same as in `MaskedPredictor`; at equal ones this has 2 width^2 parameters more, for the level.
    """

    positions: Tensor

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        grid: tuple[int, ...],
        width: int = 96,
        depth: int = 3,
        num_heads: int = 3,
        positions: Positions = "sincos",
    ) -> None:
        super().__init__()
        self.position_kind: Positions = positions
        self.embed = nn.Linear(dim, width)
        self.level = NoiseLevel(width)
        self.register_buffer("positions", make_positions(positions, grid, dim=width, num_heads=num_heads))
        self.answer = nn.Linear(width, out_dim)
        init_linear(self)
        self.transformer = Transformer(width, depth=depth, num_heads=num_heads)

    def forward(self, z: Float[Tensor, "b n d"], level: Float[Tensor, " b"]) -> Float[Tensor, "b n o"]:
        told = self.level(level).unsqueeze(1)
        if self.position_kind == "sincos":
            return self.answer(self.transformer(self.embed(z) + self.positions + told)).float()
        tokens = (self.embed(z) + told).to(self.positions.dtype)
        return self.answer(self.transformer(tokens, rotation=self.positions.unsqueeze(0))).float()
