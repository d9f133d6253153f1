"""V-JEPA's masks of clips: what is promised of the library's, and the official sampler's bias by its figures."""

from __future__ import annotations

from dataclasses import replace
from math import prod
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

from jepalab.masks.blocks import Relaxation
from jepalab.masks.causal import DrawnPast, PastFuture
from jepalab.masks.coverage import coverage
from jepalab.masks.drawing import MaskDrawer
from jepalab.masks.picture import draw_coverage
from jepalab.masks.plane import plane_of
from jepalab.masks.reference import ReferenceTubes
from jepalab.masks.tubes import Tubes
from jepalab.types import Mask, MaskSampler
from test_masks import GRIDS, SEEDS, between, is_box, marked, seeded

CLIPS = st.tuples(st.integers(2, 6), st.integers(4, 10), st.integers(4, 10))

# Settings far from V-JEPA's: blocks of the whole plane, more context than there is room for, a past of one time.
SETTINGS = st.fixed_dictionaries(
    {
        "grid": GRIDS,
        "num_blocks": st.integers(1, 8),
        "scale": st.floats(0.02, 1.0),
        "aspect": between(0.2, 5.0),
        "context_share": st.none() | st.floats(0.0, 1.0),
        "past_share": st.none() | st.floats(0.0, 1.0),
    }
)


def tubes(settings: dict[str, Any]) -> Tubes:
    plane = plane_of(settings["grid"])
    context, past = settings["context_share"], settings["past_share"]
    num_seen_times = None if past is None else 1 + round(past * (plane.num_times - 1))
    num_places = None if context is None else 1 + round(context * (plane.num_places - 2))
    return Tubes(
        **{name: settings[name] for name in ("grid", "num_blocks", "scale", "aspect")},
        num_context=None if num_places is None else num_places * (num_seen_times or plane.num_times),
        num_seen_times=num_seen_times,
    )


def sizes_of(sampler: Tubes) -> set[tuple[int, int]]:
    """Rows and columns that a block may have, by their definition: the columns make up for the rounding of the rows."""
    plane, (low, high) = plane_of(sampler.grid), sampler.aspect
    area, sizes = sampler.scale * plane.num_places, set()
    for step in range(64):
        rows = min(max(round(np.sqrt(area * (low + (high - low) * (step + 0.5) / 64))), 1), plane.num_rows)
        sizes.add((rows, min(max(round(area / rows), 1), plane.num_columns)))
    return sizes


