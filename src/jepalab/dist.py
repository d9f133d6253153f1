"""The engine: device, precision and processes. The only file that touches torch.distributed.

Start several processes with torchrun (or any launcher that sets RANK, WORLD_SIZE and MASTER_ADDR); without one,
everything here is the identity on one process.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Precision = Literal["auto", "fp32", "bf16"]

# Names of torch.cpu.get_capabilities: two sets of x86's instructions, and ARM's.
BFLOAT16_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def num_cores() -> int:
    """Cores that this process may keep busy: the machine's, less what its affinity and its container withhold."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, _quota()))


def _quota() -> int:
    """How many cores' worth of time the container is given (control groups, version 2 or 1), rounded up."""
    try:
        if (both := CONTROL_GROUPS / "cpu.max").exists():
            quota, period = both.read_text().split()
        else:
            quota, period = (
                (CONTROL_GROUPS / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return math.ceil(int(quota) / int(period)) if int(quota) > 0 else sys.maxsize
    except (OSError, ValueError):  # no control groups, no limit in them ("max"), or none that can be read
        return sys.maxsize


def keep_freed_memory() -> None:
    """Lets this process keep large tensors' memory for the next ones, in place of asking the system for it each time.

    Fresh pages have to be mapped and zeroed: a tenth of a training step on frames of 65 x 65 on the CPU. Only glibc
    can be told; elsewhere this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def num_processes() -> int:
    """How many processes train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them; 0 is the one that writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _MeanOverProcesses(torch.autograd.Function):
    """Backward is again a mean: every process computes the same loss from the mean, and DDP averages gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total / num_processes()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total / num_processes()


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of x over all processes, differentiable: a statistic of the whole batch, not of one process's part."""
    return x if num_processes() == 1 else _MeanOverProcesses.apply(x)  # pyrefly: ignore[bad-return]


class StepSeeded(nn.Module):
    """Draws random numbers as a function of a seed and of how many training steps there were.

    Fresh ones at each training step, the same on every process and in every resumed run; in evaluation, the same for
    the same step. The count stays on the CPU: a GPU that is asked for a number has to finish all its work first.
    """

    step: Tensor
    here: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("here", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.here.device

    def draw(self) -> torch.Generator:
        """A generator on the CPU for this step; it counts the step where this module is in training."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.step)) % 2**63)
        if self.training:
            self.step += 1
        return generator

    def _apply(self, fn: Any, recurse: bool = True) -> StepSeeded:
        step = self.step
        super()._apply(fn, recurse)
        self.step = step
        return self


def carry(x: Tensor, device: torch.device) -> Tensor:
    """x on the device, without waiting for what the device still has to do."""
    if device.type != "cuda" or x.is_cuda:
        return x.to(device)
    return x.contiguous().pin_memory().to(device, non_blocking=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is drawn from torch's global generator inside comes from this seed; outside it goes on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[Any]:
    """Inside, matrix products run in this precision; weights and sums stay in float32.

    precision  "bf16", "fp32", or "auto": bf16 where the device multiplies it in hardware, fp32 elsewhere. A CPU
               without AVX512-BF16 or AMX takes hundreds of times as long over a product in bf16 as over one in fp32.
    """
    if resolve(precision, device) == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def resolve(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision that "auto" means on a device; another is itself."""
    if precision == "auto":
        return "bf16" if _multiplies_bfloat16(device.type) else "fp32"
    return precision


@cache
def _multiplies_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    # What older releases of torch lack; they tell one of the instruction sets alone.
    known = getattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()})()
    return torch.backends.mkldnn.is_available() and any(known.get(name, False) for name in BFLOAT16_PRODUCTS)


class Engine:
    """Where a run computes: device, precision, and its share of the batch. Use as a context manager.

    device     "auto" takes CUDA, otherwise the CPU: MPS was never tested, and lacks double precision.
    precision  as `autocast` takes it.
    """

    def __init__(self, *, device: str = "auto", precision: Precision = "auto") -> None:
        self.owns_group = "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized()
        if self.owns_group:
            backend = "nccl" if device in ("auto", "cuda") and torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=10))
        self.device = _find_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device.index or int(os.environ.get("LOCAL_RANK", 0)))
        self.precision = resolve(precision, self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.precision)

    def share(self, x: Tensor) -> Tensor:
        """This process's rows of a global batch, on its device."""
        if len(x) % num_processes():
            raise ValueError(
                f"A batch of {len(x)} clips cannot be shared by {num_processes()} processes; use a multiple of it."
            )
        rows = len(x) // num_processes()
        return x[rank() * rows : (rank() + 1) * rows].to(self.device, non_blocking=self.device.type == "cuda")

    def distribute(self, module: nn.Module) -> nn.Module:
        """The module on this device, its gradients averaged over the processes."""
        module = module.to(self.device)
        if num_processes() == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.owns_group:
            close_process_group(after_error=kind is not None)


def close_process_group(*, after_error: bool = False) -> None:
    """Ends the process group cleanly: wait for each other, drop what still holds gloo's threads, then destroy it.

    A plain destroy aborts now and then on torch 2.13 ("terminate called without an active exception", #190489).
    After an error the others may never come, so nobody is waited for.
    """
    if not after_error:
        dist.barrier()
    gc.collect()
    dist.destroy_process_group()


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(_best_device() if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"No device {name!r} here; take auto, cpu, or cuda or mps where there is one. ({error})"
        ) from error
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "cpu"
