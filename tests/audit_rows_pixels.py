"""Rows 3, 4, 9, 10 and 27: predictions against pixels, or against what a fixed or frozen map makes of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit_networks import (
    DIM,
    NUM_PATCHES,
    PATCH_DIM,
    Block,
    MaskedViT,
    ViT,
    adamw,
    frozen,
    mlp,
    patchify,
    random_mask,
    random_masking,
)
from audit_rows import STATISTIC, Expect, Row, pictures, row, series

PIXELS = Expect(
    space="input",
    process="regress",
    target_learning="none",
    novelty="one",
    family="generative",
    label="GENERATIVE-INPUT",
)
SAME_PIXELS = Expect(
    space="input",
    process="regress",
    target_learning="none",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT",
)
CLEAN_PIXELS = Expect(
    space="input",
    process="denoise",
    target_learning="none",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT",
)
FIXED_FEATURE = Expect(
    space="fixed-feature",
    process="regress",
    target_learning="none",
    novelty="positive",
    family="generative",
    label="GENERATIVE-FIXED-FEATURE",
)
PERCEPTUAL = Expect(
    space=("frozen-embedding", "input"),
    process="regress",
    target_learning="frozen",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT (perceptual)",
    ambiguous=True,
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
    modules = {"encoder": ViT(), "decoder": Decoder()}

    def step(x: Tensor) -> Tensor:
        keep, ids_restore, mask = random_masking(x.shape[0], 5)
        pred = modules["decoder"](modules["encoder"](x, keep), ids_restore)
        removed = mask.bool()
        return F.mse_loss(pred[removed], patchify(x)[removed])

    return Row(step, {"x": pictures(generator)}, modules, modules["encoder"], adamw(modules))


@row(number=3, name="simmim", verdict="generative", terms=[PIXELS])
def simmim(generator: torch.Generator) -> Row:
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
    encoder = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, DIM, 3, stride=2, padding=1))
    decoder = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(DIM, 3, 4, stride=2, padding=1))
    modules = {"encoder": encoder, "decoder": decoder}

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(decoder(encoder(x)), x_next)

    inputs = {"x": pictures(generator), "x_next": pictures(generator)}
    return Row(step, inputs, modules, encoder, adamw(modules))


@row(number=3, name="next observation of a series", verdict="generative", terms=[PIXELS])
def next_observation(generator: torch.Generator) -> Row:
    rnn, head = nn.GRU(7, DIM, batch_first=True), nn.Linear(DIM, 7)
    modules = {"rnn": rnn, "head": head}

    def step(batch: dict[str, Tensor]) -> Tensor:
        hidden, _ = rnn(batch["x"][:, :-1])
        return F.smooth_l1_loss(head(hidden), batch["x"][:, 1:])

    return Row(step, {"x": series(generator)}, modules, rnn, adamw(modules))


@row(number=3, name="next patch", verdict="generative", terms=[PIXELS])
def next_patch(generator: torch.Generator) -> Row:
    embed, block, head = nn.Linear(PATCH_DIM, DIM), Block(DIM), nn.Linear(DIM, PATCH_DIM)
    pos = nn.Embedding(NUM_PATCHES, DIM)
    modules = {"embed": embed, "pos": pos, "block": block, "head": head}

    def step(x: Tensor) -> Tensor:
        patches = patchify(x)
        h = block(embed(patches) + pos.weight, causal=True)
        return (head(h[:, :-1]) - patches[:, 1:]).square().mean()

    return Row(step, {"x": pictures(generator)}, modules, embed, adamw(modules))


@row(number=4, name="autoencoder", verdict="generative", terms=[SAME_PIXELS])
def autoencoder(generator: torch.Generator) -> Row:
    encoder, decoder = nn.Sequential(nn.Flatten(), mlp(192, 20, DIM)), mlp(DIM, 20, 192)
    modules = {"encoder": encoder, "decoder": decoder}

    def step(x: Tensor) -> Tensor:
        return nn.MSELoss()(decoder(encoder(x)).view_as(x), x)

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


def vae_networks() -> tuple[dict[str, nn.Module], nn.Module, nn.Module]:
    encoder, decoder = nn.Sequential(nn.Flatten(), mlp(192, 20, 2 * DIM)), mlp(DIM, 20, 192)
    return {"encoder": encoder, "decoder": decoder}, encoder, decoder


@row(number=4, name="vae", verdict="generative", terms=[SAME_PIXELS, STATISTIC])
def vae(generator: torch.Generator) -> Row:
    modules, encoder, decoder = vae_networks()

    def step(x: Tensor) -> dict[str, Tensor]:
        mu, log_var = encoder(x).chunk(2, dim=1)
        std = torch.exp(0.5 * log_var)
        z = mu + std * torch.randn_like(std)
        recons_loss = F.mse_loss(decoder(z).view(-1, 3, 8, 8), x)
        kld_loss = torch.mean(-0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp(), dim=1), dim=0)
        loss = recons_loss + 0.005 * kld_loss
        return {"loss": loss, "recons": recons_loss.detach(), "kld": kld_loss.detach()}

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


@row(
    number=4,
    name="vae with Bernoulli pixels",
    verdict="generative",
    terms=[
        Expect(space="input", process=("regress", "classify-token"), novelty="zero", label="GENERATIVE-INPUT"),
        STATISTIC,
    ],
)
def vae_bernoulli(generator: torch.Generator) -> Row:
    modules, encoder, decoder = vae_networks()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def step(x: Tensor) -> float:
        optimizer.zero_grad()
        mu, logvar = encoder(x).split(DIM, dim=-1)
        q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
        recon = torch.sigmoid(decoder(q.rsample()))
        bce = F.binary_cross_entropy(recon, x.view(-1, 192), reduction="sum")
        prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        kld = torch.distributions.kl_divergence(q, prior).sum()
        loss = bce + kld
        loss.backward()
        optimizer.step()
        return loss.item() / len(x)

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)


@row(number=4, name="denoising autoencoder", verdict="generative", terms=[CLEAN_PIXELS])
def denoising_autoencoder(generator: torch.Generator) -> Row:
    encoder = nn.Sequential(nn.Conv2d(3, DIM, 3, stride=2, padding=1), nn.ReLU(inplace=True))
    decoder = nn.ConvTranspose2d(DIM, 3, 4, stride=2, padding=1)
    modules = {"encoder": encoder, "decoder": decoder}

    def step(x: Tensor) -> Tensor:
        noisy = torch.clamp(x + 0.3 * torch.randn(x.shape), 0.0, 1.0)
        return F.mse_loss(decoder(encoder(noisy)), x)

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


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
    d_vae = frozen(nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 11, 2, stride=2)))
    encoder, lm_head = MaskedViT(), nn.Linear(DIM, 11)
    modules = {"d_vae": d_vae, "encoder": encoder, "lm_head": lm_head}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        bool_masked_pos = random_mask(x.shape[0], 7).to(torch.bool)
        with torch.no_grad():
            input_ids = torch.argmax(d_vae(x), axis=1).flatten(1)
            labels = input_ids[bool_masked_pos]
        outputs = lm_head(encoder(x, bool_masked_pos)[bool_masked_pos])
        loss = nn.CrossEntropyLoss()(input=outputs, target=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)


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
    encoder, head = ViT(), mlp(DIM, 20, 3 * 8 * 5)
    modules = {"encoder": encoder, "head": head}

    def step(x: Tensor) -> Tensor:
        keep, _, _ = random_masking(x.shape[0], 4)
        pred = head(encoder(x, keep).mean(dim=1)).view(-1, 3, 8, 5)
        return F.l1_loss(pred, torch.log1p(torch.fft.rfft2(x, norm="ortho").abs()))

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


class Lpips(nn.Module):
    """Distance of normalised features of a frozen network, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1 = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU())
        self.slice2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(9, 11, 3, padding=1), nn.ReLU())
        self.lin1, self.lin2 = nn.Conv2d(9, 1, 1, bias=False), nn.Conv2d(11, 1, 1, bias=False)
        for lin in (self.lin1, self.lin2):
            lin.weight.data.abs_()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        h0, h1 = input - self.shift, target - self.shift
        val = torch.zeros(len(input), 1, 1, 1)
        for part, lin in ((self.slice1, self.lin1), (self.slice2, self.lin2)):
            h0, h1 = part(h0), part(h1)
            unit0 = h0 / (torch.sqrt(torch.sum(h0**2, dim=1, keepdim=True)) + 1e-10)
            unit1 = h1 / (torch.sqrt(torch.sum(h1**2, dim=1, keepdim=True)) + 1e-10)
            val = val + lin((unit0 - unit1) ** 2).mean([2, 3], keepdim=True)
        return val


