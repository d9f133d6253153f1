"""Our networks and losses once more in float64: PyTorch's own transformer, a strided convolution, plain equations."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from jepalab.backbones.attention import Block, Transformer
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.projector import Projector
from jepalab.backbones.vit import ViT
from jepalab.types import Batch, Objective

NAMES = {"qkv.": "self_attn.in_proj_", "proj.": "self_attn.out_proj.", "fc": "linear", "blocks": "layers"}


Module = TypeVar("Module", bound=nn.Module)


def lively(module: Module, *, seed: int = 1, scale: float = 0.2) -> Module:
    """The module, every parameter far from its start, so that nothing hides behind zeros, ones or small weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    return module


def name64(name: str) -> str:
    """What PyTorch's transformer calls one of our parameters."""
    if "transformer." in name:
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
    return name


def transformer64(ours: Transformer) -> nn.TransformerEncoder:
    """PyTorch's pre-norm transformer with our weights (I-JEPA's ViT has LayerNorms of eps 1e-6)."""
    block = ours.blocks[0]
    assert isinstance(block, Block)
    dim, hidden = block.fc1.in_features, block.fc1.out_features
    layer = nn.TransformerEncoderLayer(
        dim, block.num_heads, hidden, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True,
        norm_first=True,
    )  # fmt: skip
    encoder = nn.TransformerEncoder(
        layer, len(ours.blocks), norm=nn.LayerNorm(dim, eps=1e-6), enable_nested_tensor=False
    )
    encoder.double().load_state_dict(
        {name64(f"transformer.{name}").removeprefix("transformer."): value for name, value in ours.state_dict().items()}
    )
    return encoder


class ViT64(nn.Module):
    """A ViT of still pictures as a strided convolution, added positions and PyTorch's transformer."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.embed = copy.deepcopy(vit.embed).double()
        self.transformer = transformer64(vit.transformer)
        self.patch, self.channels = vit.patch, vit.channels
        self.positions, self.mean, self.std = vit.positions.double(), vit.mean.double(), vit.std.double()

    def tokens(self, x: Tensor) -> Tensor:
        pictures = (x[:, 0].double() - self.mean[:, None, None]) / self.std[:, None, None]
        kernel = self.embed.weight.view(-1, self.channels, *self.patch)
        return conv2d(pictures, kernel, self.embed.bias, stride=self.patch).flatten(2).mT + self.positions

    def levels(self, x: Tensor, keep: Tensor | None = None) -> list[Tensor]:
        """After each block, of the full picture or the kept tokens alone; the last after the final norm too."""
        z, levels = self.tokens(x), []
        if keep is not None:
            z = torch.stack([z[i, keep[i]] for i in range(len(x))])
        for layer in self.transformer.layers:
            z = layer(z)
            levels.append(z)
        norm = self.transformer.norm
        assert norm is not None
        return [*levels[:-1], norm(z)]

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """One picture after the other, the kept tokens alone."""
        if keep is None:
            return self.levels(x)[-1]
        tokens = self.tokens(x)
        return torch.stack([self.transformer(tokens[i, keep[i]][None])[0] for i in range(len(x))])


class Predictor64(nn.Module):
    """I-JEPA's predictor for one block of one sample: [context; mask tokens] through PyTorch's transformer."""

    def __init__(self, predictor: MaskedPredictor) -> None:
        super().__init__()
        self.embed, self.answer = copy.deepcopy(predictor.embed).double(), copy.deepcopy(predictor.answer).double()
        self.mask_token = nn.Parameter(predictor.mask_token.detach().double())
        self.positions = predictor.positions.double()
        self.transformer = transformer64(predictor.transformer)
        second = predictor.answer_context
        self.answer_context = None if second is None else copy.deepcopy(second).double()

    def forward(self, z: Tensor, context: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """z [k d], context [k], target [m], all present; the answers [m o] and, if there are any, [k c]."""
        seen = self.embed(z) + self.positions[context]
        asked = torch.stack([self.mask_token + self.positions[place] for place in target])
        tokens = self.transformer(torch.cat([seen, asked])[None])[0]
        here = None if self.answer_context is None else self.answer_context(tokens[: len(context)])
        return self.answer(tokens[len(context) :]), here


class Projector64(nn.Module):
    """Linear layers with batch normalisation (1502.03167, algorithm 1, eps 1e-5) and ReLU between them."""

    def __init__(self, projector: Projector) -> None:
        super().__init__()
        self.layers = copy.deepcopy(projector.layers).double()

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                z = z @ layer.weight.T + (0 if layer.bias is None else layer.bias)
            elif isinstance(layer, nn.BatchNorm1d):
                centred = z - z.mean(0)
                z = centred / (centred.square().mean(0) + 1e-5).sqrt() * layer.weight + layer.bias
            else:
                z = z.clamp_min(0)
        return z


def layer_norm64(z: Tensor) -> Tensor:
    """Layer normalisation without learned parameters, eps 1e-5 as in the published code of I-JEPA."""
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def variance64(z: Tensor) -> Tensor:
    """v(Z) of VICReg for z [n d] (2105.04906, equations 1 and 2, gamma 1, eps 1e-4)."""
    n, d = z.shape
    total = torch.zeros((), dtype=torch.float64)
    for j in range(d):
        variance = (z[:, j] - z[:, j].sum() / n).square().sum() / (n - 1)
        total = total + (1 - (variance + 1e-4).sqrt()).clamp_min(0)
    return total / d


def covariance64(z: Tensor) -> Tensor:
    """c(Z) of VICReg for z [n d] (2105.04906, equations 3 and 4)."""
    n, d = z.shape
    centred = z - z.sum(0) / n
    covariance = torch.stack([torch.outer(row, row) for row in centred]).sum(0) / (n - 1)
    return sum((covariance[i, j].square() for i in range(d) for j in range(d) if i != j), torch.zeros(())) / d


def sigreg64(z: Tensor, *, num_directions: int, num_knots: int, seed: int = 0) -> Tensor:
    """SIGReg of z [n d] at a first step (2511.08544): n times the integral over [-3, 3], both halves by symmetry."""
    directions = torch.randn(z.shape[1], num_directions, generator=torch.Generator().manual_seed(seed)).double()
    knots = torch.from_numpy(np.linspace(0, 3, num_knots))
    total = torch.zeros((), dtype=torch.float64)
    for direction in directions.T:
        projections = z @ direction / math.sqrt(float(direction @ direction))
        empirical = torch.exp(1j * knots[:, None] * projections).mean(1)
        distance = (empirical - torch.exp(-(knots**2) / 2)).abs().square()
        total = total + 2 * torch.trapezoid(distance * torch.exp(-(knots**2) / 2), knots)
    return len(z) * total / num_directions


def agree(objective: Objective, batch: Batch, reference: nn.Module, wanted: Tensor) -> None:
    """The loss, and its gradient for every parameter, are the reference's; what is not trained gets none."""
    loss = objective(batch).total
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=0)
    loss.backward()
    wanted.backward()
    theirs = dict(reference.named_parameters())
    # Batch normalisation leaves no gradient for what moves all samples alike: there both are rounding.
    rounding = 1e-6 * max(float(p.grad.abs().max()) for p in theirs.values() if p.grad is not None)
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        gradient = theirs[name64(name)].grad
        assert gradient is not None, name
        atol = 2e-5 * float(gradient.abs().max()) + rounding
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-3, atol=atol, msg=name)
