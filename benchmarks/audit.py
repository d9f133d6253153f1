"""What an audit costs: seconds and memory beside the plain training step, on masked pixels or masked embeddings.

    python benchmarks/audit.py [--step mae|ijepa] [--batch N] [--threads N] [--repeats N]

The network is a ViT-S/16 on pictures of 224 x 224 (22 million parameters) with what its method adds to it. Every
measurement runs in a process of its own; its peak is that of its own (anonymous) memory, looked up in /proc every few
milliseconds, so that the libraries' pages do not count. It needs Linux, and nothing else should run meanwhile.

    plain       a training step as a loop makes it: forward, backward, optimizer, moving average
    traced      the same with the audit's recorder watching
    in audit    a step of the audit's loop over shares: audit(steps=10) less audit(steps=1), by 9
    audit       a whole audit with 10 steps

The goal: a step in the audit costs at most 5 plain ones, and an audit at most twice the memory of plain training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOWER, LARGER = 5.0, 2.0  # the goal, against the plain step
WAYS = ("plain", "traced", "audit 1", "audit 10")
PATCH, GRID, DIM = 16, 14, 384


class ViT(nn.Module):
    """Patches [b, n, p] to embeddings; `keep` [b, k] leaves only these in."""

    def __init__(self, *, width_in: int, dim: int = DIM, depth: int = 12, num_heads: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(width_in, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(GRID**2, dim))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, num_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.embed(x) + self.positions
        x = x if keep is None else take(x, keep)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Predictor(nn.Module):
    """Embeddings of shown patches in, `width_out` numbers for each hidden one out."""

    def __init__(self, *, width_out: int, dim: int, depth: int) -> None:
        super().__init__()
        self.narrow, self.asked = nn.Linear(DIM, dim), nn.Parameter(torch.zeros(dim))
        self.body = ViT(width_in=dim, dim=dim, depth=depth)
        self.out = nn.Linear(dim, width_out)

    def forward(self, z: Tensor, shown: Tensor, hidden: Tensor) -> Tensor:
        tokens = self.asked.repeat(len(z), GRID**2, 1)
        tokens = tokens.scatter(1, shown.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]), self.narrow(z))
        return take(self.out(self.body(tokens)), hidden)


@dataclass
class Training:
    """A step with its data, modules and optimizer; `update` is what follows the optimizer."""

    step: Callable[[Tensor], Tensor]
    x: Tensor
    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    update: Callable[[], None] | None = None

    def plain(self) -> None:
        loss = self.step(self.x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.update:
            self.update()


def mae(batch: int) -> Training:
    """The pixels of 3 in 4 patches; encoder 12 x 384, decoder 4 x 192."""
    x, encoder = torch.randn(batch, 3, 224, 224), ViT(width_in=3 * PATCH**2)
    decoder = Predictor(width_out=3 * PATCH**2, dim=192, depth=4)

    def step(x: Tensor) -> Tensor:
        tokens = patches(x)
        shown, hidden = mask(tokens, num_shown=49)
        return F.mse_loss(decoder(encoder(tokens, keep=shown), shown, hidden), take(tokens, hidden))

    modules = {"encoder": encoder, "decoder": decoder}
    return Training(step, x, modules, adamw(modules))


def ijepa(batch: int) -> Training:
    """The embeddings of half of the patches, from an EMA teacher that sees all; predictor 6 x 192."""
    x, encoder = torch.randn(batch, 3, 224, 224), ViT(width_in=3 * PATCH**2)
    predictor, teacher = Predictor(width_out=DIM, dim=192, depth=6), deepcopy(encoder).requires_grad_(False)

    def step(x: Tensor) -> Tensor:
        tokens = patches(x)
        shown, hidden = mask(tokens, num_shown=98)
        z_pred = predictor(encoder(tokens, keep=shown), shown, hidden)
        with torch.no_grad():
            z_target = take(F.layer_norm(teacher(tokens), (DIM,)), hidden)
        return F.smooth_l1_loss(z_pred, z_target)

    @torch.no_grad()
    def update() -> None:
        for slow, fast in zip(teacher.parameters(), encoder.parameters(), strict=True):
            slow.lerp_(fast, 0.004)

    modules = {"encoder": encoder, "predictor": predictor, "teacher": teacher}
    return Training(step, x, modules, adamw({"encoder": encoder, "predictor": predictor}), update)


STEPS: dict[str, Callable[[int], Training]] = {"mae": mae, "ijepa": ijepa}


def take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def mask(tokens: Tensor, *, num_shown: int) -> tuple[Tensor, Tensor]:
    order = torch.rand(tokens.shape[:2]).argsort(dim=1)
    return order[:, :num_shown], order[:, num_shown:]


def patches(x: Tensor) -> Tensor:
    return x.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def adamw(modules: dict[str, nn.Module]) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for module in modules.values() for p in module.parameters()], lr=1e-4)


# Measuring -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Seconds of the best step, or of a whole audit, and the peak of the process in MB."""

    seconds: float
    memory: float