def conv_autoencoder() -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Conv2d(3, DIM, 3, stride=2, padding=1), nn.SiLU())
    return encoder, nn.ConvTranspose2d(DIM, 3, 4, stride=2, padding=1)


@row(number=27, name="lpips", verdict="generative", terms=[PERCEPTUAL])
def lpips(generator: torch.Generator) -> Row:
    encoder, decoder = conv_autoencoder()
    modules = {"encoder": encoder, "decoder": decoder, "lpips": Lpips().eval()}

    def step(x: Tensor) -> Tensor:
        return modules["lpips"](decoder(encoder(x)), x).mean()

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


@row(number=27, name="pixels and lpips", verdict="generative", terms=[SAME_PIXELS, PERCEPTUAL])
def pixels_and_lpips(generator: torch.Generator) -> Row:
    encoder, decoder = conv_autoencoder()
    perceptual = Lpips().eval()
    modules = {"encoder": encoder, "decoder": decoder, "perceptual": perceptual}
    optimizer = adamw(modules)

    def step(x: Tensor) -> dict[str, float]:
        xrec = decoder(encoder(x))
        rec_loss = torch.abs(x.contiguous() - xrec.contiguous()).mean()
        p_loss = perceptual(x.contiguous(), xrec.contiguous()).mean()
        loss = rec_loss + 1.0 * p_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"total": loss.item(), "rec": rec_loss.item(), "p": p_loss.item()}

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)


@row(number=27, name="feature matching", verdict="generative", terms=[PERCEPTUAL])
def feature_matching(generator: torch.Generator) -> Row:
    """The generator's half of a pix2pixHD step: the discriminator is trained by another one."""
    encoder, decoder = conv_autoencoder()
    d1, d2 = nn.Conv2d(3, 9, 4, stride=2, padding=1), nn.Conv2d(9, 11, 4, stride=2, padding=1)
    discriminator = nn.ModuleList([d1, d2]).requires_grad_(False)
    modules = {"encoder": encoder, "decoder": decoder, "discriminator": discriminator}

    def features(x: Tensor) -> list[Tensor]:
        h1 = F.leaky_relu(d1(x), 0.2)
        return [h1, F.leaky_relu(d2(h1), 0.2)]

    def step(x: Tensor) -> Tensor:
        pred_fake, pred_real = features(decoder(encoder(x))), features(x)
        loss_feat = torch.zeros(1)
        for fake, real in zip(pred_fake, pred_real, strict=True):
            loss_feat = loss_feat + F.l1_loss(fake, real.detach()) * 10.0 / 2
        return loss_feat.sum()

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))
