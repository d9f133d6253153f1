"""Rows 4 and 27: a picture made again from its own embedding, against its pixels or how a frozen network sees it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import CLEAN_PIXELS, STATISTIC
from jepalab.audit.steps.batches import pictures
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, adamw, mlp

SAME_PIXELS = Expect(
    space="input",
    process="regress",
    target_learning="none",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT",
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


@row(number=4, name="autoencoder", verdict="generative", terms=[SAME_PIXELS])
def autoencoder(generator: torch.Generator) -> Row:
    """A picture from its own embedding, nothing hidden, held against the same pixels: autoencoder."""
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
    """A picture from its noisy embedding, held against its pixels, and the embedding against a normal: VAE."""
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
    """A picture from its noisy embedding, its pixels as probabilities, held against the pixels: VAE."""
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
    """The clean picture from a noisy one, held against its pixels: denoising autoencoder."""
    encoder = nn.Sequential(nn.Conv2d(3, DIM, 3, stride=2, padding=1), nn.ReLU(inplace=True))
    decoder = nn.ConvTranspose2d(DIM, 3, 4, stride=2, padding=1)
    modules = {"encoder": encoder, "decoder": decoder}

    def step(x: Tensor) -> Tensor:
        noisy = torch.clamp(x + 0.3 * torch.randn(x.shape), 0.0, 1.0)
        return F.mse_loss(decoder(encoder(noisy)), x)

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
    """A picture from its own embedding, held against the same picture in a frozen network's features: LPIPS."""
    encoder, decoder = conv_autoencoder()
    modules = {"encoder": encoder, "decoder": decoder, "lpips": Lpips().eval()}

    def step(x: Tensor) -> Tensor:
        return modules["lpips"](decoder(encoder(x)), x).mean()

    return Row(step, {"x": pictures(generator)}, modules, encoder, adamw(modules))


@row(number=27, name="pixels and lpips", verdict="generative", terms=[SAME_PIXELS, PERCEPTUAL])
def pixels_and_lpips(generator: torch.Generator) -> Row:
    """A picture from its own embedding, held against its pixels and its frozen features: L1 and LPIPS, as in VQGAN."""
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
    """A picture from its own embedding, held against it in a discriminator's features: pix2pixHD.

    The generator's half of a pix2pixHD step: the discriminator is trained by another one.
    """
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
