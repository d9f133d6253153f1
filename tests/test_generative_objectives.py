"""MAE, next patch, next token, denoising and masked tokens: against transformers, scikit-learn, closed forms, and the
papers' equations written out once more in float64."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.cluster import KMeans
from torch import Tensor, nn

from jepalab.auditing import audit_objective, differences
from jepalab.backbones.codebook import PatchCodebook, choose_seeds, nearest
from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.masked_denoiser import MaskedDenoiser
from jepalab.backbones.patch_heads import PatchHead, build_of_size, draw_patches
from jepalab.backbones.vit import ViT, take_blocks
from jepalab.losses import denoising
from jepalab.losses.denoising import (
    MAX_LEVEL,
    MIN_LEVEL,
    Levels,
    NoiseDrawer,
    PredictClean,
    Prediction,
    PredictNoise,
    PredictVelocity,
    logit_normal_levels,
    uniform_levels,
)
from jepalab.losses.pixels import NormChannels, NormPixels, norm_pixels, plain_pixels
from jepalab.losses.tokens import token_cross_entropy
from jepalab.masks import prefixes
from jepalab.masks.causal import Prefix
from jepalab.masks.prefixes import PrefixDrawer
from jepalab.masks.random import RandomMask
from jepalab.objectives.denoise import Denoise
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_token import MaskedToken
from jepalab.objectives.next_patch import NextPatch
from jepalab.objectives.next_token import NextToken
from jepalab.types import Batch, Mask, Objective

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is built here; nothing may be asked of the network

GRID, PATCH, CHANNELS, NUM_PIXELS, HEADS = (3, 4), (2, 2), 2, 8, 2
PARTS = (PredictNoise(), PredictVelocity(), PredictClean())


class OneMask:
    """Always the same mask: two blocks that overlap, the second one shorter, different for each sample."""

    grid = GRID

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        order = torch.stack([torch.randperm(12, generator=generator) for _ in range(num_samples)])
        context, hidden = order[:, :5].sort(1).values, order[:, 5:]
        target = torch.stack([hidden[:, :4], torch.cat([hidden[:, 2:5], hidden[:, :1]], 1)], 1)
        present = torch.ones(num_samples, 2, 4, dtype=torch.bool)
        present[:, 1, 3] = False
        return Mask(context, target, present)


def pictures(num_samples: int, generator: torch.Generator) -> Tensor:
    return torch.rand(num_samples, 1, CHANNELS, 6, 8, generator=generator)


def lively(module: nn.Module) -> None:
    """Moves every parameter far from its start, so that nothing hides behind zeros, ones or small weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)


def small_vit() -> ViT:
    return ViT(GRID, patch=PATCH, channels=CHANNELS, dim=12, depth=2, num_heads=HEADS, mean=(0.4, 0.6), std=(0.5, 0.25))


def small_mae(**options: object) -> MAE:
    decoder = MaskedPredictor(12, NUM_PIXELS, grid=GRID, width=8, depth=2, num_heads=HEADS)
    objective = MAE(small_vit(), decoder=decoder, masks=OneMask(), **options)  # type: ignore[arg-type]
    lively(objective)
    return objective


def small_next_patch(**options: object) -> NextPatch:
    head = PatchHead(12, NUM_PIXELS, width=8, depth=2)
    objective = NextPatch(small_vit(), head=head, prefix=Prefix(GRID), **options)  # type: ignore[arg-type]
    lively(objective)
    return objective


def small_next_token(num_bins: int = 4) -> NextToken:
    head = PatchHead(12, NUM_PIXELS * num_bins, width=8, depth=2)
    objective = NextToken(small_vit(), head=head, prefix=Prefix(GRID), num_bins=num_bins)
    lively(objective)
    return objective


def small_denoise(predict: Prediction, levels: Levels = logit_normal_levels) -> Denoise:
    decoder = DenoisingDecoder(12, NUM_PIXELS, grid=GRID, width=8, depth=2, num_heads=HEADS)
    objective = Denoise(small_vit(), decoder=decoder, predict=predict, levels=levels)
    lively(objective)
    return objective


def small_denoise_hidden(predict: Prediction) -> DenoiseHidden:
    decoder = MaskedDenoiser(12, NUM_PIXELS, grid=GRID, width=8, depth=2, num_heads=HEADS)
    objective = DenoiseHidden(small_vit(), decoder=decoder, masks=OneMask(), predict=predict)
    lively(objective)
    return objective


def small_masked_token(x: Tensor) -> MaskedToken:
    encoder, codebook = small_vit(), PatchCodebook(5, NUM_PIXELS)
    codebook.fit(encoder.patches(x), torch.Generator().manual_seed(0))
    predictor = MaskedPredictor(12, 5, grid=GRID, width=8, depth=2, num_heads=HEADS)
    objective = MaskedToken(encoder, predictor=predictor, codebook=codebook, masks=OneMask())
    lively(objective)
    return objective


# The networks once more, in float64, out of nothing but the equations; `w` holds the weights by name.
Weights = dict[str, Tensor]


def weights64(module: nn.Module) -> Weights:
    trained = {key: p.detach().double().requires_grad_(p.requires_grad) for key, p in module.named_parameters()}
    return trained | {key: b.double() if b.is_floating_point() else b for key, b in module.named_buffers()}


def linear64(w: Weights, name: str, z: Tensor) -> Tensor:
    return torch.einsum("oi,...i->...o", w[f"{name}.weight"], z) + w[f"{name}.bias"]


def norm64(w: Weights, name: str, z: Tensor) -> Tensor:
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu64(z: Tensor) -> Tensor:
    return z * (1 + torch.erf(z / math.sqrt(2))) / 2


def mlp64(w: Weights, name: str, z: Tensor) -> Tensor:
    return linear64(w, f"{name}.fc2", gelu64(linear64(w, f"{name}.fc1", z)))


def transformer64(w: Weights, name: str, z: Tensor, sees: Tensor) -> Tensor:
    """z [n d] of one sample; sees [n n]. Pre-norm blocks: attention (1706.03762, eq. 1) over HEADS heads, then MLP."""
    level = 0
    while f"{name}.blocks.{level}.qkv.weight" in w:
        block = f"{name}.blocks.{level}"
        q, k, v = linear64(w, f"{block}.qkv", norm64(w, f"{block}.norm1", z)).chunk(3, -1)
        size, parts = z.shape[1] // HEADS, []
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            weight = torch.exp(q[:, own] @ k[:, own].T / math.sqrt(size)) * sees
            parts.append(weight / weight.sum(1, keepdim=True) @ v[:, own])
        z = z + linear64(w, f"{block}.proj", torch.cat(parts, 1))
        z = z + mlp64(w, block, norm64(w, f"{block}.norm2", z))
        level += 1
    return norm64(w, f"{name}.norm", z)


