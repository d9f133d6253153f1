"""Small networks for the steps of the audit's label table, written as public code writes them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_WORDS = 13
PATCH, NUM_PATCHES, PATCH_DIM, DIM = 2, 16, 12, 10
Network = TypeVar("Network", bound=nn.Module)


def mlp(*widths: int, last: nn.Module | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.GELU()]
    return nn.Sequential(*layers[:-1], *([last] if last else []))


def projector(*widths: int) -> nn.Sequential:
    """Linear, batch norm, ReLU: the head of the methods with two views."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers += [nn.Linear(width_in, width_out, bias=False), nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def patchify(x: Tensor) -> Tensor:
    """[b, 3, 8, 8] -> [b, 16, 12]"""
    h = w = x.shape[-1] // PATCH
    x = x.reshape(x.shape[0], 3, h, PATCH, w, PATCH)
    return torch.einsum("nchpwq->nhwpqc", x).reshape(x.shape[0], h * w, PATCH_DIM)


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """x [b, n, d] at index [b, k]"""
    return torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int = 2) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim)
        self.mlp = mlp(dim, 2 * dim, dim)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        x = x + self.attn(self.norm1(x), causal)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, learned positions, two blocks; `keep` [b, k] leaves only these patches in."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)
        self.pos_embed = nn.Parameter(torch.randn(1, NUM_PATCHES, dim) * 0.2)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        if keep is not None:
            x = gather_tokens(x, keep)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class ConvNet(nn.Module):
    """[b, 3, 8, 8] -> [b, 10]"""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 9, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(9)
        self.conv2, self.bn2 = nn.Conv2d(9, dim, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def frozen(module: Network) -> Network:
    return module.eval().requires_grad_(False)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float = 0.99) -> None:
    for param_q, param_k in zip(student.parameters(), teacher.parameters(), strict=True):
        param_k.data.mul_(momentum).add_((1.0 - momentum) * param_q.detach().data)


def adamw(modules: Mapping[str, nn.Module], lr: float = 1e-3) -> torch.optim.AdamW:
    """Over all that takes a gradient."""
    trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=lr)


class MaskedViT(ViT):
    """Learned mask tokens in place of masked patches: SimMIM, BEiT, MaskFeat, data2vec, EVA."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        if mask is not None:
            w = mask.unsqueeze(-1).type_as(x)
            x = x * (1.0 - w) + self.mask_token.expand_as(x) * w
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def random_mask(num_samples: int, num_masked: int = 9) -> Tensor:
    """[b, 16], 1 where masked, the same number in each sample."""
    index = torch.rand(num_samples, NUM_PATCHES).argsort(dim=1)[:, :num_masked]
    return torch.zeros(num_samples, NUM_PATCHES).scatter_(1, index, 1.0)


def random_masking(num_samples: int, len_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patches to keep [b, k], the order that puts all back [b, n], and 1 for each removed patch [b, n]; as in MAE."""
    noise = torch.rand(num_samples, NUM_PATCHES)
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    mask = torch.ones([num_samples, NUM_PATCHES])
    mask[:, :len_keep] = 0
    mask = torch.gather(mask, dim=1, index=ids_restore)
    return ids_shuffle[:, :len_keep], ids_restore, mask


class GPT(nn.Module):
    """Tied input and output words, as in nanoGPT; `causal=False` makes it a BERT."""

    def __init__(self, *, causal: bool = True, max_length: int = 9) -> None:
        super().__init__()
        self.causal = causal
        self.wte = nn.Embedding(NUM_WORDS, DIM)
        self.wpe = nn.Embedding(max_length, DIM)
        self.h = nn.ModuleList(Block(DIM) for _ in range(2))
        self.ln_f = nn.LayerNorm(DIM)
        self.lm_head = nn.Linear(DIM, NUM_WORDS, bias=False)
        self.lm_head.weight = self.wte.weight
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.1)

    def hidden(self, ids: Tensor) -> Tensor:
        pos = torch.arange(0, ids.shape[1], dtype=torch.long)
        x = self.wte(ids) + self.wpe(pos)
        for block in self.h:
            x = block(x, self.causal)
        return self.ln_f(x)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.hidden(ids))


class Predictor(nn.Module):
    """Context tokens and their places in, embeddings at the asked places out."""

    def __init__(self, *, num_tokens: int = NUM_PATCHES, dim: int = 14) -> None:
        super().__init__()
        self.predictor_embed = nn.Linear(DIM, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, num_tokens, dim) * 0.2, requires_grad=False)
        self.block, self.norm, self.proj = Block(dim), nn.LayerNorm(dim), nn.Linear(dim, DIM)

    def forward(self, z: Tensor, masks_enc: Tensor, masks_pred: list[Tensor]) -> Tensor:
        pos = self.pos_embed.repeat(z.shape[0], 1, 1)
        x = self.predictor_embed(z) + gather_tokens(pos, masks_enc)
        asked = torch.cat([gather_tokens(pos, mask) for mask in masks_pred], dim=0)
        x = x.repeat(len(masks_pred), 1, 1)
        num_context = x.shape[1]
        x = torch.cat([x, self.mask_token + asked], dim=1)
        return self.proj(self.norm(self.block(x))[:, num_context:])


class DINOHead(nn.Module):
    """Three layers, a bottleneck, and a last layer whose rows have length one."""

    def __init__(self, num_prototypes: int = 15) -> None:
        super().__init__()
        self.mlp = mlp(DIM, 20, 8)
        self.last_layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, num_prototypes, bias=False))
        self.last_layer.parametrizations.weight.original0.data.fill_(1)  # pyrefly: ignore[missing-attribute]
        self.last_layer.parametrizations.weight.original0.requires_grad = False  # pyrefly: ignore[missing-attribute]

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(x), dim=-1, p=2))
