"""Batches of images: pure in the step, never from a held-out split, read without filling the memory, cropped right."""

from __future__ import annotations

import colorsys
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from jepalab.data.augmentation import Augmentation, Crop, Plain, Views, blur, change_colours, resized_crops, solarize
from jepalab.data.images import Images, open_images
from jepalab.data.sample_stream import SampleStream
from jepalab.types import MovableStream, Stream

SIZE = 8
NUM = 100


@pytest.fixture
def images(generator: torch.Generator, tmp_path: Path) -> Images:
    """A hundred pictures in two classes; the first pixel of each is its number."""
    pixels = torch.randint(0, 256, (NUM, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    pixels[:, 0, 0] = torch.arange(NUM, dtype=torch.uint8)[:, None]
    labels = torch.arange(NUM) % 2
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    return open_images(tmp_path / "pixels.npy", size=SIZE, labels=labels)


def numbers(x: Tensor) -> list[int]:
    """Which pictures these are, by their first pixel."""
    return (x[:, 0, 0, 0, 0] * 255).round().long().tolist()


def test_stream_keeps_its_promises(images: Images) -> None:
    stream = SampleStream(images, batch_size=16, num_views=3)
    assert isinstance(stream, Stream)
    assert isinstance(stream, MovableStream)
    assert (stream.clips_per_batch, stream.frames_per_batch, stream.num_classes) == (16, 16, 2)
    batch = stream.batch(0)
    assert batch.x.shape == (16, 1, 3, SIZE, SIZE)
    assert [view.shape for view in batch.views] == [batch.x.shape] * 2
    assert batch.factors["class"].shape == (16, 1)
    assert batch.x.dtype == torch.float32
    assert 0 <= batch.x.min() < batch.x.max() <= 1
    assert not torch.equal(batch.x, batch.views[0])
    assert not torch.equal(batch.views[0], batch.views[1])


@pytest.mark.parametrize("augmentation", [Plain(), Crop(), Views(blur=0.5)], ids=str)
def test_a_batch_is_a_function_of_seed_and_step(images: Images, augmentation: Augmentation) -> None:
    stream = SampleStream(images, batch_size=16, augmentation=augmentation, num_views=2)
    wanted = [stream.batch(step) for step in range(12)]
    # Another order of steps, another object: as after a resume.
    resumed = SampleStream(images, batch_size=16, augmentation=augmentation, num_views=2)
    for step in (11, 3, 7, 0):
        batch = resumed.batch(step)
        assert torch.equal(batch.x, wanted[step].x)
        assert torch.equal(batch.views[0], wanted[step].views[0])
        assert torch.equal(batch.factors["class"], wanted[step].factors["class"])
    assert not torch.equal(replace(stream, seed=1).batch(0).x, wanted[0].x)
    assert not torch.equal(wanted[0].x, wanted[1].x)


def test_arms_of_one_seed_see_the_same_pictures_and_crops(images: Images) -> None:
    one, many = SampleStream(images, batch_size=16), SampleStream(images, batch_size=16, num_views=2)
    other = SampleStream(images, batch_size=16, augmentation=Views())
    for step in range(8):
        assert torch.equal(one.batch(step).x, many.batch(step).x)
        assert torch.equal(one.indices(step), other.indices(step))


def test_every_batch_is_full_and_every_epoch_shows_each_training_picture_once(images: Images) -> None:
    stream = SampleStream(images, batch_size=24, augmentation=Plain())
    train = images.indices("train").tolist()
    assert len(train) == 52
    shown = [number for step in range(10) for number in numbers(stream.batch(step).x)]
    assert len(shown) == 240
    epochs = [shown[start : start + 52] for start in (0, 52, 104, 156)]
    assert all(sorted(epoch) == train for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    labels = torch.cat([stream.batch(step).factors["class"][:, 0] for step in range(10)])
    assert labels.tolist() == [number % 2 for number in shown]


def test_batches_larger_than_an_epoch_repeat_it(images: Images) -> None:
    shown = numbers(SampleStream(images, batch_size=200, augmentation=Plain()).batch(0).x)
    assert sorted(shown[:52]) == sorted(shown[52:104]) == images.indices("train").tolist()


def test_no_held_out_picture_is_ever_trained_on(images: Images) -> None:
    parts = {split: set(images.indices(split).tolist()) for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == NUM
    assert set.union(*parts.values()) == set(range(NUM))
    for num_train in (None, 40):
        stream = SampleStream(images, batch_size=32, augmentation=Plain(), num_train=num_train)
        trained = {number for step in range(15) for number in numbers(stream.batch(step).x)}
        assert trained <= parts["train"]
        for split in ("train", "validation", "test"):
            held_out = set(numbers(stream.held_out(split, NUM).x))
            assert held_out == (trained if split == "train" else parts[split])


def test_held_out_pictures_are_untouched_and_the_same_for_all(images: Images) -> None:
    batch = SampleStream(images, seed=3, augmentation=Views()).held_out("test", 6)
    assert batch.x.shape == (6, 1, 3, SIZE, SIZE)
    index = torch.tensor(numbers(batch.x))
    assert torch.equal((batch.x[:, 0] * 255).round().byte(), images.read(index).permute(0, 3, 1, 2))
    assert torch.equal(batch.factors["class"], images.labels[index, None])
    assert torch.equal(SampleStream(images, seed=4).held_out("test", 9).x[:6], batch.x)


def test_fewer_training_pictures_are_a_part_of_more(images: Images) -> None:
    few, more = (set(SampleStream(images, num_train=num).members.tolist()) for num in (10, 30))
    assert len(few) == 10
    assert few < more


def test_a_stream_of_labelled_pictures_shows_no_others(images: Images) -> None:
    labels = images.labels.clone()
    train = images.indices("train")
    labels[train[10:]] = -1
    few = replace(images, labels=labels)
    stream = SampleStream(few, batch_size=24, augmentation=Plain(), labelled_only=True)
    batches = [stream.batch(step) for step in range(5)]
    assert {number for batch in batches for number in numbers(batch.x)} == {*train[:10].tolist()}
    assert all(len(batch.x) == 24 and (batch.factors["class"] >= 0).all() for batch in batches)
    whole = (SampleStream(images, labelled_only=only).indices(3) for only in (False, True))
    assert torch.equal(*whole), "where all are labelled it is the same stream"
    with pytest.raises(ValueError, match="no labelled samples"):
        SampleStream(replace(images, labels=torch.full((NUM,), -1)), labelled_only=True)


def test_pictures_come_in_the_size_asked_for(images: Images) -> None:
    stream = SampleStream(images, batch_size=4, size=12)
    assert stream.batch(0).x.shape == (4, 1, 3, 12, 12)
    held_out = stream.held_out("validation", 3).x[:, 0]
    assert held_out.shape == (3, 3, 12, 12)
    small = SampleStream(images).held_out("validation", 3).x[:, 0]
    torch.testing.assert_close(held_out, F.interpolate(small, 12, mode="bilinear", antialias=True))


def test_streams_that_cannot_be_say_why(images: Images) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        SampleStream(images, batch_size=0)
    with pytest.raises(ValueError, match="the 52 samples there are, got 53"):
        SampleStream(images, num_train=53)
    alone = replace(images, splits=torch.zeros(NUM, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"test split of array pixels.npy is empty"):
        SampleStream(alone, split="test")
    with pytest.raises(ValueError, match=r"validation split of array pixels.npy is empty"):
        SampleStream(alone).held_out("validation", 1)


def test_bytes_move_to_the_device_and_become_floats_there(images: Images) -> None:
    stream = SampleStream(images, batch_size=4, num_views=2, augmentation=Views(blur=0.5))
    moved = stream.on(torch.device("meta"))
    assert isinstance(moved, SampleStream)
    assert stream.device == "cpu"
    if torch.cuda.is_available():
        there, here = stream.on(torch.device("cuda")).batch(5), stream.batch(5)
        torch.testing.assert_close(there.x.cpu(), here.x, atol=1e-5, rtol=0)
        assert there.views[0].is_cuda
        assert there.factors["class"].is_cuda


MEGABYTES_OF_FORTY_BATCHES = """
import sys
from pathlib import Path
from jepalab.data.augmentation import Plain
from jepalab.data.images import open_images
from jepalab.data.sample_stream import SampleStream

stream = SampleStream(open_images(Path(sys.argv[1]), size=32), batch_size=1000, augmentation=Plain())
for step in range(40):
    stream.batch(step)
stream.samples.mean_std()
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    resident = {}
    some = np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), np.uint8)
    for num in (1000, 100_000):
        path = tmp_path / f"{num}.npy"
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (num, 32, 32, 3))
        for start in range(0, num, 1000):
            pixels[start : start + 1000] = some + np.uint8(start // 1000)
        del pixels
        # A process of its own: what earlier tests hold or let go of is not counted.
        command = [sys.executable, "-c", MEGABYTES_OF_FORTY_BATCHES, str(path)]
        resident[num] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # The pixels alone are 307 MB; hashes, labels and a permutation of 100,000 are about 6. The same
    # command run twice differs by up to 30 MB: what the allocator happens to hold.
    assert resident[100_000] - resident[1000] < 100


# Augmentations, against Pillow, torch and the formulas themselves.

boxes = st.tuples(*[st.floats(0, 1)] * 4)


@given(box=boxes, size=st.integers(1, 20), height=st.integers(4, 24), width=st.integers(4, 24), flip=st.booleans())
def test_crops_equal_pillows(
    box: tuple[float, float, float, float], size: int, height: int, width: int, flip: bool
) -> None:
    x = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    tall, wide = 1 + box[2] * (height - 1), 1 + box[3] * (width - 1)
    top, left = box[0] * (height - tall), box[1] * (width - wide)
    ours = resized_crops(x[None], torch.tensor([[top, left, tall, wide]]), torch.tensor([flip]), size=size)[0]
    area = (left, top, min(left + wide, width), min(top + tall, height))
    pillows = [Image.fromarray(c.numpy()).resize((size, size), Image.Resampling.BILINEAR, area) for c in x]
    wanted = np.stack([np.asarray(channel)[:, :: -1 if flip else 1] for channel in pillows])
    np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-4)


@pytest.mark.parametrize("size", [5, 16, 40])
def test_whole_pictures_resize_as_in_torch(generator: torch.Generator, size: int) -> None:
    x = torch.rand(4, 3, 16, 24, generator=generator)
    whole = torch.tensor([0.0, 0.0, 16.0, 24.0]).expand(4, 4)
    ours = resized_crops(x, whole, torch.zeros(4, dtype=torch.bool), size=size)
    torch.testing.assert_close(ours, F.interpolate(x, (size, size), mode="bilinear", antialias=True))


def test_a_flip_is_the_mirror_of_the_same_crop(generator: torch.Generator) -> None:
    x = torch.rand(32, 3, 16, 16, generator=generator)
    found = Crop().boxes(32, height=16, width=16, generator=generator)
    flips = torch.rand(32, generator=generator) < 0.5
    plain, mirrored = (resized_crops(x, found, turned, size=9) for turned in (torch.zeros_like(flips), flips))
    wanted = torch.where(flips[:, None, None, None], plain.flip(-1), plain)
    torch.testing.assert_close(mirrored, wanted)


def test_crops_have_the_areas_and_shapes_promised(generator: torch.Generator) -> None:
    crop = Crop(scale=(0.3, 1.0))
    top, left, height, width = crop.boxes(20_000, height=32, width=32, generator=generator).unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 32 + 1e-4
    assert (left + width).max() <= 32 + 1e-4
    area, ratio = height * width / 32**2, width / height
    assert 0.299 < area.min() < 0.31
    assert area.max() <= 1 + 1e-5
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.34
    # Below 3/4 every ratio fits, so the area is uniform there, and the ratio log-uniform: its median is 1.
    small = area < 0.7
    quarters = torch.quantile(area[small], torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quarters, torch.tensor([0.4, 0.5, 0.6]), atol=0.01, rtol=0)
    assert abs(float(ratio.median()) - 1) < 0.01
    # Places are uniform over what is free.
    assert abs(float((left / (32 - width))[small].mean()) - 0.5) < 0.01
    assert abs(float((top / (32 - height))[small].mean()) - 0.5) < 0.01


def test_half_of_the_crops_are_mirrored(generator: torch.Generator) -> None:
    ramp = torch.linspace(0, 1, 16).expand(4000, 1, 16, 16)
    cropped = Crop()(ramp, size=8, generator=generator)
    share = (cropped[:, 0, 0, 0] > cropped[:, 0, 0, -1]).float().mean()
    assert abs(float(share) - 0.5) < 0.03


def factors(num: int, value: float) -> Tensor:
    return torch.full((num,), value)


def test_colours_change_as_the_formulas_say(generator: torch.Generator) -> None:
    # Far enough from black and white that nothing is clamped.
    x = 0.4 + 0.2 * torch.rand(2, 3, 5, 5, generator=generator, dtype=torch.float64).float()
    one, none, never = factors(2, 1.0), factors(2, 0.0), torch.zeros(2, dtype=torch.bool)
    luma = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    mean = luma.mean((1, 2, 3), keepdim=True)

    def changed(b: Tensor = one, c: Tensor = one, s: Tensor = one, h: Tensor = none, grey: Tensor = never) -> Tensor:
        return change_colours(x, b, c, s, h, grey)

    torch.testing.assert_close(changed(), x)
    torch.testing.assert_close(changed(b=one * 1.3), x * 1.3)
    torch.testing.assert_close(changed(c=one * 0.5), mean + 0.5 * (x - mean))
    torch.testing.assert_close(changed(s=one * 0.4), luma + 0.4 * (x - luma))
    torch.testing.assert_close(changed(s=none), luma.expand_as(x))
    torch.testing.assert_close(changed(grey=~never), luma.expand_as(x))
    torch.testing.assert_close(changed(h=one), x, msg="a whole turn")
    turned = changed(h=one / 3)
    torch.testing.assert_close((turned * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True), luma)
    assert not torch.allclose(turned, x)
    bright = change_colours(x, one * 5, one, one, none, never)
    assert torch.equal(bright, torch.ones_like(x)), "clamped"
    grey = change_colours(x[:, :1], one * 1.1, one * 0.5, none, one / 4, ~never)
    assert grey.shape == (2, 1, 5, 5)
    torch.testing.assert_close(grey.mean(), 1.1 * x[:, :1].mean())
    with pytest.raises(ValueError, match="got 2"):
        change_colours(x[:, :2], one, one, one, none, never)


def test_a_third_of_a_turn_makes_red_a_green_or_a_blue() -> None:
    red = torch.tensor([0.6, 0.4, 0.4])[None, :, None, None]
    one, never = torch.ones(1), torch.zeros(1, dtype=torch.bool)
    hues = [
        colorsys.rgb_to_hsv(*change_colours(red, one, one, one, one * turn, never).flatten().tolist())[0]
        for turn in (0.0, 1 / 3, 2 / 3)
    ]
    # YIQ's circle is HSV's bent: thirds land within a tenth of a turn of one another, in one order or the other.
    assert hues[0] == pytest.approx(0, abs=1e-3)
    assert sorted(hues[1:]) == pytest.approx([1 / 3, 2 / 3], abs=0.1)


def test_blur_spreads_a_point_as_a_gaussian(generator: torch.Generator) -> None:
    x = torch.zeros(2, 1, 21, 21)
    x[:, :, 10, 10] = 1
    blurred = blur(x, factors(2, 1.5), torch.tensor([True, False]))
    axis = torch.arange(21) - 10
    bell = torch.exp(-(axis**2) / (2 * 1.5**2))
    torch.testing.assert_close(blurred[0, 0], torch.outer(bell, bell) / bell.sum() ** 2, atol=1e-5, rtol=1e-3)
    assert torch.equal(blurred[1], x[1])
    flat = torch.full((1, 3, 9, 7), 0.3)
    torch.testing.assert_close(blur(flat, factors(1, 2.0), torch.tensor([True])), flat)


def test_solarize_inverts_bright_values_of_the_chosen() -> None:
    x = torch.tensor([0.2, 0.5, 0.9]).expand(2, 1, 1, 3)
    wanted = torch.tensor([[0.2, 0.5, 0.1], [0.2, 0.5, 0.9]])
    torch.testing.assert_close(solarize(x, torch.tensor([True, False]))[:, 0, 0], wanted)


def test_views_do_each_thing_to_its_share_of_the_pictures(generator: torch.Generator) -> None:
    x = torch.full((4000, 3, 4, 4), 0.45)
    x[:, 0, 0, 0] = 0.6
    still = Views(
        crop=Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0), jitter_probability=0.0, grey=0.0, solarize=0.0
    )
    torch.testing.assert_close(still(x, size=4, generator=generator), x)

    def share(views: Views) -> float:
        return float((views(x, size=4, generator=generator) - x).abs().amax((1, 2, 3)).gt(1e-4).float().mean())

    assert share(replace(still, jitter_probability=0.8)) == pytest.approx(0.8, abs=0.03)
    assert share(replace(still, grey=0.2)) == pytest.approx(0.2, abs=0.03)
    assert share(replace(still, solarize=0.1)) == pytest.approx(0.1, abs=0.03)
    assert share(replace(still, blur=0.5)) == pytest.approx(0.5, abs=0.06)
    # One probability leaves the dice of the others alone: the same pictures turn grey with and without solarizing.
    grey, both = (
        replace(still, grey=0.2, solarize=s)(x, size=4, generator=torch.Generator().manual_seed(0)) for s in (0.0, 0.5)
    )
    assert torch.equal((grey[:, 0] == grey[:, 1]).flatten(1).all(1), (both[:, 0] == both[:, 1]).flatten(1).all(1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Crop(scale=(0.0, 1.0)),
        lambda: Crop(scale=(0.5, 1.5)),
        lambda: Crop(ratio=(2.0, 1.0)),
        lambda: Crop(flip=1.5),
        lambda: Views(grey=1.2),
        lambda: Views(jitter=(0.4, 0.4, 0.4, 2.0)),
    ],
)
def test_augmentations_refuse_what_makes_no_sense(wrong: Callable[[], Augmentation]) -> None:
    with pytest.raises(ValueError, match=r"scale|probabilities"):
        wrong()
