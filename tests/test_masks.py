"""Masks: what is promised of each sampler, over grids and settings, and the official sampler's bias by its figures."""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import pairwise
from math import prod, sqrt
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from jepalab.cli import main
from jepalab.masking import read_grid
from jepalab.masks.blocks import Blocks, Relaxation
from jepalab.masks.causal import PastFuture, Prefix, prefix_sees
from jepalab.masks.coverage import coverage
from jepalab.masks.drawing import MaskDrawer, mask_drawers
from jepalab.masks.plane import choose, plane_of
from jepalab.masks.random import RandomMask, RandomTubes
from jepalab.masks.reference import ReferenceBlocks
from jepalab.types import Mask, MaskSampler

GRIDS = st.one_of(
    st.tuples(st.integers(4, 16), st.integers(4, 16)),
    st.tuples(st.integers(8, 64)),
    st.tuples(st.integers(2, 4), st.integers(4, 10), st.integers(4, 10)),
)
SEEDS = st.integers(0, 2**32)


def between(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    ends = st.floats(low, high)
    return st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair)))


# Settings far from I-JEPA's: large targets, small contexts, long blocks, more context than there is room for.
SETTINGS = st.fixed_dictionaries(
    {
        "grid": GRIDS,
        "num_targets": st.integers(1, 8),
        "target_scale": between(0.02, 1.0),
        "target_aspect": between(0.2, 5.0),
        "context_scale": between(0.1, 1.0),
        "context_share": st.none() | st.floats(0.0, 1.0),
    }
)


