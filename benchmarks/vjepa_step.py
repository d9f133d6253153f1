"""Clips per second of one V-JEPA training step: jepalab beside facebookresearch/vjepa2's modules, in one run.

    git clone https://github.com/facebookresearch/vjepa2 VJEPA2
    python -m venv PEERS
    PEERS/bin/python -m pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 einops pyyaml
    python benchmarks/vjepa_step.py --peers-python PEERS/bin/python --vjepa2 VJEPA2 [--threads N] [--rounds N]

The step: 32 clips of 8 frames of 64 x 64 in patches of 2 x 8 x 8 (256 tokens), ViT 192 wide and 6 deep with 3 heads,
predictor 96 wide and 3 deep with 3 heads, two masks (eight blocks of 15 % of the plane, two of 70 %), each with a pass
of the student and of the predictor, L1 to the layer-normed embeddings of the full clips, backward, AdamW, EMA. vjepa2
has no package: PEERS needs what its code imports, and the environment of requirements-peers.txt with einops does too.

Masks "own" are drawn by each implementation's sampler, ours within the step, theirs beforehand (as their loader's
workers do); they differ in tokens, which are printed. Masks "same" are handed to both: equal work. The rows of one kind
of positions and masks take turns (A B C A B C), each a process of its own, started once, so that what the machine does
meanwhile meets all of them. Nothing else should run meanwhile.
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
from peers.clip_step import BATCH, FRAMES, GRID, SIDE
from torch import Tensor

OURS, THEIRS = "jepalab", "vjepa2"
POSITIONS, MASKS = ("rope", "sincos"), ("own", "same")
WHICH = ("short range", "long range")


@dataclass
class Group:
    """The rows that are compared with one another."""

    positions: str
    masks: str
    rows: list[Row] = field(default_factory=lambda: [row for bf16 in (True, False) for row in _rows(bf16)])


def _rows(bf16: bool) -> list[Row]:
    precision = "bf16 autocast" if bf16 else "fp32"
    return [
        Row(f"{OURS}, {precision}", "peers.our_vjepa", bf16=bf16),
        Row(f"{THEIRS}, {precision}", "peers.vjepa2", bf16=bf16),
        Row(f"{THEIRS}, {precision}, use_sdpa off", "peers.vjepa2", bf16=bf16),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path, help="python of an environment with what vjepa2 imports")
    parser.add_argument("--vjepa2", type=Path, help="a checkout of facebookresearch/vjepa2 (MIT)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each implementation in a round")
    parser.add_argument("--positions", choices=POSITIONS, nargs="+", default=POSITIONS)
    parser.add_argument("--masks", choices=MASKS, nargs="+", default=MASKS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peaks = [measure_peaks()]
    groups = [Group(positions, masks) for positions in arguments.positions for masks in arguments.masks]
    for group in groups:
        measure(group, arguments)
    peaks.append(measure_peaks())
    report(groups, {name: max(peak[name] for peak in peaks) for name in peaks[0]}, arguments)


def measure(group: Group, arguments: argparse.Namespace) -> None:
    """Starts the workers of a group, lets them take turns, and fills in what they say."""
    clips = torch.rand(BATCH, FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    masks = same_masks() if group.masks == "same" else None
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(group.rows):
            scratch = Path(folder) / f"{number}"
            scratch.mkdir()
            torch.save(
                {
                    "clips": clips,
                    "masks": masks,
                    "positions": group.positions,
                    "is_fused": "use_sdpa off" not in row.name,
                    "vjepa2": None if arguments.vjepa2 is None else str(arguments.vjepa2.resolve()),
                },
                scratch / "given.pt",
            )
            _start(row, scratch, arguments)
        running = [row for row in group.rows if row.worker is not None]
        for number in range(-1, arguments.rounds):
            for row in running:
                # The first step of a turn finds the caches full of somebody else's weights; it is not counted.
                seconds = ask(row, f"{arguments.steps + 1}")["seconds"][1:]
                if number >= 0:
                    row.seconds.append(seconds)
        for row in running:
            row.facts |= ask(row, "")


def _start(row: Row, scratch: Path, arguments: argparse.Namespace) -> None:
    is_ours = row.name.startswith(OURS)
    if not is_ours and (arguments.vjepa2 is None or arguments.peers_python is None):
        row.absent = "not run: give --peers-python and --vjepa2 (see --help)"
        return
    if not is_ours and not (arguments.vjepa2 / "app" / "vjepa").is_dir():
        row.absent = f"not run: {arguments.vjepa2} is no checkout of facebookresearch/vjepa2"
        return
    python = Path(sys.executable) if is_ours else arguments.peers_python
    start(row, scratch / "given.pt", scratch, argparse.Namespace(peers_python=python, threads=arguments.threads))


def same_masks() -> list[tuple[Tensor, Tensor]]:
    """Context [b k] and target [b m] of V-JEPA's two masks, as jepalab draws them.

    Of the targets, whole tubes are left out at the end, down to the smallest target of the batch: vjepa2 knows no
    filling.
    """
    from jepalab.masks.tubes import Tubes

    found = []
    for tubes in (Tubes.short_range(GRID), Tubes.long_range(GRID)):
        mask = tubes(BATCH, torch.Generator().manual_seed(0))
        assert mask.present is not None
        target, present = (each.unflatten(-1, (GRID[0], -1))[:, 0] for each in (mask.target, mask.present))
        found.append((mask.context, target[:, :, : int(present.sum(-1).min())].flatten(1)))
    return found


def report(groups: list[Group], peaks: dict[str, float], arguments: argparse.Namespace) -> None:
    turns = f"{arguments.rounds} rounds of {arguments.steps} steps"
    print(f"{arguments.threads} thread(s), torch {torch.__version__}, {turns}")
    best = {dtype: max(rate for name, rate in peaks.items() if name.endswith(dtype)) for dtype in ("fp32", "bf16")}
    print("best matrix product, GFLOP/s: " + ", ".join(f"{dtype} {rate / 1e9:.0f}" for dtype, rate in best.items()))
    for group in groups:
        print(f'\npositions {group.positions}, masks "{group.masks}"')
        print(
            f"{'implementation':<35} {'clips/s':>8} {'(rounds)':>13} {'of vjepa2':>9} {'ms/step':>8} "
            f"{'GFLOP/clip':>10} {'of peak':>7} {'grown MiB':>9} {'trained':>8} {'masks ms':>8}"
        )
        for row in group.rows:
            print(_line(row, group.rows, best))
        for row in group.rows:
            if row.seconds and row.bf16 and not row.name.endswith("off"):
                print(_tokens(row))
    print(LEGEND)


LEGEND = """
clips/s     32 / median seconds of all steps; (rounds) the slowest and the fastest round's median.
of vjepa2   its clips/s over vjepa2's in the same precision, with `use_sdpa` on as in its configs/train. Under bf16
            autocast vjepa2 is helped: its own step asks for CUDA's autocast, which does nothing on a CPU.
