"""The moving-object stream: a pure function of (seed, split, step) whose factors say what is in the picture."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, pearsonr
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from jepalab.data.moving import MovingObject
from jepalab.data.nuisance import Coherence, Nuisance
from jepalab.data.sprites import SPLITS, Split, Sprites, digits, dot
from jepalab.types import Batch, Stream, ViewedStream

PICTURES = torch.rand(5, 28, 28, generator=torch.Generator().manual_seed(0))
LARGE = digits(scale=1.75)
WIDTHS: dict[Coherence, int] = {"pixel": 784, "patch": 49, "texture": 5, "image": 1}


def nuisance(coherence: Coherence, **dials: float) -> Nuisance:
    return Nuisance(coherence=coherence, images=PICTURES if coherence == "image" else None, **dials)


def tensors(batch: Batch) -> list[Tensor]:
    assert batch.action is not None
    return [batch.x, batch.action, *batch.factors.values()]


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def motion_hash(batch: Batch) -> str:
    """Of classes and positions, which are exact on every processor: uniform draws, sums and reflections."""
    content = batch.factors["class"].numpy().tobytes() + batch.factors["position"].numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def picture_print(x: Tensor) -> list[float]:
    """Mean, deviation, the last frame's quarters; not a hash, as products differ in the last bit between processors."""
    quarters = adaptive_avg_pool2d(x[-1, -1], 2).flatten()
    return [float(value) for value in (x.mean(), x.std(), *quarters)]


