"""Would training seeds side by side with stacked parameters pay? One grouped convolution against one per seed.

    python benchmarks/stacked_seeds.py [--threads N] [--seeds N]

Forward and backward of the frame encoder's convolutions, which are most of a JEPA step, in bf16 on the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

NUM_FRAMES = 288
WIDTHS = (1, 16, 32, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    num_seeds = arguments.seeds
    apart, stacked = ([make_layers(1) for _ in range(num_seeds)], make_layers(num_seeds))
    frames = torch.rand(NUM_FRAMES, num_seeds, 28, 28).contiguous(memory_format=torch.channels_last)
    each = [frames[:, i : i + 1].contiguous(memory_format=torch.channels_last) for i in range(num_seeds)]
    alone = measure(lambda: [run(layers, x) for layers, x in zip(apart, each, strict=True)])
    together = measure(lambda: run(stacked, frames))
    print(f"{num_seeds} seeds, {arguments.threads} thread(s): one after the other {alone * 1e3:.1f} ms,")
    print(f"stacked {together * 1e3:.1f} ms: {alone / together:.2f} times as fast")


def make_layers(groups: int) -> nn.ModuleList:
    layers = (nn.Conv2d(a * groups, b * groups, 3, stride=2, padding=1, groups=groups) for a, b in pairwise(WIDTHS))
    return nn.ModuleList(layers).to(memory_format=torch.channels_last)


def run(layers: nn.ModuleList, x: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for layer in layers:
            x = F.relu(layer(x))
    x.float().square().mean().backward()


def measure(work: Callable[[], object], *, repeats: int = 40) -> float:
    """Median seconds."""
    durations = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        durations.append(time.perf_counter() - began)
    return sorted(durations)[repeats // 2]


if __name__ == "__main__":
    main()