GFLOP/clip  of forward and backward, counted on the implementation's own step by torch.utils.flop_counter (attention as
            its matrix products; of "own" masks of vjepa2 the mean over ten batches); of peak: GFLOP / seconds / the
            best matrix product above in the same precision.
grown MiB   largest resident memory of the process during the steps, less what it held after its imports.
masks ms    median time of the implementation's own sampler for the two masks of a batch.
tokens      of 256, the mean over batches; vjepa2 cuts off to the smallest mask of a batch, jepalab fills up targets to
            the largest that can be drawn."""


def _line(row: Row, rows: list[Row], best: dict[str, float]) -> str:
    if not row.seconds:
        return f"{row.name:<35} {row.absent}"
    facts, rate = row.facts, clips_per_second(row)
    (reference,) = [other for other in rows if other.name.startswith(THEIRS) and _is_like(other, row)]
    ratio = f"{rate / clips_per_second(reference):.2f}x" if reference.seconds else "-"
    each = [BATCH / statistics.median(seconds) for seconds in row.seconds]
    per_clip = facts["flops"] / BATCH
    grown = "-"
    if facts["resident_peak"] is not None:
        grown = f"{(facts['resident_peak'] - facts['resident_before']) / 2**20:.0f}"
    masks = "-" if facts["mask_seconds"] is None else f"{facts['mask_seconds'] * 1e3:.1f}"
    return (
        f"{row.name:<35} {rate:8.1f} {f'{min(each):.1f}-{max(each):.1f}':>13} {ratio:>9} {BATCH / rate * 1e3:8.1f} "
        f"{per_clip / 1e9:10.3f} {per_clip * rate / best['bf16' if row.bf16 else 'fp32']:7.1%} {grown:>9} "
        f"{facts['trained'] / 1e6:7.2f}M {masks:>8}"
    )


def _is_like(reference: Row, row: Row) -> bool:
    """Whether this is vjepa2 as it comes, in the precision of the row."""
    return reference.bf16 == row.bf16 and not reference.name.endswith("off")


def _tokens(row: Row) -> str:
    each = []
    for which, (context, target, filled) in zip(WHICH, row.facts["tokens"], strict=True):
        filling = "" if filled == target else f", filled up to {filled:.0f}"
        each.append(f"{which} {context:.1f} of context + {target:.1f} of target{filling}")
    return f"tokens of {row.name.partition(',')[0]}: " + "; ".join(each)


def clips_per_second(row: Row) -> float:
    return BATCH / statistics.median(second for seconds in row.seconds for second in seconds)


if __name__ == "__main__":
    main()
