"""Rows 5 to 8, and the diffusion of row 4: a prediction against noise, or against what noise hid."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import CLEAN_PIXELS
from jepalab.audit.steps.batches import pictures
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, NUM_PATCHES, PATCH_DIM, Block, ViT, adamw, frozen, mlp, patchify

NOISE = Expect(
    space="noise",
    process="denoise",
    target_learning="none",
    novelty="none",
    family="generative",
    label="GENERATIVE-NOISE",
)
VELOCITY = Expect(
    space="velocity", process="denoise", target_learning="none", family="generative", label="GENERATIVE-VELOCITY"
)


class Denoiser(nn.Module):
    """Tokens at a noise level: sinusoidal time embedding, scale and shift, one block."""

    def __init__(self, token_dim: int, dim: int = 14) -> None:
        super().__init__()
        self.embed, self.time = nn.Linear(token_dim, dim), mlp(8, 20, 2 * dim)
        self.pos_embed = nn.Parameter(torch.randn(1, NUM_PATCHES, dim) * 0.2)
        self.block, self.norm = Block(dim), nn.LayerNorm(dim, elementwise_affine=False)
        self.head = nn.Linear(dim, token_dim)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        freqs = torch.exp(-math.log(10000) * torch.arange(4) / 4)
        args = t[:, None].float() * freqs[None]
        scale, shift = self.time(torch.cat([torch.cos(args), torch.sin(args)], dim=-1)).chunk(2, dim=-1)
        h = self.block(self.embed(x) + self.pos_embed)
        h = self.norm(h) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)
        return self.head(h)


ALPHAS_CUMPROD = torch.cumprod(1.0 - torch.linspace(1e-3, 0.2, 25), dim=0)


def q_sample(x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    a = ALPHAS_CUMPROD[t].view(-1, 1, 1)
    return a.sqrt() * x + (1 - a).sqrt() * noise


@row(number=5, name="diffusion, predicts noise", verdict="generative", terms=[NOISE])
def ddpm(generator: torch.Generator) -> Row:
    """The noise that was mixed into a picture, held against the noise that was drawn: DDPM."""
    model = Denoiser(PATCH_DIM)
    average = deepcopy(model).eval().requires_grad_(False)
    optimizer = adamw({"model": model})

    def step(x: Tensor) -> Tensor:
        x_0 = patchify(x * 2 - 1)
        t = torch.randint(0, 25, (x.shape[0],))
        noise = torch.randn_like(x_0)
        loss = F.mse_loss(model(q_sample(x_0, t, noise), t), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():  # the weights one samples with later; no loss reads them
            for p_ema, p in zip(average.parameters(), model.parameters(), strict=True):
                p_ema.lerp_(p, 0.01)
        return loss

    return Row(step, {"x": pictures(generator)}, {"model": model, "average": average}, model, optimizer)


@row(number=4, name="diffusion, predicts the picture", verdict="generative", terms=[CLEAN_PIXELS])
def ddpm_x0(generator: torch.Generator) -> Row:
    """The clean picture from a noisy one, held against its pixels: diffusion that predicts x0."""
    model = Denoiser(PATCH_DIM)

    def step(x: Tensor) -> Tensor:
        x_start = patchify(x)
        t = torch.randint(0, 25, (x.shape[0],))
        model_out = model(q_sample(x_start, t, torch.randn_like(x_start)), t)
        loss = F.mse_loss(model_out, x_start, reduction="none").mean(dim=(1, 2))
        snr = ALPHAS_CUMPROD[t] / (1 - ALPHAS_CUMPROD[t])
        return (loss * snr.clamp(max=5.0)).mean()

    return Row(step, {"x": pictures(generator)}, {"model": model}, model, adamw({"model": model}))


@row(number=6, name="flow matching", verdict="generative", terms=[VELOCITY])
def flow_matching(generator: torch.Generator) -> Row:
    """The way from noise to a picture, held against the difference of the two: flow matching."""
    model = Denoiser(PATCH_DIM)

    def step(x: Tensor) -> Tensor:
        x1 = patchify(x)
        x0 = torch.randn_like(x1)
        t = torch.rand(x1.shape[0])
        xt = (1 - t.view(-1, 1, 1)) * x0 + t.view(-1, 1, 1) * x1
        ut = x1 - x0
        return torch.mean((model(xt, t) - ut) ** 2)

    return Row(step, {"x": pictures(generator)}, {"model": model}, model, adamw({"model": model}))


@row(number=6, name="v-prediction", verdict="generative", terms=[VELOCITY])
def v_prediction(generator: torch.Generator) -> Row:
    """The velocity between a picture and noise, held against its true value: diffusion with v-prediction."""
    model = Denoiser(PATCH_DIM)

    def step(batch: dict[str, Tensor]) -> Tensor:
        x = patchify(batch["x"])
        angle = torch.rand(len(x), 1, 1) * math.pi / 2
        alpha, sigma = torch.cos(angle), torch.sin(angle)
        eps = torch.randn(x.shape)
        v = alpha * eps - sigma * x
        v_pred = model(alpha * x + sigma * eps, angle.flatten())
        return F.mse_loss(v_pred, v)

    return Row(step, {"x": pictures(generator)}, {"model": model}, model, adamw({"model": model}))


IN_LATENT = {"process": "denoise", "family": "generative", "label": "GENERATIVE-IN-FROZEN-LATENT"}


@row(
    number=7,
    name="latent diffusion, predicts noise",
    verdict="generative",
    terms=[Expect(space="noise", target_learning="none", novelty="none", **IN_LATENT)],
)
def latent_diffusion(generator: torch.Generator) -> Row:
    """The noise mixed into a frozen encoder's latent, held against the noise that was drawn: latent diffusion."""
    # The first stage draws its latent too: its noise is no target.
    vae, model = frozen(nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.SiLU(), nn.Conv2d(9, 8, 2, stride=2))), None
    model = Denoiser(4)

    def step(x: Tensor) -> Tensor:
        with torch.no_grad():
            mean, logvar = vae(x).chunk(2, dim=1)
            latents = mean + torch.exp(0.5 * torch.clamp(logvar, -30.0, 20.0)) * torch.randn(mean.shape)
            latents = (latents * 0.18215).flatten(2).transpose(1, 2)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 25, (latents.shape[0],)).long()
        model_pred = model(q_sample(latents, timesteps, noise), timesteps)
        return F.mse_loss(model_pred.float(), noise.float(), reduction="mean")

    modules = {"vae": vae, "unet": model}
    return Row(step, {"x": pictures(generator)}, modules, None, adamw(modules))


