"""Rows 9 and 10: a prediction against what a fixed or frozen map makes of pixels: codes, gradients, a spectrum."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import pictures
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, MaskedViT, ViT, adamw, frozen, mlp, random_mask, random_masking


@row(
    number=9,
    name="beit",
    verdict="generative",
    terms=[
        Expect(
            space="token",
            process="classify-token",
            target_learning="frozen",
            novelty="positive",
            family="generative",
            label="TOKEN-PREDICTION",
        )
    ],
)
def beit(generator: torch.Generator) -> Row:
    """Masked patches from the others, held against the codes that a frozen tokenizer gives them: BEiT."""
    d_vae = frozen(nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 11, 2, stride=2)))
    encoder, lm_head = MaskedViT(), nn.Linear(DIM, 11)
    modules = {"d_vae": d_vae, "encoder": encoder, "lm_head": lm_head}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        bool_masked_pos = random_mask(x.shape[0], 7).to(torch.bool)
        with torch.no_grad():
            input_ids = torch.argmax(d_vae(x), axis=1).flatten(1)  # pyrefly: ignore[unexpected-keyword]
            labels = input_ids[bool_masked_pos]
        outputs = lm_head(encoder(x, bool_masked_pos)[bool_masked_pos])
        loss = nn.CrossEntropyLoss()(input=outputs, target=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)


FIXED_FEATURE = Expect(
    space="fixed-feature",
    process="regress",
    target_learning="none",
    novelty="positive",
    family="generative",
    label="GENERATIVE-FIXED-FEATURE",
)


class HOGLayer(nn.Module):
    """Histograms of oriented gradients in cells of one patch: the targets of MaskFeat, in which nothing is learned."""

    def __init__(self, nbins: int = 9) -> None:
        super().__init__()
        self.nbins = nbins
        weight_x = torch.FloatTensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]]).view(1, 1, 3, 3).repeat(3, 1, 1, 1)
        self.register_buffer("weight_x", weight_x)
        self.register_buffer("weight_y", weight_x.transpose(2, 3).clone())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, pad=(1, 1, 1, 1), mode="reflect")
        gx_rgb = F.conv2d(x, self.weight_x, bias=None, stride=1, padding=0, groups=3)
        gy_rgb = F.conv2d(x, self.weight_y, bias=None, stride=1, padding=0, groups=3)
        norm_rgb = torch.stack([gx_rgb, gy_rgb], dim=-1).norm(dim=-1)
        phase = torch.atan2(gx_rgb, gy_rgb) / math.pi * self.nbins
        b, c, h, w = norm_rgb.shape
        out = torch.zeros((b, c, self.nbins, h, w), dtype=torch.float)
        phase = phase.view(b, c, 1, h, w)
        out.scatter_add_(2, phase.floor().long() % self.nbins, norm_rgb.view(b, c, 1, h, w))
        out = out.unfold(3, 2, 2).unfold(4, 2, 2).sum(dim=[-1, -2])
        return F.normalize(out, p=2, dim=2).flatten(1, 2).flatten(2).transpose(1, 2)


@row(number=10, name="maskfeat", verdict="generative", terms=[FIXED_FEATURE])
def maskfeat(generator: torch.Generator) -> Row:
    """Masked patches from the others, held against histograms of their gradients: MaskFeat."""
    hog, encoder, head = HOGLayer(), MaskedViT(), nn.Linear(DIM, 27)
    modules = {"hog": hog, "encoder": encoder, "head": head}

    def step(x: Tensor) -> Tensor:
        mask = random_mask(x.shape[0], 7)
        pred = head(encoder(x, mask))
        loss = ((pred - hog(x)) ** 2).mean(dim=-1)
        return (loss * mask).sum() / mask.sum()

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


@row(number=10, name="masked spectrum", verdict="generative", terms=[FIXED_FEATURE])
def masked_spectrum(generator: torch.Generator) -> Row:
    """The spectrum of a picture from a few of its patches, held against its Fourier amplitudes: masked spectrum."""
    encoder, head = ViT(), mlp(DIM, 20, 3 * 8 * 5)
    modules = {"encoder": encoder, "head": head}

    def step(x: Tensor) -> Tensor:
        keep, _, _ = random_masking(x.shape[0], 4)
        pred = head(encoder(x, keep).mean(dim=1)).view(-1, 3, 8, 5)
        return F.l1_loss(pred, torch.log1p(torch.fft.rfft2(x, norm="ortho").abs()))

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))
