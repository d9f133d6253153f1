"""Whether decoding starves training: seconds to decode videos once, to read a batch, and to make a step of V-JEPA.

    python benchmarks/clip_decoding.py [--data FOLDER] [--threads N] [--steps N]

Needs PyAV (pip install "jepalab[video]"). Without --data, videos of drifting textures are encoded for the occasion.
Clips of 8 frames of 64 x 64 (every second frame of a video) are decoded into a cache of their own; batches of 32 are
read from it as the stream shows them, as they are and cropped; the step is that of the recipe `vjepa`, a ViT 192 wide
and 6 deep on patches of 2 x 8 x 8. "From the disk" drops the file from memory before each batch, which says something
only where the temporary folder (TMPDIR) is on a disk. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import torch

from jepalab.data.augmentation import Crop
from jepalab.data.clips import Clips, open_clips
from jepalab.data.sample_stream import SampleStream
from jepalab.recipes.clip_arms import vjepa
from jepalab.recipes.clip_bench import ClipBench, Footage
from jepalab.recipes.patch_bench import Network, Schedule
from jepalab.run import Run

FRAMES, SIDE, STRIDE, BATCH, CLIPS_PER_VIDEO = 8, 64, 2, 32, 4
VIDEO_FRAMES, VIDEO_RATE = 128, 25
Found = TypeVar("Found")
NETWORK = Network(patch=8, width=192, depth=6, num_heads=3, head_width=96, head_depth=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="videos, as `jepalab train --data` takes them")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=15, help="timed steps, and rounds of ten batches")
    parser.add_argument("--videos", type=int, default=64, help="how many to encode where there is no --data")
    parser.add_argument("--height", type=int, default=240, help="of these videos; they are a third wider")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data
        if data is None:
            data = Path(scratch) / "videos"
            encode_videos(data, arguments.videos, arguments.height)
        compare(data, Path(scratch) / "cache", arguments)


def compare(data: Path, cache: Path, arguments: argparse.Namespace) -> None:
    def open_them() -> Clips:
        settings = {"num_frames": FRAMES, "size": SIDE, "stride": STRIDE, "clips_per_video": CLIPS_PER_VIDEO}
        return open_clips(data, cache=cache, **settings)

    clips, decoding = timed(open_them)
    again = timed(open_them)[1]
    bench = ClipBench(
        network=NETWORK,
        schedule=Schedule(batch_size=BATCH),
        footage=Footage(
            data=data, size=SIDE, num_frames=FRAMES, stride=STRIDE, clips_per_video=CLIPS_PER_VIDEO, cache=cache
        ),
    )
    run = vjepa(bench)
    stream = run.stream
    assert isinstance(stream, SampleStream)
    assert isinstance(stream.augmentation, Crop)
    plain = SampleStream(clips, batch_size=BATCH, augmentation=None)
    reads: dict[str, list[float]] = {}
    for step in range(arguments.steps):
        for name, source, forget in (
            ("as they are", plain, False),
            ("cropped", stream, False),
            ("cropped, from the disk", stream, True),
        ):
            reads.setdefault(name, []).extend(time_batches(source, 10 * step, forget))
    whole, waiting = time_steps(run, arguments.steps)
    each = decoding / len(clips)

    print(f"{arguments.threads} thread(s), torch {torch.__version__}\n{clips.describe()}")
    print(f"decoded once: {decoding:.1f} s, {1 / each:.0f} clips/s; opened again: {again * 1e3:.0f} ms")
    print(f"a step of vjepa on {BATCH} clips: {whole * 1e3:.0f} ms, {BATCH / whole:.0f} clips/s\n")
    print(f"{'a batch':<24} {'ms':>7} {'clips/s':>8} {'of a step':>9}")
    for name, seconds in reads.items():
        print(_line(name, statistics.median(seconds), whole))
    print(_line("within the step", waiting, whole))
    print(_line("if decoded at each step", each * BATCH, whole))
    steps = bench.schedule.steps
    share = decoding / (steps * whole)
    print(
        f"\nDecoding happens once, for {decoding / whole:.1f} steps' time: {share:.1%} of a training of {steps} steps."
    )
    print(f"After that a batch costs {waiting / whole:.2%} of a step.")


def _line(name: str, seconds: float, whole: float) -> str:
    return f"{name:<24} {seconds * 1e3:7.2f} {BATCH / seconds:8.0f} {seconds / whole:9.2%}"


def time_batches(stream: SampleStream, first: int, forget: bool) -> list[float]:
    """Seconds of each of ten batches; `forget` makes the system read each from the disk."""
    seconds = []
    for step in range(first, first + 10):
        if forget:
            forget_pages(stream.samples.stored)
        seconds.append(timed(lambda step=step: stream.batch(step))[1])
    return seconds


def forget_pages(stored: np.ndarray) -> None:
    """Drops what the system keeps in memory of the file that the clips are mapped from."""
    if not isinstance(stored, np.memmap) or stored.filename is None:
        return
    file = os.open(stored.filename, os.O_RDONLY)
    os.fsync(file)  # pages that are not written yet stay
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def time_steps(run: Run, num_steps: int) -> tuple[float, float]:
    """Median seconds of a whole step as `fit` makes it, and of making its batch."""
    optimizer, wholes, waits = run.make_optimizer(), [], []
    run.objective.train()
    for step in range(num_steps + 2):
        began = time.perf_counter()
        batch = run.stream.batch(step)
        made = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = run.objective(batch)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(run.objective.parameters(), run.clip, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        run.objective.after_step(0.5)
        wholes.append(time.perf_counter() - began)
        waits.append(made - began)
    return statistics.median(wholes[2:]), statistics.median(waits[2:])


def encode_videos(folder: Path, num: int, height: int) -> None:
    """MPEG-4 videos of textures that drift, each in its own direction."""
    width = height * 4 // 3 // 2 * 2
    folder.mkdir(parents=True)
    for number in range(num):
        rng = np.random.default_rng(number)
        coarse = torch.from_numpy(rng.random((1, 3, 12, 16), dtype=np.float32))
        smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
        texture = smooth[0].mul(255).byte().permute(1, 2, 0).numpy()
        drift = rng.integers(-3, 4, 2)
        with av.open(str(folder / f"{number:04}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=VIDEO_RATE)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for place in range(VIDEO_FRAMES):
                picture = np.roll(texture, tuple(drift * place), axis=(0, 1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


def timed(work: Callable[[], Found]) -> tuple[Found, float]:
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


if __name__ == "__main__":
    main()
