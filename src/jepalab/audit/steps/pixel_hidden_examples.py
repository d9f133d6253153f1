"""Row 3: a prediction against pixels that were not shown."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import pictures, series
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import (
    DIM,
    NUM_PATCHES,
    PATCH_DIM,
    Block,
    MaskedViT,
    ViT,
    adamw,
    patchify,
    random_mask,
    random_masking,
)

PIXELS = Expect(
    space="input",
    process="regress",
    target_learning="none",
    novelty="one",
    family="generative",
    label="GENERATIVE-INPUT",
)


class Decoder(nn.Module):
    """MAE's: mask tokens where patches are missing, its own positions, one block, pixels of every patch."""

    def __init__(self, dim: int = 14) -> None:
        super().__init__()
        self.embed = nn.Linear(DIM, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, NUM_PATCHES, dim) * 0.2, requires_grad=False)
        self.block, self.norm, self.pred = Block(dim), nn.LayerNorm(dim), nn.Linear(dim, PATCH_DIM)

    def forward(self, z: Tensor, ids_restore: Tensor) -> Tensor:
        z = self.embed(z)
        mask_tokens = self.mask_token.repeat(z.shape[0], ids_restore.shape[1] - z.shape[1], 1)
        z = torch.cat([z, mask_tokens], dim=1)
        z = torch.gather(z, dim=1, index=ids_restore.unsqueeze(-1).repeat(1, 1, z.shape[2]))
        return self.pred(self.norm(self.block(z + self.pos_embed)))


@row(number=3, name="mae", verdict="generative", terms=[PIXELS])
def mae(generator: torch.Generator) -> Row:
    """Hidden patches from the few that are shown, held against their normalised pixels: MAE."""
    modules = {"encoder": ViT(), "decoder": Decoder()}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        keep, ids_restore, mask = random_masking(x.shape[0], 4)
        pred = modules["decoder"](modules["encoder"](x, keep), ids_restore)
        target = patchify(x)
        mean = target.mean(dim=-1, keepdim=True)
        var = target.var(dim=-1, keepdim=True)
        target = (target - mean) / (var + 1.0e-6) ** 0.5
        loss = (pred - target) ** 2
        loss = loss.mean(dim=-1)
        loss = (loss * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, modules["encoder"], optimizer)


@row(number=3, name="mae, masked patches gathered", verdict="generative", terms=[PIXELS])
def mae_gathered(generator: torch.Generator) -> Row:
    """Hidden patches from the few that are shown, held against their pixels: MAE that gathers what it compares."""
    modules = {"encoder": ViT(), "decoder": Decoder()}

    def step(x: Tensor) -> Tensor:
        keep, ids_restore, mask = random_masking(x.shape[0], 5)
        pred = modules["decoder"](modules["encoder"](x, keep), ids_restore)
        removed = mask.bool()
        return F.mse_loss(pred[removed], patchify(x)[removed])

    return Row(step, {"x": pictures(generator)}, modules, modules["encoder"], adamw(modules))


@row(number=3, name="simmim", verdict="generative", terms=[PIXELS])
def simmim(generator: torch.Generator) -> Row:
    """Masked patches from the others, held against their pixels: SimMIM."""
    encoder = MaskedViT()
    decoder = nn.Sequential(nn.Conv2d(DIM, PATCH_DIM, kernel_size=1), nn.PixelShuffle(2))
    modules = {"encoder": encoder, "decoder": decoder}

    def step(x: Tensor) -> Tensor:
        mask = random_mask(x.shape[0])
        z = encoder(x, mask)
        x_rec = decoder(z.transpose(1, 2).reshape(-1, DIM, 4, 4))
        mask = mask.view(-1, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2).unsqueeze(1).contiguous()
        loss_recon = F.l1_loss(x, x_rec, reduction="none")
        return (loss_recon * mask).sum() / (mask.sum() + 1e-5) / 3

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


@row(number=3, name="next frame", verdict="generative", terms=[PIXELS])
def next_frame(generator: torch.Generator) -> Row:
    """The next frame from this one, held against its pixels: frame prediction."""
    encoder = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, DIM, 3, stride=2, padding=1))
    decoder = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(DIM, 3, 4, stride=2, padding=1))
    modules = {"encoder": encoder, "decoder": decoder}

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(decoder(encoder(x)), x_next)

    inputs = {"x": pictures(generator), "x_next": pictures(generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


@row(number=3, name="next observation of a series", verdict="generative", terms=[PIXELS])
def next_observation(generator: torch.Generator) -> Row:
    """The next observation from those before it, held against its numbers: recurrent forecasting."""
    rnn, head = nn.GRU(7, DIM, batch_first=True), nn.Linear(DIM, 7)
    modules = {"rnn": rnn, "head": head}

    def step(batch: dict[str, Tensor]) -> Tensor:
        hidden, _ = rnn(batch["x"][:, :-1])
        return F.smooth_l1_loss(head(hidden), batch["x"][:, 1:])

    return Row(step, {"x": series(generator)}, modules, rnn, adamw(modules))


@row(number=3, name="next patch", verdict="generative", terms=[PIXELS])
def next_patch(generator: torch.Generator) -> Row:
    """The next patch from the patches before it, held against its pixels: autoregressive patches, as in AIM."""
    embed, block, head = nn.Linear(PATCH_DIM, DIM), Block(DIM), nn.Linear(DIM, PATCH_DIM)
    pos = nn.Embedding(NUM_PATCHES, DIM)
    modules = {"embed": embed, "pos": pos, "block": block, "head": head}

    def step(x: Tensor) -> Tensor:
        patches = patchify(x)
        h = block(embed(patches) + pos.weight, causal=True)
        return (head(h[:, :-1]) - patches[:, 1:]).square().mean()

    return Row(step, {"x": pictures(generator)}, modules, embed, adamw(modules))
