"""Images per second of one I-JEPA training step: jepalab beside the public implementations, in one run.

    python benchmarks/ijepa_step.py [--peers-python PYTHON] [--ijepa FOLDER] [--threads N] [--rounds N] [--steps N]
    python benchmarks/ijepa_step.py --curve [--images SOURCE]

The step: 64 images of 64 x 64 in patches of 8, ViT 192 wide and 6 deep with 3 heads, predictor 96 wide and 3 deep with
3 heads, 24 tokens of context, 4 targets of 12, smooth L1 to the layer-normed embeddings of the full images, backward,
AdamW, EMA. All get the same images and masks. Each implementation is a process of its own with its own thread pool,
started once; they take turns (A B C A B C), so that what the machine does meanwhile meets all of them.

The peers live in an environment of their own (benchmarks/requirements-peers.txt) and run in fp32 as they ship. Nothing
else should run meanwhile. `--curve` trains ours for 500 steps in fp32 and under bf16 autocast and compares the losses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peers.timing import BATCH, IMAGE, LR, WEIGHT_DECAY, draw_masks

REFERENCE = "facebookresearch/ijepa"
HERE = Path(__file__).parent
SHAPES = ((2048, 2048, 2048), (4096, 192, 768), (4096, 768, 192))
CURVE_STEPS, SMOOTHED = 500, 25


@dataclass
class Row:
    """One implementation under one precision; `seconds` holds the steps of each round."""

    name: str
    module: str
    bf16: bool = False
    note: str = ""
    worker: subprocess.Popen[str] | None = None
    seconds: list[list[float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    absent: str = ""


def make_rows() -> list[Row]:
    return [
        Row("jepalab, bf16 autocast", "peers.ours", bf16=True),
        Row("jepalab, fp32", "peers.ours"),
        Row(REFERENCE, "peers.reference"),
        Row(f"{REFERENCE}, bf16 autocast", "peers.reference", bf16=True),
        Row("torch-world", "peers.torch_world"),
        Row("lightly", "peers.lightly", note="timm parts"),
        Row("stable-pretraining", "peers.stable_pretraining", note="one pass for all targets: less work"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path, help="python of the environment with requirements-peers.txt")
    parser.add_argument("--ijepa", type=Path, help="a checkout of facebookresearch/ijepa (CC BY-NC)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each implementation in a round")
    parser.add_argument("--curve", action="store_true", help="compare the losses of 500 steps in fp32 and bf16 instead")
    parser.add_argument("--curve-steps", type=int, default=CURVE_STEPS)
    parser.add_argument("--images", type=Path, help="pictures for --curve, as `jepalab train --data` takes them")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.curve:
        compare_curves(arguments.images, arguments.curve_steps)
    else:
        compare_speed(arguments)


def compare_speed(arguments: argparse.Namespace) -> None:
    """Starts the workers, lets them take turns, and prints what they say."""
    peaks = [measure_peaks()]
    rows = make_rows()
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "given.pt"
        context, target = draw_masks(BATCH, torch.Generator().manual_seed(0))
        images = torch.rand(BATCH, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(0))
        ijepa = None if arguments.ijepa is None else str(arguments.ijepa.resolve())
        torch.save({"images": images, "context": context, "target": target, "ijepa": ijepa}, given)
        for row in rows:
            start(row, given, Path(scratch), arguments)
        running = [row for row in rows if row.worker is not None]
        for number in range(-1, arguments.rounds):
            for row in running:
                # The first step of a turn finds the caches full of somebody else's weights; it is not counted.
                seconds = ask(row, f"{arguments.steps + 1}")["seconds"][1:]
                if number >= 0:
                    row.seconds.append(seconds)
        for row in running:
            row.facts |= ask(row, "")
    peaks.append(measure_peaks())
    report(rows, {name: max(peak[name] for peak in peaks) for name in peaks[0]}, arguments)


def start(row: Row, given: Path, scratch: Path, arguments: argparse.Namespace) -> None:
    """Starts the worker of a row; a row without what it needs says so instead."""
    is_ours = row.module == "peers.ours"
    if not is_ours and arguments.peers_python is None:
        row.absent = "not run: give --peers-python (pip install -r benchmarks/requirements-peers.txt)"
        return
    python = Path(sys.executable) if is_ours else arguments.peers_python.absolute()
    if not python.exists():
        row.absent = f"not run: there is no {python}"
        return
    command = [python, "-m", row.module, "--given", given, "--threads", f"{arguments.threads}"]
    log = scratch / f"{row.module}{row.bf16}.log"
    with log.open("w") as errors:
        row.worker = subprocess.Popen(
            [*map(str, command), *(["--bf16"] if row.bf16 else [])],
            cwd=HERE,
            env={**os.environ, "OMP_NUM_THREADS": f"{arguments.threads}", "WANDB_MODE": "disabled"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert row.worker.stdout is not None
    line = row.worker.stdout.readline()
    row.facts = json.loads(line) if line else {}
    if "missing" in row.facts:
        row.worker, row.absent = None, f"not run: {row.facts['missing']}"
        if "--ijepa" not in row.absent:
            row.absent += " (pip install -r benchmarks/requirements-peers.txt)"
    elif not row.facts:
        last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
        row.worker, row.absent = None, f"failed to start: {last}"


def ask(row: Row, line: str) -> dict[str, Any]:
    worker = row.worker
    assert worker is not None
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(line, file=worker.stdin, flush=True)
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"The process of {row.name} ended with status {worker.wait()}.")
    if not line:
        worker.wait()
    return json.loads(answer)


def report(rows: list[Row], peaks: dict[str, float], arguments: argparse.Namespace) -> None:
    turns = f"{arguments.rounds} rounds of {arguments.steps} steps"
    print(f"{arguments.threads} thread(s), torch {torch.__version__}, {turns}")
    for dtype in ("fp32", "bf16"):
        products = (f"{name} {rate / 1e9:.0f}" for name, rate in peaks.items() if name.endswith(dtype))
        print("matrix products, GFLOP/s: " + ", ".join(products))
    best = {dtype: max(rate for name, rate in peaks.items() if name.endswith(dtype)) for dtype in ("fp32", "bf16")}
    measured = {row.name: images_per_second(row) for row in rows if row.seconds}
    reference = measured.get(REFERENCE)
    print(
        f"\n{'implementation':<38} {'images/s':>8} {'(rounds)':>11} {'of ref':>6} {'ms/step':>8} {'trained':>8} "
        f"{'GFLOP':>6} {'of peak':>7} {'peak MiB':>8} {'grown':>6} {'counted':>7} {'ratio':>5} {'masks ms':>8}"
    )
    for row in rows:
        if not row.seconds:
            print(f"{row.name:<38} {row.absent}")
            continue
        facts, rate = row.facts, measured[row.name]
        each = [BATCH / statistics.median(seconds) for seconds in row.seconds]
        of_reference = f"{rate / reference:.2f}x" if reference else "-"
        of_peak = facts["flops"] * rate / BATCH / best["bf16" if row.bf16 else "fp32"]
        masks = "-" if facts["mask_seconds"] is None else f"{facts['mask_seconds'] * 1e3:.2f}"
        memory = f"{'-':>8} {'-':>6} {facts['counted'] / 2**20:7.0f} {'-':>5}"
        if facts["resident_peak"] is not None:
            grown = facts["resident_peak"] - facts["resident_before"]
            memory = (
                f"{facts['resident_peak'] / 2**20:8.0f} {grown / 2**20:6.0f} {facts['counted'] / 2**20:7.0f} "
                f"{grown / facts['counted']:5.2f}"
            )
        print(
            f"{row.name:<38} {rate:8.0f} {f'{min(each):.0f}-{max(each):.0f}':>11} {of_reference:>6} "
            f"{BATCH / rate * 1e3:8.1f} {facts['trained'] / 1e6:7.2f}M {facts['flops'] / 1e9:6.1f} {of_peak:7.1%} "
            f"{memory} {masks:>8}  {facts['package']}{f' ({row.note})' if row.note else ''}"
        )
    print(LEGEND)


LEGEND = """
images/s  64 / median seconds of all steps; (rounds) the slowest and the fastest round's median.
GFLOP     of forward and backward, counted on the implementation's own step by torch.utils.flop_counter (attention as
          its matrix products); of peak: GFLOP / seconds / the best matrix product above in the same precision.