def covered_by(hidden: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """All places of the blocks of this size that lie wholly in what is hidden."""
    found = np.zeros_like(hidden)
    for top in range(hidden.shape[0] - size[0] + 1):
        for left in range(hidden.shape[1] - size[1] + 1):
            block = (slice(top, top + size[0]), slice(left, left + size[1]))
            if hidden[block].all():
                found[block] = True
    return found


def target_sets(mask: Mask) -> list[list[int]]:
    """The tokens of each sample's target that are present."""
    present = torch.ones_like(mask.target, dtype=torch.bool) if mask.present is None else mask.present
    return [target[there].tolist() for target, there in zip(mask.target[:, 0], present[:, 0], strict=True)]


# Whatever the settings


@settings(deadline=None, max_examples=50)
@given(SETTINGS, st.integers(1, 8), SEEDS)
def test_context_and_target_keep_their_promises(chosen: dict[str, Any], num_samples: int, seed: int) -> None:
    sampler = tubes(chosen)
    mask, relaxed = sampler.draw(num_samples, seeded(seed))
    plane = plane_of(sampler.grid)
    num_seen_times = sampler.num_seen_times or plane.num_times
    assert mask.context.shape == (num_samples, sampler.context_length)
    assert mask.target.shape == (num_samples, 1, sampler.target_length)
    assert sampler.num_context in (None, sampler.context_length)
    assert (mask.context.diff(dim=1) > 0).all()
    assert set(relaxed.tolist()) <= set(Relaxation) - {Relaxation.CONTEXT_BLOCK}
    seen, hidden = marked(mask.context, plane.num_tokens), marked(mask.target, plane.num_tokens)
    assert not (seen & hidden).any()

    seen, hidden = (tokens.view(num_samples, *plane) for tokens in (seen, hidden))
    assert not seen[:, num_seen_times:].any()
    assert hidden[:, num_seen_times:].all(), "the future is predicted at every place"
    for tokens in (seen, hidden):
        assert (tokens[:, :num_seen_times] == tokens[:, :1]).all(), "a tube has all the times that are seen"
        assert tokens[:, 0].flatten(1).any(1).all()
    for target, whole in zip(target_sets(mask), mask.target[:, 0].tolist(), strict=True):
        assert target == sorted(set(target))
        assert set(whole) == set(target), "what fills a target up is of the target"
    for places, what in zip(hidden[:, 0].numpy(), relaxed.tolist(), strict=True):
        if what == Relaxation.NOTHING:
            sizes = [size for size in sizes_of(sampler) if (covered_by(places, size) == places).all()]
            assert sizes, "a union of blocks of one size"
            assert places.sum() <= sampler.num_blocks * max(h * w for h, w in sizes)
        else:
            assert is_box(set(places.flatten().nonzero()[0].tolist()), (plane.num_rows, plane.num_columns))


@settings(deadline=None, max_examples=40)
@given(SETTINGS, st.integers(1, 30), st.integers(0, 30), SEEDS)
def test_a_sample_is_the_same_in_a_batch_of_any_size(chosen: dict[str, Any], few: int, more: int, seed: int) -> None:
    sampler = tubes(chosen)
    small, large = sampler(few, seeded(seed)), sampler(few + more, seeded(seed))
    assert small.context.equal(large.context[:few])
    assert small.target.equal(large.target[:few])
    if small.present is None or large.present is None:
        assert small.present is large.present
    else:
        assert small.present.equal(large.present[:few])


@settings(deadline=None, max_examples=12)
@given(CLIPS, st.sampled_from([Tubes.short_range, Tubes.long_range]), SEEDS)
def test_context_and_targets_reach_every_row_column_and_time(grid: tuple[int, ...], make: Any, seed: int) -> None:
    sampler = make(grid)
    found = coverage(sampler, num_samples=1500, seed=seed, batch_size=500)
    assert found.target.min() > 0
    if make == Tubes.short_range:
        assert found.context.min() > 0, "every token; two blocks of 70 % always meet in the middle"
    for share in (found.context, found.target):
        for axis in (0, 1, 2):
            by_line = share.movedim(axis, 0).flatten(1).mean(1)
            assert by_line[[0, -1]].min() > 0, "the first line and the last"
            assert by_line.sub(by_line.flip(0)).abs().max() < 0.1, "no side is preferred"
        by_time = found.by_time(share)
        assert by_time.sub(by_time[0]).abs().max() < 1e-6
    assert {found.context_sizes[0], found.context_sizes[2]} == {sampler.context_length}


@pytest.mark.parametrize("grid", [(2, 4, 4), (2, 4, 5), (3, 5, 4), (4, 4), (8,)])
@pytest.mark.parametrize("make", [Tubes.short_range, Tubes.long_range])
def test_the_smallest_grids_have_masks(grid: tuple[int, ...], make: Any, generator: torch.Generator) -> None:
    mask, relaxed = make(grid).draw(2000, generator)
    assert (relaxed != Relaxation.NOTHING).float().mean() < 0.02
    assert len({tuple(target) for target in target_sets(mask)}) > 1


# By their settings


@pytest.mark.parametrize("grid", [(3, 7, 9), (4, 5, 6), (23,)])
def test_every_start_of_a_block_is_equally_likely(grid: tuple[int, ...], generator: torch.Generator) -> None:
    plane = plane_of(grid)
    sampler = Tubes(grid, num_blocks=1, aspect=(1.0, 1.0), num_context=plane.num_times)
    mask, relaxed = sampler.draw(4000, generator)
    assert not relaxed.any()
    assert mask.present is None
    (size,) = sizes_of(sampler)
    num_starts = (plane.num_rows - size[0] + 1) * (plane.num_columns - size[1] + 1)
    counts = mask.target[:, 0, 0].bincount()
    assert (counts > 0).sum() == num_starts
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-4
    assert mask.target.max() == plane.num_tokens - 1, "the last token can be hidden"


def test_shapes_are_drawn_for_each_sample(generator: torch.Generator) -> None:
    mask = Tubes((2, 14, 14), num_blocks=1)(500, generator)
    shapes = set()
    for target in target_sets(mask):
        rows, columns = np.divmod(np.array(target)[: len(target) // 2], 14)
        shapes.add((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
    assert shapes == sizes_of(Tubes((2, 14, 14), num_blocks=1)) == {(5, 6), (6, 5), (7, 4)}


def test_context_is_thinned_without_regard_to_place(generator: torch.Generator) -> None:
    """Of the places outside the one target, each is seen equally often: none is cut off at the end in raster order."""
    sampler = Tubes((3, 6, 6), num_blocks=1, scale=0.1, num_context=36)
    mask = sampler(6000, generator)
    seen, hidden = (marked(tokens, 108).view(-1, 3, 36).sum(0) for tokens in (mask.context, mask.target))
    rate = seen / (6000 - hidden)
    (size,) = {h * w for h, w in sizes_of(sampler)}
    assert rate.sub(12 / (36 - size)).abs().max() < 0.03


@pytest.mark.parametrize(("num_blocks", "scale", "side"), [(8, 0.15, 8), (8, 0.15, 14), (2, 0.7, 14), (2, 0.7, 4)])
def test_size_of_the_context_is_what_nine_in_ten_masks_leave(num_blocks: int, scale: float, side: int) -> None:
    """Against masks drawn one by one, block by block; those that leave nothing are none."""
    random, left, whole = Random(0), [], []
    for _ in range(4000):
        grid = np.ones((side, side), bool)
        rows = min(side, round(np.sqrt(scale * side**2 * random.uniform(0.75, 1.5))))
        columns = min(side, round(scale * side**2 / rows))
        for _ in range(num_blocks):
            top, start = random.randint(0, side - rows), random.randint(0, side - columns)
            grid[top : top + rows, start : start + columns] = False
        whole.append(grid.mean())
        left += [grid.sum()] if grid.any() else []
    sampler = Tubes((2, side, side), num_blocks=num_blocks, scale=scale)
    places = sampler.context_length // 2
    assert (np.array(left) < places).mean() < 0.115
    assert (np.array(left) <= places).mean() > 0.085
    if side > 4:  # where masks are drawn again more than rarely, what is hidden is what is hidden in the others
        found = coverage(sampler, num_samples=3000, batch_size=500)
        assert float(found.target.mean()) == pytest.approx(1 - np.mean(whole), abs=0.02)


def test_the_two_of_vjepa() -> None:
    grid = (8, 14, 14)
    assert Tubes.short_range(grid) == Tubes(grid, num_blocks=8, scale=0.15, aspect=(0.75, 1.5))
    assert Tubes.long_range(grid) == Tubes(grid, num_blocks=2, scale=0.7, aspect=(0.75, 1.5))
    assert ReferenceTubes.short_range(grid) == ReferenceTubes(grid, num_blocks=8, scale=0.15, aspect=(0.75, 1.5))
    assert ReferenceTubes.long_range(grid) == ReferenceTubes(grid, num_blocks=2, scale=0.7, aspect=(0.75, 1.5))


def test_a_past_predicts_all_of_the_future(generator: torch.Generator) -> None:
    """Causal multi-block masks: in the times that are seen, the masks of before."""
    whole = Tubes.short_range((4, 6, 6))
    causal = replace(whole, num_seen_times=1)
    state = generator.get_state()
    there, here = whole(20, generator), causal(20, generator.set_state(state))
    for all_times, one in zip(target_sets(there), target_sets(here), strict=True):
        assert one == [token for token in all_times if token < 36] + list(range(36, 144))
    assert here.context.equal(there.context[:, : causal.context_length])
    assert causal.context_length == whole.context_length // 4


def test_blocks_share_one_place_where_none_of_eight_draws_leaves_enough(generator: torch.Generator) -> None:
    mask, relaxed = Tubes((2, 8, 8), num_context=100).draw(500, generator)
    together = (relaxed == Relaxation.TARGET_PLACES).nonzero()[:, 0].tolist()
    assert together
    assert set(relaxed.tolist()) <= {Relaxation.NOTHING, Relaxation.TARGET_PLACES}
    targets = target_sets(mask)
    assert all(is_box(set(targets[i]), (2, 8, 8)) for i in together)
    assert len({tuple(targets[i]) for i in together}) > 15, "the place is drawn for each sample"


def test_then_they_shrink(generator: torch.Generator) -> None:
    mask, relaxed = Tubes((2, 8, 8), num_context=120).draw(500, generator)
    assert (relaxed == Relaxation.TARGET_SIZE).all()
    assert {len(target) for target in target_sets(mask)} <= {6, 8}
    assert coverage(Tubes((2, 8, 8), num_context=120), num_samples=64).relaxed == {Relaxation.TARGET_SIZE: 64}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_blocks": 0}, "one block or more"),
        ({"scale": 0.0}, "a scale of more than 0 and 1 at most"),
        ({"scale": 1.1}, "scale=1.1"),
        ({"aspect": (0.5, 0.4)}, r"aspect=\(low, high\)"),
        ({"num_context": 7}, "a multiple of 2 from 2 to 30"),
        ({"num_context": 32}, "a multiple of 2 from 2 to 30"),
        ({"num_context": 16, "num_seen_times": 1}, "from 1 to 15 context tokens"),
        ({"num_seen_times": 0}, "from 1 to 2 times"),
        ({"num_seen_times": 3}, "num_seen_times=3"),
        ({"grid": (2, 1, 1)}, "two places or more"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tubes(**{"grid": (2, 4, 4)} | arguments)


# The official sampler

SHORT, LONG = ReferenceTubes.short_range, ReferenceTubes.long_range


def by_time(words: str) -> Tensor:
    return torch.tensor([float(word) for word in words.split()])


def test_reference_has_the_official_figures() -> None:
    """Figures of the official code at 16 frames of 224 pixels, tubelets of 2 x 16 x 16, 24 clips in a batch."""
    found = coverage(SHORT((8, 14, 14)), num_samples=4800, batch_size=24)
    predicted = by_time("0.62 0.62 0.62 0.62 0.61 0.47 0.20 0.05")
    torch.testing.assert_close(found.by_time(found.target), predicted, atol=0.025, rtol=0)
    assert float(found.target.mean()) == pytest.approx(0.479, abs=0.015)
    assert float(found.context.mean()) == pytest.approx(0.236, abs=0.015)
    assert float(found.context[-1].mean()) == pytest.approx(0.02, abs=0.015)

    found = coverage(LONG((8, 14, 14)), num_samples=4800, batch_size=24)
    seen = by_time("0.19 0.17 0.09 0.05 0.02 0.01 0.01 0.01")
    torch.testing.assert_close(found.by_time(found.context), seen, atol=0.04, rtol=0)
    assert float(found.context.mean()) == pytest.approx(0.068, abs=0.015)

    found = coverage(SHORT((4, 8, 8)), num_samples=6400, batch_size=64)
    torch.testing.assert_close(found.by_time(found.target), by_time("0.64 0.64 0.45 0.06"), atol=0.025, rtol=0)
    assert float(found.context[-1].mean()) == pytest.approx(0.01, abs=0.01)


def test_reference_depends_on_the_batch_and_the_librarys_does_not() -> None:
    last, steady = [], []
    for size in (1, 8, 64):
        found = coverage(SHORT((4, 8, 8)), num_samples=1280, batch_size=size)
        last.append(float(found.target[-1].mean()))
        found = coverage(Tubes.short_range((4, 8, 8)), num_samples=1280, batch_size=size)
        steady.append(float(found.target[-1].mean()))
    assert last[0] > last[1] + 0.1 > last[2] + 0.2
    assert max(steady) - min(steady) < 1e-6
    assert last[0] == pytest.approx(steady[0], abs=0.06)


@settings(deadline=None, max_examples=25)
@given(CLIPS, st.sampled_from([SHORT, LONG]), st.integers(1, 20), SEEDS)
def test_reference_cuts_unions_of_blocks_off_at_their_end(
    grid: tuple[int, ...], make: Any, num_samples: int, seed: int
) -> None:
    mask = make(grid)(num_samples, seeded(seed))
    assert mask.present is None
    assert mask.target.shape[1] == 1
    for tokens in (mask.context, mask.target[:, 0]):
        assert (tokens.diff(dim=1) > 0).all()
        assert tokens.shape[1] >= plane_of(grid).num_times
    assert not (marked(mask.context, prod(grid)) & marked(mask.target, prod(grid))).any()
    if num_samples == 1:
        assert mask.context.shape[1] + mask.target.shape[2] == prod(grid), "alone, nothing is cut off"


def test_reference_ends_where_blocks_hide_the_plane_nearly_always() -> None:
    """Eight blocks of 3 x 4 on 4 x 4 places leave something once in 128 draws, and a hundred of them next to never."""
    for num_blocks in (8, 100):
        sampler = ReferenceTubes((2, 4, 4), num_blocks=num_blocks, scale=0.7, aspect=(0.8, 0.8))
        mask = sampler(50, seeded(0))
        assert mask.context.shape == (50, 8)
        assert len({tuple(context) for context in mask.context.tolist()}) == 2
        assert all(is_box(set(target), (2, 4, 4)) for target in mask.target[:, 0].tolist())


def test_reference_refuses_where_the_official_code_may_hang() -> None:
    with pytest.raises(ValueError, match=r"one block of scale=0.9 can cover .* Lower the scale"):
        ReferenceTubes((2, 4, 4), scale=0.9)
    with pytest.raises(ValueError, match="made for clips"):
        ReferenceTubes((14, 14))


def test_picture_shows_what_differs_from_time_to_time() -> None:
    for sampler, changes in ((Tubes.short_range((4, 8, 8)), False), (SHORT((4, 8, 8)), True)):
        found = coverage(sampler, num_samples=256, batch_size=64)
        root = ElementTree.fromstring(draw_coverage(found, name="sampler"))
        texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
        assert ("6 of the masks, the same at all times" in texts) != changes
        assert ("The same masks at the last time" in texts) == changes
        starts = [i for i, text in enumerate(texts) if text.startswith("at each time")]
        for start, share in zip(starts, (found.context, found.target), strict=True):
            wanted = [f"{value:.2f}".removeprefix("0") for value in found.by_time(share).tolist()]
            assert texts[start + 1 : start + 5] == wanted
        paths = [element for element in root.iter() if "edge" in element.get("class", "")]
        assert len(paths) == (12 if changes else 6)


# The past


def test_as_much_past_as_is_drawn_for_the_batch(generator: torch.Generator) -> None:
    sampler, counts = DrawnPast((5, 2, 3), low=2), torch.zeros(6)
    for _ in range(900):
        mask = sampler(3, generator)
        num_times, rest = divmod(mask.context.shape[1], 6)
        assert rest == 0
        wanted = PastFuture((5, 2, 3), num_context=6 * num_times)(3, generator)
        assert mask.context.equal(wanted.context)
        assert mask.target.equal(wanted.target)
        counts[num_times] += 1
    assert counts.bool().tolist() == [False, False, True, True, True, False]
    assert chisquare(counts[2:5].numpy()).pvalue > 1e-4
    seed = generator.initial_seed()
    assert DrawnPast((5, 2, 3))(1, seeded(seed)).context.equal(DrawnPast((5, 2, 3))(4, seeded(seed)).context[:1])
    assert {DrawnPast((4,))(1, generator).context.shape[1] for _ in range(50)} == {1, 2, 3}
    for low, high in ((0, 2), (3, 2), (1, 5)):
        with pytest.raises(ValueError, match="1 <= low <= high <= 4 times"):
            DrawnPast((5, 2, 3), low=low, high=high)


@pytest.mark.parametrize(
    "sampler",
    [Tubes.short_range((4, 6, 6)), Tubes.long_range((8, 8)), SHORT((4, 8, 8)), DrawnPast((8, 2, 2))],
    ids=lambda sampler: type(sampler).__name__,
)
def test_samplers_keep_to_the_protocol_and_draw_the_same_again(sampler: MaskSampler) -> None:
    assert isinstance(sampler, MaskSampler)
    drawer, again = MaskDrawer(sampler, seed=1), MaskDrawer(sampler, seed=1)
    for _ in range(3):
        assert drawer(5).context.equal(again(5).context)
