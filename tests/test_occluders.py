"""The occluder stream and its matched pairs: pure, lawful, and equal in all that a memoryless eye can see."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from jepalab.data.nuisance import Nuisance
from jepalab.data.occluder_pairs import CONCEPTS, LEGAL
from jepalab.data.occluder_scenes import ROWS, SHAPES, Scenes, area, bounce, drop, fall, textures
from jepalab.data.occluders import OccludedShapes, Pairs
from jepalab.data.sprites import SPLITS, Split
from jepalab.types import Batch, Stream

NOISY = Nuisance(strength=1.0, persistence=0.5)
SWAPPED = ("permanence", "continuity", "shape", "background", "look")  # while all that differs is hidden
KINDS = (*CONCEPTS, *LEGAL, "blink")
MATCHED = tuple(kind for kind in KINDS if kind != "flicker")


def made(kind: str, split: Split = "test", num: int = 40, *, stream: OccludedShapes | None = None) -> Pairs:
    stream = stream or OccludedShapes()
    if kind == "blink":
        return stream.blinks(split, num)
    return stream.legal(kind, split, num) if kind in LEGAL else stream.pairs(kind, split, num)


def change(x: Tensor) -> Tensor:
    """Sum of squared changes from each frame to the next, [n t-1]."""
    return x.diff(dim=1).square().flatten(2).sum(2)


def shapes(x: Tensor) -> Tensor:
    """Where shapes are seen: nothing else is black or white."""
    return ((x == 0) | (x == 1)).flatten(2, 3)


def middle(where: Tensor) -> Tensor:
    """Column and row of the mean of the pixels [... h w], [... 2]."""
    num = where.sum((-1, -2)).clamp_min(1)
    line = torch.arange(32.0)
    return torch.stack([(where.sum(-2) * line).sum(-1) / num, (where.sum(-1) * line).sum(-1) / num], -1)


def quartets(x: Tensor) -> Tensor:
    return x.unflatten(0, (-1, 2))


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.x, other.x) and all(torch.equal(one.factors[k], other.factors[k]) for k in one.factors)


def test_batch_is_a_pure_function_of_seed_split_and_step() -> None:
    stream = OccludedShapes(NOISY, clips_per_batch=3)
    torch.manual_seed(0)
    first = stream.batch(5)
    torch.manual_seed(1)
    assert same(replace(stream).batch(5), first)
    others = [stream.batch(6), replace(stream, seed=1).batch(5), *(stream.held_out(split, 3) for split in SPLITS)]
    others += [replace(stream, split=split).batch(5) for split in SPLITS[1:]]
    for factor in ("position", "nuisance"):
        drawn = {batch.factors[factor].numpy().tobytes() for batch in (first, *others)}
        assert len(drawn) == 8, f"{factor} was drawn twice alike"


def test_clips_are_those_of_the_first_release() -> None:
    """Every grey value and every place is exact, so the hash is the same on every processor."""
    stream = OccludedShapes(clips_per_batch=8)
    contents = (stream.batch(3).x, *(part for kind in KINDS for part in made(kind, num=4)))
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in contents)).hexdigest()
    assert digest[:16] == "c2a5c71e568fbe4d"


def test_stream_says_what_it_holds() -> None:
    stream = OccludedShapes(clips_per_batch=40, num_frames=14)
    batch = stream.batch(0)
    assert isinstance(stream, Stream)
    assert stream.frames_per_batch == batch.x.shape[0] * batch.x.shape[1] == 560
    assert batch.x.shape == (40, 14, 1, 32, 32)
    assert batch.action is None
    assert {name: tuple(value.shape[1:]) for name, value in batch.factors.items()} == {
        "position": (14, 2),
        "velocity": (14, 2),
        "visible": (14, 1),
        "class": (14,),
        "count": (14,),
        "nuisance": (14, 49),
    }
    assert stream.num_classes == len(SHAPES) == int(batch.factors["class"].max()) + 1
    assert set(batch.factors["count"].unique().tolist()) <= {0, 1, 2}
    assert set(stream.held_out("test", 40).factors["count"].unique().tolist()) == {1, 2}
    assert not batch.factors["nuisance"].any()
    assert set((batch.x * 8).unique().tolist()) <= set(range(9))
    mean, std = stream.statistics()
    assert (mean, std) == pytest.approx((float(batch.x.mean()), float(batch.x.std())), abs=0.03)


def test_factors_tell_what_is_in_the_picture() -> None:
    batch = OccludedShapes(num_frames=14).held_out("train", 300)
    factors = batch.factors
    alone, seen = factors["count"] == 1, factors["visible"][..., 0]
    where = shapes(batch.x)
    told = (factors["position"] + 1) * 15.5
    radius = (told - middle(where)).abs()
    whole = alone & (seen == 1)
    symmetric = whole & (factors["class"] != SHAPES.index("triangle"))
    assert symmetric.float().mean() > 0.2
    assert radius[symmetric].max() < 1e-3
    assert radius[whole][:, 0].max() < 1e-3
    pixels = where.sum((-1, -2))
    sizes = torch.stack([area(factors["class"][:, 0], torch.full((300,), radius)) for radius in (3, 4)], 1)
    shares = pixels[..., None] / sizes[:, None]
    assert ((shares - seen[..., None]).abs().amin(-1) < 1e-6)[alone].all()
    velocity = factors["velocity"]
    torch.testing.assert_close(velocity[:, :-1], factors["position"].diff(dim=1), rtol=0, atol=1e-6)


def test_velocity_is_constant_away_from_borders_walls_and_floors() -> None:
    factors = OccludedShapes(gravity=0.0).held_out("train", 400).factors
    row, velocity = (factors["position"][..., 1] + 1) * 15.5, factors["velocity"][..., 1] * 15.5
    free = ((row > 8) & (row < 23))[:, 1:-1]
    turned = velocity.diff(dim=1)[:, :-1].abs() > 1e-3
    assert not (turned & free).any()
    column_velocity = factors["velocity"][..., 0].abs() * 15.5
    assert (column_velocity.diff(dim=1).abs() < 1e-3).float().mean() > 0.8
    assert float(column_velocity.max()) == pytest.approx(3, abs=1e-3)


def test_bouncing_and_falling_are_what_they_are_on_paper() -> None:
    one = torch.tensor([3])
    course = bounce(one, torch.tensor([2]), torch.tensor([2]), torch.tensor([6]), torch.arange(6))
    assert course.tolist() == [[3, 5, 5, 3, 3, 5]]
    assert drop(torch.arange(-4, 5), 0.25).tolist() == [2, 1, 1, 0, 0, 0, 1, 1, 2]
    # From row 10 to the ground at row 18 it takes 8 frames at 1/4; thrown back there, it stands at row 10 again.
    rows = fall(torch.tensor([10]), torch.tensor([18]), torch.arange(17)[None], 0.25)[0]
    assert rows.tolist() == (10 + drop(torch.arange(17) - 16 * (torch.arange(17) > 8), 0.25)).tolist()
    assert rows[8] == 18


def test_shapes_have_one_run_a_row_and_the_textures_half_and_half() -> None:
    for both in ROWS.values():
        for height, rows in zip((7, 9), both, strict=True):
            assert len(rows) == height
            assert all(row % 2 and 3 <= row <= height for row in rows)
    for rows in (slice(None), slice(4, 28)):
        assert not textures()[:, rows].sum(1).any()


@pytest.mark.parametrize("size", [0, 1])
def test_a_move_sideways_costs_the_same_for_every_shape(size: int) -> None:
    num = len(SHAPES)
    for step in (1, 2, 3):
        course = torch.tensor([[10, 16], [10 + step, 16]]).expand(num, 1, 2, 2)
        kind = torch.arange(num)[:, None]
        scenes = replace(
            Scenes.empty(num, 2),
            centre=course,
            kind=kind,
            radius=torch.full_like(kind, 3 + size),
            present=torch.ones_like(kind, dtype=torch.bool),
        )
        cost = scenes.draw().diff(dim=1).square().sum((1, 2, 3))
        assert cost.tolist() == [2 * step * (7 + 2 * size) / 4] * num


def start_column(x: Tensor) -> Tensor:
    return middle(shapes(x[:, :1]))[:, 0, 0].round().long()


def test_splits_start_in_different_columns() -> None:
    residues: dict[Split, set[int]] = {"train": {0, 1, 2}, "validation": {3}, "test": {4}}
    for split, wanted in residues.items():
        stream = OccludedShapes(split=split, clips_per_batch=200)
        for batch in (stream.batch(0), OccludedShapes().held_out(split, 200)):
            column = ((batch.factors["position"][:, 0, 0] + 1) * 15.5).round().long()
            assert set((column % 5).tolist()) == wanted
        for kind in ("gravity", "flicker"):  # whose first frame shows a whole shape
            assert set((start_column(made(kind, split, 100).possible) % 5).tolist()) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_the_same_up_to_its_frame_and_differs_there(kind: str) -> None:
    for num_frames in (12, 16):
        pairs = made(kind, stream=OccludedShapes(num_frames=num_frames))
        differs = (pairs.possible != pairs.impossible).flatten(2).any(2)
        assert torch.equal(differs.int().argmax(1), pairs.frame)
        assert pairs.frame.min() >= num_frames // 2
        assert differs.any(1).all()


@pytest.mark.parametrize("kind", MATCHED)
def test_a_pair_changes_as_much_exactly(kind: str) -> None:
    for split in SPLITS:
        pairs = made(kind, split, 100)
        possible, impossible = change(pairs.possible), change(pairs.impossible)
        assert torch.equal(possible.sum(1), impossible.sum(1))
        assert torch.equal(possible.amax(1), impossible.amax(1))
        assert possible.sum(1).min() > 0


@pytest.mark.parametrize("kind", [*CONCEPTS, "background", "look"])
def test_a_quartet_holds_the_same_frames_and_changes_under_any_nuisance(kind: str) -> None:
    clean = made(kind)
    frames = [quartets(clips).sum(1) for clips in (clean.possible, clean.impossible)]
    assert torch.equal(*frames)
    noisy = made(kind, stream=OccludedShapes(NOISY))
    changes = [quartets(change(clips)).sum(1) for clips in (noisy.possible, noisy.impossible)]
    torch.testing.assert_close(*changes, rtol=1e-5, atol=1e-4)
    added = (noisy.possible - clean.possible).unflatten(0, (-1, 2))
    torch.testing.assert_close(added[:, 0], added[:, 1], rtol=0, atol=1e-6)
    assert added.std() > 0.2


@pytest.mark.parametrize("kind", SWAPPED)
def test_the_swap_is_hidden(kind: str) -> None:
    """Some frame before the first difference is the same in all four clips: it holds nothing that tells the courses."""
    pairs = made(kind)
    a, b = quartets(pairs.possible).unbind(1)
    alike = (a == b).flatten(2).all(2)
    for row, frame in zip(alike, quartets(pairs.frame)[:, 0].tolist(), strict=True):
        assert not row[: frame - 6].all(), "the two beginnings differ"
        assert row[frame - 1]
    swapped = quartets(pairs.impossible).flip(1)
    assert torch.equal(quartets(pairs.possible)[:, :, -1], swapped[:, :, -1])


def test_impossible_clips_are_impossible_for_the_reason_they_say() -> None:
    """Read from the pixels of the first half and of the last frame."""

    def seen(kind: str) -> tuple[Tensor, Tensor, Tensor]:
        pairs = made(kind, num=60)
        return (shapes(pairs.possible)[:, :8].any(1), *(shapes(clips)[:, -1] for clips in pairs[:2]))

    before, after, never = (where.any(2).any(1) for where in seen("permanence"))
    assert torch.equal(after, before)
    assert torch.equal(never, ~before)
    before, after, never = (where.any(2) for where in seen("continuity"))  # rows
    assert torch.equal(before, after)
    assert not (after & never).any()
    before, after, never = seen("shape")
    assert torch.equal(after.any(2), never.any(2)), "of the same height, in the same rows"
    assert (after != never).flatten(1).any(1).all()


def test_gravity_pulls_towards_the_floor() -> None:
    pairs = made("gravity", num=60)
    below = pairs.possible[:, 0, 0, -1, 0] != 0.5
    assert below.float().mean() == 0.5
    possible, impossible = (middle(shapes(clips))[..., 1] * torch.where(below, 1, -1)[:, None] for clips in pairs[:2])
    apex = possible.amin(1)
    assert (possible[:, -1] - apex >= 4.9).all()
    assert (impossible[:, -1] - apex <= -4.9).all()
    torch.testing.assert_close(possible[:, -1] + impossible[:, -1], 2 * apex, rtol=0, atol=1e-4)
    curvature = possible.diff(dim=1).diff(dim=1).mean(1)
    assert ((curvature > 0.15) & (curvature < 0.35)).all(), "a quarter of a pixel a frame^2"


def test_only_a_wall_turns_a_shape_back() -> None:
    pairs = made("solidity", num=60)
    walled = (pairs.possible[:, 0, 0, 0] != 0.5).any(1)
    assert walled.float().mean() == 0.5
    bar = ((pairs.possible[:, 0, 0, 15] == 0.25) | (pairs.possible[:, 0, 0, 15] == 0.75)).float()
    centre = (bar * torch.arange(32)).sum(1) / bar.sum(1)
    for clips, turned_back in zip(pairs[:2], (walled, ~walled), strict=True):
        column = middle(shapes(clips))[..., 0]
        came = column[:, :8].gather(1, shapes(clips)[:, :8].sum((-1, -2)).argmax(1, keepdim=True))[:, 0]
        assert torch.equal((came > centre) == (column[:, -1] > centre), turned_back)


def test_constant_velocity_knows_no_walls_and_no_weight() -> None:
    for kind in ("permanence", "continuity", "shape", "look"):
        pairs = made(kind)
        assert torch.equal(pairs.inertial, pairs.possible)
    for kind in ("solidity", "gravity"):
        pairs = made(kind)
        away = [(clips - pairs.inertial).square().flatten(1).sum(1) for clips in (pairs.possible, pairs.impossible)]
        assert float((away[0] > away[1]).float().mean()) == float((away[0] < away[1]).float().mean())


def test_legal_changes_cost_nothing_or_as_much_as_a_blink() -> None:
    still, lit, _, _, _ = made("flicker")
    flickers, blinks, _, lawful, _ = made("blink")
    assert not change(still).any()
    assert not change(lawful).any()
    added = change(lit).sum(1)
    pixels = shapes(still)[:, 0].sum((-1, -2))
    assert torch.equal(added, 2 * pixels / 4)
    assert torch.equal(change(flickers), change(blinks))
    before, after = (shapes(clips).sum((-1, -2)) for clips in (lawful, blinks))
    assert torch.equal(after.amin(1), torch.zeros(40, dtype=torch.long))
    assert torch.equal(after.amax(1), before.amax(1))
    white = [clips[:, 0].flatten(1).amax(1) == 1 for clips in made("look")[:2]]
    assert torch.equal(*white)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_a_stronger_nuisance_lies_over_the_same_clips(strength: float) -> None:
    stream = OccludedShapes(Nuisance(strength=strength))
    assert torch.equal(stream.pairs("shape", "test", 4).frame, OccludedShapes().pairs("shape", "test", 4).frame)
    added = stream.batch(0).x - OccludedShapes().batch(0).x
    assert added.min() >= 0
    assert float(added.max()) == pytest.approx(strength, rel=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_frames": 11}, "12 to 16 frames, got num_frames=11"),
        ({"num_frames": 17}, "num_frames=17"),
        ({"gravity": -0.1}, "gravity=-0.1"),
    ],
)
def test_stream_refuses_worlds_that_it_cannot_make(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OccludedShapes(**wrong)


def test_pairs_say_what_they_can_be_made_of() -> None:
    weightless = OccludedShapes(gravity=0.0)
    assert weightless.concepts == CONCEPTS[:-1]
    with pytest.raises(ValueError, match=r"out of .*'gravity' .gravity=0"):
        weightless.pairs("gravity", "test", 2)
    with pytest.raises(ValueError, match=r"out of .*magic"):
        weightless.pairs("magic", "test", 2)
    with pytest.raises(ValueError, match="legal change out of"):
        weightless.legal("shape", "test", 2)
    with pytest.raises(ValueError, match="even number of at least 2, got 3"):
        weightless.pairs("shape", "test", 3)
    with pytest.raises(ValueError, match="wanted 1 clips for gravity, but only 0"):
        OccludedShapes(gravity=1.0).pairs("gravity", "test", 2)
