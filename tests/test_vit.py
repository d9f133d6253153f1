"""The ViT against convolution + torch.nn.TransformerEncoder, and the properties that masked training relies on."""

from __future__ import annotations

from math import prod

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, scaled_dot_product_attention

from jepalab.backbones import attention
from jepalab.backbones.attention import Block, attend, attend_by_products
from jepalab.backbones.vit import ViT, patchify, sincos_positions, take_tokens, unpatchify

LAYOUTS = {1: ((6,), (2,)), 2: ((3, 4), (2, 3)), 3: ((2, 3, 2), (2, 1, 2))}


def observations(
    grid: tuple[int, ...], patch: tuple[int, ...], *, channels: int = 2, num_samples: int = 3, seed: int = 0
) -> Tensor:
    t, *picture = (g * p for g, p in zip(grid, patch, strict=True))
    shape = {1: [t, channels], 2: [1, channels, t, *picture], 3: [t, channels, *picture]}[len(grid)]
    return torch.randn(num_samples, *shape, generator=torch.Generator().manual_seed(seed))


def lively_vit(rank: int) -> ViT:
    """Every parameter far from its start, so that nothing can hide behind zeros, ones or small weights."""
    grid, patch = LAYOUTS[rank]
    vit = ViT(grid, patch=patch, channels=2, dim=24, depth=2, num_heads=3, mean=(0.5, -1.0), std=(2.0, 0.25))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return vit