def measure(way: str, training: Training, repeats: int) -> float:
    """Seconds of one kind of work, in this process."""
    if way.startswith("audit"):
        from jepalab.audit import audit

        began = time.perf_counter()
        found = audit(
            training.step,
            {"x": training.x},
            parameters=training.modules,
            encoder=training.modules["encoder"],
            optimizer=training.optimizer,
            after_step=training.update,
            steps=int(way.removeprefix("audit ")),
        )
        assert found.verdict in ("generative", "JEPA-style"), found.verdict
        return time.perf_counter() - began
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        if way == "traced":
            with recorder():
                training.plain()
        else:
            training.plain()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def recorder() -> torch.overrides.TorchFunctionMode:
    from jepalab.audit.tape import Recorder

    return Recorder(leaf=lambda tensor: ("constant", ""))


class Peak(threading.Thread):
    """The largest memory this process had of its own, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes, self.done = 0.0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            text = Path("/proc/self/status").read_text(encoding="utf-8")
            now = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon"))
            self.megabytes = max(self.megabytes, now / 1000)


def child(options: argparse.Namespace) -> None:
    """Does one kind of work and prints what it cost."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    training = STEPS[options.step](options.batch)
    peak = Peak()
    peak.start()
    seconds = measure(options.way, training, options.repeats)
    peak.done.set()
    print(json.dumps({"seconds": seconds, "memory": peak.megabytes}))


def cost_of(way: str, options: argparse.Namespace) -> Cost:
    words = ["--step", options.step, "--batch", options.batch, "--threads", options.threads]
    words += ["--repeats", options.repeats, "--way", way]
    command = [sys.executable, __file__, *map(str, words)]
    said = subprocess.run(command, check=True, text=True, capture_output=True).stdout
    return Cost(**json.loads(said.splitlines()[-1]))


def report(options: argparse.Namespace) -> None:
    training = STEPS[options.step](1)
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in training.modules.items()}
    sizes = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in counts.items())
    print(f"{options.step}, batch {options.batch}, {options.threads} thread(s), torch {torch.__version__}; {sizes}\n")
    costs = {way: cost_of(way, options) for way in WAYS}
    plain = costs["plain"]
    looped = (costs["audit 10"].seconds - costs["audit 1"].seconds) / 9
    lines = {
        "plain": plain,
        "traced": costs["traced"],
        "in audit": Cost(looped, costs["audit 1"].memory),
        "audit": costs["audit 10"],
    }
    print(f"{'':<10} {'seconds':>8} {'x plain':>8} {'peak MB':>8} {'x plain':>8}")
    for name, cost in lines.items():
        slower, larger = cost.seconds / plain.seconds, cost.memory / plain.memory
        print(f"{name:<10} {cost.seconds:8.2f} {slower:8.2f} {cost.memory:8.0f} {larger:8.2f}")
    held = looped <= SLOWER * plain.seconds and costs["audit 10"].memory <= LARGER * plain.memory
    print(f"\n{'held' if held else 'MISSED'}: at most {SLOWER:g} x the time of a step and {LARGER:g} x the memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--step", choices=tuple(STEPS), default="ijepa")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        child(options)
    else:
        report(options)


if __name__ == "__main__":
    main()
