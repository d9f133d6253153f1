"""The motion benchmark: single frames say nothing of the class, their order does, and a clip is its index's alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepalab.data.augmentation import Crop
from jepalab.data.clips import Clips
from jepalab.data.image_cache import PARTIAL
from jepalab.data.images import Images, open_images
from jepalab.data.motion_paths import ANGLE, MOTIONS, NUM_UNIFORMS, REVERSALS, SIZE, Dice, Tracks, follow
from jepalab.data.motions import CHUNK, Motions, handwriting, motion_clips
from jepalab.data.nuisance import Nuisance
from jepalab.data.sample_stream import SampleStream
from jepalab.data.sprites import SPLITS, Split
from jepalab.instruments.probes import RidgeClassifier

NAMES = list(MOTIONS)
CHANCE = 1 / len(NAMES)
COUNTS: dict[Split, int] = {"train": 1024, "validation": 256, "test": 768}
# Those whose objects end up elsewhere, or larger, than they began.
GOING = ["right", "left", "down", "up", "grow", "shrink"]

Observed = dict[Split, tuple[Tensor, Tensor]]


def pictures(pixels: np.ndarray, *, splits: Tensor | None = None) -> Images:
    """Pictures in memory, in equal splits."""
    return Images(
        pixels=pixels,
        labels=torch.zeros(len(pixels), dtype=torch.long),
        names=["one"],
        splits=torch.arange(len(pixels)).remainder(3).to(torch.int8) if splits is None else splits,
        skipped={},
        digest=str(pixels.mean()),
        source="an array",
    )


def even(value: int) -> Images:
    return pictures(np.full((3, 8, 8, 1), value, dtype=np.uint8))


@pytest.fixture(scope="module")
def plain() -> Motions:
    """White discs on black: nothing but positions and sizes, which no real picture shows as clearly."""
    return Motions(images=even(255), backgrounds=even(0))


@pytest.fixture(scope="module")
def plain_clips(plain: Motions) -> Observed:
    return observe(plain)


@pytest.fixture
def digits_world() -> Motions:
    return Motions(images=handwriting())


def observe(world: Motions, *, classes: list[str] = NAMES) -> Observed:
    """Grey clips [m t h w] of these classes, and their labels, in each split."""
    found: Observed = {}
    wanted = torch.tensor([NAMES.index(name) for name in classes])
    for split, num in COUNTS.items():
        index = torch.arange(16 * num)
        index = index[torch.isin(world.labels(index), wanted)][:num]
        clips = torch.cat([world.clips(split, part).float().mean(-1) / 255 for part in index.split(CHUNK)])
        found[split] = clips, world.labels(index)
    return found


def predict(clips: Observed, features: Callable[[Tensor], Tensor]) -> Tensor:
    """What a ridge classifier says of the test clips."""
    (x, y), (x_validation, y_validation), (x_test, _) = clips.values()
    probe = RidgeClassifier().fit(features(x), y, features(x_validation), y_validation)
    return probe.predict(features(x_test))


def accuracy(clips: Observed, features: Callable[[Tensor], Tensor]) -> float:
    return (predict(clips, features) == clips["test"][1]).double().mean().item()


def look(frames: Tensor) -> Tensor:
    """Pixels [m h w] in cells of 4 x 4, and 256 random nonlinear features of cells of 2 x 2."""
    coarse, cells = (F.avg_pool2d(frames.unsqueeze(1), side).flatten(1) for side in (4, 2))
    directions = torch.randn(cells.shape[1], 256, generator=torch.Generator().manual_seed(0))
    return torch.cat([coarse, ((cells - cells.mean(1, keepdim=True)) @ directions).relu()], 1)


def look_in_no_order(clips: Tensor) -> Tensor:
    """What single frames show, averaged over the clip, and how much frames differ, whatever their order."""
    seen = look(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]).mean(1)
    return torch.cat([seen, F.avg_pool2d(clips.std(1, keepdim=True), 2).flatten(1)], 1)


def look_at_flow(clips: Tensor) -> Tensor:
    """Cross-correlation of successive frames at shifts of up to 5 pixels, in the clip's first and second half."""
    spectrum = torch.fft.rfft2(clips - clips.mean(1, keepdim=True))
    correlation = torch.fft.irfft2(spectrum[:, :-1].conj() * spectrum[:, 1:])
    near = correlation.roll((5, 5), (-2, -1))[..., :11, :11].flatten(2)
    return torch.cat([half.mean(1) for half in near.split(math.ceil(near.shape[1] / 2), 1)], 1)