@row(
    number=7,
    name="representation autoencoder, velocity",
    verdict="generative",
    terms=[Expect(space="velocity", target_learning="frozen", **IN_LATENT)],
)
def rae_velocity(generator: torch.Generator) -> Row:
    """The way from noise to a frozen encoder's embedding, held against the difference of the two: RAE."""
    modules = {"encoder": frozen(ViT()), "dit": Denoiser(DIM)}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        with torch.inference_mode():
            z = F.layer_norm(modules["encoder"](x), (DIM,))
        z = z.clone()
        x0 = torch.randn_like(z)
        t = torch.sigmoid(torch.randn(z.shape[0]))
        xt = t.view(-1, 1, 1) * x0 + (1.0 - t.view(-1, 1, 1)) * z
        loss = (modules["dit"](xt, t) - (x0 - z)).pow(2).flatten(1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, None, optimizer)


@row(
    number=8,
    name="latent diffusion, predicts the latent",
    verdict="generative",
    terms=[Expect(space="frozen-embedding", target_learning="frozen", novelty="zero", ambiguous=True, **IN_LATENT)],
)
def latent_diffusion_x0(generator: torch.Generator) -> Row:
    """A frozen encoder's latent from a noisy one, held against the clean latent: latent diffusion, predicting x0."""
    modules = {"encoder": frozen(ViT()), "denoiser": Denoiser(DIM)}

    def step(x: Tensor) -> Tensor:
        with torch.no_grad():
            z = modules["encoder"](x)
        t = torch.randint(0, 25, (z.shape[0],))
        z_t = q_sample(z, t, torch.randn_like(z))
        return F.mse_loss(modules["denoiser"](z_t, t), z)

    return Row(step, {"x": pictures(generator)}, modules, None, adamw(modules))