def reference_outputs(vit: ViT, x: Tensor, *, visible: Tensor | None = None, causal: bool = False) -> Tensor:
    """The same function from PyTorch's own parts: a strided convolution and nn.TransformerEncoder."""
    mean, std = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.25])
    if len(vit.grid) == 1:
        pictures, convolve = (x - mean).div(std).transpose(1, 2), conv1d
    else:
        pictures = (x - mean[:, None, None]).div(std[:, None, None]).transpose(1, 2)
        pictures, convolve = (pictures[:, :, 0], conv2d) if len(vit.grid) == 2 else (pictures, conv3d)
    kernel = vit.embed.weight.view(vit.dim, 2, *vit.patch)
    z = convolve(pictures, kernel, vit.embed.bias, stride=vit.patch).flatten(2).mT + vit.positions

    layer = nn.TransformerEncoderLayer(
        vit.dim, 3, 4 * vit.dim, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(vit.dim, eps=1e-6), enable_nested_tensor=False)
    names = {"qkv.": "self_attn.in_proj_", "proj.": "self_attn.out_proj.", "fc": "linear", "blocks": "layers"}
    state = {}
    for name, value in vit.transformer.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = value
    encoder.load_state_dict(state)
    mask = nn.Transformer.generate_square_subsequent_mask(z.shape[1]) if causal else None
    hidden = (
        None if visible is None else torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, -torch.inf)
    )
    return encoder(z, mask=mask, src_key_padding_mask=hidden)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_convolution_and_torch_transformer_encoder(rank: int, causal: bool) -> None:
    vit = lively_vit(rank)
    x = observations(*LAYOUTS[rank])
    torch.testing.assert_close(vit(x, causal=causal), reference_outputs(vit, x, causal=causal), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_kept_tokens_come_out_as_if_the_others_were_hidden_from_attention(rank: int, causal: bool) -> None:
    vit = lively_vit(rank)
    x = observations(*LAYOUTS[rank])
    keep = torch.tensor([[0, 2, 3], [1, 4, 5], [0, 1, 5]])
    visible = torch.zeros(3, prod(vit.grid), dtype=torch.bool).scatter_(1, keep, True)
    wanted = reference_outputs(vit, x, visible=visible, causal=causal)
    torch.testing.assert_close(vit(x, keep, causal), take_tokens(wanted, keep), rtol=0, atol=1e-5)


def test_permuting_keep_permutes_outputs_and_keeping_all_is_keeping_none_out() -> None:
    vit = lively_vit(2)
    x = observations(*LAYOUTS[2])
    keep = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    torch.testing.assert_close(vit(x, keep), take_tokens(vit(x), keep), rtol=0, atol=1e-5)
    order = torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(vit(x, keep[:, order]), vit(x, keep[:, :4])[:, order], rtol=0, atol=1e-5)


def test_unkept_patches_change_nothing() -> None:
    vit = lively_vit(2)
    x = observations(*LAYOUTS[2])
    keep = torch.tensor([[0, 5, 11]]).expand(3, -1)
    patches = patchify(x, vit.patch)
    unseen = torch.ones(12, dtype=torch.bool)
    unseen[keep[0]] = False
    patches[:, unseen] += 100
    assert torch.equal(vit(unpatchify(patches, vit.patch, vit.grid), keep), vit(x, keep))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_causal_outputs_ignore_later_tokens_to_the_bit_and_hear_earlier_ones(rank: int) -> None:
    vit = lively_vit(rank)
    x = observations(*LAYOUTS[rank])
    patches = patchify(x, vit.patch)
    patches[:, 3] += 1
    before, after = vit(x, causal=True), vit(unpatchify(patches, vit.patch, vit.grid), causal=True)
    assert torch.equal(before[:, :3], after[:, :3])
    assert ((before[:, 3:] - after[:, 3:]).abs().amax((0, 2)) > 1e-4).all()


def test_normalises_x_by_its_buffers() -> None:
    vit, (grid, patch) = lively_vit(3), LAYOUTS[3]
    plain = ViT(grid, patch=patch, channels=2, dim=24, depth=2)
    x = observations(grid, patch)
    plain.load_state_dict(vit.state_dict() | {"mean": torch.zeros(2), "std": torch.ones(2)})
    normalised = (x - torch.tensor([0.5, -1.0])[:, None, None]) / torch.tensor([2.0, 0.25])[:, None, None]
    assert torch.equal(plain(normalised), vit(x))
    assert torch.equal(vit.patches(x), patchify(normalised, vit.patch))
    single = ViT((2,), patch=(2,), channels=3, mean=0.5, std=(2.0,))
    assert single.mean.tolist() == [0.5] * 3
    assert single.std.tolist() == [2.0] * 3


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    rank = draw(st.integers(1, 3))
    sizes = st.tuples(*[st.integers(1, 3)] * rank)
    return draw(sizes), draw(sizes), draw(st.integers(1, 3))


@settings(max_examples=40, deadline=None)
@given(layouts())
def test_every_rank_runs_and_patches_round_trip_exactly(layout: tuple[tuple[int, ...], tuple[int, ...], int]) -> None:
    grid, patch, channels = layout
    x = observations(grid, patch, channels=channels)
    vit = ViT(grid, patch=patch, channels=channels, dim=16, depth=1, num_heads=2)
    patches = vit.patches(x)
    assert patches.shape == (3, prod(grid), vit.patch_dim)
    assert torch.equal(unpatchify(patches, patch, grid), x)
    z = vit(x)
    assert z.shape == (3, prod(grid), vit.dim)
    assert z.isfinite().all()
    assert vit(x, torch.zeros(3, 1, dtype=torch.int64), causal=True).shape == (3, 1, vit.dim)


@pytest.mark.parametrize(
    ("grid", "dim"), [((1024,), 4), ((14, 14), 192), ((8, 14, 14), 192), ((4, 6, 5), 16), ((3, 5), 4)]
)
def test_positions_are_distinct(grid: tuple[int, ...], dim: int) -> None:
    positions = sincos_positions(grid, dim)
    distances = torch.cdist(positions.double(), positions.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert (distances + torch.eye(len(positions))).min() > 1e-3


def test_positions_follow_the_published_formula_along_each_axis() -> None:
    positions = sincos_positions((3, 4, 5), 20).view(3, 4, 5, 20)
    start = 0
    for axis, num_frequencies in enumerate((4, 3, 3)):  # 10 frequencies over 3 axes
        share = positions[..., start : start + 2 * num_frequencies].movedim(axis, 0)
        start += 2 * num_frequencies
        assert torch.equal(share, share[:, :1, :1].expand_as(share))
        i = torch.arange(len(share), dtype=torch.float64)
        for j in range(num_frequencies):
            angle = i / 10000 ** (j / num_frequencies)
            torch.testing.assert_close(share[:, 0, 0, j].double(), angle.sin(), rtol=0, atol=1e-7)
            torch.testing.assert_close(share[:, 0, 0, num_frequencies + j].double(), angle.cos(), rtol=0, atol=1e-7)
    assert start == 20


def test_gradient_reaches_every_parameter_and_no_buffer() -> None:
    vit = ViT((2, 2), patch=(2, 2), dim=12, depth=2, num_heads=3)
    x = observations((2, 2), (2, 2), channels=1)
    z = vit(x, torch.tensor([[0, 2]]).expand(3, -1))
    (z * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in vit.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert vit.state_dict().keys() - dict(vit.named_parameters()).keys() == {"mean", "std", "positions"}
    assert not any(buffer.requires_grad for buffer in vit.buffers())


def test_initial_weights_follow_beit() -> None:
    torch.manual_seed(0)
    vit = ViT((2,), patch=(64,), dim=192, depth=4)
    assert vit.embed.weight.std().item() == pytest.approx((2 / (64 + 192)) ** 0.5, rel=0.03)
    for level, block in enumerate(vit.transformer.blocks, start=1):
        assert isinstance(block, Block)
        shrunk = 0.02 / (2 * level) ** 0.5
        for layer, std in ((block.qkv, 0.02), (block.fc1, 0.02), (block.proj, shrunk), (block.fc2, shrunk)):
            assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
            assert not layer.bias.any()


@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16_autocast_stays_close_forward_and_backward(causal: bool) -> None:
    vit = ViT((4, 4), patch=(2, 2), dim=24, depth=3, num_heads=3)
    x = observations((4, 4), (2, 2), channels=1)
    exact = vit(x, causal=causal)
    (wanted,) = torch.autograd.grad(exact.square().mul(exact).mean(), vit.embed.weight)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = vit(x, causal=causal)
    (got,) = torch.autograd.grad(rounded.float().square().mul(rounded).mean(), vit.embed.weight)
    assert not torch.equal(rounded.float(), exact)
    assert (rounded - exact).norm() < 0.002 * exact.norm()
    assert (got - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_keys", [7, 11])
def test_explicit_products_equal_the_fused_kernel_with_gradients(
    dtype: torch.dtype, tolerance: float, causal: bool, num_keys: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 7, 5), (2, 3, num_keys, 5), (2, 3, num_keys, 5)
    q, k, v = (torch.randn(s, generator=generator, dtype=dtype).mul_(2).requires_grad_() for s in shapes)
    weights = torch.randn(2, 3, 7, 5, generator=generator, dtype=dtype)
    ours, fused = attend_by_products(q, k, v, causal), scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(ours, fused, rtol=0, atol=tolerance)
    gradients = torch.autograd.grad((ours * weights).sum(), (q, k, v))
    for got, wanted in zip(gradients, torch.autograd.grad((fused * weights).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_attend_changes_kernel_with_length_and_not_its_answer(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fused_calls = []

    def counted(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        fused_calls.append(k.shape[-2])
        return scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    for length in (512, 513):
        q, k, v = torch.randn(3, 1, 2, length, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(attend(q, k, v, causal), attend_by_products(q, k, v, causal), rtol=0, atol=1e-5)
    assert fused_calls == [513]


def test_wrong_observations_are_refused() -> None:
    refused = {
        1: [(3, 12, 3), (3, 11, 2), (3, 12)],
        2: [(3, 2, 2, 6, 12), (3, 1, 2, 12, 6), (3, 2, 6, 12)],
        3: [(3, 2, 2, 3, 4), (3, 4, 1, 3, 4)],
    }
    for rank, shapes in refused.items():
        for shape in shapes:
            with pytest.raises(ValueError, match=r"wanted x of shape .* got .*; resize"):
                lively_vit(rank)(torch.zeros(shape))


def test_patches_that_do_not_tile_are_refused() -> None:
    refused = {(2,): [(1, 5, 2), (1, 4)], (2, 2): [(1, 2, 1, 4, 4), (1, 1, 1, 4, 5)], (2, 2, 2): [(1, 3, 1, 4, 4)]}
    for patch, shapes in refused.items():
        for shape in shapes:
            with pytest.raises(ValueError, match=r"wanted x of shape .* got .*; crop"):
                patchify(torch.zeros(shape), patch)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="as many patch sizes"):
        ViT((2, 2), patch=(2,))
    for grid in ((2, 2, 2, 2), (0,)):
        with pytest.raises(ValueError, match="one positive size"):
            ViT(grid, patch=grid)
    with pytest.raises(ValueError, match="4 heads divide"):
        ViT((2,), patch=(2,), dim=6, num_heads=4)
    with pytest.raises(ValueError, match="even width"):
        ViT((2, 2, 2), patch=(1, 1, 1), dim=4, num_heads=1)
    with pytest.raises(ValueError, match="each of 3 channels"):
        ViT((2,), patch=(2,), channels=3, mean=(0.0, 1.0))
    with pytest.raises(ValueError, match="positive std"):
        ViT((2,), patch=(2,), channels=2, std=(1.0, 0.0))
    for shape in ((1, 3, 4), (1, 4, 3)):
        with pytest.raises(ValueError, match="wanted 4 patches"):
            unpatchify(torch.zeros(shape), (2, 2), (2, 2))


def test_keep_of_another_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without the shape checker, where `gather` would silently drop samples."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"each of 3 samples, got indices of shape \[2, 1\]"):
        lively_vit(1)(observations(*LAYOUTS[1]), torch.zeros(2, 1, dtype=torch.int64))


def test_mlp_ratio_sets_the_hidden_width() -> None:
    block = Block(8, num_heads=2, mlp_ratio=1.5)
    assert (block.fc1.out_features, block.fc2.in_features) == (12, 12)
