"""Latent steps per second of a search with CEM: jepalab beside the public implementations, in one run.

    python -m venv PEERS && PEERS/bin/python -m pip install -r benchmarks/requirements-peers.txt
    PEERS/bin/python -m pip install --no-deps stable-worldmodel==0.1.1 pyjepa==0.3.0
    python benchmarks/planning.py [--peers-python PEERS/bin/python] [--threads N] [--rounds N] [--environments E ...]

The search: 300 candidates of 5 latent steps, 30 elites, 10 iterations, for one environment and for 64. The world model
is as large as LeWorldModel's (arXiv 2603.19312): embeddings of 192 numbers, a history of 3 frames, a causal predictor 6
blocks deep with 16 heads of 64 and an MLP of 2048, AdaLN on the action, 10 numbers of action a step (5 actions of 2).
The perceptron behind LeWorldModel's predictor is left out everywhere. Latent steps are environments x candidates x
horizon x iterations, whatever an implementation computes for one; the operations of a search are printed beside them.

Embeddings of history and goal are computed beforehand for all, so that no encoder is timed. Left to themselves, jepalab
and stable-worldmodel encode once a search, torch-world leaves it to the caller, and pyjepa encodes one candidate's
frames at every iteration. jepalab reads the history once an iteration and keeps keys and values; the peers run their
window of 3 frames anew for each latent step.

Every iteration costs the same, so the search of more than one environment has --many-iterations of them and the rates
can be compared. Each implementation is a process of its own, started once; they take turns (A B C A B C), so that what
the machine does meanwhile meets all of them. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from ijepa_step import Row, ask, measure_peaks, start
from peers import plan_search as sizes

OURS, SWM = "jepalab", "stable-worldmodel"
AIMS = {1: 5, 64: 8}  # times the latent steps per second of stable-worldmodel as it ships, by environments


@dataclass
class Group:
    """The rows that plan for so many environments."""

    num_environments: int
    num_iterations: int
    rows: list[Row] = field(init=False)

    def __post_init__(self) -> None:
        num = self.num_environments
        together = f"{SWM}, batch_size {num}"
        self.rows = [
            Row(f"{OURS}, bf16 autocast", "peers.our_planning", bf16=True),
            Row(f"{OURS}, fp32", "peers.our_planning"),
            Row(SWM, "peers.swm_planning", note="one environment after the other" if num > 1 else ""),
            Row(f"{SWM}, bf16 autocast", "peers.swm_planning", bf16=True),
            *([Row(together, "peers.swm_planning")] if num > 1 else []),
            Row("torch-world", "peers.torch_world_planning"),
            Row("pyjepa", "peers.pyjepa_planning", note="one environment after the other" if num > 1 else ""),
        ]

    @property
    def latent_steps(self) -> int:
        return self.num_environments * sizes.SAMPLES * sizes.HORIZON * self.num_iterations

    def rate(self, row: Row) -> float:
        return self.latent_steps / statistics.median(second for seconds in row.seconds for second in seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path, help="python of the environment with the peers")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--environments", type=int, nargs="+", default=[1, 64], help="planned for at once, by group")
    parser.add_argument("--rounds", type=int, default=5, help="timed searches of each row, after an untimed one")
    parser.add_argument(
        "--many-rounds", type=int, default=2, help="the same where there are more environments than one"
    )
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--many-iterations", type=int, default=1, help="where there is more than one environment")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peaks = [measure_peaks()]
    groups = []
    for num in arguments.environments:
        group = Group(num, arguments.iterations if num == 1 else arguments.many_iterations)
        measure(group, arguments.rounds if num == 1 else arguments.many_rounds, arguments)
        groups.append(group)
    peaks.append(measure_peaks())
    report(groups, {name: max(peak[name] for peak in peaks) for name in peaks[0]}, arguments.threads)


def measure(group: Group, num_rounds: int, arguments: argparse.Namespace) -> None:
    """Starts the workers of a group, lets them take turns, and fills in what they say."""
    generator, num = torch.Generator().manual_seed(0), group.num_environments
    given = {
        "z": torch.randn(num, sizes.HISTORY, sizes.DIM, generator=generator),
        "past": torch.randn(num, sizes.HISTORY - 1, sizes.BLOCK, generator=generator),
        "goal": torch.randn(num, sizes.DIM, generator=generator),
        "num_iterations": group.num_iterations,
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(group.rows):
            scratch = Path(folder) / f"{number}"
            scratch.mkdir()
            torch.save(given | {"batch_size": num if "batch_size" in row.name else 1}, scratch / "given.pt")
            _start(row, scratch, arguments)
        running = [row for row in group.rows if row.worker is not None]
        for row in running:
            row.facts |= ask(row, "count")
        for _ in range(num_rounds):
            for row in running:
                row.seconds.append(ask(row, "1")["seconds"])
        for row in running:
            row.facts |= ask(row, "")


def _start(row: Row, scratch: Path, arguments: argparse.Namespace) -> None:
    python = Path(sys.executable) if row.name.startswith(OURS) else arguments.peers_python
    if python is None:
        row.absent = "not run: give --peers-python (see --help)"
        return
    start(row, scratch / "given.pt", scratch, argparse.Namespace(peers_python=python, threads=arguments.threads))


def report(groups: list[Group], peaks: dict[str, float], num_threads: int) -> None:
    print(f"{num_threads} thread(s), torch {torch.__version__}")
    best = {dtype: max(rate for name, rate in peaks.items() if name.endswith(dtype)) for dtype in ("fp32", "bf16")}
    print("best matrix product, GFLOP/s: " + ", ".join(f"{dtype} {rate / 1e9:.0f}" for dtype, rate in best.items()))
    for group in groups:
        num = group.num_environments
        print(
            f"\n{num} environment(s): {group.latent_steps} latent steps a search, {group.num_iterations} iteration(s)\n"
            f"{'implementation':<34} {'steps/s':>8} {'(rounds)':>14} {'of swm':>7} {'s/search':>9} {'weights':>8} "
            f"{'MFLOP/step':>10} {'of peak':>7} {'grown MiB':>9}"
        )
        for row in group.rows:
            print(_line(row, group, best))
        if num in AIMS:
            print(f"aim of {OURS}: {AIMS[num]}x")
    print(LEGEND)


LEGEND = """
steps/s     latent steps of a search / median seconds of one; (rounds) the slowest and the fastest.
of swm      its steps/s over stable-worldmodel's as it ships: fp32, and for many environments its solver's own
            batch_size, 1. The aims are times that row; the faster of its rows is the sterner measure.