def blocks(settings: dict[str, Any]) -> Blocks:
    share, plane = settings["context_share"], plane_of(settings["grid"])
    num_places = None if share is None else 1 + round(share * (plane.num_places - 2))
    num_context = None if num_places is None else num_places * plane.num_times
    return Blocks(
        **{name: value for name, value in settings.items() if name != "context_share"}, num_context=num_context
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(tokens: Tensor, num_tokens: int) -> Tensor:
    """Which tokens [b n] are among [b ...]."""
    return torch.zeros(len(tokens), num_tokens, dtype=torch.bool).scatter_(1, tokens.flatten(1), True)


def is_box(tokens: set[int], grid: tuple[int, ...]) -> bool:
    """Whether they are all the tokens between two corners of the grid."""
    plane = plane_of(grid)
    places = [(token // plane.num_places, *divmod(token % plane.num_places, plane.num_columns)) for token in tokens]
    lengths = [max(axis) - min(axis) + 1 for axis in zip(*places, strict=True)]
    return prod(lengths) == len(tokens)


# Whatever the settings


@settings(deadline=None, max_examples=60)
@given(SETTINGS, st.integers(1, 8), SEEDS)
def test_context_and_targets_keep_their_promises(chosen: dict[str, Any], num_samples: int, seed: int) -> None:
    sampler = blocks(chosen)
    mask, relaxed = sampler.draw(num_samples, seeded(seed))
    num_tokens, plane = prod(sampler.grid), plane_of(sampler.grid)
    assert mask.context.shape == (num_samples, sampler.context_length)
    assert mask.target.shape == (num_samples, sampler.num_targets, sampler.target_length)
    assert (mask.context.diff(dim=1) > 0).all()
    for tokens in (mask.context, mask.target):
        assert set(tokens.unique().tolist()) <= set(range(num_tokens))
    assert not (marked(mask.context, num_tokens) & marked(mask.target, num_tokens)).any()
    assert set(relaxed.tolist()) <= set(Relaxation)
    assert sampler.num_context in (None, sampler.context_length)

    present = torch.ones_like(mask.target, dtype=torch.bool) if mask.present is None else mask.present
    for target, is_there in zip(mask.target.flatten(0, 1), present.flatten(0, 1), strict=True):
        block = target[is_there].tolist()
        assert len(set(block)) == len(block) > 0
        assert is_box(set(block), sampler.grid)
        assert {token // plane.num_places for token in block} == set(range(plane.num_times)), "a tube spans all times"
        assert set(target.tolist()) == set(block), "what fills a block up is of the block"
    assert (present.sum(2) == present[:, :1].sum(2)).all(), "the blocks of a sample have one size"


@settings(deadline=None, max_examples=40)
@given(SETTINGS, st.integers(1, 30), st.integers(0, 30), SEEDS)
def test_a_sample_is_the_same_in_a_batch_of_any_size(chosen: dict[str, Any], few: int, more: int, seed: int) -> None:
    sampler = blocks(chosen)
    small, large = sampler(few, seeded(seed)), sampler(few + more, seeded(seed))
    assert small.context.equal(large.context[:few])
    assert small.target.equal(large.target[:few])
    if small.present is None or large.present is None:
        assert small.present is large.present
    else:
        assert small.present.equal(large.present[:few])


@settings(deadline=None, max_examples=20)
@given(GRIDS, SEEDS)
def test_context_and_targets_reach_every_token(grid: tuple[int, ...], seed: int) -> None:
    """Every row and column, the last ones and the corners included."""
    found = coverage(Blocks(grid), num_samples=1500, seed=seed, batch_size=500)
    for share in (found.context, found.target):
        plane = found.on_plane(share)
        assert plane.min() > 0
        for axis in (0, 1):
            by_line = plane.mean(1 - axis)
            assert by_line.sub(by_line.flip(0)).abs().max() < 0.1, "no side is preferred"


@settings(deadline=None, max_examples=25)
@given(
    st.one_of(  # on some smaller grids, such as 4 x 5, rounding leaves one size
        st.tuples(st.integers(6, 16), st.integers(6, 16)),
        st.tuples(st.integers(20, 64)),
        st.tuples(st.integers(2, 4), st.integers(6, 10), st.integers(6, 10)),
    ),
    SEEDS,
)
def test_sizes_vary_from_sample_to_sample(grid: tuple[int, ...], seed: int) -> None:
    mask = Blocks(grid)(256, seeded(seed))
    assert mask.present is not None
    sizes = mask.present[:, 0].sum(1)
    assert len(sizes.unique()) > 1
    assert sizes.max() <= mask.target.shape[2]


def test_shapes_of_blocks_come_from_scale_and_aspect_apart(generator: torch.Generator) -> None:
    mask = Blocks((14, 14))(2048, generator)
    assert mask.present is not None
    shapes = set()
    for target, present in zip(mask.target[:, 0], mask.present[:, 0], strict=True):
        rows, columns = target[present] // 14, target[present] % 14
        shapes.add((int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1))
    assert shapes == {(5, 6), (5, 7), (5, 8), (6, 5), (6, 6), (6, 7), (7, 4), (7, 5), (7, 6), (8, 4), (8, 5)} & shapes
    assert len(shapes) >= 9, "one random number for both would give five"
    areas = [rows * columns / 196 for rows, columns in shapes]
    assert all(0.13 < area < 0.22 for area in areas)


@pytest.mark.parametrize("grid", [(7, 9), (23,), (2, 5, 6)])
def test_every_start_of_a_block_is_equally_likely(grid: tuple[int, ...], generator: torch.Generator) -> None:
    plane = plane_of(grid)
    sampler = Blocks(grid, target_scale=(0.15, 0.15), target_aspect=(1.0, 1.0), num_context=plane.num_times)
    mask, relaxed = sampler.draw(4000, generator)
    assert not relaxed.any()
    assert mask.present is None
    counts = mask.target[..., 0].flatten().bincount()
    first = mask.target[0, 0]
    extents = [int(axis.max() - axis.min()) + 1 for axis in ((first % plane.num_places) // grid[-1], first % grid[-1])]
    num_starts = (plane.num_rows - extents[0] + 1) * (plane.num_columns - extents[1] + 1)
    assert (counts > 0).sum() == num_starts
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-4


def test_targets_of_one_sample_lie_apart(generator: torch.Generator) -> None:
    first = Blocks((14, 14), num_context=1)(4000, generator).target[..., 0]
    rows = (first // 14).double()
    assert (rows[:, 0] - rows[:, 1]).abs().mean() > 2
    assert rows[:, :2].T.corrcoef()[0, 1].abs() < 0.1


def test_context_is_thinned_without_regard_to_place(generator: torch.Generator) -> None:
    """Of the tokens outside the one target, each is seen equally often: none is cut off at the end in raster order."""
    sampler = Blocks((6, 6), num_targets=1, target_scale=(0.1, 0.1), context_scale=(1.0, 1.0), num_context=12)
    mask = sampler(6000, generator)
    seen, hidden = marked(mask.context, 36), marked(mask.target, 36)
    rate = seen.sum(0) / (~hidden).sum(0)
    assert rate.sub(12 / 33 if mask.target.shape[2] == 3 else 12 / 32).abs().max() < 0.03


def test_context_comes_from_one_block(generator: torch.Generator) -> None:
    sampler = Blocks((8, 8), num_targets=1, target_scale=(0.02, 0.02), context_scale=(0.25, 0.25), num_context=12)
    mask, relaxed = sampler.draw(500, generator)
    rows, columns = mask.context // 8, mask.context % 8
    assert not relaxed.any()
    for places in (rows, columns):
        assert (places.amax(1) - places.amin(1)).max() == 3
        assert places.unique().tolist() == list(range(8))


@pytest.mark.parametrize("side", [8, 14])
def test_size_of_the_context_is_what_nine_in_ten_masks_leave(side: int) -> None:
    """Against masks drawn one by one, block by block."""
    random, left = Random(0), []
    for _ in range(4000):
        grid = np.zeros((side, side), bool)
        grid[_block(random, side, random.uniform(0.85, 1.0), 1.0)] = True
        scale, aspect = random.uniform(0.15, 0.2), random.uniform(0.75, 1.5)
        for _ in range(4):
            grid[_block(random, side, scale, aspect)] = False
        left.append(grid.sum())
    assert Blocks((side, side)).context_length == pytest.approx(np.quantile(left, 0.1), abs=1)


def _block(random: Random, side: int, scale: float, aspect: float) -> tuple[slice, slice]:
    rows = round(sqrt(scale * side**2 * aspect))
    columns = min(side, round(scale * side**2 / rows))
    top, left = random.randint(0, side - rows), random.randint(0, side - columns)
    return slice(top, top + rows), slice(left, left + columns)


@pytest.mark.parametrize(
    ("sampler", "digest"),
    [
        (Blocks((14, 14)), "326bd690e7c4c17f"),
        (Blocks((8, 8)), "3f7cf43f8adfc9c8"),
        (Blocks((64,)), "af68a7f14b4f7419"),
        (Blocks((2, 4, 4)), "6f29607853454655"),
        (Blocks((4, 8, 8), num_targets=8, num_context=160), "0f4e8fecd778101c"),
        (Blocks((8, 8), num_context=60), "6e23df983c20b3f2"),
        (Blocks((6, 6), target_scale=(0.1, 0.1), target_aspect=(1.0, 1.0)), "f739facea2e3a4af"),
    ],
)
def test_equal_seeds_draw_the_masks_that_they_drew_before(sampler: Blocks, digest: str) -> None:
    """Those of version 0.1: who changes one of these changes what a seed means, and every run with it."""
    mask, relaxed = sampler.draw(64, seeded(3))
    parts = [mask.context, mask.target, torch.zeros(0) if mask.present is None else mask.present, relaxed]
    together = b"".join(part.contiguous().numpy().tobytes() for part in parts)
    assert sha256(together).hexdigest()[:16] == digest


# What is relaxed, in which order


def test_nothing_is_relaxed_where_there_is_room(generator: torch.Generator) -> None:
    _, relaxed = Blocks((14, 14), num_context=20).draw(2000, generator)
    assert not relaxed.any()


def test_context_leaves_its_block_first(generator: torch.Generator) -> None:
    sampler = Blocks((8, 8), context_scale=(0.2, 0.2), num_context=20)
    mask, relaxed = sampler.draw(500, generator)
    assert (relaxed == Relaxation.CONTEXT_BLOCK).all(), "a block of 12 or so cannot hold 20"
    assert len(mask.target[:, :, 0].unique(dim=0)) > 100


def test_then_targets_share_one_place(generator: torch.Generator) -> None:
    mask, relaxed = Blocks((8, 8), num_targets=8, num_context=50).draw(500, generator)
    together = relaxed == Relaxation.TARGET_PLACES
    assert together.any()
    assert (relaxed <= Relaxation.TARGET_PLACES).all()
    assert (mask.target[together] == mask.target[together][:, :1]).all()
    assert len(mask.target[together][:, 0, 0].unique()) > 15, "the place is drawn for each sample"


def test_then_targets_shrink(generator: torch.Generator) -> None:
    mask, relaxed = Blocks((8, 8), num_context=60).draw(500, generator)
    assert (relaxed == Relaxation.TARGET_SIZE).all()
    present = mask.present if mask.present is not None else torch.ones_like(mask.target, dtype=torch.bool)
    assert set(present.sum(2).unique().tolist()) <= {3, 4}


def test_relaxed_samples_are_counted() -> None:
    sampler = Blocks((8, 8), num_targets=8, num_context=50)
    found = coverage(sampler, num_samples=300, seed=3, batch_size=100)
    generator, counts = seeded(3), torch.zeros(4, dtype=torch.int64)
    for _ in range(3):
        counts += sampler.draw(100, generator)[1].bincount(minlength=4)
    assert found.relaxed == {Relaxation(i): int(n) for i, n in enumerate(counts) if i and n}
    assert coverage(RandomMask((8, 8)), num_samples=10).relaxed is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": (8, 8), "num_targets": 0}, "one target block or more"),
        ({"grid": (8, 8), "target_scale": (0.3, 0.2)}, "low <= high"),
        ({"grid": (8, 8), "context_scale": (0.3, 1.2)}, "high <= 1"),
        ({"grid": (8, 8), "target_aspect": (0.0, 1.2)}, "0 < low"),
        ({"grid": (8, 8), "num_context": 64}, "from 1 to 63 context tokens"),
        ({"grid": (2, 4, 4), "num_context": 7}, "a multiple of 2 from 2 to 30"),
        ({"grid": (2, 2, 4, 4)}, "one to three positive lengths"),
        ({"grid": (1, 1)}, "two places or more"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Blocks(**arguments)


# The official sampler


def test_reference_has_the_official_figures() -> None:
    """As measured on the published code, 14 x 14 tokens and batches of 16."""
    found = coverage(ReferenceBlocks((14, 14)), num_samples=8_000, seed=0, batch_size=16)
    measured = "0.75 0.60 0.48 0.39 0.30 0.24 0.22 0.24 0.26 0.29 0.27 0.20 0.09 0.00"
    rows = torch.tensor([float(word) for word in measured.split()])
    torch.testing.assert_close(found.context.mean(1), rows, atol=0.025, rtol=0)
    assert found.context_sizes[1] == pytest.approx(60.6, abs=1.5)
    assert found.target_sizes[1] == pytest.approx(33.4, abs=0.7)
    assert found.context.mean(0)[[0, 12, 13]].tolist() == pytest.approx([0.60, 0.54, 0.0], abs=0.025)
    for share in (found.context, found.target):
        assert not share[-1].any(), "the last row is never used"
        assert not share[:, -1].any(), "the last column is never used"


def test_reference_depends_on_the_batch(generator: torch.Generator) -> None:
    sampler = ReferenceBlocks((14, 14))
    means = [sum(sampler(size, generator).context.shape[1] for _ in range(60)) / 60 for size in (1, 8, 64)]
    assert all(small > large + 5 for small, large in pairwise(means))
    assert means[0] == pytest.approx(82.9, abs=5)


def test_reference_knows_five_sizes(generator: torch.Generator) -> None:
    sampler, shapes = ReferenceBlocks((14, 14)), set()
    for _ in range(400):
        block = sampler(1, generator).target[0, 0]
        shapes.add((int(block[-1] // 14 - block[0] // 14) + 1, int(block[-1] % 14 - block[0] % 14) + 1))
    assert shapes == {(5, 6), (6, 5), (6, 6), (7, 5), (8, 5)}


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(6, 16), st.integers(6, 16)), st.integers(1, 20), SEEDS)
def test_reference_keeps_more_than_min_keep(grid: tuple[int, int], num_samples: int, seed: int) -> None:
    mask = ReferenceBlocks(grid, min_keep=3)(num_samples, seeded(seed))
    assert (mask.context.diff(dim=1) > 0).all()
    assert min(mask.context.shape[1], mask.target.shape[2]) > 3
    assert all(is_box(set(block.tolist()), grid) for block in mask.target.flatten(0, 1))


@pytest.mark.parametrize(("grid", "min_keep"), [((8, 8), 10), ((7, 7), 10), ((4, 4), 4)])
def test_reference_refuses_where_the_official_code_hangs(grid: tuple[int, int], min_keep: int) -> None:
    with pytest.raises(ValueError, match=r"never end.*Set min_keep below"):
        ReferenceBlocks(grid, min_keep=min_keep)
    assert ReferenceBlocks(grid, min_keep=0)(4, seeded(0)).context.shape[1] > 0


def test_reference_refuses_a_context_that_could_never_be_drawn() -> None:
    sampler = ReferenceBlocks((14, 14), context_scale=(0.04, 0.05))
    with pytest.raises(ValueError, match="raise context_scale"):
        sampler(4, seeded(0))
    with pytest.raises(ValueError, match="made for pictures"):
        ReferenceBlocks((14,))


# Random masks, prefixes, past and future


@settings(deadline=None, max_examples=40)
@given(GRIDS, st.floats(0.2, 0.8), st.integers(1, 20), SEEDS)
def test_random_masks_hide_exactly_their_share(
    grid: tuple[int, ...], share: float, num_samples: int, seed: int
) -> None:
    num_tokens = prod(grid)
    mask = RandomMask(grid, share=share)(num_samples, seeded(seed))
    assert mask.target.shape == (num_samples, 1, round(num_tokens * share))
    assert_split(mask, num_tokens)


def assert_split(mask: Mask, num_tokens: int) -> None:
    """Context and target ascend, and are all tokens together, each once."""
    assert mask.present is None
    assert (mask.context.diff(dim=1) > 0).all()
    assert (mask.target.diff(dim=2) > 0).all()
    together = torch.cat([mask.context, mask.target[:, 0]], 1).sort().values
    assert (together == torch.arange(num_tokens)).all()


def test_every_choice_of_random_tokens_is_equally_likely(generator: torch.Generator) -> None:
    context = RandomMask((5,), share=0.6)(20_000, generator).context
    counts = (context[:, 0] * 5 + context[:, 1]).bincount()
    assert (counts > 0).sum() == 10
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-4


def test_choices_with_equal_noise_are_still_of_one_size() -> None:
    allowed = torch.tensor([[True, False, True, True, False]])
    assert choose(torch.zeros(1, 5), 2, allowed).tolist() == [[0, 2]]


def test_tubes_are_hidden_at_all_times(generator: torch.Generator) -> None:
    mask = RandomTubes((3, 4, 4), share=0.75)(50, generator)
    seen = marked(mask.context, 48).view(50, 3, 16)
    assert (seen == seen[:, :1]).all()
    assert (seen.sum(2) == 4).all()
    assert seen.any(0).all()
    assert not seen.all(0).any()
    assert_split(mask, 48)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01])
def test_random_masks_refuse_to_hide_all_or_nothing(share: float) -> None:
    with pytest.raises(ValueError, match="hides some of 16 places and not all"):
        RandomMask((4, 4), share=share)
    with pytest.raises(ValueError, match="hides some of 16 places and not all"):
        RandomTubes((2, 4, 4), share=share)


def test_lengths_of_prefixes_are_uniform_and_reach_both_ends(generator: torch.Generator) -> None:
    counts = Prefix((4, 4), low=3, high=9).lengths(7000, generator).bincount()
    assert counts.bool().tolist() == [False] * 3 + [True] * 7
    assert chisquare(counts[3:].numpy()).pvalue > 1e-4
    assert Prefix((4, 4)).lengths(2000, generator).unique().tolist() == list(range(1, 16))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_prefix_sees_by_its_definition(num_tokens: int, lengths: list[int]) -> None:
    sees = prefix_sees(torch.tensor(lengths), num_tokens)
    wanted = [[[j <= i or j < k for j in range(num_tokens)] for i in range(num_tokens)] for k in lengths]
    assert sees.tolist() == wanted


@pytest.mark.parametrize(("low", "high"), [(0, 4), (5, 4), (1, 16)])
def test_prefixes_that_leave_nothing_are_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="1 <= low <= high <= 15"):
        Prefix((4, 4), low=low, high=high)


def test_future_follows_past(generator: torch.Generator) -> None:
    mask = PastFuture((3, 2, 2), num_context=8)(2, generator)
    assert mask.context.tolist() == [list(range(8))] * 2
    assert mask.target.tolist() == [[list(range(8, 12))]] * 2
    with pytest.raises(ValueError, match="a multiple of 4 between 0 and 12"):
        PastFuture((3, 2, 2), num_context=6)
    assert PastFuture((4, 4), num_context=6)(1, generator).target.shape == (1, 1, 10)


@pytest.mark.parametrize(
    "sampler",
    [Blocks((8, 8)), RandomMask((8, 8)), RandomTubes((2, 4, 4)), PastFuture((8, 8), num_context=9)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_samplers_keep_to_the_protocol_and_draw_the_same_again(sampler: MaskSampler) -> None:
    assert isinstance(sampler, MaskSampler)
    drawer, again = MaskDrawer(sampler, seed=1), MaskDrawer(sampler, seed=1)
    for _ in range(3):
        assert drawer(5).context.equal(again(5).context)


def test_each_sampler_of_an_objective_has_random_numbers_of_its_own() -> None:
    sampler, alone = RandomMask((8, 8)), MaskDrawer(RandomMask((8, 8)), seed=5)
    first, second, third = mask_drawers([sampler] * 3, seed=5)
    drawn = [[drawer(6).context for _ in range(3)] for drawer in (alone, first, second, third)]
    assert all(one.equal(other) for one, other in zip(drawn[0], drawn[1], strict=True))
    others = [MaskDrawer(sampler, seed=seed)(6).context for seed in range(20)]
    contexts = [context.flatten().tolist() for context in [*drawn[1], *drawn[2], *drawn[3], *others]]
    assert len({tuple(context) for context in contexts}) == 28, "seed 5 among the others is the first one's first draw"


# The picture


def test_coverage_is_counted_token_by_token() -> None:
    found = coverage(RandomMask((4, 4), share=0.5), num_samples=100, seed=0, batch_size=30)
    generator, seen = seeded(0), torch.zeros(16)
    for size in (30, 30, 30, 10):
        for context in RandomMask((4, 4), share=0.5)(size, generator).context:
            seen[context] += 0.01
    torch.testing.assert_close(found.context.flatten(), seen)
    torch.testing.assert_close(found.target, 1 - found.context)
    assert found.context_sizes == found.target_sizes == (8, 8.0, 8)


@pytest.mark.parametrize(
    ("words", "grid", "some_never"),
    [
        ("--grid 14x14", (14, 14), False),
        ("--grid 64", (64,), False),
        ("--grid 2x6x5", (2, 6, 5), False),
        ("--grid 4x40 --num-context 80", (4, 40), False),
        ("--sampler random --share 0.6", (14, 14), False),
        ("--sampler reference", (14, 14), True),
        ("--sampler short-range --grid 8x14x14", (8, 14, 14), False),
        ("--sampler long-range --grid 3x5x6 --num-context 12", (3, 5, 6), True),
        ("--sampler short-range --grid 4x4x40 --num-seen-times 2", (4, 4, 40), True),
        ("--sampler random-tubes --grid 2x6x6", (2, 6, 6), False),
        ("--sampler past --grid 3x4x4", (3, 4, 4), True),
        ("--sampler reference-short-range --grid 4x8x8", (4, 8, 8), False),
        ("--sampler reference-long-range --grid 2x6x6", (2, 6, 6), True),
    ],
)
def test_command_draws_the_coverage(
    words: str, grid: tuple[int, ...], some_never: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "masks.svg"
    assert main(["masks", *words.split(), "--num-samples", "200", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("Context: ", "200 samples", str(out)))
    shares = re.findall(r" (\.\d\d|1\.00)", said)
    assert len(shares) == 2 * sum(grid), "one for context and one for targets, along each axis"
    root = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")
    never = [path for path in root.iter() if path.get("class") == "never"]
    assert bool(never) == some_never
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for box in (element.attrib for element in root.iter() if element.tag.endswith("rect")):
        right, bottom = float(box["x"]) + float(box["width"]), float(box["y"]) + float(box["height"])
        assert all(0 <= at <= end for at, end in ((float(box["x"]), width), (right, width), (bottom, height)))


def test_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "masks.svg")]
    assert main(["masks", "--grid", "14by14", *out]) == 1
    assert "Wanted a grid such as 14x14" in capsys.readouterr().err
    assert main(["masks", "--grid", "8x8", "--sampler", "reference-short-range", *out]) == 1
    assert "made for clips" in capsys.readouterr().err
    assert main(["masks", "--grid", "8x8", "--sampler", "reference", *out]) == 1
    assert "Set min_keep below 9" in capsys.readouterr().err
    assert read_grid("8x14x14") == (8, 14, 14)