def patches64(x: Tensor) -> Tensor:
    """One sample's raw patches [n p] in raster order, each over channel, row, column."""
    picture = x.double()[0]
    cells = [picture[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] for i in range(GRID[0]) for j in range(GRID[1])]
    return torch.stack([cell.flatten() for cell in cells])


def normalised64(x: Tensor) -> Tensor:
    mean, std = torch.tensor([0.4, 0.6]), torch.tensor([0.5, 0.25])
    return (patches64(x) - mean.double().repeat_interleave(4)) / std.double().repeat_interleave(4)


def encoder64(w: Weights, patches: Tensor, sees: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
    tokens = linear64(w, "encoder.embed", patches) + w["encoder.positions"]
    tokens = tokens if keep is None else tokens[keep]
    sees = torch.ones(len(tokens), len(tokens)) if sees is None else sees
    return transformer64(w, "encoder.transformer", tokens, sees)


def masked_predictor64(w: Weights, name: str, z: Tensor, context: Tensor, target: Tensor) -> Tensor:
    """The context's tokens and a mask token at each target's place; targets here are those that are present."""
    seen = linear64(w, f"{name}.embed", z) + w[f"{name}.positions"][context]
    asked = w[f"{name}.mask_token"] + w[f"{name}.positions"][target]
    tokens = torch.cat([seen, asked])
    tokens = transformer64(w, f"{name}.transformer", tokens, torch.ones(len(tokens), len(tokens)))
    return linear64(w, f"{name}.answer", tokens[len(seen) :])


def patch_head64(w: Weights, z: Tensor) -> Tensor:
    z = linear64(w, "head.embed", z)
    for level in range(2):
        z = z + mlp64(w, f"head.blocks.{level}", norm64(w, f"head.blocks.{level}.norm", z))
    return linear64(w, "head.answer", norm64(w, "head.norm", z))


def norm_pixels64(patches: Tensor) -> Tensor:
    """(x - mean) / (var + 1e-6)^1/2 with var over p - 1 (MAE, section 3, "reconstruction target", and its code)."""
    centred = patches - patches.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (patches.shape[-1] - 1)
    return centred / (variance + 1e-6).sqrt()


def agree(objective: Objective, batch: Batch, derive: Callable[[Weights], Tensor]) -> None:
    """The loss, and its gradient for every parameter, against the derivation's."""
    wanted_loss = derive(w := weights64(objective))
    loss = objective(batch).total
    torch.testing.assert_close(loss.double(), wanted_loss, rtol=1e-5, atol=0)
    loss.backward()
    wanted_loss.backward()
    for key, parameter in objective.named_parameters():
        assert parameter.grad is not None, key
        wanted = w[key].grad
        assert wanted is not None, key
        torch.testing.assert_close(
            parameter.grad.double(), wanted, rtol=1e-3, atol=2e-5 * float(wanted.abs().max()) + 1e-7, msg=key
        )


def drawn(sampler: OneMask, num_samples: int) -> Mask:
    """What a drawer of seed 0 draws at its first step."""
    return sampler(num_samples, torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------------------- MAE


@pytest.mark.parametrize("normalised", [True, False])
def test_mae_is_its_equation(normalised: bool, generator: torch.Generator) -> None:
    """Mean squared error on hidden patches only (2111.06377, section 3), one decoder pass for each block."""
    x = pictures(3, generator)
    objective = small_mae(target=norm_pixels if normalised else plain_pixels)
    mask = drawn(OneMask(), 3)
    assert mask.present is not None
    present = mask.present

    def derive(w: Weights) -> Tensor:
        errors = []
        for i in range(3):
            patches = normalised64(x[i])
            z = encoder64(w, patches, keep=mask.context[i])
            for block in range(2):
                target = mask.target[i, block][present[i, block]]
                wanted = norm_pixels64(patches[target]) if normalised else patches[target]
                errors.append(masked_predictor64(w, "decoder", z, mask.context[i], target) - wanted)
        return torch.cat(errors).square().mean()

    agree(objective, Batch(x=x), derive)


def test_mae_is_transformers_mae(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients of ViTMAEForPreTraining with the same weights and the same mask.

    The one thing this library leaves out is the class token, so it is hidden there from every other token, in encoder
    and decoder; all else runs as it stands.
    """
    transformers = pytest.importorskip("transformers")
    from transformers.models.vit_mae import modeling_vit_mae

    attention = modeling_vit_mae.eager_attention_forward

    def without_class_token(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: None, **options: object
    ) -> object:
        hidden = torch.zeros(k.shape[2], k.shape[2])
        hidden[1:, 0] = float("-inf")
        return attention(module, q, k, v, hidden, **options)

    monkeypatch.setattr(modeling_vit_mae, "eager_attention_forward", without_class_token)
    config = transformers.ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, image_size=8, patch_size=2,
        num_channels=3, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, layer_norm_eps=1e-6, norm_pix_loss=True, mask_ratio=0.75,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.ViTMAEForPreTraining(config)
    encoder = ViT((4, 4), patch=(2, 2), channels=3, dim=24, depth=2, num_heads=2)
    decoder = MaskedPredictor(24, 12, grid=(4, 4), width=16, depth=2, num_heads=2)
    ours = MAE(encoder, decoder=decoder, masks=RandomMask((4, 4)))
    lively(ours)
    partners = names_in_transformers(ours, theirs)
    state = dict(theirs.named_parameters())
    with torch.no_grad():
        for parameter, (keys, arrange) in partners:
            for key, part in zip(keys, arrange(parameter).chunk(len(keys)), strict=True):
                state[key].copy_(part.view_as(state[key]))
        theirs.vit.embeddings.position_embeddings[0, 1:] = encoder.positions
        theirs.decoder.decoder_pos_embed[0, 1:] = decoder.positions

    x = torch.randn(3, 1, 3, 8, 8, generator=generator)
    mask = RandomMask((4, 4))(3, torch.Generator().manual_seed(0))
    noise = torch.ones(3, 16).scatter_(1, mask.context, 0.0)  # the smallest quarter is kept
    wanted, loss = theirs(pixel_values=x[:, 0], noise=noise).loss, ours(Batch(x=x)).total
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    wanted.backward()
    loss.backward()
    compared = set()
    for parameter, (keys, arrange) in partners:
        assert parameter.grad is not None
        theirs_grad = torch.cat([state[key].grad.flatten() for key in keys])
        torch.testing.assert_close(arrange(parameter.grad).flatten(), theirs_grad, rtol=1e-4, atol=1e-7)
        compared |= {*keys}
    trained = {key for key, p in state.items() if p.requires_grad}
    assert trained - compared == {"vit.embeddings.cls_token"}


def test_normalised_pixels_of_clips_are_those_of_videomae(generator: torch.Generator) -> None:
    """The loss of VideoMAEForPreTraining, of its own predictions against our targets; colours differ in contrast."""
    transformers = pytest.importorskip("transformers")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # transformers takes no other
    config = transformers.VideoMAEConfig(
        image_size=8, patch_size=4, num_frames=4, tubelet_size=2, hidden_size=12, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=24, decoder_hidden_size=12, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=24, norm_pix_loss=True,
    )  # fmt: skip
    theirs = transformers.VideoMAEForPreTraining(config)
    contrast = torch.tensor([1.0, 0.3, 0.1])[:, None, None]
    x = contrast * torch.rand(2, 4, 3, 8, 8, generator=generator)
    seen = torch.zeros(2, 8, dtype=torch.bool)
    seen[:, 2:] = True
    found = theirs(pixel_values=(x - mean[:, None, None]) / std[:, None, None], bool_masked_pos=seen)
    patches = ViT((2, 2, 2), patch=(2, 4, 4), channels=3, dim=12, depth=1, num_heads=2).patches(x)
    target = NormChannels(3)
    by_place = target(patches)[:, 2:].unflatten(-1, (3, -1)).transpose(-1, -2).flatten(-2)  # there, channels run last
    torch.testing.assert_close((found.logits - by_place).square().mean(), found.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(target.restore(target(patches), patches), patches, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at least 2 numbers in each of a patch's 3 channels, got 3"):
        target(torch.rand(2, 3))


def names_in_transformers(
    ours: MAE, theirs: nn.Module
) -> list[tuple[nn.Parameter, tuple[list[str], Callable[[Tensor], Tensor]]]]:
    """Each parameter of ours, the names of the parts it has there, and how its rows are arranged there."""
    asis: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    # There, the numbers of a predicted patch run over row, column, channel; here over channel, row, column.
    by_row = lambda tensor: tensor.unflatten(0, (3, 4)).transpose(0, 1).flatten(0, 1)  # noqa: E731
    names = {
        "encoder.embed": "vit.embeddings.patch_embeddings.projection",
        "encoder.transformer.norm": "vit.layernorm",
        "decoder.embed": "decoder.decoder_embed",
        "decoder.transformer.norm": "decoder.decoder_norm",
        "decoder.answer": "decoder.decoder_pred",
    }
    for here, there in (("encoder", "vit.layers"), ("decoder", "decoder.decoder_layers")):
        for level in range(2):
            names |= {
                f"{here}.transformer.blocks.{level}.norm1": f"{there}.{level}.layernorm_before",
                f"{here}.transformer.blocks.{level}.norm2": f"{there}.{level}.layernorm_after",
                f"{here}.transformer.blocks.{level}.proj": f"{there}.{level}.attention.o_proj",
                f"{here}.transformer.blocks.{level}.fc1": f"{there}.{level}.mlp.fc1",
                f"{here}.transformer.blocks.{level}.fc2": f"{there}.{level}.mlp.fc2",
                f"{here}.transformer.blocks.{level}.qkv": f"{there}.{level}.attention.*_proj",
            }
    partners = []
    for key, parameter in ours.named_parameters():
        module, _, kind = key.rpartition(".")
        if key == "decoder.mask_token":
            partners.append((parameter, (["decoder.mask_token"], asis)))
            continue
        there = f"{names[module]}.{kind}"
        keys = [there.replace("*", part) for part in "qkv"] if "*" in there else [there]
        partners.append((parameter, (keys, by_row if module == "decoder.answer" else asis)))
    return partners


def test_mae_never_sees_what_it_predicts(generator: torch.Generator) -> None:
    objective, x, mask = small_mae(), pictures(2, generator), drawn(OneMask(), 2)
    hidden = torch.ones(2, 12, dtype=torch.bool).scatter_(1, mask.context, False).view(2, *GRID)
    pixels = hidden.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None, None]
    with torch.no_grad():
        before, unseen, seen = (
            objective.decoder(objective.encoder(picture, mask.context), mask)
            for picture in (x, torch.where(pixels, 1 - x, x), torch.where(pixels, x, 1 - x))
        )
    assert torch.equal(unseen, before)
    assert (seen - before).abs().amax((1, 2, 3)).min() > 1e-2


@pytest.mark.parametrize("target", [plain_pixels, norm_pixels])
def test_mae_draws_its_predictions_where_the_targets_are(
    target: Callable, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, x, mask = small_mae(target=target), pictures(3, generator), drawn(OneMask(), 3)
    perfect = objective.target(objective.vit.patches(x))
    index = mask.target.flatten(1).unsqueeze(-1).expand(-1, -1, NUM_PIXELS)
    answers = perfect.gather(1, index).unflatten(1, (2, 4))
    answers[:, 1, 3] = 100.0  # only fills the block up
    monkeypatch.setattr(objective.decoder, "forward", lambda z, mask, which: answers)
    assert objective(Batch(x=x)).total < 100  # the filling counts for nothing
    torch.testing.assert_close(objective.reconstruct(x, mask), x)

    assert mask.present is not None
    monkeypatch.setattr(objective, "target", plain_pixels)
    numbered = torch.zeros_like(answers) + torch.arange(3.0)[:, None, None, None]
    numbered[:, 1] += 10  # overlapping blocks: their mean
    monkeypatch.setattr(objective.decoder, "forward", lambda z, mask, which: numbered)
    drawn_patches = objective.vit.patches(objective.reconstruct(x, mask))
    for i in range(3):
        for place in range(12):
            said = [i + 10 * b for b in range(2) if place in mask.target[i, b][mask.present[i, b]]]
            wanted = objective.vit.patches(x)[i, place] if not said else torch.full((8,), sum(said) / len(said))
            torch.testing.assert_close(drawn_patches[i, place], wanted, rtol=0, atol=1e-5)


def test_drawn_patches_are_the_picture(generator: torch.Generator) -> None:
    encoder, x = small_vit(), pictures(2, generator)
    torch.testing.assert_close(draw_patches(encoder, encoder.patches(x)), x)


def test_normalised_pixels(generator: torch.Generator) -> None:
    patches = torch.randn(2, 5, 8, generator=generator)
    values = patches.double().numpy()
    wanted = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, ddof=1, keepdims=True) + 1e-6)
    torch.testing.assert_close(norm_pixels(patches), torch.from_numpy(wanted).float())
    torch.testing.assert_close(norm_pixels.restore(norm_pixels(patches), patches), patches)
    assert norm_pixels(torch.full((1, 8), 0.5)).eq(0).all()
    with pytest.raises(ValueError, match="no variance"):
        NormPixels()(torch.zeros(3, 1))


def test_masked_objectives_ask_for_parts_that_fit(generator: torch.Generator) -> None:
    narrow = MaskedPredictor(12, 3, grid=GRID, width=8, depth=1, num_heads=HEADS)
    with pytest.raises(ValueError, match="out_dim"):
        MAE(small_vit(), decoder=narrow, masks=OneMask())
    with pytest.raises(ValueError, match="grid"):
        MAE(small_vit(), decoder=narrow, masks=RandomMask((4, 4)))
    with pytest.raises(ValueError, match="out_dim"):
        MaskedToken(small_vit(), predictor=narrow, codebook=PatchCodebook(4, NUM_PIXELS), masks=OneMask())
    with pytest.raises(ValueError, match="grid"):
        MaskedToken(small_vit(), predictor=narrow, codebook=PatchCodebook(3, NUM_PIXELS), masks=RandomMask((4, 4)))
    with pytest.raises(ValueError, match="8 numbers"):
        MaskedToken(small_vit(), predictor=narrow, codebook=PatchCodebook(3, 7), masks=OneMask())
    for build in (
        lambda: NextPatch(small_vit(), head=PatchHead(12, 3, width=4), prefix=Prefix(GRID)),
        lambda: NextToken(small_vit(), head=PatchHead(12, 8, width=4), prefix=Prefix(GRID)),
        lambda: Denoise(small_vit(), decoder=DenoisingDecoder(12, 3, grid=GRID), predict=PredictNoise()),
    ):
        with pytest.raises(ValueError, match="out_dim"):
            build()
    for wrong in (
        lambda: NextPatch(small_vit(), head=PatchHead(12, 8, width=4), prefix=Prefix((4, 4))),
        lambda: NextToken(small_vit(), head=PatchHead(12, 128, width=4), prefix=Prefix((4, 4))),
    ):
        with pytest.raises(ValueError, match="grid"):
            wrong()
    with pytest.raises(ValueError, match="got 5"):
        NextToken(small_vit(), head=PatchHead(12, 40, width=4), prefix=Prefix(GRID), num_bins=5)


# ------------------------------------------------------------------------------------------------------ next patch


def first_lengths(num_samples: int) -> Tensor:
    return Prefix(GRID).lengths(num_samples, torch.Generator().manual_seed(0))


def sees64(length: int) -> Tensor:
    """AIM, section 3.2: token i sees token j where j <= i, or where j lies in the prefix."""
    return torch.tensor([[float(j <= i or j < length) for j in range(12)] for i in range(12)])


def test_next_patch_is_its_equation(generator: torch.Generator) -> None:
    """2401.08541, eq. 2: squared error of x_k for every k after the prefix, from the tokens before it."""
    x, objective, lengths = pictures(5, generator), small_next_patch(), first_lengths(5)

    def derive(w: Weights) -> Tensor:
        errors = []
        for i, length in enumerate(lengths.tolist()):
            patches = normalised64(x[i])
            answers = patch_head64(w, encoder64(w, patches, sees64(length)))
            errors += [answers[k - 1] - norm_pixels64(patches[k]) for k in range(length, 12)]
        return torch.stack(errors).square().mean()

    agree(objective, Batch(x=x), derive)


@pytest.mark.parametrize("length", [1, 2, 5, 11])
def test_next_patch_knows_the_past_and_nothing_else(length: int, generator: torch.Generator) -> None:
    """For every prediction that counts: to the bit the same under any change of what it predicts and what follows;
    another under a change of any patch before. Inside the prefix every token knows the whole prefix."""
    objective, x = small_next_patch(), pictures(1, generator)
    lengths = torch.tensor([length])
    token = small_next_token()
    with torch.no_grad():
        token.encoder.load_state_dict(objective.encoder.state_dict())
    predict = {
        "pixels": lambda picture: objective.predict(picture, lengths)[0],
        "tokens": lambda picture: token.logits(picture, lengths)[0, 1:],
    }
    places = torch.arange(12).view(GRID).repeat_interleave(2, 0).repeat_interleave(2, 1)
    with torch.no_grad():
        for say in predict.values():
            before = say(x)
            for changed in range(12):
                after = say(torch.where(places == changed, 1 - x, x))
                for i in range(11):  # entry i answers for patch i + 1
                    knows = changed <= i or (changed < length and i < length)
                    assert torch.equal(after[i], before[i]) != knows, (i, changed)


def test_next_patch_counts_nothing_in_the_prefix(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, x = small_next_patch(target=plain_pixels), pictures(4, generator)
    lengths, wanted = first_lengths(4), objective.vit.patches(x)[:, 1:].clone()
    for i, length in enumerate(lengths.tolist()):
        wanted[i, : length - 1] += 100
    monkeypatch.setattr(objective, "predict", lambda x, lengths: wanted)
    assert objective(Batch(x=x)).total == 0
    objective.prefix.step.zero_()
    wanted[0, int(lengths[0]) - 1] += 1  # the first patch after the prefix counts
    assert objective(Batch(x=x)).total == pytest.approx(1 / sum(12 - length for length in lengths.tolist()))


def test_prefixes_are_fresh_in_training_and_fixed_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = PrefixDrawer(Prefix((8, 8)), seed=3)
    first, second = drawer(64), drawer(64)
    assert not torch.equal(first, second)
    assert first.min() >= 1
    assert first.max() <= 63
    drawer.eval()
    assert torch.equal(drawer(64), drawer(64))
    again = PrefixDrawer(Prefix((8, 8)), seed=3)
    again(64)
    again.load_state_dict(drawer.state_dict())
    assert torch.equal(again(64), drawer(64))
    monkeypatch.setattr(prefixes, "num_processes", lambda: 2)
    parts = []
    for number in range(2):
        monkeypatch.setattr(prefixes, "rank", lambda number=number: number)
        parts.append(drawer(32))
    monkeypatch.undo()
    assert torch.equal(torch.cat(parts), drawer(64))


@pytest.mark.parametrize(("dim", "out_dim", "width", "depth"), [(192, 48, 96, 3), (192, 192, 96, 3), (384, 48, 128, 4)])
def test_heads_have_the_budget_of_a_predictor(dim: int, out_dim: int, width: int, depth: int) -> None:
    predictor = MaskedPredictor(dim, out_dim, grid=(8, 8), width=width, depth=depth, num_heads=2)
    budget = sum(p.numel() for p in predictor.parameters())
    head = build_of_size(budget, lambda width: PatchHead(dim, out_dim, width=width, depth=4))
    decoder = DenoisingDecoder(dim, out_dim, grid=(8, 8), width=width, depth=depth, num_heads=2)
    for module in (head, decoder):
        assert sum(p.numel() for p in module.parameters()) == pytest.approx(budget, rel=0.1)


def test_no_width_may_fit_a_budget() -> None:
    with pytest.raises(ValueError, match="1000 parameters within 10%"):
        build_of_size(1000, lambda width: nn.Linear(width, 16), step=256)
    assert build_of_size(1000, lambda width: nn.Linear(width, 10, bias=False)).in_features == 100


# ------------------------------------------------------------------------------------------------------ next token


def test_next_token_is_its_equation(generator: torch.Generator) -> None:
    """-sum log p(bin | patches before), over pixels and over patches after the prefix, and the first."""
    x, objective, lengths = pictures(5, generator), small_next_token(4), first_lengths(5)

    def derive(w: Weights) -> Tensor:
        surprises = []
        for i, length in enumerate(lengths.tolist()):
            answers = patch_head64(w, encoder64(w, normalised64(x[i]), sees64(length))).view(12, NUM_PIXELS, 4)
            for k in [0, *range(length, 12)]:
                logits = w["first"] if k == 0 else answers[k - 1]
                for pixel, value in enumerate(patches64(x[i])[k].tolist()):
                    odds = logits[pixel].exp()
                    surprises.append(-torch.log(odds[round(value * 255) // 64] / odds.sum()))
        return torch.stack(surprises).mean()

    agree(objective, Batch(x=x), derive)


@pytest.mark.parametrize("num_bins", [2, 4, 16, 256])
def test_uniform_logits_cost_eight_bits(num_bins: int, generator: torch.Generator) -> None:
    objective = small_next_token(num_bins)
    with torch.no_grad():
        objective.first.zero_()
        objective.head.answer.weight.zero_()
        objective.head.answer.bias.zero_()
    x = torch.randint(256, (3, 1, CHANNELS, 6, 8), generator=generator) / 255
    assert objective.bits_per_dimension(x) == pytest.approx(8, abs=1e-5)
    loss = objective(Batch(x=x)).total
    assert float(loss.detach()) == pytest.approx(math.log(num_bins), rel=1e-5)


@pytest.mark.parametrize("num_bins", [2, 16, 256])
def test_a_perfect_predictor_costs_what_a_bin_leaves_open(
    num_bins: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = small_next_token(num_bins)
    x = torch.randint(256, (3, 1, CHANNELS, 6, 8), generator=generator) / 255
    certain = nn.functional.one_hot(objective.bins(x), num_bins) * 1e4
    monkeypatch.setattr(objective, "logits", lambda x, lengths: certain)
    assert objective.bits_per_dimension(x) == pytest.approx(math.log2(256 / num_bins), abs=1e-6)


def test_bits_are_those_of_the_chain_rule(generator: torch.Generator) -> None:
    """Patch by patch, each from a picture in which it and all later ones are blank: the product of conditionals."""
    objective = small_next_token(16)
    x = torch.randint(256, (1, 1, CHANNELS, 6, 8), generator=generator) / 255
    places = torch.arange(12).view(GRID).repeat_interleave(2, 0).repeat_interleave(2, 1)
    bins, nats = objective.bins(x)[0], []
    for k in range(12):
        blank = torch.where(places >= k, 0.0, x)
        answers = objective.head(objective.vit(blank, causal=True))[0]
        logits = objective.first if k == 0 else answers[k - 1].view(NUM_PIXELS, 16)
        nats.append(-logits.detach().double().log_softmax(-1).gather(1, bins[k].unsqueeze(1)).mean())
    wanted = float(torch.stack(nats).mean()) / math.log(2) + 4
    assert objective.bits_per_dimension(x) == pytest.approx(wanted, rel=1e-5)


def test_bins_are_equal_parts_of_the_intensities(generator: torch.Generator) -> None:
    encoder = ViT((16, 16), patch=(1, 1), dim=8, depth=1, num_heads=2, mean=0.3, std=0.1)
    objective = NextToken(encoder, head=PatchHead(8, 16, width=4, depth=1), prefix=Prefix((16, 16)))
    levels = torch.randperm(256, generator=generator)
    x = (levels.to(torch.uint8).float() / 255).view(1, 1, 1, 16, 16)
    assert torch.equal(objective.bins(x).flatten(), levels // 16)
    assert objective.bins(x).unique(return_counts=True)[1].tolist() == [16] * 16
    assert objective.bins(x * 0 + 1.5).eq(15).all()
    assert objective.bins(x * 0 - 0.5).eq(0).all()
    assert math.isfinite(objective.bits_per_dimension(x))
    assert math.isnan(objective.bits_per_dimension(x * 0.9))
    assert math.isnan(objective.bits_per_dimension(x + 1))


def test_cross_entropy_weighs_rows(generator: torch.Generator) -> None:
    logits, tokens = torch.randn(2, 3, 5, generator=generator), torch.tensor([[0, 1, 2], [3, 4, 0]])
    weight = torch.tensor([[1.0, 0, 2], [0, 1, 0]])
    chances = np.exp(logits.double().numpy())
    chances /= chances.sum(-1, keepdims=True)
    surprise = -np.log(np.take_along_axis(chances, tokens.numpy()[..., None], -1))[..., 0]
    assert token_cross_entropy(logits, tokens).item() == pytest.approx(surprise.mean(), rel=1e-5)
    wanted = (surprise * weight.numpy()).sum() / 4
    assert token_cross_entropy(logits, tokens, weight).item() == pytest.approx(wanted, rel=1e-5)


# ------------------------------------------------------------------------------------------------------- denoising


def noise64(step: int, num_samples: int) -> tuple[Tensor, Tensor]:
    """What a drawer of seed 0 draws at a step, logit-normal: levels first, then noise."""
    generator = torch.Generator().manual_seed(step)
    level = torch.randn(num_samples, generator=generator).sigmoid().clamp(0.01, 0.99)
    return level.double(), torch.randn(num_samples, 12, NUM_PIXELS, generator=generator).double()


@pytest.mark.parametrize("predict", PARTS, ids=lambda part: part.name)
def test_denoising_is_its_equation(predict: Prediction, generator: torch.Generator) -> None:
    """x_t = (1 - t) x + t eps (2209.03003); the decoder is told t as a sine-cosine position of 1000 t (2006.11239)."""
    x, objective = pictures(3, generator), small_denoise(predict)

    def derive(w: Weights) -> Tensor:
        errors, (levels, noises) = [], noise64(0, 3)
        for i in range(3):
            t, noise, clean = levels[i], noises[i], normalised64(x[i])
            z = encoder64(w, (1 - t) * clean + t * noise)
            angles = [1000 * t * 10000 ** (-j / 4) for j in range(4)]
            waves = torch.stack([angle.sin() for angle in angles] + [angle.cos() for angle in angles])
            told = linear64(w, "decoder.level.fc2", gelu64(linear64(w, "decoder.level.fc1", waves)))
            tokens = linear64(w, "decoder.embed", z) + w["decoder.positions"] + told
            answer = linear64(w, "decoder.answer", transformer64(w, "decoder.transformer", tokens, torch.ones(12, 12)))
            errors.append(answer - {"noise": noise, "velocity": noise - clean, "clean": clean}[predict.name])
        return torch.stack(errors).square().mean()

    agree(objective, Batch(x=x), derive)


@pytest.mark.parametrize("predict", PARTS, ids=lambda part: part.name)
def test_denoising_of_hidden_patches_is_its_equation(predict: Prediction, generator: torch.Generator) -> None:
    """As above, of hidden patches alone; the encoder reads the others clean, and is not told the level (2304.03283)."""
    x, objective = pictures(3, generator), small_denoise_hidden(predict)
    mask = OneMask()(3, torch.Generator().manual_seed(0))

    def derive(w: Weights) -> Tensor:
        errors, (levels, noises) = [], noise64(0, 3)
        for i in range(3):
            t, noise, clean, seen = levels[i], noises[i], normalised64(x[i]), mask.context[i]
            z = encoder64(w, clean, keep=seen)
            angles = [1000 * t * 10000 ** (-j / 4) for j in range(4)]
            waves = torch.stack([angle.sin() for angle in angles] + [angle.cos() for angle in angles])
            told = linear64(w, "decoder.level.fc2", gelu64(linear64(w, "decoder.level.fc1", waves)))
            context = linear64(w, "decoder.embed", z) + w["decoder.positions"][seen]
            for place, present in zip(mask.target[i], mask.present[i], strict=True):  # type: ignore[index, arg-type]
                asked = place[present]
                noisy = linear64(w, "decoder.embed_noisy", (1 - t) * clean[asked] + t * noise[asked])
                tokens = torch.cat([context, noisy + w["decoder.positions"][asked] + told])
                tokens = transformer64(w, "decoder.transformer", tokens, torch.ones(len(tokens), len(tokens)))
                answer = linear64(w, "decoder.answer", tokens[len(context) :])
                wanted = {"noise": noise, "velocity": noise - clean, "clean": clean}[predict.name][asked]
                errors.append((answer - wanted).flatten())
        return torch.cat(errors).square().mean()

    agree(objective, Batch(x=x), derive)


def test_what_is_seen_stays_and_what_is_hidden_is_drawn(generator: torch.Generator) -> None:
    x, objective = pictures(3, generator), small_denoise_hidden(PredictVelocity())
    mask = OneMask()(3, torch.Generator().manual_seed(0))
    drawn = objective.imagine(x, generator=generator, mask=mask, num_steps=3)
    change = (objective.vit.patches(drawn) - objective.vit.patches(x)).abs().amax(-1)
    hidden = torch.zeros(3, 12, dtype=torch.bool).scatter_(1, mask.target.flatten(1), True)
    assert (change[~hidden] < 1e-5).all()
    assert (change[hidden] > 1e-3).all()
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_a_perfect_answer_draws_the_hidden_patches(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, objective = pictures(3, generator), small_denoise_hidden(PredictClean())
    mask = OneMask()(3, torch.Generator().manual_seed(0))
    clean = objective.vit.patches(x)
    truth = clean.gather(1, mask.target.flatten(1)[..., None].expand(-1, -1, NUM_PIXELS)).unflatten(1, (2, 4))
    monkeypatch.setattr(objective.decoder, "forward", lambda *_: truth)
    torch.testing.assert_close(objective.imagine(x, generator=generator, mask=mask, num_steps=4), x)
    assert objective(Batch(x=x)).total < 1e-9


@pytest.mark.parametrize("predict", [PredictNoise(), PredictClean()], ids=lambda part: part.name)
def test_each_part_compares_what_it_says(predict: Prediction) -> None:
    class Part(Denoise):
        """With this part."""

        @classmethod
        def tiny(cls) -> tuple[Objective, Batch]:
            tiny, batch = Denoise.tiny()
            assert isinstance(tiny, Denoise)
            return Denoise(tiny.vit, decoder=tiny.decoder, predict=predict), batch

    found = audit_objective(Part, steps=1)
    assert not differences(found, Part)
    assert [term.name for term in found.terms] == [predict.name]


@pytest.mark.parametrize("predict", PARTS, ids=lambda part: part.name)
def test_a_perfect_answer_costs_nothing_and_gives_the_clean_picture(
    predict: Prediction, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, objective = pictures(4, generator), small_denoise(predict, uniform_levels)
    clean = objective.vit.patches(x)
    seen: list[tuple[Tensor, Tensor]] = []

    def answer(noisy: Tensor, level: Tensor) -> Tensor:
        """From x_t and t alone, by solving x_t = (1 - t) x + t eps for eps."""
        seen.append((noisy, level))
        t = level[:, None, None]
        noise = (noisy - (1 - t) * clean) / t
        return {"noise": noise, "velocity": (noisy - clean) / t, "clean": clean}[predict.name]

    monkeypatch.setattr(objective, "answer", answer)
    assert objective(Batch(x=x)).total < 1e-6
    noisy, level = seen[0]
    t = level[:, None, None]
    torch.testing.assert_close(predict.to_clean(answer(noisy, level), noisy, t), clean, rtol=1e-3, atol=1e-3)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = (1 - t) * clean + t * noise
    for part in PARTS:  # the three say the same thing
        torch.testing.assert_close(part.to_clean(part.target(clean, noise, t), noisy, t), clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("predict", PARTS, ids=lambda part: part.name)
def test_sampling_with_an_oracle_gives_the_data(
    predict: Prediction, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E[x | x_t] of a set of pictures is their mean weighted by N(x_t; (1 - t) x, t^2); its samples are the set."""
    data = torch.stack([torch.full((1, CHANNELS, 6, 8), 0.25), torch.full((1, CHANNELS, 6, 8), 0.75)])
    objective = small_denoise(predict)
    known = objective.vit.patches(data)

    def answer(noisy: Tensor, level: Tensor, known: Tensor = known) -> Tensor:
        t = level[:, None, None]
        away = (noisy[:, None] - (1 - t[:, None]) * known).square().sum((2, 3))
        clean = torch.einsum("bk,knp->bnp", (-away / (2 * level.square().unsqueeze(1))).softmax(1), known)
        noise = (noisy - (1 - t) * clean) / t
        return predict.target(clean, noise, t)

    monkeypatch.setattr(objective, "answer", answer)
    samples = objective.sample(64, generator=generator, num_steps=20)
    assert samples.shape == (64, 1, CHANNELS, 6, 8)
    distance = (samples[:, None] - data).abs().amax((2, 3, 4, 5))
    assert distance.min(1).values.max() < 1e-3
    assert 0.25 < float((distance.argmin(1) == 0).float().mean()) < 0.75

    monkeypatch.setattr(objective, "answer", lambda noisy, level: answer(noisy, level, known[:1]))
    torch.testing.assert_close(
        objective.sample(3, generator=generator, num_steps=5), data[:1].expand(3, -1, -1, -1, -1), rtol=0, atol=1e-3
    )


def test_sampling_a_gaussian_gives_its_mean_and_spread(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x ~ N(m, s^2) for every number alone: E[x | x_t] = m + (1 - t) s^2 (x_t - (1 - t) m) / ((1 - t)^2 s^2 + t^2)."""
    encoder = ViT(GRID, patch=PATCH, channels=CHANNELS, dim=12, depth=1, num_heads=HEADS, mean=0.5, std=0.25)
    decoder = DenoisingDecoder(12, NUM_PIXELS, grid=GRID, width=8, depth=1, num_heads=HEADS)
    objective = Denoise(encoder, decoder=decoder, predict=PredictClean())
    m, s = 0.2, 0.4  # in the encoder's units

    def answer(noisy: Tensor, level: Tensor) -> Tensor:
        t = level[:, None, None]
        return m + (1 - t) * s**2 * (noisy - (1 - t) * m) / ((1 - t) ** 2 * s**2 + t**2)

    monkeypatch.setattr(objective, "answer", answer)
    samples = encoder.patches(objective.sample(200, generator=generator, num_steps=400)).flatten()
    assert float(samples.mean()) == pytest.approx(m, abs=0.02)
    assert float(samples.std()) == pytest.approx(s, abs=0.02)


def test_levels_have_their_distributions(generator: torch.Generator) -> None:
    uniform, logit_normal = uniform_levels(4000, generator), logit_normal_levels(4000, generator)
    wide = stats.uniform(MIN_LEVEL, MAX_LEVEL - MIN_LEVEL)
    assert stats.kstest(uniform.numpy(), wide.cdf).pvalue > 1e-3
    assert stats.kstest(logit_normal.logit().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(logit_normal.numpy(), wide.cdf).pvalue < 1e-6


def test_noise_is_fresh_in_training_and_fixed_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    like, drawer = torch.zeros(4, 3, 2), NoiseDrawer(uniform_levels, seed=5)
    (level, noise), (later_level, later_noise) = drawer(like), drawer(like)
    assert not torch.equal(level, later_level)
    assert not torch.equal(noise, later_noise)
    drawer.eval()
    first, second = drawer(like), drawer(like)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    monkeypatch.setattr(denoising, "num_processes", lambda: 2)
    parts = []
    for number in range(2):
        monkeypatch.setattr(denoising, "rank", lambda number=number: number)
        parts.append(drawer(like[:2]))
    assert torch.equal(torch.cat([part[0] for part in parts]), first[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), first[1])


def test_samples_come_from_the_generator_alone(generator: torch.Generator) -> None:
    objective = small_denoise(PredictVelocity())
    state = generator.get_state()
    first = objective.sample(2, generator=generator, num_steps=3)
    assert not torch.equal(objective.sample(2, generator=generator, num_steps=3), first)
    generator.set_state(state)
    assert torch.equal(objective.sample(2, generator=generator, num_steps=3), first)
    assert int(objective.noise.step) == 0


# ---------------------------------------------------------------------------------------------------- masked token


def test_masked_token_is_its_equation(generator: torch.Generator) -> None:
    """2106.08254, eq. 1: -log p(code) at the hidden places, codes by the nearest centre."""
    x = pictures(3, generator)
    objective, mask = small_masked_token(x), drawn(OneMask(), 3)
    assert mask.present is not None
    present = mask.present

    def derive(w: Weights) -> Tensor:
        surprises = []
        for i in range(3):
            patches = normalised64(x[i])
            away = (patches[:, None] - w["codebook.codes"]).square().sum(-1)
            z = encoder64(w, patches, keep=mask.context[i])
            for block in range(2):
                target = mask.target[i, block][present[i, block]]
                odds = masked_predictor64(w, "predictor", z, mask.context[i], target).exp()
                for row, place in enumerate(target.tolist()):
                    surprises.append(-torch.log(odds[row, int(away[place].argmin())] / odds[row].sum()))
        return torch.stack(surprises).mean()

    agree(objective, Batch(x=x), derive)


def test_codes_before_fit_are_refused(generator: torch.Generator) -> None:
    objective, x = small_masked_token(pictures(3, generator)), pictures(2, generator)
    objective.codebook = PatchCodebook(5, NUM_PIXELS)
    with pytest.raises(ValueError, match="not fitted"):
        objective(Batch(x=x))
    objective.load_state_dict(small_masked_token(x).state_dict())  # a fitted one travels with the state
    assert objective(Batch(x=x)).total.isfinite()


def test_codebook_is_scikit_learns_kmeans_from_the_same_seeds(generator: torch.Generator) -> None:
    patches = torch.randn(300, 6, generator=generator)
    state = generator.get_state()
    seeds = choose_seeds(patches, 7, generator)
    generator.set_state(state)
    codebook = PatchCodebook(7, 6)
    spread = codebook.fit(patches.view(3, 100, 6), generator, max_iterations=300)
    wanted = KMeans(7, init=seeds.numpy(), n_init=1, tol=0, algorithm="lloyd", max_iter=300).fit(patches.numpy())
    assert spread * 300 == pytest.approx(wanted.inertia_, rel=1e-4)
    torch.testing.assert_close(codebook.codes, torch.from_numpy(wanted.cluster_centers_), rtol=0, atol=1e-4)
    assert codebook(patches.view(3, 100, 6)).flatten().tolist() == wanted.labels_.tolist()


def test_codebook_finds_clusters_as_well_as_scikit_learn(generator: torch.Generator) -> None:
    centres = 20 * torch.randn(8, 12, generator=generator)
    truth = torch.randint(8, (500,), generator=generator)
    patches = centres[truth] + torch.randn(500, 12, generator=generator)
    codebook = PatchCodebook(8, 12)
    spread = codebook.fit(patches, generator)
    best = KMeans(8, n_init=10, random_state=0).fit(patches.numpy()).inertia_
    assert spread * 500 <= 1.001 * best
    assert len({*zip(truth.tolist(), codebook(patches[None])[0].tolist(), strict=True)}) == 8


def test_nearest_code_is_exact_and_float32_under_autocast(generator: torch.Generator) -> None:
    rows, codes = torch.randn(9000, 4, generator=generator), torch.randn(50, 4, generator=generator)
    away = torch.cdist(rows.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist")
    with torch.autocast("cpu", torch.bfloat16):
        index, distances = nearest(rows, codes)
    assert (index == away.argmin(1)).float().mean() > 0.9995  # but for ties within rounding
    torch.testing.assert_close(distances, away.min(1).values.square().float(), rtol=1e-4, atol=1e-5)


def test_a_code_that_loses_its_patches_gets_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from jepalab.backbones import codebook as module

    patches = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    poor = torch.tensor([[0.0], [100.0], [200.0]])  # two seeds that no patch is near
    monkeypatch.setattr(module, "choose_seeds", lambda rows, num_codes, generator: poor)
    codebook = PatchCodebook(3, 1)
    codebook.fit(patches, torch.Generator())
    assert sorted(codebook.codes.flatten().tolist()) == pytest.approx([0.05, 5.05, 9.0])


def test_codebook_asks_for_patches_that_differ() -> None:
    few = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).repeat(10, 1)
    with pytest.raises(ValueError, match="only 2 of 20"):
        PatchCodebook(3, 2).fit(few, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="got 2"):
        PatchCodebook(2, 3).fit(few, torch.Generator())
    with pytest.raises(ValueError, match="at least 2"):
        PatchCodebook(1, 3)


def test_every_drawn_step_is_in_the_state(generator: torch.Generator) -> None:
    """A copy that reads the state goes on with the very draws that the original would have made next."""
    x = pictures(3, generator)
    batch = Batch(x=x)
    for build in (
        small_mae,
        small_next_patch,
        small_next_token,
        lambda: small_masked_token(x),
        *(lambda part=part: small_denoise(part) for part in PARTS),
    ):
        objective, copied = build(), build()
        first = objective(batch).total.detach()
        objective(batch)
        copied.load_state_dict(objective.state_dict())
        wanted = objective(batch).total
        assert torch.equal(copied(replace(batch)).total, wanted)
        assert not torch.equal(wanted, first)


def test_a_predictor_of_another_grid_is_refused() -> None:
    codebook = PatchCodebook(5, NUM_PIXELS)
    predictor = MaskedPredictor(12, 5, grid=(4, 3), width=8, depth=2, num_heads=HEADS)
    with pytest.raises(ValueError, match=r"grid \(3, 4\), the predictor was built for \(4, 3\)"):
        MaskedToken(small_vit(), predictor=predictor, codebook=codebook, masks=OneMask())


def test_several_masks_count_alike_each_with_its_token(generator: torch.Generator) -> None:
    """The term is the mean of what it is under each mask alone, asked for with that mask's token."""
    x, encoder = pictures(4, generator), small_vit()
    decoder = MaskedPredictor(12, NUM_PIXELS, grid=GRID, width=8, num_heads=HEADS, num_mask_tokens=2)
    few, many = RandomMask(encoder.grid, share=0.25), RandomMask(encoder.grid, share=0.75)
    both = MAE(encoder, decoder=decoder, masks=(few, many)).eval()
    with torch.no_grad():
        decoder.mask_token[1] += 1.0
        found = both.terms(Batch(x))["reconstruct"]
        alone = []
        for which, drawer in enumerate((both.masks, *both.further_masks)):
            mask = drawer(4)
            hidden = take_blocks(encoder.patches(x), mask.target)
            answer = decoder(encoder(x, mask.context), mask, which)
            alone.append((answer - norm_pixels(hidden)).square().mean())
    torch.testing.assert_close(found, sum(alone) / 2)
    with pytest.raises(ValueError, match="num_mask_tokens=3"):
        MAE(encoder, decoder=decoder, masks=(few, many, few))
