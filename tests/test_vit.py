"""The ViT against convolution + torch.nn.TransformerEncoder, and the properties that masked training relies on."""

from __future__ import annotations

from math import prod
from typing import get_args

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, scaled_dot_product_attention

from jepalab.backbones import attention
from jepalab.backbones.attention import Block, attend, attend_by_products
from jepalab.backbones.positions import Positions, rotate
from jepalab.backbones.vit import ViT, patchify, take_tokens, unpatchify

LAYOUTS = {1: ((6,), (2,)), 2: ((3, 4), (2, 3)), 3: ((2, 3, 2), (2, 1, 2))}
POSITIONS: tuple[Positions, ...] = get_args(Positions)


def observations(
    grid: tuple[int, ...], patch: tuple[int, ...], *, channels: int = 2, num_samples: int = 3, seed: int = 0
) -> Tensor:
    t, *picture = (g * p for g, p in zip(grid, patch, strict=True))
    shape = {1: [t, channels], 2: [1, channels, t, *picture], 3: [t, channels, *picture]}[len(grid)]
    return torch.randn(num_samples, *shape, generator=torch.Generator().manual_seed(seed))


def lively_vit(rank: int, positions: Positions = "sincos") -> ViT:
    """Every parameter far from its start, so that nothing can hide behind zeros, ones or small weights."""
    grid, patch = LAYOUTS[rank]
    mean, std = (0.5, -1.0), (2.0, 0.25)
    num_heads = 3 if positions == "sincos" else 2  # two frequencies for each of three axes
    vit = ViT(
        grid, patch=patch, channels=2, dim=24, depth=2, num_heads=num_heads, mean=mean, std=std, positions=positions
    )
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