GOLDEN = {
    "clean digits": (
        MovingObject(sprites=LARGE, clips_per_batch=4),
        0,
        "2ad22bb89dd8193b",
        [0.084169, 0.226736, 0.066932, 0.0, 0.206815, 0.0],
    ),
    "fixed patches": (
        MovingObject(sprites=LARGE, nuisance=nuisance("patch", persistence=1.0), seed=3, clips_per_batch=4),
        7,
        "19e92d17de675914",
        [0.543467, 0.314198, 0.485417, 0.661043, 0.546634, 0.686331],
    ),
    "dot under gratings": (
        MovingObject(sprites=dot(), nuisance=nuisance("texture", persistence=0.5), split="test", clips_per_batch=4),
        123,
        "cc58a0fb08116e65",
        [0.51614, 0.360663, 0.480612, 0.512219, 0.503085, 0.552432],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_batches_are_those_of_the_first_release(name: str) -> None:
    stream, step, motion, picture = GOLDEN[name]
    batch = stream.batch(step)
    assert motion_hash(batch) == motion
    assert picture_print(batch.x) == pytest.approx(picture, abs=1e-5)


def test_batch_is_a_pure_function_of_seed_split_and_step() -> None:
    stream = MovingObject(nuisance=Nuisance(), clips_per_batch=3)
    torch.manual_seed(0)
    first = stream.batch(5)
    torch.manual_seed(1)
    assert same(stream.batch(5), first)
    assert same(replace(stream).batch(5), first)
    others = [stream.batch(6), replace(stream, seed=1).batch(5), *(stream.held_out(split, 3) for split in SPLITS)]
    others += [replace(stream, split=split).batch(5) for split in SPLITS[1:]]
    positions = [batch.factors["position"] for batch in (first, *others)]
    assert len({position.numpy().tobytes() for position in positions}) == 8
    nuisances = [batch.factors["nuisance"] for batch in (first, *others)]
    assert len({added.numpy().tobytes() for added in nuisances}) == 8


def test_stream_says_what_it_holds() -> None:
    stream = MovingObject(clips_per_batch=3, num_frames=4)
    batch = stream.batch(0)
    assert isinstance(stream, Stream)
    assert isinstance(stream, ViewedStream)
    assert stream.frames_per_batch == batch.x.shape[0] * batch.x.shape[1] == 12
    assert stream.num_classes == 10
    shapes = {name: tuple(value.shape) for name, value in batch.factors.items()}
    assert shapes == {"position": (3, 4, 2), "class": (3, 4), "nuisance": (3, 4, 49), "nuisance_parameters": (3, 4, 49)}
    assert batch.x.shape == (3, 4, 1, 28, 28)
    assert not batch.factors["nuisance"].any()


def test_digits_are_split_by_image() -> None:
    sprites = digits()
    assert sprites.split.bincount().tolist() == [1195, 298, 304]
    assert len(sprites.images.flatten(1).unique(dim=0)) == 1797, "no image twice, so none in two splits"
    for number, split in enumerate(SPLITS):
        chosen = sprites.choose(split, 4000, torch.Generator().manual_seed(0))
        assert set(sprites.split[chosen].tolist()) == {number}
        assert len(chosen.unique()) > 0.95 * int((sprites.split == number).sum())
        assert set(sprites.classes[chosen].tolist()) == set(range(10))
    assert (sprites.images.amin(), sprites.images.amax()) == (0, 1)


@given(seed=st.integers(0, 999), max_step=st.floats(0.01, 2), num_frames=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_action_is_the_displacement_within_the_borders(seed: int, max_step: float, num_frames: int) -> None:
    stream = MovingObject(sprites=dot(), seed=seed, max_step=max_step, num_frames=num_frames, clips_per_batch=8)
    batch = stream.batch(0)
    position = batch.factors["position"]
    assert batch.action is not None
    assert torch.equal(batch.action, position[:, 1:] - position[:, :-1])
    assert position.abs().max() <= 1
    assert batch.action.abs().max() <= max_step + 1e-6
    assert batch.action.abs().sum() > 0


def test_every_position_stays_as_likely_as_any_other() -> None:
    position = MovingObject(sprites=dot(), num_frames=20, max_step=0.5).held_out("train", 1500).factors["position"]
    for frame in (0, 19):
        for axis in (0, 1):
            assert kstest(position[:, frame, axis].numpy(), "uniform", args=(-1, 2)).pvalue > 0.001


def test_centre_of_brightness_is_the_position() -> None:
    """Bilinear drawing keeps the first moment of a sprite that lies within the canvas, so this is exact."""
    stream = MovingObject(sprites=dot(), clips_per_batch=16)
    batch = stream.batch(0)
    pixels, mass = batch.x[:, :, 0], batch.x.sum((-1, -2))[:, :, 0]
    canvas = torch.arange(28.0)
    centre = torch.stack([(pixels.sum(-2) * canvas).sum(-1) / mass, (pixels.sum(-1) * canvas).sum(-1) / mass], -1)
    wanted = 13.5 + batch.factors["position"] * (28 - stream.sprites.extent) / 2
    torch.testing.assert_close(centre, wanted, rtol=0, atol=1e-3)


def test_sprite_is_drawn_pixel_by_pixel_where_its_centre_falls_on_one() -> None:
    image = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0))
    sprites = Sprites(image, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    frame = sprites.draw(torch.tensor([0]), torch.tensor([[[2.0, 4.0]]]), 7)
    wanted = torch.zeros(1, 1, 7, 7)
    wanted[0, 0, 3:6, 1:4] = image[0]
    torch.testing.assert_close(frame, wanted)


def test_views_show_the_same_state_under_other_nuisances() -> None:
    clean = MovingObject()
    covered = replace(clean, nuisance=Nuisance(share=0.25, strength=2.0))
    assert clean.views("test", 6, 4).shape == (6, 4, 1, 28, 28)
    free, seen = clean.views("test", 6, 4), covered.views("test", 6, 4)
    assert torch.equal(free, free[:, :1].expand_as(free))
    corner = torch.zeros(28, 28, dtype=torch.bool)
    corner[14:, 14:] = True
    assert torch.equal(seen[..., ~corner], free[..., ~corner])
    added = (seen - free)[..., corner].flatten(1, 2)
    assert len(added.flatten(0, 1).unique(dim=0)) == 24
    assert (added.amin() >= 0, added.amax() <= 2.0) == (True, True)
    assert not torch.equal(free, clean.views("train", 6, 4))


def test_statistics_are_those_of_the_training_pixels() -> None:
    stream = MovingObject(nuisance=Nuisance(), clips_per_batch=256)
    mean, std = stream.statistics()
    x = stream.batch(0).x
    assert (mean, std) == pytest.approx((float(x.mean()), float(x.std())), rel=0.02)
    assert (mean, std) == replace(stream, split="test").statistics()


@pytest.mark.parametrize("coherence", WIDTHS)
def test_parameters_and_summary_have_one_width_a_coherence(coherence: Coherence) -> None:
    action = torch.rand(3, 4, 2)
    done = nuisance(coherence).realise(action, size=28, generator=torch.Generator().manual_seed(0))
    assert done.added.shape == (3, 5, 28, 28)
    assert done.parameters.shape == (3, 5, WIDTHS[coherence])
    cells = done.added.unflatten(-1, (7, 4)).unflatten(-3, (7, 4)).mean((-1, -3))
    torch.testing.assert_close(done.summary(), cells.flatten(2))


@given(
    coherence=st.sampled_from(list(WIDTHS)),
    strength=st.floats(0, 8),
    persistence=st.floats(0, 1),
    share=st.floats(0.01, 1),
)
@settings(max_examples=30, deadline=None)
def test_nuisance_keeps_to_its_strength_and_its_corner(
    coherence: Coherence, strength: float, persistence: float, share: float
) -> None:
    dials = nuisance(coherence, strength=strength, persistence=persistence, share=share)
    added = dials.realise(torch.zeros(2, 2, 2), size=28, generator=torch.Generator().manual_seed(0)).added
    assert added.min() >= 0
    assert added.max() <= strength * (1 + 1e-5)
    side = round(share**0.5 * 28)
    covered = (added > 0).flatten(0, 1).any(0)
    assert not covered[: 28 - side].any()
    assert not covered[:, : 28 - side].any()
    if strength > 0.01:
        assert covered[28 - side :, 28 - side :].float().mean() > 0.95


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_persistence_is_the_correlation_in_gaussian_space(rho: float) -> None:
    dials = nuisance("pixel", persistence=rho)
    done = dials.realise(torch.zeros(40, 3, 2), size=28, generator=torch.Generator().manual_seed(0))
    latent = torch.special.ndtri(done.parameters.double().clamp(1e-6, 1 - 1e-6))
    for lag in (1, 2):
        measured = pearsonr(latent[:, lag].flatten(), latent[:, 0].flatten()).statistic
        assert measured == pytest.approx(rho**lag, abs=0.02)
    if rho == 1:
        assert torch.equal(done.added, done.added[:, :1].expand_as(done.added))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_a_single_frame_looks_the_same_at_every_persistence(rho: float) -> None:
    dials = nuisance("pixel", persistence=rho)
    done = dials.realise(torch.zeros(10, 5, 2), size=28, generator=torch.Generator().manual_seed(0))
    assert kstest(done.parameters[:, 5].flatten().numpy(), "uniform").pvalue > 0.001


def test_a_driven_nuisance_follows_start_and_action_alone() -> None:
    """Its latent moves linearly in the action: what is left of the last frame's latent is exactly a map of it."""
    dials = replace(nuisance("patch", persistence=0.8), driver="action")
    action = torch.rand(400, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.4 - 0.2
    done = dials.realise(action, size=28, generator=torch.Generator().manual_seed(0), action_std=float(action.std()))
    latent = torch.special.ndtri(done.parameters.double())
    moved = (latent[:, 1:] - 0.8 * latent[:, :-1]).flatten(0, 1)
    pushes = action.flatten(0, 1).double()
    explained = pushes @ torch.linalg.lstsq(pushes, moved).solution
    torch.testing.assert_close(explained, moved, rtol=0, atol=2e-3)
    assert explained.std().item() == pytest.approx(0.6, rel=0.1)
    by_chance = replace(dials, driver="chance").realise(action, size=28, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(by_chance.added, done.added)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strength": -0.1}, "strength=-0.1"),
        ({"persistence": 1.1}, "persistence=1.1"),
        ({"share": 0.0}, "share=0.0"),
        ({"coherence": "image"}, "Give `images`"),
        ({"images": PICTURES}, "Give `images`"),
        ({"coherence": "stripes"}, "stripes"),
        ({"driver": "wind"}, "wind"),
    ],
)
def test_nuisance_refuses_dials_that_do_not_exist(wrong: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        Nuisance(**wrong)


def test_each_split_has_background_images_of_its_own() -> None:
    """Eleven even pictures, told apart by their brightness."""
    images = (torch.arange(11.0) / 10)[:, None, None].expand(-1, 28, 28)
    stream = MovingObject(nuisance=Nuisance(coherence="image", images=images), num_frames=4)

    def shown(values: Tensor) -> set[int]:
        return {*(10 * values).round().long().flatten().tolist()}

    wanted: dict[Split, set[int]] = {"train": {0, 1, 2, 5, 6, 7, 10}, "validation": {3, 8}, "test": {4, 9}}
    for split, own in wanted.items():
        assert shown(stream.held_out(split, 200).factors["nuisance"]) == own
        assert shown(stream.views(split, 4, 50).amin((2, 3, 4))) <= own
    assert shown(stream.batch(0).factors["nuisance"]) == wanted["train"]
    few = replace(stream, nuisance=Nuisance(coherence="image", images=images[:4]))
    with pytest.raises(ValueError, match=r"Wanted at least 5 background images.*got 4"):
        few.batch(0)


def test_background_must_fit_the_canvas() -> None:
    with pytest.raises(ValueError, match="must be 14 x 14"):
        nuisance("image").realise(torch.zeros(1, 1, 2), size=14, generator=torch.Generator())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sprites": LARGE, "size": 14}, "14 pixels wide"),
        ({"num_frames": 1}, "num_frames=1"),
        ({"max_step": 2.5}, "max_step=2.5"),
    ],
)
def test_stream_refuses_worlds_without_motion(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingObject(**wrong)
