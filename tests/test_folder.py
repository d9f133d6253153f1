"""Folders of images as objects and backgrounds: every common kind of file loads, broken ones are counted and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepalab.data.folder import background_images, folder_sprites, read_pictures
from jepalab.data.moving import MovingObject

# A horizontal ramp over all grey levels, twice as wide as high: its central square runs from a quarter to three.
RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (32, 1))
CENTRE = np.linspace(0, 1, 64)[16:48].reshape(4, 8).mean(1)


def write_ramps(folder: Path) -> None:
    """The same picture in every encoding that a user is likely to have."""
    grey = Image.fromarray(RAMP)
    grey.save(folder / "grey.png")
    grey.convert("RGB").save(folder / "colour.png")
    Image.merge("RGBA", [grey, grey, grey, Image.new("L", grey.size, 128)]).save(folder / "alpha.png")
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(folder / "sixteen_bits.png")
    grey.convert("P").save(folder / "palette.png")
    Image.merge("CMYK", [Image.new("L", grey.size, 0)] * 3 + [Image.fromarray(255 - RAMP)]).save(
        folder / "print.JPG", quality=100
    )
    grey.save(folder / "photo.jpeg", quality=100)
    grey.save(folder / "animation.gif", save_all=True, append_images=[Image.fromarray(255 - RAMP)])


def write_images(folder: Path, counts: dict[str, int]) -> None:
    """`counts` random pictures in sub-folders, no two alike."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / name / f"{i:02}.png")


def test_every_encoding_reads_as_the_same_grey_square(tmp_path: Path) -> None:
    write_ramps(tmp_path)
    pictures = read_pictures(tmp_path, size=4)
    assert pictures.skipped == {}
    assert pictures.names == ["."]
    assert pictures.images.shape == (8, 4, 4)
    assert pictures.images.dtype == torch.float32
    wanted = torch.from_numpy(CENTRE).float().expand(8, 4, -1)
    torch.testing.assert_close(pictures.images, wanted, rtol=0, atol=0.015)


def test_full_range_and_orientation_are_kept(tmp_path: Path) -> None:
    corners = np.array([[0, 255], [65, 130]], dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    Image.fromarray(corners).save(tmp_path / "eight.png")
    Image.fromarray(corners.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    wanted = torch.tensor([[0, 255], [65, 130]]) / 255
    for image in read_pictures(tmp_path, size=2).images:
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-4)


def test_broken_files_are_counted_named_and_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ramps(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg"):
        Image.fromarray(noise).save(tmp_path / f"cut.{suffix}")
        whole = (tmp_path / f"cut.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "letter.png").write_text("Dear reader, this is no picture.")
    (tmp_path / "readme.txt").write_text("not looked at")
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "float.tiff")
    pictures = read_pictures(tmp_path, size=4)
    assert len(pictures.images) == len(pictures.classes) == 8
    assert {path.name for path in pictures.skipped} == {"cut.png", "cut.jpg", "empty.png", "letter.png", "float.tiff"}
    assert "float" in pictures.skipped[tmp_path / "float.tiff"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "Skipped 5 of 13 images" in said.err
    assert "cut.jpg" in said.err


def test_a_picture_that_would_fill_the_memory_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ramps(tmp_path)
    Image.new("L", (64, 64)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    assert [path.name for path in read_pictures(tmp_path, size=4).skipped] == ["bomb.png"]


def test_folders_without_a_picture_say_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no readable image .*\.jpeg.*\.png"):
        read_pictures(tmp_path, size=4)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"1 files could not be read, the first: .*empty\.png"):
        read_pictures(tmp_path, size=4)
    for missing in (tmp_path / "nowhere", tmp_path / "empty.png"):
        with pytest.raises(ValueError, match="is not a folder"):
            read_pictures(missing, size=4)


def test_folder_sprites_split_each_class(tmp_path: Path) -> None:
    counts = {"cats": 12, "dogs": 30, "eels": 6}
    write_images(tmp_path, counts)
    sprites = folder_sprites(tmp_path)
    assert sprites.images.shape == (48, 12, 12)
    assert sprites.num_classes == 3
    for label, count in enumerate(counts.values()):
        parts = sprites.split[sprites.classes == label].bincount(minlength=3).tolist()
        assert parts == [count * 4 // 6, count // 6, count // 6]
    assert torch.equal(folder_sprites(tmp_path).split, sprites.split)
    assert len({image.tobytes() for image in sprites.images.numpy()}) == 48
    batch = MovingObject(sprites=sprites, clips_per_batch=4).batch(0)
    assert batch.x.shape == (4, 6, 1, 28, 28)
    assert batch.factors["class"].max() < 3


def test_folder_sprites_need_enough_images_for_three_splits(tmp_path: Path) -> None:
    write_images(tmp_path, {"few": 3})
    with pytest.raises(ValueError, match="at least 4 images"):
        folder_sprites(tmp_path)
    write_images(tmp_path, {"more": 4})
    assert folder_sprites(tmp_path).split.unique().tolist() == [0, 1, 2]


def test_backgrounds_are_squares_of_the_canvas(tmp_path: Path) -> None:
    write_ramps(tmp_path)
    images = background_images(tmp_path, size=28)
    assert images.shape == (8, 28, 28)
    assert 0 <= images.min() < images.max() <= 1