@pytest.mark.parametrize("positions", POSITIONS)
def test_permuting_keep_permutes_outputs_and_keeping_all_is_keeping_none_out(positions: Positions) -> None:
    vit = lively_vit(2, positions)
    x = observations(*LAYOUTS[2])
    keep = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    torch.testing.assert_close(vit(x, keep), take_tokens(vit(x), keep), rtol=0, atol=1e-5)
    order = torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(vit(x, keep[:, order]), vit(x, keep[:, :4])[:, order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_unkept_patches_change_nothing(positions: Positions) -> None:
    vit = lively_vit(2, positions)
    x = observations(*LAYOUTS[2])
    keep = torch.tensor([[0, 5, 11]]).expand(3, -1)
    patches = patchify(x, vit.patch)
    unseen = torch.ones(12, dtype=torch.bool)
    unseen[keep[0]] = False
    patches[:, unseen] += 100
    assert torch.equal(vit(unpatchify(patches, vit.patch, vit.grid), keep), vit(x, keep))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("positions", POSITIONS)
def test_causal_outputs_ignore_later_tokens_to_the_bit_and_hear_earlier_ones(rank: int, positions: Positions) -> None:
    vit = lively_vit(rank, positions)
    x = observations(*LAYOUTS[rank])
    patches = patchify(x, vit.patch)
    patches[:, 3] += 1
    before, after = vit(x, causal=True), vit(unpatchify(patches, vit.patch, vit.grid), causal=True)
    assert torch.equal(before[:, :3], after[:, :3])
    assert ((before[:, 3:] - after[:, 3:]).abs().amax((0, 2)) > 1e-4).all()


def move_one_place_on(keep: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Those tokens one place further along every axis."""
    places = torch.unravel_index(keep, grid)
    strides = [prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return sum((place + 1) * stride for place, stride in zip(places, strides, strict=True))  # pyrefly: ignore


@pytest.mark.parametrize(("grid", "keep"), [((9,), [1, 6, 2, 5]), ((5, 6), [0, 22, 8]), ((3, 4, 5), [0, 1, 28, 32])])
def test_rope_knows_where_tokens_lie_to_each_other_and_nothing_else(grid: tuple[int, ...], keep: list[int]) -> None:
    """The same patches elsewhere are embedded alike; by the other positions they are not."""
    moved = {}
    for positions in POSITIONS:
        torch.manual_seed(0)
        vit = ViT(grid, patch=(2,) * len(grid), channels=2, dim=24, depth=2, num_heads=2, positions=positions)
        with torch.no_grad():
            for block in vit.transformer.blocks:
                block.qkv.weight.mul_(20)  # pyrefly: ignore[missing-attribute]
        here = torch.tensor([keep]).expand(3, -1)
        there = move_one_place_on(here, grid)
        x = patchify(observations(grid, vit.patch), vit.patch)
        elsewhere = x.clone()
        elsewhere[:, there[0]] = x[:, here[0]]
        before, after = (
            vit(unpatchify(seen, vit.patch, grid), places) for seen, places in ((x, here), (elsewhere, there))
        )
        moved[positions] = (before - after).abs().max()
        reordered = vit(unpatchify(x, vit.patch, grid), here.roll(1, 1)).roll(-1, 1)
        torch.testing.assert_close(reordered, before, rtol=0, atol=1e-5)
        exchanged = x.clone()
        exchanged[:, here[0]] = x[:, here[0].roll(1)]
        after = vit(unpatchify(exchanged, vit.patch, grid), here).roll(-1, 1)
        assert (before - after).abs().max() > 1e-2, "the order of patches is told"
    assert moved["rope"] < 1e-5
    assert min(moved["sincos"], moved["rope-tiled"]) > 1e-2


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("causal", [False, True])
def test_kept_tokens_are_as_if_the_others_were_not_seen(rank: int, positions: Positions, causal: bool) -> None:
    vit = lively_vit(rank, positions)
    x = observations(*LAYOUTS[rank])
    keep = torch.tensor([[0, 2, 3], [1, 4, 5], [0, 1, 5]])
    n = prod(vit.grid)
    sees = torch.zeros(3, n, dtype=torch.bool).scatter_(1, keep, True).unsqueeze(1).expand(-1, n, -1)
    sees = (sees.tril() if causal else sees) | torch.eye(n, dtype=torch.bool)
    torch.testing.assert_close(vit(x, keep, causal), take_tokens(vit(x, sees=sees), keep), rtol=0, atol=1e-5)
    if not causal:
        torch.testing.assert_close(vit.levels(x, keep)[-1], vit(x, keep), rtol=0, atol=1e-6)


@pytest.mark.parametrize("positions", ["rope", "rope-tiled"])
def test_rotations_are_the_same_for_few_tokens_and_for_many(positions: Positions) -> None:
    """Beyond 512 tokens queries and keys go to a fused kernel, which takes no mix of precisions."""
    vit = ViT((600,), patch=(1,), dim=16, depth=2, num_heads=2, positions=positions)
    x = observations((600,), (1,), channels=1, num_samples=1)
    z = vit(x, sees=(torch.arange(600) < 300).expand(1, 600, -1))[:, :300]
    torch.testing.assert_close(z, vit(x, torch.arange(300)[None]), rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert (vit(x)[:, :300] - vit(x, torch.arange(600)[None])[:, :300]).norm() < 0.02 * z.norm()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("positions", ["rope", "rope-tiled"])
def test_the_last_tokens_alone_and_the_heads_are_turned_too(rank: int, positions: Positions) -> None:
    vit = lively_vit(rank, positions).double()
    tokens, rotation = vit._place(observations(*LAYOUTS[rank]).double(), torch.tensor([[3, 0, 5, 1]] * 3))
    assert rotation is not None
    few = vit.transformer(tokens, num_last=2, rotation=rotation)
    torch.testing.assert_close(few, vit.transformer(tokens, rotation=rotation)[:, -2:], rtol=0, atol=1e-12)
    block = vit.transformer.blocks[0]
    assert isinstance(block, Block)
    turned, plain = block.heads(tokens, rotation), block.heads(tokens)
    for got, wanted in zip(turned, (rotate(plain[0], rotation), rotate(plain[1], rotation), plain[2]), strict=True):
        assert torch.equal(got, wanted)


def test_positions_are_told_with_the_arguments_and_draw_no_weights() -> None:
    vits = {}
    for positions in POSITIONS:
        torch.manual_seed(0)
        vits[positions] = ViT((2, 3), patch=(2, 2), dim=24, depth=1, num_heads=2, positions=positions)
        assert vits[positions].arguments()["positions"] == positions
    for name, weight in vits["sincos"].named_parameters():
        assert torch.equal(weight, vits["rope"].get_parameter(name))
    assert {name: tuple(vit.positions.shape) for name, vit in vits.items()} == {
        "sincos": (6, 24), "rope": (6, 2, 12), "rope-tiled": (6, 2, 12),
    }  # fmt: skip


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


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradient_reaches_every_parameter_and_no_buffer(positions: Positions) -> None:
    vit = ViT((2, 2), patch=(2, 2), dim=12, depth=2, num_heads=3, positions=positions)
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


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16_autocast_stays_close_forward_and_backward(causal: bool, positions: Positions) -> None:
    vit = ViT((4, 4), patch=(2, 2), dim=24, depth=3, num_heads=3, positions=positions)
    x = observations((4, 4), (2, 2), channels=1)
    exact = vit(x, causal=causal)
    (wanted,) = torch.autograd.grad(exact.square().mul(exact).mean(), vit.embed.weight)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = vit(x, causal=causal)
        assert {level.dtype for level in vit.levels(x)} == {torch.float32}, "the sum over blocks is kept exact"
    (got,) = torch.autograd.grad(rounded.float().square().mul(rounded).mean(), vit.embed.weight)
    assert not torch.equal(rounded.float(), exact)
    # Without codes added in float32, all that a token is went through a product in bfloat16.
    assert (rounded - exact).norm() < (0.002 if positions == "sincos" else 0.004) * exact.norm()
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
    with pytest.raises(ValueError, match=r"at least 2 for each axis of \(2, 2, 2\), got 4"):
        ViT((2, 2, 2), patch=(1, 1, 1), dim=12, num_heads=3, positions="rope")
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
