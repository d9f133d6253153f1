"""The bytes of tensors: each byte kept once, however many tensors share it, and put back in one go."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)  # integers: a NaN equals itself, and no bit is lost


@dataclass(frozen=True)
class Region:
    """Bytes [start, stop) of a storage: as they are now (`live`) and as they were (`kept`), as words of one width."""

    start: int
    stop: int
    live: Tensor
    kept: Tensor


class Memory:
    """The parts of storages that tensors occupy, as they were when they were first seen."""

    def __init__(self) -> None:
        # By storage, not by tensor: views, tied weights and expanded tensors need no rule of their own. A region
        # holds its storage, so a storage's address is not given to another one meanwhile.
        self._regions: dict[int, list[Region]] = {}
        self._whole: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, tensor: Tensor) -> None:
        """Keeps what is not kept yet of a tensor's bytes."""
        if not in_plain_storage(tensor):
            if not tensor.is_meta and id(tensor) not in self._whole:
                self._whole[id(tensor)] = (tensor, tensor.detach().clone())
            return
        regions = self._regions.setdefault(tensor.untyped_storage()._cdata, [])
        for start, stop in list(_gaps(regions, *_extent(tensor))):
            live = _words(tensor.untyped_storage(), start, stop, tensor.device)
            insort(regions, Region(start, stop, live, live.clone()), key=lambda region: region.start)

    def covers(self, tensor: Tensor) -> bool:
        """Whether every byte of a tensor is kept."""
        if not in_plain_storage(tensor):
            return id(tensor) in self._whole or tensor.is_meta
        regions = self._regions.get(tensor.untyped_storage()._cdata, [])
        return next(_gaps(regions, *_extent(tensor)), None) is None

    def before(self, tensor: Tensor) -> Tensor:
        """A tensor's content as it was kept; `tensor` must be covered and stand where it stood."""
        if not in_plain_storage(tensor):
            return tensor.detach() if tensor.is_meta else self._whole[id(tensor)][1]
        start, stop = _extent(tensor)
        found = torch.empty(stop - start, dtype=torch.uint8, device=tensor.device)
        for region in self._regions[tensor.untyped_storage()._cdata]:
            low, high = max(start, region.start), min(stop, region.stop)
            if low < high:
                part = region.kept.view(torch.uint8)[low - region.start : high - region.start]
                found[low - start : high - start] = part
        if not found.numel():
            return torch.empty_like(tensor)
        return found.view(tensor.dtype).as_strided(tensor.shape, tensor.stride())

    @torch.no_grad()
    def restore(self) -> None:
        """Puts all bytes back. The tensors' version counters stay: to autograd, what is as it was is unchanged."""
        pairs: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
        for region in (region for regions in self._regions.values() for region in regions):
            storage = region.live.untyped_storage()
            if storage.nbytes() < region.stop:
                storage.resize_(region.stop)
            # Comparing first costs little on the CPU, and never writes to a file mapped for reading.
            if region.live.device.type != "cpu" or not torch.equal(region.live, region.kept):
                live, kept = pairs.setdefault(region.live.device, ([], []))
                live.append(region.live)
                kept.append(region.kept)
        for live, kept in pairs.values():
            torch._foreach_copy_(live, kept)
        for tensor, content in self._whole.values():
            tensor.copy_(content)


def in_plain_storage(tensor: Tensor) -> bool:
    """Whether a tensor is a strided window on bytes (not sparse, nested, distributed, without content ...)."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested or tensor.is_quantized:
        return False
    return not is_traceable_wrapper_subclass(tensor) and (tensor.data_ptr() != 0 or not tensor.numel())


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte and the byte past the last one, in the tensor's storage."""
    start = int(tensor.storage_offset()) * tensor.itemsize
    if not tensor.numel():
        return start, start
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (int(last) + 1) * tensor.itemsize


def _gaps(regions: list[Region], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The parts of [start, stop) outside every region; regions are sorted and apart."""
    for region in regions:
        if region.start >= stop:
            break
        if region.stop > start:
            if region.start > start:
                yield start, region.start
            start = region.stop
    if start < stop:
        yield start, stop


def _words(storage: torch.UntypedStorage, start: int, stop: int, device: torch.device) -> Tensor:
    """Bytes of a storage as a tensor of the widest words that fit."""
    address = storage.data_ptr()
    word = next(word for word in WORDS if not (address | start | stop) % word.itemsize)
    window = torch.empty(0, dtype=word, device=device)
    return window.set_(storage, start // word.itemsize, ((stop - start) // word.itemsize,), (1,))