peak MiB  largest resident memory of the process during the steps; grown: less what it held after its imports;
          counted: parameters (student, teacher, predictor), optimizer state and what autograd keeps between forward
          and backward; ratio: grown / counted.
masks ms  median time of the implementation's own block sampler for a batch, on an 8 x 8 grid."""


def images_per_second(row: Row) -> float:
    return BATCH / statistics.median(second for seconds in row.seconds for second in seconds)


def measure_peaks() -> dict[str, float]:
    """Best FLOP/s of ten matrix products of each shape, in float32 and bfloat16."""
    peaks = {}
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for m, k, n in SHAPES:
            a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
            best = float("inf")
            for _ in range(10):
                began = time.perf_counter()
                a @ b
                best = min(best, time.perf_counter() - began)
            peaks[f"{m}x{k}x{n} {name}"] = 2 * m * k * n / best
    return peaks


def compare_curves(source: Path | None, num_steps: int) -> None:
    """Trains from the same weights on the same images and masks in both precisions, and prints both losses."""
    from peers.ours import FreshMasks, Pictures, make_objective

    from jepalab.fit import fit
    from jepalab.run import Run

    pictures = Pictures(read_pictures(source))
    curves = {}
    for precision in ("fp32", "bf16"):
        losses: list[float] = []
        objective = make_objective(FreshMasks())
        run = Run(objective, pictures, steps=num_steps, lr=LR, weight_decay=WEIGHT_DECAY, precision=precision)
        seconds = fit(run, device="cpu", watch=lambda moment, losses=losses: losses.append(sum(moment.terms.values())))
        rate = BATCH * num_steps / seconds
        print(f"{precision}: {num_steps} steps in {seconds:.0f} s, {rate:.0f} images/s", flush=True)
        curves[precision] = torch.tensor(losses, dtype=torch.float64)
    width = min(SMOOTHED, num_steps)
    fp32, bf16 = (curve.unfold(0, width, 1).mean(1) for curve in curves.values())
    print(f"\nloss, mean of {width} steps\n{'steps':>10} {'fp32':>8} {'bf16':>8} {'difference':>10}")
    for first in range(0, len(fp32), width):
        difference = (bf16[first] / fp32[first] - 1).item()
        print(f"{f'{first + 1}-{first + width}':>10} {fp32[first]:8.4f} {bf16[first]:8.4f} {difference:10.2%}")
    worst = (bf16 / fp32 - 1).abs()
    at = int(worst.argmax())
    print(f"largest relative difference of the smoothed losses: {worst[at]:.2%}, steps {at + 1}-{at + width}")


def read_pictures(source: Path | None) -> torch.Tensor:
    """Up to 10,000 images [n 3 64 64] uint8; smooth noise when there is no source."""
    if source is None:
        print("no --images: smooth random images\n")
        coarse = torch.rand(2000, 3, 9, 9, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(coarse, size=(IMAGE, IMAGE), mode="bicubic").clamp(0, 1).mul(255).byte()
    from jepalab.data.images import open_images

    images = open_images(source, size=IMAGE)
    chosen = torch.randperm(len(images.pixels), generator=torch.Generator().manual_seed(0))[:10_000].sort().values
    print(f"{len(chosen)} of {len(images.pixels)} images from {source}\n")
    return torch.from_numpy(images.pixels[chosen.numpy()]).permute(0, 3, 1, 2).contiguous()


if __name__ == "__main__":
    main()
