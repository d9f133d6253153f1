"""Positions: the published sine-cosine codes, rotations that know offsets alone, and V-JEPA 2's that do not."""

from __future__ import annotations

from math import prod

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepalab.backbones.positions import make_positions, rotate, rotations, sincos_positions, tiled_rotations

ROTATIONS = {"rope": rotations, "rope-tiled": tiled_rotations}


@pytest.mark.parametrize(
    ("grid", "dim"), [((1024,), 4), ((14, 14), 192), ((8, 14, 14), 192), ((4, 6, 5), 16), ((3, 5), 4)]
)
def test_codes_are_distinct(grid: tuple[int, ...], dim: int) -> None:
    positions = sincos_positions(grid, dim)
    distances = torch.cdist(positions.double(), positions.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert (distances + torch.eye(len(positions))).min() > 1e-3


def test_codes_follow_the_published_formula_along_each_axis() -> None:
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


# ---------------------------------------------------------------- rotations


def places(grid: tuple[int, ...]) -> Tensor:
    """Each token's place on each axis [n a], in raster order."""
    return torch.cartesian_prod(*(torch.arange(size) for size in grid)).reshape(prod(grid), len(grid))


def turn(x: Tensor, rotation: Tensor) -> Tensor:
    """x [n c] by `rotate`, as one head of one sample."""
    return rotate(x[None, None], rotation[None])[0, 0]


def logits_of_one_content(kind: str, grid: tuple[int, ...], head_dim: int) -> Tensor:
    """What tokens that are all alike, but for their places, say to one another [n n]."""
    q, k = torch.randn(2, head_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation = ROTATIONS[kind](grid, head_dim).double()
    n = prod(grid)
    return turn(q.expand(n, -1), rotation) @ turn(k.expand(n, -1), rotation).T


def spread_at_equal_offsets(logits: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The standard deviation of the logits over all pairs with one offset, for each offset."""
    offsets = (places(grid)[None] - places(grid)[:, None]).flatten(0, 1)
    _, which, counts = offsets.unique(dim=0, return_inverse=True, return_counts=True)
    values, zeros = logits.flatten(), torch.zeros(len(counts), dtype=torch.float64)
    means = zeros.index_add(0, which, values) / counts
    return (zeros.index_add(0, which, (values - means[which]).square()) / counts).sqrt()


@st.composite
def heads(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    grid = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    return grid, 2 * draw(st.integers(len(grid), 10))


@settings(max_examples=60, deadline=None)
@given(heads())
def test_rope_is_a_rotation_that_knows_offsets_alone(head: tuple[tuple[int, ...], int]) -> None:
    grid, head_dim = head
    spread = spread_at_equal_offsets(logits_of_one_content("rope", grid, head_dim), grid)
    assert (spread < 1e-5).all()
    x = torch.randn(prod(grid), head_dim, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(turn(x, rotations(grid, head_dim)).norm(dim=1), x.norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("grid", "head_dim"), [((16,), 8), ((6, 5), 8), ((4, 3, 5), 16), ((4, 7, 7), 64)])
def test_rope_tiled_is_none_and_rope_tells_all_offsets_apart(grid: tuple[int, ...], head_dim: int) -> None:
    tiled = logits_of_one_content("rope-tiled", grid, head_dim)
    assert spread_at_equal_offsets(tiled, grid).mean() > 0.1
    x = torch.randn(prod(grid), head_dim, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(turn(x, tiled_rotations(grid, head_dim)).norm(dim=1), x.norm(dim=1), rtol=0.05, atol=0)

    to_first = logits_of_one_content("rope", grid, head_dim)[0]
    assert (to_first[:, None] - to_first + torch.eye(len(to_first))).abs().min() > 1e-6


@pytest.mark.parametrize(("grid", "head_dim"), [((5,), 10), ((3, 4), 8), ((3, 4), 14), ((2, 3, 4), 14), ((2, 3, 4), 6)])
def test_each_axis_turns_its_channels_by_the_published_formula(grid: tuple[int, ...], head_dim: int) -> None:
    """`rope` as a product of complex numbers (2104.09864), `rope-tiled` number by number; both split as V-JEPA 2."""
    x = torch.randn(prod(grid), head_dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    turned, tiled = x.clone(), x.clone()
    share = 2 * ((head_dim // len(grid)) // 2)
    f = share // 2
    for axis, place in enumerate(places(grid).T.double()):
        for i in range(f):
            even, odd = axis * share + 2 * i, axis * share + 2 * i + 1
            pair = torch.complex(x[:, even], x[:, odd]) * torch.exp(1j * place * 10000 ** (-i / f))
            turned[:, even], turned[:, odd] = pair.real, pair.imag
            first, second = place * 10000 ** (-(2 * i % f) / f), place * 10000 ** (-((2 * i + 1) % f) / f)
            tiled[:, even] = x[:, even] * first.cos() - x[:, odd] * first.sin()
            tiled[:, odd] = x[:, odd] * second.cos() + x[:, even] * second.sin()
    for kind, wanted in (("rope", turned), ("rope-tiled", tiled)):
        rotation = ROTATIONS[kind](grid, head_dim)
        assert rotation.dtype == torch.float32
        torch.testing.assert_close(turn(x, rotation), wanted, rtol=0, atol=1e-6)
        assert torch.equal(turn(x, rotation)[:, len(grid) * share :], x[:, len(grid) * share :])
        assert torch.equal(turn(x, rotation)[0], x[0])  # the first place turns nothing
    assert (turned - tiled).abs().max() > 0.1 or f == 1  # of one frequency there is nothing to lay out


def test_each_sample_has_its_own_rotations_and_each_head_the_same(generator: torch.Generator) -> None:
    rotation = rotations((3, 4), 8)
    keep = torch.tensor([[0, 5, 11], [7, 2, 3]])
    x = torch.randn(2, 3, 3, 8, generator=generator)
    turned = rotate(x, rotation[keep])
    for sample in range(2):
        for head in range(3):
            torch.testing.assert_close(turned[sample, head], turn(x[sample, head], rotation[keep[sample]]))
    assert rotate(x.bfloat16(), rotation[keep]).dtype == torch.bfloat16
    torch.testing.assert_close(rotate(x.bfloat16(), rotation[keep]).float(), turned, rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", ROTATIONS)
@pytest.mark.parametrize(("grid", "head_dim"), [((2, 2, 2), 4), ((2, 2), 2), ((4,), 0), ((4,), 5)])
def test_heads_that_cannot_be_turned_are_refused(kind: str, grid: tuple[int, ...], head_dim: int) -> None:
    with pytest.raises(ValueError, match=rf"even number of channels, at least 2 for each axis of .*, got {head_dim};"):
        ROTATIONS[kind](grid, head_dim)


def test_positions_are_made_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.equal(make_positions("sincos", (3, 4), dim=24, num_heads=3), sincos_positions((3, 4), 24))
    assert torch.equal(make_positions("rope", (3, 4), dim=24, num_heads=3), rotations((3, 4), 8))
    assert torch.equal(make_positions("rope-tiled", (3, 4), dim=24, num_heads=3), tiled_rotations((3, 4), 8))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="one of sincos, rope, rope-tiled, got 'learned'"):
        make_positions("learned", (3, 4), dim=24, num_heads=3)  # pyrefly: ignore[bad-argument-type]
