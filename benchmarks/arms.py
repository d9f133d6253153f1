"""Frames per second of each arm's training step, and the share of this machine's measured matrix peak.

    python benchmarks/arms.py [--threads N] [--steps N]

The peak is measured in the same run, as the best bf16 product of 2048 x 2048 matrices, so the shares can be compared
between machines while the rates cannot. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import time

import torch

from jepalab.recipes.bench import Bench
from jepalab.recipes.distractor import ARMS
from jepalab.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peak = measure_peak()
    print(f"{arguments.threads} thread(s), torch {torch.__version__}, bf16 matrix peak {peak / 1e9:.0f} GFLOP/s\n")
    print(f"{'arm':<6} {'what':<36} {'ms/step':>8} {'data':>5} {'frames/s':>9} {'GFLOP/step':>11} {'of peak':>8}")
    for arm, what in ARMS.items():
        run = what.make(Bench())
        if run.steps == 0:
            continue
        seconds, data = time_step(run, arguments.steps)
        flops, frames = run.count_flops(), run.stream.frames_per_batch
        print(
            f"{arm:<6} {what.label:<36} {seconds * 1e3:8.1f} {data / seconds:5.0%} {frames / seconds:9.0f} "
            f"{flops / 1e9:11.2f} {flops / seconds / peak:8.1%}",
            flush=True,
        )


def time_step(run: Run, num_steps: int) -> tuple[float, float]:
    """Median seconds of a whole step as `fit` makes it, and of making its batch."""
    optimizer, wholes, data = run.make_optimizer(), [], []
    for step in range(num_steps + 5):
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
        data.append(made - began)
    return sorted(wholes[5:])[num_steps // 2], sorted(data[5:])[num_steps // 2]


def measure_peak() -> float:
    """Best bf16 matrix product of eight, in FLOP/s."""
    a = torch.randn(2048, 2048, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


if __name__ == "__main__":
    main()