def above(chance: float, num: int) -> float:
    """An accuracy that guessing reaches once in about 30,000 times."""
    return chance + 4 * math.sqrt(chance * (1 - chance) / num)


def keep_inside(tracks: Tracks) -> Tracks:
    """The design without its circles: every path from end to end inside the frame, and every size on the scale."""
    low, high = tracks.path.amin(1, keepdim=True), tracks.path.amax(1, keepdim=True)
    inside = tracks.path - low + (tracks.path[:, :1] % 1) * (1 - (high - low))
    return replace(tracks, path=torch.where(torch.arange(4) == ANGLE, tracks.path, inside))


class Broken(Motions):
    """Objects that never leave the frame: what a first attempt at such a benchmark does."""

    def tracks(self, split: Split, index: Tensor) -> Tracks:
        return keep_inside(super().tracks(split, index))


def farthest_from_uniform(tracks: Tracks) -> float:
    """Largest Kolmogorov-Smirnov statistic over classes, frames, objects and coordinates, times sqrt(n)."""
    worst = 0.0
    for label in range(len(NAMES)):
        state = (tracks.path[tracks.labels == label] % 1).flatten(1).sort(0).values
        num = len(state)
        steps = torch.arange(num + 1, dtype=torch.float64)[:, None] / num
        gap = torch.maximum((state - steps[:-1]).abs(), (state - steps[1:]).abs())
        worst = max(worst, gap.max().item() * math.sqrt(num))
    return worst


def many_tracks(num: int = 16 * 500, *, num_frames: int = 8) -> Tracks:
    uniforms = torch.rand(num, NUM_UNIFORMS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return follow(torch.arange(num) % len(NAMES), Dice.cast(uniforms), num_frames=num_frames)


# P(statistic > z) is about 2 exp(-2 z^2): 4e-8 here, for a thousand statistics.
KOLMOGOROV = 3.0


def test_every_coordinate_is_uniform_at_every_frame_of_every_class() -> None:
    assert farthest_from_uniform(many_tracks()) < KOLMOGOROV


def test_uniformity_fails_where_objects_stay_inside() -> None:
    assert farthest_from_uniform(keep_inside(many_tracks())) > 2 * KOLMOGOROV


def test_a_motion_does_not_look_at_its_start(generator: torch.Generator) -> None:
    """Why the above holds exactly: another start moves the whole track by as much."""
    uniforms = torch.rand(160, NUM_UNIFORMS, dtype=torch.float64, generator=generator)
    moved = uniforms.clone()
    moved[:, :8] = torch.rand(160, 8, dtype=torch.float64, generator=generator)
    labels = torch.arange(160) % len(NAMES)
    one, other = (follow(labels, Dice.cast(dice), num_frames=8) for dice in (uniforms, moved))
    assert torch.allclose(one.velocity, other.velocity, atol=1e-12)
    assert not torch.allclose(one.path, other.path)


@pytest.mark.parametrize(("one", "other"), REVERSALS)
def test_pairs_are_each_others_reversal(one: str, other: str) -> None:
    tracks = many_tracks()
    there, back = (tracks.velocity[tracks.labels == NAMES.index(name)] for name in (one, other))

    def facts(velocity: Tensor) -> Tensor:
        """Velocities, speeds and turns of the way, of each object in each step; [f m]."""
        x, y = velocity[..., 0], velocity[..., 1]
        turns = x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]
        return torch.cat([part.flatten(1) for part in (velocity, x.hypot(y), turns)], 1).T.contiguous()

    def gap(a: Tensor, b: Tensor) -> float:
        """Largest two-sample Kolmogorov-Smirnov statistic of these facts, times the square root of m / 2."""
        both = torch.cat([a, b], 1)
        below = [torch.searchsorted(x.sort().values, both + 1e-9) / x.shape[1] for x in (a, b)]
        return (below[0] - below[1]).abs().max().item() * math.sqrt(a.shape[1] / 2)

    # Backwards, steps come in the other order and lead the other way.
    assert gap(facts(-there.flip(1)), facts(back)) < KOLMOGOROV
    assert gap(facts(there), facts(back)) > KOLMOGOROV + 1