weights     of what a search uses: the predictor and the encoder of actions.
MFLOP/step  of a search, counted on the implementation's own one by torch.utils.flop_counter (attention as its matrix
            products), over its latent steps; of peak: FLOP / seconds / the best matrix product above in its precision.
grown MiB   largest resident memory of the process in its searches, less the largest before them."""


def _line(row: Row, group: Group, best: dict[str, float]) -> str:
    if not row.seconds:
        return f"{row.name:<34} {row.absent}"
    facts, rate = row.facts, group.rate(row)
    (reference,) = [other for other in group.rows if other.name == SWM]
    ratio = f"{rate / group.rate(reference):.2f}x" if reference.seconds else "-"
    each = [group.latent_steps / second for seconds in row.seconds for second in seconds]
    per_step = facts["flops"] / group.latent_steps
    return (
        f"{row.name:<34} {rate:8.0f} {f'{min(each):.0f}-{max(each):.0f}':>14} {ratio:>7} "
        f"{group.latent_steps / rate:9.2f} {facts['parameters'] / 1e6:7.2f}M {per_step / 1e6:10.1f} "
        f"{per_step * rate / best['bf16' if row.bf16 else 'fp32']:7.1%} {facts['grown'] / 2**20:9.0f}  "
        f"{facts['package']}{f' ({row.note})' if row.note else ''}"
    )


if __name__ == "__main__":
    main()