@pytest.mark.parametrize("t", [0, 4, 7])
def test_single_frames_are_at_chance(plain_clips: Observed, t: int) -> None:
    assert accuracy(plain_clips, lambda clips: look(clips[:, t])) < above(CHANCE, COUNTS["test"])


def test_single_frames_say_nothing_of_where_objects_go(plain: Motions) -> None:
    clips = observe(plain, classes=GOING)
    for t in (0, 7):
        assert accuracy(clips, lambda clips, t=t: look(clips[:, t])) < above(1 / len(GOING), COUNTS["test"])


def test_single_frames_tell_where_objects_go_that_stay_inside(plain: Motions) -> None:
    """The gate above, seen to fail."""
    clips = observe(Broken(images=plain.images, backgrounds=plain.backgrounds), classes=GOING)
    for t in (0, 7):
        assert accuracy(clips, lambda clips, t=t: look(clips[:, t])) > above(1 / len(GOING), COUNTS["test"]) + 0.03


def test_flow_tells_the_class(plain_clips: Observed) -> None:
    assert accuracy(plain_clips, look_at_flow) > 0.4


def test_pairs_need_the_order_of_frames(plain_clips: Observed) -> None:
    """In no order, frames tell some classes, but a pair's two are the same clips."""
    labels = plain_clips["test"][1]
    paired = labels < 2 * len(REVERSALS)

    def side(features: Callable[[Tensor], Tensor]) -> tuple[float, int]:
        """Of clips whose pair was found, the share whose side was."""
        said = predict(plain_clips, features)
        found = paired & (said // 2 == labels // 2)
        return (said == labels)[found].double().mean().item(), int(found.sum())

    unordered, num = side(look_in_no_order)
    assert num > 100
    assert abs(unordered - 0.5) < above(0.5, num) - 0.5
    ordered, num = side(look_at_flow)
    assert ordered > 0.75 > above(0.5, num)


def test_natural_pictures_are_at_chance_and_flow_is_not(jepalab_data: Path, tmp_path: Path) -> None:
    files = sorted((jepalab_data / "cifar10").glob("test*.parquet"))
    if not files:
        pytest.skip("no cifar10 in $JEPALAB_DATA")
    # Under another name, else all of them would be test pictures.
    shutil.copyfile(files[0], tmp_path / "pictures.parquet")
    images = open_images(tmp_path / "pictures.parquet", size=32, cache=tmp_path)
    clips = observe(Motions(images=images))
    assert accuracy(clips, lambda clips: look(clips[:, 4])) < above(CHANCE, COUNTS["test"])
    assert accuracy(clips, look_at_flow) > 3 * CHANCE


def test_a_clip_is_its_index_and_no_more(digits_world: Motions) -> None:
    all_of_them = digits_world.clips("test", torch.arange(40))
    assert all_of_them.shape == (40, 8, 32, 32, 1)
    some = torch.tensor([33, 2, 7])
    assert torch.equal(digits_world.clips("test", some), all_of_them[some])
    for other in (
        digits_world.clips("validation", some),
        digits_world.clips("test", some + 16),
        replace(digits_world, seed=1).clips("test", some),
    ):
        assert not torch.equal(other, all_of_them[some])


def test_these_are_the_clips_of_this_version(digits_world: Motions) -> None:
    """Who changes what clips look like raises VERSION, else caches would go on showing the old ones."""
    tracks = digits_world.tracks("train", torch.arange(32))
    assert tracks.path.mean((0, 1, 2)).tolist() == pytest.approx(GOLDEN_TRACKS, abs=1e-6)
    pixels = digits_world.clips("train", torch.arange(32)).double()
    assert pixels.mean().item() == pytest.approx(GOLDEN_MEAN, abs=0.01)
    assert pixels.diff(dim=1).abs().mean().item() == pytest.approx(GOLDEN_CHANGE, abs=0.01)


GOLDEN_TRACKS = (0.4693959, 0.4884400, 0.5419755, 0.5771080)
GOLDEN_MEAN, GOLDEN_CHANGE = 79.997, 12.506


def test_splits_share_no_picture(digits_world: Motions) -> None:
    used = []
    for i, split in enumerate(SPLITS):
        objects, scenes = digits_world.shown(split, torch.arange(400))
        shown = torch.cat([objects.flatten(), scenes])
        assert (digits_world.images.splits[shown] == i).all()
        assert len(shown.unique()) > 150
        used.append(set(shown.tolist()))
    assert not used[0] & used[1] | used[0] & used[2] | used[1] & used[2]


def test_what_is_shown_has_nothing_to_do_with_the_class(digits_world: Motions) -> None:
    objects, scenes = digits_world.shown("train", torch.arange(3200))
    for shown in (objects[:, 0], objects[:, 1], scenes):
        digit, label = digits_world.images.labels[shown], torch.arange(3200) % len(NAMES)
        table = torch.zeros(10, len(NAMES)).index_put_((digit, label), torch.ones(3200), accumulate=True)
        expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / 3200
        freedom = 9 * (len(NAMES) - 1)
        assert ((table - expected) ** 2 / expected).sum() < freedom + 4 * math.sqrt(2 * freedom)


def brightest(world: Motions, index: Tensor) -> tuple[Tensor, Tensor]:
    """White discs' area and circular mean of their place [m t 2], for clips that show the upper disc only."""
    clips = world.clips("train", index).double()[..., 0] / 255
    pixels = (torch.arange(world.size, dtype=torch.float64) + 0.5) / world.size
    waves = torch.exp(2j * math.pi * pixels)
    x, y = ((clips.sum(axis) * waves).sum(-1).angle() / (2 * math.pi) % 1 for axis in (2, 3))
    return clips.sum((2, 3)), torch.stack([x, y], -1)


class Alone(Motions):
    """One object: the lower one lies behind the upper, as small as can be."""

    def tracks(self, split: Split, index: Tensor) -> Tracks:
        tracks = super().tracks(split, index)
        path = tracks.path.clone()
        path[:, :, 0] = path[:, :, 1]
        path[:, :, 0, SIZE] = 0
        return replace(tracks, path=path)


def test_objects_are_where_the_tracks_say(plain: Motions) -> None:
    """Between pixels and across the border: to a twentieth of a pixel."""
    world = Alone(images=plain.images, backgrounds=plain.backgrounds)
    index = torch.arange(64)
    tracks = world.tracks("train", index)
    area, place = brightest(world, index)
    off = (place - tracks.position[:, :, 1] + 0.5) % 1 - 0.5
    assert off.abs().max() * world.size < 0.05
    lower, upper = (tracks.diameter * world.size).unbind(-1)
    # Where the lower disc is as small as the upper one, it shows through that one's soft edge.
    clear = upper > lower + 3
    torch.testing.assert_close(area[clear], (math.pi / 4 * upper**2)[clear], rtol=0.03, atol=0)


def test_angles_turn_pictures_clockwise() -> None:
    """A picture white on its right half shows the white below, after a quarter turn."""
    half = np.zeros((3, 32, 32, 1), dtype=np.uint8)
    half[:, :, 16:] = 255
    path = torch.tensor([0.5, 0.5, 0.0, 0.9], dtype=torch.float64).repeat(1, 8, 2, 1)
    path[0, :, :, ANGLE] = torch.arange(8)[:, None] / 4

    class Posed(Motions):
        def tracks(self, split: Split, index: Tensor) -> Tracks:
            return Tracks(torch.zeros(1, dtype=torch.long), path)

    clip = Posed(images=pictures(half), backgrounds=even(0)).clips("train", torch.tensor([0]))[0, ..., 0]
    right, below, left, above_ = clip[:4].float()
    assert right[16, 20] == below[20, 16] == left[16, 11] == above_[11, 16] == 255
    assert right[16, 11] == below[11, 16] == left[16, 20] == above_[20, 16] == 0


def test_motions_are_what_they_are_called() -> None:
    tracks = many_tracks(16 * 50)

    def velocity(name: str) -> Tensor:
        """Of the object that moves, by where it moves; [m s 4]."""
        found = tracks.velocity[tracks.labels == NAMES.index(name)]
        upper = found.abs().sum((1, 3)).argmax(1)
        return found[torch.arange(len(found)), :, upper]

    assert (velocity("right")[..., 0] > 0).all()
    assert (velocity("left")[..., 0] < 0).all()
    assert (velocity("down")[..., 1] > 0).all()
    assert (velocity("up")[..., 1] < 0).all()
    assert (velocity("spin clockwise")[..., ANGLE] > 0).all()
    assert (velocity("grow")[..., SIZE] > 0).all()
    assert (velocity("shrink")[..., SIZE] < 0).all()
    for name, sign in (("orbit clockwise", 1), ("orbit anticlockwise", -1)):
        v = velocity(name)[..., :2]
        cross = v[:, :-1, 0] * v[:, 1:, 1] - v[:, :-1, 1] * v[:, 1:, 0]
        assert (sign * cross > 0).all()
    for name, sign in (("accelerate", 1), ("decelerate", -1)):
        assert (sign * velocity(name)[..., :2].norm(dim=-1).diff(dim=1) > 0).all()
    bounce = velocity("bounce")[..., :2]
    assert ((bounce[:, 0] * bounce[:, -1]).sum(-1) < 0).all()
    for name, sign in (("together", 1), ("opposite", -1)):
        both = tracks.velocity[tracks.labels == NAMES.index(name)]
        torch.testing.assert_close(both[:, :, 0], sign * both[:, :, 1])
        assert (both[..., :2].norm(dim=-1) > 0).all()
    relay = tracks.velocity[tracks.labels == NAMES.index("relay")][..., :2].norm(dim=-1)
    assert ((relay[:, 0] > 0).sum(-1) == 1).all()
    assert ((relay[:, 0] > 0) != (relay[:, -1] > 0)).all()


def test_backgrounds_hold_still_or_drift(digits_world: Motions) -> None:
    empty = Alone(images=even(0), backgrounds=handwriting())
    still = empty.clips("train", torch.arange(16)).int()
    moving = replace(empty, drift=0.5).clips("train", torch.arange(16)).int()
    tracks = empty.tracks("train", torch.arange(16))
    pixels = (torch.arange(32) + 0.5) / 32
    x, y = (((pixels - c[..., None] + 0.5) % 1 - 0.5).square() for c in tracks.position[:, :, 1].unbind(-1))
    far = ((x[:, :, None] + y[..., None]).sqrt() > 0.4).all(1)
    steps = still.diff(dim=1).abs().amax((1, 4))
    assert (steps[far] == 0).all()
    assert moving.diff(dim=1).abs().amax((1, 4))[far].float().mean() > 10
    # The objects do not move with the camera.
    there, here = (world.tracks("train", torch.arange(4)) for world in (replace(digits_world, drift=0.5), digits_world))
    assert torch.equal(there.path, here.path)


@pytest.mark.parametrize(("persistence", "changes"), [(1.0, False), (0.0, True)])
def test_nuisance_is_added_and_nothing_is_clipped(digits_world: Motions, persistence: float, changes: bool) -> None:
    index = torch.arange(6)
    clean = digits_world.clips("train", index).float() / 255
    nuisance = Nuisance(strength=0.5, persistence=persistence)
    noisy = replace(digits_world, nuisance=nuisance).clips("train", index).float() / 255
    added = noisy * 1.5 - clean
    assert added.min() > -0.01
    assert added.max() < 0.51
    assert added.std() > 0.05
    assert (added.diff(dim=1).abs().max() > 0.02) == changes


def test_clips_are_made_once_and_found_again(tmp_path: Path) -> None:
    def make(**settings: int | float) -> Clips:
        return motion_clips(
            num_train=32,
            num_validation=16,
            num_test=20,
            cache=tmp_path,
            progress=lambda *_: calls.append(1),
            **settings,
        )

    calls: list[int] = []
    clips = make()
    assert calls
    assert clips.pixels.shape == (68, 8, 32, 32, 1)
    assert clips.names == NAMES
    for split, num in (("train", 2), ("validation", 1)):
        assert (clips.labels[clips.indices(split)].bincount() == num).all()
    counts = clips.labels[clips.indices("test")].bincount(minlength=16)
    assert counts.max() - counts.min() <= 1
    world = Motions(images=handwriting())
    assert torch.equal(clips.read(clips.indices("test")), world.clips("test", torch.arange(20)))
    calls.clear()
    again = make()
    assert not calls
    assert again.digest == clips.digest
    assert np.array_equal(again.pixels, clips.pixels)
    for settings in ({"seed": 1}, {"drift": 0.25}, {"num_frames": 6}):
        assert make(**settings).digest != clips.digest
        assert calls
        calls.clear()
    # A file that was cut short is no cache.
    for file in tmp_path.glob("*/pixels.npy"):
        file.write_bytes(file.read_bytes()[:-1])
    assert make().digest == clips.digest
    assert calls


def test_a_killed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        assert len(list(tmp_path.glob(f"*{PARTIAL}*"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        motion_clips(num_train=16, num_validation=16, num_test=16, cache=tmp_path, progress=stop)
    assert not list(tmp_path.iterdir())
    # As a process that was killed leaves it: half written, under its other name.
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        motion_clips(num_train=16, num_validation=16, num_test=16, cache=tmp_path, progress=stop)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(motion_clips(num_train=16, num_validation=16, num_test=16, cache=tmp_path)) == 48


def test_a_stream_trains_on_them(tmp_path: Path) -> None:
    clips = motion_clips(num_train=64, num_validation=16, num_test=16, cache=tmp_path)
    for augmentation in (None, Crop(scale=(0.5, 1.0), flip=0.0)):
        batch = SampleStream(clips, batch_size=8, augmentation=augmentation).batch(0)
        assert batch.x.shape == (8, 8, 1, 32, 32)
        assert batch.factors["class"].shape == (8, 1)
    assert "16 classes of 6 to 6 clips" in clips.describe()


def test_colour_wins() -> None:
    coloured = pictures(np.zeros((3, 8, 8, 3), dtype=np.uint8))
    for images, backgrounds in ((coloured, even(9)), (even(9), coloured)):
        clips = Motions(images=images, backgrounds=backgrounds).clips("train", torch.arange(2))
        assert clips.shape == (2, 8, 32, 32, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_frames": 3}, "at least 4 frames"),
        ({"size": 8}, "at least 16 pixels"),
        ({"drift": 2.0}, "drift=2.0"),
        ({"nuisance": Nuisance(driver="action")}, "there are no actions"),
        ({"num_test": 0}, "at least 1 clip"),
        ({"images": pictures(np.zeros((2, 8, 8, 1), dtype=np.uint8))}, "got none in test"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        motion_clips(**settings, cache=tmp_path)
    assert not list(tmp_path.iterdir())
